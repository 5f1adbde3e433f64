"""The table of quantities: for each its name, place, shape, formula and label.

The sheets are written from it, the names of the cells come from it, and `check` reads by it.
`expected.reference` has PyTorch's numbers under the same names.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from xlsxwriter.utility import xl_cell_to_rowcol, xl_rowcol_to_cell

from backstage.workbook.expected import NORMS

# Rows and columns to the next number, for each index.
PIXELS = ((2, 0), (0, 2), (1, 0), (0, 1))  # image, channel, row and column within a tile
IMAGES, CHANNELS = ((2, 0),), ((0, 2),)
BESIDE = ((2, 0), (0, 1))  # image and channel: GN's statistics
STEPS = ((0, 9), (0, 2))  # training step and channel
AXES = {PIXELS: "ncij", STEPS: "kc", BESIDE: "nc", IMAGES: "n", CHANNELS: "c", (): ""}
LENGTHS = {"n": 4, "c": 4, "i": 2, "j": 2, "k": 3}
ALL = (0, 3)


@dataclass(frozen=True)
class Quantity:
    """An array of numbers: `at` is the place of its first; without a formula it is typed in.

    Pixels are (4, 4, 2, 2), one number per channel or per image (4,), per image and channel (4, 4),
    per training step and channel (3, 4). Cells are named `bn_mean_1`, `gn_var_2_1`; of pixels, each
    2 x 2 tile has a name, `x_1_1`. Indices count from 0 here, and from 1 on the sheet.

    `norm` is the norm whose sets its shades show. `over` is the quantity that it is a mean or a
    difference of: its rounding follows that one's size.
    """

    name: str
    sheet: str
    at: str
    steps: tuple[tuple[int, int], ...] = ()
    formula: str = ""  # with fields in braces, which `table.formula` fills in
    norm: str = ""
    over: str = ""
    size: tuple[int, int] = (1, 1)  # rows and columns that one number takes
    label: str = ""  # what a person reads beside it

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(LENGTHS[axis] for axis in AXES[self.steps])

    @property
    def tiles(self) -> bool:
        return self.steps == PIXELS

    def indices(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(*map(range, self.shape))

    def place(self, *index: int) -> tuple[int, int]:
        """Row and column of a number, counted from 0, as XlsxWriter does."""
        row, column = xl_cell_to_rowcol(self.at)
        for k, (down, right) in zip(index, self.steps, strict=True):
            row, column = row + k * down, column + k * right
        return row, column

    def cell(self, *index: int, sheet: str = "") -> str:
        """The address of a number, for a formula on that sheet: N8, or Illustration!N8."""
        here = xl_rowcol_to_cell(*self.place(*index))
        quoted = f"'{self.sheet}'" if " " in self.sheet else self.sheet
        return f"{quoted}!{here}" if sheet and sheet != self.sheet else here

    def area(self, images=ALL, channels=ALL, sheet: str = "") -> str:
        """The range of pixels from the first to the last image and channel: N8:O15."""
        first = self.cell(images[0], channels[0], 0, 0, sheet=sheet)
        return f"{first}:{self.cell(images[1], channels[1], 1, 1)}"

    def names(self) -> dict[str, list[tuple[int, ...]]]:
        """Each name with the indices of its cells, row by row."""
        found = {}
        for index in self.indices():
            ends = (str(k + 1) for k in (index[:2] if self.tiles else index))
            found.setdefault("_".join([self.name, *ends]), []).append(index)
        return found


MAIN, NEXT, RUNNING = "Illustration", "Layer N+1", "Train and eval"
GRADIENTS, CHARTS = "Gradients", "Charts"
WIDE = (1, 2)  # two columns, as wide as a channel

INPUTS = {q.name: q for q in (
    Quantity("x", MAIN, "C8", PIXELS),
    Quantity("multiply", MAIN, "K8", IMAGES, size=(2, 1), label="× image"),
    Quantity("add", MAIN, "C16", CHANNELS, size=WIDE, label="+ channel"),
    Quantity("gamma", MAIN, "C17", CHANNELS, size=WIDE, label="γ"),
    Quantity("beta", MAIN, "C18", CHANNELS, size=WIDE, label="β"),
    Quantity("eps", MAIN, "C19", size=WIDE, label="ε"),
    Quantity("groups", MAIN, "I19", size=WIDE, label="groups"),
    Quantity("explain_norm", MAIN, "C23", label="norm"),
    Quantity("explain_image", MAIN, "D23", size=WIDE, label="image"),
    Quantity("explain_channel", MAIN, "F23", size=WIDE, label="channel"),
    Quantity("explain_pixel", MAIN, "H23", size=(1, 3), label="pixel"),
    Quantity("next_x", MAIN, "AC8", PIXELS, norm="gn", label="layer N+1: "),
    Quantity("momentum", RUNNING, "C4", size=WIDE, label="momentum"),
    Quantity("step2_x", RUNNING, "L8", PIXELS, norm="bn", label="step 2: "),
    Quantity("step3_x", RUNNING, "U8", PIXELS, norm="bn", label="step 3: "),
    Quantity("dy", GRADIENTS, "C7", PIXELS, label="∂L/∂y: "),
)}  # fmt: skip

# The fields of a formula, for a number of image n and channel c: {N} and {C} are these, {S} the end
# of its statistics' names, {norm} its norm. {dy} is a quantity's cell of the same index, {its y}
# that of its norm's y. {set x} are the cells of x that the norm takes together, {channel x} those
# of a channel, {all x} all; {K} is the training step, {K-1} the one before.
BY_NORM = (  # name after the norm's, sheet, places under BN, LN and GN, formula, what it is over
    ("mean", MAIN, "N16 V8 W8", "AVERAGE({set used_x})", "used_x"),
    ("var", MAIN, "N17 V9 W9", "VARP({set used_x})", ""),
    ("xhat", MAIN, "N22 W22 AF22", "({used_x}-{norm}_mean_{S})/SQRT({norm}_var_{S}+eps)", ""),
    ("y", MAIN, "N33 W33 AF33", "gamma_{C}*{its xhat}+beta_{C}", ""),
    ("held", GRADIENTS, "L7 U7 AE7", "gamma_{C}*{dy}/SQRT({norm}_var_{S}+eps)", ""),
    ("held_mean", GRADIENTS, "L15 AC7 AM7", "AVERAGE({set its held})", "held"),
    ("held_var", GRADIENTS, "L16 AC8 AM8", "VARP({set its held})", ""),
    ("pull", GRADIENTS, "L18 U18 AE18", "{its held}*{its xhat}", "held"),
    ("pull_mean", GRADIENTS, "L26 AC18 AM18", "AVERAGE({set its pull})", "held"),
    ("dx", GRADIENTS, "L28 U28 AE28",
     "{its held}-{norm}_held_mean_{S}-{its xhat}*{norm}_pull_mean_{S}", "held"),
    ("dx_mean", GRADIENTS, "L36 AC28 AM28", "ROUND(AVERAGE({set its dx}),12)", "held"),
    ("dx_var", GRADIENTS, "L37 AC29 AM29", "VARP({set its dx})", ""),
    ("dgamma", GRADIENTS, "L38 U38 AE38", "SUMPRODUCT({channel dy},{channel its xhat})", "dy"),
    ("dbeta", GRADIENTS, "L39 U39 AE39", "SUM({channel dy})", ""),
)  # fmt: skip
NEXT_AT = ((MAIN, "AC16 AK8 AL8"), (MAIN, "AC17 AK9 AL9"),
           (NEXT, "C8 L8 U8"), (NEXT, "C19 L19 U19"))  # fmt: skip
NEXT_BY_NORM = [
    (row[0], *at, *(text.replace("used_x", "next_x") for text in row[3:]))
    for row, at in zip(BY_NORM, NEXT_AT, strict=False)  # layer N+1 has the first four
]
SET = "OFFSET(N8,set_row-1,set_column-1,set_rows,set_columns)"
PIXEL = ('INDEX({all used_x},2*explain_image-(LEFT(explain_pixel,5)="upper"),'
         '2*explain_channel-(RIGHT(explain_pixel,4)="left"))')  # fmt: skip
GAMMA, BETA = (f"INDEX(C{row}:J{row},1,2*explain_channel-1)" for row in (17, 18))
PANEL = [Quantity(name, MAIN, at, (), *more) for name, at, *more in (
    ("set_row", "C24", "set_rows*INT((2*explain_image-2)/set_rows)+1"),
    ("set_column", "F24", "set_columns*INT((2*explain_channel-2)/set_columns)+1"),
    ("set_rows", "H24", 'IF(explain_norm="BN",8,2)'),
    ("set_columns", "J24", 'IF(explain_norm="BN",2,IF(explain_norm="LN",8,8/groups))'),
    ("explain_size", "K24", "set_rows*set_columns"),
    ("explain_x", "K23", PIXEL),
    ("explain_mean", "J25", f"AVERAGE({SET})", "", "used_x", (2, 2)),
    ("explain_var", "J27", f"VARP({SET})", "", "", (4, 2)),
    ("explain_xhat", "J31", "(explain_x-explain_mean)/SQRT(explain_var+eps)", "", "", WIDE),
    ("explain_y", "J32", f"{GAMMA}*explain_xhat+{BETA}", "", "", WIDE),
)]  # fmt: skip
BATCHES = [Quantity(name, RUNNING, at, STEPS, text, "bn", over, WIDE, label)
           for name, at, label, over, text in (
    ("before_mean", "C17", "running μ, before", "step1_x", "run_mean_{K-1}_{C}"),
    ("before_var", "C18", "running σ², before", "", "run_var_{K-1}_{C}"),
    ("batch_mean", "C19", "batch μ", "step1_x", "AVERAGE({channel step{K}_x})"),
    ("batch_var", "C20", "batch σ² (÷ 16)", "", "VARP({channel step{K}_x})"),
    ("batch_unbiased", "C21", "unbiased (÷ 15)", "", "VAR({channel step{K}_x})"),
    ("run_mean", "C22", "running μ, after", "step1_x",
     "(1-momentum)*before_mean_{K}_{C}+momentum*batch_mean_{K}_{C}"),
    ("run_var", "C23", "running σ², after", "",
     "(1-momentum)*before_var_{K}_{C}+momentum*batch_unbiased_{K}_{C}"),
)]  # fmt: skip
START = {"before_mean": "0", "before_var": "1"}  # as nn.BatchNorm2d starts
USED = Quantity("used_x", MAIN, "N8", PIXELS, "multiply_{N}*{x}+add_{C}", "gn")
EVALUATION = (
    Quantity("step1_x", RUNNING, "C8", PIXELS, "{used_x}", "bn"),
    Quantity("eval_xhat", RUNNING, "C28", PIXELS,
             "({used_x}-run_mean_3_{C})/SQRT(run_var_3_{C}+eps)", "bn"),
    Quantity("eval_y", RUNNING, "L28", PIXELS, "gamma_{C}*{eval_xhat}+beta_{C}", "bn"),
    Quantity("train_y", RUNNING, "U28", PIXELS, "{bn_y}", "bn"),
    Quantity("eval_gap", RUNNING, "U37", (), "SQRT(SUMXMY2({all eval_y},{all train_y})/64)",
             size=WIDE),
)  # fmt: skip


def _by_norm(row: tuple, k: int, prefix: str = "") -> Quantity:
    """The k-th norm's quantity of a row of `BY_NORM`."""
    name, sheet, places, formula, over = row
    norm, steps, size = NORMS[k], PIXELS, (1, 1)
    if name in ("dgamma", "dbeta"):
        steps, size = CHANNELS, WIDE
    elif name.endswith(("mean", "var")):
        steps = (CHANNELS, IMAGES, BESIDE)[k]
        size = WIDE if norm == "bn" else (2, 1) if name == "pull_mean" else (1, 1)
    over = f"{norm}_{over}" if over == "held" else over
    return Quantity(f"{prefix}{norm}_{name}", sheet, places.split()[k], steps, formula, norm, over,
                    size)  # fmt: skip


