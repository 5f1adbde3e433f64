"""Says what was seen: what differs, by how much, where, and for which inputs."""

import linecache
import sysconfig
import traceback
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from backstage.exercises.judging import Shown, same

OURS = (str(Path(__file__).resolve().parent), sysconfig.get_paths()["stdlib"], "<")


def pattern(found: Shown, wanted: Shown, what: str, k: int) -> str:
    """How a wrong value differs: in shape, by a factor or a constant, by channel, or somehow."""
    a, b = found.cases[k][what], wanted.cases[k][what]
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return f"{what}: expected {short(b)}, found {short(a)}"
    if not fits(a, b):
        return f"{what}: the shape is {tuple(a.shape)}, and should be {tuple(b.shape)}"
    if not a.isfinite().all():
        return f"{what}: not all are finite numbers (a division by 0, or a root of less than 0?)"
    pairs = [(one[what], other[what]) for one, other in zip(found.cases, wanted.cases, strict=False)
             if what in one and what in other]  # fmt: skip
    if all(isinstance(v, Tensor) for pair in pairs for v in pair) and all(fits(*p) for p in pairs):
        everything = [torch.cat([v.flatten() for v in side]) for side in zip(*pairs, strict=True)]
        if said := regular(*everything):
            no_gradient = what.startswith("the gradient of ") and said == "0"
            return f"{what} is {said}, always" + ": no gradient flows there" * no_gradient
    if said := regular(a.flatten(), b.flatten()) or by_channel(a, b):
        return f"{what} is {said}, in this case"
    return f"{what} differs"


def regular(found: Tensor, wanted: Tensor) -> str:
    """A factor, or a difference, that is the same for all values; "" for none or for one value."""
    if wanted.numel() == 1:
        return ""
    if wanted.abs().max() > 1e-4:
        if not found.any():
            return "0"
        factor = (found * wanted).sum() / wanted.square().sum()
        if same(found, factor * wanted):
            return f"{factor:.3f} times what it should be"
    shift = (found - wanted).mean()
    return f"off by {shift:+.3f}" if same(found, wanted + shift) else ""


def by_channel(found: Tensor, wanted: Tensor) -> str:
    """The same for each channel of (N, C, H, W) by itself."""
    found = found.reshape(wanted.shape)
    if wanted.ndim != 4 or wanted.shape[1] < 2 or wanted[:, 0].numel() < 3:
        return ""
    channels = range(wanted.shape[1])
    said = [regular(found[:, c].flatten(), wanted[:, c].flatten()) for c in channels]
    return f"{said[-1]} in the last channel, and by other numbers in others" * all(said)


def fits(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape or found.numel() == wanted.numel() == 1


# ------------------------------------------------------------------------------- examples


def example(found: Shown, wanted: Shown, what: str, k: int, case: dict) -> str:
    """Expected and found, where they differ most, in the smallest case."""
    a, b = found.cases[k][what], wanted.cases[k][what]
    at = ""
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
        few = f" = {numbers}" + shape * (value.ndim > 1)
        return name + (few if value.numel() <= 6 else shape)
    if isinstance(value, nn.Module):
        return f"a small {type(value).__name__} as {name}"
    if isinstance(value, list) and value and not isinstance(value[0], float):
        first = [item[0] if isinstance(item, tuple) else item for item in value]
        return f"{name} of {' and '.join(str(len(images)) for images in first)} images"
    if isinstance(value, list) and len(value) > 6:
        return f"{name} of {len(value)} numbers"
    return f"{name} = {value}"


def line_of(error: BaseException) -> str:
    """The learner's line that an error comes from, as "line 7: `mu = x.mean()`"; "" if unknown."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if "-packages" not in f.filename]
    theirs = [f for f in theirs if "<ipython" in f.filename or not f.filename.startswith(OURS)]
    if not theirs:
        return ""
    line = (theirs[-1].line or linecache.getline(theirs[-1].filename, theirs[-1].lineno)).strip()
    return f"line {theirs[-1].lineno}" + (f": `{line}`" if line else "")
