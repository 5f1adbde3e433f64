"""Says what was seen: what differs, by how much, where, and for which inputs."""

import sysconfig
import traceback
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from backstage.exercises.judging import Seen
from backstage.exercises.patterns import fits

OURS = (str(Path(__file__).resolve().parent), sysconfig.get_paths()["stdlib"], "<")


def example(found: list[Seen], wanted: list[Seen], what: str, k: int, case: dict) -> str:
    """Expected and found, where they differ most, in the smallest case."""
    a, b, at = found[k].values[what], wanted[k].values[what], ""
    if isinstance(a, Tensor) and isinstance(b, Tensor) and fits(a, b):
        gap = (a.reshape(b.shape) - b).abs().nan_to_num(torch.inf, torch.inf)
        i = int(gap.argmax())
        at = f" at {[int(d) for d in np.unravel_index(i, b.shape)]}" if b.ndim else ""
        a, b = apart(a.flatten()[i].item(), b.flatten()[i].item())
    return f"For {described(case)}, {what}{at}: expected {short(b)}, found {short(a)}."


def apart(a: float, b: float) -> tuple[str, str]:
    """Two numbers, with as many decimals as it takes to tell them apart."""
    if a.is_integer() and b.is_integer():
        return f"{a:.0f}", f"{b:.0f}"
    texts = ((f"{a:.{digits}f}", f"{b:.{digits}f}") for digits in range(3, 12))
    return next((pair for pair in texts if pair[0] != pair[1]), (str(a), str(b)))


def short(value) -> str:
    if not isinstance(value, Tensor):
        return str(value)
    return f"{value.item():.3f}" if value.ndim == 0 else f"one of shape {tuple(value.shape)}"


def described(case: dict) -> str:
    """The inputs in words: small tensors by their values, others by their shape."""
    return ", ".join(_described(name, value) for name, value in case.items())


def _described(name: str, value) -> str:
    if isinstance(value, Tensor):
        shape = f" of shape {tuple(value.shape)}"
        numbers = [round(v, 3) for v in value.flatten().tolist()]
        return name + (f" = {numbers}" + shape * (value.ndim > 1) if len(numbers) <= 6 else shape)
    if isinstance(value, nn.Module):
        return f"a small {type(value).__name__} as {name}"
    if isinstance(value, list) and isinstance(value[0], Tensor | tuple):
        sizes = [len(item) if isinstance(item, Tensor) else len(item[0]) for item in value]
        return f"{name} of {' and '.join(map(str, sizes))} images"
    many = isinstance(value, list) and len(value) > 6
    return f"{name} of {len(value)} numbers" if many else f"{name} = {value}"


def raised(error: Exception, case: dict) -> str:
    """What the learner's code raised, in which of their lines, and when it was called with what."""
    said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "-packages" not in f.filename]
    theirs = [f for f in frames if "<ipython" in f.filename or not f.filename.startswith(OURS)]
    where = f"in line {theirs[-1].lineno}: `{theirs[-1].line}`, " if theirs else ""
    return f"Your code raised {said}\n  {where}when it was called with {described(case)}."
