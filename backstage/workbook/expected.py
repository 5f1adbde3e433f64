"""What PyTorch says: every number of the workbook, by its layers and autograd in float64.

Sources: batch norm arXiv 1502.03167 (Algorithm 1), layer norm 1607.06450 (section 3), group norm
1803.08494 (section 3.1), the gradient through μ and σ 1911.07013 (section 3).
"""

import torch
from torch import Tensor, nn

from backstage.workbook.given import LISTS, Inputs
from s6_model import AXES, make_norm

NORMS = ("bn", "ln", "gn")


def over_sets(norm: str, x: Tensor, groups: int, statistic) -> Tensor:
    """`statistic(x, dims)` of the set that image n and channel c belong to, (N, C)."""
    split = x.view(4, groups, 4 // groups, 2, 2)
    return statistic(split, AXES[norm.upper()]).expand(4, groups, 4 // groups, 1, 1).reshape(4, 4)


def mean(x: Tensor, dims) -> Tensor:
    return x.mean(dims, keepdim=True)


def variance(x: Tensor, dims) -> Tensor:
    return x.var(dims, correction=0, keepdim=True)


def named(norm: str, stat: Tensor) -> Tensor:
    """(N, C) -> one number per name: (C,) for BN, (N,) for LN, (N, C) for GN."""
    return {"bn": stat[0], "ln": stat[:, 0], "gn": stat}[norm]


def layer(norm: str, given: Inputs, affine: bool = True) -> nn.Module:
    """The lesson's layer over 4 channels in float64; without `affine`, γ = 1 and β = 0."""
    made = make_norm(norm.upper(), 4, given.groups).double()
    made.eps = max(given.eps, 1e-300)  # BatchNorm2d refuses 0; beside any σ² this is as good as 0
    if norm == "bn":
        made.momentum = given.momentum
    if affine:
        made.load_state_dict({"weight": given.gamma, "bias": given.beta}, strict=False)
    return made


def forward(norm: str, x: Tensor, given: Inputs) -> dict[str, Tensor]:
    """Statistics and outputs, (N, C, H, W) -> mean, var, xhat, y."""
    xhat, y = (layer(norm, given, affine)(x).detach() for affine in (False, True))
    stats = [named(norm, over_sets(norm, x, given.groups, f)) for f in (mean, variance)]
    return {"mean": stats[0], "var": stats[1], "xhat": xhat, "y": y}


def backward(norm: str, given: Inputs, xhat: Tensor) -> dict[str, Tensor]:
    """Gradients by autograd; `held` is what dx would be if μ and σ were constants."""
    x, made = given.used_x.requires_grad_(), layer(norm, given)
    made(x).backward(given.dy)
    root = (over_sets(norm, x.detach(), given.groups, variance) + given.eps).sqrt()
    held = given.gamma.view(1, 4, 1, 1) * given.dy / root.view(4, 4, 1, 1)
    out = {"held": held, "pull": held * xhat, "dx": x.grad}
    for key, array in list(out.items()):
        for name, statistic in (("mean", mean), ("var", variance)):
            out[f"{key}_{name}"] = named(norm, over_sets(norm, array, given.groups, statistic))
    del out["pull_var"]
    return out | {"dgamma": made.weight.grad, "dbeta": made.bias.grad}


def running(given: Inputs) -> dict[str, Tensor]:
    """BN's statistics before and after each of three training steps; layer N in eval mode."""
    bn, bare, steps = layer("bn", given), layer("bn", given, affine=False), {}
    for batch in (given.used_x, given.step2_x, given.step3_x):
        row = {"before_mean": bn.running_mean.clone(), "before_var": bn.running_var.clone()}
        row["batch_mean"] = batch.mean((0, 2, 3))
        row["batch_var"] = batch.var((0, 2, 3), correction=0)
        row["batch_unbiased"] = batch.var((0, 2, 3), correction=1)
        for made in (bn, bare):
            made.train()(batch)
        row |= {"run_mean": bn.running_mean.clone(), "run_var": bn.running_var.clone()}
        for key, value in row.items():
            steps.setdefault(key, []).append(value)
    out = {key: torch.stack(value) for key, value in steps.items()}
    x = given.used_x
    return out | {"eval_xhat": bare.eval()(x).detach(), "eval_y": bn.eval()(x).detach()}


def explained(given: Inputs, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The chosen pixel's x, x̂ and y, and the size, μ and σ² of its set."""
    norm, groups = given.explain_norm.lower(), given.groups
    n, c = given.explain_image - 1, given.explain_channel - 1
    i, j = divmod(LISTS["explain_pixel"].index(given.explain_pixel), 2)
    size = {"bn": 16, "ln": 16, "gn": 16 // groups}[norm]
    out = {"explain_size": torch.tensor(float(size)), "explain_x": given.used_x[n, c, i, j]}
    at = {"bn": (c,), "ln": (n,), "gn": (n, c)}[norm]
    out |= {f"explain_{key}": found[f"{norm}_{key}"][at] for key in ("mean", "var")}
    return out | {f"explain_{key}": found[f"{norm}_{key}"][n, c, i, j] for key in ("xhat", "y")}


def reference(given: Inputs | None = None) -> dict[str, Tensor]:
    """Every computed number of the workbook by its name, from the delivered inputs or others.

    `{bn,ln,gn}_{mean,var,xhat,y}` and the same with `next_` for layer N+1; of the gradient
    `_{held,pull,dx}`, their means and variances, `_{dgamma,dbeta}`; BN's `batch_*`, `run_*` and
    `eval_*`; `explain_*`. Pixels are (4, 4, 2, 2); one number per channel or image is (4,), per
    image and channel or step and channel (4, 4) or (3, 4).
    """
    given, found = given or Inputs(), {}
    for norm in NORMS:
        for prefix, x in (("", given.used_x), ("next_", given.next_x)):
            found |= {f"{prefix}{norm}_{k}": v for k, v in forward(norm, x, given).items()}
        pieces = backward(norm, given, found[f"{norm}_xhat"])
        found |= {f"{norm}_{key}": value for key, value in pieces.items()}
    found |= running(given) | {"used_x": given.used_x, "step1_x": given.used_x}
    found["train_y"] = found["bn_y"]
    found["eval_gap"] = (found["eval_y"] - found["train_y"]).square().mean().sqrt()
    return found | explained(given, found)
