"""Batch norm as a layer: both modes, what it remembers, what it saves, and its defaults."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from backstage.exercises.inputs import NotYet, Unfit, activations, finished, gradients
from backstage.exercises.judging import Trial


def layer_shows(answer, channels, eps, momentum, x, gamma, beta) -> Iterator[tuple[str, object]]:
    """Two steps of training, an evaluation, what is saved, and what it is by default."""
    layer = made(answer, channels, x, eps=eps, momentum=momentum)
    affine = affine_of(layer)
    yield "running_var of a new layer", layer.running_var
    yield "γ of a new layer", affine[0].flatten()
    yield "β of a new layer", affine[1].flatten()
    fill(affine, gamma, beta)
    x.requires_grad_()
    yield from training(layer, x, affine)
    yield from evaluation(layer, x)
    yield "the parameters", names(layer.named_parameters())
    yield "the state_dict", names(layer.state_dict().items())
    yield "num_batches_tracked in the end", getattr(layer, "num_batches_tracked", "missing")
    usual = made(answer, channels, x)
    fill(affine_of(usual), gamma, beta)
    yield "the output with the ε that it has by default", usual(x.detach() / 100)
    yield "running_mean with its default momentum", 100 * usual.running_mean


def training(layer: nn.Module, x: Tensor, affine: list[Tensor]) -> Iterator[tuple[str, object]]:
    y = finished(layer(x))
    yield "the output in training", y
    for name, found in zip("xγβ", gradients(y, x, *affine), strict=True):
        yield f"the gradient of {name}", found
    layer(2 * x.detach() + 1)
    yield "running_mean after two steps", layer.running_mean
    yield "running_var after two steps", layer.running_var
    statistics = layer.running_mean, layer.running_var
    yield "whether the running statistics keep a graph", any(s.grad_fn for s in statistics)
    if x.dtype == torch.float32:
        yield "the output's type for images of float32", str(y.dtype)


def evaluation(layer: nn.Module, x: Tensor) -> Iterator[tuple[str, object]]:
    with torch.no_grad():
        yield "the output in training under no_grad", layer(x)
        layer.eval()
        yield "the output in evaluation", layer(x)
    y = finished(layer(x))
    yield "the output in evaluation with gradients on", y
    yield "the gradient of x in evaluation", gradients(y, x)[0]
    yield "running_mean after evaluation", layer.running_mean


def made(answer, channels: int, x: Tensor, **settings) -> nn.Module:
    if isinstance(answer, nn.Module):
        raise Unfit("give the class itself, not a layer that is already made.")
    layer = finished(answer(channels, **settings))
    if not isinstance(layer, nn.Module):
        raise Unfit("it has to make an nn.Module.")
    if not list(layer.parameters()) and not hasattr(layer, "running_var"):
        raise NotYet
    return layer.to(x.dtype)


def affine_of(layer: nn.Module) -> list[Tensor]:
    """γ and β, by the usual names or else the first two parameters."""
    own = dict(layer.named_parameters())
    for pair in (("weight", "bias"), ("gamma", "beta"), tuple(own)[:2]):
        if len(pair) == 2 and set(pair) <= set(own):
            return [own[name] for name in pair]
    raise Unfit("γ and β have to be nn.Parameter, with one number per channel each.")


def fill(affine: list[Tensor], *values: Tensor) -> None:
    """Sets γ and β."""
    for parameter, value in zip(affine, values, strict=True):
        parameter.data.copy_(value.view(parameter.shape))


def names(values) -> str:
    return ", ".join(sorted(f"{name} {list(value.shape)}" for name, value in values)) or "nothing"


def layer_cases() -> list[dict]:
    cases = activations(momentum=(0.1, 0.3, 0.1, 0.2, 0.4))
    return [{"channels": len(case["gamma"]), **case} for case in cases]


TRIALS = {"batch_norm": Trial(nn.BatchNorm2d, layer_cases, layer_shows)}
