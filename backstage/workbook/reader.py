"""Reads a workbook that anybody may have made: known names only, and never more than it may hold.

Whatever is wrong with a file comes out as `InputError`, one sentence that says what to do.
"""

import copy
import io
import itertools
import math
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import fromstring, iterparse

import numpy as np
from openpyxl import load_workbook
from openpyxl.utils import range_boundaries

from backstage.workbook.inputs import LIMIT, LISTS, RANGES, InputError, Inputs, allowed, names

SHAPES = {key: value.shape for key, value in Inputs().quantities().items()}
UNPACKED, CELLS = 16_000_000, 60_000  # bytes and cells; the workbook has a tenth of either
AFRESH = "start from a freshly built workbook"


class Reader:
    """A workbook opened for reading: once for its formulas, once for the values it shows."""

    def __init__(self, path: Path):
        data = _read(path)
        try:
            _bounded(path.name, data)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of parts that openpyxl does not know
                self.formulas = load_workbook(io.BytesIO(data))
                self.shown = load_workbook(io.BytesIO(data), data_only=True)
        except InputError:
            raise
        except Exception as error:  # openpyxl raises whatever it stumbles over
            raise InputError(
                f"{path.name} is damaged: part of it cannot be read. Open it in a spreadsheet "
                "program, which may repair it, and save it as .xlsx again."
            ) from error
        self.found: dict[str, list] = {}  # name -> its cells' places, once they were looked up

    def showing(self, path: Path) -> "Reader":
        """The same workbook, with the values that a recalculated copy of it shows."""
        other = copy.copy(self)
        other.shown = load_workbook(path, data_only=True)
        return other

    def cells(self, name: str, count: int):
        """The cells of a name, row by row, as (formula cell, value cell, "Sheet!C9")."""
        if name not in self.found:
            self.found[name] = self._look_up(name, count)
        return [(cell, self.shown[sheet].cell(cell.row, cell.column), f"{sheet}!{cell.coordinate}")
                for sheet, cell in self.found[name]]  # fmt: skip

    def _look_up(self, name: str, count: int) -> list:
        if name not in self.formulas.defined_names:
            raise InputError(f"The name {name} is missing: {AFRESH}.")
        try:
            ((sheet, area),) = self.formulas.defined_names[name].destinations
            sheet = sheet.replace("''", "'")
            left, top, right, bottom = range_boundaries(area)
            formulas = self.formulas[sheet]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"The name {name} points nowhere: {AFRESH}.") from error
        if None in (left, top, right, bottom):
            raise InputError(f"The name {name} is about whole rows or columns: {AFRESH}.")
        size = (right - left + 1) * (bottom - top + 1)
        if size != count:
            raise InputError(f"The name {name} ({sheet}!{area.replace('$', '')}) has {size:,} "
                             f"cells, not {count}: {AFRESH}.")  # fmt: skip
        places = itertools.product(range(top, bottom + 1), range(left, right + 1))
        return [(sheet, formulas.cell(*at)) for at in places]

    def quantity(self, quantity: str, array: np.ndarray) -> list:
        """All cells of a quantity, in the order of its array's elements."""
        size = 4 if array.ndim == 4 else 1
        return [cell for name, _ in names(quantity, array) for cell in self.cells(name, size)]

    def inputs(self) -> Inputs:
        """What is typed in; InputError, with sheet and cell, for anything that is not allowed."""
        found = {}
        for quantity, shape in SHAPES.items():
            cells = self.quantity(quantity, np.empty(shape))
            found[quantity] = np.reshape([_typed(quantity, *cell) for cell in cells], shape)
        return Inputs(**{k: v if v.ndim else v.item() for k, v in found.items()} | {
            k: int(found[k]) for k in ("groups", "explain_image", "explain_channel")})  # fmt: skip


