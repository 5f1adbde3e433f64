"""The lesson's workbook: batch, layer and group norm of 4 images, in live formulas.

    python normalization_demo.py              builds normalization_demo.xlsx
    python normalization_demo.py build FILE   builds it somewhere else
    python normalization_demo.py check FILE   recomputes a workbook, edited or not, with PyTorch

`check` ends with status 0 where sheet and PyTorch agree, 1 where they do not, 2 for bad input.

Everything is 4 images x 4 channels x 2 x 2 pixels. A *quantity* is an array: (4, 4, 2, 2) for
pixels, (4,) for one number per channel or per image, (4, 4) for one per image and channel. Its
cells carry names, `bn_xhat_{n}_{c}` for the quantity `bn_xhat`, with n and c from 1 to 4.

Sources: batch norm arXiv 1502.03167 (Algorithm 1), layer norm 1607.06450 (section 3), group norm
1803.08494 (section 3.1), the gradient through mu and sigma 1911.07013 (section 3).
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from io import BytesIO
from pathlib import Path
from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import escape

import numpy as np
import torch
from openpyxl import Workbook, load_workbook
from openpyxl.formatting.rule import Rule
from openpyxl.styles import Alignment, Border, Font, PatternFill, Side
from openpyxl.styles.differential import DifferentialStyle
from openpyxl.utils import absolute_coordinate, get_column_letter
from openpyxl.utils.exceptions import InvalidFileException
from openpyxl.workbook.defined_name import DefinedName
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.hyperlink import Hyperlink
from openpyxl.worksheet.properties import PageSetupProperties
from torch import nn

HERE = Path(__file__).resolve().parent
WORKBOOK = HERE / "normalization_demo.xlsx"
ROWS = (1, 2, 3, 4)  # images and channels are counted from 1, as in the sheet
NORMS = {"bn": "Batch norm", "ln": "Layer norm", "gn": "Group norm"}
TINY = 1e-60  # sigma2 + eps up to this counts as 0: nothing to divide by
LIMIT = 1e9  # inputs beyond this are refused, so that no square overflows
UNDEFINED = "0/0"  # what the sheet shows where PyTorch gives nan


class InputError(ValueError):
    """Something a person can put right; the message is one sentence for them."""


# ------------------------------------------------------------------------------------- inputs


def _pixels(rows: str) -> np.ndarray:
    """Eight lines of eight numbers, laid out as in the sheet -> (N, C, H, W)."""
    grid = np.array([line.split() for line in rows.strip().splitlines()], dtype=np.float64)
    return grid.reshape(4, 2, 4, 2).transpose(0, 2, 1, 3)


X = _pixels("""
     1  3   0 -2   2  2  -1  0
    -2  0   1  2  -3  1   3  1
     2  1  -1 -1   0  3   3 -2
     0 -3   2  0   1 -1   0  1
     3  2  -3  1  -2  0   1  3
     1 -1   0 -2   2 -3   2 -1
    -1  0   3  2   1  0  -3 -2
     2 -2  -1  1   3  2   0 -1
""")
NEXT_X = _pixels("""
     0  2   3  1  -1 -2   2  0
     1 -1   2  3   0 -3   1 -2
    -2  3   1  0   2 -1  -3  1
     0  1  -2  2   1  0   3 -1
     2 -3   0  3  -2  1   0  2
     3  1  -1  2   0 -1  -2  3
     1  0   2 -2   3  1  -1  0
    -3  2   1  3  -1  2   0 -2
""")
STEP2_X = _pixels("""
     3  1   2  0  -1  1   0 -3
     2  3   1 -1   0 -2  -2  1
     0  2   3  2   1  0  -1 -2
     1  3  -2  1  -3  2   0 -3
     2 -1   0  3   1 -2  -3  1
     3  0   1  2   0  1  -1  0
     1  2  -1  3  -2  0   2 -2
    -2  3   2  0   3 -1  -1 -3
""")
STEP3_X = _pixels("""
    -1  0   2  1   0 -3   3  2
     1 -3  -2  0   2  1   1  3
     0 -2   1  3  -1  0   2 -1
    -1  2   0 -2   1 -2   0  3
     1 -1   3  0  -3  2   1  2
    -2  0  -1  2   0 -1   3  0
    -3  1   0  1   2 -2   2  1
     0 -1   2 -3   1  0  -2  3
""")
DY = _pixels("""
     1  0   2 -1   0  1  -2  1
     0  2   1  0  -1  0   1  0
    -1  1   0  2   1 -2   0  1
     1  0  -1  1   0  1   2 -1
     0 -1   1  0   2  1   1  0
     2  1   0 -2  -1  0   0  1
     1  0  -1  1   0  2   1 -1
    -2  1   1  0   1 -1   0  2
""")


@dataclass(frozen=True)
class Inputs:
    """The cells that a learner types into."""

    x: np.ndarray = field(default_factory=X.copy)  # (N, C, H, W), layer N
    next_x: np.ndarray = field(default_factory=NEXT_X.copy)  # (N, C, H, W), layer N+1
    step2_x: np.ndarray = field(default_factory=STEP2_X.copy)  # the batch of training step 2
    step3_x: np.ndarray = field(default_factory=STEP3_X.copy)  # and of step 3; step 1 is x
    dy: np.ndarray = field(default_factory=DY.copy)  # the loss's gradient by y of layer N
    gamma: np.ndarray = field(default_factory=lambda: np.array([1.0, 2.0, 0.5, 1.5]))  # (C,)
    beta: np.ndarray = field(default_factory=lambda: np.array([0.0, 1.0, -1.0, 0.5]))  # (C,)
    eps: float = 1e-5  # PyTorch's default for the three norms
    groups: int = 2  # 1, 2 or 4
    momentum: float = 0.1  # PyTorch's: the weight of the *new* statistic

    def quantities(self) -> dict[str, np.ndarray]:
        """Every input as an array, keyed by quantity; eps, groups and momentum are 0-d."""
        return {f.name: np.asarray(getattr(self, f.name), np.float64) for f in fields(self)}


# ---------------------------------------------------------------------------- what PyTorch says


def layer(norm: str, inputs: Inputs, affine: bool = True) -> nn.Module:
    """PyTorch's layer for "bn", "ln" or "gn" over 4 channels, float64, with gamma and beta.

    LN in a convolutional network is GroupNorm with one group: the statistics of
    LayerNorm([C, H, W]), gamma and beta per channel as in the other two.
    """
    eps = max(inputs.eps, 1e-300)  # BatchNorm2d refuses 0; beside any sigma2 this is as good as 0
    if norm == "bn":
        made = nn.BatchNorm2d(4, eps, inputs.momentum, affine, dtype=torch.float64)
    else:
        groups = 1 if norm == "ln" else int(inputs.groups)
        made = nn.GroupNorm(groups, 4, eps, affine, dtype=torch.float64)
    if affine:
        made.load_state_dict(
            {"weight": torch.tensor(inputs.gamma), "bias": torch.tensor(inputs.beta)}, strict=False
        )
    return made


def index_sets(norm: str, x: torch.Tensor, groups: int) -> torch.Tensor:
    """x (N, C, H, W) -> (sets, values): one row for each set that is normalized together."""
    if norm == "bn":
        return x.transpose(0, 1).reshape(4, 16)
    return x.reshape(4 if norm == "ln" else 4 * groups, -1)


def per_name(norm: str, stat: torch.Tensor) -> torch.Tensor:
    """One number per set -> the shape its names have: (C,) bn, (N,) ln, (N, C) gn."""
    return stat.repeat_interleave(16 // len(stat)).reshape(4, 4) if norm == "gn" else stat


def per_pixel(norm: str, named: torch.Tensor) -> torch.Tensor:
    """A statistic as `per_name` gives it -> (N, C, 1, 1) or what broadcasts to it."""
    shape = {"bn": (1, 4, 1, 1), "ln": (4, 1, 1, 1), "gn": (4, 4, 1, 1)}[norm]
    return named.reshape(shape)


def moments(norm: str, x: torch.Tensor, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and population variance of every set; of a constant set the variance is exactly 0."""
    sets = index_sets(norm, x, groups)
    var, mean = torch.var_mean(sets, dim=1, correction=0)
    var = torch.where(sets.amax(1) == sets.amin(1), 0.0, var)
    return per_name(norm, mean), per_name(norm, var)


def _forward(norm: str, x: torch.Tensor, inputs: Inputs) -> dict[str, torch.Tensor]:
    mean, var = moments(norm, x, int(inputs.groups))
    undefined = per_pixel(norm, var + inputs.eps <= TINY).expand_as(x)
    xhat = layer(norm, inputs, affine=False)(x).masked_fill(undefined, math.nan)
    y = layer(norm, inputs)(x).masked_fill(undefined, math.nan)
    return {"mean": mean, "var": var, "xhat": xhat, "y": y.detach()}


def _backward(norm: str, x: torch.Tensor, inputs: Inputs) -> dict[str, torch.Tensor]:
    """Gradients by autograd, and `held`: what dx would be were mu and sigma constants."""
    x, dy, made = x.clone().requires_grad_(), torch.tensor(inputs.dy), layer(norm, inputs)
    made(x).backward(dy)
    mean, var = (per_pixel(norm, m.detach()) for m in moments(norm, x, int(inputs.groups)))
    gamma = torch.tensor(inputs.gamma).reshape(1, 4, 1, 1)
    held_y = gamma * (x - mean) / torch.sqrt(var + inputs.eps)
    (held,) = torch.autograd.grad(held_y, x, dy)
    undefined = (var + inputs.eps <= TINY).expand_as(x)
    dx, held = (g.masked_fill(undefined, math.nan) for g in (x.grad, held))
    channel = undefined.any(3).any(2).any(0)
    out = {"held": held, "dx": dx, "dbeta": made.bias.grad}
    out["dgamma"] = made.weight.grad.masked_fill(channel, math.nan)
    xhat = _forward(norm, x.detach(), inputs)["xhat"]
    for key, value in (("held", held), ("dx", dx), ("pull", held * xhat)):
        var, mean = torch.var_mean(index_sets(norm, value, int(inputs.groups)), 1, correction=0)
        out[key + "_mean"], out[key + "_var"] = per_name(norm, mean), per_name(norm, var)
    del out["pull_var"]
    return out


