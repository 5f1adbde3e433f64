"""A quantity of the workbook: an array of numbers, its place on a sheet and its formula.

It is (4, 4, 2, 2) for pixels, (4,) for one number per channel or per image, (4, 4) for one per
image and channel, (3, 4) for one per training step and channel. Its cells are named `bn_mean_1`,
`gn_var_2_1`, counted from 1; of pixels, each 2 x 2 tile has a name, `x_1_1`. Indices are counted
from 0 here, and from 1 on the sheet.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from xlsxwriter.utility import xl_cell_to_rowcol, xl_rowcol_to_cell

# Rows and columns to the next number, for each index.
PIXELS = ((2, 0), (0, 2), (1, 0), (0, 1))  # image, channel, row and column within a tile
IMAGES, CHANNELS = ((2, 0),), ((0, 2),)
BESIDE = ((2, 0), (0, 1))  # image and channel: GN's statistics
STEPS = ((0, 9), (0, 2))  # training step and channel
AXES = {PIXELS: "ncij", STEPS: "kc", BESIDE: "nc", IMAGES: "n", CHANNELS: "c", (): ""}
LENGTHS = {"n": 4, "c": 4, "i": 2, "j": 2, "k": 3}
ALL = (0, 3)


@dataclass(frozen=True)
class Quantity:
    """One array on a sheet: `at` is the place of its first number; without a formula it is typed.

    `norm` is the norm whose sets its shades show. `over` is the quantity that it is a mean or a
    difference of: its rounding follows that one's size.
    """

    name: str
    sheet: str
    at: str
    steps: tuple[tuple[int, int], ...] = ()
    formula: str = ""  # with fields in braces, which `table.formula` fills in
    norm: str = ""
    over: str = ""
    size: tuple[int, int] = (1, 1)  # rows and columns that one number takes
    label: str = ""  # what a person reads beside it

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(LENGTHS[axis] for axis in AXES[self.steps])

    @property
    def tiles(self) -> bool:
        return self.steps == PIXELS

    def indices(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(*map(range, self.shape))

    def place(self, *index: int) -> tuple[int, int]:
        """Row and column of a number, counted from 0, as XlsxWriter does."""
        row, column = xl_cell_to_rowcol(self.at)
        for k, (down, right) in zip(index, self.steps, strict=True):
            row, column = row + k * down, column + k * right
        return row, column

    def cell(self, *index: int, sheet: str = "") -> str:
        """The address of a number, for a formula on that sheet: N8, or Illustration!N8."""
        here = xl_rowcol_to_cell(*self.place(*index))
        quoted = f"'{self.sheet}'" if " " in self.sheet else self.sheet
        return f"{quoted}!{here}" if sheet and sheet != self.sheet else here

    def area(self, images=ALL, channels=ALL, sheet: str = "") -> str:
        """The range of pixels from the first to the last image and channel: N8:O15."""
        first = self.cell(images[0], channels[0], 0, 0, sheet=sheet)
        return f"{first}:{self.cell(images[1], channels[1], 1, 1)}"

    def names(self) -> dict[str, list[tuple[int, ...]]]:
        """Each name with the indices of its cells, row by row."""
        found = {}
        for index in self.indices():
            ends = (str(k + 1) for k in (index[:2] if self.tiles else index))
            found.setdefault("_".join([self.name, *ends]), []).append(index)
        return found
