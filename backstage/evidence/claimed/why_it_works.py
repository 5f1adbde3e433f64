"""Why normalization helps: what the papers on BN and LN claim, on MNIST's scale.

Most claims have several parts: networks, starts, probes. Such a claim holds only if each part does;
its line shows the weakest one. All parts of a section are corrected together.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from backstage.evidence.claim import Claim, Family, Line, judge
from backstage.evidence.results import RESULTS, load_results
from backstage.evidence.sentences import interval
from backstage.evidence.statistics import CONTRADICTED, NOT_DETECTED, SUPPORTED, all_of
from backstage.evidence.why_tables import (
    PROBES,
    at_best_rate,
    bounds,
    layer_norm_accuracies,
    log_costs,
    log_gradient_ranges,
    log_largest_rates,
    log_smoothness,
)

NOTEBOOK = "Session6_2_why_it_works"
NETWORKS = ("sigmoid MLP", "ReLU MLP", "CNN")
EXACT = 1e-8

FASTER = Family("faster", NOTEBOOK, log_costs, ratio=True, bounds=bounds)
LARGER_RATES = Family("larger rates", NOTEBOOK, log_largest_rates, ratio=True)
GRADIENTS = Family("gradients", NOTEBOOK, log_gradient_ranges, ratio=True)
VERY_DEEP = Family("very deep", NOTEBOOK, at_best_rate)
SMOOTH = Family("smooth", NOTEBOOK, log_smoothness, ratio=True)
LAYER_NORM = Family("layer norm", NOTEBOOK, layer_norm_accuracies)


def faster(text: str, norm: str, what: str) -> list[Claim]:
    return [
        Claim(text, FASTER, "faster", f"none, {n}{what}", f"{norm}, {n}{what}", where=n)
        for n in NETWORKS
    ]


def larger(text: str, *arms: tuple[str, str]) -> list[Claim]:
    return [
        Claim(
            text, LARGER_RATES, "largest_rate", f"{norm}, {n}", f"none, {n}", where=f"{norm}, {n}"
        )
        for norm, n in arms
    ]


def tamer(text: str, *places: str) -> list[Claim]:
    return [Claim(text, GRADIENTS, "gradients", f"none, {p}", f"BN, {p}", where=p) for p in places]


def deeper(text: str, norms: Iterable[str], kind: str) -> list[Claim]:
    places = [(norm, f"{kind}, depth {depth}") for norm in norms for depth in (20, 40)]
    return [
        Claim(text, VERY_DEEP, "very_deep", f"{n}, {p}", f"none, {p}", where=f"{n}, {p}")
        for n, p in places
    ]


def smoother(text: str, norm: str) -> list[Claim]:
    return [
        Claim(text, SMOOTH, "smoothness", f"none: {probe}", f"{norm}: {probe}", where=probe)
        for probe in PROBES.values()
    ]


# The texts stand in a table: "1.50×" there is that much more without the norm where less is better,
# and that much more with it where more is better.
CLAIMS = [
    *faster("BN trains faster: fewer steps to 97%, each at the best rate tried", "BN", ": steps"),
    *faster("So it does at the best rate without a norm", "BN", ", shared rate: steps"),
    *faster("BN trains more efficiently: less CPU time to 97%", "BN", ": seconds"),
    *faster("LN trains faster: fewer steps to 97%", "LN", ": steps"),
    *larger("BN trains at larger learning rates", *(("BN", n) for n in NETWORKS)),
    *larger("LN and GN train at larger rates, too", *(("LN", n) for n in NETWORKS), ("GN", "CNN")),
    *tamer(
        "BN keeps gradients from vanishing where the start is too small: with depth, they spread "
        "less in plain CNNs",
        *("plain, N(0, 0.01)", "plain, Xavier"),
    ),
    *tamer(
        "In CNNs with skips, too, gradients spread less with BN",
        *("residual, N(0, 0.01)", "residual, Xavier", "residual, He"),
    ),
    *tamer("BN tames gradients in plain CNNs with He's start as well", "plain, He"),
    *deeper(
        "BN makes very deep plain CNNs trainable (one epoch, best rates tried)", ["BN"], "plain"
    ),
    *deeper("LN and GN make very deep plain CNNs trainable, too", ["LN", "GN"], "plain"),
    *deeper("BN helps very deep CNNs with skips as well", ["BN"], "residual"),
    *smoother("BN makes the loss smoother along the gradient: by all three probes", "BN"),
    *smoother("LN makes it smoother, likewise", "LN"),
    Claim("LN generalizes better than no norm", LAYER_NORM, "layer_norm", "LN", "none"),
    Claim("LN is better without γ and β (LN-simple)", LAYER_NORM, "layer_norm", "LN-simple", "LN"),
    Claim(
        "LN's derivatives of μ and σ help: LN-simple beats DetachNorm",
        *(LAYER_NORM, "layer_norm", "LN-simple", "DetachNorm"),
    ),
    Claim("AdaNorm beats LN", LAYER_NORM, "layer_norm", "AdaNorm", "LN"),
]


def theorem(folder: Path = RESULTS) -> Line:
    """1911.07013, section 3.2: exact, so no statistics needed."""
    rows = load_results("backward_theorem", folder)
    error = rows[["mean_error", "variance_error"]].max(axis=None)
    return Line(
        "LN's derivatives of μ and σ act on the gradient's mean and variance as its theorem says",
        SUPPORTED if error <= EXACT else CONTRADICTED,
        f"largest error {error:.0e} in {int(rows['draws'].sum()):,} draws",
        rows["seed"].nunique(),
        NOTEBOOK,
    )


def found(family: Family, folder: Path = RESULTS) -> pd.DataFrame:
    """``contrasts`` of a section, by claim and by what the part of it is about."""
    claims = [claim for claim in CLAIMS if claim.family == family]
    parts = [(claim.text, claim.where or claim.contrast) for claim in claims]
    names = pd.MultiIndex.from_tuples(parts, names=["claim", "part"])
    return judge(claims, folder).set_index(names)


def weakest(parts: pd.DataFrame) -> pd.Series:
    """Of a claim's parts the one that speaks for it least."""
    worst_first = [CONTRADICTED, NOT_DETECTED, SUPPORTED]
    rank = parts["verdict"].map(worst_first.index)
    return parts[rank == rank.min()].sort_values("low").iloc[0]


def line_of(text: str, parts: pd.DataFrame, ratio: bool) -> Line:
    """One line for all parts of a claim."""
    least = weakest(parts)
    effect = interval(least, ratio=ratio)
    if len(parts) > 1:
        held = int((parts["verdict"] == SUPPORTED).sum())
        verb = "is" if held == 1 else "are"
        effect += f" ({least.name}, the weakest; {held} of {len(parts)} parts {verb} supported)"
    return Line(text, all_of(list(parts["verdict"])), effect, int(least["seeds"]), NOTEBOOK)


def lines(folder: Path = RESULTS) -> list[Line]:
    """Section by section."""
    rows = []
    for family in dict.fromkeys(claim.family for claim in CLAIMS):
        if family == LAYER_NORM:
            rows.append(theorem(folder))
        judged = found(family, folder)
        for text in judged.index.unique("claim"):
            rows.append(line_of(text, judged.loc[text], family.ratio))
    return rows