def _running(inputs: Inputs) -> dict[str, torch.Tensor]:
    """BN's statistics before and after each of three training steps; layer N in eval mode."""
    bn, bare = layer("bn", inputs), layer("bn", inputs, affine=False)
    steps: dict[str, list[torch.Tensor]] = {}
    for batch in map(torch.tensor, (inputs.x, inputs.step2_x, inputs.step3_x)):
        mean, var = moments("bn", batch, 1)
        row = {"batch_mean": mean, "batch_var": var, "batch_unbiased": var * 16 / 15}
        row |= {"before_mean": bn.running_mean.clone(), "before_var": bn.running_var.clone()}
        bn.train()(batch)
        bare.train()(batch)
        for made in (bn, bare):  # of a constant, PyTorch's rounding leaves 1e-20 instead of 0
            left = (1 - inputs.momentum) * row["before_var"]
            made.running_var.copy_(torch.where(var == 0, left, made.running_var))
        row |= {"run_mean": bn.running_mean.clone(), "run_var": bn.running_var.clone()}
        for key, value in row.items():
            steps.setdefault(key, []).append(value)
    out, x = {key: torch.stack(value) for key, value in steps.items()}, torch.tensor(inputs.x)
    undefined = per_pixel("bn", bn.running_var + inputs.eps <= TINY).expand_as(x)
    for key, made in (("eval_xhat", bare), ("eval_y", bn)):
        out[key] = made.eval()(x).detach().masked_fill(undefined, math.nan)
    return out


def reference(inputs: Inputs) -> dict[str, np.ndarray]:
    """Every computed quantity of the workbook, by PyTorch's layers and autograd in float64.

    nan stands where sigma2 and eps are both 0. Quantities: `{bn,ln,gn}_{mean,var,xhat,y}`, the
    same with `next_` for layer N+1, `_{dx,dgamma,dbeta,held,...}`, `run_*` and `eval_*`.
    """
    out: dict[str, torch.Tensor] = {}
    for norm in NORMS:
        for prefix, x in (("", inputs.x), ("next_", inputs.next_x)):
            result = _forward(norm, torch.tensor(x), inputs)
            out |= {f"{prefix}{norm}_{key}": value for key, value in result.items()}
        result = _backward(norm, torch.tensor(inputs.x), inputs)
        out |= {f"{norm}_{key}": value for key, value in result.items()}
    out |= _running(inputs)
    out |= {"step1_x": torch.tensor(inputs.x), "train_y": out["bn_y"]}  # shown a second time
    return {key: value.numpy() for key, value in out.items()}


def names(quantity: str, array: np.ndarray) -> list[tuple[str, tuple[int, ...]]]:
    """The names of a quantity's cells, each with its index: ("bn_y_1_2", (0, 1)) is 2 x 2."""
    lead = array.shape[:2] if array.ndim == 4 else array.shape
    return [("_".join([quantity, *(str(i + 1) for i in at)]), at) for at in np.ndindex(lead)]


# -------------------------------------------------------------------------- the look of a sheet

# Tints of four Okabe-Ito colours, which people with colour-blindness tell apart too.
CELL_TINT = ("E1EFF9", "FDF0D5", "DAF2E8", "F8E6F0")
HEAD_TINT = ("9CC9E8", "F6CE77", "8DD5BA", "E5B0CD")
LINE = ("0072B2", "B87A00", "00805D", "A8518A")
INK, MUTED, INPUT_INK, SLATE, PAPER = "1F2933", "66727F", "0B3FBF", "2F3E4E", "FFFFFF"
FONT = "Arial"
NUMBER = "0.000"

THIN = Side(style="thin", color=INK)
SOLID = Side(style="medium", color=INK)
DASHED = Side(style="dashed", color=INK)
GAP = Side(style="thick", color=PAPER)
HAIR = Side(style="thin", color=PAPER)
INPUT_EDGE = Side(style="thin", color="8FA6DB")


def cell_name(row: int, column: int) -> str:
    """(9, 3) -> "C9"."""
    return f"{get_column_letter(column)}{row}"


class Page:
    """One sheet while it is written: puts cells, remembers the values its formulas show.

    `values` maps quantity -> array, the numbers that formulas show; `grids` maps quantity -> Grid,
    where the pixels of a quantity stand, on this sheet or on one written before.
    """

    def __init__(self, book: Workbook, title: str, values: dict[str, np.ndarray], grids: dict):
        self.sheet = book.create_sheet(title)
        self.book, self.values, self.grids = book, values, grids
        self.shown: dict[str, float | str] = {}

    def put(self, row, column, value, shown=None, width=1, height=1, **style) -> str:
        """Writes a text, a number or a formula (with the value it shows); returns its address."""
        at = cell_name(row, column)
        self.sheet[at] = value
        if shown is not None:
            self.shown[at] = shown
        if width > 1 or height > 1:
            last = cell_name(row + height - 1, column + width - 1)
            self.sheet.merge_cells(f"{at}:{last}")
        for r, c in itertools.product(range(height), range(width)):
            self.dress(cell_name(row + r, column + c), **style)
        return at

    def dress(self, at, fill=None, ink=INK, bold=False, italic=False, size=10, align="center",
              number=None, wrap=False, shrink=False, vertical="center", indent=0):  # fmt: skip
        """Font, fill and alignment of one cell."""
        cell = self.sheet[at]
        cell.font = Font(name=FONT, size=size, bold=bold, italic=italic, color=ink)
        cell.alignment = Alignment(
            align, vertical, wrap_text=wrap, shrink_to_fit=shrink, indent=indent
        )
        if fill:
            cell.fill = PatternFill("solid", fgColor=fill)
        if number:
            cell.number_format = number

    def name(self, name: str, area: str) -> None:
        """Gives the cells a name that formulas and scripts can use anywhere in the workbook."""
        target = f"'{self.sheet.title}'!{absolute_coordinate(area)}"
        self.book.defined_names[name] = DefinedName(name, attr_text=target)

    def box(self, area: str, side: Side, sides=("left", "right", "top", "bottom")) -> None:
        """Draws the outline of an area, keeping what other lines its cells have."""
        rows = self.sheet[area] if ":" in area else ((self.sheet[area],),)
        edges = {
            "left": [row[0] for row in rows],
            "right": [row[-1] for row in rows],
            "top": rows[0],
            "bottom": rows[-1],
        }
        for edge in sides:
            for cell in edges[edge]:
                old = cell.border
                lines = {k: getattr(old, k) for k in ("left", "right", "top", "bottom")}
                cell.border = Border(**{**lines, edge: side})

    def number(self, row, column, quantity, index, formula, channel=None, **style) -> str:
        """A computed number: formula, the value it shows, its name and its channel's tint."""
        name = "_".join([quantity, *(str(i) for i in index)])
        value = float(self.values[quantity][tuple(i - 1 for i in index)])
        fill = CELL_TINT[channel - 1] if channel else "F1F4F7"
        style = {"fill": fill, "number": NUMBER, "shrink": True} | style
        at = self.put(row, column, "=" + formula, _shown(value), **style)
        self.name(name, at)
        return at

    def bar(self, row, column, text, width, **style) -> None:
        """The dark heading of a block."""
        style = {"fill": SLATE, "ink": PAPER, "bold": True, "align": "left", "indent": 1} | style
        self.put(row, column, text, width=width, **style)

    def heads(self, row, column, span=2, label="channel {}") -> None:
        """Four channel headings in the channels' colours, each over `span` columns."""
        for c in ROWS:
            self.put(row, column + span * (c - 1), label.format(c), width=span,
                     fill=HEAD_TINT[c - 1], bold=True, size=9, shrink=True)  # fmt: skip

    def images(self, row, column) -> None:
        """The labels of four images, each two rows high."""
        for n in ROWS:
            self.put(row + 2 * (n - 1), column, f"image {n}", height=2, ink=MUTED, size=9,
                     align="right", indent=1)  # fmt: skip


def _shown(value: float) -> float | str:
    """The value a formula shows: a number, or the sheet's word for nan; never minus zero."""
    return UNDEFINED if math.isnan(value) else value + 0.0


def plain(value: float) -> int | float:
    """3.0 -> 3, 0.5 -> 0.5: a number as a person would type it."""
    return int(value) if float(value).is_integer() else float(value)


@dataclass(frozen=True)
class Grid:
    """The 8 x 8 cells of 4 images x 4 channels x 2 x 2 pixels; its ranges as text."""

    page: Page
    top: int
    left: int

    def cell(self, n, c, i, j) -> str:
        """One pixel: image and channel from 1, row i and column j from 0."""
        return cell_name(self.top + 2 * (n - 1) + i, self.left + 2 * (c - 1) + j)

    def far(self, n, c, i, j) -> str:
        """The same from another sheet: 'Illustration'!C10."""
        return f"'{self.page.sheet.title}'!{self.cell(n, c, i, j)}"

    def area(self, images, channels, sheet=True) -> str:
        """First to last image, first to last channel, as in 'Illustration'!C10:F11."""
        first = self.cell(images[0], channels[0], 0, 0)
        place = f"'{self.page.sheet.title}'!" if sheet else ""
        return f"{place}{first}:{self.cell(images[1], channels[1], 1, 1)}"


