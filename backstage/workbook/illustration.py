"""The sheets Illustration and Layer N+1: inputs, every statistic, x̂ and y of the three norms."""

import itertools

from backstage.workbook import explain, rules
from backstage.workbook.formulas import (
    affine,
    mean,
    named_index,
    needs,
    over,
    sets,
    variance,
    which,
    xhat,
)  # fmt: skip
from backstage.workbook.grid import (
    DASHED,
    HEAD_TINT,
    MEDIUM,
    MOVED,
    NEUTRAL,
    PAPER,
    ROWS,
    THIN,
    TYPED_INK,
    WRONG,
    Grid,
    at,
)  # fmt: skip
from backstage.workbook.reference import NORMS
from backstage.workbook.sheet import Page, write_grid, write_inputs

STATISTICS = (("mean", mean), ("var", variance))


def illustration(page: Page) -> tuple[str, str]:
    """What a learner types, the pixel that is explained, and layer N; returns its warning."""
    page.cover("What each norm averages", "Type over any blue number: "
               "everything else follows.  4 images × 4 channels × 2×2 pixels.", 18)  # fmt: skip
    _legend(page, 3, 14)
    _controls(page)

    def used(n, c, i, j):
        cell = page.grids["x"].cell(n, c, i, j)
        return needs([cell, f"multiply_{n}", f"add_{c}"], f"multiply_{n}*{cell}+add_{c}")

    top, left = 6, 13
    grid = write_grid(page, top + 2, left + 1, "used_x", used, number="General")
    explain.panel(page, 21, 2)
    layer_block(page, top, left, "", "Layer N", grid)
    explain.chosen_pixel(page)
    for norm in NORMS:
        when = f'{page.mirror("explain_norm")}="{norm.upper()}"'
        rules.follow(page, [grid], norm, when, [explain.lit(page, norm)])
    hats = [f"{norm}_xhat" for norm in NORMS]
    warning = rules.warn(page, 5, 29, hats)
    widths = [1.5, 9, *[6.1] * 9, 2, 9, *[6.1] * 8, 3.5, *[6.1] * 8]
    page.finish(widths, rows=51, freeze="A6", portrait=True, cut=12)
    return warning


def next_layer(page: Page, warning: tuple[str, str]) -> None:
    """Layer N+1: numbers of its own, the same norms."""
    page.cover("Layer N+1", "Another layer with values of its own: they do not come from layer N. "
               "Each layer has its own statistics.", 18)  # fmt: skip
    page.note(3, 2, "γ, β, ε and groups stand on the sheet Illustration and hold for both layers.",
              width=18)  # fmt: skip
    grid = write_inputs(page, 8, 3, "next_x")
    layer_block(page, 6, 2, "next_", "Layer N+1", grid)
    for norm in NORMS:
        rules.follow(page, [grid], norm, f'{page.mirror("explain_norm")}="{norm.upper()}"', [])
    rules.warn(page, 5, 18, [f"next_{norm}_xhat" for norm in NORMS], warning)
    widths = [1.5, 9, *[6.1] * 8, 3.5, *[6.1] * 8]
    page.finish(widths, rows=51, freeze="A6", portrait=True)


