"""The panel that explains one pixel: its set S lights up, and the steps stand with their numbers.

A set's numbers are listed in hidden columns, one row per pixel of the layer; beside each, a text
like "1 + 3 − 2" grows by one term. (TEXTJOIN would do it in one cell, but not in Excel 2010.)
"""

from decimal import ROUND_HALF_UP, Decimal
from math import floor, log10

from backstage.workbook.formulas import affine_of, divided
from backstage.workbook.grid import (
    LIT,
    NUMBER,
    PIXELS,
    ROWS,
    SCRATCH,
    SLATE,
    Grid,
    at,
    fixed,
    place,
    span,
)
from backstage.workbook.reference import shown
from backstage.workbook.rules import Mark

LIST, CHOICE, GRID = SCRATCH + 6, SCRATCH + 10, SCRATCH + 12  # hidden columns
NUMBERS, SUM, SQUARES = span(1, LIST, 64, 1), at(64, LIST + 2), at(64, LIST + 3)
ROW, COLUMN, X, GAMMA, BETA = (at(k, CHOICE) for k in range(1, 6))  # of the chosen pixel
LONGEST = 150  # characters of one line of arithmetic


def panel(page, row: int, column: int) -> None:
    """Four cells to choose with, and five lines: |S|, μ, σ², x̂, y. It takes 11 rows."""
    page.bar(row, column, "Explain one pixel: choose it, and its set S lights up  →", 10)
    page.note(row + 2, column, "choose", align="right")
    for key, right, width in (("norm", 1, 2), ("image", 3, 2), ("channel", 5, 2), ("pixel", 7, 3)):
        page.note(row + 1, column + right, key, width=width, align="center", indent=0)
        page.input(row + 2, column + right, f"explain_{key}", (), f"{key} to explain", width=width)
    _set(page)
    _choice(page)
    _list(page)
    _steps(page, row + 3, column)


def lit(page, norm: str) -> Mark:
    """The condition that a cell of the x grid belongs to the set S."""
    right = place(page.grids["in_set"].cell(1, 1))[1] - place(page.grids["used_x"].cell(1, 1))[1]

    def condition(cell: str) -> str:
        row, column = place(cell)
        return f"{at(row, column + right)}=1"

    return condition, {"bg_color": LIT[norm], "bold": True}


def chosen_pixel(page) -> None:
    """The pixel itself, on the x grid: white on dark."""
    grid = page.grids["used_x"]
    test = f"AND(ROW()={fixed(ROW)}+{grid.top - 1},COLUMN()={fixed(COLUMN)}+{grid.left - 1})"
    page.rule(grid.area(), test, 2, bg_color=SLATE, font_color="FFFFFF", bold=True)


def _set(page) -> None:
    """S on the x grid as 0 and 1."""
    grid = page.grids["in_set"] = Grid(page.title, page.grids["used_x"].top, GRID)
    for n, c, i, j in PIXELS:
        pair = "explain_channel=1,explain_channel=2" if c <= 2 else (
            "explain_channel=3,explain_channel=4")  # fmt: skip
        group = (f"IF(groups=1,TRUE,IF(groups=2,OR({pair}),"
                 f"IF(groups=4,explain_channel={c},FALSE)))")  # fmt: skip
        inside = (f'IF(explain_norm="BN",explain_channel={c},IF(explain_norm="LN",'
                  f'explain_image={n},IF(explain_norm="GN",AND(explain_image={n},{group}),'
                  "FALSE)))")  # fmt: skip
        value = float(page.values["in_set"][n - 1, c - 1, i, j])
        page.put(*place(grid.cell(n, c, i, j)), f"=IF({inside},1,0)", value)
    for n in ROWS:
        for c in ROWS:
            page.name(f"in_set_{n}_{c}", grid.area((n, n), (c, c)))


