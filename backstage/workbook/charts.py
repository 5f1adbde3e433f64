"""The sheet Charts: tables of numbers from the other sheets, and native charts of them."""

import itertools

from xlsxwriter.utility import xl_range_abs, xl_rowcol_to_cell

from backstage.workbook.page import COLORS, NUMBER, SLATE, TITLES, Page, shown
from backstage.workbook.table import BESIDE, CHARTS, COMPUTED

GREY = "#8A949E"
VARIANCES = "Variance of the gradient over a set"
PIXELS, STEPS, SETS = 7, 27, 35  # the rows above each table


def charts(page: Page) -> None:
    """The tables and five charts."""
    page.start("Charts", "They follow the channel that is chosen on the sheet Illustration.  BN "
               "takes a channel's pixels along one line; LN's and GN's lie on four, one for each "
               "image.")  # fmt: skip
    said = f"channel {page.given.explain_channel}"
    page.put("B4", '="channel "&explain_channel', said, bold=True, font_size=14)
    _tables(page)
    pixel_chart(page, "K5", "x̂", (470, 400))
    pixel_chart(page, "Q5", "y", (470, 400))
    _lines(page, "K26", 2, "running mean μ")
    _lines(page, "Q26", 4, "running variance σ²")
    looks = (("h: μ, σ constant", GREY), ("∂L/∂x in full", SLATE))
    series = [{"name": name, "fill": {"color": color}} for name, color in looks]
    alt = "For each norm's sets, the full gradient varies less than with μ and σ held constant."
    _chart(page, "K42", "column", (940, 300), VARIANCES, alt, (SETS, 12, 1, 2), series)
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
    names = ("run_mean", "batch_mean", "run_var", "batch_unbiased")
    rows = [(k + 1, *(_pick(page, name, k, None) for name in names)) for k in range(3)]
    start = (0, _pick(page, "before_mean", 0, None), None, _pick(page, "before_var", 0, None))
    heads = ("training steps", "running μ", "batch μ", "running σ²", "batch ÷15")
    _table(page, STEPS, "Batch norm's running statistics", heads, [start, *rows], "bn")
    rows = []
    for norm, k in itertools.product(TITLES, range(4)):
        index = (k, None) if norm == "gn" else (k,)
        pair = (_pick(page, f"{norm}_{key}_var", *index) for key in ("held", "dx"))
        rows.append((f"{norm.upper()}, {'channel' if norm == 'bn' else 'image'} {k + 1}", *pair))
    heads = ("GN: of the chosen channel", "h", "∂L/∂x")
    _table(page, SETS, VARIANCES, heads, rows)


def _chart(page: Page, cell: str, kind: str, size, title, alt, table, series, axes=("", "")):
    """One look for all charts, and a description for those who cannot see it.

    table: its first row, number of rows, column of labels and first column of values.
    series: the look of each column.
    """
    chart, (top, rows, labels, first) = page.book.add_chart({"type": kind}), table
    for column, look in enumerate(series, start=first):
        x, y = (f"={CHARTS}!{xl_range_abs(top, k, top + rows - 1, k)}" for k in (labels, column))
        chart.add_series(look | {"categories": x, "values": y})
    small, line = {"size": 11, "bold": False}, {"color": "#DDE1E5"}
    chart.set_title({"name": title, "name_font": {"size": 12}, "overlay": False})
    axis = {"name_font": small, "num_font": small, "label_position": "low", "num_format": "General"}
    chart.set_x_axis(axis | {"name": axes[0]})
    chart.set_y_axis(axis | {"name": axes[1], "major_gridlines": {"visible": True, "line": line}})
    chart.set_legend({"position": "right", "font": {"size": 11}})
    chart.set_size({"width": size[0], "height": size[1]})
    page.sheet.insert_chart(cell, chart, {"object_position": 2, "description": alt, "y_offset": 3})


def pixel_chart(page: Page, cell: str, sign: str, size: tuple[int, int]) -> None:
    """x against x̂ or y: BN takes all pixels of a channel along one line, LN and GN do not."""
    series = []
    for norm, marker in (("bn", "circle"), ("ln", "square"), ("gn", "triangle")):
        line = {"color": COLORS[norm], "width": 1.5}
        look = {"type": marker, "size": 7, "border": line, "fill": {"none": True}}
        series.append({"name": norm.upper(), "marker": look})
    alt = (f"{sign} against x for the 16 pixels of the chosen channel. Under BN they lie on one "
           "line; under LN and GN each image has a line of its own.")  # fmt: skip
    axes = ("x", sign) if size[1] > 200 else ("", "")  # the title says it too
    title, table = f"x → {sign} of the chosen channel", (PIXELS, 16, 2, 3 if sign == "x̂" else 6)
    _chart(page, cell, "scatter", size, title, alt, table, series, axes)


def _lines(page: Page, cell: str, column: int, title: str) -> None:
    """A running statistic after each training step, beside the batch's own."""
    series, table = [], (STEPS, 4, 1, column)
    for name, color, dash in (("running", COLORS["bn"], "solid"), ("batch", GREY, "dash")):
        dot = {"type": "circle", "size": 6, "border": {"color": color}, "fill": {"color": color}}
        line = {"color": color, "width": 2, "dash_type": dash}
        series.append({"name": name, "marker": dot, "line": line})
    alt = f"The {title} of the chosen channel moves towards the batches' over three steps."
    axes = ("training steps", "")
    _chart(page, cell, "line", (470, 300), f"Batch norm's {title}", alt, table, series, axes)