PIXELS = list(itertools.product(ROWS, ROWS, (0, 1), (0, 1)))
ALL = (1, 4)


def over(norm: str, n: int, c: int, formula: Callable[..., str], *grids: Grid) -> str:
    """`formula` of the cells that `norm` averages together with image n, channel c."""

    def of(images, channels):
        return formula(*(g.area(images, channels, sheet) for g in grids))

    sheet = len({g.page.sheet.title for g in grids}) > 1
    if norm == "bn":
        return of(ALL, (c, c))
    if norm == "ln":
        return of((n, n), ALL)
    pair = (1, 2) if c <= 2 else (3, 4)
    one, two, four = of((n, n), ALL), of((n, n), pair), of((n, n), (c, c))
    return f"IF(groups=1,{one},IF(groups=2,{two},{four}))"


def mean_of(area: str) -> str:
    """AVERAGE, or the word for nan where the cells hold no number."""
    return f'IF(COUNT({area})=0,"{UNDEFINED}",AVERAGE({area}))'


def variance_of(area: str) -> str:
    """Population variance in two passes; exactly 0 where all values are the same."""
    return f"IF(MAX({area})=MIN({area}),0,DEVSQ({area})/COUNT({area}))"


def spread_of(area: str) -> str:
    """Population variance of cells that may hold the word for nan."""
    return f'IF(COUNT({area})=0,"{UNDEFINED}",DEVSQ({area})/COUNT({area}))'


def guarded(variance: str, formula: str) -> str:
    """`formula`, or the word for nan where there is nothing to divide by."""
    return f'IF({variance}+eps>{TINY:.0E},{formula},"{UNDEFINED}")'


def which(norm: str, n: int, c: int) -> str:
    """The end of a statistic's name: the channel for BN, the image for LN, both for GN."""
    return {"bn": f"{c}", "ln": f"{n}", "gn": f"{n}_{c}"}[norm]


def sets(norm: str) -> list[tuple[int, int, tuple[int, ...]]]:
    """(n, c, index of the name) of every statistic of a norm; 0 for "all images/channels"."""
    if norm == "bn":
        return [(0, c, (c,)) for c in ROWS]
    if norm == "ln":
        return [(n, 0, (n,)) for n in ROWS]
    return [(n, c, (n, c)) for n in ROWS for c in ROWS]


def write_inputs(page: Page, top: int, left: int, quantity: str) -> Grid:
    """A grid of cells to type into, in the channels' tints."""
    grid = page.grids[quantity] = Grid(page, top, left)
    for n, c, i, j in PIXELS:
        at = page.sheet[grid.cell(n, c, i, j)]
        page.put(at.row, at.column, plain(page.values[quantity][n - 1, c - 1, i, j]),
                 fill=CELL_TINT[c - 1], ink=INPUT_INK, bold=True, shrink=True)  # fmt: skip
    for n, c in itertools.product(ROWS, ROWS):
        tile = grid.area((n, n), (c, c), sheet=False)
        page.box(tile, GAP)
        page.name(f"{quantity}_{n}_{c}", tile)
    must_be_number(page, grid.area(ALL, ALL, sheet=False))
    return grid


def must_be_number(page: Page, area: str, low=-LIMIT, high=LIMIT, prompt: str = "") -> None:
    """Data validation: a number between `low` and `high`; anything else is refused in words."""
    rule = DataValidation(
        "decimal", operator="between", formula1=f"{low:g}", formula2=f"{high:g}", allow_blank=False
    )
    rule.errorTitle, rule.error = "A number, please", f"Type a number from {low:g} to {high:g}."
    if prompt:
        rule.promptTitle, rule.prompt = "An input", prompt
    rule.add(area)
    page.sheet.add_data_validation(rule)


def write_grid(page, top: int, left: int, quantity: str, formula, norm="", number=NUMBER) -> Grid:
    """A grid of computed pixels, `formula(n, c, i, j)` each, framed as `norm` groups them."""
    grid = page.grids[quantity] = Grid(page, top, left)
    for n, c, i, j in PIXELS:
        at = page.sheet[grid.cell(n, c, i, j)]
        value = _shown(float(page.values[quantity][n - 1, c - 1, i, j]))
        page.put(at.row, at.column, "=" + formula(n, c, i, j), value,
                 fill=CELL_TINT[c - 1], number=number, shrink=True, size=9)  # fmt: skip
    for n, c in itertools.product(ROWS, ROWS):
        tile = grid.area((n, n), (c, c), sheet=False)
        page.box(tile, HAIR if norm else GAP)
        page.name(f"{quantity}_{n}_{c}", tile)
    frame(page, norm, top, left, span=2)
    return grid


def frame(page: Page, norm: str, top: int, left: int, span: int, tall: bool = False) -> None:
    """Lines around what a norm takes together: BN per channel, LN boxes, GN dashed boxes.

    `span` is the number of columns that one channel has here; an image has two rows.
    """
    if norm == "bn":
        for c in ROWS:
            first = left + span * (c - 1)
            area = f"{cell_name(top, first)}:{cell_name(top + 7, first + span - 1)}"
            page.box(area, Side(style="medium", color=LINE[c - 1]))
    for n in ROWS if norm in ("ln", "gn") else ():
        row = top + 2 * (n - 1)
        area = f"{cell_name(row, left)}:{cell_name(row + 1, left + 4 * span - 1)}"
        page.box(area, SOLID if norm == "ln" else DASHED)
    if norm == "gn":
        dash_between_groups(page, top, left, span, tall)


def dash_between_groups(page: Page, top: int, left: int, span: int, tall: bool) -> None:
    """The inner dashed lines of GN, which follow the number of groups (conditional formats).

    A conditional border replaces all four lines of a cell in some programs, so each rule repeats
    the lines that its cells have anyway. `tall` cells are two rows merged into one.
    """
    for c, groups in ((2, 4), (3, 2), (4, 4)):
        column = left + span * (c - 1)
        for i, edge in ((0, "top"), (1, "bottom")):
            edges = {"left", edge} | ({"bottom"} if tall else set())
            edges |= {"right"} if c == 4 and span == 1 else set()
            border = Border(**dict.fromkeys(sorted(edges), DASHED))
            rule = Rule("expression", dxf=DifferentialStyle(border=border))
            rule.formula = [f"groups>={groups}"]
            cells = " ".join(cell_name(top + 2 * n + i, column) for n in range(4))
            page.sheet.conditional_formatting.add(cells, rule)


def place(norm: str, top: int, left: int, span: int, n: int, c: int) -> tuple[int, int]:
    """Row and column of a norm's statistic: BN in one row, the others two rows per image."""
    return top + (2 * (n - 1) if n else 0), left + (span * (c - 1) if c else 0)


# ------------------------------------------------------------------------------------ the sheets


def cover(page: Page, title: str, subtitle: str, width: int) -> None:
    """Title and one line on what to do; rows 1 and 2."""
    page.put(1, 2, title, width=width, bold=True, size=18, align="left")
    page.put(2, 2, subtitle, width=width, ink=MUTED, align="left", size=10)
    page.sheet.row_dimensions[1].height = 30
    page.sheet.row_dimensions[2].height = 24


SINGLES = ["eps", "groups", *(f"{key}_{c}" for key in ("gamma", "beta") for c in ROWS)]


def warning(page: Page, row: int, width: int, typed: list[str], computed: list[str]) -> None:
    """One line that speaks up: an input that is no number, a value out of range, or 0/0.

    `typed` and `computed` are the grids to look at: the inputs, and what divides by sigma.
    """
    inputs = ",".join([page.grids[q].area(ALL, ALL) for q in typed] + SINGLES)
    hats = ",".join(page.grids[q].area(ALL, ALL) for q in computed)
    explain = (
        f"{UNDEFINED}: a variance is 0 and ε is 0, so there is nothing to divide by "
        "(PyTorch gives nan). Type a positive ε."
    )
    text = (
        f'=IF(COUNT({inputs})<{64 * len(typed) + len(SINGLES)},"An input cell is empty or holds '
        'text: every input needs a number.",'
        'IF(AND(groups<>1,groups<>2,groups<>4),"groups must be 1, 2 or 4: '
        'the four channels have to split evenly.",'
        'IF(eps<0,"ε must not be negative: it is added to a variance.",'
        f'IF(COUNT({hats})<{64 * len(computed)},"{explain}",""))))'
    )
    undefined = any(np.isnan(page.values[q]).any() for q in computed)
    page.put(row, 2, text, explain if undefined else "", width=width, bold=True, ink="B3261E",
             align="left")  # fmt: skip


def layer_block(page: Page, top: int, left: int, prefix: str, title: str) -> None:
    """One layer: the inputs with every mean and variance, then xhat and y of each norm.

    It takes 46 rows and 18 columns from (top, left).
    """
    page.bar(top, left, f"{title}: the values x", 9)
    page.bar(top, left + 9, "mean μ (upper) and variance σ² (lower)", 9)
    page.heads(top + 1, left + 1)
    page.images(top + 2, left)
    grid = write_inputs(page, top + 2, left + 1, f"{prefix}x")
    _statistics(page, grid, top, left, prefix)
    for k, norm in enumerate(NORMS):
        _outputs(page, grid, top + 13 + 11 * k, left, prefix, norm)


