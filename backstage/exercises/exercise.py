"""What an exercise is: an oracle, a recipe of steps, the known mistakes, and how it is observed.

An exercise has a *recipe* that makes implementations out of steps. With its own steps it is right;
a known mistake replaces one of them. So two mistakes at once are an implementation as well.
"""

import copy
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from backstage.exercises import guard


class NotYet(Exception):
    """A part that the learner has still to write."""


class Nothing(NotYet):
    """A None, which is what comes back where there is no return."""


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


@dataclass
class Watched:
    """What an answer showed, case by case; where it raised, the last case is incomplete."""

    seen: list[dict]
    error: BaseException | None = None
    written: str = ""  # the argument that it wrote into


def finished(value):
    """The value, unless there is none yet."""
    if value is None:
        raise Nothing
    if value is Ellipsis:
        raise NotYet
    return value


def parts(value, *names: str) -> Iterator[tuple[str, object]]:
    """The values that were returned together, each with its name.

    A tuple, a list, an array with one value or row for each, or a generator.
    """
    if isinstance(finished(value), Tensor | np.ndarray) and np.ndim(value):
        value = list(value)
    elif isinstance(value, Iterator):
        value = list(value)
    if not isinstance(value, tuple | list) or len(value) != len(names):
        several = isinstance(value, tuple | list)
        found = f"{len(value)} came back" if several else "one value came back"
        raise Unfit(f"return {len(names)} values, {', '.join(names)}; {found}.")
    return zip(names, value, strict=True)


def watch(exercise: Exercise, answer) -> Watched:
    """Runs the answer on every case, in float64 where it does not say otherwise."""
    watched = Watched([])
    for case in exercise.inputs:
        watched.seen.append({})
        given = copied(case)
        try:
            with torch.enable_grad():  # an answer that switches gradients off spoils no other case
                for what, value in exercise.observe(answer, **given):
                    watched.seen[-1][what] = plain(value)
        except (Exception, SystemExit) as error:
            watched.error = _meant(error, answer)
            break
        except guard.Stopped as error:
            watched.error = error
            break
        written = (name for name, value in case.items() if not unchanged(value, given[name]))
        watched.written = watched.written or next(written, "")
    return watched


def _meant(error: BaseException, answer) -> BaseException:
    """What a learner's error stands for: torch raises NotImplementedError as well."""
    if isinstance(error, NotImplementedError) and guard.raised_by_learner(error):
        return NotYet()
    if isinstance(error, Nothing) and guard.is_written(answer):
        return Unfit("a None came back where a value is due: is a `return` missing?")
    return error


def copied(case: dict) -> dict:
    """A learner's code may write into its inputs."""
    return {k: v.clone() if isinstance(v, Tensor) else copy.deepcopy(v) for k, v in case.items()}


def unchanged(before, after) -> bool:
    """Whether an argument still has its values; not asked of models, which may be trained."""
    if isinstance(before, Tensor):
        return before.shape == after.shape and torch.equal(before, after.detach())
    if isinstance(before, np.ndarray):
        return np.array_equal(before, after)
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(unchanged, before, after))
    return isinstance(before, torch.nn.Module) or before == after


def plain(value):
    """A number or tensor as a float64 tensor; a text as it is."""
    if isinstance(finished(value), Iterator):
        value = list(value)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, str):
        return str(value)
    if isinstance(value, tuple | list) and not len(value):
        return "nothing"
    try:
        return _numbers(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Unfit(f"there is a {type(value).__name__} where numbers are due.") from error


def _numbers(value) -> Tensor:
    """A tensor; of a list, with its items one by one, about which torch would warn."""
    if isinstance(value, tuple | list):
        return torch.stack([_numbers(finished(item)) for item in value])
    if isinstance(value, np.ndarray):
        value = value.copy()
    return torch.as_tensor(value).detach().double().clone()


def same(a, b) -> bool:
    """Equal but for rounding, in float32 too, and for dimensions of size 1."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return isinstance(a, str) and a == b
    a, b = a.squeeze(), b.squeeze()
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
