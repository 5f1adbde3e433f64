"""What the sheet does by itself: it refuses nonsense, says where, and shows sets and changes."""

import itertools
from collections.abc import Callable

import numpy as np

from backstage.workbook.grid import (
    BASELINE,
    DASHED,
    MEDIUM,
    MOVED,
    PAPER,
    ROWS,
    SCRATCH,
    THIN,
    WRONG,
    Grid,
    at,
    lines,
    outline,
    place,
    span,
)  # fmt: skip
from backstage.workbook.inputs import LIMIT, LISTS, RANGES, UNDEFINED, allowed
from backstage.workbook.reference import NORMS


def validate(page, area: str, quantity: str, prompt: str = "") -> None:
    """Data validation: a program refuses anything else, and says what it wants.

    What gets past it, by pasting or deleting, turns red.
    """
    wanted = allowed(quantity)
    rule = {"ignore_blank": False, "error_title": "Not possible here",
            "error_message": f"Type {wanted}."}  # fmt: skip
    if prompt:
        rule |= {"input_title": prompt[:32], "input_message": wanted[0].upper() + wanted[1:] + "."}
    if quantity in LISTS:
        rule |= {"validate": "list", "source": list(LISTS[quantity])}
    else:
        low, high = RANGES.get(quantity, (-LIMIT, LIMIT))
        rule |= {"validate": "decimal", "criteria": "between", "minimum": low, "maximum": high}
    page.sheet.data_validation(area, rule)
    look = {"bg_color": WRONG, "font_color": PAPER, "bold": True}
    page.rule(area, f"{unfit(area.split(':')[0], quantity)}=1", 1, **look)


def unfit(cell: str, quantity: str) -> str:
    """A formula: 1 where an input is not what it has to be, otherwise 0."""
    if quantity in LISTS:
        quoted = (f'"{x}"' if isinstance(x, str) else x for x in LISTS[quantity])
        kind = "ISTEXT" if isinstance(LISTS[quantity][0], str) else "ISNUMBER"
        fits = f"OR({','.join(f'{cell}={x}' for x in quoted)})"
    else:
        low, high = RANGES.get(quantity, (-LIMIT, LIMIT))
        kind, fits = "ISNUMBER", f"AND({cell}>={low:.0f},{cell}<={high:.0f})"
    return f"IF({kind}({cell}),IF({fits},0,1),1)"


def warn(page, row: int, width: int, hats: list[str], before=("", "")) -> tuple[str, str]:
    """One line that names the first input that is wrong, or says why there is 0/0.

    Args:
        hats: the quantities on this sheet that are divided by σ.
        before: the cell and the text of the warning of the sheet that this one depends on.

    Returns the cell, as 'Illustration'!B5, and its text.
    """
    columns = [SCRATCH + 2 + k for k in range(3)]
    for k, (cell, quantity) in enumerate(page.typed, start=1):
        for column, value in zip(columns, (cell, allowed(quantity)), strict=False):
            page.put(k, column, value)
        page.put(k, columns[2], "=" + unfit(cell, quantity), 0)
    where, wanted, flags = (span(1, column, len(page.typed), 1) for column in columns)
    first = f"MATCH(1,{flags},0)"
    sentence = (
        f'INDEX({where},{first})&" has to be "&INDEX({wanted},{first})'
        '&". What depends on it shows ?."'
    )
    zero = (f"{UNDEFINED}: a variance is 0 and ε is 0, so there is nothing to divide by "
            "(PyTorch gives nan). Type a positive ε.")  # fmt: skip
    text = zero if any(np.isnan(page.values[q]).any() for q in hats) else ""
    undefined = "+".join(f'COUNTIF({page.grids[q].area()},"{UNDEFINED}")' for q in hats)
    calm = f'IF({undefined}>0,"{zero}","")'
    if before[0]:
        calm = f'IF({before[0]}<>"","Illustration: "&{before[0]},{calm})'
        text = f"Illustration: {before[1]}" if before[1] else text
    cell = page.put(row, 2, f"=IF(SUM({flags})>0,{sentence},{calm})", text, width=width, bold=True,
                    font_color=WRONG, align="left", indent=1)  # fmt: skip
    return f"'{page.title}'!{cell}", text


def frame(page, norm: str, grid: Grid) -> None:
    """Lines around each set of BN or LN, which stay where they are."""
    for n, c, i, j in itertools.product(ROWS, ROWS, (0, 1), range(grid.span)):
        sides = outline(norm, 1, grid, n, c, i, j)
        page.line(grid.cell(n, c, i, j), sides, MEDIUM, NORMS[norm].color)


Mark = tuple[Callable[[str], str], dict]  # a condition for a cell, and the format where it holds


def follow(page, grids: list[Grid], norm: str, when: str, marks: list[Mark], hide=False) -> None:
    """Lines around a norm's sets that follow what is chosen: conditional formats.

    Where two conditional formats hold for a cell, some programs draw the first only; so the lines
    come with each mark too. The first grid has to be the one furthest up and left.

    Args:
        when: the condition under which this norm's sets are shown, or "".
        hide: whether a number that its group shows already is left out.
    """
    for groups in (1, 2, 4) if norm == "gn" else (1,):
        now = [when] * bool(when) + [f"{page.mirror('groups')}={groups}"] * (norm == "gn")
        alike: dict[tuple, list[str]] = {}
        for grid in grids:
            for n, c, i, j in itertools.product(ROWS, ROWS, (0, 1), range(grid.span)):
                twice = hide and (c - 1) % (4 // groups) != 0
                key = (outline(norm, groups, grid, n, c, i, j), twice)
                alike.setdefault(key, []).append(grid.cell(n, c, i, j))
        for (sides, twice), cells in alike.items():
            look = lines(sides, DASHED if norm == "gn" else THIN, NORMS[norm].color)
            look |= {"num_format": ";;;"} if twice else {}
            for k, (condition, style) in enumerate([*marks, (lambda _: "", {})]):
                test = ",".join([*now, condition(cells[0])]).rstrip(",")
                page.rule(" ".join(cells), f"AND({test})", 3 + k, **look, **style)


def has_moved(page) -> Mark:
    """Numbers that differ from those the sheet was delivered with."""

    def condition(cell: str) -> str:
        row, column = place(cell)
        base = at(row, column + BASELINE)
        numbers, far = f"COUNT({cell},{base})=2", f"ABS({cell}-{base})>1E-9*ABS({base})+1E-12"
        there = f'{page.mirror("show_moved")}="on",{base}<>""'
        return f"AND({there},IF({numbers},{far},{cell}<>{base}))"

    return condition, {"font_color": MOVED, "bold": True}


def baseline(page) -> None:
    """Freezes every number beside itself, in hidden columns, and marks those that move."""
    rows, columns = zip(*page.tracked, strict=True)
    for row, column in page.tracked:
        value, shown, _ = page.cells[row, column]
        page.put(row, column + BASELINE, value if shown is None else shown)
    first = at(min(rows), min(columns))
    area = f"{first}:{at(max(rows), max(columns))}"
    condition, style = has_moved(page)
    page.rule(area, condition(first), 6, **style)
    # Small numbers in three characters; what rounding leaves of an exact 0 as 0.
    size = f"ABS({first})"
    page.rule(area, f"IF(ISNUMBER({first}),AND({first}<>0,{size}<1E-14))", 2,
              num_format='"0"')  # fmt: skip
    page.rule(area, f"IF(ISNUMBER({first}),AND({size}<0.0005,{size}>=1E-14))", 2,
              num_format="0.0E+0")  # fmt: skip
