"""Compares an answer with PyTorch's, and where they differ, with the known mistakes.

An exercise has a *recipe* that makes implementations out of steps. With its own steps it is right;
a known mistake replaces one of them. So two mistakes at once are an implementation as well.
"""

import contextlib
import copy
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from exercises import guard

SECONDS = 10  # for a learner's code, which takes some milliseconds
RIGHT, MISTAKE, WRONG = "right", "known mistake", "wrong"
NOT_YET, RAISED, STOPPED = "not yet", "raised", "stopped"


class NotYet(Exception):
    """A part that the learner has still to write."""


class Unfit(Exception):
    """An answer of the wrong kind, such as two values where three are due: a sentence."""


@dataclass(frozen=True, eq=False)
class Mistake:
    """One that people make: what it looks like, where to look, and the steps it replaces."""

    name: str  # goes on after "This looks like"
    advice: str  # one sentence
    change: dict[str, object]


@dataclass(frozen=True, eq=False)
class Exercise:
    """What is asked, how it is observed, and what goes wrong."""

    name: str
    oracle: object  # PyTorch's answer
    recipe: Callable[..., object]  # (**steps) -> an answer
    mistakes: tuple[Mistake, ...]  # those that matter most first
    cases: Callable[[], list[dict]]  # inputs, the smallest first
    observe: Callable[..., Iterable[tuple[str, object]]]  # (answer, **case) -> what, value

    @cached_property
    def inputs(self) -> list[dict]:
        return self.cases()

    @cached_property
    def expected(self) -> list[dict]:
        """What the oracle shows, for each case."""
        watched = watch(self, self.oracle)
        if watched.error is not None:
            raise watched.error
        return watched.seen

    @cached_property
    def _shown(self) -> dict:
        return {}

    def _spoils(self, mistake: Mistake, what: str) -> bool:
        pairs = zip(self.shown(mistake).seen, self.expected, strict=False)
        return any(not same(seen.get(what), wanted[what]) for seen, wanted in pairs)

    def shown(self, *mistakes: Mistake) -> "Watched":
        """What an answer with these mistakes shows; run once."""
        if mistakes not in self._shown:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they are not the learner's
                self._shown[mistakes] = watch(self, self.flawed(*mistakes))
        return self._shown[mistakes]

    def flawed(self, *mistakes: Mistake) -> object:
        """An answer with these mistakes."""
        changes = {}
        for mistake in mistakes:
            changes |= mistake.change
        return self.recipe(**changes)

    def pairs(self, what: str = "") -> Iterator[tuple[Mistake, Mistake]]:
        """Two mistakes at once, which replace different steps.

        Only those that make ``what`` wrong by themselves, if it is given: both first, then either.
        """
        both = itertools.combinations(self.mistakes, 2)
        apart = [(a, b) for a, b in both if not a.change.keys() & b.change.keys()]
        if not what:
            return iter(apart)
        spoils = {m: self._spoils(m, what) for m in self.mistakes}
        some = [pair for pair in apart if spoils[pair[0]] or spoils[pair[1]]]
        return iter(sorted(some, key=lambda pair: -spoils[pair[0]] - spoils[pair[1]]))

    def _spoils(self, mistake: Mistake, what: str) -> bool:
        pairs = zip(self.shown(mistake).seen, self.expected, strict=False)
        return any(not same(seen.get(what), wanted[what]) for seen, wanted in pairs)

    def shown(self, *mistakes: Mistake) -> "Watched":
        """What an answer with these mistakes shows; run once."""
        if mistakes not in self._shown:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they are not the learner's
                self._shown[mistakes] = watch(self, self.flawed(*mistakes))
        return self._shown[mistakes]

    def flawed(self, *mistakes: Mistake) -> object:
        """An answer with these mistakes."""
        changes = {}
        for mistake in mistakes:
            changes |= mistake.change
        return self.recipe(**changes)

    def pairs(self, what: str = "") -> Iterator[tuple[Mistake, Mistake]]:
        """Two mistakes at once, which replace different steps; both make ``what`` wrong, if given.

        Where only one of two did that, it would have been found by itself.
        """
        apart = [m for m in self.mistakes if not what or self._spoils(m, what)]
        both = itertools.combinations(apart, 2)
        return ((a, b) for a, b in both if not a.change.keys() & b.change.keys())


@dataclass(frozen=True)
class Verdict:
    """What `judge` found; the text is for the learner."""

    kind: str
    text: str
    mistake: str = ""


@dataclass
class Watched:
    """What an answer showed, case by case; where it raised, the last case is incomplete."""

    seen: list[dict]
    error: BaseException | None = None