def _statistics(page: Page, grid: Grid, top: int, left: int, prefix: str) -> None:
    """BN's statistics under the channels, LN's and GN's beside the images."""
    page.put(top + 1, left + 10, "LN per image", width=2, bold=True, size=8, fill="DDE2E7",
             shrink=True)  # fmt: skip
    page.heads(top + 1, left + 12, span=1, label="GN {}")
    for n in ROWS:
        page.put(top + 2 * n, left + 9, "μ", ink=MUTED, size=9)
        page.put(top + 2 * n + 1, left + 9, "σ²", ink=MUTED, size=9)
    page.put(top + 10, left, "BN  μ", ink=MUTED, size=9, align="right", indent=1)
    page.put(top + 11, left, "BN  σ²", ink=MUTED, size=9, align="right", indent=1)
    spots = {"bn": (top + 10, left + 1, 2), "ln": (top + 2, left + 10, 2),
             "gn": (top + 2, left + 12, 1)}  # fmt: skip
    for norm, (row, column, span) in spots.items():
        for n, c, index in sets(norm):
            r, k = place(norm, row, column, span, n, c)
            for step, key, formula in ((0, "mean", "AVERAGE({})".format), (1, "var", variance_of)):
                page.number(r + step, k, f"{prefix}{norm}_{key}", index,
                            over(norm, n, c, formula, grid), width=span, channel=c,
                            bold=norm == "bn", size=9)  # fmt: skip
            if norm == "ln":
                page.box(f"{cell_name(r, k)}:{cell_name(r + 1, k + 1)}", SOLID)
    frame(page, "gn", top + 2, left + 12, span=1)
    _comparisons(page, grid, top + 2, left, prefix)
    caption = (
        "BN: per channel, coloured  ·  LN: per image, boxed  ·  GN: per image and group, dashed"
    )
    page.put(top + 10, left + 10, caption, width=8, height=2, size=8, ink=MUTED, italic=True,
             wrap=True, align="left")  # fmt: skip


def _comparisons(page: Page, grid: Grid, top: int, left: int, prefix: str) -> None:
    """Beside GN's numbers, live: are they LN's, are they instance norm's?"""
    for n, (step, key, formula) in itertools.product(
        ROWS, ((0, "mean", "AVERAGE({})".format), (1, "var", variance_of))
    ):
        row = top + 2 * (n - 1) + step
        gn = [cell_name(row, left + 12 + c) for c in range(4)]
        ln = cell_name(row, left + 10)
        same_ln = f"SUMPRODUCT(ABS({gn[0]}:{gn[3]}-{ln}))=0"
        tiles = (formula(grid.area((n, n), (c, c), sheet=False)) for c in ROWS)
        same_in = "+".join(f"ABS({g}-{tile})" for g, tile in zip(gn, tiles, strict=True)) + "=0"
        text = f'=IF({same_ln},"= LN",IF({same_in},"= IN",""))'
        page.put(row, left + 16, text, _same_as(page, prefix, key, n), width=2, size=9,
                 bold=True, ink=LINE[2])  # fmt: skip


def _same_as(page: Page, prefix: str, key: str, n: int) -> str:
    gn = page.values[f"{prefix}gn_{key}"][n - 1]
    if np.ptp(gn) == 0 and gn[0] == page.values[f"{prefix}ln_{key}"][n - 1]:
        return "= LN"
    x = page.values[f"{prefix}x"][n - 1].reshape(4, 4)
    alone = x.mean(1) if key == "mean" else x.var(1)
    return "= IN" if np.abs(gn - alone).max() <= 1e-15 * (1 + np.abs(x).max() ** 2) else ""


def _outputs(page: Page, grid: Grid, top: int, left: int, prefix: str, norm: str) -> None:
    """The normalized values and the outputs of one norm, side by side; 10 rows."""
    page.bar(top, left, f"{NORMS[norm]}:  x̂ = (x − μ) / √(σ² + ε)", 9)
    page.bar(top, left + 9, "  y = γ x̂ + β", 9)
    page.heads(top + 1, left + 1)
    page.heads(top + 1, left + 10)
    page.images(top + 2, left)

    def xhat(n, c, i, j):
        mean, var = (f"{prefix}{norm}_{key}_{which(norm, n, c)}" for key in ("mean", "var"))
        return guarded(var, f"({grid.cell(n, c, i, j)}-{mean})/SQRT({var}+eps)")

    hats = write_grid(page, top + 2, left + 1, f"{prefix}{norm}_xhat", xhat, norm)
    write_grid(page, top + 2, left + 10, f"{prefix}{norm}_y", affine_of(hats), norm)


def affine_of(hats: Grid) -> Callable[[int, int, int, int], str]:
    """The formula of y = gamma xhat + beta for a grid of xhat on the same sheet."""

    def y(n, c, i, j):
        hat = hats.cell(n, c, i, j)
        return f'IF(ISNUMBER({hat}),gamma_{c}*{hat}+beta_{c},"{UNDEFINED}")'

    return y


def illustration(page: Page) -> None:
    """Two layers: the inputs, every statistic, xhat and y of the three norms."""
    cover(page, "What batch, layer and group norm average together",
          "Type over any blue number: everything else follows. "
          "4 images × 4 channels × 2×2 pixels, in two layers.", 37)  # fmt: skip
    _parameters(page)
    layer_block(page, 8, 2, "", "Layer N")
    layer_block(page, 8, 21, "next_", "Layer N+1")
    hats = [f"{prefix}{norm}_xhat" for prefix in ("", "next_") for norm in NORMS]
    warning(page, 6, 37, ["x", "next_x"], hats)
    widths = [1.5, 9.5, *[6.4] * 8, 4, *[6.4] * 8, 3, 9.5, *[6.4] * 8, 4, *[6.4] * 8]
    finish(page, widths, rows=53, freeze="C7")


def _parameters(page: Page) -> None:
    """gamma and beta above the channels they belong to, eps and groups beside them, a legend."""
    page.put(3, 2, "for all norms", ink=MUTED, size=8, align="right", indent=1)
    page.heads(3, 3)
    for row, key, sign in ((4, "gamma", "γ  scale"), (5, "beta", "β  shift")):
        page.put(row, 2, sign, align="right", size=9, bold=True, indent=1)
        for c in ROWS:
            _input(page, row, 1 + 2 * c, f"{key}_{c}", page.values[key][c - 1], width=2)
        must_be_number(page, f"C{row}:J{row}", prompt=f"{key} of the channel, used by BN, LN, GN")
    page.put(4, 11, "ε", width=2, align="right", bold=True, indent=1)
    _input(page, 4, 13, "eps", page.values["eps"], width=2)
    must_be_number(page, "M4", 0, prompt="ε is added to σ² before the root: 0 or more")
    page.put(5, 11, "groups", width=2, align="right", bold=True, indent=1)
    _input(page, 5, 13, "groups", int(page.values["groups"]), width=2)
    rule = DataValidation("list", formula1='"1,2,4"', allow_blank=False)
    rule.errorTitle, rule.error = "1, 2 or 4", "Four channels split evenly into 1, 2 or 4 groups."
    rule.promptTitle, rule.prompt = "An input", "Groups of group norm: 1, 2 or 4"
    rule.add("M5")
    page.sheet.add_data_validation(rule)
    says = {1: "all four channels: GN's numbers are LN's",
            2: "channels 1–2 and channels 3–4",
            4: "each alone: GN's are instance norm's (IN)"}  # fmt: skip
    text = f'=IF(groups=1,"← {says[1]}",IF(groups=2,"← {says[2]}","← {says[4]}"))'
    page.put(5, 15, text, "← " + says[int(page.values["groups"])], width=7, align="left",
             size=9, ink=LINE[2], bold=True, indent=1)  # fmt: skip
    page.put(4, 15, "← added to σ² under the root", width=7, align="left", size=9,
             ink=MUTED, indent=1)  # fmt: skip
    legend(page, 4, 22)


def legend(page: Page, row: int, column: int) -> None:
    """What the marks mean: six small samples in two lines."""
    samples = (
        (0, 0, 3, "type here", INPUT_EDGE, {"ink": INPUT_INK, "bold": True}),
        (1, 0, 0.5, "computed", None, {"fill": "F1F4F7", "number": NUMBER, "size": 9}),
        (0, 4, "", "BN: a channel of all images", Side(style="medium", color=LINE[0]), {}),
        (1, 4, "", "in the channel's colour", None, {"fill": HEAD_TINT[0]}),
        (0, 10, "", "LN: an image, all channels", SOLID, {}),
        (1, 10, "", "GN: an image, a group of channels", DASHED, {}),
    )
    for down, right, sample, meaning, line, style in samples:
        at = page.put(row + down, column + right, sample, **style)
        if line:
            page.box(at, line)
        page.put(row + down, column + right + 1, meaning, width=3 if right == 0 else 5, size=9,
                 align="left", indent=1)  # fmt: skip


def _input(page: Page, row: int, column: int, name: str, value, width: int = 1) -> None:
    """One cell to type into, with its name."""
    at = page.put(row, column, plain(value), width=width, ink=INPUT_INK, bold=True, shrink=True)
    page.box(f"{at}:{cell_name(row, column + width - 1)}", INPUT_EDGE)
    page.name(name, at)


def finish(page: Page, widths: list[float], rows: int, freeze: str | None) -> None:
    """Column widths, frozen panes, and one landscape page in print."""
    sheet = page.sheet
    for k, width in enumerate(widths, start=1):
        sheet.column_dimensions[get_column_letter(k)].width = width
    for k in range(3, rows + 1):
        if sheet.row_dimensions[k].height is None:
            sheet.row_dimensions[k].height = 18
    sheet.freeze_panes = freeze
    sheet.sheet_view.showGridLines = False
    sheet.sheet_view.zoomScale = 90
    sheet.print_area = f"A1:{cell_name(rows, len(widths))}"
    sheet.page_setup.orientation, sheet.page_setup.paperSize = "landscape", 9  # A4
    sheet.page_setup.fitToWidth = sheet.page_setup.fitToHeight = 1
    sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    sheet.print_options.horizontalCentered = True
    margins = sheet.page_margins
    margins.left = margins.right = margins.top = margins.bottom = 0.4
    margins.header = margins.footer = 0.2
    sheet.oddFooter.right.text, sheet.oddFooter.right.size = "&A", 8


