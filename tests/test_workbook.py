"""The workbook's numbers: stored and recalculated by LibreOffice, against the oracle."""

import os
import re
import shutil
import subprocess
from statistics import median

import numpy as np
import openpyxl
import pytest
from openpyxl.formula import Tokenizer
from openpyxl.worksheet.formula import ArrayFormula
from workbook_cases import (
    BASE,
    CASES,
    WORKBOOK,
    cell,
    constant,
    needs_libreoffice,
    oracle,
    random_inputs,
)

from backstage.workbook import InputError, Inputs, build, inputs, reference
from backstage.workbook.check import differences, recalculated
from backstage.workbook.reader import Reader
from backstage.workbook.table import COMPUTED, formula

BUILT = ("delivered", "groups 1", "groups 4, momentum 1")
WRONG_INPUTS = {  # what a learner gets into the cells by pasting or deleting -> what the sheet says
    "empty": ({"x_2_3": None}, "63 of 64 numbers: image 2, channel 3 is empty"),
    "text": ({"x_1_1": "two", "next_x_4_4": "a"},
             "63 of 64 numbers: image 1, channel 1 is no number  ·  layer N+1: 63 of 64"),
    "groups 3": ({"groups": 3}, "groups has to be 1, 2 or 4"),
    "eps": ({"eps": 1e-70, "gamma_2": "x"}, "γ needs four numbers  ·  ε has to be 0, or a number"),
    "error": ({"x_3_2": "#N/A", "explain_norm": "IN"}, "image 3, channel 2 is no number"),
}  # fmt: skip


@pytest.fixture(scope="module")
def office(tmp_path_factory):
    """Label -> the workbook as LibreOffice recalculates it, which starts once for all of them."""
    folder, paths = tmp_path_factory.mktemp("cases"), {}
    for label in BUILT:
        paths[f"built {label}"] = folder / f"built{len(paths)}.xlsx"
        build(paths[f"built {label}"], CASES[label])
        openpyxl.load_workbook(paths[f"built {label}"]).save(folder / f"bare{len(paths) - 1}.xlsx")
    bare = {label: folder / path.name.replace("built", "bare") for label, path in paths.items()}
    reader = Reader(WORKBOOK)
    for label, given in (CASES | {"eps 0": constant(random_inputs(9, eps=0.0))}).items():
        bare[label] = folder / f"typed{len(bare)}.xlsx"
        reader.save(bare[label], given)
    for label, (wrong, _) in WRONG_INPUTS.items():
        book = openpyxl.load_workbook(WORKBOOK)
        for name, value in wrong.items():
            cell(book, name).value = value
        bare[label] = folder / f"wrong{len(bare)}.xlsx"
        book.save(bare[label])
    copies = recalculated(list(bare.values()), folder / "office")
    shown = {label: BASE.showing(copy) for label, copy in zip(bare, copies, strict=True)}
    return shown, paths


def compare(reader, given):
    """Each quantity as the sheet shows it, against the oracle, to 1e-9 of what it is made of."""
    wanted = oracle(given)
    assert wanted.keys() == COMPUTED.keys()
    for name, want in wanted.items():
        got = np.reshape(reader.shown(name), np.shape(want)).astype(float)
        sizes = [
            wanted.get(key, getattr(given, key, 0)) for key in (name, COMPUTED[name].over) if key
        ]
        scale = max(1e-30 + np.abs(np.asarray(size)).max() for size in sizes)
        assert np.abs(got - want).max() <= 1e-9 * max(scale, 1), name


def test_stored_numbers_agree_with_the_oracle():
    compare(BASE, Inputs())


@needs_libreoffice
@pytest.mark.parametrize("case", CASES)
def test_recalculated_numbers_agree_with_the_oracle(case, office):
    compare(office[0][case], CASES[case])
    assert not list(differences(office[0][case], CASES[case]))  # `check` refuses no right workbook


@pytest.mark.parametrize("case", [c for c in CASES if c not in ("up to 1e9", "near 1e6")])
def test_reference_agrees_with_the_oracle(case):
    for name, want in oracle(CASES[case]).items():
        assert np.allclose(reference(CASES[case])[name].numpy(), want, rtol=1e-9, atol=1e-9), name


@needs_libreoffice
def test_zero_over_zero_shows_excels_own_error(office):
    given = constant(random_inputs(9, eps=0.0))
    shown, found = office[0]["eps 0"], reference(given)
    undefined = found["bn_xhat"].isnan().flatten().tolist()
    assert undefined.count(True) == 16
    for name in ("bn_xhat", "bn_y", "bn_dx"):
        assert [value == "#DIV/0!" for value in shown.shown(name)] == undefined
    assert not list(differences(shown, given))


@needs_libreoffice
@pytest.mark.parametrize("case", BUILT)
def test_stored_values_are_those_of_the_formulas(case, office):
    """Every cell, with labels and the panel's arithmetic, of a workbook with these inputs."""
    shown, paths = office
    stored = openpyxl.load_workbook(paths[f"built {case}"], data_only=True)
    formulas = openpyxl.load_workbook(paths[f"built {case}"])
    for sheet in formulas:
        for found in (c for row in sheet.iter_rows() for c in row if c.data_type == "f"):
            books = (stored, shown[f"built {case}"].values)
            one, two = (book[sheet.title][found.coordinate].value for book in books)
            where = f"{sheet.title}!{found.coordinate}"
            if isinstance(one, (int, float)) and isinstance(two, (int, float)):
                assert abs(one - two) <= 1e-11 * max(1, abs(one)), where
            else:
                assert (one or "") == (two or ""), where


