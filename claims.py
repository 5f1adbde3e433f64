"""From the sweeps' results to verdicts: paired statistics, and the README's table of claims.

    python claims.py            prints the table
    python claims.py --write    writes it into README.md

A claim is judged on paired runs: two settings that met the same seeds, and so the same batches. The
verdicts are

    supported      the claim's effect is there, and its corrected p is below ALPHA
    contradicted   the opposite is there, by the same rule
    not detected   neither; the interval says how large an effect these seeds could have overlooked
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from s6_model import make_norm
from sweep import RESULTS, SweepError, load_results
from utils import REPOSITORY, replacing

ALPHA = 0.05
SUPPORTED, CONTRADICTED, NOT_DETECTED = "supported", "contradicted", "not detected"

# ---------------------------------------------------------------------------------- statistics


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

    Where all differences are equal, but for rounding, the interval has no width, and p is 1 for 0
    and 0 otherwise.

    Args:
        a, b: one figure per seed, in the same order.
        confidence: of the interval.

    Raises:
        ValueError: for series of different lengths, fewer than two pairs, or missing figures.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(
            f"Pairs need two series of the same length, at least 2, not {a.shape} and {b.shape}."
        )
    if not np.isfinite(a - b).all():
        raise ValueError("A pair has a figure missing: leave out that seed on both sides.")
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

    Below ALPHA, a and b are equivalent within the margin; that a difference was not detected does
    not say so. Not corrected for a family: of several pairs, *all* are equivalent where each p is.

    Raises:
        ValueError: as ``paired_effect``, and for a margin that is not positive.
    """
    if not margin > 0:
        raise ValueError(f"margin = {margin}: equivalence needs a positive one.")
    effect = paired_effect(a, b)
    if effect.low == effect.high:
        return float(not abs(effect.mean) < margin)
    return float(ttost_paired(np.asarray(a, float), np.asarray(b, float), -margin, margin)[0])


def verdict(effect: Effect, p: float | None = None) -> str:
    """Of the claim that the effect is positive; ``p`` is the corrected one, in a family."""
    p = effect.p if p is None else p
    if not p < ALPHA:
        return NOT_DETECTED
    return SUPPORTED if effect.mean > 0 else CONTRADICTED


def all_of(verdicts: Sequence[str]) -> str:
    """Of a claim that holds only where each of its parts does."""
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return NOT_DETECTED if NOT_DETECTED in verdicts else SUPPORTED


def contrasts(
    table: pd.DataFrame, pairs: Mapping[str, tuple[str, str]], margin: float | None = None
) -> pd.DataFrame:
    """Each of a family of claims "a exceeds b" with its interval, Holm's p and verdict.

    Holm's correction (1979) keeps the chance that any of the family's true "no difference" is
    taken for a difference at ALPHA. The intervals are not corrected: each covers at 95% by itself.

    Args:
        table: a row per seed, a column per setting.
        pairs: the columns (a, b) by the name of their contrast.
        margin: also test each pair for equivalence within ±margin.
    """
    effects = {name: paired_effect(table[a], table[b]) for name, (a, b) in pairs.items()}
    holm = multipletests([e.p for e in effects.values()], alpha=ALPHA, method="holm")[1]
    found = pd.DataFrame([vars(e) for e in effects.values()], index=list(effects))
    found["p_holm"] = holm
    found["verdict"] = [verdict(e, p) for e, p in zip(effects.values(), holm, strict=True)]
    if margin is not None:
        found["p_equivalent"] = [
            p_equivalent(table[a], table[b], margin) for a, b in pairs.values()
        ]
    return found


def crowned(table: pd.DataFrame) -> pd.Series:
    """How often each column would be the best if every column were run once.

    Over all ways to draw one seed per column, the columns independently, as separate runs would be;
    a tie is split.

    Raises:
        ValueError: where a figure is missing.
    """
    if table.isna().to_numpy().any():
        raise ValueError("A figure is missing: leave out that seed, or that column.")
    draws = np.stack(np.meshgrid(*table.to_numpy(dtype=float).T, indexing="ij")).reshape(
        len(table.columns), -1
    )
    best = draws == draws.max(axis=0)
    return pd.Series((best / best.sum(axis=0)).mean(axis=1), index=table.columns)


