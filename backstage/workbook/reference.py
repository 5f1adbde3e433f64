"""What PyTorch says: every number of the workbook, by its layers and autograd in float64.

Sources: batch norm arXiv 1502.03167 (Algorithm 1), layer norm 1607.06450 (section 3), group norm
1803.08494 (section 3.1), the gradient through μ and σ 1911.07013 (section 3).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from backstage.workbook.inputs import LISTS, TINY, UNDEFINED, Inputs
from s6_model import AXES, make_norm


@dataclass(frozen=True)
class Norm:
    """A norm's title, the dimensions of x.reshape(N, G, C/G, H, W) it averages over, its colour."""

    title: str
    dims: tuple[int, ...]
    color: str  # as in the lesson's plots

    @property
    def over_images(self) -> bool:
        return 0 in self.dims

    @property
    def over_channels(self) -> bool:
        return 1 in self.dims


NORMS = {  # the set that is averaged together is the only difference between the three
    "bn": Norm("Batch norm", AXES["BN"], "0072B2"),
    "ln": Norm("Layer norm", AXES["LN"], "E69F00"),
    "gn": Norm("Group norm", AXES["GN"], "009E73"),
}


def grouped(x: Tensor, groups: int) -> Tensor:
    """(N, C, H, W) -> (N, G, C/G, H, W), the shape whose dimensions `Norm.dims` counts."""
    return x.reshape(len(x), groups, -1, *x.shape[2:])


def index_sets(norm: str, x: Tensor, groups: int) -> Tensor:
    """x (N, C, H, W) -> (sets, values): one row for each set that is normalized together."""
    split, dims = grouped(x, groups), NORMS[norm].dims
    kept = [d for d in range(5) if d not in dims]
    return split.permute(*kept, *dims).reshape(math.prod(split.shape[d] for d in kept), -1)


