"""Paired comparisons: effects with their intervals, families of contrasts, equivalence, verdicts.

Everything here takes tables of numbers, a row per seed and a column per setting, and knows nothing
of what was measured.

    supported      the effect is in the claimed direction, and its corrected p is below ALPHA
    contradicted   it is in the opposite direction, by the same rule
    not detected   neither; the interval says how large an effect these seeds could have overlooked

That two are *the same* is another claim, with words of its own: equivalence shown, or not shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

ALPHA = 0.05
SUPPORTED, CONTRADICTED, NOT_DETECTED = "supported", "contradicted", "not detected"
SHOWN, NOT_SHOWN = "equivalence shown", "equivalence not shown"

Pairs = Mapping[str, tuple[str, str]]  # two columns (a, b) by the name of the contrast a − b


@dataclass(frozen=True)
class Effect:
    """The mean of paired differences, its interval, and the two-sided p of "it is 0"."""

    mean: float
    low: float
    high: float
    p: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def paired_effect(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Effect:
    """a − b over pairs that share a seed: Student's t on the differences.

    If all differences are equal, but for rounding, the interval has no width, and p is 1 for 0 and
    0 otherwise.

    Args:
        a, b: one value per seed, in the same order.
        confidence: of the interval.

    Raises:
        ValueError: for series of different lengths, fewer than two pairs, or missing values.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(
            f"Pairs need two series of the same length, at least 2, not {a.shape} and {b.shape}."
        )
    if not np.isfinite(a - b).all():
        raise ValueError("A pair has a value missing: leave out that seed on both sides.")
    difference = a - b
    rounding = 1e-12 * max(np.abs(a).max(), np.abs(b).max())
    if np.ptp(difference) <= rounding:
        mean = float(difference.mean()) if abs(difference.mean()) > rounding else 0.0
        return Effect(mean, mean, mean, float(mean == 0), len(a))
    test = stats.ttest_1samp(difference, 0)
    low, high = test.confidence_interval(confidence)
    return Effect(float(difference.mean()), float(low), float(high), float(test.pvalue), len(a))


def p_equivalent(a: Sequence[float], b: Sequence[float], margin: float) -> float:
    """p of "the mean of a − b lies outside ±margin": two one-sided t tests (TOST), the larger p.

    Below ALPHA, a and b are equivalent within the margin, which is more than that no difference was
    detected. Not corrected for a family: of several pairs, *all* are equivalent if each p is small.

    Raises:
        ValueError: as ``paired_effect``, and for a margin that is not positive.
    """
    if not margin > 0:
        raise ValueError(f"margin = {margin}: equivalence needs a positive one.")
    effect = paired_effect(a, b)
    if effect.low == effect.high:
        return float(not abs(effect.mean) < margin)
    return float(ttost_paired(np.asarray(a, float), np.asarray(b, float), -margin, margin)[0])


def p_of_signs(difference: Sequence[float]) -> float:
    """Two-sided p of "the mean is 0", from all sign patterns: needs no normal distribution."""
    d = np.round(np.asarray(difference, float), 9)  # or rounding would part patterns that tie
    found = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    return float(found.pvalue)


def verdict(effect: Effect, p: float | None = None) -> str:
    """Of the claim that the effect is positive; ``p`` is the corrected one, in a family."""
    p = effect.p if p is None else p
    if not p < ALPHA:
        return NOT_DETECTED
    return SUPPORTED if effect.mean > 0 else CONTRADICTED


def all_of(verdicts: Sequence[str]) -> str:
    """Of a claim that holds only if each of its parts does: the worst of theirs."""
    worst_first = (CONTRADICTED, NOT_DETECTED, NOT_SHOWN, SHOWN, SUPPORTED)
    return min(verdicts, key=worst_first.index)


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's correction (1979): any true "no difference" is taken for one at ALPHA at most."""
    return multipletests(list(p), alpha=ALPHA, method="holm")[1]


def contrasts(table: pd.DataFrame, pairs: Pairs, margin: float | None = None) -> pd.DataFrame:
    """Each of a family of claims "a exceeds b" with its interval, Holm's p and verdict.

    The intervals are not corrected: each covers at 95% by itself. A seed that failed in any of the
    columns is left out of the family and counted in ``left_out``; nothing is supported then, for a
    run that failed is no run that came out as claimed.

    Args:
        table: a row per seed, a column per setting.
        pairs: the columns (a, b) by the name of their contrast.
        margin: also test each pair for equivalence within ±margin.

    Raises:
        ValueError: with fewer than two whole seeds.
    """
    whole = table.reindex(columns=list(dict.fromkeys(c for pair in pairs.values() for c in pair)))
    whole = whole.dropna()
    effects = {name: paired_effect(whole[a], whole[b]) for name, (a, b) in pairs.items()}
    found = pd.DataFrame([vars(e) for e in effects.values()], index=list(effects))
    found["left_out"] = len(table) - len(whole)
    found["p_holm"] = holm(found["p"])
    found["verdict"] = [
        verdict(e, p) for e, p in zip(effects.values(), found["p_holm"], strict=True)
    ]
    if len(whole) < len(table):
        found["verdict"] = found["verdict"].replace(SUPPORTED, NOT_DETECTED)
    if margin is not None:
        found["p_equivalent"] = [
            p_equivalent(whole[a], whole[b], margin) for a, b in pairs.values()
        ]
    return found


