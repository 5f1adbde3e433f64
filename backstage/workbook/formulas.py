"""The formulas, as text. Each gives a number, "0/0" where there is nothing to divide by, or "?"
where an input that it needs is missing. Only functions that Excel 2010, LibreOffice and Google
Sheets share.
"""

from collections.abc import Callable

from backstage.workbook.grid import ALL, ROWS, Grid
from backstage.workbook.inputs import TINY, UNDEFINED
from backstage.workbook.reference import NORMS

MISSING = "?"


def over(norm: str, n: int, c: int, formula: Callable[..., str], *grids: Grid, far=False) -> str:
    """`formula(count, *areas)` of the cells that `norm` averages together with image n, channel c.

    GN's cells follow the number of groups.
    """
    images = ALL if NORMS[norm].over_images else (n, n)
    here = grids[0].title

    def of(first, last):
        count = (1 + images[1] - images[0]) * (1 + last - first) * 4
        areas = (g.area(images, (first, last), far or g.title != here) for g in grids)
        return formula(count, *areas)

    if NORMS[norm].over_channels:
        return of(*ALL)
    if 2 not in NORMS[norm].dims:
        return of(c, c)
    first = 1 if c <= 2 else 3
    one, two, four = of(*ALL), of(first, first + 1), of(c, c)
    return f'IF(groups=1,{one},IF(groups=2,{two},IF(groups=4,{four},"{MISSING}")))'


def mean(count: int, area: str) -> str:
    """AVERAGE of a set whose numbers are all there."""
    return f'IF(COUNT({area})={count},AVERAGE({area}),"{MISSING}")'


def variance(count: int, area: str) -> str:
    """Population variance in two passes; exactly 0 where all values are the same."""
    spread = f"IF(MAX({area})=MIN({area}),0,DEVSQ({area})/COUNT({area}))"
    return f'IF(COUNT({area})={count},{spread},"{MISSING}")'


def _instead(area: str) -> str:
    """What a statistic of cells shows that are not all numbers."""
    return f'IF(COUNTIF({area},"{UNDEFINED}")>0,"{UNDEFINED}","{MISSING}")'


def gradient_mean(count: int, area: str) -> str:
    return f"IF(COUNT({area})={count},AVERAGE({area}),{_instead(area)})"


def centred_mean(count: int, area: str) -> str:
    """The mean of a full gradient, which is 0 but for rounding."""
    return f"IF(COUNT({area})={count},ROUND(AVERAGE({area}),12),{_instead(area)})"


def gradient_variance(count: int, area: str) -> str:
    return f"IF(COUNT({area})={count},DEVSQ({area})/COUNT({area}),{_instead(area)})"


def mean_product(count: int, one: str, two: str) -> str:
    product = f"SUMPRODUCT({one},{two})/{count}"
    return f"IF(COUNT({one},{two})={2 * count},{product},{_instead(one)})"


def divided(formula: str, var: str, *needed: str) -> str:
    """`formula`, which divides by the root of `var` + eps, if all that it needs is there."""
    there = f"AND(COUNT({','.join([*needed, var, 'eps'])})={len(needed) + 2},eps>=0)"
    return f'IF({there},IF({var}+eps>{TINY:.0E},{formula},"{UNDEFINED}"),"{MISSING}")'


def xhat(x: str, mu: str, var: str) -> str:
    return divided(f"({x}-{mu})/SQRT({var}+eps)", var, x, mu)


def affine(hat: str, c: int) -> str:
    """y = γ x̂ + β of a channel."""
    return affine_of(hat, f"gamma_{c}", f"beta_{c}")


def affine_of(hat: str, gamma: str, beta: str) -> str:
    return f"IF(COUNT({hat},{gamma},{beta})=3,{gamma}*{hat}+{beta},{_instead(hat)})"


def needs(cells: list[str], formula: str) -> str:
    """`formula`, if all these cells hold numbers."""
    return f'IF(COUNT({",".join(cells)})={len(cells)},{formula},"{MISSING}")'


def which(norm: str, n: int, c: int) -> str:
    """The end of a statistic's name: the channel for BN, the image for LN, both for GN."""
    return "_".join(str(i) for i in named_index(norm, n, c))


def named_index(norm: str, n: int, c: int) -> tuple[int, ...]:
    """The index of a statistic's name: what the norm does not average over."""
    averaged = (NORMS[norm].over_images, NORMS[norm].over_channels)
    return tuple(i for i, gone in zip((n, c), averaged, strict=True) if not gone)


def sets(norm: str) -> list[tuple[int, int]]:
    """Image and channel of every statistic of a norm; 1 where it is about all of them."""
    images = (1,) if NORMS[norm].over_images else ROWS
    channels = (1,) if NORMS[norm].over_channels else ROWS
    return [(n, c) for n in images for c in channels]
