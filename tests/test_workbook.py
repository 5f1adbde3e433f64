"""The workbook's numbers and formulas: against the oracle, and against LibreOffice."""

import os
import re

import numpy as np
import openpyxl
import pytest
from openpyxl.formula import Tokenizer
from workbook_cases import (
    BASE,
    CASES,
    COMMITTED,
    NORMS,
    ROWS,
    cells_named,
    edited,
    needs_libreoffice,
    oracle,
    random_inputs,
    shown,
)  # fmt: skip

from backstage.workbook.build import build
from backstage.workbook.check import bare, compare, recalculated
from backstage.workbook.inputs import Inputs, names
from backstage.workbook.reference import reference
from backstage.workbook.tolerance import allowances

BUILT = ("as committed", "groups 1", "constant channel, eps 0", "knobs", "explain LN")
# Right workbooks with values up to 1e9 and over twelve orders of magnitude.
DRAWS = 100 if os.environ.get("SLOW") else 2


def drawn_wide(seed):
    """Values of very different sizes in one set, or all near one large number."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(-3, 8)

    def pixels():
        if seed % 2:
            return rng.choice([-1, 1], (4, 4, 2, 2)) * 10 ** rng.uniform(-3, 9, (4, 4, 2, 2))
        return 10**low * (rng.choice([0, 1, 10]) + rng.normal(size=(4, 4, 2, 2)))

    values = {q: np.clip(pixels(), -1e9, 1e9) for q in ("x", "next_x", "step2_x", "step3_x", "dy")}
    return Inputs(**values, eps=10 ** rng.uniform(-8, 0) * (seed % 3 > 0), gamma=rng.normal(size=4),
                  beta=rng.normal(size=4), groups=(1, 2, 4)[seed % 3], momentum=rng.uniform(),
                  multiply=rng.choice([1, 0.5, -2], 4))  # fmt: skip


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Label -> (inputs, the recalculated workbook); LibreOffice starts once for all of them."""
    folder = tmp_path_factory.mktemp("cases")
    book = bare(openpyxl.load_workbook(COMMITTED))
    cases = CASES | {f"wide {k}": drawn_wide(k) for k in range(DRAWS)}
    paths = [edited(folder / f"edited{k}.xlsx", c, book) for k, c in enumerate(cases.values())]
    paths += [build(folder / f"built{k}.xlsx", CASES[name]) for k, name in enumerate(BUILT)]
    cases |= {f"built {name}": CASES[name] for name in BUILT}
    for label, bad in BAD_INPUTS.items():
        edited(folder / "bad.xlsx", Inputs(), book)
        for name, value in bad.items():
            cells_named(book, name)[0].value = value
        paths.append(folder / f"{label}.xlsx")
        book.save(paths[-1])
        cases[label] = None
    books = recalculated(paths, folder / "office")
    return {
        label: (given, BASE.showing(copy), path)
        for (label, given), copy, path in zip(cases.items(), books, paths, strict=True)
    }


# What a learner may get into the cells in spite of the validation, by pasting or deleting.
BAD_INPUTS = {
    "groups 3": {"groups": 3, "momentum": -1},
    "groups blank": {"groups": None, "momentum": 5},
    "text": {"x_2_3": "two", "dy_1_1": None, "next_x_1_1": "a", "momentum": "b"},
    "eps -1": {"eps": -1, "explain_image": None},
    "eps text": {"eps": "tiny"},
    "norm": {"explain_norm": "XX"},
}


# ----------------------------------------------------------------- LibreOffice against the oracle


@needs_libreoffice
@pytest.mark.parametrize("case", CASES)
def test_recalculated_cells_agree_with_torch(case, fresh):
    inputs, reader, _ = fresh[case]
    wanted = oracle(inputs)
    if case == "tiny":  # squares of 1e-200 are 0 in float64: the sheet and PyTorch have no sigma
        wanted = {k: np.full_like(v, np.nan) if "xhat" in k else v for k, v in wanted.items()}
        wanted = {k: v for k, v in wanted.items() if re.search("mean$|bn_xhat|dbeta", k)}
        wanted = {k: v for k, v in wanted.items() if not re.search("held|dx|pull|eval", k)}
    for quantity, want in wanted.items():
        got = shown(reader.shown, quantity, want)
        assert np.array_equal(np.isnan(got), np.isnan(want)), quantity
        norm = quantity.split("_")[0]
        scale = np.abs(np.nan_to_num(want)).max()
        if re.search("_dx|pull", quantity):  # differences of the held gradient: its scale is theirs
            power = 2 if quantity.endswith("var") else 1
            scale = max(scale, np.abs(np.nan_to_num(wanted[f"{norm}_held"])).max() ** power)
        if quantity.endswith("_mean") and not re.search("held|dx|pull", quantity):
            scale = np.abs(wanted["used_x"]).max() if "used_x" in wanted else scale
        assert (np.nan_to_num(np.abs(got - want)) <= 1e-9 * scale).all(), quantity


