"""Says in words what was seen: how a value differs, where, and for which inputs."""

import numpy as np
import torch
from torch import Tensor

from backstage.exercises.exercise import Exercise, Watched, same


def listed(names: list[str]) -> str:
    """The names, and "is" or "are"."""
    *most, last = names
    return f"{', '.join(most)} and {last} are" if most else f"{last} {is_or_are(last)}"


def is_or_are(what: str) -> str:
    return "are" if _many(what) else "is"


def differs(what: str) -> str:
    return "differ" if _many(what) else "differs"


def _many(what: str) -> bool:
    """Whether "the weights after it" is a plural, by its head."""
    if what.startswith(("whether", "how")):
        return False
    for end in (" after", " of", " for", " in", " left", " with", " taken"):
        what = what.partition(end)[0]
    return what.endswith("s") and not what.endswith("ss")


def sentence(text: str) -> str:
    """The text with a capital, unless it begins with a name or a Greek letter."""
    words = ("the ", "whether ", "how ", "hooks ", "gradients ")
    return text[0].upper() + text[1:] if text.startswith(words) else text


# ------------------------------------------------------------------------ how it differs


def pattern(exercise: Exercise, watched: Watched, what: str, k: int) -> str:
    """How a wrong value differs: by its kind, its shape, a factor, a difference, or somehow."""
    found, wanted = watched.seen[k][what], exercise.expected[k][what]
    if not (isinstance(found, Tensor) and isinstance(wanted, Tensor)):
        return differs(what)
    if not fits(found, wanted):
        return f"{_has(what)} shape {tuple(found.shape)}, not {tuple(wanted.shape)}"
    if not found.isfinite().all():
        reasons = "a division by 0, or the root of a negative number"
        return f"{_has(what)} values that are no finite numbers, as from {reasons}"
    pairs = [(one[what], other[what]) for one, other in zip(watched.seen, exercise.expected,
             strict=False) if what in one and what in other]  # fmt: skip
    if all(isinstance(f, Tensor) and isinstance(w, Tensor) and fits(f, w) for f, w in pairs):
        everything = [torch.cat([v.flatten() for v in side]) for side in zip(*pairs, strict=True)]
        if said := _regular(what, *everything):
            flows = what.startswith("the gradient of ") and said == "is 0"
            return f"{said}, everywhere" + f": no gradient flows to {what[16:]}" * flows
    said = _regular(what, found.flatten(), wanted.flatten())
    return f"{said}, in this case" if said else differs(what)


def _regular(what: str, found: Tensor, wanted: Tensor) -> str:
    """A factor, or a difference, that is the same for all values; "" for none or for one value."""
    if wanted.numel() == 1:
        return ""
    verb = is_or_are(what)
    if not same(wanted, torch.zeros_like(wanted)):
        if not found.any():
            return f"{verb} 0"
        factor = (found * wanted).sum() / wanted.square().sum()
        if same(found, factor * wanted):
            return f"{verb} {factor:.3f} times what it should be"
    shift = (found - wanted).mean()
    return f"{verb} off by {shift:+.3f}" if same(found, wanted + shift) else ""


def _has(what: str) -> str:
    return "have" if _many(what) else "has"


def fits(found: Tensor, wanted: Tensor) -> bool:
    return found.squeeze().shape == wanted.squeeze().shape


# ------------------------------------------------------------------------------- examples


def example(exercise: Exercise, watched: Watched, what: str, k: int) -> str:
    found, wanted = watched.seen[k][what], exercise.expected[k][what]
    given = described(exercise.inputs[k])
    numbers = isinstance(found, Tensor) and isinstance(wanted, Tensor)
    if not numbers or not fits(found, wanted):
        return f"For {given}, {what}: expected {_short(wanted)}, found {_short(found)}."
    gap = (found.reshape(wanted.shape) - wanted).abs().nan_to_num(torch.inf, torch.inf)
    i = int(gap.argmax())
    place = [int(d) for d in np.unravel_index(i, wanted.shape)]
    at = f" at {place}" if place else ""
    expected, shown = apart(wanted.flatten()[i].item(), found.flatten()[i].item())
    return f"For {given}, {what}{at}: expected {expected}, found {shown}."


def apart(a: float, b: float) -> tuple[str, str]:
    """Two numbers, with as many decimals as it takes to tell them apart."""
    if a.is_integer() and b.is_integer():
        return f"{a:.0f}", f"{b:.0f}"
    for digits in range(3, 12):
        if (shown := (f"{a:.{digits}f}", f"{b:.{digits}f}"))[0] != shown[1]:
            break
    return shown


def _short(value) -> str:
    if isinstance(value, Tensor):
        few = value.ndim == 0
        return f"{value.item():.3f}" if few else f"one of shape {tuple(value.shape)}"
    return f"{value!r}"


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
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        sizes = [str(len(pair[0])) for pair in value]
        return f"{name} of {', '.join(sizes[:-1])} and {sizes[-1]} images"
    if isinstance(value, torch.nn.Module):
        return f"a small {type(value).__name__} as {name}"
    return f"{name} = {value}" if isinstance(value, int | float | list | str) else name


def _list(value: Tensor) -> str:
    numbers = str([round(v, 3) for v in value.flatten().tolist()])
    return numbers if value.ndim < 2 else f"{numbers} of shape {tuple(value.shape)}"
