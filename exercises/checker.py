"""Compares an answer with PyTorch's, and where they differ, with the known mistakes.

A diagnosis is a computation: the known mistakes are run on the same inputs.
"""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from exercises import guard
from exercises.exercise import Exercise, Mistake, NotYet, Unfit, Watched, copied, plain, same, watch

SECONDS = 10  # for a learner's code, which takes some milliseconds
RIGHT, MISTAKE, WRONG = "right", "known mistake", "wrong"
NOT_YET, RAISED, STOPPED = "not yet", "raised", "stopped"


@dataclass(frozen=True)
class Verdict:
    """What `judge` found; the text is for the learner."""

    kind: str
    text: str
    mistake: str = ""


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """New tensors are float64; one thread, from which tensors this small gain most.

    The random numbers drawn here leave those outside as they were.
    """
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


def judge(exercise: Exercise, answer, seconds: float = SECONDS) -> Verdict:
    """Whether the answer is right, and otherwise what is wrong with it."""
    with in_float64():
        if answer is None or answer is Ellipsis:
            return _not_yet(exercise, Watched([{}]))
        assert exercise.expected  # now: what torch imports at first use is not the learner's time
        watched = Watched([{}])
        try:
            watched = guard.within(seconds, lambda: watch(exercise, answer))
        except guard.Stopped as error:  # it could not be stopped, and is left behind
            watched.error = error
        if isinstance(watched.error, guard.Stopped):
            return _stopped(exercise, watched, seconds)
        if isinstance(watched.error, NotYet):
            return _not_yet(exercise, watched)
        if watched.error is not None:
            return _raised(exercise, watched)
        wrong = first_wrong(exercise, watched)
        return _right(exercise) if wrong is None else _wrong(exercise, watched, *wrong)


def first_wrong(exercise: Exercise, watched: Watched) -> tuple[str, int] | None:
    """The first thing that differs from the oracle, and the smallest case that shows it."""
    for what in labels_of(exercise.expected):
        for k, (seen, wanted) in enumerate(zip(watched.seen, exercise.expected, strict=False)):
            if what in wanted and what in seen and not same(seen[what], wanted[what]):
                return what, k
    return None


def labels_of(seen: list[dict]) -> list[str]:
    return list(dict.fromkeys(what for case in seen for what in case))


def diagnose(exercise: Exercise, watched: Watched, what: str) -> tuple[Mistake, ...]:
    """The known mistake, or two of them at once, that shows the same up to the first wrong thing.

    Of several, the one that agrees in most of what comes after; () for none.
    """
    labels = labels_of(exercise.expected)
    upto = labels[: labels.index(what) + 1]
    singles = [(mistake,) for mistake in exercise.mistakes]
    fits = {}
    for mistakes in itertools.chain(singles, exercise.pairs(what)):
        if len(mistakes) == 2:
            if fits and len(next(iter(fits))) == 1:
                break  # one explains it
            if not _begins_alike(exercise, exercise.flawed(*mistakes), watched.seen[-1], what):
                continue  # most are seen to differ at once
        theirs = exercise.shown(*mistakes)
        if theirs.error is None and _agreeing(watched, theirs, upto) == 1:
            fits[mistakes] = _agreeing(watched, theirs, labels)
    return max(fits, key=fits.get, default=())


def _begins_alike(exercise: Exercise, answer, seen: dict, what: str) -> bool:
    """Whether an answer shows what was seen in the last case, up to ``what``."""
    try:
        for label, value in exercise.observe(answer, **copied(exercise.inputs[-1])):
            if not same(plain(value), seen.get(label)):
                return False
            if label == what:
                break
    except Exception:  # whatever two mistakes lead to; the learner's answer did not raise
        return False
    return True


def _agreeing(a: Watched, b: Watched, labels: list[str]) -> float:
    """The share of what two answers show in which they are the same."""
    agree = [
        same(one.get(what), other.get(what))
        for one, other in zip(a.seen, b.seen, strict=True)
        for what in labels
        if what in one or what in other
    ]
    return sum(agree) / len(agree)


# -------------------------------------------------------------------- what is said


def _right(exercise: Exercise) -> Verdict:
    checked = ", ".join(labels_of(exercise.expected))
    cases = len(exercise.expected)
    return Verdict(RIGHT, f"✓ {exercise.name}: right. Checked on {cases} inputs: {checked}.")


def _wrong(exercise: Exercise, watched: Watched, what: str, k: int) -> Verdict:
    example = f"  {_example(exercise, watched, what, k)}"
    found = diagnose(exercise, watched, what)
    if found:
        text = f"✗ {exercise.name}: this looks like {found[0].name}. {found[0].advice}"
        if len(found) > 1:
            text += " Something else is wrong as well, but mend this first."
        return Verdict(MISTAKE, f"{text}\n{example}", found[0].name)
    labels = labels_of(exercise.expected)
    before = labels[: labels.index(what)]
    known = f"{_listed(before)} right, but " if before else ""
    said = f"{known}{what} {_pattern(watched.seen[k][what], exercise.expected[k][what])}."
    text = f"✗ {exercise.name}: not right yet, and none of the mistakes known here. "
    text += said[0].upper() + said[1:]
    return Verdict(WRONG, f"{text}\n{example}")


