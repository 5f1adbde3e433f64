"""Builds the workbook: the same inputs give the same bytes."""

import datetime
import itertools
import re
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from xlsxwriter import Workbook
from xlsxwriter.format import Format

from backstage.files import replacing
from backstage.workbook.charts import charts
from backstage.workbook.gradients import gradients
from backstage.workbook.illustration import illustration, next_layer
from backstage.workbook.inputs import InputError, Inputs
from backstage.workbook.read_me import read_me
from backstage.workbook.reference import reference
from backstage.workbook.sheet import Page
from backstage.workbook.train_and_eval import train_and_eval

WORKBOOK = Path(__file__).resolve().parents[2] / "normalization_demo.xlsx"
BUILT = datetime.datetime(2025, 1, 1)  # a program that saves a workbook puts its own date there
SHEETS = ("Read me", "Illustration", "Layer N+1", "Train and eval", "Gradients", "Charts")


class Book(Workbook):
    """A workbook that keeps one format of each kind."""

    def look(self, style: dict) -> Format:
        self.looks = getattr(self, "looks", {})
        key = tuple(sorted(style.items()))
        if key not in self.looks:
            hues = {k: f"#{v}" for k, v in style.items() if k.endswith("color")}
            self.looks[key] = self.add_format(style | hues)
        return self.looks[key]


def build(path: str | Path = WORKBOOK, inputs: Inputs | None = None) -> Path:
    """Writes the workbook with these inputs; every formula carries its value. Returns the path.

    A workbook that lies there and that somebody saved is kept beside it under another name.
    """
    path, inputs, data = Path(path), inputs or Inputs(), BytesIO()
    values = inputs.quantities() | reference(inputs) | {"show_moved": np.asarray("on")}
    with Book(data, {"in_memory": True}) as book:
        book.set_properties({"title": "Normalization by hand", "author": "the lesson",
                             "created": BUILT})  # fmt: skip
        grids = {}
        pages = {title: Page(book, title, values, grids) for title in SHEETS}
        read_me(pages["Read me"])
        warning = illustration(pages["Illustration"])
        next_layer(pages["Layer N+1"], warning)
        train_and_eval(pages["Train and eval"], warning)
        gradients(pages["Gradients"], warning)
        charts(pages["Charts"], warning, pages["Illustration"])
        pages["Illustration"].sheet.activate()
    replace_workbook(path, data.getvalue())
    return path


def replace_workbook(path: Path, data: bytes) -> None:
    """Puts a workbook in place; one that somebody saved there is kept."""
    if path.suffix.lower() != ".xlsx":
        raise InputError(f"{path.name}: give the workbook a name that ends in .xlsx.")
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {path.parent}: make it first, or give another name.")
    try:
        if path.exists() and not _as_built(old := path.read_bytes()):
            copies = (path.with_suffix(f".before{k}.xlsx") for k in itertools.count(1))
            next(copy for copy in copies if not copy.exists()).write_bytes(old)
        with replacing(path) as file:
            file.write(data)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): is it open?") from error


def _as_built(data: bytes) -> bool:
    """Whether these are the bytes of a workbook that nobody has saved since."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            core = archive.read("docProps/core.xml").decode()
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError):
        return False
    return re.search(rf"<dcterms:modified[^>]*>{BUILT.isoformat()}Z<", core) is not None
