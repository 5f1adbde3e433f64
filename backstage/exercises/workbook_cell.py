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
from openpyxl.utils import range_boundaries
from openpyxl.worksheet.formula import ArrayFormula

from backstage.exercises.cases import Draw
from backstage.exercises.exercise import Exercise, Mistake, NotYet, Unfit
from backstage.exercises.spreadsheet import Formula, Wrong, single
from backstage.files import replacing
from backstage.workbook.build import WORKBOOK

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
    """What stands in the cell: a formula as text, in {} if it is an array formula, or a value."""
    if isinstance(answer, str) and answer.startswith("="):
        return answer
    if not isinstance(answer, str | Path):
        raise Unfit("give what my_copy returns, or a formula as text.")
    path = Path(answer)
    return _content(path, path.stat().st_mtime if path.exists() else 0.0)


@lru_cache(maxsize=1)
def _content(path: Path, when: float):
    try:
        with contextlib.closing(load_workbook(path, read_only=True)) as book:
            found = book["Illustration"][CELL].value
    except OSError as error:
        raise Unfit(f"there is no file {path.name}; my_copy writes one.") from error
    except Exception as error:  # openpyxl raises whatever it stumbles over
        raise Unfit(
            f"{path.name} cannot be read: delete it, and my_copy writes another."
        ) from error
    return f"{{{found.text}}}" if isinstance(found, ArrayFormula) else found


def shows(answer, pixels: np.ndarray):
    found = content(answer)
    if found in (None, BROKEN):
        raise NotYet
    is_formula = isinstance(found, str) and found.startswith(("=", "{="))
    number = is_formula and not re.search("[A-Za-z]", found)
    yield "whether the cell follows its pixels", "yes" if is_formula and not number else "no"
    yield "the variance of channel 2", computed(found, pixels) if is_formula else found
    if is_formula:  # where something small that was added shows
        small = computed(found, pixels / 10)
        scaled = small if isinstance(small, str) else 100 * small
        yield "100 times the variance of pixels a tenth as large", scaled


def computed(formula: str, pixels: np.ndarray):
    """The formula's value, where batch norm's table has these pixels (8 rows, 8 columns)."""
    arrays = formula.startswith("{")
    found = Formula(formula.strip("{}"), lambda area: cells(area, pixels), arrays).value()
    found = found if arrays else single(found)
    if isinstance(found, Wrong):
        why = " Arithmetic on a whole range needs an array formula." * (found == "#VALUE!")
        raise Unfit(f"a spreadsheet shows {found} for {formula}.{why}")
    return found if isinstance(found, str) else float(np.nan_to_num(np.ravel(found)[0]))


def cells(named: str, pixels: np.ndarray) -> np.ndarray:
    """The values of a range, with nan for an empty cell: row 16 has means in every second one."""
    area = re.sub(r"^('Illustration'|Illustration)!", "", named, flags=re.IGNORECASE)
    area = {"BN_MEAN_2": "P16"}.get(area.upper(), area.upper().replace("$", ""))
    if not re.fullmatch(r"[A-Z]{1,3}\d+(:[A-Z]{1,3}\d+)?", area):
        raise Unfit(f"the formula reads {named}: it needs the pixels, {AREA}, alone.")
    left, top, right, bottom = range_boundaries(area)
    if left < LEFT or right > LEFT + 7 or top < TOP or bottom > TOP + 8:
        raise Unfit(f"the formula reads {named}, outside batch norm's table, N8:U16.")
    means = np.full(8, np.nan)
    means[::2] = pixels.reshape(8, 4, 2).mean((0, 2))
    table = np.vstack([pixels, means])
    return table[top - TOP : bottom - TOP + 1, left - LEFT : right - LEFT + 1]


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
    Mistake(
        "ε added",
        "The cell is to show the variance alone: ε comes in later, under the root.",
        {"formula": f"=VARP({AREA})+1E-5"},
    ),
    Mistake(
        "a range that reaches into the row of the means",
        f"Row 16 has the means: the pixels end above it, in {AREA}.",
        {"formula": "=VARP(P8:Q16)"},
    ),
    Mistake(
        "the variances of the images averaged",
        "The images' means differ too, and that spread is missing: take all pixels at once.",
        {"formula": "=AVERAGE(VARP(P8:Q9),VARP(P10:Q11),VARP(P12:Q13),VARP(P14:Q15))"},
    ),
)

EXERCISES = (Exercise("workbook_cell", f"=VARP({AREA})", recipe, MISTAKES, cases, shows),)
