"""Reads a workbook that a person may have edited: by the names of its cells."""

import copy
import warnings
import zipfile
from datetime import date
from pathlib import Path

import torch
from openpyxl import load_workbook
from openpyxl.formatting.formatting import ConditionalFormattingList
from openpyxl.utils.datetime import to_excel
from openpyxl.worksheet.cell_range import MultiCellRange

from backstage.workbook.given import LIMIT, LISTS, RANGES, TINY, InputError, Inputs, allowed
from backstage.workbook.table import INPUTS, QUANTITIES, Quantity

BOOK = "xl/workbook.xml"


class Reader:
    """A workbook opened twice: for its formulas, and for the values it shows."""

    def __init__(self, path: Path):
        _refuse(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of parts that openpyxl does not know
                self.formulas = load_workbook(path)
                self.values = load_workbook(path, data_only=True)
        except Exception as error:  # openpyxl raises whatever it stumbles over
            told = "is damaged: open it in a spreadsheet program and save it as .xlsx again."
            raise InputError(f"{path.name} {told}") from error
        self.cells = {name: self._cells(q) for name, q in QUANTITIES.items()}

    def _cells(self, q: Quantity) -> list:
        """The cells of a quantity's numbers, in the order of its array."""
        found = {}
        for name, indices in q.names().items():
            try:
                ((sheet, area),) = self.formulas.defined_names[name].destinations
                cells = self.formulas[sheet.replace("''", "'")][area]
                rows = cells if isinstance(cells, tuple) else ((cells,),)
                found |= dict(zip(indices, [c for row in rows for c in row], strict=True))
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(f"This is not the lesson's workbook, or its name {name} is lost "
                                 "or leads elsewhere: build a fresh one.") from error  # fmt: skip
        return [found[index] for index in q.indices()]

    def shown(self, name: str) -> list:
        """The values of a quantity's cells."""
        return [self.values[cell.parent.title][cell.coordinate].value for cell in self.cells[name]]

    def inputs(self) -> Inputs:
        """What is typed in; InputError, with sheet and cell, for anything that is not allowed."""
        found = {}
        for name, q in INPUTS.items():
            cells = zip(self.shown(name), self.cells[name], strict=True)
            found[name], *more = (_typed(name, value, where(cell)) for value, cell in cells)
            if more:
                numbers = torch.tensor([found[name], *more], dtype=torch.float64)
                found[name] = numbers.view(q.shape)
        return Inputs(**found)

    def displaced(self) -> dict[str, str]:
        """Quantities whose names lead away from what a person sees: quantity -> what is wrong.

        Whoever inserts a row moves all names below it alike. A name that leaves its row or column
        alone, or leads to a hidden cell, was moved by hand.
        """
        lines, wrong = {}, {}  # (sheet, axis, where it was) -> {where it is: quantities}
        for name, q in QUANTITIES.items():
            for index, cell in zip(q.indices(), self.cells[name], strict=True):
                places = zip((q.sheet, *q.place(*index)), (cell.parent, cell.row, cell.column),
                             strict=True)  # fmt: skip
                for axis, (was, now) in enumerate(places):
                    lines.setdefault((q.sheet, axis, was), {}).setdefault(now, []).append(name)
                if _hidden(cell):
                    wrong.setdefault(name, f"{where(cell)} is hidden")
        for found in lines.values():
            for names in sorted(found.values(), key=len)[:-1]:
                wrong |= dict.fromkeys(names, "a name was moved away from its number")
        return wrong

    def save(self, path: Path, given: Inputs) -> None:
        """A copy with these inputs, without what takes time and changes no number."""
        for name, value in given.values().items():
            numbers = value.flatten().tolist() if isinstance(value, torch.Tensor) else [value]
            for cell, number in zip(self.cells[name], numbers, strict=True):
                cell.value = number
        for sheet in self.formulas.worksheets:
            sheet.conditional_formatting = ConditionalFormattingList()
            sheet.merged_cells = MultiCellRange()
            sheet._charts, sheet._images = [], []  # openpyxl has no other way to take them out
        self.formulas.save(path)

    def showing(self, path: Path) -> "Reader":
        """The same workbook with the values of a recalculated copy."""
        other = copy.copy(self)
        other.values = load_workbook(path, data_only=True)
        return other


def where(cell) -> str:
    """Illustration!N17, for messages."""
    return f"{cell.parent.title}!{cell.coordinate}"


def _hidden(cell) -> bool:
    sheet = cell.parent
    columns = (d for d in sheet.column_dimensions.values() if d.min <= cell.column <= d.max)
    lines = (sheet.row_dimensions[cell.row], *columns)
    return sheet.sheet_state != "visible" or any(line.hidden for line in lines)


def _typed(name: str, value, place: str) -> float | int | str:
    """The value of an input cell; InputError for anything that is not allowed there."""
    wanted, (low, high) = f"type {allowed(name)}", RANGES.get(name, (-LIMIT, LIMIT))
    is_bool = isinstance(value, bool)
    if name in LISTS and not is_bool and value in LISTS[name]:
        return type(LISTS[name][0])(value)
    number = name not in LISTS and isinstance(value, (int, float)) and not is_bool
    if number and low <= value <= high and not (name == "eps" and 0 < value < TINY):
        return float(value)
    told = f"({name}) is {value:g}" if number else f"({name}) holds {value}"
    if value is None:
        told = "is empty"
    if isinstance(value, date):
        told = f"holds a date ({value:%d %B %Y}, which counts as {to_excel(value):,.0f})"
    raise InputError(f"{place} {told}: {wanted}.")


def _refuse(path: Path) -> None:
    """One sentence for a file that is no .xlsx."""
    data = path.read_bytes() if path.is_file() else b""
    book, again = b"", "open it in a spreadsheet program and save it as .xlsx"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            book = archive.read(BOOK) if BOOK in archive.namelist() else b""
    for bad, told in (
        (path.name.startswith("~$"),
         f"is only Excel's note that the workbook is open: check {path.name[2:]}"),
        (not path.is_file(), "does not exist: give the name of a workbook"),
        (data.startswith(b"\xd0\xcf\x11\xe0"),
         f"is an old .xls, or has a password: {again}, without a password"),
        (not data.startswith(b"PK"), f"is not an Excel workbook: {again}"),
        (not zipfile.is_zipfile(path), "is cut off: download or copy it again"),
        (not book, f"is another kind of file (.ods?): {again}"),
        (b"purl.oclc.org/ooxml" in book,
         "is a Strict Open XML workbook: save it as .xlsx, Excel's usual kind"),
    ):  # fmt: skip
        if bad:
            raise InputError(f"{path.name} {told}.")
