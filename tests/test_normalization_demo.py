"""The workbook against float64 PyTorch, NumPy and LibreOffice, and `check` against wrong sheets.

The oracle here is written apart from normalization_demo.py: NumPy index sets for the forward
pass, PyTorch's layers and autograd for outputs, gradients and running statistics.
"""

import copy
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import openpyxl
import pytest
import torch
from openpyxl.formula import Tokenizer
from openpyxl.workbook.defined_name import DefinedName
from torch import nn

import normalization_demo as demo

ROOT = Path(demo.__file__).parent
COMMITTED = ROOT / "normalization_demo.xlsx"
NORMS, ROWS = ("bn", "ln", "gn"), (1, 2, 3, 4)
needs_libreoffice = pytest.mark.skipif(
    demo.soffice() is None,
    reason="LibreOffice is not installed: `apt-get install libreoffice-calc` (or libreoffice.org)",
)


# ---------------------------------------------------------------------------------- the oracle


def index_set(norm, n, c, groups):
    """The images and channels that pixel (n, c) is normalized with, counted from 0."""
    if norm == "bn":
        return slice(None), slice(c, c + 1)
    size = 4 if norm == "ln" else 4 // groups
    return slice(n, n + 1), slice(c // size * size, c // size * size + size)


def over_sets(norm, array, groups, statistic):
    """`statistic` of the set that each (n, c) belongs to, (4, 4)."""
    out = np.empty((4, 4))
    for n, c in np.ndindex(4, 4):
        out[n, c] = statistic(array[index_set(norm, n, c, groups)])
    return out


def as_named(norm, per_pair):
    """(4, 4) -> one per channel for BN, per image for LN, as the sheet's names have it."""
    return {"bn": per_pair[0], "ln": per_pair[:, 0], "gn": per_pair}[norm]


def torch_layer(norm, inputs):
    if norm == "bn":
        made = nn.BatchNorm2d(4, eps=inputs.eps or 1e-300, momentum=inputs.momentum)
    else:
        made = nn.GroupNorm(1 if norm == "ln" else inputs.groups, 4, eps=inputs.eps or 1e-300)
    made = made.double()
    with torch.no_grad():
        made.weight.copy_(torch.tensor(inputs.gamma))
        made.bias.copy_(torch.tensor(inputs.beta))
    return made


def oracle(inputs):
    """Every quantity of the workbook; nan where sigma2 + eps is 0."""
    out = {}
    for norm in NORMS:
        for prefix, x in (("", inputs.x), ("next_", inputs.next_x)):
            mean = over_sets(norm, x, inputs.groups, np.mean)
            var = over_sets(norm, x, inputs.groups, lambda v: 0.0 if np.ptp(v) == 0 else v.var())
            bad = (var + inputs.eps == 0)[:, :, None, None]
            with np.errstate(invalid="ignore", divide="ignore"):
                root = np.sqrt(var + inputs.eps)[:, :, None, None]
                xhat = np.where(bad, np.nan, (x - mean[:, :, None, None]) / root)
            y = torch_layer(norm, inputs)(torch.tensor(x)).detach().numpy()
            out[f"{prefix}{norm}_mean"] = as_named(norm, mean)
            out[f"{prefix}{norm}_var"] = as_named(norm, var)
            out[f"{prefix}{norm}_xhat"] = xhat
            out[f"{prefix}{norm}_y"] = np.where(bad, np.nan, y)
        out |= oracle_gradients(norm, inputs, out[f"{norm}_xhat"], out[f"{norm}_var"])
    return out | oracle_running(inputs)


def oracle_gradients(norm, inputs, xhat, var):
    made, x = torch_layer(norm, inputs), torch.tensor(inputs.x, requires_grad=True)
    made(x).backward(torch.tensor(inputs.dy))
    shape = {"bn": (1, 4, 1, 1), "ln": (4, 1, 1, 1), "gn": (4, 4, 1, 1)}[norm]
    with np.errstate(invalid="ignore", divide="ignore"):
        held = (
            inputs.gamma.reshape(1, 4, 1, 1) * inputs.dy / np.sqrt(var.reshape(shape) + inputs.eps)
        )
    held = np.where(np.isnan(xhat), np.nan, held)
    dx = np.where(np.isnan(xhat), np.nan, x.grad.numpy())
    out = {f"{norm}_held": held, f"{norm}_dx": dx, f"{norm}_dbeta": made.bias.grad.numpy()}
    out[f"{norm}_dgamma"] = (inputs.dy * xhat).sum((0, 2, 3))
    if not np.isnan(xhat).any():
        assert np.allclose(out[f"{norm}_dgamma"], made.weight.grad.numpy(), rtol=1e-7, atol=1e-7)
    named = {"held_mean": (held, np.mean), "held_var": (held, np.var), "dx_mean": (dx, np.mean),
             "dx_var": (dx, np.var), "pull_mean": (held * xhat, np.mean)}  # fmt: skip
    for key, (array, statistic) in named.items():
        out[f"{norm}_{key}"] = as_named(norm, over_sets(norm, array, inputs.groups, statistic))
    return out


def oracle_running(inputs):
    bn, rows = torch_layer("bn", inputs), {}
    for batch in (inputs.x, inputs.step2_x, inputs.step3_x):
        row = {"before_mean": bn.running_mean.numpy().copy()}
        row |= {"before_var": bn.running_var.numpy().copy(), "batch_mean": batch.mean((0, 2, 3))}
        row |= {"batch_var": batch.var((0, 2, 3)), "batch_unbiased": batch.var((0, 2, 3), ddof=1)}
        bn(torch.tensor(batch))
        row |= {
            "run_mean": bn.running_mean.numpy().copy(),
            "run_var": bn.running_var.numpy().copy(),
        }
        for key, value in row.items():
            rows.setdefault(key, []).append(value)
    bad = (bn.running_var.numpy() + inputs.eps <= 1e-15).reshape(1, 4, 1, 1)  # rounding left it
    y = np.where(bad, np.nan, bn.eval()(torch.tensor(inputs.x)).detach().numpy())
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(bn.running_var.numpy() + inputs.eps).reshape(1, 4, 1, 1)
        xhat = (inputs.x - bn.running_mean.numpy().reshape(1, 4, 1, 1)) / root
    out = {"eval_xhat": np.where(bad, np.nan, xhat), "eval_y": y, "step1_x": inputs.x}
    return out | {key: np.stack(value) for key, value in rows.items()}


# ----------------------------------------------------------------------------------- the cases


def random_inputs(seed, groups=2, eps=1e-5, momentum=0.1, scale=3.0, shift=0.0):
    """Numbers with a few binary digits behind the point, so that shifting them is exact."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: np.round(rng.uniform(-scale, scale, shape) * 64) / 64  # noqa: E731
    pixels = {q: draw(4, 4, 2, 2) + shift for q in ("x", "next_x", "step2_x", "step3_x")}
    return demo.Inputs(**pixels, dy=draw(4, 4, 2, 2), gamma=draw(4), beta=draw(4), eps=eps,
                       groups=groups, momentum=momentum)  # fmt: skip


def constant_channel(inputs, value):
    """Channel 2 of every image, and all of image 3, hold one value."""
    changed = {}
    for q in ("x", "next_x", "step2_x", "step3_x"):
        changed[q] = getattr(inputs, q).copy()
        changed[q][:, 1] = changed[q][2] = value
    return replace(inputs, **changed)


CASES = {
    "as committed": demo.Inputs(),
    "groups 1": random_inputs(1, groups=1),
    "groups 2, eps 1e-3": random_inputs(2, eps=1e-3),
    "groups 4": random_inputs(3, groups=4),
    "near 1e6": random_inputs(4, shift=1e6),
    "near -1e6, groups 1": random_inputs(5, groups=1, shift=-1e6, eps=1e-3),
    "eps 0": random_inputs(6, groups=4, eps=0.0, momentum=1.0),
    "constant channel": constant_channel(random_inputs(7), 1.5),
    "constant channel, eps 0": constant_channel(random_inputs(9, groups=4, eps=0.0), 0.1),
    "constant, eps 0, momentum 1": constant_channel(
        random_inputs(10, groups=1, eps=0.0, momentum=1.0), 1e6 + 0.1
    ),
    "all zero, eps 0": demo.Inputs(*np.zeros((5, 4, 4, 2, 2)), gamma=np.zeros(4), eps=0.0),
    "as large as inputs may be": random_inputs(11, scale=1e9, eps=1e9),
    "tiny": random_inputs(12, scale=1.0, eps=0.0, groups=1).__class__(
        *(a * 1e-200 for a in np.random.default_rng(12).normal(size=(5, 4, 4, 2, 2))), eps=0.0
    ),
}


def cells_named(book, name):
    (sheet, area), *more = book.defined_names[name].destinations
    assert not more
    found = book[sheet][area]
    return [cell for row in found for cell in row] if isinstance(found, tuple) else [found]


def type_into(book, quantity, array):
    """Types numbers over the cells of an input, as a learner would."""
    for name, at in demo.names(quantity, array):
        for cell, value in zip(cells_named(book, name), np.ravel(array[at]), strict=True):
            cell.value = demo.plain(value)


def edited(path, inputs, book=None):
    """The committed workbook with other inputs, saved by openpyxl: no values beside formulas."""
    book = book or openpyxl.load_workbook(COMMITTED)
    for quantity, array in inputs.quantities().items():
        type_into(book, quantity, array)
    book.save(path)
    return path


def shown(book, quantity, array):
    """The sheet's numbers for a quantity; the word for nan as nan, anything else fails."""
    values = [c.value for name, _ in demo.names(quantity, array) for c in cells_named(book, name)]
    assert all(isinstance(v, (int, float)) or v == "0/0" for v in values), (quantity, values)
    return np.reshape([np.nan if v == "0/0" else v for v in values], array.shape).astype(float)


# Three sheets of mistakes, name -> the formula in its place. Within a sheet no mistake can be the
# reason why another's quantity differs.
WRONG = (
    {
        "bn_var_1": lambda f: f.replace("COUNT(C10:D17)", "(COUNT(C10:D17)-1)"),
        "ln_var_3": lambda f: "=SUMSQ(C14:J15)/16-AVERAGE(C14:J15)^2",  # in one pass
        "gn_mean_2_3": lambda f: f.replace("groups=2", "groups=4"),
        "run_var_1_2": lambda f: f.replace("batch_unbiased", "batch_var"),
        "run_mean_2_3": lambda f: "=momentum*before_mean_2_3+(1-momentum)*batch_mean_2_3",
    },
    {
        "bn_xhat_1_1": lambda f: f.replace("+eps)", ")"),
        "ln_y_4_2": lambda f: f.replace("+beta", "-beta"),
        "next_gn_xhat_1_4": lambda f: f.replace("next_gn_mean", "gn_mean"),
        "gn_dgamma_3": lambda f: f.replace("'Illustration'", "'Gradients'"),
        "ln_dbeta_1": lambda f: f.replace("SUM(", "AVERAGE("),
        "eval_xhat_3_1": lambda f: f.replace("run_var_3_1", "batch_var_1_1"),
    },
    {"bn_dx_2_2": lambda f: re.sub(r"-'Illustration'!\w+\*bn_pull_mean_2", "", f)},
)


BUILT = ("as committed", "groups 1", "constant channel, eps 0")


@pytest.fixture(scope="module")
def recalculated(tmp_path_factory):
    """Label -> (file, reader of its recalculated copy); LibreOffice starts once for all of them.

    Every case is typed into the committed workbook, some are built as well ("built ..."), and
    "wrong 0", "wrong 1" ... are the sheets with mistakes.
    """
    folder = tmp_path_factory.mktemp("cases")
    book = openpyxl.load_workbook(COMMITTED)
    paths = [edited(folder / f"edited{k}.xlsx", c, book) for k, c in enumerate(CASES.values())]
    paths += [COMMITTED]  # built with the first case's inputs
    paths += [demo.build(folder / f"{k}.xlsx", CASES[name]) for k, name in enumerate(BUILT[1:])]
    paths += [spoiled(folder / f"wrong{k}.xlsx", wrong, book) for k, wrong in enumerate(WRONG)]
    labels = [*CASES, *(f"built {name}" for name in BUILT)]
    labels += [f"wrong {k}" for k in range(len(WRONG))]
    fresh = map(reader_of, demo.recalculated(paths, folder / "office"))
    return dict(zip(labels, zip(paths, fresh, strict=True), strict=True))


def spoiled(path, mistakes, book):
    """Other inputs, and formulas with mistakes in them; the book gets its formulas back."""
    right = {}
    for name, spoil in mistakes.items():
        cell = cells_named(book, name)[0]
        right[name], cell.value = cell.value, spoil(cell.value)
        assert cell.value != right[name], name
    edited(path, random_inputs(20, shift=1e6, eps=1e-2), book)
    for name, formula in right.items():
        cells_named(book, name)[0].value = formula
    return path


BASE = demo.Reader(COMMITTED)


def reader_of(path):
    """As demo.Reader(path), but only the values are read: quicker, for many files of one layout."""
    reader = copy.copy(BASE)
    reader.shown, reader.found = openpyxl.load_workbook(path, data_only=True), {}
    return reader


# ----------------------------------------------------------------- LibreOffice against the oracle


@needs_libreoffice
@pytest.mark.parametrize("case", CASES)
def test_recalculated_cells_agree_with_torch(case, recalculated):
    inputs, book = CASES[case], recalculated[case][1].shown
    wanted = oracle(inputs)
    if case == "tiny":  # squares of 1e-200 are 0 in float64: the sheet and PyTorch have no sigma
        wanted = {k: np.full_like(v, np.nan) if "xhat" in k else v for k, v in wanted.items()}
        wanted = {k: v for k, v in wanted.items() if re.search("mean$|bn_xhat|dbeta", k)}
        wanted = {k: v for k, v in wanted.items() if not re.search("held|dx|pull|eval", k)}
    for quantity, want in wanted.items():
        got = shown(book, quantity, want)
        assert np.array_equal(np.isnan(got), np.isnan(want)), quantity
        norm = quantity.split("_")[0]
        scale = np.abs(np.nan_to_num(want)).max()
        if re.search("_dx|pull", quantity):  # differences of the held gradient: its scale is theirs
            power = 2 if quantity.endswith("var") else 1
            scale = max(scale, np.abs(np.nan_to_num(wanted[f"{norm}_held"])).max() ** power)
        if quantity.endswith("_mean") and not re.search("held|dx|pull", quantity):
            scale = np.abs(inputs.x).max()
        assert np.nanmax(np.abs(got - want), initial=0) <= 1e-9 * scale, quantity


@needs_libreoffice
@pytest.mark.parametrize("case", BUILT)
def test_values_in_the_file_are_those_of_its_formulas(case, recalculated):
    """Every cell, labels and warnings too, of a workbook built with these inputs."""
    before, after = recalculated[f"built {case}"]
    cached, fresh = openpyxl.load_workbook(before, data_only=True), after.shown
    formulas, limit = BASE.formulas, 1e-9
    for sheet in formulas:
        for row in sheet.iter_rows():
            for cell in (c for c in row if c.data_type == "f"):
                one, two = (b[sheet.title][cell.coordinate].value for b in (cached, fresh))
                where = f"{sheet.title}!{cell.coordinate}"
                if isinstance(one, (int, float)) and isinstance(two, (int, float)):
                    size = 1 + np.abs(CASES[case].x).max()
                    assert abs(one - two) <= limit * max(abs(one), size), where
                else:
                    assert (one or "") == (two or ""), where


@needs_libreoffice
def test_no_formula_error_in_any_cell(recalculated):
    for case, (_, reader) in recalculated.items():
        for sheet in reader.shown:
            for row in sheet.iter_rows(values_only=True):
                assert not [v for v in row if re.match(r"#|Err:", str(v))], (case, sheet.title)


@needs_libreoffice
@pytest.mark.parametrize("case", CASES)
def test_check_itself_agrees(case, recalculated):
    report = demo.compare(recalculated[case][1])
    assert report.agrees, str(report)
    assert not report.stale and not report.typed_over


@needs_libreoffice
def test_groups_say_which_norm_they_are(recalculated):
    marks = {}
    for case in ("groups 1", "groups 2, eps 1e-3", "groups 4"):
        sheet = recalculated[case][1].shown["Illustration"]
        marks[case] = {sheet.cell(row, 18).value for row in range(10, 18)}
    assert marks["groups 1"] == {"= LN"}
    assert marks["groups 4"] == {"= IN"}
    assert marks["groups 2, eps 1e-3"] <= {None, ""}


@needs_libreoffice
def test_zero_over_zero_is_explained(recalculated):
    for case in ("constant channel, eps 0", "all zero, eps 0"):
        book = recalculated[case][1].shown
        for title, at in (("Illustration", "B6"), ("Gradients", "B3")):
            assert "nothing to divide by" in book[title][at].value
    calm = recalculated["constant channel"][1].shown
    assert not calm["Illustration"]["B6"].value


# --------------------------------------------------------------------------- check finds mistakes


@needs_libreoffice
def test_check_finds_wrong_formulas(recalculated):
    for k, mistakes in enumerate(WRONG):
        report = demo.compare(recalculated[f"wrong {k}"][1])
        found = {row.quantity for row in report.rows if not row.agrees}
        assert {re.sub(r"(_\d)+$", "", name) for name in mistakes} <= found, str(report)


def test_check_finds_a_wrong_number_in_every_quantity():
    reader = demo.Reader(COMMITTED)
    for quantity, want in oracle(demo.Inputs()).items():
        cell = cells_named(reader.shown, demo.names(quantity, want)[-1][0])[-1]
        right, cell.value = cell.value, cell.value + 1e-6
        rows = demo.compare(reader).rows
        assert [row.quantity for row in rows if not row.agrees] == [quantity]
        cell.value = right
    assert demo.compare(reader).agrees


def test_committed_values_agree_with_the_oracle():
    for quantity, want in oracle(demo.Inputs()).items():
        assert np.abs(shown(BASE.shown, quantity, want) - want).max() < 1e-13, quantity


# ------------------------------------------------------------------------------ the command line


@pytest.fixture
def without_libreoffice(monkeypatch):
    monkeypatch.setattr(demo, "soffice", lambda: None)


def test_check_agrees_and_leaves_the_file_alone(tmp_path, capsys, without_libreoffice):
    path = Path(shutil.copy(COMMITTED, tmp_path / "mine.xlsx"))
    before = path.read_bytes()
    assert demo.main(["check", str(path)]) == 0
    assert "sheet and PyTorch agree" in capsys.readouterr().out
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_stale_without_libreoffice(tmp_path, capsys, without_libreoffice):
    path = edited(tmp_path / "edited.xlsx", random_inputs(30))
    assert demo.main(["check", str(path)]) == 1
    out = capsys.readouterr().out
    assert "Stale" in out and "install LibreOffice" in out and "no number" in out


def old_values(path, name, value):
    """An input changed by a program that keeps the old values beside the formulas."""
    book = openpyxl.load_workbook(COMMITTED)
    (sheet, _), *_ = book.defined_names[name].destinations
    at, index = cells_named(book, name)[0].coordinate, book.sheetnames.index(sheet) + 1
    with zipfile.ZipFile(COMMITTED) as old, zipfile.ZipFile(path, "w") as new:
        for item in old.namelist():
            text = old.read(item).decode()
            if item == f"xl/worksheets/sheet{index}.xml":
                text, n = re.subn(rf'(<c r="{at}"[^>]*><v>)[^<]*', rf"\g<1>{value}", text)
                assert n == 1
            new.writestr(item, text)
    return path


@needs_libreoffice
@pytest.mark.parametrize("kind", ("missing", "old"))
def test_stale_with_libreoffice(kind, tmp_path, capsys):
    path = tmp_path / "mine.xlsx"
    if kind == "missing":
        edited(path, random_inputs(31, groups=4))
    else:
        old_values(path, "x_1_1", 7)
    before = path.read_bytes()
    assert demo.main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "Stale" in out and "LibreOffice recalculated a copy" in out
    assert path.read_bytes() == before


@needs_libreoffice
def test_recalculate_finds_a_wrong_formula_behind_a_right_value(tmp_path):
    path = tmp_path / "hidden.xlsx"
    with zipfile.ZipFile(COMMITTED) as old, zipfile.ZipFile(path, "w") as new:
        for item in old.namelist():
            new.writestr(
                item, old.read(item).replace(b"DEVSQ(C10:D17)/COUNT", b"DEVSQ(C10:D17)/SUM")
            )
    assert demo.main(["check", str(path)]) == 0
    assert demo.main(["check", str(path), "--recalculate"]) == 1


def test_a_number_typed_over_a_formula_is_named(tmp_path, capsys, without_libreoffice):
    reader = demo.Reader(COMMITTED)
    cell = cells_named(reader.formulas, "bn_mean_2")[0]
    cell.value = cells_named(reader.shown, "bn_mean_2")[0].value
    report = demo.compare(reader)
    assert report.agrees and report.typed_over == ("Illustration!E18",)
    assert "A number stands where a formula was" in str(report)


BAD = {
    "text": ("x_2_3", "two", "Illustration!G12 holds \"two\", which is no number"),
    "text that looks like one": ("x_2_3", "3 ", "Illustration!G12 holds \"3 \""),
    "true": ("gamma_1", True, "Illustration!C4 holds \"True\""),
    "empty": ("dy_4_4", None, "Gradients!I12 is empty"),
    "groups 3": ("groups", 3, "Illustration!M5 (groups) is 3: it has to be 1, 2 or 4"),
    "groups 2.5": ("groups", 2.5, "Illustration!M5 (groups) is 2.5"),
    "negative eps": ("eps", -1e-5, "Illustration!M4 (ε) is -1e-05: it has to be 0 or more"),
    "momentum": ("momentum", 1.5, "Train and eval!C4 (momentum) is 1.5"),
    "too large": ("step3_x_1_1", 1e10, "Train and eval!U8 holds 1e+10"),
    "formula": ("beta_2", "=1+1", "Illustration!E5 holds a formula without its value"),
    "error": ("beta_2", "#DIV/0!", "Illustration!E5 shows the error #DIV/0!"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_gets_one_sentence(bad):
    name, value, sentence = BAD[bad]
    reader = copy.copy(BASE)
    (formula, shown, _), *_ = BASE.cells(name)
    right, formula.value = formula.value, value
    shown.value = None if bad == "formula" else value
    try:
        with pytest.raises(demo.InputError) as caught:
            demo.compare(reader)
    finally:
        formula.value = shown.value = right
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_bad_input_on_the_command_line(tmp_path, capsys, without_libreoffice):
    book = openpyxl.load_workbook(COMMITTED)
    cells_named(book, "groups")[0].value = 3
    book.save(tmp_path / "bad.xlsx")
    one_sentence(["check", str(tmp_path / "bad.xlsx")], "it has to be 1, 2 or 4", capsys)


def one_sentence(arguments, sentence, capsys):
    assert demo.main(arguments) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.err.count("\n") == 1 and not captured.out


@pytest.mark.parametrize(
    "name, target, sentence",
    (
        ("gn_y_3_2", None, "The name gn_y_3_2 is missing"),
        ("eps", "Nowhere!$A$1", "The name eps points nowhere"),
        ("beta_1", "#REF!", "The name beta_1 points nowhere"),
        (
            "x_1_1",
            "Illustration!$C$10:$D$12",
            "The name x_1_1 (Illustration!C10) has 6 cells, not 4",
        ),
    ),
)
def test_missing_and_misplaced_names(name, target, sentence):
    reader, known = copy.copy(BASE), BASE.formulas.defined_names
    reader.found, right = {}, known.pop(name)
    if target:
        known[name] = DefinedName(name, attr_text=target)
    try:
        with pytest.raises(demo.InputError) as caught:
            demo.compare(reader)
    finally:
        known[name] = right
    assert sentence in str(caught.value)


def test_what_is_no_workbook(tmp_path, capsys):
    (tmp_path / "text.xlsx").write_text("x,y\n1,2\n")
    (tmp_path / "half.xlsx").write_bytes(COMMITTED.read_bytes()[:20000])
    with zipfile.ZipFile(tmp_path / "zip.xlsx", "w") as archive:
        archive.writestr("note.txt", "no workbook")
    (tmp_path / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    openpyxl.Workbook().save(tmp_path / "other.xlsx")
    for name, sentence in (
        ("text.xlsx", "is no workbook"), ("half.xlsx", "is no workbook"),
        ("zip.xlsx", "is no workbook"), ("old.xls", "is no workbook"),
        ("other.xlsx", "is missing"), ("none.xlsx", "There is no file"), ("", "There is no file"),
    ):  # fmt: skip
        one_sentence(["check", str(tmp_path / name)], sentence, capsys)


# -------------------------------------------------------------------------------------- the build


def test_committed_workbook_is_what_the_program_builds(tmp_path, capsys):
    fresh, again = demo.build(tmp_path / "fresh.xlsx"), tmp_path / "again.xlsx"
    assert demo.main(["build", str(again)]) == 0
    assert fresh.read_bytes() == again.read_bytes()
    for kind, one in ((False, BASE.formulas), (True, BASE.shown)):
        two = openpyxl.load_workbook(fresh, data_only=kind)
        assert one.sheetnames == two.sheetnames
        for sheet in one:
            for a, b in zip(sheet.iter_rows(), two[sheet.title].iter_rows(), strict=True):
                for c, d in zip(a, b, strict=True):
                    same = c.value == d.value
                    if isinstance(c.value, float):  # PyTorch's last digit may differ elsewhere
                        same = same or abs(c.value - d.value) < 1e-13
                    assert same, f"{sheet.title}!{c.coordinate}: run normalization_demo.py again"


def test_an_edited_workbook_is_kept(tmp_path):
    built, path = COMMITTED.read_bytes(), tmp_path / "demo.xlsx"
    mine = edited(path, random_inputs(40)).read_bytes()
    for data in (built, built, b"no workbook", built):
        demo.replace_file(path, data)
    kept = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert kept == {"demo.xlsx": built, "demo.before1.xlsx": mine,
                    "demo.before2.xlsx": b"no workbook"}  # fmt: skip


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "demo.xlsx"
    path.write_bytes(b"mine")

    def fail(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(demo.os, "replace", fail)
    with pytest.raises(demo.InputError, match="cannot be written .Permission denied"):
        demo.replace_file(path, b"built")
    assert path.read_bytes() == b"mine"
    assert not list(tmp_path.glob("*.part"))


def test_build_says_where_it_cannot_write(tmp_path, capsys):
    one_sentence(["build", str(tmp_path / "no" / "demo.xlsx")], "There is no folder", capsys)
    with pytest.raises(demo.InputError, match="ends in .xlsx"):
        demo.replace_file(tmp_path / "demo.csv", b"")


SHARED = set(  # functions that Excel, LibreOffice and Google Sheets all have
    "ABS AND AVERAGE COUNT DEVSQ IF ISNUMBER MAX MIN ROUND SQRT SUM SUMPRODUCT".split()
)


def test_formulas_use_shared_functions_only():
    book, used = BASE.formulas, set()
    for sheet in book:
        for row in sheet.iter_rows():
            for cell in (c for c in row if c.data_type == "f"):
                assert isinstance(cell.value, str)  # an array formula would be an object
                used |= {t.value[:-1] for t in Tokenizer(cell.value).items
                         if t.type == "FUNC" and t.subtype == "OPEN"}  # fmt: skip
    assert used <= SHARED, used - SHARED


def test_names_and_inputs():
    book = BASE.formulas
    blocks = ["x", "next_x", "dy", *(f"{n}_dx" for n in NORMS)]
    blocks += [f"{p}{n}_{k}" for p in ("", "next_") for n in NORMS for k in ("xhat", "y")]
    for block in blocks:
        assert all(len(cells_named(book, f"{block}_{n}_{c}")) == 4 for n in ROWS for c in ROWS)
    singles = ["eps", "groups", "momentum"]
    singles += [f"{k}_{c}" for k in ("gamma", "beta") for c in ROWS]
    singles += [f"{n}_{k}_{c}" for n in NORMS for k in ("dgamma", "dbeta") for c in ROWS]
    for prefix in ("", "next_"):
        for key in ("mean", "var"):
            singles += [f"{prefix}{n}_{key}_{i}" for n in ("bn", "ln") for i in ROWS]
            singles += [f"{prefix}gn_{key}_{n}_{c}" for n in ROWS for c in ROWS]
    assert all(len(cells_named(book, name)) == 1 for name in singles)
    for quantity in ("x", "next_x", "step2_x", "step3_x", "dy"):
        numbers = [
            c.value for n in ROWS for k in ROWS for c in cells_named(book, f"{quantity}_{n}_{k}")
        ]
        assert all(type(v) is int and -3 <= v <= 3 for v in numbers)
    guarded = {}
    for sheet in book:
        ranges = [r for rule in sheet.data_validations.dataValidation for r in rule.sqref.ranges]
        guarded[sheet.title] = {at for r in ranges for row in r.rows for at in row}
    for quantity, array in demo.Inputs().quantities().items():
        for name, _ in demo.names(quantity, array):
            for cell in cells_named(book, name):
                assert (cell.row, cell.column) in guarded[cell.parent.title], name


def test_sheets_are_ready_for_screen_and_paper():
    book = BASE.formulas
    assert book.sheetnames == ["Read me", "Illustration", "Train and eval", "Gradients"]
    for sheet in book:
        assert sheet.page_setup.fitToWidth == sheet.page_setup.fitToHeight == 1
        assert sheet.sheet_properties.pageSetUpPr.fitToPage and sheet.print_area
        assert sheet.page_setup.orientation == "landscape"
        assert sheet.freeze_panes or sheet.title == "Read me"
        assert "RAND" not in str([row for row in sheet.iter_rows(values_only=True)])


# ------------------------------------------------------------------------------------ the pictures


def test_pictures_show_the_numbers():
    values = demo.Inputs().quantities() | demo.reference(demo.Inputs())
    marked = np.zeros((4, 4, 2, 2), bool)
    marked[0, 0, 0, 0] = True
    grid = values["gn_xhat"].copy()
    grid[3, 3] = np.nan
    ax = demo.plot_grid(grid, "gn", 2, "title", marked=marked)
    texts = [t.get_text() for t in ax.texts]
    assert texts.count("0/0") == 4 and f"{grid[0, 0, 0, 1]:.2f}" in texts
    assert [t.get_text() for t in ax.texts if t.get_weight() == "bold"] == [
        f"{grid[0, 0, 0, 0]:.2f}"
    ]
    numbers = [t.get_text() for t in demo.plot_statistics(values).texts]
    assert f"{values['bn_var'][2]:.3f}" in numbers and "-0.000" not in numbers
    image = demo.picture(ax.figure)
    assert image.data.startswith(b"\x89PNG") and len(image.data) < 30_000