def _choice(page) -> None:
    """Row and column of the chosen pixel on the x grid, its x, and its channel's γ and β."""
    v = {key: page.values[f"explain_{key}"].item() for key in ("image", "channel", "pixel")}
    row, column = at(1, CHOICE), at(2, CHOICE)
    per_channel = {k: ",".join(f"{k}_{c}" for c in ROWS) for k in ("gamma", "beta")}
    formulas = (
        ('2*explain_image-IF(LEFT(explain_pixel,5)="upper",1,0)',
         2 * v["image"] - v["pixel"].startswith("upper"), "explain_image"),
        ('2*explain_channel-IF(RIGHT(explain_pixel,4)="left",1,0)',
         2 * v["channel"] - v["pixel"].endswith("left"), "explain_channel"),
        (f"INDEX({page.grids['used_x'].area()},{row},{column})",
         shown(page.values["explain_x"]), f"{row},{column}"),
        (f"CHOOSE(explain_channel,{per_channel['gamma']})",
         float(page.values["gamma"][v["channel"] - 1]), "explain_channel"),
        (f"CHOOSE(explain_channel,{per_channel['beta']})",
         float(page.values["beta"][v["channel"] - 1]), "explain_channel"),
    )  # fmt: skip
    for k, (formula, value, needed) in enumerate(formulas, start=1):
        there = f"COUNT({needed})={1 + needed.count(',')}"
        page.put(k, CHOICE, f'=IF({there},{formula},"?")', value)
    page.name("explain_x", X)


def _list(page) -> None:
    """The set's numbers, their deviations from μ, and the sums as growing texts."""
    used, member, mu = page.grids["used_x"], page.grids["in_set"], page.values["explain_mean"]
    sums, squares = "", ""
    for k, pixel in enumerate(PIXELS, start=1):
        x, d, one, two = (at(k, LIST + s) for s in range(4))
        before = [at(k - 1, LIST + s) for s in (2, 3)] if k > 1 else ['""', '""']
        n, c, i, j = pixel
        number = float(page.values["used_x"][n - 1, c - 1, i, j])
        inside = bool(page.values["in_set"][n - 1, c - 1, i, j])
        if inside:
            sums += (" − " if number < 0 else " + ") if sums else "−" * (number < 0)
            sums += words(abs(number))
            squares += " + " * bool(squares) + words(abs(number - mu)) + "²"
        sign = f'IF({before[0]}="",IF({x}<0,"−",""),IF({x}<0," − "," + "))'
        plus = f'IF({before[1]}="",""," + ")'
        for step, formula, value in (
            (0, f'IF({member.cell(*pixel)}=1,{used.cell(*pixel)},"")', number),
            (1, f'IF(COUNT({x},explain_mean)=2,{x}-explain_mean,"")', number - float(mu)),
            (2, f'{before[0]}&IF(ISNUMBER({x}),{sign}&{words_of(x)},"")', sums),
            (3, f'{before[1]}&IF(ISNUMBER({d}),{plus}&{words_of(d)}&"²","")', squares),
        ):
            page.put(k, LIST + step, f"={formula}", value if inside or step > 1 else "")
    page.listed = sums, squares


def _steps(page, row: int, column: int) -> None:
    """The five lines: a sign, the arithmetic as a text, and the number that comes out."""
    size = "explain_size"
    whole = f"AND(COUNT({NUMBERS})={size},{size}>0)"
    spread = f"IF(MAX({NUMBERS})=MIN({NUMBERS}),0,DEVSQ({NUMBERS})/{size})"
    xhat = divided(f"({X}-explain_mean)/SQRT(explain_var+eps)", "explain_var", X, "explain_mean")
    lines = (
        ("|S|", 1, "size", _members(page), f"SUM({page.grids['in_set'].area()})"),
        ("μ", 2, "mean", _total(page, SUM, 0), f'IF({whole},AVERAGE({NUMBERS}),"?")'),
        ("σ²", 3, "var", _total(page, SQUARES, 1), f'IF({whole},{spread},"?")'),
        ("x̂", 1, "xhat", _fraction(page), xhat),
        ("y", 1, "y", _affine(page), affine_of("explain_xhat", GAMMA, BETA)),
    )
    for sign, height, key, (text, value), formula in lines:
        page.put(row, column, sign, height=height, bold=True, align="right", indent=1)
        page.put(row, column + 1, "=" + text, value, width=7, height=height, font_size=9,
                 align="left", text_wrap=True)  # fmt: skip
        page.number(row, column + 8, f"explain_{key}", (), formula, width=2, height=height,
                    bold=True, num_format="0" if key == "size" else NUMBER)  # fmt: skip
        row += height