def _controls(page: Page) -> None:
    """The pixels of layer N with a knob per channel and per image, γ and β, ε, groups."""
    page.bar(6, 2, "Type here", 10)
    page.heads(7, 3)
    page.put(7, 11, "× image", font_size=9, bold=True, shrink=True)
    page.images(8, 2)
    write_inputs(page, 8, 3, "x")
    for n in ROWS:
        page.input(6 + 2 * n, 11, "multiply", (n,), f"multiply image {n}", height=2)
    labels = {"add": "+ channel", "gamma": "γ  scale", "beta": "β  shift"}
    prompts = {"add": "add to channel {}", "gamma": "γ of channel {}, in all norms",
               "beta": "β of channel {}, in all norms"}  # fmt: skip
    for row, (quantity, label) in enumerate(labels.items(), start=16):
        page.put(row, 2, label, align="right", font_size=9, bold=True, indent=1)
        for c in ROWS:
            page.input(row, 1 + 2 * c, quantity, (c,), prompts[quantity].format(c), width=2)
    singles = (("ε", "eps", 2, 3, 2, "ε, added to σ²"),
               ("groups", "groups", 5, 7, 1, "groups of GN"),
               ("mark moved", "show_moved", 8, 10, 2, "mark what moved"))  # fmt: skip
    for label, quantity, column, where, width, prompt in singles:
        page.put(19, column, label, width=where - column, align="right", font_size=9, bold=True,
                 indent=1)  # fmt: skip
        page.input(19, where, quantity, (), prompt, width=width)
    says = {1: "1 group: GN's numbers are LN's", 2: "2 groups: channels 1–2 and channels 3–4",
            4: "4 groups, one channel each: GN is instance norm (IN)"}  # fmt: skip
    text = ",".join(f'IF(groups={g},"{said}"' for g, said in says.items())
    page.note(20, 2, f'={text},"groups has to be 1, 2 or 4")))', says[int(page.values["groups"])],
              width=10, bold=True, font_color="007A59")  # fmt: skip


def _legend(page: Page, row: int, column: int) -> None:
    """What the marks mean: eight small samples in two lines."""
    samples = (
        ("3", "type here", {"font_color": TYPED_INK, "bold": True, "style": THIN, "hue": "8FA6DB"}),
        ("0.5", "computed", {"bg_color": NEUTRAL, "font_size": 9}),
        ("7", "moved since delivery", {"font_color": MOVED, "bold": True, "bg_color": NEUTRAL}),
        ("x", "to be put right", {"bg_color": WRONG, "font_color": PAPER, "bold": True}),
        ("", "a set of BN", {"style": MEDIUM, "hue": NORMS["bn"].color}),
        ("", "a set of LN", {"style": MEDIUM, "hue": NORMS["ln"].color}),
        ("", "a set of GN", {"style": DASHED, "hue": NORMS["gn"].color}),
        ("", "a colour is a channel", {"bg_color": HEAD_TINT[0]}),
    )
    for k, (sample, meaning, style) in enumerate(samples):
        r, c = row + k // 4, column + 4 * (k % 4) + (k % 4 > 1)
        line, hue = style.pop("style", None), style.pop("hue", None)
        page.put(r, c, sample, **style)
        if line:
            page.box(r, c, 1, 1, line, hue)
        page.note(r, c + 1, meaning, width=3, shrink=True, indent=0)


def layer_block(page: Page, top: int, left: int, prefix: str, title: str, grid: Grid) -> None:
    """One layer: its values with every mean and variance around, then x̂ and y of each norm.

    It takes 45 rows and 18 columns from (top, left); the values are there already.
    """
    page.bar(top, left, f"{title}: the values x", 9)
    page.bar(top, left + 9, "mean μ (upper) and variance σ² (lower)", 9)
    page.heads(top + 1, left + 1)
    page.images(top + 2, left)
    _statistics(page, grid, top, left, prefix)
    moving = []
    for k, norm in enumerate(NORMS):
        pair = _outputs(page, grid, top + 13 + 11 * k, left, prefix, norm)
        moving += pair if norm == "gn" else []
    rules.follow(page, moving, "gn", "", [rules.has_moved(page)])


