"""Paired comparisons: how much larger is a than b, seed by seed, and is that more than chance?

A table has a row per seed and a column per arm; a claim is "a exceeds b".

    supported      the effect is in the claimed direction, and its p is below 0.05 after Holm
    contradicted   it is in the opposite direction, by the same rule
    not detected   neither; ``detectable`` is the effect that would have been found, at 80%
    mixed          a claim of several parts whose verdicts differ (``together``)

That a *is* b, within a margin, is another claim, with verdicts of its own (``judge_same``).

A verdict is *fragile* if it is another one as soon as any one seed is left out, or if it is an
effect that the exact test of signs does not find.
"""

from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.power import TTestPower

ALPHA, POWER = 0.05, 0.8
SUPPORTED, CONTRADICTED, NOT_DETECTED = "supported", "contradicted", "not detected"
MIXED = "mixed"
SHOWN, NOT_SHOWN, DIFFERS = "shown", "not shown", "differs by more than the margin"

Pairs = Mapping[str, tuple[Hashable, Hashable]]  # the columns (a, b), by the text of the claim


def judge(table: pd.DataFrame, claims: Pairs, ratio: bool = False) -> pd.DataFrame:
    """A family of claims "a exceeds b", those of one section, corrected together.

    ``mean``, ``low`` and ``high`` are the mean difference a − b with its 95% interval, not
    corrected; ``p`` is Holm's (1979). A seed that is missing in any of the columns is left out of
    the whole family, and nothing is supported then: a run that failed is none that came out as
    claimed.

    Args:
        table: a row per seed, a column per arm.
        claims: the columns (a, b) by the text of the claim.
        ratio: compare a / b in place of a − b, by logarithms; ``mean`` is the geometric mean.
    """
    d = differences(table, claims, ratio)
    found = intervals(d, 0.95)
    found["p"] = holm(d)
    found["detectable"] = detectable(d)
    whole = len(d) == len(table)
    found["verdict"] = verdicts(d, whole)
    less = [verdicts(d.drop(seed), whole) != found["verdict"] for seed in d.index]
    unsure = (found["verdict"] != NOT_DETECTED) & (d.apply(p_of_signs) >= ALPHA)
    found["fragile"] = np.any(less, axis=0) | unsure
    return in_units(found, ratio)


def judge_same(
    table: pd.DataFrame, claims: Pairs, margin: float, ratio: bool = False
) -> pd.DataFrame:
    """Claims "a is b, within ±margin", each by the 90% interval of a − b (TOST at 5%).

    Shown if all of it lies inside the margin; if all of it lies outside, a and b differ by more
    than that. Not corrected: that *all* of several pairs are the same needs each of them.

    Args:
        table, claims: as for ``judge``.
        margin: in units of the table; with ``ratio`` a factor, as 1.1.
    """
    d = differences(table, claims, ratio)
    limit = np.log(margin) if ratio else margin
    found = intervals(d, 0.90)
    whole = len(d) == len(table)
    found["verdict"] = sameness(d, limit, whole)
    less = [sameness(d.drop(seed), limit, whole) != found["verdict"] for seed in d.index]
    found["fragile"] = np.any(less, axis=0)
    return in_units(found, ratio)


def together(found: pd.DataFrame) -> str:
    """The verdict on a claim whose parts are these rows: theirs, or "mixed" and which is which."""
    parts = found.groupby("verdict", sort=False).groups
    if len(parts) == 1:
        return next(iter(parts))
    which = [f"{verdict}: {', '.join(map(str, names))}" for verdict, names in parts.items()]
    return f"{MIXED} ({'; '.join(which)})"


