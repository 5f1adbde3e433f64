"""What is regular in a wrong value, in any exercise: how it comes from the right one."""

import itertools

import torch
from torch import Tensor

from backstage.exercises.judging import Seen, same

Pairs = list[tuple[Tensor, Tensor]]  # found and wanted, case by case


def pattern(found: list[Seen], wanted: list[Seen], what: str, cases: list[dict]) -> str:
    """How a wrong value differs in every case; "" for nothing regular."""
    shown = list(zip(found, wanted, cases, strict=False))
    shown = [(x.values, y.values, case) for x, y, case in shown if what in x.values]
    pairs = [(x[what], y[what]) for x, y, _ in shown]
    if not all(isinstance(v, Tensor) for pair in pairs for v in pair):
        return ""
    if not all(fits(x, y) for x, y in pairs):
        x, y = next(pair for pair in pairs if not fits(*pair))
        shapes = f"the shape is {tuple(x.shape)}, and should be {tuple(y.shape)}"
        return _reduced(pairs) or shapes
    if not all(x.isfinite().all() for x, _ in pairs):
        return "not a finite number everywhere (a division by 0, a root of less than 0?)"
    everything = [torch.cat([pair[side].flatten() for pair in pairs]) for side in (0, 1)]
    if said := regular(*everything):
        no_gradient = what.startswith("the gradient of ") and said == "0"
        return said + ", always" + ": no gradient flows there" * no_gradient
    return _counted(pairs, [case for _, _, case in shown]) or _by_channel(pairs)


def fits(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape or found.numel() == wanted.numel() == 1


def regular(found: Tensor, wanted: Tensor) -> str:
    """A factor, or a difference, that is the same for all values; "" for none or for one value."""
    if wanted.numel() == 1:
        return ""
    if wanted.abs().max() > 1e-4:
        if not found.any():
            return "0"
        if same(found, _factor(found, wanted) * wanted):
            return f"{_factor(found, wanted):.3f} times what it should be"
    shift = (found - wanted).mean()
    return f"off by {shift:+.3f}" if same(found, wanted + shift) else ""


def _factor(found: Tensor, wanted: Tensor) -> Tensor:
    return (found * wanted).sum() / wanted.square().sum()


def _reduced(pairs: Pairs) -> str:
    """Which dimensions are still to be averaged, added up or left out."""
    if all(same(x.squeeze(), y.squeeze()) for x, y in pairs):
        return "right, but for dimensions of 1 left over, as by keepdim=True"
    a, b = pairs[-1]
    for dims in itertools.combinations(range(a.ndim), max(a.ndim - b.ndim, 0)):
        for name in ("mean", "sum"):
            if all(x.ndim == a.ndim and same(getattr(x, name)(dims), y) for x, y in pairs):
                return f"of another shape: its {name} over {dims} would be right"
    return ""


def _counted(pairs: Pairs, cases: list[dict]) -> str:
    """A factor that is a number of something: of images, say, where a sum was to be a mean."""
    if not all(y.any() and same(x, _factor(x, y) * y) for x, y in pairs):
        return ""
    factors = torch.stack([_factor(x, y) for x, y in pairs])
    counts = [_counts(case) for case in cases]
    names = [name for name in counts[0] if all(name in each for each in counts)]  # plain ones first
    for up, down in itertools.permutations(names, 2):
        ratios = torch.tensor([n[up] / n[down] for n in counts], dtype=torch.float64)
        if factors.unique().numel() > 1 and same(factors, ratios):
            by = f"times {up}" * (up != "1") + f" divided by {down}" * (down != "1")
            return f"what it should be {by.strip()}"
    return ""


def _counts(case: dict) -> dict[str, float]:
    counts = {"1": 1.0}
    for name, value in case.items():
        if isinstance(value, Tensor):
            counts |= {f"{name}.shape[{i}]": n for i, n in enumerate(value.shape)}
            counts |= {f"{name}.numel()": value.numel()}
        elif isinstance(value, list):
            counts |= {f"len({name})": len(value)}
            if isinstance(value[0], list | tuple):
                counts |= {"the number of images": sum(len(x) for x, _ in value)}
        elif isinstance(value, int | float):
            counts |= {name: value}
    return {name: count for name, count in counts.items() if count > 0}


def _by_channel(pairs: Pairs) -> str:
    """Right but for some images or channels at the end, or the same mistake in each channel."""
    if any(y.ndim != 4 for _, y in pairs):
        return ""
    for dim, word in enumerate(("images", "channels")):
        slices = [list(zip(x.unbind(dim), y.unbind(dim), strict=True)) for x, y in pairs]
        right = [[same(x, y) for x, y in each] for each in slices]
        ends = [r for r in right if not all(r)]
        if any(map(any, ends)) and all(r == sorted(r, reverse=True) for r in ends):
            nought = not any(x.any() for each in slices for x, y in each if not same(x, y))
            return f"right, but for the last {word}" + ", which are 0" * nought
    channels = [regular(x[:, c].flatten(), y[:, c].flatten())
                for x, y in pairs for c in range(y.shape[1])]  # fmt: skip
    return f"wrong in each channel alike: {channels[-1]} in one" if all(channels) else ""