def unmoved(
    table: pd.DataFrame, pairs: Mapping[str, tuple[str, str]], margin: float
) -> pd.DataFrame:
    """Each of a family of claims "a is b, within ±margin", with interval, p and verdict.

    Supported where the two are equivalent; contradicted where the difference is beyond the margin
    (Holm's correction); not detected in between. The equivalence tests are not corrected: a claim
    that all of the family are equivalent needs each of them, which at ALPHA errs at ALPHA at most.

    A seed that failed on either side is left out of its pair and counted in ``left_out``; such a
    pair is never supported, for a run that failed is no run that came out the same. Tables and
    pairs as in ``contrasts``.

    Raises:
        ValueError: for a pair with fewer than two whole seeds.
    """
    found, beyond = [], []
    for a, b in pairs.values():
        whole = table.reindex(columns=[a, b]).dropna()
        effect = paired_effect(whole[a], whole[b])
        equivalent = p_equivalent(whole[a], whole[b], margin)
        left_out = len(table) - len(whole)
        found.append(vars(effect) | {"left_out": left_out, "p_equivalent": equivalent})
        beyond.append(p_beyond(whole[a], whole[b], margin))
    found = pd.DataFrame(found, index=list(pairs))
    found["p_beyond"] = multipletests(beyond, alpha=ALPHA, method="holm")[1]
    same = (found["p_equivalent"] < ALPHA) & (found["left_out"] == 0)
    found["verdict"] = np.select(
        [same, found["p_beyond"] < ALPHA], [SUPPORTED, CONTRADICTED], NOT_DETECTED
    )
    return found


def p_beyond(a: Sequence[float], b: Sequence[float], margin: float) -> float:
    """p of "the mean of a − b lies within ±margin": the opposite of ``p_equivalent``.

    The chance of a mean this far from 0, on either side, were the truth at the margin; for a margin
    of 0 it is the two-sided p. One side alone, chosen by the data, would err twice as often where
    the scatter dwarfs the margin.
    """
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    mean, error = abs(difference.mean()), stats.sem(difference)
    if np.ptp(difference) == 0:
        return float(not mean > margin)
    near, far = (mean - margin) / error, (mean + margin) / error
    return float(stats.t.sf(near, len(difference) - 1) + stats.t.sf(far, len(difference) - 1))


def readable(found: pd.DataFrame) -> pd.DataFrame:
    """What ``contrasts``, ``unmoved`` or ``small_batch_contrasts`` found, as text for reading.

    Intervals are at 95% and uncorrected. The verdicts of ``contrasts`` go by "p (Holm)", those of
    ``unmoved`` by its other two.
    """
    names = {
        "p_holm": "p (Holm)",
        "p_equivalent": "p, equivalent",
        "p_beyond": "p, beyond (Holm)",
    }
    shown = pd.DataFrame(index=found.index)
    shown["mean"] = found["mean"].map("{:+.3f}".format)
    shown["95% interval"] = [f"{row.low:+.3f} to {row.high:+.3f}" for row in found.itertuples()]
    for column, name in names.items():
        if column in found:
            shown[name] = ["< 0.001" if p < 0.0005 else f"{p:.3f}" for p in found[column]]
    shown["seeds"] = found["seeds"]
    if "left_out" in found:
        shown["left out"] = found["left_out"]
    return shown.assign(verdict=found["verdict"])


# ------------------------------------------------------------------- what the claims are made of


def accuracies(results: pd.DataFrame, column: str = "test_accuracy") -> pd.DataFrame:
    """Final accuracy in percent: a row per seed, a column per setting, in the grid's order."""
    table = 100 * results.pivot(index="seed", columns="setting", values=column)
    return table[list(dict.fromkeys(results["setting"]))]


def late_spread(results: pd.DataFrame, epochs: int = 5) -> pd.DataFrame:
    """Standard deviation of the test accuracy over a run's last epochs, in points, as above."""
    spread = [np.std(h["test_accuracy"][-epochs:], ddof=1) for h in results["history"]]
    return accuracies(results.assign(spread=spread), "spread")


THE_CLAIM = {
    "GN + L1 − (BN + L1 + L2)": ("GN + L1", "BN + L1 + L2"),
    "GN + L1 − (LN + L2)": ("GN + L1", "LN + L2"),
}
CREDIT = {"GN + L1 − GN": ("GN + L1", "GN")}
# The other way round: steadier is a smaller spread.
STEADIER = {
    "BN + L1 + L2 − (GN + L1)": ("BN + L1 + L2", "GN + L1"),
    "LN + L2 − (GN + L1)": ("LN + L2", "GN + L1"),
}
EQUIVALENT_POINTS = 0.1  # of accuracy on all of MNIST: ten of its 10,000 test images

