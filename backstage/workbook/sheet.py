"""One sheet while it is written: texts, numbers and formulas, inputs, grids, and the way to paper.

XlsxWriter takes a cell's format with its value, so a page collects its cells, adds lines to them,
and writes them at the end. Rows and columns are counted from 1, as on the sheet.
"""

import itertools
from dataclasses import dataclass, field

import numpy as np
from xlsxwriter import Workbook

from backstage.workbook import rules
from backstage.workbook.grid import (
    BASELINE,
    CELL_TINT,
    FONT,
    HEAD_TINT,
    HEIGHT,
    INK,
    MUTED,
    NEUTRAL,
    NUMBER,
    PAPER,
    PIXELS,
    ROWS,
    SCRATCH,
    SIDES,
    SLATE,
    THIN,
    TYPED_INK,
    Grid,
    at,
    fixed,
    lines,
    place,
)  # fmt: skip
from backstage.workbook.inputs import plain
from backstage.workbook.reference import NORMS, shown


@dataclass
class Page:
    """One sheet: what its cells hold, and the values its formulas show.

    `values` maps quantity -> array, the numbers that formulas show; `grids` maps quantity -> Grid,
    where the pixels of a quantity stand, on this sheet or on one written before.
    """

    book: Workbook
    title: str
    values: dict[str, np.ndarray]
    grids: dict[str, Grid]
    cells: dict = field(default_factory=dict)  # (row, column) -> [value, shown, style]
    merged: list = field(default_factory=list)  # (row, column, height, width)
    typed: list = field(default_factory=list)  # (address, quantity) of every input
    tracked: list = field(default_factory=list)  # (row, column) of every number with a baseline
    ruled: list = field(default_factory=list)  # (rank, ranges, formula, style)
    mirrors: dict = field(default_factory=dict)  # name -> its cell on this sheet
    heights: dict = field(default_factory=dict)  # row -> points, where it is not HEIGHT
    links: list = field(default_factory=list)  # (row, column, target, text)

    def __post_init__(self):
        self.sheet = self.book.add_worksheet(self.title)

    def put(self, row, column, value, shown=None, width=1, height=1, **style) -> str:
        """Writes a text, a number or a formula (with the value it shows); returns its address.

        `style` holds XlsxWriter's format properties; colours go without their #.
        """
        for r, c in itertools.product(range(height), range(width)):
            self.cells[row + r, column + c] = [None, None, dict(style)]
        self.cells[row, column][:2] = value, shown
        if width > 1 or height > 1:
            self.merged.append((row, column, height, width))
        return at(row, column)

    def line(self, cell: str, sides, style: int, color: str) -> None:
        """Draws lines on some sides of a cell, keeping its others."""
        self.cells[place(cell)][2] |= lines(sides, style, color)

    def box(self, row, column, height, width, style: int, color: str) -> None:
        """Draws the outline of an area."""
        for r, c in itertools.product(range(height), range(width)):
            on = (c == 0, c == width - 1, r == 0, r == height - 1)
            self.line(at(row + r, column + c), [*itertools.compress(SIDES, on)], style, color)

    def name(self, name: str, area: str) -> None:
        """Gives the cells a name that formulas and scripts can use anywhere in the workbook."""
        self.book.define_name(name, f"='{self.title}'!{':'.join(map(fixed, area.split(':')))}")

    def number(self, row, column, quantity, index, formula, channel=None, **style) -> str:
        """A computed number: formula, the value it shows, its name and its channel's tint."""
        value = shown(self.values[quantity][tuple(i - 1 for i in index)])
        style = {"bg_color": CELL_TINT[channel - 1] if channel else NEUTRAL, "font_size": 9,
                 "num_format": NUMBER, "shrink": True} | style  # fmt: skip
        cell = self.put(row, column, "=" + formula, value, **style)
        self.name("_".join([quantity, *map(str, index)]), cell)
        self.tracked.append((row, column))
        return cell

    def input(self, row, column, quantity, index=(), prompt="", width=1, height=1) -> str:
        """One cell to type into, with its name, its validation and the prompt that goes with it."""
        value = plain(self.values[quantity][tuple(i - 1 for i in index)])
        cell = self.put(row, column, value, width=width, height=height, font_color=TYPED_INK,
                        bold=True, shrink=True, locked=False)  # fmt: skip
        self.box(row, column, height, width, THIN, "8FA6DB")
        self.name("_".join([quantity, *map(str, index)]), cell)
        self.typed.append((cell, quantity))
        self.tracked.append((row, column))
        rules.validate(self, cell, quantity, prompt)
        return cell

    def mirror(self, name: str) -> str:
        """A hidden cell of this sheet with another's value: rules may not look at other sheets."""
        if name not in self.mirrors:
            row = 1 + len(self.mirrors)
            self.mirrors[name] = fixed(at(row, SCRATCH))
            self.put(row, SCRATCH, f"={name}", plain(self.values[name]))
        return self.mirrors[name]

    def rule(self, ranges: str, formula: str, rank: int, **style) -> None:
        """A conditional format for cells, "C9:D10 C12"; a lower rank goes before a higher one."""
        self.ruled.append((rank, ranges, formula, style))

    def bar(self, row, column, text, width, norm="", **style) -> None:
        """The dark heading of a block, in the norm's colour if it is about one."""
        color = NORMS[norm].color if norm else SLATE
        ink = INK if norm == "ln" else PAPER  # white on orange is hard to read
        style = {"bg_color": color, "font_color": ink, "bold": True, "align": "left",
                 "indent": 1} | style  # fmt: skip
        self.put(row, column, text, width=width, **style)

    def note(self, row, column, text, shown=None, **style) -> str:
        """Small grey text, or a formula that gives one."""
        style = {"font_color": MUTED, "font_size": 9, "align": "left", "indent": 1} | style
        return self.put(row, column, text, shown, **style)

    def heads(self, row, column, span=2, label="channel {}") -> None:
        """Four channel headings in the channels' colours, each over `span` columns."""
        for c in ROWS:
            self.put(row, column + span * (c - 1), label.format(c), width=span, bold=True,
                     bg_color=HEAD_TINT[c - 1], font_size=9, shrink=True)  # fmt: skip

    def images(self, row, column) -> None:
        """The labels of four images, each two rows high."""
        for n in ROWS:
            self.note(row + 2 * (n - 1), column, f"image {n}", height=2, align="right")

    def cover(self, title: str, subtitle: str, width: int) -> None:
        """Title and one line on what to do; rows 1 and 2."""
        self.put(1, 2, title, width=width, bold=True, font_size=18, align="left")
        self.put(2, 2, subtitle, width=width, font_color=MUTED, align="left")

    def finish(self, widths, rows, freeze=None, portrait=False, cut=0) -> None:
        """Writes everything; widths of columns, frozen panes, protection, A4 pages.

        `cut` is the last column of the first page where there are two.
        """
        if self.tracked:
            rules.baseline(self)
        sheet = self.sheet
        for row, column, height, width in self.merged:
            sheet.merge_range(row - 1, column - 1, row + height - 2, column + width - 2, "")
        for (row, column), (value, value_shown, style) in self.cells.items():
            look = self.book.look(FONT | style) if column < BASELINE else None
            if value_shown is not None:
                sheet.write_formula(row - 1, column - 1, value, look, value_shown)
            elif isinstance(value, str):  # "= LN" is no formula
                sheet.write_string(row - 1, column - 1, value, look)
            else:
                sheet.write(row - 1, column - 1, value, look)
        for _, ranges, formula, style in sorted(self.ruled, key=lambda rule: rule[0]):
            sheet.conditional_format(ranges.split()[0], {
                "type": "formula", "criteria": "=" + formula, "multi_range": ranges,
                "format": self.book.look(style)})  # fmt: skip
        for k, width in enumerate(widths):
            sheet.set_column(k, k, width)
        sheet.set_column(BASELINE - 1, SCRATCH + 20, None, None, {"hidden": True})
        sheet.set_default_row(HEIGHT)
        for row, points in ({1: 30} | self.heights).items():
            sheet.set_row(row - 1, points)
        for row, column, target, text in self.links:
            look = self.book.look(FONT | self.cells[row, column][2])
            sheet.write_url(row - 1, column - 1, target, look, text)
        sheet.freeze_panes(*(k - 1 for k in place(freeze))) if freeze else None
        sheet.protect("", {"format_cells": True, "format_columns": True, "format_rows": True})
        self._paper(rows, len(widths), portrait, cut)

    def _paper(self, rows, columns, portrait, cut) -> None:
        sheet = self.sheet
        sheet.hide_gridlines(2)
        sheet.set_zoom(90)
        sheet.set_paper(9)  # A4
        sheet.set_portrait() if portrait else sheet.set_landscape()
        ends = [(1, cut), (cut + 1, columns)] if cut else [(1, columns)]
        sheet.set_print_scale(80) if cut else sheet.fit_to_pages(1, 1)
        areas = [f"'{self.title}'!{fixed(at(1, a))}:{fixed(at(rows, b))}" for a, b in ends]
        self.book.define_name(f"'{self.title}'!_xlnm.Print_Area", "=" + ",".join(areas))
        sheet.center_horizontally()
        sheet.set_margins(0.25, 0.25, 0.3, 0.4)
        sheet.set_footer("&R&8&A", {"margin": 0.2})


