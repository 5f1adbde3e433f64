"""Compares an answer with PyTorch's, and where they differ, with the known mistakes.

A diagnosis is a computation: the known mistakes are run on the same inputs.
"""

import contextlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from backstage.exercises import guard, words
from backstage.exercises.exercise import (
    Exercise,
    Mistake,
    NotYet,
    Unfit,
    Watched,
    copied,
    plain,
    same,
    watch,
)

SECONDS = 10  # for a learner's code, which takes some milliseconds
RIGHT, MISTAKE, WRONG = "right", "known mistake", "wrong"
NOT_YET, RAISED, STOPPED = "not yet", "raised", "stopped"
WRITES = "an argument that is written into"


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
        if wrong is not None:
            return _wrong(exercise, watched, *wrong)
        return _writes(exercise, watched.written) if watched.written else _right(exercise)


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
        with torch.enable_grad():  # as some mistakes switch gradients off
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


def _writes(exercise: Exercise, name: str) -> Verdict:
    text = f"✗ {exercise.name}: what comes back is right, but {name} is no longer what it was. "
    text += "It belongs to the caller: work on new tensors, not in place (+=, sort(), mul_ …)."
    return Verdict(MISTAKE, text, WRITES)


def _wrong(exercise: Exercise, watched: Watched, what: str, k: int) -> Verdict:
    example = f"  {words.example(exercise, watched, what, k)}"
    found = diagnose(exercise, watched, what)
    if found:
        text = f"✗ {exercise.name}: this looks like {found[0].name}. {found[0].advice}"
        if len(found) > 1:
            text += " Something else is wrong as well, but mend this first."
        return Verdict(MISTAKE, f"{text}\n{example}", found[0].name)
    labels = labels_of(exercise.expected)
    before = labels[: labels.index(what)]
    known = f"{words.listed(before)} right, but " if before else ""
    if len(before) > 4:
        known = f"the first {len(before)} things that are checked are right, but "
    said = f"{known}{what} {words.pattern(exercise, watched, what, k)}."
    text = f"✗ {exercise.name}: not right yet, and none of the mistakes known here. "
    text += words.sentence(said)
    if watched.written:
        text += f" It also writes into {watched.written}, which may be why."
    return Verdict(WRONG, f"{text}\n{example}")


def _not_yet(exercise: Exercise, watched: Watched) -> Verdict:
    text = f"… {exercise.name}: not yet."
    if watched.seen and watched.seen[0]:
        good = first_wrong(exercise, watched) is None
        done = list(watched.seen[0])
        text += (
            f" {words.listed(done)} right; go on."
            if good
            else f" {words.listed(done)} there; go on."
        )
    else:
        text += " Write it above and run the cell again; there are three hints."
    return Verdict(NOT_YET, text)


def _raised(exercise: Exercise, watched: Watched) -> Verdict:
    error, given = watched.error, words.described(exercise.inputs[len(watched.seen) - 1])
    if isinstance(error, Unfit):
        return Verdict(WRONG, f"✗ {exercise.name}: {error} It was called with {given}.")
    shown = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    text = f"✗ {exercise.name}: your code raised {shown}"
    if line := guard.where(error):
        text += f"\n  in {line}"
    text += f"\n  when it was called with {given}."
    if mistake := _raising(exercise, watched):
        text += f"\n  This looks like {mistake.name}. {mistake.advice}"
    return Verdict(RAISED, text, mistake.name if mistake else "")


def _raising(exercise: Exercise, watched: Watched) -> Mistake | None:
    """The mistake that raises the same error, if what came before agrees or no other does so."""
    alike = [m for m in exercise.mistakes if _fails_alike(watched, exercise.shown(m))]
    agreeing = [m for m in alike if _showed_alike(watched, exercise.shown(m))]
    if agreeing:
        return agreeing[0]
    return alike[0] if len(alike) == 1 else None


def _fails_alike(a: Watched, b: Watched) -> bool:
    """Whether two answers raise the same in the same case, a + b or b + a."""
    messages = [re.sub(r"dimension \d+", "", repr(w.error)) for w in (a, b)]
    one, other = (sorted(re.findall(r"\w+", message)) for message in messages)
    return one == other and len(a.seen) == len(b.seen)


def _showed_alike(a: Watched, b: Watched) -> bool:
    return all(
        same(one.get(what), value)
        for one, other in zip(a.seen, b.seen, strict=True)
        for what, value in other.items()
    )


def _stopped(exercise: Exercise, watched: Watched, seconds: float) -> Verdict:
    line = guard.where(watched.error)
    given = words.described(exercise.inputs[max(len(watched.seen) - 1, 0)])
    text = f"✗ {exercise.name}: stopped after {seconds:g} seconds"
    text += f", in {line}" if line else ""
    return Verdict(STOPPED, f"{text}.\n  Is there a loop that never ends? It was given {given}.")
