"""What was found, as one sentence: subject, verb, number, interval. Each verdict has its own."""

from collections.abc import Mapping, Sequence

import numpy as np

from backstage.evidence.statistics import (
    CONTRADICTED,
    NOT_DETECTED,
    NOT_SHOWN,
    SHOWN,
    SUPPORTED,
    all_of,
    times,
    widest,
)


def interval(row: Mapping, ratio: bool = False, unit: str = "points", sign: bool = True) -> str:
    """As in "+0.031 [-0.033, +0.095] points", "+35.3 [+28.4, +42.3] points", "1.63× [1.18, 2.25]".

    Args:
        row: of ``contrasts`` or ``equivalences``.
        ratio: the row is of logarithms.
        unit: of the difference.
        sign: say whether it is positive; otherwise it is turned to be so.
    """
    mean, low, high = (row[key] for key in ("mean", "low", "high"))
    if not sign and mean < 0:
        mean, low, high = -mean, -high, -low
    if ratio:
        mean, low, high = (times(v) for v in np.exp([mean, low, high]))
        return f"{mean} [{low[:-1]}, {high[:-1]}]"
    look = ("+" if sign else "") + (".3f" if high - low < 2 else ".1f")
    return f"{mean:{look}} [{low:{look}}, {high:{look}}] {unit}"


def compared(
    row: Mapping,
    subject: str,
    rival: str,
    more: str = "beats",
    less: str = "falls behind",
    undecided: str = "No difference in accuracy was detected between",
    ratio: bool = False,
) -> str:
    """One contrast's sentence, as in "GN + L1 beats GN by 0.131 [0.033, 0.229] points."

    Args:
        row: of ``contrasts``, subject − rival.
        subject, rival: what is compared.
        more, less: the verb if the claim is supported, and if it is contradicted.
        undecided: the beginning if nothing was detected.
        ratio: the row is of logarithms.
    """
    if row["verdict"] in (SUPPORTED, CONTRADICTED):
        verb = more if row["verdict"] == SUPPORTED else less
        return f"{subject} {verb} {rival} by {interval(row, ratio, sign=False)}."
    return f"{undecided} {subject} and {rival}: {interval(row, ratio)}."


def stays(found, subject: str, margin: float, where: str) -> str:
    """The sentence of a claim of sameness: equivalence shown everywhere, or not, and where not.

    Args:
        found: ``equivalences``, by name.
        subject: of the claim.
        margin: ± points.
        where: the range, as in "at every batch size".
    """
    worst = widest(found)
    reach = f"{interval(worst)} (90% interval)"
    if all_of(list(found["verdict"])) == SHOWN:
        return (
            f"{subject} is equivalent within ±{margin} points {where}; it moves most at "
            f"{worst.name}, by {reach}."
        )
    failed = found[found["verdict"] == NOT_SHOWN]
    return (
        f"{subject} is not shown to be the same within ±{margin} points {where}: {len(failed)} of "
        f"{len(found)} comparisons fail, {worst.name} by the most, at {reach}."
    )


def same(row: Mapping, subject: str, rival: str, within: str, ratio: bool = False) -> str:
    """The sentence of one claim that two are the same.

    Args:
        row: of ``equivalences``, subject − rival.
        subject, rival: what is compared.
        within: the margin in words, as in "±0.3 points".
        ratio: the row is of logarithms.
    """
    verb = "is the same as" if row["verdict"] == SHOWN else "is not shown to be the same as"
    return f"{subject} {verb} {rival} within {within}: {interval(row, ratio)} (90% interval)."


def listed(items: Sequence) -> str:
    """As in "1, 4 and 7"."""
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last


def rests_on(subject: str, seeds: Sequence[int]) -> str:
    """How much a verdict depends on single seeds, given those without which it would change."""
    if not len(seeds):
        return f"{subject} does not depend on any single seed."
    word = "seed" if len(seeds) == 1 else "any one of seeds"
    return f"{subject} would be another without {word} {listed(seeds)}."


