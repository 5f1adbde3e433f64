"""How far a right sheet may be from PyTorch, in closed form.

A number may be off by 1e-9 of the scale of its set S, and by what float64 and 15 written digits
blur, which counts where a small difference is taken of large numbers: with r = BLUR · max|x| /
√(σ² + ε), x̂ is off by r, √(σ² + ε) by its r-th part, and what is made of them accordingly.
"""

import numpy as np
import torch

from backstage.workbook.inputs import Inputs
from backstage.workbook.reference import NORMS, chosen, named, over_sets

RELATIVE = 1e-9
# 16 roundings in float64; and a pixel and its mean in 15 digits, which is what programs write.
BLUR = 16 * 2.0**-52 + 1e-14


def allowances(inputs: Inputs, expected: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How far each number may be off, an array of its shape; 0 for texts."""
    # Where σ² and ε are both 0 there is no number to be off: 0/0, and r is infinite.
    with np.errstate(divide="ignore", invalid="ignore"):
        return _allowances(inputs, expected)


def _allowances(inputs: Inputs, expected: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    typed = np.abs(inputs.multiply.reshape(4, 1, 1, 1) * inputs.x)
    large = typed + np.abs(inputs.add.reshape(1, 4, 1, 1)) + 0 * inputs.x
    out = {key: np.zeros(value.shape) for key, value in expected.items()}
    out["used_x"] = out["step1_x"] = RELATIVE * np.abs(inputs.used_x) + BLUR * large
    for norm in NORMS:
        for prefix, x in (("", large), ("next_", inputs.next_x)):
            _forward(out, norm, prefix, np.abs(x), inputs, expected)
        _backward(out, norm, large, inputs, expected)
    _running(out, large, inputs, expected)
    out["train_y"] = out["bn_y"]
    gap = RELATIVE * np.abs(expected["eval_gap"])
    out["eval_gap"] = gap + out["eval_y"].max() + out["bn_y"].max()
    _copied(out, inputs)
    return {key: np.nan_to_num(value, nan=0.0, posinf=np.inf) for key, value in out.items()}


def _largest(norm: str, x: np.ndarray, groups: int) -> np.ndarray:
    """The largest absolute value of each pixel's set, (N, C, 1, 1)."""
    tensor = torch.tensor(np.nan_to_num(np.abs(x)))
    return over_sets(norm, tensor, groups, lambda t, dims: t.amax(dims, keepdim=True)).numpy()


def _spread(norm: str, var: np.ndarray) -> np.ndarray:
    """A statistic as its names have it -> (N, C, 1, 1)."""
    shape = {1: (1, 4, 1, 1) if norm == "bn" else (4, 1, 1, 1), 2: (4, 4, 1, 1)}[var.ndim]
    return np.broadcast_to(var.reshape(shape), (4, 4, 1, 1))


def _named(norm: str, stat: np.ndarray) -> np.ndarray:
    return named(norm, torch.tensor(np.ascontiguousarray(stat))).numpy()


def _ratio(norm: str, prefix: str, large, inputs, expected) -> np.ndarray:
    """r of each pixel's set, (N, C, 1, 1)."""
    root = np.sqrt(_spread(norm, expected[f"{prefix}{norm}_var"]) + inputs.eps)
    return BLUR * _largest(norm, large, inputs.groups) / root


def _forward(out, norm, prefix, large, inputs, expected) -> None:
    key = f"{prefix}{norm}"
    big = _largest(norm, large, inputs.groups)
    sigma = np.sqrt(_spread(norm, expected[f"{key}_var"]))
    r = _ratio(norm, prefix, large, inputs, expected)
    hat = _largest(norm, expected[f"{key}_xhat"], inputs.groups)
    one = np.ones((1, 1, 2, 2))
    gamma, beta = (np.abs(v).reshape(1, 4, 1, 1) for v in (inputs.gamma, inputs.beta))
    out[f"{key}_mean"] = _named(norm, RELATIVE * sigma + BLUR * big)
    out[f"{key}_var"] = _named(
        norm, RELATIVE * sigma**2 + 2 * BLUR * big * sigma + (BLUR * big) ** 2
    )
    out[f"{key}_xhat"] = (RELATIVE * hat + r * (1 + hat)) * one
    tile = np.nan_to_num(np.abs(expected[f"{key}_y"])).max((2, 3), keepdims=True)
    out[f"{key}_y"] = (RELATIVE * tile + (r + BLUR) * gamma * (1 + hat) + BLUR * beta) * one


def _backward(out, norm, large, inputs, expected) -> None:
    r = _ratio(norm, "", large, inputs, expected)
    h, hat = (_largest(norm, expected[f"{norm}_{k}"], inputs.groups) for k in ("held", "xhat"))
    loose = RELATIVE + (r + BLUR) * (1 + hat) ** 2  # of the full gradient, relative to h
    one = np.ones((1, 1, 2, 2))
    out[f"{norm}_held"] = (RELATIVE + r + BLUR) * h * one
    out[f"{norm}_dx"] = loose * h * one
    for key, stat in (
        ("held_mean", (RELATIVE + r + BLUR) * h), ("dx_mean", loose * h),
        ("held_var", (RELATIVE + 2 * r + BLUR) * h**2), ("dx_var", 2 * loose * h**2),
        ("pull_mean", loose * h),
    ):  # fmt: skip
        out[f"{norm}_{key}"] = _named(norm, stat)
    up, pixels = np.abs(inputs.dy), RELATIVE * hat + (r + BLUR) * (1 + hat)
    out[f"{norm}_dgamma"] = (up * pixels).sum((0, 2, 3))
    out[f"{norm}_dbeta"] = (RELATIVE + BLUR) * up.sum((0, 2, 3))


def _running(out, large, inputs, expected) -> None:
    """What a step is off by, it hands on to the next."""
    m, off = inputs.momentum, {"mean": np.zeros(4), "var": np.zeros(4)}
    for k, x in enumerate((large, np.abs(inputs.step2_x), np.abs(inputs.step3_x))):
        big, var = x.max((0, 2, 3)), expected["batch_var"][k]
        blur = BLUR * big
        new = {"mean": RELATIVE * np.sqrt(var) + blur}
        new["var"] = RELATIVE * var + 2 * blur * np.sqrt(var) + blur**2
        out["batch_mean"][k], out["batch_var"][k] = new["mean"], new["var"]
        out["batch_unbiased"][k] = new["var"] * 16 / 15
        for key in off:
            out[f"before_{key}"][k] = off[key]
            size = BLUR * np.abs(expected[f"run_{key}"][k])
            off[key] = (1 - m) * off[key] + m * new[key] * 16 / 15 + size
            out[f"run_{key}"][k] = off[key]
    mean, var = (off[key].reshape(1, 4, 1, 1) for key in ("mean", "var"))
    s2 = (expected["run_var"][-1] + inputs.eps).reshape(1, 4, 1, 1)
    hat, y = (np.abs(expected[f"eval_{k}"]) for k in ("xhat", "y"))
    gamma, beta = (np.abs(v).reshape(1, 4, 1, 1) for v in (inputs.gamma, inputs.beta))
    off_hat = (mean + BLUR * large) / np.sqrt(s2) + hat * var / s2
    out["eval_xhat"] = off_hat + RELATIVE * hat
    out["eval_y"] = gamma * off_hat + RELATIVE * y + BLUR * (gamma * hat + beta)


def _copied(out, inputs) -> None:
    """The panel and the charts show numbers from elsewhere."""
    norm, (n, c, i, j) = chosen(inputs)
    for key in ("mean", "var"):
        out[f"explain_{key}"] = _spread(norm, out[f"{norm}_{key}"])[n, c, 0, 0]
    out["explain_x"] = out["used_x"][n, c, i, j]
    for key in ("xhat", "y"):
        out[f"explain_{key}"] = out[f"{norm}_{key}"][n, c, i, j]
    out["chart_x"] = out["used_x"][:, c].ravel()
    for norm in NORMS:
        for key in ("xhat", "y"):
            out[f"chart_{norm}_{key}"] = out[f"{norm}_{key}"][:, c].ravel()
        for key in ("held_var", "dx_var"):
            stat = out[f"{norm}_{key}"]
            out[f"chart_{norm}_{key}"] = stat[:, c] if stat.ndim == 2 else stat
    for key, stored in (("mean", "mean"), ("var", "unbiased")):
        out[f"chart_run_{key}"] = np.append(0.0, out[f"run_{key}"][:, c])
        out[f"chart_batch_{key}"] = out[f"batch_{stored}"][:, c]
