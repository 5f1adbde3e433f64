"""One sheet while it is written: texts, numbers and formulas in their colours.

A colour is a norm: fills show its sets, in two shades that alternate from set to set.
"""

import math

from torch import Tensor
from xlsxwriter import Workbook
from xlsxwriter.utility import xl_cell_to_rowcol, xl_range, xl_range_abs, xl_rowcol_to_cell

from backstage.workbook.given import LIMIT, LISTS, RANGES, TINY, Inputs, allowed
from backstage.workbook.table import CHANNELS, IMAGES, INPUTS, MAIN, QUANTITIES, Quantity, formula

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
GREY = {"bg_color": "#F2F2F2", "font_color": "#A6A6A6"}
RED = {"bg_color": "#C00000", "font_color": "#FFFFFF"}
LIT = {"bn": "#56B4E9", "ln": "#F5B93A", "gn": "#4CC39C"}  # the explained pixel's set


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
        validate(self.sheet, q)
        follow(self, q)

    def start(self, title: str, what: str) -> None:
        """Title, what to do, what is wrong with the inputs, and the sheet's quantities."""
        self.put("B1", title, bold=True, font_size=18, align="left")
        self.note("B2", what)
        wrong = f"{{={complaints(self.title)}}}"
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


def validate(sheet, q: Quantity) -> None:
    """A program refuses anything else, and says what it wants; pasting gets past it."""
    if q.formula:
        return
    rule = {"ignore_blank": False, "error_title": "Not possible here",
            "error_message": f"Type {allowed(q.name)}."}  # fmt: skip
    if q.name in LISTS:
        rule |= {"validate": "list", "source": list(LISTS[q.name])}
    else:
        low, high = RANGES.get(q.name, (-LIMIT, LIMIT))
        rule |= {"validate": "decimal", "criteria": "between", "minimum": low, "maximum": high}
    for index in [(0, 0, 0, 0)] if q.tiles else q.indices():
        sheet.data_validation(q.area() if q.tiles else q.cell(*index), rule)


def complaints(title: str) -> str:
    """A formula: what is wrong with a sheet's inputs, in words, and with the first sheet's."""
    own = [_complaint(q) for q in INPUTS.values() if q.sheet == title]
    if title != MAIN:
        own.insert(0, f'IF({MAIN}!$B$3="","","{MAIN}: "&{MAIN}!$B$3)')
    return f'_xlfn.TEXTJOIN("  ·  ",TRUE,{",".join(own)})'


def _complaint(q: Quantity) -> str:
    """A formula: one input's part of it."""
    if q.tiles:
        return _first_wrong(q)
    if q.shape == (4,):
        return f'IF(COUNT({q.cell(0)}:{q.cell(3)})=4,"","{q.label} needs four numbers")'
    said = f'"{q.label} has to be {allowed(q.name)}"'
    if q.name in LISTS:
        options = ",".join(f'"{x}"' if isinstance(x, str) else str(x) for x in LISTS[q.name])
        return f'IF(ISNUMBER(MATCH({q.name},{{{options}}},0)),"",{said})'
    fits = f"AND({q.name}>=0,{q.name}<=1)"
    if q.name == "eps":
        fits = f"OR(eps=0,AND(eps>={TINY:G},eps<={LIMIT:G}))"
    return f'IF(ISNUMBER({q.name}),IF({fits},"",{said}),{said})'


def _first_wrong(q: Quantity) -> str:
    """A formula: "63 of 64 numbers: image 2, channel 3 is empty", or nothing."""
    area, (row, column) = q.area(), q.place(0, 0, 0, 0)
    where = (f'"image "&INT((ROW({area})-{row - 1})/2)&", channel "'
             f"&INT((COLUMN({area})-{column - 1})/2)")  # fmt: skip
    kind = f'IF(ISBLANK({area})," is empty"," is no number")'
    each = f'_xlfn.TEXTJOIN("; ",TRUE,IF(ISNUMBER({area}),"",{where}&{kind}))'
    return f'IF(COUNT({area})=64,"","{q.label}"&COUNT({area})&" of 64 numbers: "&LEFT({each},60))'


def _rule(page, areas: str, formula: str, style: dict, stop: bool = False) -> None:
    """A format for cells, "C9:D10 C12:D13", where the formula for the first of them holds."""
    page.sheet.conditional_format(areas.split()[0], {
        "type": "formula", "criteria": f"={formula}", "format": page.book.add_format(style),
        "multi_range": areas, "stop_if_true": stop})  # fmt: skip


def _areas(q: Quantity) -> str:
    """The ranges of a quantity's cells, and no others."""
    if q.tiles:
        return q.area()
    rows = {}
    for index in q.indices():
        row, column = q.place(*index)
        rows.setdefault(row, []).append(column)
    return " ".join(xl_range(row, columns[0], row + q.size[0] - 1, columns[-1] + q.size[1] - 1)
                    for row, columns in rows.items())  # fmt: skip


def follow(page, q: Quantity) -> None:
    """Grey where an input is wrong; the explained set lights up; GN's shades follow `groups`."""
    top, left = q.place(*[0] * len(q.shape))
    area = _areas(q)
    if q.formula:
        _rule(page, area, '$B$3<>""', GREY, stop=True)
    elif q.name not in LISTS:
        _rule(page, area, f"NOT(ISNUMBER({xl_rowcol_to_cell(top, left)}))", RED, stop=True)
    if q.name == "used_x":
        _explained(page, q, area)
    if q.norm == "gn" and q.steps != CHANNELS:
        _boxes(page, q, area, top, left)


def _explained(page, q: Quantity, area: str) -> None:
    row, column = q.place(0, 0, 0, 0)
    here, across = f"ROW()-{row}", f"COLUMN()-{column}"
    inside = f"{here}>=$C$24,{here}<$C$24+$H$24,{across}>=$F$24,{across}<$F$24+$J$24"
    chosen = (f'{here}=2*$D$23-(LEFT($H$23,5)="upper"),'
              f'{across}=2*$F$23-(RIGHT($H$23,4)="left")')  # fmt: skip
    _rule(page, area, f"AND({chosen})", {"bg_color": SLATE, "font_color": "#FFFFFF"}, True)
    for norm, color in LIT.items():
        style = {"bg_color": color, "font_color": "#000000"}
        _rule(page, area, f'AND($C$23="{norm.upper()}",{inside})', style, True)


def _boxes(page, q: Quantity, area: str, top: int, left: int) -> None:
    """GN's sets in two shades, like a chessboard; a number that its group shows already hides."""
    # every program lets a rule go by a name of another sheet
    groups, wide = "$I$19" if page.title == MAIN else 'INDIRECT("groups")', 2 if q.tiles else 1
    image, channel = f"INT((ROW()-{top + 1})/2)", f"(COLUMN()-{left + 1})/{wide}"
    dark = f"MOD({image}+INT({channel}*{groups}/4),2)=1"
    light, darker = SHADES["gn"]
    if not q.tiles:
        again = f"MOD({channel},4/{groups})>0"
        _rule(page, area, f"AND({again},{dark})", {"bg_color": darker, "font_color": darker}, True)
        _rule(page, area, again, {"font_color": light}, True)
    _rule(page, area, dark, {"bg_color": darker})