STEP_ROWS = {  # the rows under each step's batch, from the top down: quantity -> label
    "before_mean": "running μ, before",
    "before_var": "running σ², before",
    "batch_mean": "batch μ",
    "batch_var": "batch σ² (÷16, normalizes)",
    "batch_unbiased": "unbiased (÷15, is stored)",
    "run_mean": "running μ, after",
    "run_var": "running σ², after",
}


def train_and_eval(page: Page) -> None:
    """BN's running statistics over three training steps, then evaluation of layer N."""
    cover(page, "Batch norm in training and in evaluation",
          "Three training steps move the running statistics; evaluation then uses them instead "
          "of the batch's own. Type over any blue number.", 27)  # fmt: skip
    page.put(4, 2, "momentum", bold=True, align="right", size=9, indent=1)
    _input(page, 4, 3, "momentum", page.values["momentum"], width=2)
    must_be_number(page, "C4", 0, 1, "The weight of the new statistic, 0 to 1 (PyTorch's meaning)")
    page.put(4, 5, "← weight of the new statistic:  running ← (1 − momentum) · running + "
             "momentum · batch.   γ, β and ε stand on the Illustration.",
             width=24, align="left", italic=True, size=9, ink=MUTED)  # fmt: skip
    for step in (1, 2, 3):
        _step(page, 6, 3 + 9 * (step - 1), step)
    _evaluation(page, 26)
    warning(page, 3, 27, ["x", "step2_x", "step3_x"], ["eval_xhat"])
    finish(page, [1.5, 23, *([6.4] * 8 + [2.5]) * 2, *[6.4] * 8], rows=39, freeze="C5")


def _step(page: Page, top: int, left: int, step: int) -> None:
    """One training step: its batch, the batch's statistics, the running ones before and after."""
    title = "layer N's images" if step == 1 else "another batch (type here)"
    page.bar(top, left, f"Training step {step}: {title}", 8)
    page.heads(top + 1, left)
    if step == 1:
        page.images(top + 2, left - 1)
        write_grid(page, top + 2, left, "step1_x", page.grids["x"].far, number="General")
    else:
        write_inputs(page, top + 2, left, f"step{step}_x")
    for k, (quantity, label) in enumerate(STEP_ROWS.items()):
        last = quantity.startswith("run")
        if step == 1:
            page.put(top + 11 + k, left - 1, label, align="right", size=9, bold=last, indent=1,
                     ink=INK if last else MUTED)  # fmt: skip
        for c in ROWS:
            fill = HEAD_TINT[c - 1] if last else CELL_TINT[c - 1]
            page.number(top + 11 + k, left + 2 * (c - 1), quantity, (step, c),
                        _step_formula(page, quantity, step, c), width=2, size=9, channel=c,
                        bold=last, fill=fill)  # fmt: skip


def _step_formula(page: Page, quantity: str, step: int, c: int) -> str:
    """What stands in one of the rows under a batch; earlier rows are called by their names."""
    area = page.grids[f"step{step}_x"].area(ALL, (c, c), sheet=False)
    start = {"before_mean": "0", "before_var": "1"}  # as nn.BatchNorm2d starts
    if step == 1 and quantity in start:
        return start[quantity]
    return {
        "before_mean": f"run_mean_{step - 1}_{c}",
        "before_var": f"run_var_{step - 1}_{c}",
        "batch_mean": f"AVERAGE({area})",
        "batch_var": variance_of(area),
        "batch_unbiased": f"batch_var_{step}_{c}*COUNT({area})/(COUNT({area})-1)",
        "run_mean": f"(1-momentum)*before_mean_{step}_{c}+momentum*batch_mean_{step}_{c}",
        "run_var": f"(1-momentum)*before_var_{step}_{c}+momentum*batch_unbiased_{step}_{c}",
    }[quantity]


def _evaluation(page: Page, top: int) -> None:
    """Layer N's images with the running statistics: xhat, y, and training's y beside them."""
    x = page.grids["x"]

    def xhat(n, c, i, j):
        mean, var = f"run_mean_3_{c}", f"run_var_3_{c}"
        return guarded(var, f"({x.far(n, c, i, j)}-{mean})/SQRT({var}+eps)")

    titles = ("Evaluation of layer N: x̂ by the running μ, σ² of step 3",
              "Evaluation:  y = γ x̂ + β",
              "Training, step 1:  y of the same images")  # fmt: skip
    for k, title in enumerate(titles):
        page.bar(top, 3 + 9 * k, title, 8)
        page.heads(top + 1, 3 + 9 * k)
    page.images(top + 2, 2)
    hats = write_grid(page, top + 2, 3, "eval_xhat", xhat)
    write_grid(page, top + 2, 12, "eval_y", affine_of(hats))
    write_grid(page, top + 2, 21, "train_y", page.grids["bn_y"].far)
    _gap(page, top + 11)


def _gap(page: Page, row: int) -> None:
    """How far evaluation is from training on the same images, as one number."""
    one, two = (page.grids[q].area(ALL, ALL, sheet=False) for q in ("eval_y", "train_y"))
    square = f"SUMPRODUCT(({one}-{two})^2)"
    defined = f"COUNT({one})+COUNT({two})=128"
    gap = np.sqrt(np.mean((page.values["eval_y"] - page.values["train_y"]) ** 2))
    page.put(row, 3, "root mean square of (evaluation's y − training's y), the same images",
             width=17, align="right", size=9, bold=True, indent=1)  # fmt: skip
    page.put(row, 21, f'=IF({defined},SQRT({square}/64),"{UNDEFINED}")', _shown(float(gap)),
             width=2, number=NUMBER, bold=True, fill="F1F4F7")  # fmt: skip
    page.put(row + 1, 3, "Why two variances? ÷16 is the variance of these pixels, which "
             "normalizes them; ÷15 estimates the variance of all images, which evaluation needs. "
             "Storing ÷16 is a common mistake.", width=26, align="left", size=9, italic=True,
             ink=MUTED)  # fmt: skip


def gradients(page: Page) -> None:
    """An upstream gradient, and what each norm passes on: in full, and with mu, sigma held."""
    cover(page, "What each norm does to the gradient",
          "Type over the upstream gradient ∂ℓ/∂y of layer N: everything else follows. "
          "x, γ, ε and groups stand on the Illustration.", 33)  # fmt: skip
    page.bar(4, 2, "Upstream gradient ∂ℓ/∂y (type here)", 9)
    page.heads(5, 3)
    page.images(6, 2)
    write_inputs(page, 6, 3, "dy")
    _gradient_notes(page)
    for k, norm in enumerate(NORMS):
        _gradient_block(page, 15 + 13 * k, norm)
    warning(page, 3, 33, ["x", "dy"], [f"{norm}_held" for norm in NORMS])
    stats = ([4.5] + [7.2] * 4) * 3
    finish(page, [1.5, 9.5, *[6.4] * 8, 2.5, *[6.4] * 8, *stats], rows=53, freeze="C5")


def _gradient_notes(page: Page) -> None:
    """How to read the sheet, beside the upstream gradient."""
    lines = (
        "held:   h = γ · ∂ℓ/∂y / √(σ² + ε)   is the gradient if μ and σ were constants.",
        "full:   ∂ℓ/∂x = h − mean(h) − x̂ · mean(h · x̂),   means over the set that is "
        "normalized together.",
        "− mean(h) is what the derivative of μ adds: the mean of ∂ℓ/∂x becomes 0 (re-centred).",
        "− x̂ · mean(h · x̂) is what the derivative of σ adds: the variance shrinks (re-scaled).",
        "Compare the two columns of means and variances below (arXiv 1911.07013).",
        "∂ℓ/∂γ = Σ ∂ℓ/∂y · x̂   and   ∂ℓ/∂β = Σ ∂ℓ/∂y,   per channel, over images and pixels.",
    )
    page.bar(4, 12, "How to read this sheet", 23)
    for k, line in enumerate(lines):
        page.put(6 + k, 12, line, width=23, align="left", bold=k < 2, indent=1)


def _gradient_block(page: Page, top: int, norm: str) -> None:
    """One norm: held, full gradient, their statistics per set, and those of gamma and beta."""
    page.bar(top, 2, f"{NORMS[norm]}: h, with μ and σ held constant", 9)
    page.bar(top, 12, "∂ℓ/∂x in full", 8)
    page.heads(top + 1, 3)
    page.heads(top + 1, 12)
    page.images(top + 2, 2)

    def held(n, c, i, j):
        var = f"{norm}_var_{which(norm, n, c)}"
        return guarded(var, f"gamma_{c}*{page.grids['dy'].cell(n, c, i, j)}/SQRT({var}+eps)")

    write_grid(page, top + 2, 3, f"{norm}_held", held, norm)
    _gradient_statistics(page, top, norm)

    def dx(n, c, i, j):
        h, hat = (page.grids[f"{norm}_{q}"] for q in ("held", "xhat"))
        h, hat, at = h.cell(n, c, i, j), hat.far(n, c, i, j), which(norm, n, c)
        full = f"{h}-{norm}_held_mean_{at}-{hat}*{norm}_pull_mean_{at}"
        return f'IF(ISNUMBER({h}),{full},"{UNDEFINED}")'

    write_grid(page, top + 2, 12, f"{norm}_dx", dx, norm)
    _affine_gradients(page, top + 10, norm)


