"""The norms' gradients by hand."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from backstage.exercises import norms
from backstage.exercises.cases import Draw, activations, returned
from backstage.exercises.exercise import Exercise, Mistake
from s6_model import AXES


def summed(values: Tensor) -> Tensor:
    return values.sum((0, 2, 3))


def averaged(values: Tensor) -> Tensor:
    return values.mean((0, 2, 3))


def recipe(
    dims: tuple[int, ...],
    through_mean: Callable = lambda g, dims: g.mean(dims, keepdim=True),
    through_variance: Callable = lambda g, xhat, dims: (g * xhat).mean(dims, keepdim=True) * xhat,
    scaled: Callable = lambda dy, gamma: dy * gamma.view(-1, 1, 1),
    deviation: Callable = lambda x, dims, eps: (norms.biased(x, dims) + eps).sqrt(),
    width: Callable = lambda sigma: sigma,
    with_gamma: Callable = lambda dy, xhat, x: dy * xhat,
    reduced: Callable = summed,
    split: Callable = norms.blocks,
    after: Callable = lambda dx, gamma: dx,
) -> Callable:
    """(dy, x, gamma, groups, eps) -> dx, dγ, dβ.

    dx = (g - mean(g) - x̂ mean(g x̂)) / σ with g = γ dy (arXiv 1502.03167, section 3).
    """

    def backward(dy, x, gamma, groups, eps):
        grouped = split(x, groups)
        sigma = deviation(grouped, dims, eps)
        xhat = (grouped - grouped.mean(dims, keepdim=True)) / sigma
        g = split(scaled(dy, gamma), groups)
        dx = (g - through_mean(g, dims) - through_variance(g, xhat, dims)) / width(sigma)
        dx, xhat = dx.reshape(x.shape), xhat.reshape(x.shape)
        return after(dx, gamma), reduced(with_gamma(dy, xhat, x)), reduced(dy)

    return backward


def bn_recipe(dims=AXES["BN"], **steps):
    backward = recipe(dims, **steps)
    return lambda dy, x, gamma, eps: backward(dy, x, gamma, 1, eps)


def gn_recipe(dims=AXES["GN"], **steps):
    return recipe(dims, **steps)


def by_autograd(forward: Callable, dy: Tensor, x: Tensor, gamma: Tensor):
    x, gamma, beta = (v.detach().requires_grad_() for v in (x, gamma, torch.zeros_like(gamma)))
    with torch.enable_grad():
        return torch.autograd.grad(forward(x, gamma, beta), (x, gamma, beta), dy)


def bn_oracle(dy, x, gamma, eps):
    return by_autograd(lambda *v: norms.batch_norm(*v, eps), dy, x, gamma)


def gn_oracle(dy, x, gamma, groups, eps):
    return by_autograd(lambda x, g, b: F.group_norm(x, groups, g, b, eps), dy, x, gamma)


def bn_cases() -> list[dict]:
    return [
        {"dy": Draw(7).normal(*case["x"].shape), **{k: case[k] for k in ("x", "gamma", "eps")}}
        for case in activations()
    ]


def gn_cases() -> list[dict]:
    return [
        {"dy": Draw(7).normal(*case["x"].shape), **{k: v for k, v in case.items() if k != "beta"}}
        for case in norms.grouped_cases()
    ]


NO_MEAN = Mistake(
    "the way through μ left out",
    "μ depends on every x of its set, so each of them also gets a share of the mean of γ·dy.",
    {"through_mean": lambda g, dims: 0 * g},
)
NO_VARIANCE = Mistake(
    "the way through σ² left out",
    "σ² depends on x too, so that a third term is still to be taken off: differentiate through it.",
    {"through_variance": lambda g, xhat, dims: 0 * g},
)
COMMON_MISTAKES = (
    NO_MEAN,
    NO_VARIANCE,
    Mistake(
        "γ forgotten in dx",
        "y = γx̂ + β: dy has to be multiplied by γ before it goes back through x̂.",
        {"scaled": lambda dy, gamma: dy},
    ),
    Mistake(
        "a division by σ forgotten",
        "x̂ = (x - μ)/σ: the whole of dx is divided by σ.",
        {"width": lambda sigma: 1.0},
    ),
    Mistake(
        "a division by σ² in place of σ",
        "x̂ = (x - μ)/σ: the whole of dx is divided by σ, once.",
        {"width": lambda sigma: sigma**2},
    ),
    Mistake(
        "the unbiased standard deviation",
        "The forward pass divides the variance by n, not by n - 1; so must the backward pass.",
        {"deviation": lambda x, dims, eps: (norms.unbiased(x, dims) + eps).sqrt()},
    ),
    Mistake(
        "ε forgotten",
        "σ is √(σ² + ε) here as well.",
        {"deviation": lambda x, dims, eps: norms.biased(x, dims).sqrt()},
    ),
    Mistake(
        "sums for means in dx",
        "Both corrections are means over the set.",
        {
            "through_mean": lambda g, dims: g.sum(dims, keepdim=True),
            "through_variance": lambda g, xhat, dims: (g * xhat).sum(dims, keepdim=True) * xhat,
        },
    ),
    Mistake(
        "dγ taken with x in place of x̂",
        "What γ multiplies is x̂.",
        {"with_gamma": lambda dy, xhat, x: dy * x},
    ),
    Mistake(
        "means for sums in dγ and dβ",
        "γ acts on all of a channel's values, and their contributions add up.",
        {"reduced": averaged},
    ),
)
GN_MISTAKES = (
    Mistake(
        "batch norm's sets",
        "Here an image and a group of channels share a mean: average over these.",
        {"dims": AXES["BN"]},
    ),
    Mistake(
        "one set for each channel",
        "Here an image and a group of channels share a mean: average over the group's channels.",
        {"dims": AXES["IN"]},
    ),
    *norms.GROUP_MISTAKES[1:2],
    Mistake(
        "γ multiplied after the means were taken",
        "γ differs from channel to channel within a group, so it does not come out of the mean: "
        "start from γ·dy.",
        {
            "scaled": lambda dy, gamma: dy,
            "after": lambda dx, gamma: dx * gamma.view(-1, 1, 1),
        },
    ),
)

EXERCISES = (
    Exercise("bn_backward", bn_oracle, bn_recipe, COMMON_MISTAKES, bn_cases,
             returned("dx", "dgamma", "dbeta")),
    Exercise("gn_backward", gn_oracle, gn_recipe, (*GN_MISTAKES, *COMMON_MISTAKES), gn_cases,
             returned("dx", "dgamma", "dbeta")),
)  # fmt: skip
