"""What the workbook's tests share: an oracle written apart from the workbook, and cases.

The oracle is NumPy's index sets for the forward pass, PyTorch's layers and autograd for outputs,
gradients and running statistics.
"""

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


def cell(book, name, k=0):
    """The k-th cell of a name, in an openpyxl workbook."""
    ((sheet, area),) = book.defined_names[name].destinations
    found = book[sheet.replace("''", "'")][area]
    return [c for row in found for c in row][k] if isinstance(found, tuple) else found


# ---------------------------------------------------------------------------------- the oracle


def index_set(norm, n, c, groups):
    """The images and channels that pixel (n, c) is normalized with, counted from 0."""
    if norm == "bn":
        return slice(None), slice(c, c + 1)
    size = 4 if norm == "ln" else 4 // groups
    return slice(n, n + 1), slice(c // size * size, c // size * size + size)


def over_sets(norm, array, groups, statistic):
    """`statistic` of the set that each (n, c) belongs to, (4, 4)."""
    pairs = [statistic(array[index_set(norm, n, c, groups)]) for n, c in np.ndindex(4, 4)]
    return np.reshape(pairs, (4, 4))


def as_named(norm, per_pair):
    """(4, 4) -> one per channel for BN, per image for LN, as the sheet's names have it."""
    return {"bn": per_pair[0], "ln": per_pair[:, 0], "gn": per_pair}[norm]


def torch_layer(norm, inputs):
    if norm == "bn":
        made = nn.BatchNorm2d(4, eps=inputs.eps, momentum=inputs.momentum)
    else:
        made = nn.GroupNorm(1 if norm == "ln" else inputs.groups, 4, eps=inputs.eps)
    made = made.double()
    with torch.no_grad():
        made.weight.copy_(inputs.gamma)
        made.bias.copy_(inputs.beta)
    return made


def oracle(inputs):
    """Every quantity of the workbook, for an ε above 0."""
    used = (inputs.x * inputs.multiply.view(4, 1, 1, 1) + inputs.add.view(1, 4, 1, 1)).numpy()
    out = {"used_x": used, "step1_x": used}
    for norm in NORMS:
        for prefix, x in (("", used), ("next_", inputs.next_x.numpy())):
            mean = over_sets(norm, x, inputs.groups, np.mean)
            var = over_sets(norm, x, inputs.groups, np.var)
            root = np.sqrt(var + inputs.eps)[:, :, None, None]
            out[f"{prefix}{norm}_mean"] = as_named(norm, mean)
            out[f"{prefix}{norm}_var"] = as_named(norm, var)
            out[f"{prefix}{norm}_xhat"] = (x - mean[:, :, None, None]) / root
            y = torch_layer(norm, inputs)(torch.tensor(x))
            out[f"{prefix}{norm}_y"] = y.detach().numpy()
        out |= oracle_gradients(norm, inputs, used, out[f"{norm}_xhat"])
    out |= oracle_running(inputs, used)
    out["train_y"] = out["bn_y"]
    out["eval_gap"] = np.sqrt(np.mean((out["eval_y"] - out["bn_y"]) ** 2))
    return out | oracle_panel(inputs, used, out)


def oracle_gradients(norm, inputs, used, xhat):
    made, x = torch_layer(norm, inputs), torch.tensor(used, requires_grad=True)
    made(x).backward(inputs.dy)
    var = over_sets(norm, used, inputs.groups, np.var)[:, :, None, None]
    held = (inputs.gamma.view(1, 4, 1, 1) * inputs.dy).numpy() / np.sqrt(var + inputs.eps)
    arrays = {"held": held, "pull": held * xhat, "dx": x.grad.numpy()}
    out = {f"{norm}_{key}": array for key, array in arrays.items()}
    for key, statistic in (("held_mean", np.mean), ("held_var", np.var), ("pull_mean", np.mean),
                           ("dx_mean", np.mean), ("dx_var", np.var)):  # fmt: skip
        array = arrays[key.split("_")[0]]
        named = as_named(norm, over_sets(norm, array, inputs.groups, statistic))
        out[f"{norm}_{key}"] = named
    out[f"{norm}_dgamma"] = made.weight.grad.numpy()
    return out | {f"{norm}_dbeta": made.bias.grad.numpy()}


def oracle_running(inputs, used):
    bn, rows = torch_layer("bn", inputs), {}
    for batch in (used, inputs.step2_x.numpy(), inputs.step3_x.numpy()):
        before = {"before_mean": bn.running_mean.tolist(), "before_var": bn.running_var.tolist()}
        bn(torch.tensor(batch))
        axes = (0, 2, 3)
        row = before | {"batch_mean": batch.mean(axes), "batch_var": batch.var(axes),
                        "batch_unbiased": batch.var(axes, ddof=1),
                        "run_mean": bn.running_mean.tolist(),
                        "run_var": bn.running_var.tolist()}  # fmt: skip
        for key, value in row.items():
            rows.setdefault(key, []).append(value)
    out = {key: np.array(value) for key, value in rows.items()}
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


# ----------------------------------------------------------------------------------- the cases


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


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.float64)


CASES = {
    "delivered": Inputs(),
    "groups 1": random_inputs(1, groups=1),
    "groups 4, momentum 1": random_inputs(2, groups=4, momentum=1.0),
    "near 1e6": random_inputs(3, shift=1e6, eps=1e-2),
    "negative, momentum 0": random_inputs(4, shift=-40.0, momentum=0.0),
    "constant sets": constant(random_inputs(5, eps=1e-5)),
    "up to 1e9": random_inputs(6, groups=4, scale=1e9, eps=1e9),
    "near 1e-8": random_inputs(7, scale=1.0, multiply=zeros(4) + 1e-8, eps=1e-5),
    "gamma 0, knobs": random_inputs(8, gamma=zeros(4), add=zeros(4) + 7, multiply=zeros(4) - 2),
}
