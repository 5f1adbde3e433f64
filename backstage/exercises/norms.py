"""The norms' forward passes, and the steps of which they are made."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from backstage.exercises.cases import activations, forward_and_backward
from backstage.exercises.exercise import Exercise, Mistake
from s6_model import AXES

# ------------------------------------------------------- the steps of which a norm is made


def blocks(x: Tensor, groups: int) -> Tensor:
    """(N, C, H, W) -> (N, G, C/G, H, W): neighbouring channels form a group."""
    return x.reshape(len(x), groups, -1, *x.shape[2:])


def biased(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    return x.var(dims, correction=0, keepdim=True)


def unbiased(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    return x.var(dims, correction=1, keepdim=True)


def root_of_sum(var: Tensor, eps: float) -> Tensor:
    return (var + eps).sqrt()


def per_channel(xhat: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return gamma.view(-1, 1, 1) * xhat + beta.view(-1, 1, 1)


def norm(
    dims: tuple[int, ...],
    split: Callable = blocks,
    mean: Callable = lambda x, dims: x.mean(dims, keepdim=True),
    variance: Callable = biased,
    root: Callable = root_of_sum,
    affine: Callable = per_channel,
) -> Callable:
    """(x, gamma, beta, groups, eps) -> y, put together from these steps."""

    def forward(x, gamma, beta, groups, eps):
        grouped = split(x, groups)
        mu, var = mean(grouped, dims), variance(grouped, dims)
        xhat = (grouped - mu) / root(var, eps)
        if split is interleaved:
            xhat = xhat.transpose(1, 2)
        return affine(xhat.reshape(x.shape), gamma, beta)

    return forward


def interleaved(x: Tensor, groups: int) -> Tensor:
    """Every G-th channel in the same group: (N, C, H, W) -> (N, G, C/G, H, W)."""
    return x.reshape(len(x), -1, groups, *x.shape[2:]).transpose(1, 2)


def as_many_channels(x: Tensor, groups: int) -> Tensor:
    """G taken for the number of channels in a group."""
    return blocks(x, x.shape[1] // groups)


# ---------------------------------------------------------------------- the known mistakes

SETS = {
    "BN": "one mean per channel, over all images and pixels",
    "LN": "one mean per image, over all channels and pixels",
    "IN": "one mean per image and channel, over the pixels alone",
    "GN": "one mean per image and group of channels",
}
WRONG_AXES = {
    "BN": ("batch norm's axes", "That gives one mean per channel, for all images."),
    "LN": ("layer norm's axes", "That gives one mean per image, for all channels."),
    "IN": ("instance norm's axes", "That gives one mean per image and channel."),
}


def axes_mistakes(name: str) -> list[Mistake]:
    others = [
        Mistake(title, f"{what} This norm has {SETS[name]}.", {"dims": AXES[other]})
        for other, (title, what) in WRONG_AXES.items()
        if other != name
    ]
    everything = Mistake(
        "one mean for the whole tensor",
        f"Without dims, or with all of them, mean() averages everything; here {SETS[name]}.",
        {"dims": (0, 1, 2, 3, 4)},
    )
    pixel = (0,) if name == "BN" else (1, 2)
    per_pixel = Mistake(
        "statistics for each pixel",
        f"H and W must be averaged over as well: {SETS[name]}.",
        {"dims": pixel},
    )
    return [*others, everything] + [per_pixel] * (name != "IN")


NO_AFFINE_GRADIENT = Mistake(
    "γ and β taken without gradient",
    "They are trained as well: no detach() and no .data on them.",
    {"affine": lambda xhat, gamma, beta: per_channel(xhat, gamma.detach(), beta.detach())},
)
FORMULA_MISTAKES = [
    Mistake(
        "the unbiased variance used to normalize",
        "The set's variance is divided by its size, not by one less: see what var() does by "
        "default.",
        {"variance": unbiased},
    ),
    Mistake(
        "a division by the variance",
        "x̂ has variance 1 only if you divide by the standard deviation: is there a root?",
        {"root": lambda var, eps: var + eps},
    ),
    Mistake(
        "ε outside the root",
        "ε is added to the variance, before the root is taken.",
        {"root": lambda var, eps: var.sqrt() + eps},
    ),
    Mistake(
        "ε forgotten",
        "Without ε, a set of equal values is divided by 0.",
        {"root": lambda var, eps: var.sqrt()},
    ),
    Mistake(
        "a fixed ε",
        "ε is an argument, added to the variance as it is: not always 0.00001, and no lower limit.",
        {"root": lambda var, eps: (var + 1e-5).sqrt()},
    ),
    Mistake(
        "γ and β swapped",
        "γ multiplies x̂, β is added to it.",
        {"affine": lambda xhat, gamma, beta: per_channel(xhat, beta, gamma)},
    ),
    Mistake(
        "γ and β left out",
        "What is returned is x̂; it still has to be scaled and shifted.",
        {"affine": lambda xhat, gamma, beta: xhat},
    ),
    Mistake(
        "γ and β along the wrong dimension",
        "They have one number per channel, and broadcasting lines up the last dimension, W: give "
        "them the shape (C, 1, 1).",
        {"affine": lambda xhat, gamma, beta: gamma * xhat + beta},
    ),
    Mistake(
        "a mean taken without gradient",
        "The output is right, but μ depends on x too: no detach() and no no_grad() on it.",
        {"mean": lambda x, dims: x.mean(dims, keepdim=True).detach()},
    ),
    Mistake(
        "a variance taken without gradient",
        "The output is right, but σ² depends on x too: no detach() and no no_grad() on it.",
        {"variance": lambda x, dims: biased(x, dims).detach()},
    ),
    NO_AFFINE_GRADIENT,
]
NO_KEEPDIM = Mistake(
    "means and variances that lost their dimensions",
    "They have shape (C,), and broadcasting lines up the last dimension, W: keepdim=True leaves "
    "them a shape that fits x.",
    {
        "mean": lambda x, dims: x.mean(dims).squeeze(),
        "variance": lambda x, dims: biased(x, dims).squeeze(),
    },
)
GROUP_MISTAKES = [
    Mistake(
        "groups of every G-th channel",
        "A group is a block of neighbouring channels: split C as (G, C/G), in this order.",
        {"split": interleaved},
    ),
    Mistake(
        "G taken for the size of a group",
        "`groups` says how many groups there are, not how many channels each has.",
        {"split": as_many_channels},
    ),
    Mistake(
        "groups averaged over the batch",
        "Each image has statistics of its own: N is not averaged over.",
        {"dims": (0, 2, 3, 4)},
    ),
]


# ------------------------------------------------------------------------------- exercises


def without_groups(name: str) -> Callable:
    """The recipe of a function (x, gamma, beta, eps)."""

    def recipe(dims=AXES[name], **steps):
        forward = norm(dims, **steps)
        return lambda x, gamma, beta, eps: forward(x, gamma, beta, 1, eps)

    return recipe


def batch_norm(x, gamma, beta, eps):
    return F.batch_norm(x, None, None, gamma, beta, training=True, eps=eps)


def layer_norm(x, gamma, beta, eps):
    return F.group_norm(x, 1, gamma, beta, eps)


def instance_norm(x, gamma, beta, eps):
    return F.group_norm(x, x.shape[1], gamma, beta, eps)


def group_norm(x, gamma, beta, groups, eps):
    return F.group_norm(x, groups, gamma, beta, eps)


def forward_exercise(name: str, key: str, oracle: Callable) -> Exercise:
    mistakes = (*axes_mistakes(key), *FORMULA_MISTAKES, *[NO_KEEPDIM] * (key == "BN"))
    return Exercise(name, oracle, without_groups(key), mistakes, activations, forward_and_backward)


def grouped_cases() -> list[dict]:
    order = ("x", "gamma", "beta", "groups", "eps")
    cases = activations(groups=(1, 2, 1, 4))
    cases += [case | {"groups": 2} for case in cases[2:]]
    return [{key: case[key] for key in order} for case in cases]


def groups_recipe(dims=AXES["GN"], **steps):
    return norm(dims, **steps)


EXERCISES = (
    forward_exercise("bn_forward", "BN", batch_norm),
    forward_exercise("layer_norm", "LN", layer_norm),
    forward_exercise("instance_norm", "IN", instance_norm),
    Exercise(
        "group_norm",
        group_norm,
        groups_recipe,
        (*GROUP_MISTAKES, *axes_mistakes("GN"), *FORMULA_MISTAKES),
        grouped_cases,
        forward_and_backward,
    ),
)