@needs_libreoffice
@pytest.mark.parametrize("case", BUILT)
def test_values_in_the_file_are_those_of_its_formulas(case, fresh):
    """Every cell, labels, arithmetic and hidden ones too, of a workbook built with these inputs."""
    inputs, reader, path = fresh[f"built {case}"]
    cached, size = openpyxl.load_workbook(path, data_only=True), 1 + np.abs(inputs.used_x).max()
    for sheet in BASE.formulas:
        for row in sheet.iter_rows():
            for cell in (c for c in row if c.data_type == "f"):
                one, two = (b[sheet.title][cell.coordinate].value for b in (cached, reader.shown))
                where = f"{sheet.title}!{cell.coordinate}"
                if isinstance(one, (int, float)) and isinstance(two, (int, float)):
                    assert abs(one - two) <= 1e-9 * max(abs(one), size), where
                else:
                    assert (one or "") == (two or ""), where


@needs_libreoffice
def test_no_formula_error_in_any_cell(fresh):
    for case, (_, reader, _) in fresh.items():
        for sheet in reader.shown:
            for row in sheet.iter_rows(values_only=True):
                assert not [v for v in row if re.match(r"#|Err:", str(v))], (case, sheet.title)


@needs_libreoffice
@pytest.mark.parametrize("case", (*CASES, *(f"wide {k}" for k in range(DRAWS))))
def test_check_refuses_no_right_workbook(case, fresh):
    inputs, reader, _ = fresh[case]
    report = compare(reader, inputs)
    assert report.agrees, str(report)


def test_what_is_allowed_stays_small():
    """1e-9 of a set's scale where nothing is blurred; more only beside far larger numbers."""
    for inputs, largest in ((Inputs(), 2e-8), (random_inputs(4, shift=1e6), 1e-6)):
        want = oracle(inputs)
        limits = allowances(inputs, reference(inputs))
        for norm in NORMS:
            for key in ("mean", "var", "xhat", "y", "dx"):
                scale = np.abs(want[f"{norm}_{key}"]).max()
                assert limits[f"{norm}_{key}"].max() <= largest * max(scale, 1), (norm, key)


def test_committed_values_agree_with_the_oracle():
    for quantity, want in oracle(Inputs()).items():
        assert np.abs(shown(BASE.shown, quantity, want) - want).max() < 1e-13, quantity


@needs_libreoffice
def test_groups_say_which_norm_they_are(fresh):
    marks = {}
    for case in ("groups 1", "groups 2, eps 1e-3", "groups 4"):
        book = fresh[case][1].shown
        marks[case] = {cells_named(book, f"gn_{k}_is_{n}")[0].value for k in ("mean", "var")
                       for n in ROWS}  # fmt: skip
    assert marks["groups 1"] == {"= LN"}
    assert marks["groups 4"] == {"= IN"}
    assert marks["groups 2, eps 1e-3"] <= {None, ""}


# ------------------------------------------------------------------------------- what it says


def warnings_of(reader):
    return {t: reader.shown[t][at].value or "" for t, at in
            (("Illustration", "B5"), ("Layer N+1", "B5"), ("Train and eval", "B3"),
             ("Gradients", "B3"), ("Charts", "B3"))}  # fmt: skip


@needs_libreoffice
@pytest.mark.parametrize("label", BAD_INPUTS)
def test_a_wrong_input_is_named(label, fresh):
    said, named = warnings_of(fresh[label][1]), set()
    for name in BAD_INPUTS[label]:
        ((sheet, area),) = BASE.formulas.defined_names[name].destinations
        sheet = sheet.replace("''", "'")
        if sheet not in named:  # the first on its sheet
            first = area.replace("$", "").split(":")[0]
            assert said[sheet].startswith(f"{first} has to be "), said
            named.add(sheet)
    if "Illustration" in named:
        assert all(said[t] == f"Illustration: {said['Illustration']}" for t in said.keys() - named)
    assert "nothing to divide" not in str(said)


