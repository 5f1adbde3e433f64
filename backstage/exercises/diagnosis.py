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
from backstage.exercises.inputs import Trial
from backstage.exercises.judging import (
    ERROR,
    WRITTEN,
    Shown,
    differences,
    same,
    shown_quietly,
    watch,
)
from backstage.exercises.texts import Edits, Mistake

TRIALS: dict[str, Trial] = norms.TRIALS | layer.TRIALS | training.TRIALS | comparing.TRIALS
SCOPE = {"torch": torch, "nn": nn, "F": F, "np": np, "stats": stats, "copy": copy, "math": math}


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
    return text and made(text, f"<{name}>", task.defined)


def made(text: str, file: str, defined: str):
    """The function or class of this name, by running the text; Python can show its source."""
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    scope = dict(SCOPE)
    exec(compile(text, file, "exec"), scope)
    return scope[defined]


@cache
def expected(name: str) -> Shown:
    found = shown_quietly(TRIALS[name], TRIALS[name].oracle)
    if found.error is not None:
        raise found.error
    return found


@cache
def shown_by(name: str, *flaws: Flaw) -> Shown:
    return shown_quietly(TRIALS[name], answer(name, *flaws))


@cache
def flaws(name: str) -> tuple[Flaw, ...]:
    """All spellings of all known mistakes that make a difference to this solution."""
    found = [Flaw(m, edits) for m in texts.known_mistakes(name) for edits in m.spellings]
    return tuple(flaw for flaw in found if _matters(name, flaw))


def _matters(name: str, flaw: Flaw) -> bool:
    if answer(name, flaw) is None or isinstance(shown_by(name, flaw).error, NameError):
        return False
    return bool(differences(shown_by(name, flaw), expected(name)))


def diagnose(name: str, found: Shown) -> Found | None:
    """One mistake that shows all of it, or two together, or one that shows what differs first."""
    left = {flaw: differences(found, shown_by(name, flaw)) for flaw in flaws(name)}
    for flaw, differ in left.items():
        if not differ.keys() - {WRITTEN}:
            return Found((flaw.mistake,), more=bool(differ))
    if general := _exchanged(name, found) or _ones_left(name, found):
        return Found((general,))
    first = next(iter(differences(found, expected(name))))
    labels = [*expected(name).labels, ERROR]
    upto = set(labels[: labels.index(first) + 1])
    begins = [flaw for flaw, differ in left.items() if not upto & differ.keys()
              and (ERROR not in differ or shown_by(name, flaw).error is None)]  # fmt: skip
    begins.sort(key=lambda flaw: len(left[flaw]))
    for pair in _pairs(name, first, begins):
        if _shows(name, pair, found):
            return Found(tuple(flaw.mistake for flaw in pair))
    if begins and _says_much(found, first):
        return Found((begins[0].mistake,), more=True)
    return None


def _pairs(name: str, first: str, begins: list[Flaw]):
    """Two mistakes at once: the one that begins as the answer does and another, or two of which
    each spoils what differs first."""
    others = flaws(name)
    if not begins:
        begins = [f for f in others if first in differences(shown_by(name, f), expected(name))]
        others = begins
    for one, other in itertools.product(begins, others):
        if one.mistake.name != other.mistake.name:
            yield one, other


def _shows(name: str, pair: tuple[Flaw, ...], found: Shown) -> bool:
    """Whether these mistakes together show the same; most differ in the first value seen."""
    both = answer(name, *pair)
    if both is None:
        return False
    last = len(found.cases) - (2 if found.error is not None else 1)
    try:
        for k, what, value in watch(TRIALS[name], both, only=max(last, 0)):
            if not same(value, found.cases[k].get(what)) and what != WRITTEN:
                return False
    except Exception:
        if found.error is None:
            return False
    return not differences(found, shown_by(name, *pair)).keys() - {WRITTEN}


def _says_much(found: Shown, what: str) -> bool:
    """Whether a value is of so many numbers that two answers don't agree in it by chance."""
    values = [case[what] for case in found.cases if what in case]
    return sum(v.numel() for v in values if isinstance(v, torch.Tensor)) >= 8


# ------------------------------------------------------------------- of any exercise's answer


def _exchanged(name: str, found: Shown) -> Mistake | None:
    """Two things, each of which shows what the other should, and nothing else that is wrong."""
    wanted = expected(name)
    if len(differ := differences(found, wanted).keys() - {WRITTEN}) != 2:
        return None
    a, b = (what for what in wanted.labels if what in differ)
    for one, other in zip(found.cases, wanted.cases, strict=False):
        if not (same(one.get(a), other.get(b)) and same(one.get(b), other.get(a))):
            return None
    return Mistake(f"{a} and {b} exchanged", "Each is what the other should be.", ())


def _ones_left(name: str, found: Shown) -> Mistake | None:
    """Whether all that is wrong are dimensions of 1 that should have disappeared."""
    wanted = expected(name)
    for what in differences(found, wanted).keys() - {WRITTEN}:
        for one, other in zip(found.cases, wanted.cases, strict=False):
            a, b = one.get(what), other.get(what)
            tensors = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
            if not tensors or not same(a.squeeze(), b.squeeze()):
                return None
    advice = (
        "The numbers are right, but keepdim=True leaves dimensions of 1 where means were taken."
    )
    return Mistake("dimensions of 1 left over", advice, ())
