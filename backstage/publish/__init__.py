"""Run by hand or by make: notebooks without a browser, and the README's numbers on speed."""