def finished(value):
    """The value, unless there is none yet."""
    if value is None or value is Ellipsis:
        raise NotYet
    return value


def parts(value, *names: str) -> Iterator[tuple[str, object]]:
    """The values that were returned together, each with its name."""
    if not isinstance(finished(value), tuple | list) or len(value) != len(names):
        count = len(value) if isinstance(value, tuple | list) else "one value"
        raise Unfit(f"return {len(names)} values, {', '.join(names)}; there is {count}.")
    return zip(names, value, strict=True)


def watch(exercise: Exercise, answer) -> Watched:
    """Runs the answer on every case, in float64 where it does not say otherwise."""
    watched = Watched([])
    for case in exercise.inputs:
        watched.seen.append({})
        try:
            for what, value in exercise.observe(answer, **_copied(case)):
                watched.seen[-1][what] = plain(value)
        except (Exception, SystemExit) as error:
            watched.error = NotYet() if isinstance(error, NotImplementedError) else error
            break
        except guard.Stopped as error:
            watched.error = error
            break
    return watched


def _copied(case: dict) -> dict:
    """A learner's code may write into its inputs."""
    return {k: v.clone() if isinstance(v, Tensor) else copy.deepcopy(v) for k, v in case.items()}


def plain(value):
    """A number or tensor as a float64 tensor without dimensions of size 1; a text as it is."""
    if isinstance(finished(value), str):
        return value
    if isinstance(value, tuple | list) and not len(value):
        return "nothing"
    try:
        return torch.as_tensor(value).detach().double().squeeze().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise Unfit(f"there is a {type(value).__name__} where numbers are due.") from error


def same(a, b) -> bool:
    """Equal but for rounding, in float32 too."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return isinstance(a, str) and a == b
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


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
    for what in _labels(exercise.expected):
        for k, (seen, wanted) in enumerate(zip(watched.seen, exercise.expected, strict=False)):
            if what in wanted and what in seen and not same(seen[what], wanted[what]):
                return what, k
    return None


def _labels(seen: list[dict]) -> list[str]:
    return list(dict.fromkeys(what for case in seen for what in case))


def diagnose(exercise: Exercise, watched: Watched, what: str) -> tuple[Mistake, ...]:
    """The known mistake, or two of them at once, that shows the same up to the first wrong thing.

    Of several, the one that agrees in most of what comes after; () for none.
    """
    labels = _labels(exercise.expected)
    upto = labels[: labels.index(what) + 1]
    singles = [(mistake,) for mistake in exercise.mistakes]
    fits = {}
    for mistakes in itertools.chain(singles, exercise.pairs(what)):
        if fits and len(mistakes) > len(next(iter(fits))):
            break  # one explains it
        theirs = exercise.shown(*mistakes)
        if theirs.error is None and _agreeing(watched, theirs, upto) == 1:
            fits[mistakes] = _agreeing(watched, theirs, labels)
    return max(fits, key=fits.get, default=())


def _agreeing(a: Watched, b: Watched, labels: list[str]) -> float:
    """The share of what two answers show in which they are the same."""
    agree = [
        same(one.get(what), other.get(what))
        for one, other in zip(a.seen, b.seen, strict=True)
        for what in labels
        if what in one or what in other
    ]
    return sum(agree) / len(agree)


def _right(exercise: Exercise) -> Verdict:
    checked = ", ".join(_labels(exercise.expected))
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
    labels = _labels(exercise.expected)
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
    if found.shape != wanted.shape:
        return f"has shape {tuple(found.shape)}, not {tuple(wanted.shape)} (sizes of 1 left out)"
    if not found.isfinite().all():
        return "has values that are no numbers: is something divided by 0?"
    if not same(wanted, torch.zeros_like(wanted)):
        factor = (found * wanted).sum() / wanted.square().sum()
        if same(found, factor * wanted):
            return f"is {factor:.3f} times what it should be, everywhere"
    shift = (found - wanted).mean()
    return f"is off by {shift:+.3f} everywhere" if same(found, wanted + shift) else "differs"


def _example(exercise: Exercise, watched: Watched, what: str, k: int) -> str:
    found, wanted = watched.seen[k][what], exercise.expected[k][what]
    given = described(exercise.inputs[k])
    if not (isinstance(found, Tensor) and isinstance(wanted, Tensor)):
        return f"For {given}, {what}: expected {_short(wanted)}, found {_short(found)}."
    if found.shape != wanted.shape:
        return f"For {given}, {what}: expected shape {tuple(wanted.shape)}, found {_short(found)}."
    gap = (found - wanted).abs().nan_to_num(torch.inf, torch.inf)
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
