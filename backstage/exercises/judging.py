"""Runs an answer on an exercise's inputs, and compares what two answers show."""

import contextlib
import copy
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from backstage.exercises.inputs import Unfit, finished

WRITTEN = "what was given to the function"  # watched in every exercise, after all else
ERROR = "the error"


@dataclass(frozen=True, eq=False)
class Trial:
    """What an exercise is tried on, and what is looked at."""

    make_cases: Callable[[], list[dict]]  # the arguments, the smallest first
    observe: Callable[..., Iterable[tuple[str, object]]]  # (answer, **case) -> what, value

    @cached_property
    def cases(self) -> list[dict]:
        return self.make_cases()

    def shown(self, answer) -> list["Seen"]:
        """What an answer shows, case by case, up to the one in which it raises."""
        found = []
        for k in range(len(self.cases)):
            found.append(self.seen(answer, k))
            if found[-1].error is not None:
                break
        return found

    def seen(self, answer, k: int) -> "Seen":
        """What it shows in case k."""
        case, seen = copy.deepcopy(self.cases[k]), Seen()
        torch.default_generator.manual_seed(0)  # the CPU's alone, which is put back
        trained = any(isinstance(v, Tensor) and v.dtype == torch.float32 for v in leaves(case))
        torch.set_default_dtype(torch.float32 if trained else torch.float64)
        try:
            with torch.enable_grad():  # an answer that switches gradients off spoils no other case
                for what, value in self.observe(answer, **case):
                    seen.values[what] = plain(value)
        except Exception as error:
            seen.error = error
        changed = [name for name, was in self.cases[k].items() if not unchanged(was, case[name])]
        seen.values[WRITTEN] = f"{', '.join(changed)} changed" if changed else "as it was"
        return seen


@dataclass
class Seen:
    """What an answer showed in one case; where it raised, that is not all."""

    values: dict = field(default_factory=dict)
    error: Exception | None = None


@contextlib.contextmanager
def on_our_own() -> Iterator[None]:
    """Random numbers, default dtype and device and the threads are put back; one is fastest.

    Warnings are not shown: they would be about inputs that nobody chose.
    """
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.device("cpu"), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.set_default_dtype(torch.float64)
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


def leaves(value) -> Iterator:
    """All that is in it, one by one."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


def unchanged(before, after) -> bool:
    """Whether an argument still has its values; not asked of models, which may be trained."""
    both = itertools.zip_longest(leaves(before), leaves(after))
    return all(isinstance(a, nn.Module) or a is b or same(a, b) for a, b in both)


def plain(value):
    """A number or tensor as a float64 tensor; a text as it is."""
    if isinstance(value, str | bool):
        return {True: "yes", False: "no"}.get(value, value)
    try:
        return _numbers(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Unfit(f"there is a {type(value).__name__} where numbers are due.") from error


def _numbers(value) -> Tensor:
    """A tensor; of a list, with its items one by one, about which torch would warn."""
    if isinstance(finished(value), Iterator | tuple | list):
        return torch.stack([_numbers(item) for item in value])
    if isinstance(value, np.ndarray):
        value = value.copy()
    return torch.as_tensor(value).detach().double().clone()


def same(a, b) -> bool:
    """Equal but for rounding, in float32 too; one number may come in brackets."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return isinstance(a, str) and a == b
    a, b = (v.double().squeeze() if v.numel() == 1 else v.double() for v in (a, b))
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


def alike(a: Exception | None, b: Exception | None) -> bool:
    """Whether two errors say the same: a + b and b + a do, in any dimension."""
    one, other = (re.sub(r"dimension \d+", "", repr(error)) for error in (a, b))
    return sorted(re.findall(r"\w+", one)) == sorted(re.findall(r"\w+", other))


def differing(one: Seen, other: Seen, equal=same) -> Iterator[str]:
    """What differs in a case. What only one has got to is a matter of its error."""
    for what, value in one.values.items():
        if what in other.values and not equal(value, other.values[what]):
            yield what
    raised = one.error is not None and len(one.values) != len(other.values)
    if raised or not alike(one.error, other.error):
        yield ERROR


def differences(found: list[Seen], wanted: list[Seen]) -> dict[str, int]:
    """What differs, in the order of looking, with the first case that shows it."""
    differ = {}
    for k, (one, other) in enumerate(zip(found, wanted, strict=False)):
        for what in differing(one, other):
            differ.setdefault(what, k)
    order = [*labels(wanted), *labels(found), WRITTEN, ERROR]
    return {what: differ[what] for what in sorted(differ, key=order.index)}


def labels(shown: list[Seen]) -> list[str]:
    """What was looked at, in this order."""
    found = dict.fromkeys(itertools.chain(*(seen.values for seen in shown)))
    return [what for what in found if what != WRITTEN]
