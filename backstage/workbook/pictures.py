"""The sheet as a picture, for notebooks: its colours, its lines, its numbers."""

import io
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image
from matplotlib import colors
from matplotlib.patches import Rectangle

from backstage.files import small_png
from backstage.workbook.grid import CELL_TINT, HEAD_TINT, INK, NEUTRAL
from backstage.workbook.inputs import UNDEFINED
from backstage.workbook.reference import NORMS

# Blue below 0, white, red above, as far as dark ink can still be read on it.
VALUES = colors.ListedColormap(plt.get_cmap("RdBu_r")(np.linspace(0.22, 0.78, 255)), "values")
FADED = "#9AA3AB"


def _tile(ax, left, top, width, height, fill, text="", ink=f"#{INK}", **box) -> None:
    """One coloured cell with a text in its middle; the axis points down, as in a sheet."""
    style = {"edgecolor": "white", "linewidth": 0.8} | box
    ax.add_patch(Rectangle((left, top), width, height, facecolor=fill, **style))
    middle = (left + width / 2, top + height / 2)
    ax.text(*middle, text, ha="center", va="center", fontsize=8, color=ink)


def _text(value: float, digits: int) -> str:
    """As the sheet shows a number: the word for nan, and never minus zero."""
    return UNDEFINED if math.isnan(value) else f"{round(float(value), digits) + 0.0:.{digits}f}"


def _outlines(ax, norm: str, groups: int, left=0.0, span=2) -> None:
    """Lines around what a norm takes together, as on the sheet; `span` columns per channel."""
    if not norm:
        return
    tall, parts = (4, 4) if norm == "bn" else (1, 1 if norm == "ln" else groups)
    dash, width = (0, (4, 2)) if norm == "gn" else "-", 4 * span / parts
    for n in range(0, 4, tall):
        for g in range(parts):
            _tile(ax, left + width * g, 2 * n, width, 2 * tall, "none", linewidth=1.8,
                  edgecolor=f"#{NORMS[norm].color}", linestyle=dash)  # fmt: skip


def plot_grid(
    array, norm: str = "", groups: int = 2, title: str = "", ax=None, marked=None, limit=None
):
    """4 images x 4 channels x 2 x 2 pixels as on the sheet, with the lines of "bn", "ln" or "gn".

    Args:
        array: (4, 4, 2, 2) numbers.
        marked: (4, 4, 2, 2) booleans; these numbers are bold and the others faded.
        ax: matplotlib axes to draw on, or None for new ones. They are returned.
        limit: colour the numbers from -limit (blue) to limit (red), and not by their channel.
    """
    ax = ax or plt.subplots(figsize=(4.2, 4.2))[1]
    numbers = np.asarray(array, np.float64)
    stands_out = np.ones(numbers.shape, bool) if marked is None else np.asarray(marked)
    whole = np.array_equal(numbers, np.round(numbers))
    for n, c, i, j in np.ndindex(4, 4, 2, 2):
        value, clear = numbers[n, c, i, j], stands_out[n, c, i, j]
        fill, ink = f"#{CELL_TINT[c]}", f"#{INK}" if clear else FADED
        if limit and not math.isnan(value):
            fill = VALUES(0.5 + 0.5 * value / limit) if clear else "white"
        _tile(ax, 2 * c + j, 2 * n + i, 1, 1, fill, _text(value, 0 if whole else 2), ink)
        if marked is not None and clear:
            ax.texts[-1].set_fontweight("bold")
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
    ax = plot_grid(values["used_x"], ax=ax or plt.subplots(figsize=(8, 4.6))[1])
    line = {"linewidth": 1.5, "facecolor": "none"}
    for k, (step, key) in itertools.product(range(4), enumerate(("mean", "var"))):
        row, wide = 2 * k + step, 6 / groups
        _tile(ax, 2 * k, 8.2 + step, 2, 1, f"#{CELL_TINT[k]}", _text(values[f"bn_{key}"][k], 3))
        ax.text(8.7, row + 0.5, ("μ", "σ²")[step], ha="right", va="center", fontsize=8)
        _tile(ax, 9, row, 2, 1, f"#{NEUTRAL}", _text(values[f"ln_{key}"][k], 3))
        for g in range(groups):
            number = _text(values[f"gn_{key}"][k, g * 4 // groups], 3)
            _tile(ax, 11.5 + wide * g, row, wide, 1, f"#{NEUTRAL}", number)
    for k in range(4):
        for norm, corner in (("bn", (2 * k, 8.2)), ("ln", (9, 2 * k))):
            ax.add_patch(Rectangle(corner, 2, 2, edgecolor=f"#{NORMS[norm].color}", **line))
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
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=90, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return Image(small_png(png.getvalue(), 64))
