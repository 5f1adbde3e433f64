"""Compares a workbook with PyTorch, number by number, on its inputs and on others.

On the inputs of one file a wrong formula may show a right number: with an ε typed in, say. So
where LibreOffice is installed, copies of the file get inputs drawn at random and are recalculated.
"""

import math
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from openpyxl import Workbook
from openpyxl.formatting.formatting import ConditionalFormattingList
from openpyxl.worksheet.cell_range import MultiCellRange

from backstage.workbook.inputs import LISTS, UNDEFINED, InputError, Inputs, plain
from backstage.workbook.reader import Reader
from backstage.workbook.reference import reference
from backstage.workbook.tolerance import allowances


@dataclass(frozen=True)
class Row:
    """One quantity: its number of cells, the largest difference, what is allowed, and where."""

    quantity: str
    cells: int
    difference: float  # absolute; inf where there is no number, or a number where nan belongs
    allowed: float
    where: str  # "Illustration!C18"
    drawn: bool = False  # whether it is about inputs drawn at random, not the file's own

    @property
    def agrees(self) -> bool:
        return self.difference <= self.allowed


@dataclass(frozen=True)
class Report:
    """What `check` found; `str(report)` is the table, `report.agrees` the verdict."""

    inputs: Inputs
    values: dict[str, np.ndarray]  # quantity -> the sheet's numbers, nan where there is none
    expected: dict[str, np.ndarray]  # quantity -> PyTorch's
    rows: list[Row]
    stale: str = ""  # "", "missing" or "old": what was wrong with the values in the file
    draws: int = 0  # how many random inputs were tried
    typed_over: tuple[str, ...] = ()  # cells that hold a value where a formula was

    @property
    def agrees(self) -> bool:
        return not self.typed_over and all(row.agrees for row in self.rows)

    @property
    def recalculated(self) -> bool:
        return self.draws > 0

    def __str__(self) -> str:
        lines = [f"{'quantity':<18}{'cells':>6}{'largest difference':>20}{'allowed':>10}   at"]
        for row in self.rows:
            gap = "no number" if math.isinf(row.difference) else f"{row.difference:.1e}"
            end = "" if row.agrees else "  DIFFERS" + " (inputs drawn at random)" * row.drawn
            lines.append(f"{row.quantity:<18}{row.cells:>6}{gap:>20}{row.allowed:>10.1e}   "
                         f"{row.where:<20}{end}".rstrip())  # fmt: skip
        return "\n".join([*lines, *self.notes(), self.verdict()])

    def notes(self) -> list[str]:
        """Sentences about the file itself."""
        out = []
        if self.stale:
            out.append({
                "missing": "The file has no values beside its formulas: the program that saved it "
                "does not calculate. LibreOffice recalculated a copy.",
                "old": "The file shows old values, not those of its formulas. LibreOffice "
                "recalculated a copy.",
            }[self.stale])  # fmt: skip
        if self.draws:
            out.append(f"Its formulas were also tried on {self.draws} sets of inputs drawn at "
                       "random.")  # fmt: skip
        if self.typed_over:
            cells = ", ".join(self.typed_over[:5]) + (" ..." if len(self.typed_over) > 5 else "")
            out.append(f"Values stand where formulas were, and will not follow: {cells}.")
        return out

    def verdict(self) -> str:
        """The last line."""
        total, wrong = sum(r.cells for r in self.rows), [r for r in self.rows if not r.agrees]
        if wrong:
            return f"Sheet and PyTorch differ in {len(wrong)} of {len(self.rows)} quantities."
        if self.typed_over:
            return f"{len(self.typed_over)} of {total} numbers cannot follow: type formulas again."
        return f"{total} numbers: sheet and PyTorch agree."


