"""Batch norm as a whole layer: both modes, its memory, and what is saved."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from exercises import norms
from exercises.cases import activations, gradient
from exercises.exercise import Exercise, Mistake, NotYet, Unfit, finished
from exercises.running import (
    BIASED_STORED,
    DIMS,
    REVERSED,
    STD_STORED,
    blended,
    eval_recipe,
    variance,
)


def remember(layer, x: Tensor, stored: Callable, blend: Callable) -> None:
    with torch.no_grad():
        layer.running_mean.copy_(blend(layer.running_mean, x.mean(DIMS), layer.momentum))
        layer.running_var.copy_(blend(layer.running_var, stored(x), layer.momentum))
        layer.num_batches_tracked += 1


def as_buffers(layer, channels: int) -> None:
    layer.register_buffer("running_mean", torch.zeros(channels))
    layer.register_buffer("running_var", torch.ones(channels))
    layer.register_buffer("num_batches_tracked", torch.tensor(0))


def as_parameters(layer, channels: int) -> None:
    layer.running_mean = nn.Parameter(torch.zeros(channels))
    layer.running_var = nn.Parameter(torch.ones(channels))
    layer.register_buffer("num_batches_tracked", torch.tensor(0))


def as_plain_tensors(layer, channels: int) -> None:
    layer.running_mean, layer.running_var = torch.zeros(channels), torch.ones(channels)
    layer.num_batches_tracked = 0


def uncounted(layer, channels: int) -> None:
    layer.register_buffer("running_mean", torch.zeros(channels))
    layer.register_buffer("running_var", torch.ones(channels))
    layer.num_batches_tracked = 0


def variance_from_zero(layer, channels: int) -> None:
    as_buffers(layer, channels)
    layer.running_var.zero_()


def layer_recipe(
    keep: Callable = as_buffers,
    stored: Callable = variance,
    blend: Callable = blended,
    updates: Callable = lambda layer: layer.training,
    from_batch: Callable = lambda layer: layer.training,
    called: tuple[str, str] = ("weight", "bias"),
    **steps,
):
    """The class of a layer (channels, eps, momentum)."""
    forward = norms.norm(**{"dims": norms.AXES["BN"]} | steps)
    used = {key: steps[key] for key in ("root", "affine") if key in steps}

    class Layer(nn.Module):
        def __init__(self, channels, eps=1e-5, momentum=0.1):
            super().__init__()
            self.eps, self.momentum = eps, momentum
            self.register_parameter(called[0], nn.Parameter(torch.ones(channels)))
            self.register_parameter(called[1], nn.Parameter(torch.zeros(channels)))
            keep(self, channels)

        def forward(self, x):
            gamma, beta = getattr(self, called[0]), getattr(self, called[1])
            if updates(self):
                remember(self, x, stored, blend)
            if from_batch(self):
                return forward(x, gamma, beta, 1, self.eps)
            evaluate = eval_recipe(**used)
            return evaluate(x, self.running_mean, self.running_var, gamma, beta, self.eps)

    return Layer


def layer_cases() -> list[dict]:
    return [
        {"channels": case["x"].shape[1], "eps": case["eps"], "momentum": (0.1, 0.3, 0.1, 0.2)[k],
         "x": case["x"], "gamma": case["gamma"], "beta": case["beta"]}
        for k, case in enumerate(activations())
    ]  # fmt: skip


def layer_shows(answer, channels, eps, momentum, x, gamma, beta) -> Iterator[tuple[str, object]]:
    """Two steps of training, an evaluation, and what is saved."""
    layer = made(answer, channels, eps, momentum)
    yield "running_var of a new layer", kept(layer, "running_var")
    affine = scale_and_shift(layer, gamma, beta)
    x.requires_grad_()
    y = finished(layer(x))
    yield "the output in training", y
    yield "the gradient of x", gradient(y, x)
    for name, found in zip("γβ", affine, strict=True):
        yield f"the gradient of {name}", gradient(y, found)
    layer(2 * x.detach() + 1)
    yield "running_mean after two steps", kept(layer, "running_mean")
    yield "running_var after two steps", kept(layer, "running_var")
    with torch.no_grad():
        yield "the output in training under no_grad", layer(x)
        layer.eval()
        yield "the output in evaluation", layer(x)
    yield "the output in evaluation with gradients on", layer(x)
    yield "running_mean after evaluation", kept(layer, "running_mean")
    yield "the parameters", names(layer.named_parameters())
    yield "the state_dict", names(layer.state_dict().items())


def made(answer, channels: int, eps: float, momentum: float) -> nn.Module:
    if isinstance(answer, nn.Module):
        raise Unfit("give the class itself, not a layer that is already made.")
    layer = finished(answer(channels, eps=eps, momentum=momentum))
    if not isinstance(layer, nn.Module):
        raise Unfit("it has to make an nn.Module.")
    if not list(layer.parameters()) and not hasattr(layer, "running_var"):
        raise NotYet
    return layer.double()


def kept(layer: nn.Module, name: str):
    if not hasattr(layer, name):
        raise Unfit(f"the layer has no {name}.")
    return getattr(layer, name)


def scale_and_shift(layer: nn.Module, gamma: Tensor, beta: Tensor) -> list[Tensor]:
    """Sets γ and β and gives them: by their names, or else the first two parameters."""
    own = dict(layer.named_parameters())
    found = [*own.values(), None, None][:2]
    for names in (("gamma", "beta"), ("weight", "bias")):
        if own.keys() >= set(names):
            found = [own[name] for name in names]
    for parameter, value in zip(found, (gamma, beta), strict=True):
        if parameter is None or parameter.numel() != len(value):
            raise Unfit("it needs two parameters, γ and β, with one number per channel.")
        parameter.data.copy_(value.view(parameter.shape))
    return found


def names(values) -> str:
    found = [f"{name} {list(value.shape)}" for name, value in values]
    return ", ".join(sorted(found)) or "nothing"


def not_in_training(layer) -> bool:
    return False


LAYER_MISTAKES = (
    *norms.axes_mistakes("BN"),
    Mistake(
        "the running statistics used in training",
        "In training the batch's own statistics normalize; the running ones are only updated.",
        {"from_batch": not_in_training},
    ),
    *norms.FORMULA_MISTAKES,
    Mistake(
        "a running variance that starts at 0",
        "A new layer starts with mean 0 and variance 1, so that its evaluation changes nothing.",
        {"keep": variance_from_zero},
    ),
    BIASED_STORED,
    REVERSED,
    STD_STORED,
    Mistake(
        "running statistics that are never updated",
        "In training, each batch moves them by `momentum` towards its own.",
        {"updates": not_in_training},
    ),
    Mistake(
        "the mode ignored",
        "Look at self.training: in evaluation the running statistics normalize.",
        {"from_batch": lambda layer: True},
    ),
    Mistake(
        "the mode taken from torch.is_grad_enabled()",
        "eval() and no_grad() are two things; self.training says which mode it is.",
        {"from_batch": lambda layer: layer.training or torch.is_grad_enabled()},
    ),
    Mistake(
        "running statistics that go on moving in evaluation",
        "Update them only while self.training.",
        {"updates": lambda layer: True},
    ),
    Mistake(
        "running statistics that are parameters",
        "An optimizer would train them: register_buffer keeps them without that.",
        {"keep": as_parameters},
    ),
    Mistake(
        "running statistics that are plain tensors",
        "They are lost on saving, and stay behind when the model moves: use register_buffer.",
        {"keep": as_plain_tensors},
    ),
    Mistake(
        "num_batches_tracked left out",
        "PyTorch's layer saves this counter too, so that a strict load_state_dict asks for it.",
        {"keep": uncounted},
    ),
    Mistake(
        "γ and β by names of their own",
        "It computes the right thing; but to load PyTorch's state_dict, they are to be called "
        "weight and bias.",
        {"called": ("gamma", "beta")},
    ),
)

EXERCISES = (
    Exercise(
        "batch_norm",
        nn.BatchNorm2d,
        layer_recipe,
        LAYER_MISTAKES,
        layer_cases,
        layer_shows,
    ),
)
