"""What the workbook's tests share: an oracle written apart from the workbook, and cases.

The oracle is NumPy's index sets for the forward pass, PyTorch's layers and autograd for outputs,
gradients and running statistics.
"""

from dataclasses import replace

import numpy as np
import openpyxl
import pytest
import torch
from torch import nn

from backstage.workbook.build import WORKBOOK as COMMITTED
from backstage.workbook.check import soffice
from backstage.workbook.inputs import Inputs, names, plain
from backstage.workbook.reader import Reader

NORMS, ROWS = ("bn", "ln", "gn"), (1, 2, 3, 4)
BASE = Reader(COMMITTED)
needs_libreoffice = pytest.mark.skipif(
    soffice() is None,
    reason="LibreOffice is not installed: `apt-get install libreoffice-calc` (or libreoffice.org)",
)


# ---------------------------------------------------------------------------------- the oracle


def used(inputs):
    """Layer N as the norms see it: the typed pixels with the knobs applied."""
    return np.einsum("nchw,n->nchw", inputs.x, inputs.multiply) + inputs.add[:, None, None]


def index_set(norm, n, c, groups):
    """The images and channels that pixel (n, c) is normalized with, counted from 0."""
    if norm == "bn":
        return slice(None), slice(c, c + 1)
    size = 4 if norm == "ln" else 4 // groups
    return slice(n, n + 1), slice(c // size * size, c // size * size + size)


def over_sets(norm, array, groups, statistic):
    """`statistic` of the set that each (n, c) belongs to, (4, 4)."""
    out = np.empty((4, 4))
    for n, c in np.ndindex(4, 4):
        out[n, c] = statistic(array[index_set(norm, n, c, groups)])
    return out


def as_named(norm, per_pair):
    """(4, 4) -> one per channel for BN, per image for LN, as the sheet's names have it."""
    return {"bn": per_pair[0], "ln": per_pair[:, 0], "gn": per_pair}[norm]


def torch_layer(norm, inputs):
    if norm == "bn":
        made = nn.BatchNorm2d(4, eps=inputs.eps or 1e-300, momentum=inputs.momentum)
    else:
        made = nn.GroupNorm(1 if norm == "ln" else inputs.groups, 4, eps=inputs.eps or 1e-300)
    made = made.double()
    with torch.no_grad():
        made.weight.copy_(torch.tensor(inputs.gamma))
        made.bias.copy_(torch.tensor(inputs.beta))
    return made


def oracle(inputs):
    """Every quantity of the workbook; nan where sigma2 + eps is 0."""
    out = {}
    for norm in NORMS:
        for prefix, x in (("", used(inputs)), ("next_", inputs.next_x)):
            mean = over_sets(norm, x, inputs.groups, np.mean)
            var = over_sets(norm, x, inputs.groups, lambda v: 0.0 if np.ptp(v) == 0 else v.var())
            bad = (var + inputs.eps == 0)[:, :, None, None]
            with np.errstate(invalid="ignore", divide="ignore"):
                root = np.sqrt(var + inputs.eps)[:, :, None, None]
                xhat = np.where(bad, np.nan, (x - mean[:, :, None, None]) / root)
            y = torch_layer(norm, inputs)(torch.tensor(x)).detach().numpy()
            out[f"{prefix}{norm}_mean"] = as_named(norm, mean)
            out[f"{prefix}{norm}_var"] = as_named(norm, var)
            out[f"{prefix}{norm}_xhat"] = xhat
            out[f"{prefix}{norm}_y"] = np.where(bad, np.nan, y)
        out |= oracle_gradients(norm, inputs, out[f"{norm}_xhat"], out[f"{norm}_var"])
    return out | oracle_running(inputs) | oracle_panel(inputs, out)


def oracle_panel(inputs, found):
    """The pixel that is explained."""
    norm, n, c = inputs.explain_norm.lower(), inputs.explain_image - 1, inputs.explain_channel - 1
    i, j = "lower" in inputs.explain_pixel, "right" in inputs.explain_pixel
    members = np.zeros((4, 4, 2, 2))
    members[index_set(norm, n, c, inputs.groups)] = 1
    x = used(inputs)
    inside = x[members == 1]
    out = {"in_set": members, "used_x": x, "explain_size": members.sum()}
    out |= {"explain_mean": inside.mean(), "explain_x": x[n, c, int(i), int(j)]}
    out["explain_var"] = 0.0 if np.ptp(inside) == 0 else inside.var()
    for key in ("xhat", "y"):
        out[f"explain_{key}"] = found[f"{norm}_{key}"][n, c, int(i), int(j)]
    return {key: np.asarray(value) for key, value in out.items()}


def oracle_gradients(norm, inputs, xhat, var):
    made, x = torch_layer(norm, inputs), torch.tensor(used(inputs), requires_grad=True)
    made(x).backward(torch.tensor(inputs.dy))
    shape = {"bn": (1, 4, 1, 1), "ln": (4, 1, 1, 1), "gn": (4, 4, 1, 1)}[norm]
    with np.errstate(invalid="ignore", divide="ignore"):
        held = (
            inputs.gamma.reshape(1, 4, 1, 1) * inputs.dy / np.sqrt(var.reshape(shape) + inputs.eps)
        )
    held = np.where(np.isnan(xhat), np.nan, held)
    dx = np.where(np.isnan(xhat), np.nan, x.grad.numpy())
    out = {f"{norm}_held": held, f"{norm}_dx": dx, f"{norm}_dbeta": made.bias.grad.numpy()}
    out[f"{norm}_dgamma"] = (inputs.dy * xhat).sum((0, 2, 3))
    if not np.isnan(xhat).any():
        assert np.allclose(out[f"{norm}_dgamma"], made.weight.grad.numpy(), rtol=1e-7, atol=1e-7)
    named = {"held_mean": (held, np.mean), "held_var": (held, np.var), "dx_mean": (dx, np.mean),
             "dx_var": (dx, np.var), "pull_mean": (held * xhat, np.mean)}  # fmt: skip
    for key, (array, statistic) in named.items():
        out[f"{norm}_{key}"] = as_named(norm, over_sets(norm, array, inputs.groups, statistic))
    return out


def oracle_running(inputs):
    bn, rows = torch_layer("bn", inputs), {}
    for batch in (used(inputs), inputs.step2_x, inputs.step3_x):
        row = {"before_mean": bn.running_mean.numpy().copy()}
        row |= {"before_var": bn.running_var.numpy().copy(), "batch_mean": batch.mean((0, 2, 3))}
        row |= {"batch_var": batch.var((0, 2, 3)), "batch_unbiased": batch.var((0, 2, 3), ddof=1)}
        bn(torch.tensor(batch))
        row |= {
            "run_mean": bn.running_mean.numpy().copy(),
            "run_var": bn.running_var.numpy().copy(),
        }
        for key, value in row.items():
            rows.setdefault(key, []).append(value)
    bad = (bn.running_var.numpy() + inputs.eps <= 1e-15).reshape(1, 4, 1, 1)  # rounding left it
    y = np.where(bad, np.nan, bn.eval()(torch.tensor(used(inputs))).detach().numpy())
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(bn.running_var.numpy() + inputs.eps).reshape(1, 4, 1, 1)
        xhat = (used(inputs) - bn.running_mean.numpy().reshape(1, 4, 1, 1)) / root
    out = {"eval_xhat": np.where(bad, np.nan, xhat), "eval_y": y, "step1_x": used(inputs)}
    return out | {key: np.stack(value) for key, value in rows.items()}


# ----------------------------------------------------------------------------------- the cases


PIXELS = ("x", "next_x", "step2_x", "step3_x", "dy")


def random_inputs(seed, groups=2, eps=1e-5, momentum=0.1, scale=3.0, shift=0.0, **more):
    """Numbers with a few binary digits behind the point, so that shifting them is exact."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: np.round(rng.uniform(-scale, scale, shape) * 64) / 64  # noqa: E731
    pixels = {q: draw(4, 4, 2, 2) + shift for q in ("x", "next_x", "step2_x", "step3_x")}
    return Inputs(**pixels, dy=draw(4, 4, 2, 2), gamma=draw(4), beta=draw(4), eps=eps,
                  groups=groups, momentum=momentum, **more)  # fmt: skip


def constant_channel(inputs, value):
    """Channel 2 of every image, and all of image 3, hold one value."""
    changed = {}
    for q in ("x", "next_x", "step2_x", "step3_x"):
        changed[q] = getattr(inputs, q).copy()
        changed[q][:, 1] = changed[q][2] = value
    return replace(inputs, **changed)


CASES = {
    "as committed": Inputs(),
    "groups 1": random_inputs(1, groups=1),
    "groups 2, eps 1e-3": random_inputs(2, eps=1e-3),
    "groups 4": random_inputs(3, groups=4),
    "near 1e6": random_inputs(4, shift=1e6),
    "near -1e6, groups 1": random_inputs(5, groups=1, shift=-1e6, eps=1e-3),
    "eps 0": random_inputs(6, groups=4, eps=0.0, momentum=1.0),
    "constant channel": constant_channel(random_inputs(7), 1.5),
    "constant channel, eps 0": constant_channel(random_inputs(9, groups=4, eps=0.0), 0.1),
    "constant, eps 0, momentum 1": constant_channel(
        random_inputs(10, groups=1, eps=0.0, momentum=1.0), 1e6 + 0.1
    ),
    "all zero, eps 0": Inputs(
        **dict.fromkeys(PIXELS, np.zeros((4, 4, 2, 2))), gamma=np.zeros(4), eps=0.0
    ),  # fmt: skip
    "as large as inputs may be": random_inputs(11, scale=1e9, eps=1e9),
    "tiny": Inputs(
        **{q: 1e-200 * np.random.default_rng(12).normal(size=(4, 4, 2, 2)) for q in PIXELS}, eps=0.0
    ),
    "knobs": random_inputs(
        13,
        add=np.array([1000, 0, -2, 0.5]),
        multiply=np.array([1, -3, 0, 0.25]),
        explain_norm="GN",
        explain_image=2,
        explain_channel=3,
        explain_pixel="lower right",
    ),  # fmt: skip
    "explain LN": random_inputs(
        14,
        groups=1,
        explain_norm="LN",
        explain_image=4,
        explain_channel=2,
        explain_pixel="lower left",
    ),  # fmt: skip
    "explain GN 4": random_inputs(
        15,
        groups=4,
        explain_norm="GN",
        explain_image=3,
        explain_channel=4,
        explain_pixel="upper right",
    ),  # fmt: skip
}


def cells_named(book, name):
    (sheet, area), *more = book.defined_names[name].destinations
    assert not more
    found = book[sheet][area]
    return [cell for row in found for cell in row] if isinstance(found, tuple) else [found]


def type_into(book, quantity, array):
    """Types numbers over the cells of an input, as a learner would."""
    for name, at in names(quantity, array):
        for cell, value in zip(cells_named(book, name), np.ravel(array[at]), strict=True):
            cell.value = plain(value)


def edited(path, inputs, book=None):
    """The committed workbook with other inputs, saved by openpyxl: no values beside formulas."""
    book = book or openpyxl.load_workbook(COMMITTED)
    for quantity, array in inputs.quantities().items():
        type_into(book, quantity, array)
    book.save(path)
    return path


def shown(book, quantity, array):
    """The sheet's numbers for a quantity; the word for nan as nan, anything else fails."""
    values = [c.value for name, _ in names(quantity, array) for c in cells_named(book, name)]
    assert all(isinstance(v, (int, float)) or v == "0/0" for v in values), (quantity, values)
    return np.reshape([np.nan if v == "0/0" else v for v in values], array.shape).astype(float)
