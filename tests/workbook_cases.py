"""What the workbook's tests share: an oracle written apart from the workbook, and cases.

The oracle is NumPy's index sets for the forward pass, PyTorch's layers and autograd for outputs,
gradients and running statistics.
"""

import contextlib
import re

import numpy as np
import pytest
import torch
from torch import nn

from backstage.workbook.build import WORKBOOK
from backstage.workbook.check import soffice
from backstage.workbook.given import LISTS, Inputs
from backstage.workbook.reader import Reader

NORMS = ("bn", "ln", "gn")
BASE = Reader(WORKBOOK)
needs_libreoffice = pytest.mark.skipif(
    soffice() is None,
    reason="LibreOffice is not installed: `apt-get install libreoffice-calc` (or libreoffice.org)",
)


def cell(book, name):
    """The first cell of a name, in an openpyxl workbook."""
    ((sheet, area),) = book.defined_names[name].destinations
    found = book[sheet][area]
    return found[0][0] if isinstance(found, tuple) else found


def index_set(norm, n, c, groups):
    """The images and channels that pixel (n, c) is normalized with, counted from 0."""
    if norm == "bn":
        return slice(None), slice(c, c + 1)
    size = 4 if norm == "ln" else 4 // groups
    return slice(n, n + 1), slice(c // size * size, c // size * size + size)


def torch_layer(norm, inputs):
    if norm == "bn":
        made = nn.BatchNorm2d(4, eps=inputs.eps, momentum=inputs.momentum)
    else:
        made = nn.GroupNorm(1 if norm == "ln" else inputs.groups, 4, eps=inputs.eps)
    made.double().load_state_dict({"weight": inputs.gamma, "bias": inputs.beta}, strict=False)
    return made


def oracle(inputs):
    """Every quantity of the workbook, for an ε above 0."""
    used = (inputs.x * inputs.multiply.view(4, 1, 1, 1) + inputs.add.view(1, 4, 1, 1)).numpy()
    out = {"used_x": used, "step1_x": used}
    for norm in NORMS:
        out |= {f"{norm}_{key}": value for key, value in oracle_norm(norm, used, inputs).items()}
        following = oracle_norm(norm, inputs.next_x.numpy(), inputs)
        out |= {f"next_{norm}_{key}": following[key] for key in ("mean", "var", "xhat", "y")}
    out |= oracle_running(inputs, used) | {"train_y": out["bn_y"]}
    out["eval_gap"] = np.sqrt(np.mean((out["eval_y"] - out["bn_y"]) ** 2))
    return out | oracle_panel(inputs, used, out)


def oracle_norm(norm, x, inputs):
    def over_sets(array, statistic, named=True):
        """`statistic` of each set: one per channel for BN, per image for LN, or (4, 4)."""
        sets = [statistic(array[index_set(norm, *nc, inputs.groups)]) for nc in np.ndindex(4, 4)]
        pairs = np.reshape(sets, (4, 4))
        return {"bn": pairs[0], "ln": pairs[:, 0], "gn": pairs}[norm] if named else pairs

    made, leaf = torch_layer(norm, inputs), torch.tensor(x, requires_grad=True)
    y = made(leaf)
    y.backward(inputs.dy)
    mean, var = (over_sets(x, f, named=False)[:, :, None, None] for f in (np.mean, np.var))
    xhat = (x - mean) / np.sqrt(var + inputs.eps)
    held = (inputs.gamma.view(1, 4, 1, 1) * inputs.dy).numpy() / np.sqrt(var + inputs.eps)
    out = {"x": x, "xhat": xhat, "y": y.detach().numpy(), "held": held, "pull": held * xhat,
           "dx": leaf.grad.numpy(), "dgamma": made.weight.grad.numpy(),
           "dbeta": made.bias.grad.numpy()}  # fmt: skip
    for key in ("x", "held", "pull", "dx"):
        out[f"{key}_mean"], out[f"{key}_var"] = (over_sets(out[key], f) for f in (np.mean, np.var))
    out["mean"], out["var"] = out.pop("x_mean"), out.pop("x_var")
    del out["x"], out["pull_var"]
    return out


def oracle_running(inputs, used):
    bn, rows, axes = torch_layer("bn", inputs), [], (0, 2, 3)
    for batch in (used, inputs.step2_x.numpy(), inputs.step3_x.numpy()):
        row = {"before_mean": bn.running_mean.tolist(), "before_var": bn.running_var.tolist(),
               "batch_mean": batch.mean(axes), "batch_var": batch.var(axes),
               "batch_unbiased": batch.var(axes, ddof=1)}  # fmt: skip
        bn(torch.tensor(batch))
        after = {"run_mean": bn.running_mean.tolist(), "run_var": bn.running_var.tolist()}
        rows.append(row | after)
    out = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    y = bn.eval()(torch.tensor(used)).detach().numpy()
    mean, var = (out[f"run_{key}"][2].reshape(1, 4, 1, 1) for key in ("mean", "var"))
    return out | {"eval_y": y, "eval_xhat": (used - mean) / np.sqrt(var + inputs.eps)}


def oracle_panel(inputs, used, found):
    norm, n, c = inputs.explain_norm.lower(), inputs.explain_image - 1, inputs.explain_channel - 1
    i, j = int("lower" in inputs.explain_pixel), int("right" in inputs.explain_pixel)
    rows, columns = index_set(norm, n, c, inputs.groups)
    inside = used[rows, columns]
    out = {"set_row": 2 * (rows.start or 0) + 1, "set_column": 2 * columns.start + 1,
           "set_rows": 2 * inside.shape[0], "set_columns": 2 * inside.shape[1],
           "explain_size": inside.size, "explain_mean": inside.mean(), "explain_var": inside.var(),
           "explain_x": used[n, c, i, j]}  # fmt: skip
    return out | {f"explain_{key}": found[f"{norm}_{key}"][n, c, i, j] for key in ("xhat", "y")}


def random_inputs(seed, groups=2, eps=1e-3, scale=3.0, shift=0.0, **more):
    """Numbers with a few binary digits behind the point, so that shifting them is exact."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        numbers = torch.rand(*shape, generator=random, dtype=torch.float64) * 2 - 1
        return (numbers * scale * 64).round() / 64

    pixels = {q: draw(4, 4, 2, 2) + shift for q in ("x", "next_x", "step2_x", "step3_x")}
    choice = {q: LISTS[q][seed % len(LISTS[q])] for q in LISTS if q != "groups"}
    typed = {"dy": draw(4, 4, 2, 2), "gamma": draw(4), "beta": draw(4), "momentum": 0.3}
    return Inputs(**(pixels | choice | typed | more), groups=groups, eps=eps)


def constant(inputs, number=1.5):
    """Channel 2 of every image, and all of image 3, hold one number."""
    for pixels in (inputs.x, inputs.next_x, inputs.step2_x, inputs.step3_x):
        pixels[:, 1] = pixels[2] = number
    return inputs


ZEROS = torch.zeros(4, dtype=torch.float64)
CASES = {
    "delivered": Inputs(),
    "groups 1": random_inputs(1, groups=1),
    "groups 4, momentum 1": random_inputs(2, groups=4, momentum=1.0),
    "near 1e6": random_inputs(3, shift=1e6, eps=1e-2),
    "negative, momentum 0": random_inputs(4, shift=-40.0, momentum=0.0),
    "constant sets": constant(random_inputs(5, eps=1e-5)),
    "up to 1e9": random_inputs(6, groups=4, scale=1e9, eps=1e9),
    "near 1e-8": random_inputs(7, scale=1.0, multiply=ZEROS + 1e-8, eps=1e-5),
    "gamma 0, knobs": random_inputs(8, gamma=ZEROS, add=ZEROS + 7, multiply=ZEROS - 2),
}
EPS_0 = constant(random_inputs(9, eps=0.0))  # 0/0, where the oracle has nothing to say

# A name -> the piece of its formula that is replaced (a regular expression), and by what. Those of
# one group do not feed on each other, so that each has to be found by itself.
WRONG = (
    {
        "ln_var_3": ("VARP", "SUMSQ"),
        "gn_mean_2_3": (r"groups,(\w+:\w+),\w+:\w+", r"groups,\1,\1"),
        "gn_var_4_1": ("groups", "2"),
        "next_bn_mean_4": ("AVERAGE", "MEDIAN"),
        "next_gn_var_2_2": (r"NA\(\),\w+:\w+", "NA(),AC10:AD10"),
        "ln_y_4_2": (r"\+beta_2", "-beta_2"),
        "gn_y_4_4": ("gamma_4", "ABS(gamma_4)"),
        "next_ln_y_2_1": ("beta_1", "beta_2"),
        "eval_gap": ("/64", "/63"),
        "set_column": ("INT", ""),
        "bn_dgamma_2": ("SUMPRODUCT", "SUMXMY2"),
        "ln_dbeta_1": ("SUM", "AVERAGE"),
        "gn_pull_mean_2_2": ("AVERAGE", "SUM"),
        "ln_held_var_4": ("VARP", "DEVSQ"),
        "next_gn_xhat_1_4": ("next_gn_mean", "gn_mean"),
    },
    {
        "bn_var_4": ("VARP", "VAR"),
        "bn_xhat_1_1": ("eps", "0.00001"),
        "ln_xhat_2_2": (r"\+eps", ""),
        "gn_xhat_3_3": ("gn_mean_3_3", "gn_mean_3_1"),
        "bn_y_2_3": ("^.*$", "=1.5"),
        "used_x_4_4": ("add_4", "add_3"),
        "gn_held_3_1": ("SQRT", ""),
        "bn_dx_2_2": (r"-Illustration!\w+\*bn_pull_mean_2", ""),
        "ln_dx_1_1": ("-ln_held_mean_1", ""),
        "run_mean_2_2": (r"\(1-momentum\)", "0.8"),
        "run_var_1_2": ("batch_unbiased", "batch_var"),
        "batch_unbiased_2_4": ("VAR", "VARP"),
        "before_mean_2_4": ("run_mean_1_4", "batch_mean_1_4"),
        "step1_x_2_3": ("R10", "G10"),
        "eval_xhat_3_1": ("run_var_3_1", "batch_var_1_1"),
        "eval_y_2_1": (r"gamma_1\*", "gamma_1+"),
        "explain_var": ("VARP", "VAR"),
    },
)


@contextlib.contextmanager
def spoiled(book, mistakes):
    """The workbook with wrong formulas, for a while."""
    right = {name: cell(book, name).value for name in mistakes}
    for name, (old, new) in mistakes.items():
        cell(book, name).value = re.sub(old, new, right[name])
        assert cell(book, name).value != right[name], name
    yield
    for name, formula in right.items():
        cell(book, name).value = formula
