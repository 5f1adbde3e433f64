"""What the sources claim, a module for each notebook that puts claims to the test.

A module has ``CLAIMS``, and ``lines(folder)``: its lines of the table of verdicts, in their order.
"""
