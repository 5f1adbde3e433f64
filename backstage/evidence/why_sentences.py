"""What was found about why normalization helps, in sentences, whatever the verdicts are."""

from collections.abc import Callable, Collection, Sequence

import numpy as np
import pandas as pd

from backstage.evidence.sentences import interval, listed
from backstage.evidence.statistics import (
    CONTRADICTED,
    NOT_DETECTED,
    SUPPORTED,
    paired_effect,
    times,
)


def in_each(
    parts: pd.DataFrame,
    supported: str,
    contradicted: str,
    undecided: str = "no difference was detected in",
    name: Callable[[str], str] = str,
    ratio: bool = True,
    head: str = "",
    at_least: Collection[str] = (),
) -> str:
    """A claim of several parts, in one line, as in "BN is faster in A (1.50×) and B (1.20×)."

    Parts of one verdict stand together: the supported ones first, then the contradicted, then those
    where nothing was detected. Numbers are the table's, which has the intervals.

    Args:
        parts: of ``contrasts``, a row per part, by its name.
        supported, contradicted, undecided: the words before the parts of each verdict. The last
            two go on a sentence that has begun, or begin it.
        name: how the sentence calls a part.
        ratio: the rows are of logarithms.
        head: stands before it, and a colon.
        at_least: parts whose number is a lower bound.
    """

    def item(part: str, row: pd.Series) -> str:
        if row["verdict"] == NOT_DETECTED:
            return name(part)
        number = times(np.exp(row["mean"])) if ratio else f"{row['mean']:+.1f} points"
        return f"{name(part)} ({'at least ' if part in at_least else ''}{number})"

    said = []
    for verdict, words in (
        (SUPPORTED, supported),
        (CONTRADICTED, contradicted),
        (NOT_DETECTED, undecided),
    ):
        items = [item(p, row) for p, row in parts[parts["verdict"] == verdict].iterrows()]
        if items:
            said.append(f"{words} {listed(items)}")
    text = "; ".join(said)
    left_out = int(parts["left_out"].max())
    if left_out:
        seeds = "seed is" if left_out == 1 else "seeds are"
        text += f"; {left_out} {seeds} left out, which withholds any support"
    return f"{head}: {text}." if head else f"{text[0].upper()}{text[1:]}."


def on_rates(judged: pd.DataFrame) -> list[str]:
    """At which rates each norm trains, a line per norm; parts are as in "BN, CNN"."""
    said, parts = [], judged.droplevel("claim")
    norms = parts.index.str.partition(", ").get_level_values(0)
    for norm in norms.unique():
        words = (f"{norm} trains at larger rates in", f"{norm} only trains at smaller ones in")
        of = parts[norms == norm].rename(lambda part: part.partition(", ")[2])
        undecided = f"{norm} was not found to differ in"
        said.append(in_each(of, *words, undecided, name="the {}".format))
    return said


def on_gradients(judged: pd.DataFrame, at_least: Collection[str]) -> list[str]:
    """Where gradients spread less, a line for each kind of CNN; parts are as in "plain, He"."""
    said, parts = [], judged.droplevel("claim")
    for kind, head in {"plain, ": "Plain CNNs", "residual, ": "CNNs with skips"}.items():
        of = parts[parts.index.str.startswith(kind)]
        words = ("with BN, gradients spread less from", "gradients spread more with BN from")
        undecided = "no difference was detected from"
        low = {part.removeprefix(kind) for part in at_least if part.startswith(kind)}
        of = of.rename(lambda part: part.partition(", ")[2])
        said.append(in_each(of, *words, undecided, head=head, at_least=low))
    return said


def on_depth(judged: pd.DataFrame) -> list[str]:
    """Which norms help, a line per kind and depth; parts are as in "BN, plain, depth 20"."""
    said, parts = [], judged.droplevel("claim")
    places = parts.index.str.partition(", ").get_level_values(2)
    for place in sorted(places.unique()):
        of = parts[places == place].rename(lambda part: part.partition(", ")[0])
        words = (
            "accuracy is higher with",
            "accuracy is lower with",
            "no difference was detected with",
        )
        head = place.replace("residual", "with skips").capitalize()
        said.append(in_each(of, *words, ratio=False, head=head))
    return said


