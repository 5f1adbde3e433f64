"""A formula of the workbook to mend: read from the file, and computed on numbers of our own."""

import contextlib
import re
import zipfile
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from openpyxl import load_workbook
from openpyxl.formula import Tokenizer
from openpyxl.utils import range_boundaries

from exercises.cases import Draw
from exercises.exercise import Exercise, Mistake, NotYet, Unfit
from machinery.files import replacing
from workbook.build import WORKBOOK

CELL, AREA = "P17", "P8:Q15"  # batch norm's variance of channel 2, its pixels
SHEET = "xl/worksheets/sheet2.xml"  # Illustration, in the workbook as we build it
BROKEN = f"=VAR({AREA})"
LEFT, TOP = 14, 8  # N8, the first pixel of batch norm's table: 4 channels of 2 columns, 8 rows

# -------------------------------------------------------------------------- the learner's copy


def my_copy(path: str | Path, formula=None) -> Path:
    """A copy of the workbook with one wrong formula, for the learner to mend; gives its path.

    A copy that is there already is kept, so that it can be mended in a spreadsheet program. With a
    formula, it is written anew with that formula in the cell.
    """
    path = Path(path)
    if isinstance(formula, str):
        write_copy(path, formula)
    elif not path.exists():
        write_copy(path, BROKEN)
    return path