def _gradient_statistics(page: Page, top: int, norm: str) -> None:
    """Mean and variance of h and of dl/dx, and mean(h xhat), for each set of the norm."""
    h, hat = page.grids[f"{norm}_held"], page.grids[f"{norm}_xhat"]
    dx = page.grids[f"{norm}_dx"] = Grid(page, top + 2, 12)  # written next, from these numbers

    def pull(one, two):
        return f'IF(COUNT({one})=0,"{UNDEFINED}",SUMPRODUCT({one},{two})/COUNT({one}))'

    def centred(area):  # the mean is 0 but for rounding, which would read as -0.000
        return f'IF(COUNT({area})=0,"{UNDEFINED}",ROUND(AVERAGE({area}),12))'

    columns = (
        ("held", 21, "h: mean and variance", (("mean", mean_of, (h,)), ("var", spread_of, (h,)))),
        ("dx", 26, "∂ℓ/∂x: mean, variance", (("mean", centred, (dx,)), ("var", spread_of, (dx,)))),
        ("pull", 31, "mean of h · x̂", (("mean", pull, (h, hat)),)),
    )
    for key, column, title, rows in columns:
        page.bar(top, column - 1, title, 5, size=9)
        _set_heads(page, top + 1, column, norm)
        for n, c, index in sets(norm):
            row, at = place(norm, top + 2, column, 1, n, c)
            for step, (name, formula, grids) in enumerate(rows):
                page.number(row + step, at, f"{norm}_{key}_{name}", index,
                            over(norm, n, c, formula, *grids), width=1 if c else 4,
                            height=3 - len(rows), channel=c, size=9)  # fmt: skip
                if c <= 1 and len(rows) == 2:
                    page.put(row + step, column - 1, ("μ", "σ²")[step], ink=MUTED, size=9)
        _set_frames(page, norm, top + 2, column, tall=len(rows) == 1)


def _set_heads(page: Page, row: int, column: int, norm: str) -> None:
    if norm == "ln":
        page.put(row, column, "one per image", width=4, bold=True, size=8, fill="DDE2E7")
    else:
        page.heads(row, column, span=1, label="ch. {}")


def _set_frames(page: Page, norm: str, top: int, column: int, tall: bool) -> None:
    """The norm's own lines round its statistics."""
    if norm == "gn":
        frame(page, norm, top, column, span=1, tall=tall)
    for k in range(4) if norm != "gn" else ():
        first = (top, column + k) if norm == "bn" else (top + 2 * k, column)
        last = (first[0] + 1, first[1] + (0 if norm == "bn" else 3))
        side = Side(style="medium", color=LINE[k]) if norm == "bn" else SOLID
        page.box(f"{cell_name(*first)}:{cell_name(*last)}", side)


def _affine_gradients(page: Page, top: int, norm: str) -> None:
    """dl/dgamma and dl/dbeta per channel, under the full gradient."""
    dy, hat = page.grids["dy"], page.grids[f"{norm}_xhat"]
    for k, (key, sign) in enumerate((("dgamma", "∂ℓ/∂γ"), ("dbeta", "∂ℓ/∂β"))):
        page.put(top + k, 10, sign, align="right", size=9, ink=MUTED, width=2,
                 indent=1)  # fmt: skip
        for c in ROWS:
            up, hats = dy.area(ALL, (c, c), sheet=False), hat.area(ALL, (c, c))
            total = f'IF(COUNT({hats})=16,SUMPRODUCT({up},{hats}),"{UNDEFINED}")'
            page.number(top + k, 10 + 2 * c, f"{norm}_{key}", (c,),
                        total if key == "dgamma" else f"SUM({up})", width=2, channel=c,
                        bold=True, size=9)  # fmt: skip


READ_ME = (
    ("#", "The sheets"),
    ("Illustration", "Two layers of a network. Under each channel BN's mean and variance, beside "
     "each image LN's and GN's; below, the normalized values x̂ and the outputs y of each norm."),
    ("Train and eval", "BN only: its running mean and variance over three training steps, and "
     "what evaluation makes of layer N with them. LN and GN are the same in both modes."),
    ("Gradients", "What each norm passes back: the full gradient, and the one that would be if "
     "μ and σ were constants. The full one is re-centred and re-scaled."),
    ("#", "The formulas"),
    ("one formula", "x̂ = (x − μ) / √(σ² + ε)        y = γ x̂ + β        "
     "μ = mean of x over S        σ² = mean of (x − μ)² over S"),
    ("the set S", "BN: one channel of all images (16 numbers).   LN: one image, all channels "
     "(16).   GN: one image, one group of channels (16, 8 or 4 for 1, 2 or 4 groups)."),
    ("γ and β", "One of each per channel in all three norms, as in PyTorch's BatchNorm2d and "
     "GroupNorm. LN here is GroupNorm(1, 4)."),
    ("running", "running ← (1 − momentum) · running + momentum · batch; the variance that is "
     "stored is the unbiased one, σ² · 16/15."),
    ("gradient", "h = γ · ∂ℓ/∂y / √(σ² + ε)        ∂ℓ/∂x = h − mean(h) − x̂ · mean(h · x̂), "
     "means over S        ∂ℓ/∂γ = Σ ∂ℓ/∂y · x̂        ∂ℓ/∂β = Σ ∂ℓ/∂y"),
    ("#", "The colours and lines"),
    ("blue, bold", "A number to type over. Everything in black is a formula and follows."),
    ("tints", "One colour per channel, everywhere. Numbers in a channel's colour belong to it."),
    ("lines", "A coloured frame: what BN takes together. A solid box: what LN does. A dashed box: "
     "what GN does; the dashes follow the number of groups, where a program draws such lines."),
    (UNDEFINED, "A variance of 0 with ε = 0: nothing to divide by. PyTorch gives nan there."),
    ("#", "What to try"),
    ("1", "groups = 1, then 4. Beside GN's statistics appears “= LN”, then “= IN” (instance "
     "norm)."),
    ("2", "Set one pixel of image 1 to 100. Which numbers of image 2 move under BN, under LN, "
     "under GN?"),
    ("3", "Add 1000 to all pixels of one channel. Which norm's y does not change? And for all "
     "pixels of one image?"),
    ("4", "Make a channel constant, then set ε = 0. Then ε = 1."),
    ("5", "momentum = 1: evaluation forgets all but the last batch. momentum = 0: it never "
     "learns."),
    ("6", "Gradients: set all of ∂ℓ/∂y to 1. h is not 0, but ∂ℓ/∂x of BN is: adding the same to "
     "every pixel of a channel changes nothing."),
    ("#", "Check it"),
    ("PyTorch", "python normalization_demo.py check normalization_demo.xlsx   compares every "
     "number with PyTorch's, your own inputs too. Names such as bn_xhat_1_2 (image 1, channel 2) "
     "find the cells."),
    ("papers", "BN arXiv 1502.03167 · LN 1607.06450 · GN 1803.08494 · IN 1607.08022 · "
     "gradients 1911.07013"),
)  # fmt: skip


def read_me(page: Page) -> None:
    """What each sheet shows, the formulas, the colours, what to try."""
    cover(page, "Normalization by hand", "Batch, layer and group norm of four small images, in "
          "formulas that recompute. Start with the sheet Illustration.", 2)  # fmt: skip
    row = 4
    for label, text in READ_ME:
        if label == "#":
            row += row > 4
            page.bar(row, 2, text, 2)
        else:
            page.put(row, 2, label, bold=True, align="left", indent=1)
            page.put(row, 3, text, align="left", wrap=True)
            page.sheet.row_dimensions[row].height = 14 * math.ceil(len(text) / 160) + 6
        row += 1
    for at in ("B5", "B6", "B7"):
        target = f"'{page.sheet[at].value}'!A1"
        page.sheet[at].hyperlink = Hyperlink(at, location=target)
        page.dress(at, ink=INPUT_INK, bold=True, align="left", indent=1)
    finish(page, [1.5, 18, 140], rows=row, freeze=None)


# ------------------------------------------------------------------------------- the build


def build(path: str | Path = WORKBOOK, inputs: Inputs | None = None) -> Path:
    """Writes the workbook with these inputs; every formula carries its value. Returns the path.

    The same inputs give the same bytes. A workbook that lies there and that somebody saved
    is kept beside it under another name (`kept_copy`).
    """
    path, values = Path(path), (inputs or Inputs()).quantities()
    values |= reference(inputs or Inputs())
    book, grids = Workbook(), {}
    book.remove(book.active)
    book.properties.title, book.properties.creator = "Normalization by hand", "the lesson"
    pages = [Page(book, "Read me", values, grids)]
    read_me(pages[0])
    for title, write in {"Illustration": illustration, "Train and eval": train_and_eval,
                         "Gradients": gradients}.items():  # fmt: skip
        pages.append(Page(book, title, values, grids))
        write(pages[-1])
    book.active = 1
    book.calculation.fullCalcOnLoad = True
    raw = BytesIO()
    book.save(raw)
    replace_file(path, with_values(raw, [page.shown for page in pages]))
    return path


FORMULA = re.compile(r'<c r="(\w+)"([^>]*)><f>(.*?)</f><v ?/?>(?:</v>)?</c>')
STAMP = "2025-01-01T00:00:00Z"


def with_values(raw: BytesIO, shown: list[dict[str, float | str]]) -> bytes:
    """openpyxl's file -> the same with the formulas' values in it and fixed dates.

    openpyxl writes a formula *or* a value; spreadsheets store both, and viewers that do not
    calculate show the value. `shown` holds address -> value for each sheet in order.
    """
    out = BytesIO()
    with zipfile.ZipFile(raw) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            text = old.read(name).decode()
            if sheet := re.fullmatch(r"xl/worksheets/sheet(\d+)\.xml", name):
                text = FORMULA.sub(_both(shown[int(sheet[1]) - 1]), text)
            if name == "docProps/core.xml":
                text = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", STAMP, text)
            new.writestr(zipfile.ZipInfo(name, (2025, 1, 1, 0, 0, 0)), text.encode(), 8)
    return out.getvalue()


