"""What a batch norm layer shows: in both modes, what it remembers, and what it saves."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from backstage.exercises.cases import affine_names, gradient
from backstage.exercises.exercise import NotYet, Unfit, finished


def layer_shows(answer, channels, eps, momentum, x, gamma, beta) -> Iterator[tuple[str, object]]:
    """Two steps of training, an evaluation, what is saved, and what it is by default."""
    layer = made(answer, channels, eps=eps, momentum=momentum)
    affine = [getattr(layer, name) for name in affine_names(layer)]
    yield "running_var of a new layer", kept(layer, "running_var")
    for name, found in zip("γβ", affine, strict=True):
        yield f"{name} of a new layer", found.flatten()
    fill(affine, gamma, beta)
    x.requires_grad_()
    yield from training(layer, x, affine)
    yield from evaluation(layer, x)
    yield "the parameters", names(layer.named_parameters())
    yield "the state_dict", names(layer.state_dict().items())
    yield "num_batches_tracked in the end", getattr(layer, "num_batches_tracked", "missing")
    usual = made(answer, channels)
    fill([getattr(usual, name) for name in affine_names(usual)], gamma, beta)
    yield "the output with the ε that it has by default", usual(x.detach() / 100)
    yield "running_mean with its default momentum", 100 * kept(usual, "running_mean")


def training(layer: nn.Module, x: Tensor, affine: list[Tensor]) -> Iterator[tuple[str, object]]:
    y = finished(layer(x))
    yield "the output in training", y
    yield "the gradient of x", gradient(y, x)
    for name, found in zip("γβ", affine, strict=True):
        yield f"the gradient of {name}", gradient(y, found)
    layer(2 * x.detach() + 1)
    statistics = kept(layer, "running_mean"), kept(layer, "running_var")
    yield "running_mean after two steps", statistics[0]
    yield "running_var after two steps", statistics[1]
    held = any(isinstance(s, Tensor) and s.grad_fn is not None for s in statistics)
    yield "whether the running statistics keep a graph", "yes" if held else "no"


def evaluation(layer: nn.Module, x: Tensor) -> Iterator[tuple[str, object]]:
    with torch.no_grad():
        yield "the output in training under no_grad", layer(x)
        layer.eval()
        yield "the output in evaluation", layer(x)
    y = finished(layer(x))
    yield "the output in evaluation with gradients on", y
    yield "the gradient of x in evaluation", gradient(y, x)
    yield "running_mean after evaluation", kept(layer, "running_mean")


def made(answer, channels: int, **settings) -> nn.Module:
    if isinstance(answer, nn.Module):
        raise Unfit("give the class itself, not a layer that is already made.")
    layer = finished(answer(channels, **settings))
    if not isinstance(layer, nn.Module):
        raise Unfit("it has to make an nn.Module.")
    if not list(layer.parameters()) and not hasattr(layer, "running_var"):
        raise NotYet
    return layer.double()


def kept(layer: nn.Module, name: str):
    if not hasattr(layer, name):
        raise Unfit(f"the layer has no {name}.")
    return getattr(layer, name)


def fill(affine: list[Tensor], *values: Tensor) -> None:
    """Sets γ and β."""
    for parameter, value in zip(affine, values, strict=True):
        if parameter.numel() != len(value):
            raise Unfit("it needs two parameters, γ and β, with one number per channel.")
        parameter.data.copy_(value.view(parameter.shape))


def names(values) -> str:
    found = [f"{name} {list(value.shape)}" for name, value in values]
    return ", ".join(sorted(found)) or "nothing"
