"""Batch norm as a whole layer: both modes, its memory, and what is saved."""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from backstage.exercises import norms
from backstage.exercises.cases import activations
from backstage.exercises.exercise import Exercise, Mistake
from backstage.exercises.layer import layer_shows
from backstage.exercises.running import (
    BIASED_STORED,
    DIMS,
    REVERSED,
    STD_STORED,
    blended,
    eval_recipe,
    variance,
)


def remember(layer, x: Tensor, stored: Callable, blend: Callable, quiet: Callable) -> None:
    with quiet():
        layer.running_mean.copy_(blend(layer.running_mean, x.mean(DIMS), layer.momentum))
        layer.running_var.copy_(blend(layer.running_var, stored(x), layer.momentum))


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
    starts: tuple[float, float] = (1.0, 0.0),
    defaults: tuple[float, float] = (1e-5, 0.1),
    quiet: Callable = torch.no_grad,
    counts: Callable = lambda layer: layer.training,
    evaluated: Callable = lambda y: y,
    **steps,
):
    """The class of a layer (channels, eps, momentum)."""
    forward = norms.norm(**{"dims": norms.AXES["BN"]} | steps)
    used = {key: steps[key] for key in ("root", "affine") if key in steps}

    class Layer(nn.Module):
        def __init__(self, channels, eps=defaults[0], momentum=defaults[1]):
            super().__init__()
            self.eps, self.momentum = eps, momentum
            for name, start in zip(called, starts, strict=True):
                self.register_parameter(name, nn.Parameter(torch.full((channels,), start)))
            keep(self, channels)

        def forward(self, x):
            gamma, beta = getattr(self, called[0]), getattr(self, called[1])
            if updates(self):
                remember(self, x, stored, blend, quiet)
            if counts(self):
                self.num_batches_tracked += 1
            if from_batch(self):
                return forward(x, gamma, beta, 1, self.eps)
            evaluate = eval_recipe(**used)
            kept = self.running_mean, self.running_var
            return evaluated(evaluate(x, *kept, gamma, beta, self.eps))

    return Layer


def layer_cases() -> list[dict]:
    return [
        {"channels": case["x"].shape[1], "eps": case["eps"], "momentum": (0.1, 0.3, 0.1, 0.2)[k],
         "x": case["x"], "gamma": case["gamma"], "beta": case["beta"]}
        for k, case in enumerate(activations())
    ]  # fmt: skip


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
    Mistake(
        "γ and β that start at 0",
        "A new layer is to scale by 1 and shift by 0; with γ = 0 it would give nothing but β.",
        {"starts": (0.0, 0.0)},
    ),
    Mistake(
        "γ and β that start with each other's values",
        "A new layer is to scale by 1 and shift by 0.",
        {"starts": (0.0, 1.0)},
    ),
    BIASED_STORED,
    REVERSED,
    STD_STORED,
    Mistake(
        "running statistics that keep the graph",
        "They would hold on to all batches so far: update them under no_grad(), or from detached "
        "values.",
        {"quiet": contextlib.nullcontext},
    ),
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
    Mistake(
        "an evaluation without gradients",
        "Evaluation mode is not no_grad(): whoever asks for gradients is to get them here too.",
        {"evaluated": Tensor.detach},
    ),
    Mistake(
        "a counter that never counts",
        "num_batches_tracked grows by 1 with each batch in training.",
        {"counts": not_in_training},
    ),
    Mistake(
        "a counter that counts in evaluation too",
        "num_batches_tracked says how many batches moved the running statistics.",
        {"counts": lambda layer: True},
    ),
    Mistake(
        "another default for ε",
        "nn.BatchNorm2d(channels) has eps=1e-5.",
        {"defaults": (1e-3, 0.1)},
    ),
    Mistake(
        "another default for the momentum",
        "nn.BatchNorm2d(channels) has momentum=0.1, the weight of the new value.",
        {"defaults": (1e-5, 0.9)},
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
