"""Builds the workbook: the same inputs give the same bytes."""

import datetime
from pathlib import Path

from xlsxwriter import Workbook

from backstage.files import replacing
from backstage.workbook.expected import reference
from backstage.workbook.given import InputError, Inputs
from backstage.workbook.page import Page
from backstage.workbook.sheets import SHEETS
from backstage.workbook.table import MAIN

WORKBOOK = Path(__file__).resolve().parents[2] / "normalization_demo.xlsx"


def build(path: str | Path = WORKBOOK, given: Inputs | None = None) -> Path:
    """Writes the workbook with these inputs; every formula carries its value. Returns the path."""
    path, given = Path(path), given or Inputs()
    if path.suffix.lower() != ".xlsx":
        raise InputError(f"{path.name}: give the workbook a name that ends in .xlsx.")
    values = given.values() | reference(given)
    try:
        with replacing(path) as file, Workbook(file, {"in_memory": True}) as book:
            book.set_properties({"title": "Normalization by hand",
                                 "created": datetime.datetime(2025, 1, 1)})  # fmt: skip
            for title, write in SHEETS.items():
                page = Page(book, title, given, values)
                write(page)
                if title == MAIN:
                    page.sheet.activate()
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): is it open?") from error
    return path