def superior(found, subject: str, rivals: Mapping[str, str]) -> str:
    """The sentence of a claim that needs all of its contrasts, as "supersedes" does.

    Args:
        found: ``contrasts``, subject − rival.
        subject: what should be better than all the others.
        rivals: their names by the name of the contrast.
    """
    judged = {name: found.loc[name] for name in rivals}
    overall = all_of([row["verdict"] for row in judged.values()])
    sign = overall not in (SUPPORTED, CONTRADICTED)
    parts = [
        f"{rivals[name]} ({interval(row)})"
        if sign
        else f"{rivals[name]} by {interval(row, sign=False)}"
        for name, row in judged.items()
        if row["verdict"] == overall
    ]
    if overall == SUPPORTED:
        return f"{subject} beats {listed(parts)}."
    if overall == CONTRADICTED:
        return f"{subject} falls behind {listed(parts)}."
    return f"{subject} was not found to beat {' or '.join(parts)}."


def joined(*sentences: str) -> str:
    """Several sentences as one, between semicolons."""
    first, *others = (sentence.rstrip(".") for sentence in sentences)
    return "; ".join([first, *(o.replace("No ", "no ", 1) for o in others)]) + "."


def grows(row: Mapping, subject: str, paper: float) -> str:
    """How many times as large something gets, and whether that agrees with what a paper found.

    Args:
        row: a paired effect, of logarithms.
        subject: what grows.
        paper: the paper's factor, above 1; one run's.
    """
    reach = interval(row, ratio=True)
    if row["low"] <= 0 <= row["high"]:
        return f"{subject} was not found to change: {reach}, and {paper:.2f}× in the paper."
    verb = "grows" if row["low"] > 0 else "shrinks"
    if np.exp(row["high"]) < paper:
        return f"{subject} {verb} {reach}, less than the paper's {paper:.2f}×."
    if np.exp(row["low"]) > paper:
        return f"{subject} {verb} {reach}, more than the paper's {paper:.2f}×."
    return f"{subject} {verb} {reach}, and the paper's {paper:.2f}× is within the interval."


FEWER = {
    SUPPORTED: "fewer images in BN's statistics do cost accuracy",
    NOT_DETECTED: "that fewer images in BN's statistics cost accuracy was not detected",
    CONTRADICTED: "fewer images in BN's statistics even raise accuracy",
}
AGAINST_GN = {
    SUPPORTED: "BN over 2 images falls behind GN",
    NOT_DETECTED: "BN over 2 images was not found to fall behind GN",
    CONTRADICTED: "BN over 2 images is still ahead of GN",
}


def what_is_left(fewer: str, against_gn: str) -> str:
    """What stands of "BN's error rises in small batches, and GN is the better norm there".

    Args:
        fewer: the verdict that BN loses if fewer images share its statistics.
        against_gn: the verdict that GN beats BN at the fewest.
    """
    holds = [fewer, against_gn].count(SUPPORTED)
    head = (
        "Nothing of the paper's claim is shown",
        "Half of the paper's claim is left",
        "Both halves of the paper's claim hold",
    )
    return f"{head[holds]} here: {FEWER[fewer]}, and {AGAINST_GN[against_gn]}."


def again(changed: Sequence[str] | None, gap: float = 0.0, usual: float = 0.0) -> str:
    """How a stored run came out when it was made once more.

    Args:
        changed: what differs in it; None if it could not be made.
        gap: between the accuracies, in points.
        usual: 95% of the gaps between two seeds are smaller, in points.
    """
    if changed is None:
        return "Without MNIST, the run could not be made again."
    if not changed:
        return (
            "The run came out the same to the last bit: losses, all epochs, the list of mistakes."
        )
    where = "within" if gap <= usual else "more than"
    return f"The run came out {gap:.2f} points away, {where} the usual {usual:.2f} between seeds."
