"""What L1 and L2 do, and what they do under a norm: 1706.05350 and the textbooks."""

import math
from itertools import product
from pathlib import Path

from backstage.evidence import scaling
from backstage.evidence.claim import Claim, Family, Line, judge, judged_lines
from backstage.evidence.measures.few_images import NORMS, SIZES
from backstage.evidence.penalty_tables import angle_pairs, shares, turns
from backstage.evidence.results import RESULTS, load_results
from backstage.evidence.sentences import interval
from backstage.evidence.statistics import CONTRADICTED, SUPPORTED, all_of, equivalences, widest
from backstage.evidence.tables import accuracies

NOTEBOOK = "Session6_4_penalties"
ANGLE_MARGIN = math.log(1.1)  # 10%: the formula itself leaves out terms of the order of ηλ
RATE_POINTS = 0.5  # of accuracy after so short a run: around a tenth of its error

SPARSITY = Family("sparsity", NOTEBOOK, shares)
EFFECT = Family("L2 under BN", NOTEBOOK)
FEW = Family("few images", NOTEBOOK)
RIVALS = Family("augmentation and dropout", NOTEBOOK)


def gain(family: Family, norm: str, what: str, size: int) -> Claim:
    """On so many images, the norm gains by it."""
    a, b = f"{norm} + {what}, {size}", f"{norm}, {size}"
    return Claim(f"{norm} gains by {what} on {size:,} images", family, "few_images", a, b)


CLAIMS = [
    Claim(
        "The proximal step makes more weights exactly zero than the subgradient, at the same λ",
        *(SPARSITY, "sparsity", "proximal, zeros", "subgradient, zeros"),
    ),
    Claim(
        "Pruned by 90%, a network trained with L1 keeps more of its accuracy than one without",
        *(SPARSITY, "sparsity", "subgradient, pruned by 90%", "no penalty, pruned by 90%"),
    ),
    Claim(
        "And it keeps more still if L1 was a proximal step",
        *(SPARSITY, "sparsity", "proximal, pruned by 90%", "subgradient, pruned by 90%"),
    ),
    Claim(
        "L2 helps a short run of BN, 10,000 images, the rate left as it is",
        *(EFFECT, "matched_rate", "L2", "no L2"),
    ),
    *(
        gain(FEW, norm, penalty, size)
        for norm, penalty, size in product(NORMS, ("L1", "L2", "L1 + L2"), SIZES)
    ),
    *(gain(RIVALS, "GN", what, SIZES[0]) for what in ("augmentation", "dropout")),
]

# The second shows how much the margin can tell apart.
MATCHED = {"L2 − its rate": ("L2", "no L2, matched rate"), "L2 − no L2": ("L2", "no L2")}


def never_zero(folder: Path = RESULTS) -> Line:
    """Subgradient steps: the largest share of exact zeros of any seed."""
    runs = load_results("sparsity", folder)
    zeros = shares(runs)[["subgradient, zeros", "proximal, zeros"]]
    most = zeros["subgradient, zeros"].max()
    return Line(
        "Subgradient steps on L1 leave (almost) no weight at exactly zero, less than 0.1% in any "
        "seed",
        SUPPORTED if most < 0.1 else CONTRADICTED,
        f"{most:.2f}% at most (proximal: {zeros['proximal, zeros'].min():.1f}% at least)",
        len(zeros),
        NOTEBOOK,
    )


def same_run(optimizer: str, times_lr: int, within: float) -> Line:
    """(w, η, λ) and (2w, times_lr·η, λ/4), with each norm and without."""
    most = max(scaling.apart(norm, optimizer, times_lr) for norm in ("BN", "LN", "GN"))
    without = scaling.apart("none", optimizer, times_lr)
    return Line(
        f"Under a norm, (w, η, λ) and (2w, {times_lr}η, λ/4) are the same run with {optimizer}",
        SUPPORTED if most <= within < without else CONTRADICTED,
        f"logits at most {most:.1g} apart (without a norm: {without:.1g})",
        1,
        NOTEBOOK,
    )


def same_as_a_rate(within: float = 1e-12) -> Line:
    """L2 on the convolutions, and the growing rate that replaces it, with each norm."""
    found = [scaling.unmatched(norm) for norm in ("BN", "LN", "GN")]
    most, least = max(m for m, _ in found), min(u for _, u in found)
    return Line(
        "Under a norm, SGD with L2 on the convolutions is the same run as SGD without it at a rate "
        "that grows",
        SUPPORTED if most <= within < least else CONTRADICTED,
        # No digit of rounding is printed: the last bits differ from processor to processor.
        f"logits equal to rounding, below {within:.0e} (at the same rate: {least:.2g} at least)",
        1,
        NOTEBOOK,
    )


def equilibrium(folder: Path = RESULTS) -> Line:
    table = turns(load_results("equilibrium", folder))
    same = equivalences(table, angle_pairs(table), ANGLE_MARGIN)
    row = widest(same)
    return Line(
        f"Under a norm, weights turn by √(2ηλ) per step of SGD with L2, within ±10% (widest 90% "
        f"interval: {row.name})",
        all_of(list(same["verdict"])),
        interval(row, ratio=True),
        row["seeds"],
        NOTEBOOK,
    )


def only_a_rate(folder: Path = RESULTS) -> Line:
    table = accuracies(load_results("matched_rate", folder))
    both = equivalences(table, MATCHED, RATE_POINTS)
    row, other = both.iloc[0], both.iloc[1]["verdict"]
    return Line(
        f"So the accuracy of BN is the same with L2, on the head too, and at the matched rate, "
        f"within ±{RATE_POINTS} points (90% interval)",
        row["verdict"],
        f"{interval(row)} (L2 and no L2 at the same rate: {other})",
        row["seeds"],
        NOTEBOOK,
    )


def few_images(folder: Path = RESULTS) -> Line:
    """All gains at once; the line names the largest."""
    found = judge([claim for claim in CLAIMS if claim.family == FEW], folder)
    helped = int((found["verdict"] == SUPPORTED).sum())
    best = found.loc[found["mean"].idxmax()]
    return Line(
        "L1, L2 and both of them help GN, LN and BN on 300 to 10,000 training images",
        all_of(list(found["verdict"])),
        f"{helped} of {len(found)} gains are supported; the largest is {best.name}, "
        f"{interval(best)}",
        int(found["seeds"].min()),
        NOTEBOOK,
    )


def lines(folder: Path = RESULTS) -> list[Line]:
    sparse = [claim for claim in CLAIMS if claim.family == SPARSITY]
    effect = [claim for claim in CLAIMS if claim.family == EFFECT]
    return [
        never_zero(folder),
        *judged_lines(sparse, folder),
        same_run("SGD", 4, within=1e-10),
        same_run("Adam", 2, within=1e-6),
        equilibrium(folder),
        same_as_a_rate(),
        only_a_rate(folder),
        *judged_lines(effect, folder),
        few_images(folder),
        *judged_lines([claim for claim in CLAIMS if claim.family == RIVALS], folder),
    ]