def _statistics(page: Page, grid: Grid, top: int, left: int, prefix: str) -> None:
    """BN's statistics under the channels, LN's and GN's beside the images."""
    page.put(top + 1, left + 10, "LN per image", width=2, bold=True, font_size=9, bg_color="DDE2E7",
             shrink=True)  # fmt: skip
    group_heads(page, top + 1, left + 12)
    for row, label in ((top + 10, "BN  μ"), (top + 11, "BN  σ²")):
        page.note(row, left, label, align="right")
    spots = {"bn": (top + 10, left + 1, 2), "ln": (top + 2, left + 10, 2),
             "gn": (top + 2, left + 12, 1)}  # fmt: skip
    for norm, (row, column, span) in spots.items():
        for n, c in sets(norm):
            r, k = row + 2 * (n - 1), column + span * (c - 1)
            index, channel = named_index(norm, n, c), c if norm == "bn" else None
            for step, (key, formula) in enumerate(STATISTICS):
                page.number(r + step, k, f"{prefix}{norm}_{key}", index,
                            over(norm, n, c, formula, grid), width=span, channel=channel,
                            bold=norm == "bn")  # fmt: skip
            if norm != "gn":
                page.box(r, k, 2, span, MEDIUM, NORMS[norm].color)
    for n, (step, sign) in itertools.product(ROWS, enumerate(("μ", "σ²"))):
        page.note(top + 2 * n + step, left + 9, sign, align="center", indent=0)
    beside = Grid(page.title, top + 2, left + 12, span=1)
    rules.follow(page, [beside], "gn", "", [rules.has_moved(page)], hide=True)
    _comparisons(page, grid, top + 2, left, prefix)
    page.note(top + 10, left + 10, "BN: one per channel, below.  LN: one per image.  GN: one per "
              "image and group.", width=8, height=2, italic=True, text_wrap=True)  # fmt: skip


def group_heads(page: Page, row: int, column: int) -> None:
    """Over GN's statistics: the groups, as many as there are."""
    texts = ('"group 1"', 'IF(groups=4,"group 2","")',
             'IF(groups=4,"group 3",IF(groups=2,"group 2",""))',
             'IF(groups=4,"group 4","")')  # fmt: skip
    shows = {1: ("group 1", "", "", ""), 2: ("group 1", "", "group 2", ""),
             4: ("group 1", "group 2", "group 3", "group 4")}  # fmt: skip
    for k, text in enumerate(texts):
        page.put(row, column + k, "=" + text, shows[int(page.values["groups"])][k], bold=True,
                 font_size=9, bg_color="DDE2E7", align="left", shrink=True)  # fmt: skip


def _comparisons(page: Page, grid: Grid, top: int, left: int, prefix: str) -> None:
    """Beside GN's numbers, live: are they LN's, are they instance norm's?"""
    for n, (step, (key, formula)) in itertools.product(ROWS, enumerate(STATISTICS)):
        row = top + 2 * (n - 1) + step
        gn = [at(row, left + 12 + c) for c in range(4)]
        ln, image = at(row, left + 10), grid.area((n, n))
        size = f"MAX(MAX({image}),-MIN({image}))"
        near = f"<=1E-9*{size}" + f"*{size}" * (key == "var")
        same_ln = f"SUMPRODUCT(ABS({gn[0]}:{gn[3]}-{ln})){near}"
        tiles = (formula(4, grid.area((n, n), (c, c))) for c in ROWS)
        same_in = "+".join(f"ABS({g}-{tile})" for g, tile in zip(gn, tiles, strict=True)) + near
        text = f'IF({same_ln},"= LN",IF({same_in},"= IN",""))'
        text = f'IF(COUNT({gn[0]}:{gn[3]},{image})=20,{text},"")'
        page.number(row, left + 16, f"{prefix}gn_{key}_is", (n,), text, width=2, bold=True,
                    bg_color=PAPER, font_color="007A59")  # fmt: skip


def _outputs(page, grid: Grid, top: int, left: int, prefix: str, norm: str) -> list[Grid]:
    """The normalized values and the outputs of one norm, side by side; 10 rows."""
    page.bar(top, left, f"{NORMS[norm].title}:  x̂ = (x − μ) / √(σ² + ε)", 9, norm)
    page.bar(top, left + 9, "  y = γ x̂ + β", 9, norm)
    page.heads(top + 1, left + 1)
    page.heads(top + 1, left + 10)
    page.images(top + 2, left)

    def hat(n, c, i, j):
        mu, var = (f"{prefix}{norm}_{key}_{which(norm, n, c)}" for key in ("mean", "var"))
        return xhat(grid.cell(n, c, i, j), mu, var)

    hats = write_grid(page, top + 2, left + 1, f"{prefix}{norm}_xhat", hat, norm)
    y = write_grid(page, top + 2, left + 10, f"{prefix}{norm}_y",
                   lambda *at: affine(hats.cell(*at), at[1]), norm)  # fmt: skip
    return [hats, y]
