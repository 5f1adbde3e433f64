"""The norms' gradients by hand, and gradients watched with hooks."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exercises import norms
from exercises.cases import Draw, activations, returned
from exercises.checker import Exercise, Mistake, Unfit, finished
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
    "σ² depends on x too: the mean of γ·dy·x̂, times x̂, is still to be taken off.",
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

# ------------------------------------------------------------------- gradients with hooks


class SmallNet(nn.Module):
    """Three layers, one inside a block; the names are those of ``named_modules``."""

    def __init__(self, channels: int = 2):
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3)
        self.block = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(channels * 4, 3)

    def forward(self, x):
        return self.head(self.block(self.conv(x)))


def small_model(seed: int, channels: int = 2) -> SmallNet:
    model, draw = SmallNet(channels), Draw(seed)
    for parameter in model.parameters():
        parameter.data.copy_(draw.normal(*parameter.shape, mean=0.2, std=0.5))
    return model.double()


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers with weights."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if any(True for _ in layer.parameters(recurse=False))
    }


def hooks_recipe(
    measure: Callable = lambda g: g.norm(),
    watched: Callable = lambda layer, inputs, outputs: outputs[0],
    which: Callable = layers,
    cleans: bool = True,
    clears: Callable = lambda model: model.zero_grad(),
):
    def gradient_norms(model, x, y):
        found, hooks = {}, []
        for name, layer in which(model).items():
            hooks.append(layer.register_full_backward_hook(
                lambda layer, inputs, outputs, name=name: found.update(
                    {name: measure(watched(layer, inputs, outputs))})))  # fmt: skip
        F.cross_entropy(model(x), y).backward()
        for hook in hooks if cleans else ():
            hook.remove()
        clears(model)
        return found

    return gradient_norms


def hooks_oracle(model, x, y):
    """Without hooks for gradients: the layers' outputs, and torch.autograd.grad."""
    outputs = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, out, name=name: outputs.update({name: out}))
        for name, layer in layers(model).items()
    ]
    loss = F.cross_entropy(model(x), y)
    for hook in hooks:
        hook.remove()
    gradients = torch.autograd.grad(loss, list(outputs.values()))
    return {name: g.norm() for name, g in zip(outputs, gradients, strict=True)}


def hooks_cases() -> list[dict]:
    shapes = ((2, 1, 4, 4), (5, 1, 4, 4))
    return [
        {"model": small_model(k, 2 + k), "x": Draw(k).normal(*shape), "y": torch.arange(shape[0]) % 3}
        for k, shape in enumerate(shapes)
    ]  # fmt: skip


def hooks_show(answer, model, x, y):
    x.requires_grad_()  # or torch warns that the first layer's hook sees no gradient of its input
    found = finished(answer(model, x, y))
    if not isinstance(found, dict):
        raise Unfit("return a dict from a layer's name to a number.")
    yield "the names", ", ".join(sorted(map(str, found))) or "nothing"
    for name in layers(model):
        if name in found:
            yield f"the norm for {name}", found[name]
    yield "hooks left on the model", str(sum(len(m._backward_hooks) for m in model.modules()))
    left = [p.grad is not None and bool(p.grad.any()) for p in model.parameters()]
    yield "gradients left on the parameters", str(any(left))


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if not list(m.children())}


HOOK_MISTAKES = (
    Mistake(
        "layers without parameters hooked too",
        "ReLU and Flatten are not asked for: only layers that have parameters of their own.",
        {"which": leaves},
    ),
    Mistake(
        "only the layers at the top hooked",
        "named_children() stops at a block; named_modules() goes into it.",
        {"which": lambda m: {k: v for k, v in m.named_children() if not list(v.children())}},
    ),
    Mistake(
        "the gradient of the layer's input",
        "A full backward hook gets (layer, grad_input, grad_output): take the last.",
        {"watched": lambda layer, inputs, outputs: inputs[0]},
    ),
    Mistake(
        "the squared norm",
        "The norm is the root of the sum of squares.",
        {"measure": lambda g: g.square().sum()},
    ),
    Mistake(
        "the sum of the absolute values",
        "The norm is the root of the sum of squares.",
        {"measure": lambda g: g.abs().sum()},
    ),
    Mistake(
        "a mean over the elements",
        "The norm is the root of the *sum* of squares.",
        {"measure": lambda g: g.square().mean().sqrt()},
    ),
    Mistake(
        "hooks that stay on the model",
        "Keep what register_… returns, and remove() it; or each call would add one more.",
        {"cleans": False},
    ),
    Mistake(
        "gradients left on the parameters",
        "The next training step would add them to its own: zero_grad() when done.",
        {"clears": lambda model: None},
    ),
)

EXERCISES = (
    Exercise("bn_backward", bn_oracle, bn_recipe, COMMON_MISTAKES, bn_cases,
             returned("dx", "dgamma", "dbeta")),
    Exercise("gn_backward", gn_oracle, gn_recipe, (*GN_MISTAKES, *COMMON_MISTAKES), gn_cases,
             returned("dx", "dgamma", "dbeta")),
    Exercise("gradient_norms", hooks_oracle, hooks_recipe, HOOK_MISTAKES, hooks_cases, hooks_show),
)  # fmt: skip