def _both(shown: dict[str, float | str]) -> Callable[[re.Match], str]:
    def cell(match: re.Match) -> str:
        at, rest, formula = match.groups()
        value = shown[at]
        kind = ' t="str"' if isinstance(value, str) else ""
        text = escape(value) if isinstance(value, str) else f"{value:.15g}"
        return f'<c r="{at}"{rest}{kind}><f>{formula}</f><v>{text}</v></c>'

    return cell


def replace_file(path: Path, data: bytes) -> None:
    """Writes beside the file and moves into place, so that a crash leaves the old one whole."""
    if path.suffix.lower() != ".xlsx":
        raise InputError(f"{path.name}: give the workbook a name that ends in .xlsx.")
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {path.parent}: make it first, or give another name.")
    try:
        if path.exists() and not is_untouched(old := path.read_bytes()):
            kept_copy(path).write_bytes(old)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(data)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): is it open?") from error


def is_untouched(data: bytes) -> bool:
    """Whether these are the bytes of a workbook as built: a program that saves one dates it."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            core = archive.read("docProps/core.xml").decode()
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError):
        return False
    return re.search(rf"<dcterms:modified[^>]*>{STAMP}<", core) is not None


def kept_copy(path: Path) -> Path:
    """The first free name for what lay at `path` before: demo.before1.xlsx, demo.before2.xlsx."""
    tries = (path.with_suffix(f".before{k}.xlsx") for k in itertools.count(1))
    return next(name for name in tries if not name.exists())


# ------------------------------------------------------------------------------- the check

SHAPES = {key: value.shape for key, value in Inputs().quantities().items()}
TOLERANCE = 1e-9  # relative to the largest number of the 2 x 2 block
UNREADABLE = (OSError, zipfile.BadZipFile, InvalidFileException, ParseError,
              KeyError, ValueError, TypeError, AttributeError)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One quantity: its number of cells, the largest difference, what rounding allows, where."""

    quantity: str
    cells: int
    difference: float  # absolute; inf where there is no number, or a number where nan belongs
    allowed: float
    where: str  # "Illustration!C18"

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
    recalculated: bool = False
    typed_over: tuple[str, ...] = ()  # cells that hold a number where a formula was

    @property
    def agrees(self) -> bool:
        return all(row.agrees for row in self.rows)

    def __str__(self) -> str:
        lines = [f"{'quantity':<16}{'cells':>6}{'largest difference':>20}{'allowed':>10}   at"]
        for row in self.rows:
            gap = "no number" if math.isinf(row.difference) else f"{row.difference:.1e}"
            lines.append(
                f"{row.quantity:<16}{row.cells:>6}{gap:>20}{row.allowed:>10.1e}   {row.where:<20}"
                + ("" if row.agrees else "  DIFFERS")
            )
        return "\n".join([*self.notes(), *lines, self.verdict()])

    def notes(self) -> list[str]:
        """Sentences about the file itself."""
        out = []
        if self.stale:
            why = {
                "missing": "has no values beside its formulas",
                "old": "shows values that are not those of its formulas",
            }[self.stale]
            out.append(f"Stale: the file {why}; a program saved it that does not calculate.")
            out.append(
                "LibreOffice recalculated a copy of it; the table is about that copy."
                if self.recalculated
                else "Open it in a spreadsheet program and save it there, or install LibreOffice."
            )
        if self.typed_over:
            cells = ", ".join(self.typed_over[:5]) + (" ..." if len(self.typed_over) > 5 else "")
            out.append(f"A number stands where a formula was, and will not follow: {cells}.")
        return out

    def verdict(self) -> str:
        """The last line."""
        total, wrong = sum(r.cells for r in self.rows), [r for r in self.rows if not r.agrees]
        if not wrong:
            return f"{total} numbers: sheet and PyTorch agree."
        return f"Sheet and PyTorch differ in {len(wrong)} of {len(self.rows)} quantities."


class Reader:
    """A workbook opened for reading: once for its formulas, once for the values it shows."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise InputError(f"There is no file {path}.")
        try:
            self.formulas = load_workbook(path)
            self.shown = load_workbook(path, data_only=True)
        except UNREADABLE as error:
            raise InputError(f"{path.name} is no workbook that can be read (.xlsx).") from error
        self.found: dict[str, list] = {}  # name -> its cells, once they were looked up

    def cells(self, name: str, count: int | None = None):
        """The cells of a name, row by row, as (formula cell, value cell, "Sheet!C9")."""
        if name not in self.found:
            self.found[name] = self._look_up(name)
        if count and len(self.found[name]) != count:
            wrong, where = len(self.found[name]), self.found[name][0][2]
            raise InputError(f"The name {name} ({where}) has {wrong} cells, not {count}.")
        return self.found[name]

    def _look_up(self, name: str) -> list:
        fresh = "start from a freshly built workbook"
        if name not in self.formulas.defined_names:
            raise InputError(f"The name {name} is missing: {fresh}.")
        places = list(self.formulas.defined_names[name].destinations)
        sheet, area = places[0] if places else ("", "")
        if len(places) != 1 or sheet not in self.formulas.sheetnames:
            raise InputError(f"The name {name} points nowhere: {fresh}.")
        formulas, shown = self.formulas[sheet][area], self.shown[sheet][area]
        if not isinstance(formulas, tuple):
            return [(formulas, shown, f"{sheet}!{formulas.coordinate}")]
        pairs = zip(itertools.chain(*formulas), itertools.chain(*shown), strict=True)
        return [(f, s, f"{sheet}!{f.coordinate}") for f, s in pairs]

    def quantity(self, quantity: str, shape: tuple[int, ...]):
        """All cells of a quantity, in the order of its array's elements."""
        array = np.empty(shape)
        size = 4 if array.ndim == 4 else 1
        return [cell for name, _ in names(quantity, array) for cell in self.cells(name, size)]

    def lacks_values(self) -> bool:
        """Whether a formula of an input or of a computed quantity has no value beside it."""
        cells = (c for name in self.formulas.defined_names for c in self._known(name))
        return any(f.data_type == "f" and s.value is None for f, s, _ in cells)

    def _known(self, name: str) -> list:
        """The cells of a name; none for a name that leads nowhere, which may be a person's own."""
        try:
            return self.cells(name)
        except InputError:
            return []


def read_inputs(path: str | Path) -> Inputs:
    """The inputs of a workbook; InputError, with sheet and cell, for anything but numbers."""
    return _inputs(Reader(Path(path)))


def _inputs(reader: Reader) -> Inputs:
    found = {}
    for quantity, shape in SHAPES.items():
        cells = reader.quantity(quantity, shape)
        numbers = [_typed_number(formula, shown, where) for formula, shown, where in cells]
        found[quantity] = np.reshape(numbers, shape)
        _in_range(quantity, numbers, [where for *_, where in cells])
    for single in ("eps", "momentum", "groups"):
        found[single] = float(found[single])
    return Inputs(**found | {"groups": int(found["groups"])})


def _typed_number(formula, shown, where: str) -> float:
    """The number in an input cell, or a sentence about what stands there instead."""
    value = shown.value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if abs(value) > LIMIT:
            raise InputError(f"{where} holds {value:g}: inputs go from {-LIMIT:g} to {LIMIT:g}.")
        return float(value)
    if formula.data_type == "f" and value is None:
        raise InputError(f"{where} holds a formula without its value: type the number itself.")
    if value is None:
        raise InputError(f"{where} is empty: type a number there.")
    if str(value).startswith("#"):
        raise InputError(f"{where} shows the error {value}: type a number there.")
    raise InputError(f'{where} holds "{value}", which is no number: type a number there.')


def _in_range(quantity: str, numbers: list[float], where: list[str]) -> None:
    value = numbers[0]
    if quantity == "eps" and value < 0:
        raise InputError(f"{where[0]} (ε) is {value:g}: it has to be 0 or more.")
    if quantity == "groups" and value not in (1, 2, 4):
        raise InputError(f"{where[0]} (groups) is {value:g}: it has to be 1, 2 or 4.")
    if quantity == "momentum" and not 0 <= value <= 1:
        raise InputError(f"{where[0]} (momentum) is {value:g}: it has to lie between 0 and 1.")