# Each of these gives a formula for a text, and the text that it shows.


def _members(page) -> tuple[str, str]:
    """What S is."""
    pair = 'IF(explain_channel<3,"s 1 and 2","s 3 and 4")'
    group = f'IF(groups=1,"s 1 to 4",IF(groups=2,{pair}," "&explain_channel))'
    rest = f'"image "&explain_image&", channel"&IF(explain_norm="LN","s 1 to 4",{group})'
    formula = f'IF(explain_norm="BN","channel "&explain_channel&" of images 1 to 4",{rest})'
    norm, n, c = (page.values[f"explain_{k}"].item() for k in ("norm", "image", "channel"))
    groups = 1 if norm == "LN" else page.values["groups"].item()
    some = {1: "s 1 to 4", 2: "s 1 and 2" if c < 3 else "s 3 and 4", 4: f" {c}"}[groups]
    return formula, (
        f"channel {c} of images 1 to 4" if norm == "BN" else f"image {n}, channel{some}"
    )


def _total(page, cell: str, which: int) -> tuple[str, str]:
    """(1 + 3 − 2 + …) / 16, the sum cut off where it gets too long to read."""
    text = page.listed[which]
    text = text[:LONGEST] + " …" if len(text) > LONGEST else text
    cut = f'IF(LEN({cell})>{LONGEST},LEFT({cell},{LONGEST})&" …",{cell})'
    return f'"("&{cut}&") / "&explain_size', f"({text}) / {page.values['explain_size']:.0f}"


def _fraction(page) -> tuple[str, str]:
    """(1 − 0.375) / √(3.11 + 0.00001)"""
    x, mu, var = (float(page.values[f"explain_{k}"]) for k in ("x", "mean", "var"))
    formula = (f'IF(COUNT({X},explain_mean,explain_var,eps)=4,"("&{signed_of(X)}&" − "&'
               f'{signed_of("explain_mean")}&") / √("&{words_of("explain_var")}&" + "&'
               f'{words_of("eps")}&")","")')  # fmt: skip
    bottom = f"{words(var)} + {words(float(page.values['eps']))}"
    return formula, f"({signed(x)} − {signed(mu)}) / √({bottom})"


def _affine(page) -> tuple[str, str]:
    """1.25 · 0.354 + 0.25"""
    c = page.values["explain_channel"].item() - 1
    gamma, beta = (float(page.values[k][c]) for k in ("gamma", "beta"))
    hat = float(page.values["explain_xhat"])
    parts = f'{signed_of(GAMMA)}&" · "&{signed_of("explain_xhat")}&" + "&{signed_of(BETA)}'
    formula = f'IF(COUNT(explain_xhat,{GAMMA},{BETA})=3,{parts},"")'
    return formula, "" if hat != hat else f"{signed(gamma)} · {signed(hat)} + {signed(beta)}"


def words_of(cell: str) -> str:
    """A formula: a number without its sign, to three places or three digits, for a text."""
    places = f"IF({cell}=0,0,MIN(15,2-INT(LOG10(ABS({cell})))))"
    return f"ROUND(ABS({cell}),IF(ABS({cell})>=1,3,{places}))"


def signed_of(cell: str) -> str:
    """A formula: the same with a sign, in brackets where it is negative."""
    return f'IF({cell}<0,"(−"&{words_of(cell)}&")",{words_of(cell)})'


def words(value: float) -> str:
    """What `words_of` shows: rounded half away from zero, without zeros at the end."""
    size = abs(float(value))
    places = 3 if size >= 1 or size == 0 else min(15, 2 - floor(log10(size)))
    rounded = Decimal(repr(size)).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    return f"{rounded.normalize():f}"


def signed(value: float) -> str:
    return f"(−{words(value)})" if value < 0 else words(value)