def check(path: str | Path) -> Report:
    """Compares a workbook with PyTorch in float64; the file itself is only read.

    Raises InputError, one sentence with sheet and cell, for what cannot be computed with.
    """
    reader = Reader(Path(path))
    inputs = reader.inputs()
    expected = reference(inputs)
    cells = {quantity: reader.quantity(quantity, want) for quantity, want in expected.items()}
    over = [where for found in cells.values() for f, _, where in found if f.data_type != "f"]
    numbers = (c for q, found in cells.items() if expected[q].dtype.kind == "f" for c in found)
    missing = any(f.data_type == "f" and s.value is None for f, s, _ in numbers)
    if soffice() is None:
        if missing:
            raise InputError(
                f"{Path(path).name} has formulas without values, because the program that saved it "
                "does not calculate, so nothing can be said: open it in a spreadsheet program and "
                "save it there, or install LibreOffice."
            )
        return compare(reader, inputs, typed_over=tuple(over))
    draws = [drawn(seed) for seed in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        copies = recalculated(list(_copies(reader, [inputs, *draws], Path(folder))), Path(folder))
        own, *others = (
            compare(reader.showing(copy), given)
            for copy, given in zip(copies, [inputs, *draws], strict=True)
        )
    stale = "missing" if missing else "old" if _moved(reader, own) else ""
    rows = [max(same, key=_badness) for same in zip(own.rows, *_marked(others), strict=True)]
    return Report(inputs, own.values, expected, rows, stale, len(draws), tuple(over))


def compare(reader: Reader, inputs: Inputs, typed_over: tuple[str, ...] = ()) -> Report:
    """The values that a workbook shows against PyTorch's for these inputs, by quantity."""
    expected, rows, values = reference(inputs), [], {}
    limits = allowances(inputs, expected)
    for quantity, wanted in expected.items():
        cells, limit = reader.quantity(quantity, wanted), limits[quantity].ravel()
        shown = [cell.value for _, cell, _ in cells]
        gaps = [_difference(value, want) for value, want in zip(shown, wanted.flat, strict=True)]
        worst = max(range(len(gaps)), key=lambda k: (gaps[k] > limit[k], gaps[k]))
        rows.append(Row(quantity, len(gaps), gaps[worst], limit[worst], cells[worst][2]))
        numbers = [value if _is_number(value) else math.nan for value in shown]
        values[quantity] = np.reshape(numbers, wanted.shape)
    return Report(inputs, values, expected, rows, typed_over=typed_over)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _difference(shown, want) -> float:
    """Absolute difference; the word for nan agrees with nan, a text only with itself."""
    if isinstance(want, str):
        return 0.0 if (shown or "") == want else math.inf
    if math.isnan(want):
        return 0.0 if shown == UNDEFINED else math.inf
    return abs(shown - want) if _is_number(shown) and math.isfinite(shown) else math.inf


def _badness(row: Row) -> tuple[bool, bool, float]:
    """Orders reports on one quantity: wrong ones first, the file's own before drawn ones."""
    return not row.agrees, not row.drawn, row.difference


def _marked(reports: list[Report]) -> list[list[Row]]:
    return [[Row(**{**vars(row), "drawn": True}) for row in report.rows] for report in reports]


def _moved(reader: Reader, report: Report) -> bool:
    """Whether recalculating changed a number by more than rounding."""
    limits = allowances(report.inputs, report.expected)
    return any(
        _difference(cell.value, new) > 2 * limit
        for quantity, array in report.values.items() if report.expected[quantity].dtype.kind == "f"
        for (_, cell, _), new, limit in zip(reader.quantity(quantity, array), array.flat,
                                            limits[quantity].flat, strict=True)
    )  # fmt: skip


def drawn(seed: int) -> Inputs:
    """Inputs drawn at random, of a size at which every term of every formula counts."""
    rng = np.random.default_rng(seed)
    pixels = {q: rng.normal(1, 2, (4, 4, 2, 2)) for q in ("x", "next_x", "step2_x", "step3_x")}
    choices = {q: rng.choice(LISTS[q]).item() for q in LISTS if q.startswith("explain")}
    choices["explain_norm"] = LISTS["explain_norm"][seed % 3]
    return Inputs(
        **pixels, **choices, dy=rng.normal(0.5, 1, (4, 4, 2, 2)), add=rng.normal(0, 2, 4),
        multiply=rng.uniform(0.5, 2, 4), gamma=rng.uniform(0.5, 2, 4), beta=rng.normal(1, 1, 4),
        eps=rng.uniform(0.1, 1), groups=(1, 4, 2)[seed % 3], momentum=rng.uniform(0.2, 0.8),
    )  # fmt: skip


def _copies(reader: Reader, typed: list[Inputs], folder: Path):
    """The workbook with each of these inputs typed in, bare; the reader's formulas are used up."""
    bare(reader.formulas)
    for k, inputs in enumerate(typed):
        for quantity, array in inputs.quantities().items():
            for (cell, *_), value in zip(reader.quantity(quantity, array), array.flat, strict=True):
                cell.value = plain(value)
        path = folder / f"typed{k}.xlsx"
        try:
            reader.formulas.save(path)
        except Exception as error:  # openpyxl cannot write all that it reads
            raise InputError("The workbook cannot be copied: save it again in a spreadsheet "
                             "program as .xlsx.") from error  # fmt: skip
        yield path


def bare(book: Workbook) -> Workbook:
    """The same workbook without what takes most of the time in a copy and changes no number."""
    for sheet in book.worksheets:
        sheet.conditional_formatting = ConditionalFormattingList()
        sheet.merged_cells = MultiCellRange()
        sheet._charts, sheet._images = [], []  # openpyxl has no other way to take them out
    return book


def soffice() -> str | None:
    """LibreOffice's program, or None where it is not installed."""
    return shutil.which("soffice") or shutil.which("libreoffice")


ALWAYS_RECALCULATE = """<?xml version="1.0" encoding="UTF-8"?>
<oor:items xmlns:oor="http://openoffice.org/2001/registry">
<item oor:path="/org.openoffice.Office.Calc/Formula/Load">
<prop oor:name="OOXMLRecalcMode" oor:op="fuse"><value>0</value></prop></item>
</oor:items>"""


def recalculated(paths: list[Path], folder: Path, kind: str = "xlsx") -> list[Path]:
    """Copies of workbooks with all formulas recalculated by LibreOffice, in one start of it.

    `folder` is a temporary folder for the copies and a profile of their own, so that an open
    LibreOffice is not disturbed.
    """
    for name in ("in", "out", "profile/user"):
        (folder / name).mkdir(parents=True)
    (folder / "profile/user/registrymodifications.xcu").write_text(ALWAYS_RECALCULATE)
    copies = [folder / "in" / f"{k}.xlsx" for k in range(len(paths))]
    for path, copy in zip(paths, copies, strict=True):
        shutil.copyfile(path, copy)
    profile = f"-env:UserInstallation={(folder / 'profile').resolve().as_uri()}"
    command = [soffice(), profile, "--headless", "--convert-to", kind]
    out = [folder / "out" / f"{copy.stem}.{kind}" for copy in copies]
    try:
        subprocess.run([*command, "--outdir", folder / "out", *copies], capture_output=True,
                       timeout=120 + 5 * len(paths), check=True)  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError("LibreOffice could not recalculate a copy of the workbook.") from error
    if not all(path.exists() for path in out):
        raise InputError("LibreOffice wrote no recalculated copy of the workbook.")
    return out