def write_inputs(page: Page, top: int, left: int, quantity: str) -> Grid:
    """A grid of cells to type into, in the channels' tints."""
    grid = page.grids[quantity] = Grid(page.title, top, left)
    for n, c, i, j in PIXELS:
        row, column = place(grid.cell(n, c, i, j))
        page.put(row, column, plain(page.values[quantity][n - 1, c - 1, i, j]), shrink=True,
                 bg_color=CELL_TINT[c - 1], font_color=TYPED_INK, bold=True,
                 locked=False)  # fmt: skip
        page.typed.append((at(row, column), quantity))
    _tiles(page, grid, quantity)
    rules.validate(page, grid.area(), quantity)
    return grid


def write_grid(page, top, left, quantity, formula, norm="", number=NUMBER) -> Grid:
    """A grid of computed pixels, `formula(n, c, i, j)` each, framed as BN or LN groups them."""
    grid = page.grids[quantity] = Grid(page.title, top, left)
    for n, c, i, j in PIXELS:
        row, column = place(grid.cell(n, c, i, j))
        page.put(row, column, "=" + formula(n, c, i, j),
                 shown(page.values[quantity][n - 1, c - 1, i, j]), shrink=True, font_size=9,
                 bg_color=CELL_TINT[c - 1], num_format=number)  # fmt: skip
    _tiles(page, grid, quantity)
    if norm in ("bn", "ln"):
        rules.frame(page, norm, grid)
    return grid


def _tiles(page: Page, grid: Grid, quantity: str) -> None:
    """Names of the 2 x 2 tiles, thin white lines between them, and a baseline for each pixel."""
    for n, c in itertools.product(ROWS, ROWS):
        page.box(*place(grid.cell(n, c)), 2, 2, THIN, PAPER)
        page.name(f"{quantity}_{n}_{c}", grid.area((n, n), (c, c)))
    page.tracked += [place(grid.cell(*pixel)) for pixel in PIXELS]