def bullets(said: Sequence[str]) -> str:
    """Several sentences, a line each."""
    return "\n".join(f"- **{sentence}**" for sentence in said) + "\n"


def standing(seeds: int, of: int) -> str:
    """How many seeds stand behind a section."""
    if seeds == of:
        return f"All {of} seeds stand behind this section."
    return f"Only {seeds} of the {of} planned seeds stand behind this section."


def untrained(settings: Sequence[str]) -> list[str]:
    """In how many runs no rate trained, a sentence for each setting.

    Args:
        settings: of the runs in which none did, as in "CNN, none".
    """
    said = []
    for setting, count in pd.Series(list(settings), dtype=object).value_counts().items():
        network, norm = setting.rsplit(", ", 1)
        runs = "one run" if count == 1 else f"{count} runs"
        with_norm = "without a norm" if norm == "none" else f"with {norm}"
        said.append(f"In {runs} of the {network} {with_norm}, no rate trained.")
    return said


def compared_costs(ratios: pd.DataFrame) -> str:
    """What a step costs with each norm, beside one without.

    Args:
        ratios: the time of a step as a multiple of "none"'s; a row per run, a column per norm.
    """
    said, paid, free = [], [], []
    for norm, runs in ratios.drop(columns="none").items():
        low, middle, high = runs.min(), runs.median(), runs.max()
        if low <= 1 <= high:
            free.append(f"{norm} ({middle:.2f}×; {low:.2f} to {high:.2f}× over the runs)")
        else:
            paid.append(f"{middle:.2f}× as long with {norm}")
    if paid:
        said.append(f"a step takes {listed(paid)} as without a norm")
    if free:
        said.append(f"no price was measurable with {listed(free)}")
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}."


def exactness(verdict: str, effect: str) -> str:
    """Whether a theorem came out, and how far off it was."""
    return f"The theorem {'holds to rounding' if verdict == SUPPORTED else 'fails'}: {effect}."


def share_taken(rho2: pd.DataFrame) -> str:
    """ρ² of the layers in trained networks: the share of its variance that the gradient loses.

    Args:
        rho2: a row per seed, a column per norm layer.
    """
    low, mean, high = (100 * f for f in (rho2.min().min(), rho2.mean().mean(), rho2.max().max()))
    return (
        f"In the trained networks of LN-simple, σ's derivative takes {mean:.1f}% of the gradient's "
        f"variance away on average ({low:.1f} to {high:.1f}% by layer and seed)."
    )


def cost_of_detaching(scores: pd.DataFrame) -> str:
    """What it costs to leave out σ's derivative alone; the interval is uncorrected, at 95%.

    Args:
        scores: accuracies in percent, a row per seed, a column per variant.
    """
    effect = paired_effect(scores["σ detached"], scores["LN-simple"])
    reach = interval(vars(effect), sign=effect.low <= 0 <= effect.high)
    if effect.low <= 0 <= effect.high:
        return f"To detach σ was not found to change accuracy: {reach}."
    if effect.low > 0:
        return f"To detach σ even gains accuracy: {reach}."
    worst = ", the worst of all variants" if scores.mean().idxmin() == "σ detached" else ""
    return (
        f"To detach σ, and nothing else, costs {reach}{worst}: how small a share of the variance "
        "its derivative takes does not explain why it matters."
    )


def tally(verdicts: Sequence[str]) -> str:
    """As in "Of the 19 claims, 10 are supported, 8 not detected, 1 contradicted." """
    counts = pd.Series(list(verdicts)).value_counts()
    (first, most), *others = counts.items()
    items = [f"{most} {'is' if most == 1 else 'are'} {first}", *(f"{n} {v}" for v, n in others)]
    return f"Of the {len(verdicts)} claims, {', '.join(items)}."
