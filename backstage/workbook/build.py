"""Builds the workbook; here is what stands on each sheet beside its numbers."""

import datetime
from pathlib import Path

from xlsxwriter import Workbook

from backstage.files import replacing
from backstage.workbook.arithmetic import RIGHT, panel, plain, told
from backstage.workbook.charts import charts, pixel_chart
from backstage.workbook.expected import reference
from backstage.workbook.given import InputError, Inputs
from backstage.workbook.page import COLORS, MUTED, TITLES, Page
from backstage.workbook.read_me import read_me
from backstage.workbook.table import BATCHES, CHARTS, GRADIENTS, MAIN, NEXT, QUANTITIES, RUNNING

HAT, Y = "x̂ = (x − μ) / √(σ² + ε)", "y = γ x̂ + β"
GROUPS = {1: "1 group: GN is LN", 2: "2 groups: channels 1–2 and 3–4",
          4: "4 groups: GN is instance norm, one channel each"}  # fmt: skip
LOOK = "Look at one pixel: {x} becomes {bn} under BN, {ln} under LN and {gn} under GN, because " \
       "each compares it with other pixels."  # fmt: skip


def illustration(page: Page) -> None:
    """What a learner types, both layers' values with their statistics, and layer N's outputs."""
    page.start("What each norm averages", "Type over any blue number: everything else follows. "
               "4 images × 4 channels × 2×2 pixels, in two layers of a network.")  # fmt: skip
    _look(page)
    page.bar("B6", "Type here", 10)
    page.put("K7", QUANTITIES["multiply"].label, bold=True, shrink=True)
    for row, name in enumerate(("add", "gamma", "beta", "eps"), start=16):
        page.put(f"B{row}", QUANTITIES[name].label, **RIGHT)
    page.put("F19", "groups of GN", size=(1, 3), **RIGHT)
    rest = f'IF(groups=2,"{GROUPS[2]}",IF(groups=4,"{GROUPS[4]}",""))'
    page.put("B20", f'=IF(groups=1,"{GROUPS[1]}",{rest})', GROUPS[page.given.groups], (1, 10),
             bold=True, font_color="#00694D")  # fmt: skip
    for left, ln, gn, title in (("M", "V", "W", "Layer N"),
                                ("AB", "AK", "AL", "Layer N+1: type here too")):  # fmt: skip
        page.bar(f"{left}6", f"{title}      beside and below: μ above, σ² under it", 14)
        page.put(f"{left}16", "BN μ", **RIGHT)
        page.put(f"{left}17", "BN σ²", **RIGHT)
        page.put(f"{ln}7", "LN", bold=True, bg_color=COLORS["ln"])
        page.put(f"{gn}7", "GN, by group", size=(1, 4), bold=True, bg_color=COLORS["gn"])
        page.note(f"{ln}16", "BN: per channel, below.", size=(1, 5))
        page.note(f"{ln}17", "LN: per image.  GN: per box.", size=(1, 5))
    _outputs(page, (("M", "bn"), ("V", "ln"), ("AE", "gn")), 20, 31)
    panel(page)
    pixel_chart(page, "B33", "x̂", (440, 186))
    pixel_chart(page, "B43", "y", (440, 300))
    page.finish({"A:A": 12, "B:B": 76, "C:J": 42, "K:K": 64, "L:L": 12, "M:AO": 46}, last_row=59)


def _look(page: Page) -> None:
    """The line that says what to look for, with its numbers."""
    known = {"x": ("N8", plain(page.given.used_x[0, 0, 0, 0]))}
    for norm in TITLES:
        cell = QUANTITIES[f"{norm}_xhat"].cell(0, 0, 0, 0)
        xhat = float(plain(page.values[f"{norm}_xhat"][0, 0, 0, 0], 2))
        known[norm] = f"FIXED({cell},2)", f"{xhat:.2f}"
    page.put("B4", *told(LOOK, known), bold=True, align="left")


def _outputs(page: Page, blocks, top: int, bottom: int) -> None:
    for left, norm in blocks:
        page.bar(f"{left}{top}", f"{TITLES[norm]}:  {HAT}", 9, norm)
        page.bar(f"{left}{bottom}", f"{TITLES[norm]}:  {Y}", 9, norm)


def next_layer(page: Page) -> None:
    """x̂ and y of layer N+1."""
    page.start("Layer N+1", "The same norms of another layer. Its values stand on the sheet "
               "Illustration; each layer has its own statistics.")  # fmt: skip
    _outputs(page, (("B", "bn"), ("K", "ln"), ("T", "gn")), 6, 17)
    page.finish({"A:A": 12, "B:B": 56, "C:AB": 52}, last_row=27)


