"""What was found, as one sentence: subject, verb, number, interval. Each verdict has its own."""

from collections.abc import Mapping, Sequence

import numpy as np

from evidence.statistics import CONTRADICTED, NOT_SHOWN, SHOWN, SUPPORTED, all_of, widest


def interval(row: Mapping, ratio: bool = False, unit: str = "points", sign: bool = True) -> str:
    """As in "+0.031 [-0.033, +0.095] points" or "1.63× [1.18, 2.25]".

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
        mean, low, high = np.exp([mean, low, high])
        return f"{mean:.2f}× [{low:.2f}, {high:.2f}]"
    look = "+.3f" if sign else ".3f"
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
