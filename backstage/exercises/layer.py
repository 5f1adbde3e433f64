"""Batch norm as a layer: both modes, what it remembers, what it saves, and its defaults."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from backstage.exercises.inputs import NotYet, Unfit, activations, finished, gradients
from backstage.exercises.judging import Trial


def layer_shows(answer, channels, eps, momentum, x, gamma, beta) -> Iterator[tuple[str, object]]:
    """Two steps of training, an evaluation, what is saved, and what it is by default."""
    layer, usual = made(answer, channels, x, eps=eps, momentum=momentum), made(answer, channels, x)
    yield "running_var of a new layer", layer.running_var
    yield "γ of a new layer", layer.weight.flatten()
    yield "β of a new layer", layer.bias.flatten()
    for each in (layer, usual):
        each.weight.data.copy_(gamma.view(each.weight.shape))
        each.bias.data.copy_(beta.view(each.bias.shape))
    x.requires_grad_()
    yield from training(layer, x)
    yield from evaluation(layer, x)
    yield "the parameters", names(layer.named_parameters())
    yield "the state_dict", names(layer.state_dict().items())
    yield "num_batches_tracked in the end", getattr(layer, "num_batches_tracked", "missing")
    yield "the output with the ε that it has by default", usual(x.detach() / 100)
    yield "running_mean with its default momentum", 100 * usual.running_mean


def training(layer: nn.Module, x: Tensor) -> Iterator[tuple[str, object]]:
    y = finished(layer(x))
    yield "the output in training", y
    for name, found in zip("xγβ", gradients(y, x, layer.weight, layer.bias), strict=True):
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
    if not {"weight", "bias"} <= {name for name, _ in layer.named_parameters()}:
        raise Unfit("γ and β have to be nn.Parameters, called weight and bias as PyTorch's are.")
    return layer.to(x.dtype)


def names(values) -> str:
    return ", ".join(sorted(f"{name} {list(value.shape)}" for name, value in values)) or "nothing"


def layer_cases() -> list[dict]:
    cases = activations(momentum=(0.1, 0.3, 0.1, 0.2, 0.4))
    return [{"channels": len(case["gamma"]), **case} for case in cases]


TRIALS = {"batch_norm": Trial(layer_cases, layer_shows)}
