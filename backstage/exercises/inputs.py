"""Inputs to try answers on, drawn from a seed, and what answers give back."""

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn


class NotYet(Exception):
    """A part that the learner has still to write."""


class Unfit(Exception):
    """An answer of the wrong kind, such as two values where three are due: a sentence."""


class Draw:
    """Tensors from a seed, rounded so that they can be read."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, mean: float = 1.0, std: float = 2.0) -> Tensor:
        values = torch.randn(*shape, generator=self.generator, dtype=torch.float64)
        return (mean + std * values).round(decimals=1)

    def positive(self, *shape: int) -> Tensor:
        values = torch.rand(*shape, generator=self.generator, dtype=torch.float64)
        return (0.5 + 2 * values).round(decimals=1)


# (N, C, H, W). In the second, W = C: what is broadcast along the wrong one raises nothing yet.
SHAPES = [(2, 1, 1, 2), (2, 4, 1, 4), (3, 4, 2, 5), (5, 8, 3, 2), (2, 6, 3, 4)]


def activations(**more: tuple) -> list[dict]:
    """x with γ, β and ε, small to larger; the last as in training, float32 and channels-last.

    ``more`` has other arguments, a value for each case. ε is large, so that it shows.
    """
    cases = []
    for k, shape in enumerate(SHAPES):
        draw = Draw(k)
        case = {"x": draw.normal(*shape), "gamma": draw.positive(shape[1])}
        case |= {"beta": draw.normal(shape[1])} | {name: values[k] for name, values in more.items()}
        cases.append(case | {"eps": (0.5, 1e-5, 1.0, 0.1, 0.2)[k]})
    cases[3]["x"][0], cases[3]["x"][:, 0] = 2.0, 2.0  # sets that vary by nothing
    return [*cases[:4], as_trained_on(cases[4])]


def as_trained_on(value):
    """Tensors as float32, images in the order that is fastest for convolutions."""
    if isinstance(value, dict):
        return {name: as_trained_on(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(as_trained_on, value))
    if isinstance(value, nn.Module):
        return value.float()
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    kind = torch.channels_last if value.ndim == 4 else torch.contiguous_format
    return value.float().contiguous(memory_format=kind)


def small_model(seed: int, channels: int = 2) -> nn.Sequential:
    """Layers of all kinds, some of them inside a block.

    Its parameters are drawn, none of them 0: there |w| has no derivative to agree on.
    """
    block = nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.Flatten()
    layers = {"conv": nn.Conv2d(1, channels, 3), "block": nn.Sequential(*block)}
    model = nn.Sequential(OrderedDict(layers, head=nn.Linear(channels * 4, 3)))
    draw = Draw(seed)
    for parameter in model.parameters():
        values = draw.normal(*parameter.shape, mean=0.2, std=0.5)
        parameter.data.copy_(torch.where(values == 0, 0.1, values))
    return model.double()


def finished(value):
    """The value, unless there is none yet."""
    if value is None or value is Ellipsis:
        raise NotYet
    return value


def returned(*names: str):
    """An observation: what the function returns, one value or several, by these names."""

    def observe(answer, **case):
        value = answer(*case.values())
        yield from parts(value, *names) if len(names) > 1 else [(names[0], value)]

    return observe


def parts(value, *names: str) -> Iterator[tuple[str, object]]:
    """The values that were returned together, each with its name."""
    several = isinstance(finished(value), Iterator | tuple | list) or np.ndim(value)
    found = list(value) if several else [value]
    if len(found) != len(names):
        count = 1 if isinstance(value, Tensor) else len(found)
        raise Unfit(f"return {len(names)} values, {', '.join(names)}: {count} came back.")
    return zip(names, found, strict=True)


def gradients(y, *of: Tensor) -> list[Tensor]:
    """Those of a weighted sum of y; 0 where y does not depend on it.

    All at once: PyTorch 2.5's and 2.6's group norm crashes where, of channels-last images on a CPU,
    γ's or β's alone is asked for.
    """
    if not isinstance(y, Tensor):
        raise Unfit(f"return a tensor, not a {type(y).__name__}.")
    if not y.requires_grad:
        return [torch.zeros_like(x) for x in of]
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).square().view(y.shape)
    found = torch.autograd.grad((weights * y).sum(), of, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(of, found, strict=True)]
