"""One sheet while it is written: texts, numbers and formulas in their colours.

A colour is a norm: fills show its sets, in two shades that alternate from set to set.
"""

import math

from torch import Tensor
from xlsxwriter import Workbook
from xlsxwriter.utility import xl_cell_to_rowcol, xl_range_abs, xl_rowcol_to_cell

from backstage.workbook import rules
from backstage.workbook.given import Inputs
from backstage.workbook.table import CHANNELS, IMAGES, QUANTITIES, Quantity, formula

COLORS = {"bn": "#0072B2", "ln": "#E69F00", "gn": "#009E73"}  # as in the lesson's plots
TITLES = {"bn": "Batch norm", "ln": "Layer norm", "gn": "Group norm"}
SHADES = {"bn": ("#E3F0FA", "#BBDCF3"), "ln": ("#FFF4D9", "#FBDD9A"), "gn": ("#E0F3EB", "#ACDFCB")}
INK, MUTED, TYPED, SLATE, LINE = "#111820", "#4A5560", "#0B3FBF", "#2F3E4E", "#8A6000"
FONT = {"font_name": "Arial", "font_size": 11, "font_color": INK, "align": "center",
        "valign": "vcenter"}  # fmt: skip
NUMBER = "[>=0.005]0.00;[<=-0.005]-0.00;0.00"  # without a minus before 0.00
NUMBERS = dict.fromkeys(("used_x", "step1_x", "explain_x"), "General")  # as typed
NUMBERS |= dict.fromkeys(("set_row", "set_rows", "set_column", "set_columns"), "0")
NUMBERS |= {"explain_size": '"= "0'}
TO_TYPE = {"font_color": TYPED, "bold": True, "locked": False, "border": 1,
           "border_color": "#8FA6DB", "num_format": "General;-General"}  # fmt: skip


def shown(value: float) -> float | str:
    """What a formula shows: without what rounding leaves of a 0, and Excel's word for nan."""
    return round(float(value), 12) + 0.0 if math.isfinite(value) else "#DIV/0!"