def allowances(inputs: Inputs, expected: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How far each number may be off: 1e-9 of its 2 x 2 block, and what float64 itself blurs.

    The blur is measured: the last digits of x and dy are changed and everything is computed
    again. It only counts where a small difference is taken of large numbers.
    """
    blur = {key: np.zeros_like(value) for key, value in expected.items()}
    for seed in range(3):
        signs = np.random.default_rng(seed).choice([-1, 1], size=(5, 4, 4, 2, 2))
        pixels = ("x", "next_x", "step2_x", "step3_x", "dy")
        moved = {
            q: getattr(inputs, q) * (1 + s * 2.0**-50) for q, s in zip(pixels, signs, strict=True)
        }
        for key, value in reference(replace(inputs, **moved)).items():
            blur[key] = np.fmax(blur[key], np.abs(value - expected[key]))
    allowed = {
        key: TOLERANCE * _block_max(np.abs(np.nan_to_num(value))) + 4 * _block_max(blur[key])
        for key, value in expected.items()
    }
    for norm in NORMS:  # these means are 0 but for rounding: their scale is the gradient's
        allowed[f"{norm}_dx_mean"] += (
            TOLERANCE * np.nan_to_num(np.abs(expected[f"{norm}_held"])).max()
        )
    return allowed


def _block_max(array: np.ndarray) -> np.ndarray:
    """Every element -> the largest of its 2 x 2 block (single numbers stay)."""
    return (
        array if array.ndim < 4 else np.broadcast_to(array.max((2, 3), keepdims=True), array.shape)
    )


def compare(reader: Reader) -> Report:
    """The values that a workbook shows against PyTorch's, quantity by quantity."""
    inputs = _inputs(reader)
    expected, rows, values, typed = reference(inputs), [], {}, []
    allowed = allowances(inputs, expected)
    for quantity, wanted in expected.items():
        cells, limits = reader.quantity(quantity, wanted.shape), allowed[quantity].ravel()
        typed += [where for formula, _, where in cells if formula.data_type != "f"]
        shown = [cell.value for _, cell, _ in cells]
        gaps = [_difference(value, want) for value, want in zip(shown, wanted.flat, strict=True)]
        worst = max(range(len(gaps)), key=lambda k: gaps[k] / max(limits[k], 5e-324))
        rows.append(Row(quantity, len(gaps), gaps[worst], limits[worst], cells[worst][2]))
        numbers = [value if _is_number(value) else math.nan for value in shown]
        values[quantity] = np.reshape(numbers, wanted.shape)
    stale = "missing" if reader.lacks_values() else ""
    return Report(inputs, values, expected, rows, stale, False, tuple(typed))


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _difference(shown, want: float) -> float:
    """Absolute difference; the word for nan agrees with nan, other text with nothing."""
    if math.isnan(want):
        return 0.0 if shown == UNDEFINED else math.inf
    return abs(shown - want) if _is_number(shown) else math.inf


def check(path: str | Path, recalculate: bool = False) -> Report:
    """Compares a workbook with PyTorch in float64; the file itself is only read.

    Where its values are missing or do not agree, a temporary copy is recalculated with LibreOffice,
    if that is installed, and the report is about the copy. `recalculate=True` always does that,
    which also finds a wrong formula that has a right value beside it.

    Raises InputError, one sentence with sheet and cell, for inputs that cannot be computed with.
    """
    reader, able = Reader(Path(path)), soffice() is not None
    missing = reader.lacks_values()
    first = None if missing and able else compare(reader)
    if first and (not able or (first.agrees and not recalculate)):
        return first
    with tempfile.TemporaryDirectory() as folder:
        (copy,) = recalculated([Path(path)], Path(folder))
        second = compare(Reader(copy))
    stale = "missing" if missing else "old" if _moved(first, second) else ""
    return replace(second, recalculated=True, stale=stale)


def _moved(first: Report, second: Report) -> bool:
    """Whether recalculating changed a number by more than rounding."""
    return any(
        not np.allclose(first.values[q], second.values[q], rtol=0, atol=a.max(), equal_nan=True)
        for q, a in allowances(second.inputs, second.expected).items()
    )


def soffice() -> str | None:
    """LibreOffice's program, or None where it is not installed."""
    return shutil.which("soffice") or shutil.which("libreoffice")


ALWAYS_RECALCULATE = """<?xml version="1.0" encoding="UTF-8"?>
<oor:items xmlns:oor="http://openoffice.org/2001/registry">
<item oor:path="/org.openoffice.Office.Calc/Formula/Load">
<prop oor:name="OOXMLRecalcMode" oor:op="fuse"><value>0</value></prop></item>
</oor:items>"""


def recalculated(paths: list[Path], folder: Path) -> list[Path]:
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
    target = ["--headless", "--convert-to", "xlsx", "--outdir", folder / "out"]
    command = [soffice(), profile, *target, *copies]
    out = [folder / "out" / copy.name for copy in copies]
    try:
        subprocess.run(command, capture_output=True, timeout=120 + 5 * len(paths), check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError("LibreOffice could not recalculate a copy of the workbook.") from error
    if not all(path.exists() for path in out):
        raise InputError("LibreOffice wrote no recalculated copy of the workbook.")
    return out


# ------------------------------------------------------------------- the sheet as a picture


def _tile(ax, left, top, width, height, fill, text="", bold=False, **box) -> None:
    """One coloured cell with a text in its middle; the axis points down, as in a sheet."""
    from matplotlib.patches import Rectangle  # here, so that the command line starts quickly

    style = {"edgecolor": "white", "linewidth": 0.8} | box
    ax.add_patch(Rectangle((left, top), width, height, facecolor=fill, **style))
    ink, weight = ("#B3261E", "bold") if bold else (f"#{INK}", "normal")
    middle = (left + width / 2, top + height / 2)
    ax.text(*middle, text, ha="center", va="center", fontsize=8, color=ink, fontweight=weight)


def _text(value: float, digits: int) -> str:
    """As the sheet shows a number: the word for nan, and never minus zero."""
    return UNDEFINED if math.isnan(value) else f"{round(float(value), digits) + 0.0:.{digits}f}"


def _outlines(ax, norm: str, groups: int, left=0.0, span=2) -> None:
    """Lines around what a norm takes together, as on the sheet; `span` columns per channel."""
    boxes = [(left + span * c, 0, span, 8, f"#{LINE[c]}", "-") for c in range(4) if norm == "bn"]
    if norm in ("ln", "gn"):
        parts, dash = (1, "-") if norm == "ln" else (groups, (0, (4, 2)))
        width = 4 * span / parts
        boxes = [(left + width * g, 2 * n, width, 2, f"#{INK}", dash)
                 for n in range(4) for g in range(parts)]  # fmt: skip
    for x, y, width, height, color, dash in boxes:
        _tile(ax, x, y, width, height, "none", edgecolor=color, linewidth=1.5, linestyle=dash)


def plot_grid(array, norm: str = "", groups: int = 2, title: str = "", ax=None, marked=None):
    """4 images x 4 channels x 2 x 2 pixels as on the sheet, with the lines of "bn", "ln" or "gn".

    Args:
        array: (4, 4, 2, 2) numbers.
        marked: (4, 4, 2, 2) booleans; these numbers are bold and red.
        ax: matplotlib axes to draw on, or None for new ones. They are returned.
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(4.2, 4.2))[1]
    numbers = np.asarray(array, np.float64)
    whole = np.array_equal(numbers, np.round(numbers))
    for n, c, i, j in np.ndindex(4, 4, 2, 2):
        value, bold = numbers[n, c, i, j], marked is not None and bool(marked[n][c][i][j])
        text = _text(value, 0 if whole else 2)
        _tile(ax, 2 * c + j, 2 * n + i, 1, 1, f"#{CELL_TINT[c]}", text, bold)
    for k in range(4):
        _tile(ax, 2 * k, -0.9, 2, 0.8, f"#{HEAD_TINT[k]}", f"channel {k + 1}")
        ax.text(-0.2, 2 * k + 1, f"image {k + 1}", ha="right", va="center", fontsize=8)
    _outlines(ax, norm, groups)
    ax.set(xlim=(-1.6, 8.1), ylim=(8.1, -1))
    ax.set_title(title, fontsize=10)
    ax.axis("off")
    return ax


def plot_statistics(values: dict[str, np.ndarray], groups: int = 2, ax=None):
    """The inputs x with every mean (upper) and variance (lower), placed as on the sheet."""
    import matplotlib.pyplot as plt

    ax = plot_grid(values["x"], ax=ax or plt.subplots(figsize=(8, 4.6))[1])
    for k in range(4):
        for step, key in enumerate(("mean", "var")):
            shade, row = f"#{CELL_TINT[k]}", 2 * k + step
            _tile(ax, 2 * k, 8.2 + step, 2, 1, shade, _text(values[f"bn_{key}"][k], 3))
            ax.text(8.7, row + 0.5, ("μ", "σ²")[step], ha="right", va="center", fontsize=8)
            _tile(ax, 9, row, 2, 1, "#F1F4F7", _text(values[f"ln_{key}"][k], 3))
            for c in range(4):
                number = _text(values[f"gn_{key}"][k, c], 3)
                _tile(ax, 11.5 + 1.5 * c, row, 1.5, 1, f"#{CELL_TINT[c]}", number)
        _tile(ax, 9, 2 * k, 2, 2, "none", edgecolor=f"#{INK}", linewidth=1.5)
    _tile(ax, 9, -0.9, 2, 0.8, "#DDE2E7", "LN")
    _tile(ax, 11.5, -0.9, 6, 0.8, "#DDE2E7", f"GN, {groups} group{'s' * (groups > 1)}")
    _outlines(ax, "gn", groups, left=11.5, span=1.5)
    for step, sign in enumerate(("BN  μ", "BN  σ²")):
        ax.text(-0.2, 8.7 + step, sign, ha="right", va="center", fontsize=8)
    ax.set(xlim=(-1.6, 17.7), ylim=(10.3, -1))
    return ax


def picture(figure):
    """A figure as a small PNG for a notebook: 64 colours, a third of the usual size.

    The figure is closed, so that a notebook does not show it a second time.
    """
    import matplotlib.pyplot as plt
    from IPython.display import Image
    from PIL import Image as Pillow

    raw, small = BytesIO(), BytesIO()
    figure.savefig(raw, format="png", dpi=90, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    Pillow.open(raw).convert("RGB").quantize(64).save(small, format="png", optimize=True)
    return Image(small.getvalue())


# ------------------------------------------------------------------------------- command line


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status: 0, 1 (sheet and PyTorch differ), 2 (bad input)."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", metavar="build | check")
    make = commands.add_parser("build", help="build the workbook (also without any word)")
    make.add_argument("file", nargs="?", type=Path, default=WORKBOOK)
    test = commands.add_parser("check", help="recompute a workbook with PyTorch")
    test.add_argument("file", type=Path)
    test.add_argument("--recalculate", action="store_true", help="by LibreOffice, in any case")
    given = parser.parse_args(arguments)
    try:
        if given.command == "check":
            report = check(given.file, given.recalculate)
            print(report)
            return 0 if report.agrees else 1
        print(f"Wrote {build(getattr(given, 'file', WORKBOOK)).name}.")
        return 0
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