@needs_libreoffice
def test_a_wrong_input_leaves_no_wrong_number(fresh):
    def column(label, quantity, index=ROWS):
        return [cells_named(fresh[label][1].shown, f"{quantity}_{i}")[0].value for i in index]

    assert column("text", "bn_mean")[2] == "?" and column("text", "ln_mean")[1] == "?"
    assert isinstance(column("text", "bn_mean")[0], (int, float))
    assert set(column("groups 3", "gn_mean_1")) == {"?"} == set(column("groups blank", "gn_y_1"))
    assert not [v for v in column("groups 3", "gn_mean_is") if v]
    assert set(column("groups blank", "run_var_1")) == {"?"} == set(column("eps -1", "bn_xhat_1"))
    assert set(column("groups 3", "eval_y_1")) == {"?"}
    text = fresh["groups 3"][1].shown["Illustration"]["B20"].value
    assert text == "groups has to be 1, 2 or 4"


@needs_libreoffice
def test_zero_over_zero_is_explained(fresh):
    for case in ("constant channel, eps 0", "all zero, eps 0"):
        said = warnings_of(fresh[case][1])
        assert "nothing to divide by" in said["Illustration"] and "B5" not in said["Gradients"]
        assert "nothing to divide by" in said["Gradients"]
    assert not any(warnings_of(fresh["constant channel"][1]).values())


@needs_libreoffice
def test_the_panel_shows_the_arithmetic(fresh):
    sheet = fresh["as committed"][1].shown["Illustration"]
    mean, var, hat = (sheet[at].value for at in ("C25", "C27", "C30"))
    assert mean == "(1 + 3 − 2 + 0 + 2 + 1 + 0 − 3 + 3 + 2 + 1 − 1 − 1 + 0 + 2 − 2) / 16"
    assert var.startswith("(0.625² + 2.625² + 2.375² + ") and var.endswith(") / 16")
    assert hat == "(1 − 0.375) / √(3.109 + 0.00001)"
    assert sheet["C31"].value == "1.25 · 0.354 + 0.25"
    sheet = fresh["explain LN"][1].shown["Illustration"]
    assert sheet["C24"].value == "image 4, channels 1 to 4" and sheet["J24"].value == 16
    assert fresh["explain GN 4"][1].shown["Illustration"]["C24"].value == "image 3, channel 4"


# ------------------------------------------------------------------------------- the formulas

SHARED = set(  # functions that Excel 2010, LibreOffice and Google Sheets all have
    "ABS AND AVERAGE CHOOSE COUNT COUNTIF DEVSQ IF INDEX INT ISNUMBER ISTEXT LEFT LEN LOG10 MATCH "
    "MAX MIN OR RIGHT ROUND SQRT SUM SUMPRODUCT TRUE FALSE".split()
)


def test_formulas_use_shared_functions_only():
    used = set()
    for sheet in BASE.formulas:
        for row in sheet.iter_rows():
            for cell in (c for c in row if c.data_type == "f"):
                assert isinstance(cell.value, str)  # an array formula would be an object
                used |= {t.value[:-1] for t in Tokenizer(cell.value).items
                         if t.type == "FUNC" and t.subtype == "OPEN"}  # fmt: skip
    assert used <= SHARED, used - SHARED


@pytest.mark.skipif(not os.environ.get("SLOW"), reason="half a minute each: set SLOW=1")
@pytest.mark.parametrize("seed", range(3))
def test_a_second_engine_agrees(seed, tmp_path):
    """`formulas`, a spreadsheet engine in Python that shares no code with LibreOffice."""
    engine = pytest.importorskip("formulas", reason="pip install formulas: a second engine")
    inputs = random_inputs(50 + seed, groups=(1, 2, 4)[seed], eps=0.01, momentum=0.3,
                           explain_norm=("GN", "BN", "LN")[seed], explain_channel=3)  # fmt: skip
    path = edited(tmp_path / "other.xlsx", inputs)
    model = engine.ExcelModel().loads(str(path)).finish()
    solution = {str(key).upper(): found for key, found in model.calculate().items()}
    for quantity, want in oracle(inputs).items():
        got = []
        for name, _ in names(quantity, want):
            for cell in cells_named(BASE.formulas, name):
                key = f"'[{path.name}]{cell.parent.title}'!{cell.coordinate}".upper()
                got.append(float(solution[key].value[0, 0]))
        assert np.allclose(np.reshape(got, want.shape), want, rtol=1e-9, atol=1e-9), quantity