def _read(path: Path) -> bytes:
    """The bytes of a file that is an .xlsx, as far as its first bytes tell."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a workbook in it.")
    if not path.exists():
        raise InputError(f"There is no file {path}.")
    if not path.is_file():
        raise InputError(f"{path} is no ordinary file: give the name of a workbook (.xlsx).")
    try:
        if path.stat().st_size > UNPACKED:
            raise InputError(f"{path.name} is too large to be this workbook: {AFRESH}.")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    if not data:
        raise InputError(f"{path.name} is empty: {AFRESH}.")
    if data.startswith(b"\xd0\xcf\x11\xe0"):  # the container of old and of encrypted files
        if "EncryptedPackage".encode("utf-16-le") in data:
            raise InputError(f"{path.name} has a password: save it as .xlsx without one.")
        raise InputError(f"{path.name} is in the old format .xls: save it as .xlsx.")
    if not data.startswith(b"PK"):
        kind = path.suffix.lower() or "no workbook"
        kind = "text, not a workbook" if kind == ".xlsx" else kind
        raise InputError(f"{path.name} is {kind}: open it in a spreadsheet program and save it "
                         "as .xlsx.")  # fmt: skip
    return data


def _bounded(name: str, data: bytes) -> None:
    """Refuses, before anything is unpacked for good, what would take too long or too much."""
    too_large = InputError(f"{name} holds far more than this workbook: remove your own sheets, "
                           f"or {AFRESH}.")  # fmt: skip
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
        if any(part.flag_bits & 1 for part in parts):
            raise InputError(f"{name} has a password: save it as .xlsx without one.")
        if sum(part.file_size for part in parts) > UNPACKED:
            raise too_large
        inside = archive.namelist()
        if "mimetype" in inside or "xl/workbook.xml" not in inside:
            other = ".ods" if "mimetype" in inside else "another kind of file"
            other = ".xlsb" if "xl/workbook.bin" in inside else other
            raise InputError(f"{name} is {other}: open it in a spreadsheet program and save it "
                             "as .xlsx.")  # fmt: skip
        sheets = [p for p in inside if p.startswith("xl/worksheets/") and p.endswith(".xml")]
        count = 0
        for part, size, bad in _sizes_of(archive, sheets):
            if bad:
                raise InputError(f"{_title(archive, part)}!{bad}, which nothing can be "
                                 "computed with: type a number there.")  # fmt: skip
            count += size
            if count > CELLS:
                raise too_large


def _sizes_of(archive: zipfile.ZipFile, sheets: list[str]) -> Iterator[tuple[str, int, str]]:
    """What ``_sizes`` finds in each of the sheets, with the sheet."""
    for part in sheets:
        with archive.open(part) as file:
            for size, bad in _sizes(file):
                yield part, size, bad


def _sizes(file) -> Iterator[tuple[int, str]]:
    """For each element of a sheet the number of cells it stands for, and what cannot be read."""
    for _, element in iterparse(file):
        tag = element.tag.rpartition("}")[2]
        if tag == "c":
            value = "".join(v.text or "" for v in element if v.tag.endswith("}v")).strip()
            bad = element.get("t", "n") == "n" and value.lower().lstrip("+-")[:3] in ("nan", "inf")
            yield 1, f"{element.get('r')} holds {value}" if bad else ""
        elif tag in ("mergeCell", "hyperlink") and ":" in element.get("ref", ""):
            left, top, right, bottom = (k or 2**20 for k in range_boundaries(element.get("ref")))
            yield (abs(right - left) + 1) * (abs(bottom - top) + 1), ""
        if tag != "v":  # which its cell still needs
            element.clear()


def _title(archive: zipfile.ZipFile, part: str) -> str:
    """The name of the sheet that a part of the file holds."""
    book = fromstring(archive.read("xl/workbook.xml"))
    links = fromstring(archive.read("xl/_rels/workbook.xml.rels"))
    (key,) = [link.get("Id") for link in links if part.endswith(link.get("Target").lstrip("/"))]
    return next(sheet.get("name") for sheet in book.iter() if key in sheet.attrib.values())


def _typed(quantity: str, formula, shown, where: str):
    """The number or the choice in an input cell, or a sentence about what stands there instead."""
    value, wanted = shown.value, f"type {allowed(quantity)} there"
    if formula.data_type == "f" and value is None:
        raise InputError(f"{where} holds a formula without its value: {wanted}.")
    if value is None:
        raise InputError(f"{where} is empty: {wanted}.")
    if shown.data_type == "e" or str(value).startswith("#"):
        raise InputError(f"{where} shows the error {value}: {wanted}.")
    choices = LISTS.get(quantity, ())
    if choices and isinstance(choices[0], str):
        for choice in choices:
            if str(value).casefold() == choice.casefold():
                return choice
        raise InputError(f'{where} holds "{str(value)[:40]}": {wanted}.')
    return _number(quantity, value, where, wanted)


def _number(quantity: str, value, where: str, wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        kind = {bool: "a truth value", str: "text"}.get(type(value), "a date or another kind")
        raise InputError(f'{where} holds "{str(value)[:40]}", which is {kind}, not a number: '
                         f"{wanted}.")  # fmt: skip
    low, high = RANGES.get(quantity, (-LIMIT, LIMIT))
    if not math.isfinite(value):
        raise InputError(f"{where} holds {value}, which nothing can be computed with: {wanted}.")
    fits = value in LISTS[quantity] if quantity in LISTS else low <= value <= high
    if not fits:
        raise InputError(f"{where} ({quantity}) is {value:g}: {wanted}.")
    return float(value)


def read_inputs(path: str | Path) -> Inputs:
    """The inputs of a workbook; InputError, with sheet and cell, for anything that is not one."""
    return Reader(Path(path)).inputs()