def over_sets(norm: str, x: Tensor, groups: int, statistic) -> Tensor:
    """`statistic(x, dims)` of the set of each image and channel, (N, C, 1, 1)."""
    stat = statistic(grouped(x, groups), NORMS[norm].dims)
    return stat.expand(4, groups, 4 // groups, 1, 1).reshape(4, 4, 1, 1)


def mean_of(x: Tensor, dims) -> Tensor:
    return x.mean(dims, keepdim=True)


def variance_of(x: Tensor, dims) -> Tensor:
    """The population variance; of a constant set it is exactly 0."""
    same = x.amax(dims, keepdim=True) == x.amin(dims, keepdim=True)
    return torch.where(same, 0.0, x.var(dims, correction=0, keepdim=True))


def named(norm: str, stat: Tensor) -> Tensor:
    """(N, C, 1, 1) -> one number per name: (C,) for BN, (N,) for LN, (N, C) for GN."""
    first = (NORMS[norm].over_images, NORMS[norm].over_channels)
    return stat[tuple(0 if averaged else slice(None) for averaged in first) + (0, 0)]


def layer(norm: str, inputs: Inputs, affine: bool = True) -> nn.Module:
    """The lesson's layer for "bn", "ln" or "gn" over 4 channels, in float64, with γ and β.

    Without `affine`, γ = 1 and β = 0 as a layer starts: its output is x̂.
    """
    made = make_norm(norm.upper(), 4, inputs.groups).double()
    made.eps = max(inputs.eps, 1e-300)  # BatchNorm2d refuses 0; beside any σ² this is as good as 0
    if norm == "bn":
        made.momentum = inputs.momentum
    if affine:
        made.load_state_dict(
            {"weight": torch.tensor(inputs.gamma), "bias": torch.tensor(inputs.beta)}, strict=False
        )
    return made


def _forward(norm: str, x: Tensor, inputs: Inputs) -> dict[str, Tensor]:
    mean, var = (over_sets(norm, x, inputs.groups, f) for f in (mean_of, variance_of))
    undefined = (var + inputs.eps <= TINY).expand_as(x)
    xhat, y = (layer(norm, inputs, affine)(x).detach() for affine in (False, True))
    return {
        "mean": named(norm, mean),
        "var": named(norm, var),
        "xhat": xhat.masked_fill(undefined, math.nan),
        "y": y.masked_fill(undefined, math.nan),
    }


def _backward(norm: str, x: Tensor, inputs: Inputs) -> dict[str, Tensor]:
    """Gradients by autograd, and `held`: what dx would be if μ and σ were constants."""
    mean, var = (over_sets(norm, x, inputs.groups, f) for f in (mean_of, variance_of))
    undefined = (var + inputs.eps <= TINY).expand_as(x)
    x, dy, made = x.clone().requires_grad_(), torch.tensor(inputs.dy), layer(norm, inputs)
    made(x).backward(dy)
    gamma = torch.tensor(inputs.gamma).reshape(1, 4, 1, 1)
    (held,) = torch.autograd.grad(gamma * (x - mean) / torch.sqrt(var + inputs.eps), x, dy)
    dx, held = (g.masked_fill(undefined, math.nan) for g in (x.grad, held))
    channel = undefined.any(3).any(2).any(0)
    out = {"held": held, "dx": dx, "dbeta": made.bias.grad}
    out["dgamma"] = made.weight.grad.masked_fill(channel, math.nan)
    pull = held * _forward(norm, x.detach(), inputs)["xhat"]
    for key, value in (("held", held), ("dx", dx), ("pull", pull)):
        out[key + "_mean"] = named(norm, over_sets(norm, value, inputs.groups, mean_of))
        out[key + "_var"] = named(norm, over_sets(norm, value, inputs.groups, variance_of))
    del out["pull_var"]
    return out


def _running(inputs: Inputs) -> dict[str, Tensor]:
    """BN's statistics before and after each of three training steps; layer N in eval mode."""
    bn, bare = layer("bn", inputs), layer("bn", inputs, affine=False)
    steps: dict[str, list[Tensor]] = {}
    for batch in map(torch.tensor, (inputs.used_x, inputs.step2_x, inputs.step3_x)):
        mean, var = (named("bn", over_sets("bn", batch, 1, f)) for f in (mean_of, variance_of))
        row = {"batch_mean": mean, "batch_var": var, "batch_unbiased": var * 16 / 15}
        row |= {"before_mean": bn.running_mean.clone(), "before_var": bn.running_var.clone()}
        for made in (bn, bare):
            made.train()(batch)  # of a constant, PyTorch's rounding leaves 1e-20 in place of 0
            left = (1 - inputs.momentum) * row["before_var"]
            made.running_var.copy_(torch.where(var == 0, left, made.running_var))
        row |= {"run_mean": bn.running_mean.clone(), "run_var": bn.running_var.clone()}
        for key, value in row.items():
            steps.setdefault(key, []).append(value)
    out, x = {key: torch.stack(value) for key, value in steps.items()}, torch.tensor(inputs.used_x)
    undefined = (bn.running_var + inputs.eps <= TINY).reshape(1, 4, 1, 1).expand_as(x)
    for key, made in (("eval_xhat", bare), ("eval_y", bn)):
        out[key] = made.eval()(x).detach().masked_fill(undefined, math.nan)
    return out


def chosen(inputs: Inputs) -> tuple[str, tuple[int, int, int, int]]:
    """The pixel to explain: its norm, and (n, c, i, j) counted from 0."""
    i, j = divmod(LISTS["explain_pixel"].index(inputs.explain_pixel), 2)
    at = (inputs.explain_image - 1, inputs.explain_channel - 1, i, j)
    return inputs.explain_norm.lower(), at


def _explained(inputs: Inputs, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The chosen pixel's set S as 0 and 1, and its μ, σ², x, x̂ and y."""
    norm, (n, c, i, j) = chosen(inputs)
    numbers = grouped(torch.arange(64).reshape(4, 4, 2, 2), inputs.groups)
    at = (n, *divmod(c, 4 // inputs.groups), i, j)
    members = numbers[tuple(slice(None) if d in NORMS[norm].dims else at[d] for d in range(5))]
    in_set = torch.zeros(64, dtype=torch.float64).index_fill(0, members.flatten(), 1.0)
    averaged = (NORMS[norm].over_images, NORMS[norm].over_channels)
    index = tuple(k for k, gone in zip((n, c), averaged, strict=True) if not gone)
    out = {"in_set": in_set.reshape(4, 4, 2, 2), "explain_size": in_set.sum()}
    out |= {f"explain_{key}": found[f"{norm}_{key}"][index] for key in ("mean", "var")}
    out["explain_x"] = found["used_x"][n, c, i, j]
    return out | {f"explain_{key}": found[f"{norm}_{key}"][n, c, i, j] for key in ("xhat", "y")}


def _charted(inputs: Inputs, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tables behind the charts, all about the channel to explain."""
    c = inputs.explain_channel - 1
    out = {"chart_x": found["used_x"][:, c].flatten()}
    for norm in NORMS:
        out |= {f"chart_{norm}_{k}": found[f"{norm}_{k}"][:, c].flatten() for k in ("xhat", "y")}
        for key in ("held_var", "dx_var"):
            stat = found[f"{norm}_{key}"]
            out[f"chart_{norm}_{key}"] = stat[:, c] if stat.ndim == 2 else stat
    for key, stored in (("mean", "mean"), ("var", "unbiased")):
        start = found[f"before_{key}"][:1, c]
        out[f"chart_run_{key}"] = torch.cat([start, found[f"run_{key}"][:, c]])
        out[f"chart_batch_{key}"] = found[f"batch_{stored}"][:, c]
    return out


def _same_as(found: dict[str, np.ndarray], prefix: str, key: str) -> np.ndarray:
    """What the sheet says beside GN's statistics of each image: "= LN", "= IN" or nothing."""
    gn, ln = found[f"{prefix}gn_{key}"], found[f"{prefix}ln_{key}"]
    x = found["next_x" if prefix else "used_x"].reshape(4, 4, 4)
    alone = x.mean(2) if key == "mean" else x.var(2)
    near = 1e-9 * np.abs(x).max((1, 2)) ** (1 if key == "mean" else 2)
    is_ln = np.abs(gn - ln[:, None]).sum(1) <= near
    is_in = np.abs(gn - alone).sum(1) <= near
    return np.where(is_ln, "= LN", np.where(is_in, "= IN", ""))


def reference(inputs: Inputs) -> dict[str, np.ndarray]:
    """Every computed quantity of the workbook, by PyTorch's layers and autograd in float64.

    nan stands where σ² and ε are both 0. Quantities: `{bn,ln,gn}_{mean,var,xhat,y}`, the same with
    `next_` for layer N+1, `_{dx,dgamma,dbeta,held,...}`, `run_*` and `eval_*`, `explain_*`,
    `chart_*`; and two of text, `gn_mean_is` and `gn_var_is`.
    """
    used, found = torch.tensor(inputs.used_x), {}
    found["used_x"] = found["step1_x"] = used
    for norm in NORMS:
        for prefix, x in (("", used), ("next_", torch.tensor(inputs.next_x))):
            result = _forward(norm, x, inputs)
            found |= {f"{prefix}{norm}_{key}": value for key, value in result.items()}
        found |= {f"{norm}_{key}": value for key, value in _backward(norm, used, inputs).items()}
    found |= _running(inputs) | {"train_y": found["bn_y"]}  # BN's y is shown a second time
    found["eval_gap"] = (found["eval_y"] - found["train_y"]).square().mean().sqrt()
    found |= _explained(inputs, found) | _charted(inputs, found)
    out = {key: value.numpy() for key, value in found.items()}
    for prefix in ("", "next_"):
        texts = {k: _same_as(out | {"next_x": inputs.next_x}, prefix, k) for k in ("mean", "var")}
        out |= {f"{prefix}gn_{key}_is": text for key, text in texts.items()}
    return out


def shown(value) -> float | str:
    """The value a formula shows: a number or text, the sheet's word for nan; never minus zero."""
    if isinstance(value, str):
        return str(value)
    return UNDEFINED if math.isnan(value) else float(value) + 0.0
