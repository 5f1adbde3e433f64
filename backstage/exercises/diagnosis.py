"""Finds the known mistake, or two of them, that shows what an answer shows."""

import copy
import itertools
import linecache
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from backstage.exercises import comparing, layer, norms, texts, training
from backstage.exercises.judging import (
    ERROR,
    WRITTEN,
    Seen,
    Trial,
    differences,
    differing,
    labels,  # fmt: skip
    same,
)
from backstage.exercises.texts import Edits, Mistake

TRIALS: dict[str, Trial] = norms.TRIALS | layer.TRIALS | training.TRIALS | comparing.TRIALS
SCOPE = {"torch": torch, "nn": nn, "F": F, "np": np, "stats": stats, "copy": copy, "math": math}
PAIRS = 300  # that are tried, the likely ones first: no answer is worth more than a second


@dataclass(frozen=True)
class Flaw:
    """One spelling of a known mistake."""

    mistake: Mistake
    edits: Edits


@dataclass(frozen=True)
class Found:
    """What an answer looks like."""

    mistakes: tuple[Mistake, ...]
    more: bool = False  # whether there must be something else as well


@cache
def answer(name: str, *flaws: Flaw):
    """The right answer with these mistakes in it; None where they can't be made together."""
    task = texts.tasks()[name]
    text = texts.source(task)
    for flaw in flaws:
        text = text and texts.edited(text, flaw.edits)
    try:
        return text and made(text, f"<{name}>", task.defined)
    except SyntaxError:
        return None


def made(text: str, file: str, defined: str):
    """The function or class of this name, by running the text; Python can show its source."""
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    scope = dict(SCOPE)
    exec(compile(text, file, "exec"), scope)
    return scope[defined]


@cache
def seen_by(name: str, k: int, *flaws: Flaw) -> Seen:
    """What the answer with these mistakes shows in case k."""
    return TRIALS[name].seen(answer(name, *flaws), k)


@cache
def flaws(name: str) -> tuple[Flaw, ...]:
    """All spellings of all known mistakes that can be made in this solution."""
    found = [Flaw(m, edits) for m in texts.known_mistakes(name) for edits in m.spellings]
    return tuple(flaw for flaw in found if answer(name, flaw) is not None)


def diagnose(name: str, found: list[Seen]) -> Found | None:
    """One mistake that shows all of it, or two together, or one that shows what differs first."""
    first, k = next(iter(differences(found, TRIALS[name].expected).items()))
    cases = sorted(range(len(found)), key=lambda i: i != k)  # the telling one first

    def shows(*flaws: Flaw) -> bool:
        return answer(name, *flaws) is not None and all(
            set(differing(found[i], seen_by(name, i, *flaws))) <= {WRITTEN} for i in cases
        )

    for flaw in flaws(name):
        if shows(flaw):
            return Found((flaw.mistake,))
    if general := _general(name, found):
        return general
    begins = [flaw for flaw in flaws(name) if _begins(name, flaw, found, first)]
    for pair in _pairs(name, begins, first, k)[:PAIRS]:
        if shows(*pair):
            return Found(tuple(flaw.mistake for flaw in pair))
    numbers = [seen.values[first] for seen in found if first in seen.values]
    if begins and sum(v.numel() for v in numbers if isinstance(v, torch.Tensor)) >= 8:
        return Found((begins[0].mistake,), more=True)  # so many don't agree by chance
    return None


def _begins(name: str, flaw: Flaw, found: list[Seen], first: str) -> bool:
    """Whether a mistake shows the same as the answer up to what differs first."""
    order = [*labels(TRIALS[name].expected), ERROR]
    upto = {*order[: order.index(first) + 1], ERROR}
    for k, seen in enumerate(found):
        theirs = seen_by(name, k, flaw)
        raised = {ERROR} if theirs.error is None or seen.error is not None else set()
        if upto & set(differing(seen, theirs)) - raised:
            return False
    return True


def _pairs(name: str, begins: list[Flaw], first: str, k: int) -> list[tuple[Flaw, Flaw]]:
    """Two mistakes at once: one that begins as the answer does and another. If none does, those of
    which both spoil what differs first, then those of which one does; the likely ones first."""
    known, expected = flaws(name), TRIALS[name].expected[k]
    spoils = [first in differing(seen_by(name, k, flaw), expected) for flaw in known]
    pairs = [p for p in itertools.combinations(range(len(known)), 2) if any(spoils[i] for i in p)]
    pairs.sort(key=lambda p: (-spoils[p[0]] - spoils[p[1]], sum(p)))
    found = [(known[i], known[j]) for i, j in pairs if known[i].mistake != known[j].mistake]
    return [p for p in found if p[0] in begins or p[1] in begins] if begins else found


def _general(name: str, found: list[Seen]) -> Found | None:
    """What can go wrong in any exercise: two values exchanged, dimensions of 1 left over."""
    wanted = TRIALS[name].expected
    differ = [what for what in differences(found, wanted) if what not in (WRITTEN, ERROR)]
    both = [(x.values, y.values) for x, y in zip(found, wanted, strict=False)]
    raised = found[-1].error is not None
    if len(differ) == 2 and not raised:
        a, b = differ
        if all(same(x[a], y[b]) and same(x[b], y[a]) for x, y in both):
            return Found((Mistake(f"{a} and {b} exchanged", "Each should be the other.", ()),))
    values = [(x[what], y[what]) for x, y in both for what in differ if what in x]
    tensors = [pair for pair in values if isinstance(pair[0], torch.Tensor)]
    if tensors and all(same(x.squeeze(), y.squeeze()) for x, y in tensors):
        advice = "The numbers are right, but keepdim=True leaves dimensions of 1 in their shape."
        return Found((Mistake("dimensions of 1 left over", advice, ()),), more=raised)
    return None
