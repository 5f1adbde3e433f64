"""The norms as functions: index sets, forward and backward passes, batch norm's memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

from backstage.exercises import inputs
from backstage.exercises.inputs import Draw, activations, as_trained_on, finished, gradients
from backstage.exercises.judging import Trial, same

AFFINE = ("x", "gamma", "beta")


def means(answer, x: Tensor, groups: int) -> Iterator[tuple[str, object]]:
    found = finished(answer(x, groups))
    if not isinstance(found, dict) or not {"BN", "LN", "IN", "GN"} <= set(found):
        raise inputs.Unfit("return a dict with the keys 'BN', 'LN', 'IN' and 'GN'.")
    for name in ("BN", "LN", "IN", "GN"):
        yield f"{name}'s means", found[name]


def means_cases() -> list[dict]:
    return [{"x": c["x"], "groups": c["groups"]} for c in activations(groups=(1, 2, 4, 2, 3))]


def forward(answer, **case) -> Iterator[tuple[str, object]]:
    """x̂ by itself, the whole, and the gradients, which pass through the statistics too."""

    def call(*values):
        given = case | dict(zip(AFFINE, values, strict=True))
        return finished(answer(*given.values()))

    x, gamma, beta = (case[name] for name in AFFINE)
    scale, shift = gamma.clone().view(-1, 1, 1), beta.clone().view(-1, 1, 1)
    xhat = call(x.detach(), torch.ones_like(gamma), torch.zeros_like(beta))
    yield "x̂ (the output with γ = 1 and β = 0)", xhat
    for given in (x, gamma, beta):
        given.requires_grad_()
    y = call(x, gamma, beta)
    yield "the output", y
    for name, found in zip("xγβ", gradients(y, x, gamma, beta), strict=True):
        yield f"the gradient of {name}", found
    if x.dtype == torch.float32:
        yield "the output's type for images of float32", str(y.dtype)
    made = scale * xhat + shift if xhat.shape == x.shape else xhat
    yield "how γ and β are applied", "γ·x̂ + β" if same(made, y) else "in another way"


def ghost_cases() -> list[dict]:
    cases = activations(size=(2, 1, 2, 2, 1))
    cases[0]["x"] = cases[0]["x"].repeat(2, 1, 1, 1) + torch.tensor([0.0, 1, 3, 8]).view(4, 1, 1, 1)
    cases[3]["x"] = torch.cat([cases[3]["x"], 2 * cases[3]["x"].flip(0) + 1])
    return [*cases, cases[3] | {"size": 6}]


def group_cases() -> list[dict]:
    cases = activations(groups=(1, 2, 1, 4, 3))
    return [*cases, cases[2] | {"groups": 2}, cases[3] | {"groups": 2}]


def running_cases() -> list[dict]:
    cases = activations(momentum=(0.1, 0.3, 0.1, 1.0, 0.2))
    return [_running(c) | {"x": c["x"], "momentum": c["momentum"]} for c in cases]


def _running(case: dict) -> dict:
    channels, dtype = len(case["gamma"]), case["x"].dtype
    mean, var = Draw(9).normal(channels), Draw(8).positive(channels)
    return {"running_mean": mean.to(dtype), "running_var": var.to(dtype)}


def eval_cases() -> list[dict]:
    cases = [{"x": case["x"]} | _running(case) | case for case in activations()]
    cases[3]["running_var"][0] = 0.0  # ε is all that is left
    return cases


def backward_cases() -> list[dict]:
    cases = [{"dy": Draw(7).normal(*case["x"].shape), **case} for case in activations()]
    cases[4]["dy"] = as_trained_on(cases[4]["dy"])
    return [{name: case[name] for name in ("dy", "x", "gamma", "eps")} for case in cases]


TRIALS = {
    "index_sets": Trial(means_cases, means),
    "bn_forward": Trial(activations, forward),
    "running_statistics": Trial(running_cases, inputs.returned("running_mean", "running_var")),
    "bn_eval": Trial(eval_cases, forward),
    "layer_norm": Trial(activations, forward),
    "group_norm": Trial(group_cases, forward),
    "bn_backward": Trial(backward_cases, inputs.returned("dx", "dgamma", "dbeta")),
    "ghost_batch_norm": Trial(ghost_cases, forward),
}