def test_a_second_build_is_the_same_to_the_byte_and_as_committed(tmp_path):
    one, two = (build(tmp_path / f"{k}.xlsx").read_bytes() for k in "12")
    assert one == two == WORKBOOK.read_bytes()


def test_a_workbook_cannot_be_built_just_anywhere(tmp_path):
    with pytest.raises(InputError, match="ends in .xlsx"):
        build(tmp_path / "book.xls")
    with pytest.raises(InputError, match="cannot be written"):
        build(tmp_path / "nowhere" / "book.xlsx")


def test_the_lessons_pixel_can_be_computed_by_hand():
    given, found = inputs(), reference()
    assert given.x[0, 0, 0, 0] == 7
    pixels = (found[f"{norm}_xhat"][0, 0, 0, 0].item() for norm in ("bn", "ln", "gn"))
    assert np.allclose(list(pixels), (2, 0.5, 1), rtol=1e-5)
    pairs = [(found[f"{n}_mean"][k].item(), found[f"{n}_var"][k].item())
             for n, k in (("bn", 0), ("ln", 0), ("gn", (0, 0)))]  # fmt: skip
    assert pairs == [(3, 4), (5, 16), (4, 9)]


def test_the_norms_differ_visibly():
    found = reference()
    for one, two in (("bn", "ln"), ("bn", "gn"), ("ln", "gn")):
        gap = (found[f"{one}_xhat"] - found[f"{two}_xhat"]).square().mean().sqrt()
        assert gap > 0.4


# ------------------------------------------------------------------------------- what it says


@needs_libreoffice
@pytest.mark.parametrize("label", WRONG_INPUTS)
def test_a_wrong_input_is_named_in_words(label, office):
    said = office[0][label].values["Illustration"]["B3"].value
    assert WRONG_INPUTS[label][1] in said
    for sheet in ("Layer N+1", "Train and eval", "Gradients", "Charts"):
        assert office[0][label].values[sheet]["B3"].value == f"Illustration: {said}"


@needs_libreoffice
def test_nothing_is_said_where_all_is_right(office):
    for case in ("delivered", "groups 1", "near 1e6"):
        sheets = office[0][case].values.worksheets[1:]
        assert not [s["B3"].value for s in sheets if s["B3"].value]


@needs_libreoffice
def test_the_panel_shows_the_arithmetic(office):
    sheet = office[0]["delivered"].values["Illustration"]
    total = "(7 + 1 + 1 + 3 + 6 + 4 + 5 + 5 + 1 + 2 + 0 + 1 + 4 + 2 + 4 + 2) / 16"
    assert sheet["C25"].value == total
    assert sheet["C27"].value == "(4)² + (-2)² + (-2)² + (0)² +"
    assert sheet["C31"].value == "(7 − 3) / √(4 + 0.00001)"
    assert sheet["C32"].value == "2 · 2 + 1"
    assert sheet["B4"].value.startswith("Look at one pixel: 7 becomes 2.00 under BN, 0.50 under LN")


# ------------------------------------------------------------------------------- the formulas

EVERYWHERE = set(  # in Excel since 2019, LibreOffice, Google Sheets and Gnumeric
    "AND AVERAGE CHOOSE COLUMN COUNT FIXED IF INDEX INT ISBLANK ISNUMBER LEFT MATCH NA OFFSET OR "
    "RIGHT ROUND ROW SQRT SUBSTITUTE SUM SUMPRODUCT SUMXMY2 VAR VARP _xlfn.TEXTJOIN".split()
)


def formulas(book):
    for sheet in book:
        for found in (c for row in sheet.iter_rows() for c in row if c.data_type == "f"):
            text = found.value.text if isinstance(found.value, ArrayFormula) else found.value
            yield found, text


def test_functions_are_those_that_every_program_has():
    tokens = (token for _, text in formulas(BASE.formulas) for token in Tokenizer(text).items)
    used = {t.value[:-1] for t in tokens if t.type == "FUNC" and t.subtype == "OPEN"}
    assert used == EVERYWHERE


def test_formulas_can_be_read():
    lengths = [len(formula(q, index)) for q in COMPUTED.values() for index in q.indices()]
    assert median(lengths) <= 45 and max(lengths) <= 120
    assert cell(BASE.formulas, "bn_var_2").value == "=VARP(P8:Q15)"
    assert cell(BASE.formulas, "bn_xhat_1_1").value == "=(N8-bn_mean_1)/SQRT(bn_var_1+eps)"
    assert cell(BASE.formulas, "bn_y_1_1").value == "=gamma_1*N22+beta_1"


@pytest.mark.skipif(
    not (os.environ.get("SLOW") and shutil.which("ssconvert")),
    reason="ten seconds, with Gnumeric: set SLOW=1",
)
def test_a_second_engine_agrees(tmp_path):
    """Gnumeric, which shares no code with LibreOffice."""
    reader = Reader(WORKBOOK)
    for case, given in CASES.items():
        name = re.sub(r"\W", "", case)
        reader.save(tmp_path / f"{name}.xlsx", given)
        command = ["ssconvert", "--recalc", f"{name}.xlsx", f"{name}.out.xlsx"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        compare(BASE.showing(tmp_path / f"{name}.out.xlsx"), given)
