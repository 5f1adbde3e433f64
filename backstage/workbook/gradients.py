"""The sheet Gradients: what each norm passes on of an upstream gradient."""

from backstage.workbook import rules
from backstage.workbook.formulas import (
    centred_mean,
    divided,
    gradient_mean,
    gradient_variance,
    mean_product,
    named_index,
    over,
    sets,
    which,
)  # fmt: skip
from backstage.workbook.grid import ALL, MEDIUM, ROWS, Grid
from backstage.workbook.illustration import group_heads
from backstage.workbook.inputs import UNDEFINED
from backstage.workbook.reference import NORMS
from backstage.workbook.sheet import Page, write_grid, write_inputs

NOTES = (
    "h is the gradient if μ and σ were constants:  h = γ · ∂ℓ/∂y / √(σ² + ε).",
    "In full:  ∂ℓ/∂x = h − mean(h) − x̂ · mean(h · x̂),  means over the set S.",
    "− mean(h) comes from the derivative of μ: the mean of ∂ℓ/∂x over S becomes 0.",
    "− x̂ · mean(h · x̂) comes from the derivative of σ: the variance becomes smaller.",
)


def gradients(page: Page, warning: tuple[str, str]) -> None:
    """An upstream gradient; in full, and with μ and σ held constant, what becomes of it."""
    page.cover("What each norm does to the gradient", "Type over the upstream gradient ∂ℓ/∂y of "
               "layer N: everything else follows. x, γ, ε and groups: sheet Illustration.",
               18)  # fmt: skip
    page.bar(4, 2, "Upstream gradient ∂ℓ/∂y (type here)", 9)
    page.heads(5, 3)
    page.images(6, 2)
    write_inputs(page, 6, 3, "dy")
    page.bar(4, 12, "How to read this sheet", 8)
    for k, text in enumerate(NOTES):
        page.note(6 + 2 * k, 12, text, width=8, height=2, text_wrap=True, bold=k < 2)
    moving, beside = [], []
    for k, norm in enumerate(NORMS):
        _block(page, 15 + 13 * k, norm)
    for quantity in ("gn_held", "gn_dx"):
        moving.append(page.grids[quantity])
    top = moving[0].top
    beside = [Grid(page.title, top, column, span=1) for column in (21, 26, 31)]
    rules.follow(page, moving, "gn", "", [rules.has_moved(page)])
    rules.follow(page, beside, "gn", "", [rules.has_moved(page)], hide=True)
    rules.warn(page, 3, 18, [f"{norm}_held" for norm in NORMS], warning)
    widths = [1.5, 9, *[6.1] * 8, 2, *[6.1] * 8, *([4] + [6.6] * 4) * 3]
    page.finish(widths, rows=53, freeze="A4", portrait=True, cut=19)


def _block(page: Page, top: int, norm: str) -> None:
    """One norm: h, the full gradient, their statistics per set, and the gradients of γ and β."""
    page.bar(top, 2, f"{NORMS[norm].title}: h, with μ and σ held constant", 9, norm)
    page.bar(top, 12, "∂ℓ/∂x in full", 8, norm)
    page.heads(top + 1, 3)
    page.heads(top + 1, 12)
    page.images(top + 2, 2)

    def held(n, c, i, j):
        dy, var = page.grids["dy"].cell(n, c, i, j), f"{norm}_var_{which(norm, n, c)}"
        return divided(f"gamma_{c}*{dy}/SQRT({var}+eps)", var, dy, f"gamma_{c}")

    def dx(n, c, i, j):
        h, hat = page.grids[f"{norm}_held"].cell(n, c, i, j), page.grids[f"{norm}_xhat"]
        hat, at = hat.far(n, c, i, j), which(norm, n, c)
        mean, pull = f"{norm}_held_mean_{at}", f"{norm}_pull_mean_{at}"
        instead = f'IF({h}="{UNDEFINED}","{UNDEFINED}","?")'
        return f"IF(COUNT({h},{mean},{hat},{pull})=4,{h}-{mean}-{hat}*{pull},{instead})"

    write_grid(page, top + 2, 3, f"{norm}_held", held, norm)
    write_grid(page, top + 2, 12, f"{norm}_dx", dx, norm)
    _statistics(page, top, norm)
    _affine_gradients(page, top + 10, norm)


def _statistics(page: Page, top: int, norm: str) -> None:
    """Mean and variance of h and of ∂ℓ/∂x, and mean(h x̂), for each set of the norm."""
    h, dx, hat = (page.grids[f"{norm}_{key}"] for key in ("held", "dx", "xhat"))
    columns = (
        ("held", 21, "h: mean μ, variance σ²",
         (("mean", gradient_mean, (h,)), ("var", gradient_variance, (h,)))),
        ("dx", 26, "∂ℓ/∂x: mean μ, variance σ²",
         (("mean", centred_mean, (dx,)), ("var", gradient_variance, (dx,)))),
        ("pull", 31, "mean of h · x̂", (("mean", mean_product, (h, hat)),)),
    )  # fmt: skip
    for key, column, title, rows in columns:
        page.bar(top, column - 1, title, 5, norm, font_size=9)
        if norm == "gn":
            group_heads(page, top + 1, column)
        elif norm == "ln":
            page.put(top + 1, column, "one per image", width=4, bold=True, font_size=9,
                     bg_color="DDE2E7")  # fmt: skip
        else:
            page.heads(top + 1, column, span=1, label="ch. {}")
        for n, c in sets(norm):
            row, at, width = top + 2 * n, column + c - 1, 4 if norm == "ln" else 1
            for step, (name, formula, grids) in enumerate(rows):
                page.number(row + step, at, f"{norm}_{key}_{name}", named_index(norm, n, c),
                            over(norm, n, c, formula, *grids), c if norm == "bn" else None,
                            width=width)  # fmt: skip
                if c == 1:
                    page.note(row + step, column - 1, "μσ"[step] + "²" * step, indent=0,
                              align="center")  # fmt: skip
            if norm != "gn":
                page.box(row, at, len(rows), width, MEDIUM, NORMS[norm].color)


def _affine_gradients(page: Page, top: int, norm: str) -> None:
    """∂ℓ/∂γ and ∂ℓ/∂β per channel, under the full gradient."""
    dy, hat = page.grids["dy"], page.grids[f"{norm}_xhat"]
    for k, (key, sign) in enumerate((("dgamma", "∂ℓ/∂γ = Σ ∂ℓ/∂y · x̂"),
                                     ("dbeta", "∂ℓ/∂β = Σ ∂ℓ/∂y"))):  # fmt: skip
        page.note(top + k, 7, sign, align="right", width=5)
        for c in ROWS:
            up, hats = dy.area(ALL, (c, c)), hat.area(ALL, (c, c), sheet=True)
            instead = f'IF(COUNTIF({hats},"{UNDEFINED}")>0,"{UNDEFINED}","?")'
            total = f"IF(COUNT({up},{hats})=32,SUMPRODUCT({up},{hats}),{instead})"
            plain = f'IF(COUNT({up})=16,SUM({up}),"?")'
            page.number(top + k, 10 + 2 * c, f"{norm}_{key}", (c,),
                        total if key == "dgamma" else plain, c, width=2, bold=True)  # fmt: skip
