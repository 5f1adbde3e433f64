"""The sheet Charts: tables of numbers from the other sheets, and native charts of them."""

import itertools

from backstage.workbook.grid import ROWS, WRONG, at, fixed
from backstage.workbook.inputs import LISTS
from backstage.workbook.reference import NORMS
from backstage.workbook.sheet import Page

MARKERS = {"bn": "circle", "ln": "square", "gn": "triangle"}
GREY, DARK = "#A9B2BB", "#2F3E4E"
PIXEL_TOP, STEP_TOP, SET_TOP = 8, 28, 36  # the first row of each table


def charts(page: Page, warning: tuple[str, str], first: Page) -> None:
    """The tables and their charts; two of them go on the `first` sheet as well."""
    page.cover("Charts", "They follow the channel to explain, which is chosen on the sheet "
               "Illustration.", 20)  # fmt: skip
    _pixels(page)
    _steps(page)
    _sets(page)
    left = 11
    page.sheet.insert_chart(at(5, left), _scatter(page, "xhat", "x̂"), {"object_position": 2})
    page.sheet.insert_chart(at(5, left + 6), _scatter(page, "y", "y"), {"object_position": 2})
    for k, title in enumerate(("mean μ", "variance σ²")):
        chart = _lines(page, 3 + 2 * k, title)
        page.sheet.insert_chart(at(20, left + 6 * k), chart, {"object_position": 2})
    page.sheet.insert_chart(at(35, left), _bars(page), {"object_position": 2})
    for k, (key, sign) in enumerate((("xhat", "x̂"), ("y", "y"))):
        chart = _scatter(page, key, sign)
        chart.set_size({"width": 490, "height": 205})
        first.sheet.insert_chart(at(33 + 9 * k, 2), chart, {"object_position": 2, "y_offset": 4})
    page.put(3, 2, f'=IF({warning[0]}="","","Illustration: "&{warning[0]})',
             f"Illustration: {warning[1]}" if warning[1] else "", width=20, bold=True,
             font_color=WRONG, align="left")  # fmt: skip
    page.finish([1.5, 19, *[8] * 7, 2, *[9] * 12], rows=50, portrait=True, cut=10)


def _pick(cells: list[str]) -> str:
    """The cell of the channel to explain."""
    return f'IF(COUNT(explain_channel)=1,CHOOSE(explain_channel,{",".join(cells)}),"?")'


def _pixels(page: Page) -> None:
    """x, x̂ and y of the channel's 16 pixels under the three norms."""
    page.bar(PIXEL_TOP - 3, 2, "The channel's pixels", 8)
    page.put(PIXEL_TOP - 1, 2, '="channel "&explain_channel',
             f"channel {page.values['explain_channel']}", bold=True, font_size=9)  # fmt: skip
    columns = {3: "x"}
    columns |= {4 + k: f"{n}_xhat" for k, n in enumerate(NORMS)}
    columns |= {7 + k: f"{n}_y" for k, n in enumerate(NORMS)}
    for column, text, width in ((3, "x", 1), (4, "x̂", 3), (7, "y", 3)):
        page.put(PIXEL_TOP - 2, column, text, width=width, bold=True, font_size=9)
    for column, quantity in columns.items():
        norm = quantity.split("_")[0] if "_" in quantity else ""
        page.bar(
            PIXEL_TOP - 1, column, norm.upper(), 1, norm, font_size=9, align="center", indent=0
        )
        grid = page.grids["used_x" if column == 3 else quantity]
        for k, (n, i, j) in enumerate(itertools.product(ROWS, (0, 1), (0, 1))):
            cells = [grid.far(n, c, i, j) for c in ROWS]
            page.number(PIXEL_TOP + k, column, f"chart_{quantity}", (k + 1,), _pick(cells))
    for k, (n, pixel) in enumerate(itertools.product(ROWS, LISTS["explain_pixel"])):
        page.note(PIXEL_TOP + k, 2, f"image {n}, {pixel}")


def _steps(page: Page) -> None:
    """BN's running statistics of the channel at each step, beside the batch's."""
    page.bar(STEP_TOP - 2, 2, "Batch norm's running statistics", 8, "bn")
    heads = ("training steps", "running μ", "batch μ", "running σ²", "batch, ÷15")
    for k, text in enumerate(heads):
        page.put(STEP_TOP - 1, 2 + k, text, bold=True, font_size=9, shrink=True)
    for step in range(4):
        page.put(STEP_TOP + step, 2, step, font_size=9)
        for column, key, new in ((3, "mean", "mean"), (5, "var", "unbiased")):
            name = f"run_{key}_{step}" if step else f"before_{key}_1"
            cells = [f"{name}_{c}" for c in ROWS]
            page.number(STEP_TOP + step, column, f"chart_run_{key}", (step + 1,), _pick(cells))
            if step:
                cells = [f"batch_{new}_{step}_{c}" for c in ROWS]
                page.number(STEP_TOP + step, column + 1, f"chart_batch_{key}", (step,),
                            _pick(cells))  # fmt: skip


