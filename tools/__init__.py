"""Run by hand or by make: notebooks executed without a browser, and the README's numbers on speed."""
