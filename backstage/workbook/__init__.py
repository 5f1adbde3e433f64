"""The lesson's workbook: built, read, and checked against PyTorch.

Each sheet has a file of its own; `workbook.pictures` draws them for notebooks.
"""

from backstage.workbook.build import build
from backstage.workbook.check import check
from backstage.workbook.inputs import DY, STEP2_X, STEP3_X, InputError, Inputs, X
from backstage.workbook.reader import read_inputs
from backstage.workbook.reference import NORMS, index_sets, reference

__all__ = [
    "DY", "NORMS", "STEP2_X", "STEP3_X", "X", "InputError", "Inputs", "build", "check",
    "index_sets", "read_inputs", "reference",
]  # fmt: skip