def _sets(page: Page) -> None:
    """The variance of h and of the full gradient, for four sets of each norm."""
    page.bar(SET_TOP - 2, 2, "Variance of the gradient over a set", 8)
    for column, text in ((3, "h"), (4, "∂ℓ/∂x")):
        page.put(SET_TOP - 1, column, text, bold=True, font_size=9)
    for k, (norm, one) in enumerate(itertools.product(NORMS, ROWS)):
        where = f"channel {one}" if norm == "bn" else f"image {one}"
        page.note(SET_TOP + k, 2, f"{norm.upper()}, {where}")
        for column, key in ((3, "held_var"), (4, "dx_var")):
            cells = [f"{norm}_{key}_{one}" + (f"_{c}" if norm == "gn" else "") for c in ROWS]
            formula = _pick(cells) if norm == "gn" else cells[0]
            page.number(SET_TOP + k, column, f"chart_{norm}_{key}", (one,), formula)
    page.note(SET_TOP + 12, 2, "GN: the group that the channel to explain is in.", width=8)


def _range(page: Page, column: int, top: int, rows: int) -> str:
    return f"='{page.title}'!{fixed(at(top, column))}:{fixed(at(top + rows - 1, column))}"


def _dress(chart, title: str, across: str, up: str) -> None:
    """One look for all charts."""
    small = {"size": 9, "bold": False}
    chart.set_title({"name": title, "name_font": {"size": 11, "bold": True}, "overlay": False})
    grid = {"visible": True, "line": {"color": "#E3E6E9"}}
    chart.set_x_axis({"name": across, "name_font": small, "num_font": small,
                      "label_position": "low", "num_format": "General"})  # fmt: skip
    chart.set_y_axis({"name": up, "name_font": small, "num_font": small, "major_gridlines": grid,
                      "label_position": "low", "num_format": "General"})  # fmt: skip
    chart.set_legend({"position": "right", "font": {"size": 9}})
    chart.set_size({"width": 400, "height": 320})


def _scatter(page: Page, key: str, sign: str):
    """x against x̂ or y: BN takes all pixels of a channel along one line, LN and GN do not."""
    chart = page.book.add_chart({"type": "scatter"})
    for k, norm in enumerate(NORMS):
        color = {"color": f"#{NORMS[norm].color}"}
        marker = {"type": MARKERS[norm], "size": 8 - k, "border": color | {"width": 1.5},
                  "fill": {"none": True}}  # fmt: skip
        chart.add_series({"name": norm.upper(), "marker": marker,
                          "categories": _range(page, 3, PIXEL_TOP, 16),
                          "values": _range(page, (4 if key == "xhat" else 7) + k, PIXEL_TOP,
                                           16)})  # fmt: skip
    _dress(chart, f"x → {sign} of the channel to explain", "x", sign)
    return chart


def _lines(page: Page, column: int, title: str):
    """A running statistic over the steps, and the batches' own."""
    chart = page.book.add_chart({"type": "line"})
    steps = _range(page, 2, STEP_TOP, 4)
    for name, right, color, dash in (("running", 0, f"#{NORMS['bn'].color}", "solid"),
                                     ("of the batch", 1, GREY, "dash")):  # fmt: skip
        look = {"color": color, "width": 2, "dash_type": dash}
        dot = {"type": "circle", "size": 6, "border": {"color": color}, "fill": {"color": color}}
        chart.add_series({"name": name, "categories": steps, "line": look, "marker": dot,
                          "values": _range(page, column + right, STEP_TOP, 4)})  # fmt: skip
    _dress(chart, f"Batch norm's {title}", "training steps", title)
    return chart


def _bars(page: Page):
    """The variance of h beside that of the full gradient."""
    chart = page.book.add_chart({"type": "column"})
    for column, name, color in ((3, "h: μ, σ held", GREY), (4, "∂ℓ/∂x in full", DARK)):
        chart.add_series({"name": name, "categories": _range(page, 2, SET_TOP, 12),
                          "values": _range(page, column, SET_TOP, 12),
                          "fill": {"color": color}, "gap": 60})  # fmt: skip
    _dress(chart, "Variance of the gradient over a set", "", "variance")
    chart.set_size({"width": 800, "height": 320})
    return chart