class Page:
    """A sheet to write on, with the values that its formulas show."""

    def __init__(self, book: Workbook, title: str, given: Inputs, values: dict):
        self.book, self.title, self.given, self.values = book, title, given, values
        self.sheet = book.add_worksheet(title)

    def look(self, **style):
        return self.book.add_format(FONT | style)

    def put(self, cell: str, value, shown="", size=(1, 1), **style) -> None:
        """Writes a text, a number or a formula with what it shows, over so many rows and columns.

        {=A formula in braces} goes through whole ranges, cell by cell.
        """
        look, (row, column) = self.look(**style), xl_cell_to_rowcol(cell)
        if size != (1, 1):
            end = row + size[0] - 1, column + size[1] - 1
            self.sheet.merge_range(row, column, *end, "", look)
        more = [shown] if str(value).startswith(("=", "{=")) else []
        self.sheet.write(row, column, value, look, *more)

    def note(self, cell: str, text: str, size=(1, 1), **style) -> None:
        """Text beside the numbers."""
        self.put(cell, text, size=size, **({"font_color": MUTED, "align": "left"} | style))

    def bar(self, cell: str, text: str, width: int, norm: str = "") -> None:
        """The heading of a block, in its norm's colour."""
        ink = "#FFFFFF" if norm in ("", "bn") else "#000000"
        self.put(cell, text, size=(1, width), bold=True, align="left", indent=1, font_color=ink,
                 bg_color=COLORS.get(norm, SLATE))  # fmt: skip

    def heads(self, grid: Quantity, channels: bool = True) -> None:
        """To the left of a grid its images, above it its channels."""
        row, column = grid.place(0, 0, 0, 0)
        for n in range(4):
            where = xl_rowcol_to_cell(row + 2 * n, column - 1)
            self.note(where, n + 1, (2, 1), align="right", bold=True)
        if channels:
            self.note(xl_rowcol_to_cell(row - 1, column - 1), "image", align="right")
        for c in range(4 if channels else 0):
            where = xl_rowcol_to_cell(row - 1, column + 2 * c)
            self.put(where, f"channel {c + 1}", size=(1, 2), bold=True, bg_color="#DDE2E7")

    def write(self, q: Quantity) -> None:
        """All cells of a quantity, their names, and the rules that they follow."""
        value = self.values[q.name]
        for index in q.indices():
            style = {"bg_color": fill(q, index), "num_format": NUMBERS.get(q.name, NUMBER),
                     "shrink": True, "bold": not q.tiles} | tile_lines(q, index)  # fmt: skip
            if q.formula:
                content = f"={formula(q, index)}", shown(value[index])
            else:
                style |= TO_TYPE
                content = (value[index].item() if isinstance(value, Tensor) else value,)
            self.put(q.cell(*index), *content, size=q.size, **style)
        for name, cells in q.names().items():
            where = xl_range_abs(*q.place(*cells[0]), *q.place(*cells[-1]))
            self.book.define_name(name, f"='{self.title}'!{where}")
        rules.validate(self.sheet, q)
        rules.follow(self, q)

    def start(self, title: str, what: str) -> None:
        """Title, what to do, what is wrong with the inputs, and the sheet's quantities."""
        self.put("B1", title, bold=True, font_size=18, align="left")
        self.note("B2", what)
        wrong = f"{{={rules.complaints(self.title)}}}"
        self.put("B3", wrong, bold=True, font_size=16, font_color="#C00000", align="left")
        for q in (q for q in QUANTITIES.values() if q.sheet == self.title):
            self.write(q)
            if q.tiles:
                self.heads(q, channels=not q.name.endswith(("_pull", "_dx")))

    def finish(self, widths: dict[str, int], last_row: int) -> None:
        """Widths of columns in pixels, heights, protection, and one A4 page."""
        for columns, pixels in widths.items():
            self.sheet.set_column_pixels(columns, pixels)
        last = list(widths)[-1].split(":")[1]
        self.sheet.set_default_row(15)
        self.sheet.set_row_pixels(0, 30)
        self.sheet.set_row_pixels(2, 24)
        self.sheet.freeze_panes("A4")
        self.sheet.protect("", {"format_cells": True, "format_columns": True, "format_rows": True})
        self.sheet.hide_gridlines(2)
        self.sheet.set_landscape()
        self.sheet.set_paper(9)
        self.sheet.print_area(f"A1:{last}{last_row}")
        self.sheet.fit_to_pages(1, 1)
        self.sheet.set_margins(0.25, 0.25, 0.3, 0.3)


def fill(q: Quantity, index: tuple[int, ...]) -> str:
    """The shade of a number's set; GN's darker ones follow `groups`, by a rule."""
    if not q.norm:
        return "#FFFFFF" if not q.formula else "#F1F4F7"
    if q.norm == "gn" and q.steps != CHANNELS:
        return SHADES["gn"][0]
    image = q.norm == "ln" and (q.tiles or q.steps == IMAGES)
    return SHADES[q.norm][(index[0] if image else index[1] if q.tiles else index[-1]) % 2]


def tile_lines(q: Quantity, index: tuple[int, ...]) -> dict:
    """Thin white lines between the 2 x 2 tiles of pixels; a box around what LN has of an image."""
    if q.tiles:
        n, c, i, j = index
        return {"top" if i == 0 else "bottom": 1, "left" if j == 0 else "right": 1,
                "border_color": "#FFFFFF"}  # fmt: skip
    if q.norm != "ln" or q.steps != IMAGES:
        return {}
    top, alone = q.name.endswith("mean"), q.size[0] == 2  # or mean and variance share a box
    return {"left": 2, "right": 2, "top": 2 * top, "bottom": 2 * (alone or not top),
            "border_color": LINE}  # fmt: skip
