"""Batch norm's memory: the running statistics, and evaluation with them."""

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor

from backstage.exercises import norms
from backstage.exercises.cases import Draw, activations, returned
from backstage.exercises.exercise import Exercise, Mistake

DIMS = (0, 2, 3)

# ---------------------------------------------------------------------- running statistics


def variance(x: Tensor, dims=DIMS) -> Tensor:
    return x.var(dims, correction=1)


def blended(old: Tensor, new: Tensor, momentum: float) -> Tensor:
    return (1 - momentum) * old + momentum * new


def running_recipe(
    mean: Callable = lambda x: x.mean(DIMS), stored: Callable = variance, blend: Callable = blended
):
    def update(running_mean, running_var, x, momentum):
        mu, var = mean(x), stored(x)
        return blend(running_mean, mu, momentum), blend(running_var, var, momentum)

    return update


def running_oracle(running_mean, running_var, x, momentum):
    running_mean, running_var = running_mean.clone(), running_var.clone()
    F.batch_norm(x, running_mean, running_var, training=True, momentum=momentum)
    return running_mean, running_var


def running_cases() -> list[dict]:
    return [
        {
            "running_mean": Draw(9).normal(case["x"].shape[1]),
            "running_var": Draw(8).positive(case["x"].shape[1]),
            "x": case["x"],
            "momentum": (0.1, 0.3, 0.1, 1.0)[k],
        }
        for k, case in enumerate(activations())
    ]


BIASED_STORED = Mistake(
    "the biased variance stored",
    "Batch norm normalizes with the variance divided by n, but what it stores is divided by n - 1.",
    {"stored": lambda x: x.var(DIMS, correction=0)},
)
REVERSED = Mistake(
    "the momentum reversed",
    "In PyTorch, `momentum` is the weight of the new value, and 1 - momentum that of the old one.",
    {"blend": lambda old, new, momentum: momentum * old + (1 - momentum) * new},
)
STD_STORED = Mistake(
    "the standard deviation stored",
    "What is kept is the variance; its root is taken only when it is used.",
    {"stored": lambda x: x.std(DIMS)},
)
RUNNING_MISTAKES = (
    BIASED_STORED,
    REVERSED,
    STD_STORED,
    Mistake(
        "the new statistics without the old ones",
        "Part of the old value stays: it is a running average.",
        {"blend": lambda old, new, momentum: new},
    ),
    Mistake(
        "the new value added to the whole old one",
        "The two weights have to add up to 1, or the average grows from step to step.",
        {"blend": lambda old, new, momentum: old + momentum * new},
    ),
    Mistake(
        "the old statistics returned as they were",
        "lerp() and the like give a new tensor; lerp_() writes into the old one.",
        {"blend": lambda old, new, momentum: old},
    ),
    Mistake(
        "the variance over the batch alone",
        "All pixels of a channel count: average over N, H and W.",
        {"stored": lambda x: x.var(0, correction=0).mean((1, 2))},
    ),
)

# ------------------------------------------------------------------------------ evaluation


def eval_recipe(
    mean: Callable = lambda mu, x: mu,
    var: Callable = lambda var, x: var,
    root: Callable = norms.root_of_sum,
    affine: Callable = norms.per_channel,
):
    def evaluate(x, running_mean, running_var, gamma, beta, eps):
        mu, sigma2 = mean(running_mean, x), var(running_var, x)
        xhat = (x - mu.view(-1, 1, 1)) / root(sigma2, eps).view(-1, 1, 1)
        return affine(xhat, gamma, beta)

    return evaluate


def eval_oracle(x, running_mean, running_var, gamma, beta, eps):
    return F.batch_norm(x, running_mean, running_var, gamma, beta, training=False, eps=eps)


def eval_cases() -> list[dict]:
    cases = [
        {
            "x": case["x"],
            "running_mean": Draw(9).normal(len(case["gamma"])),
            "running_var": Draw(8).positive(len(case["gamma"])),
            **{key: case[key] for key in ("gamma", "beta", "eps")},
        }
        for case in activations()
    ]
    cases[3]["running_var"][0] = 0.0  # ε is all that is left
    return cases


def of_batch(x: Tensor) -> Tensor:
    return x.var(DIMS, correction=0)


FROM_BATCH = {
    "mean": lambda mu, x: x.mean(DIMS),
    "var": lambda var, x: of_batch(x),
}
EVAL_MISTAKES = (
    Mistake(
        "the batch's own statistics",
        "In evaluation an image must not depend on its batch-mates: use the running statistics.",
        FROM_BATCH,
    ),
    Mistake(
        "the running mean with the batch's variance",
        "Both come from the running statistics.",
        {"var": FROM_BATCH["var"]},
    ),
    Mistake(
        "the batch's mean with the running variance",
        "Both come from the running statistics.",
        {"mean": FROM_BATCH["mean"]},
    ),
    *[
        m
        for m in norms.FORMULA_MISTAKES
        if m.change.keys() & {"root", "affine"} and m is not norms.NO_AFFINE_GRADIENT
    ],
)


def eval_output(answer, **case) -> Iterator[tuple[str, object]]:
    yield "the output", answer(*case.values())


EXERCISES = (
    Exercise(
        "running_statistics",
        running_oracle,
        running_recipe,
        RUNNING_MISTAKES,
        running_cases,
        returned("running_mean", "running_var"),
    ),
    Exercise("bn_eval", eval_oracle, eval_recipe, EVAL_MISTAKES, eval_cases, eval_output),
)
