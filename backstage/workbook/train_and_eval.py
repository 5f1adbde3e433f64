"""The sheet Train and eval: BN's running statistics over three steps, then evaluation."""

from backstage.workbook import rules
from backstage.workbook.formulas import affine, mean, needs, variance, xhat
from backstage.workbook.grid import ALL, CELL_TINT, HEAD_TINT, INK, MUTED, NUMBER, ROWS
from backstage.workbook.inputs import UNDEFINED
from backstage.workbook.sheet import Page, write_grid, write_inputs

STEP_ROWS = {  # the rows under each step's batch, from the top down: quantity -> label
    "before_mean": "running μ, before",
    "before_var": "running σ², before",
    "batch_mean": "batch μ",
    "batch_var": "batch σ² (÷16, normalizes)",
    "batch_unbiased": "unbiased (÷15, is stored)",
    "run_mean": "running μ, after",
    "run_var": "running σ², after",
}


def train_and_eval(page: Page, warning: tuple[str, str]) -> None:
    """Three training steps, then layer N in evaluation; BN only."""
    page.cover("Batch norm in training and in evaluation", "Three training steps move the running "
               "statistics; evaluation uses them in place of the batch's own.", 26)  # fmt: skip
    page.put(4, 2, "momentum", bold=True, align="right", font_size=9, indent=1)
    page.input(4, 3, "momentum", (), "weight of the new statistic", width=2)
    page.note(4, 5, "← weight of the new statistic:  running ← (1 − momentum) · running + momentum "
              "· batch.   γ, β and ε stand on the sheet Illustration.", width=24)  # fmt: skip
    for step in (1, 2, 3):
        _step(page, 6, 3 + 9 * (step - 1), step)
    _evaluation(page, 26)
    rules.warn(page, 3, 26, ["eval_xhat"], warning)
    widths = [1, 20, *([5.7] * 8 + [1.5]) * 2, *[5.7] * 8]
    page.finish(widths, rows=39, freeze="C5")


def _step(page: Page, top: int, left: int, step: int) -> None:
    """One training step: its batch, the batch's statistics, the running ones before and after."""
    title = "layer N's images" if step == 1 else "another batch (type here)"
    page.bar(top, left, f"Training step {step}: {title}", 8)
    page.heads(top + 1, left)
    if step == 1:
        page.images(top + 2, left - 1)
        write_grid(page, top + 2, left, "step1_x", page.grids["used_x"].far, number="General")
    else:
        write_inputs(page, top + 2, left, f"step{step}_x")
    for k, (quantity, label) in enumerate(STEP_ROWS.items()):
        last = quantity.startswith("run")
        if step == 1:
            page.note(top + 11 + k, left - 1, label, align="right", bold=last,
                      font_color=INK if last else MUTED)  # fmt: skip
        for c in ROWS:
            fill = HEAD_TINT[c - 1] if last else CELL_TINT[c - 1]
            page.number(top + 11 + k, left + 2 * (c - 1), quantity, (step, c),
                        _formula(page, quantity, step, c), width=2, bold=last,
                        bg_color=fill)  # fmt: skip


def _formula(page: Page, quantity: str, step: int, c: int) -> str:
    """What stands in one of the rows under a batch; earlier rows are called by their names."""
    area = page.grids[f"step{step}_x"].area(ALL, (c, c))
    start = {"before_mean": "0", "before_var": "1"}  # as nn.BatchNorm2d starts
    if step == 1 and quantity in start:
        return start[quantity]
    batch = f"batch_var_{step}_{c}"

    def blend(key: str, new: str) -> str:
        old, new = f"before_{key}_{step}_{c}", f"batch_{new}_{step}_{c}"
        full = f"(1-momentum)*{old}+momentum*{new}"
        return needs(["momentum", old, new], f'IF(ABS(momentum-0.5)<=0.5,{full},"?")')

    return {
        "before_mean": f"run_mean_{step - 1}_{c}",
        "before_var": f"run_var_{step - 1}_{c}",
        "batch_mean": mean(16, area),
        "batch_var": variance(16, area),
        "batch_unbiased": needs([batch], f"{batch}*16/15"),
        "run_mean": blend("mean", "mean"),
        "run_var": blend("var", "unbiased"),
    }[quantity]


def _evaluation(page: Page, top: int) -> None:
    """Layer N's images with the running statistics: x̂, y, and training's y beside them."""
    x = page.grids["used_x"]

    def hat(n, c, i, j):
        return xhat(x.far(n, c, i, j), f"run_mean_3_{c}", f"run_var_3_{c}")

    titles = ("Evaluation of layer N: x̂ by the last running μ, σ²", "Evaluation:  y = γ x̂ + β",
              "Training, step 1:  y of the same images")  # fmt: skip
    for k, title in enumerate(titles):
        page.bar(top, 3 + 9 * k, title, 8, "bn")
        page.heads(top + 1, 3 + 9 * k)
    page.images(top + 2, 2)
    hats = write_grid(page, top + 2, 3, "eval_xhat", hat)
    write_grid(page, top + 2, 12, "eval_y", lambda *at: affine(hats.cell(*at), at[1]))
    write_grid(page, top + 2, 21, "train_y", page.grids["bn_y"].far)
    _gap(page, top + 11)


def _gap(page: Page, row: int) -> None:
    """How far evaluation is from training on the same images, as one number."""
    one, two = (page.grids[q].area() for q in ("eval_y", "train_y"))
    instead = f'IF(COUNTIF({one},"{UNDEFINED}")+COUNTIF({two},"{UNDEFINED}")>0,"{UNDEFINED}","?")'
    root = f"SQRT(SUMPRODUCT(({one}-{two})^2)/64)"
    page.put(row, 3, "root mean square of (evaluation's y − training's y), the same images",
             width=17, align="right", font_size=9, bold=True, indent=1)  # fmt: skip
    page.number(row, 21, "eval_gap", (), f"IF(COUNT({one},{two})=128,{root},{instead})", width=2,
                bold=True, num_format=NUMBER)  # fmt: skip
    page.note(row + 1, 3, "Why two variances?  ÷16 is the variance of these pixels, which "
              "normalizes them; ÷15 estimates the variance of all images, which evaluation needs. "
              "Storing ÷16 is a common mistake.", width=26)  # fmt: skip