BATCH_POINTS = 0.3  # on 10,000 training images, where accuracies scatter more
REFERENCE_BATCH = 32


def batches_of(table: pd.DataFrame) -> list[int]:
    """The batch sizes of the grid's settings, which are called as in "GN, batch 2"."""
    return sorted({int(setting.rpartition(" ")[2]) for setting in table.columns})


def against_reference(table: pd.DataFrame, norm: str) -> dict[str, tuple[str, str]]:
    """Pairs for ``unmoved``: each batch size against the reference's."""
    return {
        f"{norm}, batch {n} − {REFERENCE_BATCH}": (
            f"{norm}, batch {n}",
            f"{norm}, batch {REFERENCE_BATCH}",
        )
        for n in batches_of(table)
        if n != REFERENCE_BATCH
    }


def change(table: pd.DataFrame, norm: str, n: int) -> pd.Series:
    """What a norm gains, seed by seed, from batches of n in place of the reference's.

    NaN for a seed that failed at either.
    """
    pair = table.reindex(columns=[f"{norm}, batch {n}", f"{norm}, batch {REFERENCE_BATCH}"])
    return pair.iloc[:, 0] - pair.iloc[:, 1]


def small_batch_changes(results: pd.DataFrame, n: int) -> pd.DataFrame:
    """``change`` for each norm, a row per seed; for BN also with precise and batch statistics."""
    table = accuracies(results)
    changes = {norm: change(table, norm, n) for norm in ("none", "BN", "LN", "GN")}
    bn = results[results["norm"] == "BN"]
    for kind in ("precise", "batch"):
        theirs = accuracies(bn, f"{kind}_test_accuracy")
        changes[f"BN, {kind}"] = change(theirs, "BN", n)
    return pd.DataFrame(changes)


# Claims "a exceeds b" on such changes. The first is the sum of the other two, seed by seed: what
# fixed but precise statistics leave of BN's loss, and what the running average adds to it.
BN_LOSES = {
    "(GN) − (BN)": ("GN", "BN"),
    "(GN) − (BN, precise)": ("GN", "BN, precise"),
    "(BN, precise) − (BN)": ("BN, precise", "BN"),
}


def small_batch_contrasts(
    changes: pd.DataFrame, pairs: Mapping[str, tuple[str, str]] = BN_LOSES
) -> pd.DataFrame:
    """``contrasts`` of changes over the seeds that are whole in all of them.

    None is supported where it rests on a part of the seeds because runs failed.
    """
    columns = list(dict.fromkeys(column for pair in pairs.values() for column in pair))
    whole = changes[columns].dropna()
    found = contrasts(whole, pairs).assign(left_out=len(changes) - len(whole))
    if len(whole) < len(changes):
        found["verdict"] = found["verdict"].replace(SUPPORTED, NOT_DETECTED)
    return found


@torch.no_grad()
def effect_of_batch_mates(norm: str, channels: int = 16, seed: int = 0) -> float:
    """By how much one image's output of the norm moves, at most, when its batch-mates change.

    In training mode, for activations of mean 0 and variance 1, (8, channels, 7, 7).
    """
    generator = torch.Generator().manual_seed(seed)
    layer = make_norm(norm, channels)
    x = torch.randn(8, channels, 7, 7, generator=generator)
    others = 3 * torch.randn(8, channels, 7, 7, generator=generator) + 1
    others[0] = x[0]
    return (layer(x)[0] - layer(others)[0]).abs().max().item()


# ----------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Claim:
    """A line of the README's table."""

    claim: str
    verdict: str
    effect: str
    seeds: int
    notebook: str


def _lines(found: pd.DataFrame, claims: Sequence[str], unit: str, notebook: str) -> list[Claim]:
    effects = [Effect(*row) for row in found[list(Effect.__annotations__)].itertuples(index=False)]
    return [
        Claim(claim, judged, f"{effect} {unit}", effect.seeds, notebook)
        for claim, judged, effect in zip(claims, found["verdict"], effects, strict=True)
    ]


