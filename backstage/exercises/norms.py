"""The norms as functions: index sets, forward and backward passes, batch norm's memory."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from backstage.exercises import inputs
from backstage.exercises.inputs import Draw, activations, as_trained_on, finished, gradients
from backstage.exercises.judging import Trial, same


def means(answer, x: Tensor, groups: int) -> Iterator[tuple[str, object]]:
    found = finished(answer(x, groups))
    if not isinstance(found, dict) or not {"BN", "LN", "IN", "GN"} <= set(found):
        raise inputs.Unfit("return a dict with the keys 'BN', 'LN', 'IN' and 'GN'.")
    for name in ("BN", "LN", "IN", "GN"):
        yield f"{name}'s means", found[name]


def means_by_loops(x: Tensor, groups: int) -> dict[str, Tensor]:
    """Value by value, as the definition says."""
    n, c = x.shape[:2]
    return {
        "BN": torch.stack([x[:, k].mean() for k in range(c)]),
        "LN": torch.stack([image.mean() for image in x]),
        "IN": torch.stack([torch.stack([plane.mean() for plane in image]) for image in x]),
        "GN": torch.tensor([[g.mean() for g in image.split(c // groups)] for image in x]),
    }


def means_cases() -> list[dict]:
    return [{"x": c["x"], "groups": c["groups"]} for c in activations(groups=(1, 2, 4, 2, 3))]


def forward(answer, x, gamma, beta, *, order, **rest) -> Iterator[tuple[str, object]]:
    """x̂ by itself, the whole, and the gradients, which pass through the statistics too."""

    def call(x, gamma, beta):
        given = {"x": x, "gamma": gamma, "beta": beta} | rest
        return finished(answer(*(given[name] for name in order)))

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


def forward_trial(oracle, order: tuple[str, ...], cases=activations) -> Trial:
    """Of a function with these arguments, x, gamma and beta among them."""

    def ordered() -> list[dict]:
        return [{name: case[name] for name in order} for case in cases()]

    def observe(answer, **case):
        return forward(answer, case.pop("x"), case.pop("gamma"), case.pop("beta"), order=order,
                       **case)  # fmt: skip

    return Trial(oracle, ordered, observe)


def batch_norm(x, gamma, beta, eps):
    return F.batch_norm(x, None, None, gamma, beta, training=True, eps=eps)


def ghost(x, gamma, beta, size, eps):
    return torch.cat([batch_norm(part, gamma, beta, eps) for part in x.split(size)])


def ghost_cases() -> list[dict]:
    cases = activations(size=(2, 1, 2, 2, 1))
    cases[0]["x"] = cases[0]["x"].repeat(2, 1, 1, 1) + torch.tensor([0.0, 1, 3, 8]).view(4, 1, 1, 1)
    cases[3]["x"] = torch.cat([cases[3]["x"], 2 * cases[3]["x"].flip(0) + 1])
    return [*cases, cases[3] | {"size": 6}]


def group_cases() -> list[dict]:
    cases = activations(groups=(1, 2, 1, 4, 3))
    return [*cases, cases[2] | {"groups": 2}, cases[3] | {"groups": 2}]


def updated(running_mean, running_var, x, momentum):
    running_mean, running_var = running_mean.clone(), running_var.clone()
    F.batch_norm(x, running_mean, running_var, training=True, momentum=momentum)
    return running_mean, running_var


def running_cases() -> list[dict]:
    cases = activations(momentum=(0.1, 0.3, 0.1, 1.0, 0.2))
    return [_running(c) | {"x": c["x"], "momentum": c["momentum"]} for c in cases]


def _running(case: dict) -> dict:
    channels, dtype = len(case["gamma"]), case["x"].dtype
    mean, var = Draw(9).normal(channels), Draw(8).positive(channels)
    return {"running_mean": mean.to(dtype), "running_var": var.to(dtype)}


def evaluated(x, running_mean, running_var, gamma, beta, eps):
    return F.batch_norm(x, running_mean, running_var, gamma, beta, training=False, eps=eps)


def eval_cases() -> list[dict]:
    cases = [case | _running(case) for case in activations()]
    cases[3]["running_var"][0] = 0.0  # ε is all that is left
    return cases


def by_autograd(dy, x, gamma, eps):
    x, gamma, beta = (v.detach().requires_grad_() for v in (x, gamma, torch.zeros_like(gamma)))
    with torch.enable_grad():
        return torch.autograd.grad(batch_norm(x, gamma, beta, eps), (x, gamma, beta), dy)


def backward_cases() -> list[dict]:
    cases = [{"dy": Draw(7).normal(*case["x"].shape), **case} for case in activations()]
    cases[4]["dy"] = as_trained_on(cases[4]["dy"])
    return [{name: case[name] for name in ("dy", "x", "gamma", "eps")} for case in cases]


RUNNING = inputs.returned("running_mean", "running_var")
AFFINE = ("x", "gamma", "beta")
TRIALS = {
    "index_sets": Trial(means_by_loops, means_cases, means),
    "bn_forward": forward_trial(batch_norm, (*AFFINE, "eps")),
    "running_statistics": Trial(updated, running_cases, RUNNING),
    "bn_eval": forward_trial(
        evaluated, ("x", "running_mean", "running_var", "gamma", "beta", "eps"), eval_cases
    ),
    "layer_norm": forward_trial(lambda x, *v: F.group_norm(x, 1, *v), (*AFFINE, "eps")),
    "group_norm": forward_trial(
        lambda x, gamma, beta, groups, eps: F.group_norm(x, groups, gamma, beta, eps),
        (*AFFINE, "groups", "eps"), group_cases,
    ),
    "bn_backward": Trial(by_autograd, backward_cases, inputs.returned("dx", "dgamma", "dbeta")),
    "ghost_batch_norm": forward_trial(ghost, (*AFFINE, "size", "eps"), ghost_cases),
}  # fmt: skip
