"""Finds the known mistake, or two of them, that shows what an answer shows."""

import copy
import itertools
import linecache
import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from backstage.exercises import comparing, layer, norms, texts, training
from backstage.exercises import slips as slipping
from backstage.exercises.judging import ERROR, WRITTEN, Seen, differences, differing, labels, same
from backstage.exercises.texts import Mistake

TRIALS = norms.TRIALS | layer.TRIALS | training.TRIALS | comparing.TRIALS
SCOPE = {"torch": torch, "nn": nn, "F": F, "np": np, "stats": stats, "copy": copy, "math": math}
PAIRS = 150  # that are tried, the likely ones first: no answer is worth more than a second


@dataclass(frozen=True)
class Found:
    """What an answer looks like, and whether there must be something else as well."""

    mistakes: tuple[Mistake, ...]
    more: bool = False


@cache
def answer(name: str, *flaws: Mistake):
    """The right answer with these mistakes in it; None where they can't be made together.

    Of each mistake the first spelling is taken.
    """
    task = texts.tasks()[name]
    text = texts.source(task)
    for flaw in flaws:
        text = text and texts.edited(text, flaw.spellings[0])
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
def seen_by(name: str, k: int, *flaws: Mistake) -> Seen:
    """What the answer with these mistakes shows in case k."""
    return TRIALS[name].seen(answer(name, *flaws), k)


@cache
def expected(name: str) -> list[Seen]:
    """What the solution shows, which the tests compare with PyTorch's answer."""
    return TRIALS[name].shown(answer(name))


@cache
def flaws(name: str) -> tuple[Mistake, ...]:
    """The known mistakes, once for each spelling that can be made in this solution."""
    found = [
        replace(m, spellings=(edits,)) for m in texts.known_mistakes(name) for edits in m.spellings
    ]
    return tuple(flaw for flaw in found if answer(name, flaw) is not None)


@cache
def slips(name: str) -> tuple[Mistake, ...]:
    """Parts of the known mistakes, and ordinary slips that nobody has listed."""
    listed = [m for m in flaws(name) if len(m.spellings[0]) > 1]
    found = [replace(m, name=f"{m.name}, in one place", spellings=((edit,),))
             for m in listed for edit in m.spellings[0]]  # fmt: skip
    advice = "With this change our solution shows the same; yours may be written otherwise."
    for old, new in slipping.slips(texts.source(texts.tasks()[name])):
        found.append(Mistake(f"`{new}` in place of `{old}`", advice, (((old, f"({new})"),),)))
    return tuple(slip for slip in found if answer(name, slip) is not None)


def diagnose(name: str, found: list[Seen]) -> Found | None:
    """One mistake that shows all of it, or two together, or one that shows what differs first."""
    differ = differences(found, expected(name))
    first, k = next(iter(differ.items()))
    if single := _single(name, found, k):
        return Found((single,))
    if exchanged := _exchanged(name, found, k):
        return exchanged
    if slip := next((slip for slip in slips(name) if _shows(name, found, k, slip)), None):
        return Found((slip,))
    for pair in _pairs(name, found, differ):
        if _shows(name, found, k, *pair):
            return Found(pair)
    order = [*labels(expected(name)), ERROR]
    upto = {*order[: order.index(first) + 1], ERROR}
    begins = (flaw for flaw in flaws(name) if _shows(name, found, k, flaw, upto=upto))
    numbers = [seen.values[first] for seen in found if first in seen.values]
    if sum(v.numel() for v in numbers if isinstance(v, Tensor)) < 8:
        return None  # so few may agree by chance
    return next((Found((flaw,), more=True) for flaw in begins), None)


def like(a, b) -> bool:
    """The same, where both are finite: what is divided by 0 depends on how it is written."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape):
        return same(a, b)
    finite = a.isfinite() & b.isfinite()
    return same(a[finite], b[finite]) if finite.any() else same(a, b)


def _single(name: str, found: list[Seen], k: int) -> Mistake | None:
    known = ((flaw, equal) for equal in (same, like) for flaw in flaws(name))
    return next((flaw for flaw, equal in known if _shows(name, found, k, flaw, equal=equal)), None)


def _shows(name: str, found: list[Seen], k: int, *flaws: Mistake, upto=frozenset(), equal=like):
    """Whether these mistakes show all that the answer shows, or what of it is in `upto`."""
    if answer(name, *flaws) is None:
        return False
    for i in sorted(range(len(found)), key=lambda i: i != k):  # the telling case first
        theirs = seen_by(name, i, *flaws)
        counts = (upto or set(theirs.values) | {ERROR}) - {WRITTEN}
        if upto and (theirs.error is None or found[i].error is not None):
            counts = counts - {ERROR}
        if any(what in counts for what in differing(found[i], theirs, equal)):
            return False
    return True


def _explains(name: str, found: list[Seen], k: int, flaw: Mistake, differ: dict[str, int]) -> bool:
    """Whether a mistake shows the same in case k, or else one of the values in every case."""
    left = differ.keys() - {WRITTEN, ERROR}
    for i in sorted(range(len(found)), key=lambda i: i != k):
        theirs = seen_by(name, i, flaw)
        apart = set(differing(found[i], theirs, like)) - {WRITTEN}
        if i == k and not apart:
            return True
        left -= apart
        if not left or (theirs.error is not None and found[i].error is None):
            return False
    return True


def _pairs(name: str, found: list[Seen], differ: dict[str, int]) -> list[tuple[Mistake, Mistake]]:
    """Two mistakes at once, the likely ones first: those that explain the smallest case that is
    wrong, or one of the values in every case; then those that spoil what differs."""
    first, k = next(iter(differ.items()))
    last = max(i for i in range(len(found)) if first in differing(found[i], expected(name)[i]))

    def likely(flaw: Mistake) -> int:
        explains = _explains(name, found, k, flaw, differ)
        if flaw not in flaws(name):
            return int(explains)  # a slip that nobody has listed
        spoilt = set(differing(seen_by(name, last, flaw), expected(name)[last])) & differ.keys()
        return 3 * explains + bool(spoilt) + (first in spoilt)

    ranks = {flaw: rank for flaw in flaws(name) + slips(name) if (rank := likely(flaw))}
    pairs = [p for p in itertools.combinations(ranks, 2) if p[0].name != p[1].name]
    pairs.sort(key=lambda p: -ranks[p[0]] - ranks[p[1]])
    return pairs[:PAIRS]


def _exchanged(name: str, found: list[Seen], k: int) -> Found | None:
    """Two values in each other's place, which puts one of them right, and what else is wrong."""
    wanted = expected(name)
    numbers = [what for what in differences(found, wanted)
               if not what.startswith("the gradient of ")
               and all(isinstance(seen.values.get(what), Tensor) for seen in found)]  # fmt: skip
    for a, b in itertools.combinations(numbers, 2):
        back = [Seen({**seen.values, a: seen.values[b], b: seen.values[a]}) for seen in found]
        rest = differences(back, wanted)
        if not {a, b} <= set(rest):
            both = [Mistake(f"{a} and {b} exchanged", "Each should be the other.", ())]
            both += filter(None, [rest and _single(name, back, k)])
            return Found(tuple(both), more=len(rest) > 0 and len(both) == 1)
    return None
