"""The panel that explains one pixel: its set lights up, and each step stands with its numbers."""

from decimal import ROUND_HALF_UP, Decimal

from backstage.workbook.page import Page
from backstage.workbook.table import BETA, COMPUTED, GAMMA, INPUTS, SET

RIGHT = {"align": "right", "bold": True}
BOX = ("row", "column", "rows", "columns")
LONG = {"align": "left", "indent": 1, "shrink": True}


def panel(page: Page) -> None:
    """Four cells to choose with, where the set is, and the steps μ, σ², x̂, y."""
    page.bar("B21", "Explain one pixel: choose it, and its set lights up  →", 10)
    for q in (q for name, q in INPUTS.items() if name.startswith("explain")):
        page.note(q.at.replace("23", "22"), q.label, q.size, align="center")
    page.note("K22", "x", align="center")
    for cell, text, width in (("B23", "choose", 1), ("B24", "set: row", 1), ("D24", "column", 2),
                              ("G24", "size", 1), ("I24", "×", 1)):  # fmt: skip
        page.put(cell, text, size=(1, width), align="right")
    for row, text, height in ((25, "μ", 2), (27, "σ²", 4), (31, "x̂", 1), (32, "y", 1)):
        page.put(f"B{row}", text, size=(height, 1), **RIGHT)
    known = numbers(page)
    total = told("({all}) / {size}", known, "+ -", "− ")
    page.put("C25", *total, size=(2, 7), text_wrap=True, align="left", indent=1)
    for tile in range(4):
        page.put(f"C{27 + tile}", *_squares(page, tile), align="left", indent=1)
    fraction = told("({x} − {mean}) / √({var} + {eps})", known, "− -", "+ ")
    page.put("C31", *fraction, size=(1, 7), **LONG)
    page.put("C32", *told("{gamma} · {xhat} + {beta}", known, "+ -", "− "), size=(1, 7), **LONG)


def told(template: str, known: dict, signs: str = "", sign: str = "") -> tuple[str, str]:
    """A text with numbers in it, as a formula and as it shows; two signs in a row become one.

    known: for each field of the template, its number in a formula and as a text.
    """
    cells = template.format(**{key: f'"&{cell}&"' for key, (cell, _) in known.items()})
    formula = f'"{cells}"'.removeprefix('""&').removesuffix('&""')
    shows = template.format(**{key: text for key, (_, text) in known.items()})
    if signs:
        formula, shows = f'SUBSTITUTE({formula},"{signs}","{sign}")', shows.replace(signs, sign)
    return f"={formula}", shows


def numbers(page: Page) -> dict[str, tuple[str, str]]:
    """The panel's numbers, each in a formula and as a text."""
    given, c = page.given, page.given.explain_channel - 1
    exact = {"gamma": (GAMMA, given.gamma[c]), "beta": (BETA, given.beta[c]),
             "eps": ("eps", given.eps)}  # fmt: skip
    exact |= {k: (f"explain_{k}", page.values[f"explain_{k}"]) for k in ("x", "size")}
    found = {key: (cell, plain(number)) for key, (cell, number) in exact.items()}
    for key in ("mean", "var", "xhat"):
        found[key] = f"ROUND(explain_{key},3)", plain(page.values[f"explain_{key}"], 3)
    each = " + ".join(map(plain, box(page).flatten()))
    return found | {"all": (f'_xlfn.TEXTJOIN(" + ",TRUE,{SET})', each)}


def _squares(page: Page, tile: int) -> tuple[str, str]:
    """(4)² + (-2)² + (-2)² + (0)², the set's next four numbers: a formula, and its text."""
    first = COMPUTED["used_x"].cell(0, 0, 0, 0)
    down, right = (f"IF(set_rows{test},{2 * tile},0)" for test in ("=8", "=2"))
    four = f"OFFSET({first},set_row-1+{down},set_column-1+{right},2,2)"
    text = f'_xlfn.TEXTJOIN(" + ",TRUE,"("&ROUND({four}-explain_mean,2)&")²")'
    end = f'IF(explain_size={4 * tile + 4}," all / "&explain_size," +")'
    formula = f'{{=IF(explain_size>{4 * tile},{text}&{end},"")}}'
    tiles = [four for rows in box(page).split(2) for four in rows.split(2, dim=1)]
    if tile >= len(tiles):
        return formula, ""
    gaps = (tiles[tile] - page.values["explain_mean"]).flatten()
    shows = " + ".join(f"({plain(gap, 2)})²" for gap in gaps)
    return formula, shows + (f" all / {4 * len(tiles)}" if tile == len(tiles) - 1 else " +")


def box(page: Page):
    """The explained pixel's set, as rows and columns of the sheet."""
    top, left, height, width = (int(page.values[f"set_{k}"]) for k in BOX)
    grid = page.given.used_x.transpose(1, 2).reshape(8, 8)
    return grid[top - 1 : top - 1 + height, left - 1 : left - 1 + width]


def plain(number, places: int = 12) -> str:
    """A number as a program puts it into a text: rounded half away from 0, no zeros at the end."""
    rounded = Decimal(repr(float(number))).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    return f"{rounded.normalize() + 0:f}"
