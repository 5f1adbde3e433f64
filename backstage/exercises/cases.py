"""Inputs to try answers on, drawn from a seed, and how functions and layers are called."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from backstage.exercises.exercise import Unfit, finished, parts


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
SHAPES = [(2, 1, 1, 2), (2, 4, 1, 4), (3, 4, 2, 5), (5, 8, 3, 2)]


def activations(**extra) -> list[dict]:
    """x with γ, β and ε, small to larger; ``extra`` has more arguments, a value for each case.

    ε is large, so that where it goes makes a difference that can be seen.
    """
    cases = []
    for k, shape in enumerate(SHAPES):
        draw = Draw(k)
        case = {"x": draw.normal(*shape), "gamma": draw.positive(shape[1])}
        case |= {"beta": draw.normal(shape[1]), "eps": (0.5, 1e-5, 1.0, 0.1)[k]}
        cases.append(case | {name: values[k] for name, values in extra.items()})
    cases[3]["x"][0], cases[3]["x"][:, 0] = 2.0, 2.0  # sets that vary by nothing
    return cases


def norm_output(answer, x: Tensor, gamma: Tensor, beta: Tensor, *rest):
    """y, γ and β of a function (x, gamma, beta, …), or of a class made with (channels, …)."""
    if isinstance(answer, nn.Module):
        raise Unfit("give the class itself, or a function, not a layer that is already made.")
    if not isinstance(answer, type):
        return finished(answer(x, gamma, beta, *rest)), gamma, beta
    layer = answer(len(gamma), *rest)
    affine = []
    for name, value in zip(affine_names(layer), (gamma, beta), strict=True):
        setattr(layer, name, nn.Parameter(value.detach().clone()))
        affine.append(getattr(layer, name))
    return finished(layer(x)), *affine


def affine_names(layer: nn.Module) -> list[str]:
    """What the layer calls γ and β: by the usual names, or else its first two parameters."""
    own = [name for name, _ in layer.named_parameters()]
    for names in (("gamma", "beta"), ("weight", "bias"), tuple(own[:2])):
        if len(names) == 2 and set(names) <= set(own):
            return list(names)
    raise Unfit("it needs two parameters, γ and β, with one number per channel.")


def forward_and_backward(answer, **case) -> Iterator[tuple[str, object]]:
    """The output and, as the gradient must pass through the statistics too, that of the input."""
    for name in ("x", "gamma", "beta"):
        case[name].requires_grad_()
    y, gamma, beta = norm_output(answer, *case.values())
    yield "the output", y
    yield "the gradient of x", gradient(y, case["x"])
    yield "the gradient of γ", gradient(y, gamma)
    yield "the gradient of β", gradient(y, beta)


def gradient(y, x: Tensor) -> Tensor:
    """∂/∂x of a weighted sum of y; 0 where y does not depend on x."""
    if not isinstance(y, Tensor):
        raise Unfit(f"return a tensor, not a {type(y).__name__}.")
    if not y.requires_grad:
        return torch.zeros_like(x)
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).square().view(y.shape)
    (found,) = torch.autograd.grad((weights * y).sum(), x, allow_unused=True, retain_graph=True)
    return torch.zeros_like(x) if found is None else found


def returned(*names: str):
    """An observation: what the function returns, by these names."""

    def observe(answer, **case):
        value = answer(*case.values())
        yield from parts(value, *names) if len(names) > 1 else [(names[0], value)]

    return observe