def train_and_eval(page: Page) -> None:
    """BN's running statistics over three training steps, then layer N in evaluation."""
    page.start("Batch norm in training and in evaluation", "Each training step moves the running "
               "statistics; evaluation uses them in place of the batch's own.")  # fmt: skip
    page.put("B4", "momentum", **RIGHT)
    page.note("E4", "← the weight of the new statistic:  running = (1 − momentum) · running + "
              "momentum · batch.   γ, β and ε stand on the sheet Illustration.")  # fmt: skip
    for step, left in ((1, "C"), (2, "L"), (3, "U")):
        what = "layer N" if step == 1 else "another batch (type here)"
        page.bar(f"{left}6", f"Training step {step}: {what}", 8)
    for row, label in enumerate((q.label for q in BATCHES), start=17):
        page.put(f"B{row}", label, align="right", bold=row > 21)
    page.bar("C26", "Evaluation of layer N:  x̂ with the last running μ, σ²", 8, "bn")
    page.bar("L26", f"Evaluation:  {Y}", 8, "bn")
    page.bar("U26", f"Training, step 1:  {Y}", 8, "bn")
    page.put("C37", "√ mean square of (evaluation's y − training's y)", size=(1, 18), **RIGHT)
    page.note("C38", "Why two variances?  ÷ 16 is the variance of these pixels, which normalizes "
              "them; ÷ 15 estimates that of all images, which evaluation needs.")  # fmt: skip
    page.finish({"A:A": 12, "B:B": 150, "C:AB": 50}, last_row=39)


NOTES = (
    "h is the gradient if μ and σ were constants:", "h = γ · ∂L/∂y / √(σ² + ε)", "",
    "In full, with means over the set:", "∂L/∂x = h − mean(h) − x̂ · mean(h · x̂)", "",
    "− mean(h) is there because μ depends on x:", "the mean of ∂L/∂x over a set is 0.", "",
    "− x̂ · mean(h · x̂) is there because σ does:", "it takes mean(h · x̂)² off the variance.", "",
    "Beside and below: mean above, variance under it.",
)  # fmt: skip


def gradients(page: Page) -> None:
    """What each norm passes back of the gradient by y."""
    page.start("What each norm does to the gradient", "Type over ∂L/∂y, the gradient that arrives "
               "at layer N's y: everything else follows.")  # fmt: skip
    page.bar("B5", "∂L/∂y (type here)", 9)
    for row, text in enumerate(NOTES, start=17):
        page.note(f"B{row}", text, bold=text.startswith(("h =", "∂")))
    what = {5: "h, if μ and σ were constants", 17: "h · x̂", 27: "∂L/∂x in full"}
    rows = {15: "mean", 16: "var", 26: "mean", 36: "mean", 37: "var", 38: "∂L/∂γ", 39: "∂L/∂β"}
    for norm, left, width in (("bn", "K", 9), ("ln", "T", 10), ("gn", "AD", 13)):
        for row, text in what.items():
            page.bar(f"{left}{row}", f"{TITLES[norm]}:  {text}", width, norm)
        for row, text in rows.items():
            if norm == "bn" or row > 37:
                page.put(f"{left}{row}", text, align="right", font_color=MUTED)
    page.finish({"A:A": 12, "B:B": 48, "C:AP": 42}, last_row=40)


SHEETS = {"Read me": read_me, MAIN: illustration, NEXT: next_layer, RUNNING: train_and_eval,
          GRADIENTS: gradients, CHARTS: charts}  # fmt: skip
WORKBOOK = Path(__file__).resolve().parents[2] / "normalization_demo.xlsx"


def build(path: str | Path = WORKBOOK, given: Inputs | None = None) -> Path:
    """Writes the workbook with these inputs; every formula carries its value. Returns the path.

    The same inputs give the same bytes.
    """
    path, given = Path(path), given or Inputs()
    if path.suffix.lower() != ".xlsx":
        raise InputError(f"{path.name}: give the workbook a name that ends in .xlsx.")
    values = given.values() | reference(given)
    try:
        with replacing(path) as file, Workbook(file, {"in_memory": True}) as book:
            book.set_properties({"title": "Normalization by hand",
                                 "created": datetime.datetime(2025, 1, 1)})  # fmt: skip
            for title, write in SHEETS.items():
                page = Page(book, title, given, values)
                write(page)
                if title == MAIN:
                    page.sheet.activate()
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): is it open?") from error
    return path
