"""Every seed a dot, beside the mean and its interval: the pictures of paired comparisons."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

GREY, MARGIN = "#999999", "#ebebeb"


def seeds_and_interval(
    ax: Axes,
    at: float,
    values: Sequence[float],
    color: str,
    confidence: float = 0.95,
    horizontal: bool = False,
    marker: str = "o",
) -> None:
    """One dot per seed, and a mean with its interval beside them.

    Args:
        at: where on the axis of settings; the values lie along the other one.
        values: one per seed; NaN for a seed that failed.
        horizontal: the values lie along x.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    middle = values.mean()
    low, high = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    dots, mean = (values, at - 0.15 + np.linspace(-0.1, 0.1, len(values))), (middle, at + 0.2)
    if not horizontal:
        dots, mean = dots[::-1], mean[::-1]
    ax.plot(*dots, marker, color=color, alpha=0.5, markersize=4)
    which = "xerr" if horizontal else "yerr"
    dark = "black" if horizontal else color
    ax.errorbar(
        *mean,
        **{which: [[middle - low], [high - middle]]},
        fmt="D",
        color=dark,
        markersize=4,
        capsize=3,
    )


def plot_differences(
    differences: pd.DataFrame,
    ax: Axes,
    colors: Sequence[str],
    margin: float | None = None,
    unit: str = "points of accuracy",
    confidence: float = 0.95,
) -> Axes:
    """A row per column of the table, each seed's difference a dot, ◆ their mean with its interval.

    Args:
        differences: a row per seed.
        margin: of equivalence, drawn as a band.
    """
    for y, (name, color) in enumerate(zip(differences, colors, strict=True)):
        seeds_and_interval(ax, y, differences[name], color, confidence, horizontal=True)
    ax.axvline(0, color="black", linewidth=0.8)
    if margin:
        ax.axvspan(-margin, margin, color=MARGIN, zorder=0)
    ax.set_yticks(range(differences.shape[1]), list(differences))
    ax.set(ylim=(differences.shape[1] - 0.5, -0.6), xlabel=unit)
    return ax


def plot_over_sizes(
    ax: Axes, values: pd.DataFrame, shift: float = 0.0, look: str = "o-", **style
) -> Axes:
    """Every seed a dot over a number of images, on a logarithmic axis, and a line of the means.

    Args:
        values: a row per seed, a column per number of images, the columns being these numbers.
        shift: of everything, in doublings, where several series share the axes.
        look: marker and line.
    """
    marker, line = look[0], look[1:]
    x = np.log2(list(values.columns)) + shift
    dots = style | {"color": style.get("color"), "label": None}
    for dx, row in zip(np.linspace(-0.06, 0.06, len(values)), values.to_numpy(), strict=True):
        ax.plot(x + dx, row, marker, markersize=4, alpha=0.4, **dots)
    ax.plot(x, values.mean(), line, linewidth=2, **style)
    ax.set_xticks(np.log2(list(values.columns)), list(values.columns))
    ax.grid(alpha=0.3)
    return ax
