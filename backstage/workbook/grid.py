"""Where things stand on a sheet, and what they look like: addresses, grids, colours, lines."""

import itertools
from dataclasses import dataclass

from xlsxwriter.utility import xl_cell_to_rowcol, xl_rowcol_to_cell

from backstage.workbook.reference import NORMS

ROWS = (1, 2, 3, 4)  # images and channels are counted from 1, as in the sheet
ALL = (1, 4)
PIXELS = list(itertools.product(ROWS, ROWS, (0, 1), (0, 1)))

# A fill is a channel, a line is a norm. Indigo, yellow, grey and brick: colours that people with
# colour-blindness tell apart, and none of them a norm's.
CELL_TINT = ("E6E3F6", "F8F4CC", "E7EAED", "F9E1DA")
HEAD_TINT = ("B5ADE0", "E5DB6C", "B4BDC7", "E49C8A")
LIT = {"bn": "8CC4EA", "ln": "F9C75C", "gn": "7ED6B6"}  # a set S, in its norm's hue
INK, MUTED, TYPED_INK, SLATE, PAPER, NEUTRAL = (
    "1F2933", "5B6670", "0B3FBF", "2F3E4E", "FFFFFF", "F1F4F7")  # fmt: skip
FONT = {"font_name": "Arial", "font_size": 10, "font_color": INK, "align": "center",
        "valign": "vcenter"}  # fmt: skip
WRONG, MOVED = "C62828", "B3261E"
# Small numbers as they are, not as 0.000.
NUMBER = "[>=0.0005]0.000;[<=-0.0005]-0.000;General"
THIN, MEDIUM, DASHED = 1, 2, 3
SIDES = ("left", "right", "top", "bottom")

BASELINE = 40  # the number a cell was delivered with stands so many columns to its right, hidden
SCRATCH = 90  # hidden columns from here on: intermediate results
HEIGHT = 17  # of a row, in points


def at(row: int, column: int) -> str:
    """(9, 3) -> "C9"."""
    return xl_rowcol_to_cell(row - 1, column - 1)


def span(row: int, column: int, height: int, width: int) -> str:
    """(9, 3, 2, 2) -> "C9:D10"."""
    return f"{at(row, column)}:{at(row + height - 1, column + width - 1)}"


def place(cell: str) -> tuple[int, int]:
    """ "C9" -> (9, 3)."""
    row, column = xl_cell_to_rowcol(cell)
    return row + 1, column + 1


def fixed(cell: str) -> str:
    """ "C9" -> "$C$9"."""
    row, column = xl_cell_to_rowcol(cell)
    return xl_rowcol_to_cell(row, column, row_abs=True, col_abs=True)


@dataclass(frozen=True)
class Grid:
    """4 images x 4 channels of cells, two rows and `span` columns each; its ranges as text."""

    title: str  # of the sheet
    top: int
    left: int
    span: int = 2

    def cell(self, n, c, i=0, j=0) -> str:
        """One cell: image and channel from 1, row i and column j of the tile from 0."""
        return at(self.top + 2 * (n - 1) + i, self.left + self.span * (c - 1) + j)

    def far(self, n, c, i, j) -> str:
        """The same from another sheet: 'Illustration'!C10."""
        return f"'{self.title}'!{self.cell(n, c, i, j)}"

    def area(self, images=ALL, channels=ALL, sheet=False) -> str:
        """First to last image, first to last channel, as in 'Illustration'!C10:F11."""
        last = self.cell(images[1], channels[1], 1, self.span - 1)
        place = f"'{self.title}'!" if sheet else ""
        return f"{place}{self.cell(images[0], channels[0])}:{last}"


def outline(norm: str, groups: int, grid: Grid, n: int, c: int, i: int, j: int) -> tuple:
    """The sides of a cell that lie on the border of its set S."""
    dims, width = NORMS[norm].dims, 1
    if 2 in dims:
        width = 4 if NORMS[norm].over_channels else 4 // groups
    whole = NORMS[norm].over_images
    on = (
        j == 0 and (c - 1) % width == 0,
        j == grid.span - 1 and c % width == 0,
        i == 0 and (n == 1 or not whole),
        i == 1 and (n == 4 or not whole),
    )
    return tuple(side for side, drawn in zip(SIDES, on, strict=True) if drawn)


def lines(sides, style: int, color: str) -> dict:
    """XlsxWriter's format of lines on some sides of a cell."""
    return dict.fromkeys(sides, style) | {f"{side}_color": color for side in sides}