COMPUTED = {q.name: q for q in (  # in the order in which `check` reports
    USED, *(_by_norm(row, k) for k in range(3) for row in BY_NORM),
    *(_by_norm(row, k, "next_") for k in range(3) for row in NEXT_BY_NORM),
    *PANEL, *BATCHES, *EVALUATION)}  # fmt: skip
QUANTITIES = INPUTS | COMPUTED


def members(norm: str, grid: Quantity, n: int, c: int, sheet: str) -> str:
    """The cells that a norm averages together with image n, channel c; GN's follow `groups`."""
    if norm == "bn":
        return grid.area(ALL, (c, c), sheet)
    if norm == "ln":
        return grid.area((n, n), ALL, sheet)
    pair = c // 2 * 2
    one, two, four = (grid.area((n, n), k, sheet) for k in (ALL, (pair, pair + 1), (c, c)))
    return f"CHOOSE(groups,{one},{two},NA(),{four})"


def formula(q: Quantity, index: tuple[int, ...]) -> str:
    """The formula of one number of a quantity, with its fields filled in."""
    at = dict(zip(AXES[q.steps], index, strict=False))
    n, c, step = (at.get(axis, 0) for axis in "nck")
    if step == 0 and q.name in START:
        return START[q.name]
    ends = {"bn": f"{c + 1}", "ln": f"{n + 1}", "gn": f"{n + 1}_{c + 1}", "": ""}
    norm = f"next_{q.norm}" if q.name.startswith("next_") else q.norm
    fields = {"N": n + 1, "C": c + 1, "S": ends[q.norm], "K": step + 1, "K-1": step, "norm": norm}

    def fill(found: re.Match) -> str:
        *how, name = found[1].split()
        if name in fields:
            return str(fields[name])
        grid = QUANTITIES[f"{norm}_{name}" if "its" in how else name]
        if "set" in how:
            return members(q.norm, grid, n, c, q.sheet)
        if "channel" in how or "all" in how:
            return grid.area(ALL, (c, c) if "channel" in how else ALL, q.sheet)
        return grid.cell(*index, sheet=q.sheet)

    text = q.formula.replace("step{K}", f"step{step + 1}")
    return re.sub(r"\{([^}]+)\}", fill, text)