def _listed(names: list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last} are" if most else f"{last} is"


def _pattern(found, wanted) -> str:
    """How a wrong value differs: by its kind, its shape, a factor, a difference, or somehow."""
    if not (isinstance(found, Tensor) and isinstance(wanted, Tensor)):
        return "differs"
    if not _fits(found, wanted):
        return f"has shape {tuple(found.shape)}, not {tuple(wanted.shape)}"
    found = found.reshape(wanted.shape)
    if not found.isfinite().all():
        return "has values that are no numbers, as from a division by 0"
    if wanted.numel() == 1:
        return "differs"
    if not same(wanted, torch.zeros_like(wanted)):
        factor = (found * wanted).sum() / wanted.square().sum()
        if same(found, factor * wanted):
            return f"is {factor:.3f} times what it should be, everywhere"
    shift = (found - wanted).mean()
    return f"is off by {shift:+.3f} everywhere" if same(found, wanted + shift) else "differs"


def _fits(found: Tensor, wanted: Tensor) -> bool:
    return found.squeeze().shape == wanted.squeeze().shape


def _example(exercise: Exercise, watched: Watched, what: str, k: int) -> str:
    found, wanted = watched.seen[k][what], exercise.expected[k][what]
    given = described(exercise.inputs[k])
    if not (isinstance(found, Tensor) and isinstance(wanted, Tensor)):
        return f"For {given}, {what}: expected {_short(wanted)}, found {_short(found)}."
    if not _fits(found, wanted):
        return f"For {given}, {what}: expected {_short(wanted)}, found {_short(found)}."
    gap = (found.reshape(wanted.shape) - wanted).abs().nan_to_num(torch.inf, torch.inf)
    i = int(gap.argmax())
    place = [int(d) for d in np.unravel_index(i, wanted.shape)]
    at = f" at {place}" if place else ""
    expected, shown = wanted.flatten()[i].item(), found.flatten()[i].item()
    return f"For {given}, {what}{at}: expected {expected:.3f}, found {shown:.3f}."


def _short(value) -> str:
    return f"one of shape {tuple(value.shape)}" if isinstance(value, Tensor) else str(value)


def described(case: dict) -> str:
    """The inputs in words: small tensors by their values, others by their shape."""
    return ", ".join(_described(name, value) for name, value in case.items())


def _described(name: str, value) -> str:
    if isinstance(value, Tensor):
        few = value.numel() <= 6
        return f"{name} = {_list(value)}" if few else f"{name} of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"{name} of shape {value.shape}"
    if isinstance(value, list) and value and isinstance(value[0], Tensor):
        return f"{name} of shapes {', '.join(str(tuple(v.shape)) for v in value)}"
    if isinstance(value, torch.nn.Module):
        return f"a small {type(value).__name__} as {name}"
    return f"{name} = {value}" if isinstance(value, int | float | list | str) else name


def _list(value: Tensor) -> str:
    return str([round(v, 3) for v in value.flatten().tolist()]) if value.ndim < 2 else (
        f"{[round(v, 3) for v in value.flatten().tolist()]} of shape {tuple(value.shape)}"
    )  # fmt: skip


def _not_yet(exercise: Exercise, watched: Watched) -> Verdict:
    text = f"… {exercise.name}: not yet."
    if watched.seen and watched.seen[0]:
        good = first_wrong(exercise, watched) is None
        done = list(watched.seen[0])
        text += f" {_listed(done)} right; go on." if good else f" {_listed(done)} there; go on."
    else:
        text += " Write it above and run the cell again; there are three hints."
    return Verdict(NOT_YET, text)


def _raised(exercise: Exercise, watched: Watched) -> Verdict:
    error, given = watched.error, described(exercise.inputs[len(watched.seen) - 1])
    if isinstance(error, Unfit):
        return Verdict(WRONG, f"✗ {exercise.name}: {error} It was called with {given}.")
    shown = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    text = f"✗ {exercise.name}: your code raised {shown}"
    if line := guard.where(error):
        text += f"\n  in {line}"
    text += f"\n  when it was called with {given}."
    for mistake in exercise.mistakes:  # one that raises the same
        theirs = exercise.shown(mistake)
        if repr(theirs.error) == repr(error) and len(theirs.seen) == len(watched.seen):
            return Verdict(RAISED, f"{text}\n  This looks like {mistake.name}. {mistake.advice}",
                           mistake.name)  # fmt: skip
    return Verdict(RAISED, text)


def _stopped(exercise: Exercise, watched: Watched, seconds: float) -> Verdict:
    line = guard.where(watched.error)
    given = described(exercise.inputs[max(len(watched.seen) - 1, 0)])
    text = f"✗ {exercise.name}: stopped after {seconds:g} seconds"
    text += f", in {line}" if line else ""
    return Verdict(STOPPED, f"{text}.\n  Is there a loop that never ends? It was given {given}.")
