"""The lesson's workbook: built, and checked against PyTorch.

given = inputs()      # the delivered numbers: given.x, given.gamma, given.eps, given.groups ...
found = reference()   # what PyTorch makes of them: found["bn_xhat"], found["gn_y"] ...
"""

from backstage.workbook.build import build
from backstage.workbook.check import check
from backstage.workbook.expected import reference
from backstage.workbook.given import InputError, Inputs

inputs = Inputs
__all__ = ["InputError", "Inputs", "build", "check", "inputs", "reference"]
