"""The lesson's workbook: built, read, and checked against PyTorch.

    given = inputs()      # the delivered numbers: given.x, given.gamma, given.eps, given.groups ...
    found = reference()   # what PyTorch makes of them: found["bn_xhat"], found["gn_y"] ...

Each sheet has a file of its own; `workbook.pictures` draws them for notebooks.
"""

from backstage.workbook import expected
from backstage.workbook import reference as of_arrays
from backstage.workbook.build import build
from backstage.workbook.check import check
from backstage.workbook.given import inputs
from backstage.workbook.inputs import DY, STEP2_X, STEP3_X, InputError, Inputs, X
from backstage.workbook.reader import read_inputs
from backstage.workbook.reference import NORMS, index_sets

__all__ = [
    "DY", "NORMS", "STEP2_X", "STEP3_X", "X", "InputError", "Inputs", "build", "check",
    "index_sets", "inputs", "read_inputs", "reference",
]  # fmt: skip


def reference(given=None):
    """Every computed number by its name: `expected.reference`, or of this package's `Inputs`."""
    of = of_arrays if isinstance(given, Inputs) else expected
    return of.reference(given)
