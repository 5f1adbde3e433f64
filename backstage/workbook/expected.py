"""What PyTorch says: every number of the workbook, by its layers and autograd in float64.

Sources: batch norm arXiv 1502.03167 (Algorithm 1), layer norm 1607.06450 (section 3), group norm
1803.08494 (section 3.1), the gradient through μ and σ 1911.07013 (section 3).
"""

import torch
from torch import Tensor, nn

from backstage.workbook.given import LISTS, Inputs
from s6_model import AXES, make_norm

NORMS = ("bn", "ln", "gn")


def statistics(norm: str, array: Tensor, groups: int) -> dict[str, Tensor]:
    """Mean and population variance of the set that image n, channel c belong to, (N, C) each."""
    split, dims = array.view(4, groups, 4 // groups, 2, 2), AXES[norm.upper()]
    var, mean = torch.var_mean(split, dims, correction=0, keepdim=True)
    constant = split.amax(dims, keepdim=True) == split.amin(dims, keepdim=True)
    both = {"mean": mean, "var": torch.where(constant, 0.0, var)}  # where rounding leaves 1e-33
    return {key: s.expand(4, groups, 4 // groups, 1, 1).reshape(4, 4) for key, s in both.items()}


def named(norm: str, prefix: str, both: dict[str, Tensor]) -> dict[str, Tensor]:
    """(N, C) -> one number per name: (C,) for BN, (N,) for LN, (N, C) for GN."""
    at = {"bn": 0, "ln": (slice(None), 0), "gn": ...}[norm]
    return {f"{prefix}{key}": statistic[at] for key, statistic in both.items()}


def layer(norm: str, given: Inputs) -> nn.Module:
    """The lesson's layer over 4 channels in float64, with γ = 1 and β = 0 still."""
    made = make_norm(norm.upper(), 4, given.groups).double()
    made.eps = max(given.eps, 1e-300)  # BatchNorm2d refuses 0; beside any σ² this is as good as 0
    return made


def defined(array: Tensor, squared: Tensor) -> Tensor:
    """The array with nan where the square of what it was divided by, (N, C) or (C,), is 0."""
    return array.detach().masked_fill((squared == 0)[..., None, None].expand(4, 4, 2, 2), torch.nan)


def one_norm(norm: str, x: Tensor, given: Inputs) -> dict[str, Tensor]:
    """x (N, C, H, W) -> its statistics, outputs and gradients, by autograd.

    `held` is what dx would be if μ and σ were constants, `pull` that times x̂.
    """
    both, made, x = statistics(norm, x, given.groups), layer(norm, given), x.clone()
    squared = both["var"] + given.eps
    xhat = made(x)
    made.load_state_dict({"weight": given.gamma, "bias": given.beta}, strict=False)
    y = made(x.requires_grad_())
    y.backward(given.dy)
    held = given.gamma.view(1, 4, 1, 1) * given.dy / squared.sqrt().view(4, 4, 1, 1)
    arrays = {"xhat": xhat, "y": y, "held": held, "pull": held * xhat, "dx": x.grad}
    arrays = {key: defined(array, squared) for key, array in arrays.items()}
    out = named(norm, "", both) | arrays
    for key in ("held", "pull", "dx"):
        out |= named(norm, f"{key}_", statistics(norm, arrays[key], given.groups))
    dgamma = made.weight.grad + 0 * arrays["xhat"].sum((0, 2, 3))  # nan where an x̂ is
    return out | {"dgamma": dgamma, "dbeta": made.bias.grad}


def running(given: Inputs) -> dict[str, Tensor]:
    """BN's statistics before and after each of three training steps; layer N in eval mode."""
    bn, rows, axes = layer("bn", given), [], (0, 2, 3)
    bn.momentum = given.momentum
    for batch in (given.used_x, given.step2_x, given.step3_x):
        row = {"before_mean": bn.running_mean.clone(), "before_var": bn.running_var.clone(),
               "batch_mean": batch.mean(axes), "batch_var": batch.var(axes, correction=0),
               "batch_unbiased": batch.var(axes, correction=1)}  # fmt: skip
        bn(batch)
        rows.append(row | {"run_mean": bn.running_mean.clone(), "run_var": bn.running_var.clone()})
    out = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    used, squared = given.used_x, bn.running_var + given.eps
    out["eval_xhat"] = defined(bn.eval()(used), squared)
    bn.load_state_dict({"weight": given.gamma, "bias": given.beta}, strict=False)
    return out | {"eval_y": defined(bn(used), squared)}


def explained(given: Inputs, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The chosen pixel's x, x̂ and y, and the size, μ and σ² of its set."""
    norm, groups = given.explain_norm.lower(), given.groups
    n, c = given.explain_image - 1, given.explain_channel - 1
    i, j = divmod(LISTS["explain_pixel"].index(given.explain_pixel), 2)
    rows, columns = {"bn": (8, 2), "ln": (2, 8), "gn": (2, 8 // groups)}[norm]
    box = {"set_row": 2 * n // rows * rows + 1, "set_column": 2 * c // columns * columns + 1,
           "set_rows": rows, "set_columns": columns, "explain_size": rows * columns}  # fmt: skip
    out = {key: torch.tensor(float(value)) for key, value in box.items()}
    out["explain_x"] = given.used_x[n, c, i, j]
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
        for name, value in one_norm(norm, given.used_x, given).items():
            found[f"{norm}_{name}"] = value
        following = one_norm(norm, given.next_x, given)
        found |= {f"next_{norm}_{key}": following[key] for key in ("mean", "var", "xhat", "y")}
    found |= running(given) | {"used_x": given.used_x, "step1_x": given.used_x}
    found["train_y"] = found["bn_y"]
    found["eval_gap"] = (found["eval_y"] - found["train_y"]).square().mean().sqrt()
    return found | explained(given, found)
