"""The sheet Charts: tables of numbers from the other sheets, and native charts of them."""

import itertools

from xlsxwriter.utility import xl_range_abs, xl_rowcol_to_cell

from backstage.workbook.page import COLORS, NUMBER, TITLES, Page, shown
from backstage.workbook.quantity import BESIDE
from backstage.workbook.table import CHARTS, COMPUTED

MARKERS = {"bn": "circle", "ln": "square", "gn": "triangle"}
GREY, DARK = "#8A949E", "#2F3E4E"
PIXELS, STEPS, SETS = 7, 27, 35  # the rows above each table


def charts(page: Page) -> None:
    """The tables and five charts."""
    page.cover("Charts", "They follow the channel that is chosen on the sheet Illustration.  BN "
               "takes a channel's pixels along one line; LN has a line for each image, GN for each "
               "image and group: look for the clouds.")  # fmt: skip
    said = f"channel {page.given.explain_channel}"
    page.put("B4", '="channel "&explain_channel', said, bold=True, font_size=14)
    _tables(page)
    pixel_chart(page, "K5", "xhat", (470, 400))
    pixel_chart(page, "Q5", "y", (470, 400))
    _lines(page, "K26", 2, "running mean μ")
    _lines(page, "Q26", 4, "running variance σ²")
    _bars(page, "K42")
    page.finish({"A:A": 12, "B:B": 150, "C:I": 70, "J:J": 20, "K:V": 80}, last_row=58)


def _pick(page: Page, name: str, *index: int | None) -> tuple[str, float | str]:
    """A number on another sheet, as a formula and value; None stands for the chosen channel."""
    q, chosen = COMPUTED[name], page.given.explain_channel - 1
    ends = [[end if k is None else k for k in index] for end in (0, 3, chosen)]
    first, last = q.cell(*ends[0], sheet=CHARTS), q.cell(*ends[1])
    step = "explain_channel" if q.steps == BESIDE else "2*explain_channel-1"
    formula = f"=INDEX({first}:{last},1,{step})" if None in index else f"={first}"
    return formula, shown(page.values[name][tuple(ends[2])])


def _table(page: Page, top: int, title: str, heads: tuple, rows: list, norm: str = "") -> None:
    """A heading in row `top`, counted from 0, the columns' heads, and a label for each row."""
    page.bar(xl_rowcol_to_cell(top - 2, 1), title, 8, norm)
    for column, head in enumerate(heads, start=1):
        page.put(xl_rowcol_to_cell(top - 1, column), head, bold=True, shrink=True)
    for row, (label, *numbers) in enumerate(rows, start=top):
        page.note(xl_rowcol_to_cell(row, 1), label)
        for column, number in enumerate(numbers, start=2):
            if number:
                page.put(xl_rowcol_to_cell(row, column), *number, num_format=NUMBER, shrink=True)


def _tables(page: Page) -> None:
    """The pixels of the chosen channel, BN's running statistics, the gradients' variances."""
    names = ["used_x", *(f"{norm}_{key}" for key in ("xhat", "y") for norm in TITLES)]
    heads = ["", "x", *(f"{norm.upper()} {sign}" for sign in ("x̂", "y") for norm in TITLES)]
    rows = [(f"image {n + 1}, {('upper', 'lower')[i]} {('left', 'right')[j]}",
             *(_pick(page, name, n, None, i, j) for name in names))
            for n, i, j in itertools.product(range(4), range(2), range(2))]  # fmt: skip
    _table(page, PIXELS, "The channel's pixels", heads, rows)
    both = (("mean", "mean"), ("var", "unbiased"))
    start = ((_pick(page, f"before_{key}", 0, None), None) for key, _ in both)
    rows = [(0, *itertools.chain(*start))]
    for k in range(3):
        pairs = ((f"run_{key}", f"batch_{batch}") for key, batch in both)
        rows.append((k + 1, *(_pick(page, name, k, None) for pair in pairs for name in pair)))
    heads = ("training steps", "running μ", "batch μ", "running σ²", "batch ÷15")
    _table(page, STEPS, "Batch norm's running statistics", heads, rows, "bn")
    rows = []
    for norm, k in itertools.product(TITLES, range(4)):
        index = (k, None) if norm == "gn" else (k,)
        pair = (_pick(page, f"{norm}_{key}_var", *index) for key in ("held", "dx"))
        rows.append((f"{norm.upper()}, {'channel' if norm == 'bn' else 'image'} {k + 1}", *pair))
    heads = ("GN: of the chosen channel", "h", "∂L/∂x")
    _table(page, SETS, "Variance of the gradient over a set", heads, rows)


