"""Runs an answer on an exercise's inputs, and compares what two answers show."""

import contextlib
import copy
import itertools
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from backstage.exercises.inputs import NotYet, Trial, Unfit, finished

WRITTEN = "what was given to the function"  # watched in every exercise, after all else
ERROR = "the error"


@dataclass
class Shown:
    """What an answer showed, case by case; where it raised, the last case is incomplete."""

    cases: list[dict] = field(default_factory=list)
    error: Exception | None = None

    @property
    def labels(self) -> list[str]:
        """What was looked at, in this order."""
        return list(dict.fromkeys(itertools.chain(*self.cases)))


@contextlib.contextmanager
def on_our_own() -> Iterator[None]:
    """Random numbers, the default dtype and the threads are put back; one thread is fastest."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            torch.set_default_dtype(torch.float64)
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


def watch(trial: Trial, answer, only: int | None = None) -> Iterator[tuple[int, str, object]]:
    """(case, what, value) as the answer is tried, on one case or on all, the smallest first."""
    for k, case in enumerate(trial.cases()):
        if only not in (None, k):
            continue
        before = copy.deepcopy(case)
        torch.set_default_dtype(dtype_of(case))
        with torch.enable_grad():  # an answer that switches gradients off spoils no other case
            for what, value in trial.observe(answer, **case):
                yield k, what, plain(value)
        changed = [name for name in case if not unchanged(before[name], case[name])]
        yield k, WRITTEN, f"{', '.join(changed)} changed" if changed else "as it was"


def shown(trial: Trial, answer) -> Shown:
    """All that an answer shows."""
    found = Shown()
    found.cases.append({})
    try:
        for k, what, value in watch(trial, answer):
            while len(found.cases) <= k:
                found.cases.append({})
            found.cases[k][what] = value
            if what == WRITTEN and k + 1 < len(trial.cases()):
                found.cases.append({})
    except Exception as error:
        found.error = error
    return found


def shown_quietly(trial: Trial, answer) -> Shown:
    """The same of an answer that is not the learner's, whose warnings they need not see."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return shown(trial, answer)


def dtype_of(value) -> torch.dtype:
    """The floating-point type of the first tensor in it; float64 if there is none."""
    return next(_dtypes(value), torch.float64)


def _dtypes(value) -> Iterator[torch.dtype]:
    if isinstance(value, nn.Module):
        value = list(value.parameters())
    if isinstance(value, Tensor) and value.is_floating_point():
        yield value.dtype
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _dtypes(item)


def unchanged(before, after) -> bool:
    """Whether an argument still has its values; not asked of models, which may be trained."""
    if isinstance(before, Tensor):
        return before.shape == after.shape and torch.equal(before, after.detach())
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(unchanged, before, after))
    return isinstance(before, nn.Module) or before == after


# ---------------------------------------------------------------------------------- numbers


def plain(value):
    """A number or tensor as a float64 tensor; a text as it is."""
    if isinstance(finished(value), Iterator):
        value = list(value)
    if isinstance(value, str):
        return str(value)
    try:
        return _numbers(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Unfit(f"there is a {type(value).__name__} where numbers are due.") from error


def _numbers(value) -> Tensor:
    """A tensor; of a list, with its items one by one, about which torch would warn."""
    if isinstance(value, tuple | list):
        return torch.stack([_numbers(finished(item)) for item in value])
    if isinstance(value, np.ndarray | np.generic):
        value = np.array(value)
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


# ----------------------------------------------------------------------------- differences


def differences(found: Shown, wanted: Shown) -> dict[str, int]:
    """What differs, in the order of looking, with the first case that shows it.

    Where one of them raised, what it had still to show does not count: its error does.
    """
    order = dict.fromkeys([*wanted.labels, *found.labels])
    differ = {}
    for what in order:
        for k, (one, other) in enumerate(zip(found.cases, wanted.cases, strict=False)):
            if what in one and what in other and not same(one[what], other[what]):
                differ[what] = k
                break
    same_place = [len(c) for c in found.cases] == [len(c) for c in wanted.cases]
    if not alike(found.error, wanted.error) or (found.error is not None and not same_place):
        differ[ERROR] = len(found.cases) - 1
    return differ


def is_not_yet(error: Exception | None) -> bool:
    return isinstance(error, NotYet)