def equivalences(table: pd.DataFrame, pairs: Pairs, margin: float) -> pd.DataFrame:
    """Each of a family of claims "a is b, within ±margin", with its 90% interval and verdict.

    Equivalence is shown if the 90% interval lies inside the margin (which is TOST at 5%). It is not
    corrected: a claim that all of the family are equivalent needs each of them, which at ALPHA errs
    at ALPHA at most. A seed that failed on either side is left out of its pair and counted in
    ``left_out``; equivalence is never shown then. Tables and pairs as in ``contrasts``.

    Raises:
        ValueError: for a pair with fewer than two whole seeds.
    """
    found = []
    for a, b in pairs.values():
        whole = table.reindex(columns=[a, b]).dropna()
        row = vars(paired_effect(whole[a], whole[b], confidence=1 - 2 * ALPHA))
        p, left_out = p_equivalent(whole[a], whole[b], margin), len(table) - len(whole)
        judged = SHOWN if p < ALPHA and not left_out else NOT_SHOWN
        found.append(row | {"left_out": left_out, "p_equivalent": p, "verdict": judged})
    return pd.DataFrame(found, index=list(pairs))


def widest(found: pd.DataFrame) -> pd.Series:
    """Of several equivalences the one whose interval reaches furthest from 0."""
    return found.loc[found[["low", "high"]].abs().max(axis=1).idxmax()]


def decisive_seeds(table: pd.DataFrame, pairs: Pairs) -> dict[str, list[int]]:
    """For each contrast of a family, the seeds without any one of which its verdict is another."""
    verdicts = contrasts(table, pairs)["verdict"]
    without = {seed: contrasts(table.drop(seed), pairs)["verdict"] for seed in table.index}
    return {
        name: [seed for seed, other in without.items() if other[name] != verdicts[name]]
        for name in pairs
    }


def probability_best(table: pd.DataFrame) -> pd.Series:
    """How often each column would be the best if every column were run once.

    Over all ways to draw one seed per column, the columns independently, as separate runs would be;
    a tie is split.

    Raises:
        ValueError: where a value is missing.
    """
    if table.isna().to_numpy().any():
        raise ValueError("A value is missing: leave out that seed, or that column.")
    draws = np.stack(np.meshgrid(*table.to_numpy(dtype=float).T, indexing="ij")).reshape(
        len(table.columns), -1
    )
    best = draws == draws.max(axis=0)
    return pd.Series((best / best.sum(axis=0)).mean(axis=1), index=table.columns)


SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def times(ratio: float) -> str:
    """As in "1.63×"; large ones to one digit, as in "5,000×" and "4·10³⁹×"."""
    if ratio < 1_000 or not np.isfinite(ratio):
        return f"{ratio:.2f}×"
    digit, _, power = f"{ratio:.0e}".partition("e+")
    if ratio < 1e6:
        return f"{int(digit) * 10 ** int(power):,}×"
    return f"{digit}·10{str(int(power)).translate(SUPERSCRIPT)}×"


def readable(found: pd.DataFrame, ratio: bool = False) -> pd.DataFrame:
    """What ``contrasts`` or ``equivalences`` found, as text for reading.

    Args:
        found: intervals are uncorrected, at 90% for ``equivalences`` and at 95% otherwise.
        ratio: the differences are of logarithms; show them as ratios.
    """
    look = (lambda x: times(np.exp(x))) if ratio else "{:+.3f}".format
    confidence = "90%" if found["verdict"].isin([SHOWN, NOT_SHOWN]).all() else "95%"
    shown = pd.DataFrame(index=found.index)
    shown["ratio" if ratio else "mean"] = found["mean"].map(look)
    intervals = [f"{look(row.low)} to {look(row.high)}" for row in found.itertuples()]
    shown[f"{confidence} interval"] = intervals
    for column, name in {"p_holm": "p (Holm)", "p_equivalent": "p, equivalent"}.items():
        if column in found:
            shown[name] = ["< 0.001" if p < 0.0005 else f"{p:.3f}" for p in found[column]]
    shown["seeds"] = found["seeds"]
    if found["left_out"].any():
        shown["left out"] = found["left_out"]
    return shown.assign(verdict=found["verdict"])
