"""What a grid can measure: each module has dataclasses of settings and a function of one run."""
