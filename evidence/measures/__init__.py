"""What the sweeps behind "Why it works" measure: a file for each claim."""