def replication_claims(folder: Path = RESULTS) -> list[Claim]:
    """(d): GN + L1 against the others, and its last epochs."""
    notebook, points = "Session6_5_does_it_replicate", "points"
    replicate, constant, source = (
        load_results(name, folder) for name in ("replicate", "constant", "source")
    )
    epochs = len(replicate["history"][0]["epoch"])
    lines = _lines(
        contrasts(accuracies(replicate), THE_CLAIM | CREDIT),
        [
            f"GN + L1 beats BN + L1 + L2 on MNIST ({epochs} epochs)",
            "GN + L1 beats LN + L2",
            "It is L1 that helps: GN + L1 beats GN",
        ],
        points,
        notebook,
    )
    lines += _lines(
        contrasts(accuracies(source), THE_CLAIM),
        [
            "GN + L1 beats BN + L1 + L2 with the source's penalties (L1 a mean per tensor, over "
            "every parameter)",
            "GN + L1 beats LN + L2 with the source's penalties",
        ],
        points,
        notebook,
    )
    for results, rate in ((replicate, "one-cycle"), (constant, "constant")):
        lines += _lines(
            contrasts(late_spread(results), STEADIER),
            [
                f"GN + L1 is steadier than {other} in the last 5 epochs ({rate} learning rate)"
                for other in ("BN + L1 + L2", "LN + L2")
            ],
            "points of SD",
            notebook,
        )
    return lines


def batch_size_claims(folder: Path = RESULTS) -> list[Claim]:
    """(c): GN and the batch size, BN beside it."""
    notebook = "Session6_3_batch_size"
    results = load_results("batch_size", folder)
    table = accuracies(results)
    moved = effect_of_batch_mates("GN")
    exact = Claim(
        "GN's output for an image does not depend on the rest of its batch",
        SUPPORTED if moved <= 1e-6 else CONTRADICTED,
        f"moves by at most {moved:.1g} (BN's: {effect_of_batch_mates('BN'):.1f})",
        1,
        notebook,
    )
    same = unmoved(table, against_reference(table, "GN"), BATCH_POINTS)
    largest = same.loc[[same["mean"].abs().idxmax()]].assign(verdict=all_of(list(same["verdict"])))
    smallest, *_, biggest = batches_of(table)
    lost = small_batch_contrasts(small_batch_changes(results, smallest))
    return [
        exact,
        *_lines(
            largest,
            [
                f"GN's accuracy is the same, within {BATCH_POINTS} points, at batches of "
                f"{smallest} to {biggest} (largest change: {largest.index[0]})"
            ],
            "points",
            notebook,
        ),
        *_lines(
            lost,
            [
                f"BN loses more than GN from batches of {smallest} in place of {REFERENCE_BATCH}",
                "It still does with precise statistics: part of the loss is training's",
                "BN loses more with running than with precise statistics: part of the loss is the "
                "running average's",
            ],
            "points",
            notebook,
        ),
    ]


def markdown(claims: Sequence[Claim], folder: str = "notebooks/") -> str:
    """The table as the README has it; intervals at 95%, uncorrected.

    Args:
        claims: its lines.
        folder: of the notebooks, as seen from where the table stands.
    """
    rows = [
        f"| {c.claim} | **{c.verdict}** | {c.effect} | {c.seeds} | "
        f"[{c.notebook}]({folder}{c.notebook}.ipynb) |"
        for c in claims
    ]
    head = [
        "| Claim | Verdict | Effect, 95% interval | Seeds | Notebook |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


BETWEEN = re.compile(r"(?<=<!-- claims -->\n).*?(?=\n<!-- end of claims -->)", re.DOTALL)


def write_readme(table: str, path: Path = REPOSITORY / "README.md") -> None:
    """Puts the table between the README's two marks.

    Raises:
        SweepError: where the marks are missing.
    """
    text = path.read_text(encoding="utf-8")
    if not BETWEEN.search(text):
        raise SweepError(
            f"{path.name} has no place for the table: add the lines '<!-- claims -->' and "
            f"'<!-- end of claims -->', with a line between them."
        )
    with replacing(path, "w", encoding="utf-8") as file:
        file.write(BETWEEN.sub(lambda _: table, text))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into README.md")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
    asked = parser.parse_args(arguments)
    try:
        table = markdown(replication_claims(asked.results) + batch_size_claims(asked.results))
        if asked.write:
            write_readme(table)
    except (SweepError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
