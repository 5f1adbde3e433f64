"""The panel that explains one pixel: its set lights up, and each step stands with its numbers."""

from decimal import ROUND_HALF_UP, Decimal

from backstage.workbook.page import Page
from backstage.workbook.table import BETA, COMPUTED, GAMMA, SET

RIGHT = {"align": "right", "bold": True}


def panel(page: Page) -> None:
    """Four cells to choose with, where the set is, and the steps μ, σ², x̂, y."""
    page.bar("B21", "Explain one pixel: choose it, and its set lights up  →", 10)
    for cell, text, width in (("C22", "norm", 1), ("D22", "image", 2), ("F22", "channel", 2),
                              ("H22", "pixel", 3), ("K22", "x", 1)):  # fmt: skip
        page.note(cell, text, (1, width), align="center")
    for cell, text, width in (("B23", "choose", 1), ("B24", "set: row", 1), ("D24", "column", 2),
                              ("G24", "size", 1), ("I24", "×", 1)):  # fmt: skip
        page.put(cell, text, size=(1, width), align="right")
    for row, text, height in ((25, "μ", 2), (27, "σ²", 4), (31, "x̂", 1), (32, "y", 1)):
        page.put(f"B{row}", text, size=(height, 1), **RIGHT)
    left = {"align": "left"}
    page.put("C25", *_sum(page), size=(2, 7), text_wrap=True, shrink=False, **left)
    for tile in range(4):
        page.put(f"C{27 + tile}", *_squares(page, tile), array=True, **left)
    page.put("C31", *_fraction(page), size=(1, 7), shrink=True, **left)
    page.put("C32", *_affine(page), size=(1, 7), shrink=True, **left)


# Each gives a formula for a text, and the text that it shows.


def _sum(page: Page) -> tuple[str, str]:
    """(7 + 1 + 1 + 3 …) / 16"""
    text = f'"("&_xlfn.TEXTJOIN(" + ",TRUE,{SET})&") / "&explain_size'
    shows = f"({' + '.join(map(plain, box(page).flatten()))}) / {value(page, 'size')}"
    return f'=SUBSTITUTE({text},"+ -","− ")', shows.replace("+ -", "− ")


def _squares(page: Page, tile: int) -> tuple[str, str]:
    """(4)² + (-2)² + (-2)² + (0)², the set's next four numbers."""
    first = COMPUTED["used_x"].cell(0, 0, 0, 0)
    down, right = (f"IF(set_rows{test},{2 * tile},0)" for test in ("=8", "=2"))
    four = f"OFFSET({first},set_row-1+{down},set_column-1+{right},2,2)"
    text = f'_xlfn.TEXTJOIN(" + ",TRUE,"("&ROUND({four}-explain_mean,2)&")²")'
    end = f'IF(explain_size={4 * tile + 4}," all / "&explain_size," +")'
    formula = f'{{=IF(explain_size>{4 * tile},{text}&{end},"")}}'
    numbers, size = box(page), value(page, "size")
    if int(size) <= 4 * tile:
        return formula, ""
    rows, columns = (0, 2 * tile) if len(numbers) == 2 else (2 * tile, 0)
    four = numbers[rows : rows + 2, columns : columns + 2].flatten()
    mean = page.values["explain_mean"].item()
    shows = " + ".join(f"({plain(float(x) - mean, 2)})²" for x in four)
    return formula, shows + (f" all / {size}" if int(size) == 4 * tile + 4 else " +")


def _fraction(page: Page) -> tuple[str, str]:
    """(7 − 3) / √(4 + 0.00001)"""
    text = '"("&explain_x&" − "&ROUND(explain_mean,3)&") / √("&ROUND(explain_var,3)&" + "&eps&")"'
    x, mean, var = (value(page, key) for key in ("x", "mean", "var"))
    shows = f"({x} − {mean}) / √({var} + {plain(page.given.eps)})"
    return f'=SUBSTITUTE({text},"− -","+ ")', shows.replace("− -", "+ ")


def _affine(page: Page) -> tuple[str, str]:
    """2 · 2 + 1"""
    text = f'{GAMMA}&" · "&ROUND(explain_xhat,3)&" + "&{BETA}'
    c = page.given.explain_channel - 1
    numbers = (plain(array[c]) for array in (page.given.gamma, page.given.beta))
    shows = f" · {value(page, 'xhat')} + ".join(numbers)
    return f'=SUBSTITUTE({text},"+ -","− ")', shows.replace("+ -", "− ")


def box(page: Page):
    """The explained pixel's set, as rows and columns of the sheet."""
    row, column, rows, columns = (
        int(page.values[f"set_{key}"]) for key in ("row", "column", "rows", "columns")
    )
    grid = page.given.used_x.transpose(1, 2).reshape(8, 8)
    return grid[row - 1 : row - 1 + rows, column - 1 : column - 1 + columns]


def value(page: Page, key: str) -> str:
    return plain(page.values[f"explain_{key}"], 3 if key != "x" else 12)


def plain(number, places: int = 12) -> str:
    """A number as a program puts it into a text: rounded half away from 0, no zeros at the end."""
    rounded = Decimal(repr(float(number))).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    return f"{rounded.normalize() + 0:f}"