def readable(found: pd.DataFrame) -> pd.DataFrame:
    """What ``judge`` or ``judge_same`` found, as text for reading."""
    look = times if found.attrs["ratio"] else "{:+.2f}".format
    mean, low, high = (found[column].map(look) for column in ("mean", "low", "high"))
    name = f"a {'/' if found.attrs['ratio'] else '−'} b, {95 if 'p' in found else 90}% interval"
    shown = {name: mean + " [" + low + ", " + high + "]"}
    if "p" in found:
        shown["p (Holm)"] = ["< 0.001" if p < 0.0005 else f"{p:.3f}" for p in found["p"]]
    fragile = np.where(found["fragile"], " (fragile)", "")
    return pd.DataFrame(shown | {"seeds": found["seeds"], "verdict": found["verdict"] + fragile})


def times(ratio: float) -> str:
    """As in "1.63×"; very large and very small ones as powers of ten."""
    return f"{ratio:.2f}×" if 0.01 <= ratio < 1_000 else f"{ratio:.0e}×"


# ------------------------------------------------------------------------- the steps of the above


def differences(table: pd.DataFrame, claims: Pairs, ratio: bool) -> pd.DataFrame:
    """a − b, or its logarithmic form, of the seeds that have all columns: a column per claim."""
    columns = list(dict.fromkeys(column for pair in claims.values() for column in pair))
    whole = pd.DataFrame({i: table[column] for i, column in enumerate(columns)}).dropna()
    whole = np.log(whole.astype(float)) if ratio else whole.astype(float)
    pairs = {claim: (columns.index(a), columns.index(b)) for claim, (a, b) in claims.items()}
    return pd.DataFrame({claim: whole[a] - whole[b] for claim, (a, b) in pairs.items()})


def intervals(d: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Mean and interval of each column by Student's t, and the number of seeds."""
    low, high = stats.ttest_1samp(d, 0).confidence_interval(confidence)
    return pd.DataFrame({"mean": d.mean(), "low": low, "high": high, "seeds": len(d)})


def holm(d: pd.DataFrame) -> np.ndarray:
    """p of "the mean is 0" of each column, corrected; 1 where all differences are 0."""
    p = np.nan_to_num(stats.ttest_1samp(d, 0).pvalue, nan=1.0)
    order = p.argsort()
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return corrected.clip(max=1)


def verdicts(d: pd.DataFrame, whole: bool) -> np.ndarray:
    """Of each column; ``whole`` if no seed is missing."""
    unsupported = (holm(d) >= ALPHA) | ((d.mean() > 0) & (not whole))
    return np.select([unsupported, d.mean() < 0], [NOT_DETECTED, CONTRADICTED], SUPPORTED)


def sameness(d: pd.DataFrame, limit: float, whole: bool) -> np.ndarray:
    """Likewise, of claims that the mean lies within ±limit."""
    found = intervals(d, 1 - 2 * ALPHA)
    inside = (found["low"] > -limit) & (found["high"] < limit) & whole
    outside = (found["low"] > limit) | (found["high"] < -limit)
    return np.select([inside, outside], [SHOWN, DIFFERS], NOT_SHOWN)


def p_of_signs(d: pd.Series) -> float:
    """Two-sided p of "the mean is 0" from all 2^n patterns of signs: needs no normal distribution.

    Not corrected: ten seeds cannot give less than 0.002, which no correction for a large family
    would leave below 0.05.
    """
    sums = np.zeros(1)
    for x in d:
        sums = np.concatenate([sums + x, sums - x])
    rounding = 1e-9 * d.abs().sum()  # would part patterns that tie
    return np.mean(np.abs(sums) >= abs(d.sum()) - rounding)


def detectable(d: pd.DataFrame) -> pd.Series:
    """The mean that a t test at 0.05, not corrected, would find in 80% of such experiments."""
    sizes = TTestPower().solve_power(nobs=len(d), alpha=ALPHA, power=POWER)
    return sizes * d.std()


def in_units(found: pd.DataFrame, ratio: bool) -> pd.DataFrame:
    """Logarithms back to ratios; and ``readable`` is told."""
    if ratio:
        columns = [c for c in ("mean", "low", "high", "detectable") if c in found]
        found[columns] = np.exp(found[columns])
    found.attrs["ratio"] = ratio
    return found