def _range(top: int, rows: int, column: int) -> str:
    return f"={CHARTS}!{xl_range_abs(top, column, top + rows - 1, column)}"


def _place(page: Page, cell: str, chart, title: str, across: str, up: str, size, alt: str) -> None:
    """One look for all charts, and a description for those who cannot see it."""
    small, line = {"size": 11, "bold": False}, {"color": "#DDE1E5"}
    chart.set_title({"name": title, "name_font": {"size": 12}, "overlay": False})
    axis = {"name_font": small, "num_font": small, "label_position": "low", "num_format": "General"}
    chart.set_x_axis(axis | {"name": across})
    chart.set_y_axis(axis | {"name": up, "major_gridlines": {"visible": True, "line": line}})
    chart.set_legend({"position": "right", "font": {"size": 11}})
    chart.set_size({"width": size[0], "height": size[1]})
    page.sheet.insert_chart(cell, chart, {"object_position": 2, "description": alt, "y_offset": 3})


def pixel_chart(page: Page, cell: str, key: str, size: tuple[int, int]) -> None:
    """x against x̂ or y: BN takes all pixels of a channel along one line, LN and GN do not."""
    chart = page.book.add_chart({"type": "scatter"})
    for k, norm in enumerate(TITLES, start=3 if key == "xhat" else 6):
        line = {"color": COLORS[norm], "width": 1.5}
        marker = {"type": MARKERS[norm], "size": 7, "border": line, "fill": {"none": True}}
        x, y = _range(PIXELS, 16, 2), _range(PIXELS, 16, k)
        chart.add_series({"name": norm.upper(), "marker": marker, "categories": x, "values": y})
    sign = "x̂" if key == "xhat" else "y"
    alt = (f"{sign} against x for the 16 pixels of the chosen channel. Under BN they lie on one "
           "line; under LN and GN each image has a line of its own.")  # fmt: skip
    across, up = ("x", sign) if size[1] > 200 else ("", "")  # the title says it too
    _place(page, cell, chart, f"x → {sign} of the chosen channel", across, up, size, alt)


def _lines(page: Page, cell: str, column: int, title: str) -> None:
    chart = page.book.add_chart({"type": "line"})
    series = (("running", column, COLORS["bn"], "solid"), ("batch", column + 1, GREY, "dash"))
    for name, where, color, dash in series:
        dot = {"type": "circle", "size": 6, "border": {"color": color}, "fill": {"color": color}}
        line = {"color": color, "width": 2, "dash_type": dash}
        chart.add_series({"name": name, "categories": _range(STEPS, 4, 1), "marker": dot,
                          "values": _range(STEPS, 4, where), "line": line})  # fmt: skip
    alt = f"The {title} of the chosen channel moves towards the batches' over three steps."
    _place(page, cell, chart, f"Batch norm's {title}", "training steps", "", (470, 300), alt)


def _bars(page: Page, cell: str) -> None:
    chart, sets = page.book.add_chart({"type": "column"}), _range(SETS, 12, 1)
    for column, name, color in ((2, "h: μ, σ constant", GREY), (3, "∂L/∂x in full", DARK)):
        values, fill = _range(SETS, 12, column), {"color": color}
        chart.add_series({"name": name, "categories": sets, "values": values, "fill": fill})
    alt = "For each norm's sets, the full gradient varies less than with μ and σ held constant."
    _place(page, cell, chart, "Variance of the gradient over a set", "", "", (940, 300), alt)
