"""What was found about why normalization helps, in sentences, whatever the verdicts are."""

from collections.abc import Callable

import pandas as pd

from evidence.sentences import interval, listed
from evidence.statistics import CONTRADICTED, NOT_DETECTED, SUPPORTED


def in_each(
    parts: pd.DataFrame,
    supported: str,
    contradicted: str,
    undecided: str = "no difference was detected",
    name: Callable[[str], str] = str,
    ratio: bool = True,
) -> str:
    """A claim of several parts, as in "BN is faster in A (1.50× [1.20, 1.90]) and B (…)."

    Parts of one verdict stand together: the supported ones first, then the contradicted, then those
    where nothing was detected.

    Args:
        parts: of ``contrasts``, a row per part, by its name.
        supported, contradicted, undecided: the words before the parts of each verdict. The last
            two go on a sentence that has begun, or begin it.
        name: how the sentence calls a part; with its preposition, as in "in the CNN".
        ratio: the rows are of logarithms.
    """
    said = []
    for verdict, words in (
        (SUPPORTED, supported),
        (CONTRADICTED, contradicted),
        (NOT_DETECTED, undecided),
    ):
        rows = parts[parts["verdict"] == verdict]
        sign = verdict == NOT_DETECTED  # the words of the others say which way it goes
        items = [f"{name(p)} ({interval(row, ratio, sign=sign)})" for p, row in rows.iterrows()]
        if items:
            said.append(f"{words} {listed(items)}")
    text = "; ".join(said)
    left_out = int(parts["left_out"].max())
    if left_out:
        seeds = "seed is" if left_out == 1 else "seeds are"
        text += f"; {left_out} {seeds} left out, which withholds any support"
    return f"{text[0].upper()}{text[1:]}."


def standing(seeds: int, of: int) -> str:
    """How many seeds stand behind a section."""
    if seeds == of:
        return f"All {of} seeds stand behind this section."
    return f"Only {seeds} of the {of} planned seeds stand behind this section."


def compared_costs(ratios: pd.Series) -> str:
    """What a step costs with each norm, beside one without.

    Args:
        ratios: the time of a step by norm, as a multiple of "none"'s.
    """
    items = [f"{ratio:.2f}× with {norm}" for norm, ratio in ratios.drop("none").items()]
    return f"Beside a step without a norm, one takes {listed(items)}."


def share_taken(rho2: pd.DataFrame) -> str:
    """ρ² of the layers in trained networks: the share of its variance that the gradient loses.

    Args:
        rho2: a row per seed, a column per norm layer.
    """
    low, mean, high = (100 * f for f in (rho2.min().min(), rho2.mean().mean(), rho2.max().max()))
    return (
        f"In the trained networks, σ's derivative takes {mean:.1f}% of the gradient's variance "
        f"away on average ({low:.1f} to {high:.1f}% by layer and seed)."
    )