def write_copy(path: Path, formula: str) -> None:
    text = f'<c r="{CELL}"\\1><f>{escape(formula.lstrip("="))}</f></c>'.replace("\\1", "{}")
    packed = BytesIO()
    with (
        zipfile.ZipFile(WORKBOOK) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for item in source.infolist():
            data = source.read(item)
            if item.filename == SHEET:
                cell = re.search(rf'<c r="{CELL}"([^>]*)>.*?</c>'.encode(), data)
                new = text.format(cell[1].decode()).encode()
                data = data[: cell.start()] + new + data[cell.end() :]
            out.writestr(item, data)
    with replacing(path) as file:
        file.write(packed.getvalue())


# -------------------------------------------------------------------------------- the checker


def content(answer):
    """What stands in the cell: a formula as text, or a value."""
    if isinstance(answer, str) and answer.startswith("="):
        return answer
    path = Path(answer)
    return _content(path, path.stat().st_mtime if path.exists() else 0.0)


@lru_cache(maxsize=1)
def _content(path: Path, when: float):
    try:
        with contextlib.closing(load_workbook(path, read_only=True)) as book:
            return book["Illustration"][CELL].value
    except OSError as error:
        raise Unfit(f"there is no file {path.name}; my_copy writes one.") from error
    except Exception as error:  # openpyxl raises whatever it stumbles over
        raise Unfit(
            f"{path.name} cannot be read: delete it, and my_copy writes another."
        ) from error


def shows(answer, pixels: np.ndarray):
    found = content(answer)
    if found in (None, BROKEN):
        raise NotYet
    is_formula = isinstance(found, str) and found.startswith("=")
    number = is_formula and not re.search("[A-Za-z]", found)
    yield "whether the cell follows its pixels", "yes" if is_formula and not number else "no"
    yield "the variance of channel 2", computed(found, pixels) if is_formula else found


def computed(formula: str, pixels: np.ndarray):
    """The formula's value, where batch norm's table has these pixels (8 rows, 8 columns)."""
    expression = translated(formula)
    scope = FUNCTIONS | {"cells": lambda area: cells(area, pixels), "__builtins__": {}}
    try:
        with np.errstate(all="ignore"):
            value = eval(expression, scope)  # only what `translated` lets through
        return float(np.squeeze(value))
    except ZeroDivisionError as error:
        raise Unfit("the formula divides by 0.") from error
    except (SyntaxError, TypeError, ValueError) as error:
        raise Unfit(f"the formula {formula} cannot be computed.") from error


def cells(area: str, pixels: np.ndarray) -> np.ndarray:
    left, top, right, bottom = range_boundaries(area)
    means = pixels.reshape(8, 4, 2).mean((0, 2)).repeat(2)  # row 16, in the first of two columns
    table = np.vstack([pixels, means])
    if left < LEFT or right > LEFT + 7 or top < TOP or bottom > TOP + 8:
        raise Unfit(f"the formula reads {area}, outside batch norm's table, N8:U16.")
    return table[top - TOP : bottom - TOP + 1, left - LEFT : right - LEFT + 1]


def devsq(*v):
    return np.sum((v[0] - np.mean(v[0])) ** 2)


FUNCTIONS = {
    "AVERAGE": np.mean, "SUM": np.sum, "COUNT": np.size, "SQRT": np.sqrt, "POWER": np.power,
    "MAX": np.max, "MIN": np.min, "ABS": np.abs, "DEVSQ": devsq, "ROWS": np.shape,
    "SUMSQ": lambda v: np.sum(v**2), "SUMPRODUCT": lambda *v: np.sum(np.prod(v, axis=0)),
    "SUMXMY2": lambda a, b: np.sum((a - b) ** 2),
    "VAR": lambda v: np.var(v, ddof=1), "VAR_S": lambda v: np.var(v, ddof=1),
    "VARP": np.var, "VAR_P": np.var,
    "STDEV": lambda v: np.std(v, ddof=1), "STDEV_S": lambda v: np.std(v, ddof=1),
    "STDEVP": np.std, "STDEV_P": np.std,
    "IF": lambda test, yes, no=0.0: yes if np.all(test) else no,
}  # fmt: skip
OPERATORS = {"^": "**", "=": "==", "<>": "!="}


def translated(formula: str) -> str:
    """The formula as an expression of Python; Unfit for what is unknown here."""
    return "".join(_translated(token) for token in Tokenizer(formula).items)


def _translated(token) -> str:
    kind, value = token.type, token.value
    if kind == "FUNC" and token.subtype == "OPEN":
        name = value.rstrip("(").upper().removeprefix("_XLFN.").replace(".", "_")
        if name not in FUNCTIONS:
            raise Unfit(f"the checker does not know {value}): try COUNT, AVERAGE, DEVSQ, VARP …")
        return f"{name}("
    if kind == "OPERAND" and token.subtype == "RANGE":
        area = {"bn_mean_2": "P16"}.get(value.lower(), value.replace("$", ""))
        if not re.fullmatch(r"[A-Z]{1,3}\d+(:[A-Z]{1,3}\d+)?", area):
            raise Unfit(f"the formula reads {value}: it needs the pixels, {AREA}, alone.")
        return f'cells("{area}")'
    if kind == "OPERAND":
        return repr(value) if token.subtype == "TEXT" else str(float(value))
    if kind == "OPERATOR-INFIX":
        return OPERATORS.get(value, value)
    known = {"SEP": ",", "WHITE-SPACE": " ", "OPERATOR-POSTFIX": "/100"}
    return known.get(kind, value)  # what is left: brackets and signs


# ------------------------------------------------------------------------------ the exercise


def recipe(formula: str = f"=DEVSQ({AREA})/COUNT({AREA})"):
    return formula


def cases() -> list[dict]:
    return [{"pixels": Draw(k).normal(8, 8, mean=3.0).numpy()} for k in range(3)]


MISTAKES = (
    Mistake(
        "a number typed over the formula",
        "It will not follow when a pixel changes: type a formula.",
        {"formula": "=2.734375"},
    ),
    Mistake(
        "the neighbouring channel's pixels",
        f"Channel 2 stands in {AREA}.",
        {"formula": "=VARP(R8:S15)"},
    ),
    Mistake(
        "one image's pixels",
        f"Batch norm takes all four images: {AREA}.",
        {"formula": "=VARP(P8:Q9)"},
    ),
    Mistake(
        "the standard deviation",
        "The cell is to show the variance, before any root.",
        {"formula": f"=STDEVP({AREA})"},
    ),
    Mistake(
        "a variance divided by n - 1, again",
        "VAR, VAR.S and DEVSQ/(n - 1) are the same: what normalizes is divided by n.",
        {"formula": f"=DEVSQ({AREA})/15"},
    ),
    Mistake(
        "a sum that is not divided",
        "DEVSQ is the sum of the squared deviations: divide it by their number.",
        {"formula": f"=DEVSQ({AREA})"},
    ),
    Mistake(
        "the mean of the squares",
        "Take the mean off before you square.",
        {"formula": f"=SUMSQ({AREA})/COUNT({AREA})"},
    ),
)

EXERCISES = (Exercise("workbook_cell", f"=VARP({AREA})", recipe, MISTAKES, cases, shows),)
