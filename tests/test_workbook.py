"""The workbook's numbers, stored and recalculated, against the oracle; wrong formulas are found.

LibreOffice starts once for all of it. SLOW=1 also asks Gnumeric.
"""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from workbook_cases import BASE, CASES, EPS_0, WRONG, cell, needs_libreoffice, oracle, spoiled

from backstage.workbook import Inputs, build, inputs, reference
from backstage.workbook.build import WORKBOOK
from backstage.workbook.check import differences, draws, recalculated
from backstage.workbook.given import LISTS
from backstage.workbook.reader import Reader, where
from backstage.workbook.table import COMPUTED

BUILT = ("delivered", "groups 1", "groups 4, momentum 1")
WRONG_INPUTS = (  # what a learner gets into the cells by pasting or deleting; what the sheet says
    ({"x_2_3": None, "gamma_2": "x", "eps": 1e-70, "groups": 3},
     ("63 of 64 numbers: image 2, channel 3 is empty", "γ needs four numbers",
      "ε has to be 0, or a number", "groups has to be 1, 2 or 4")),
    ({"x_1_1": "two", "x_3_2": "#N/A", "next_x_4_4": "a", "explain_norm": "IN"},
     ("62 of 64 numbers: image 1, channel 1 is no number; image 3, channel 2",
      "layer N+1: 63 of 64", "norm has to be BN, LN or GN")),
)  # fmt: skip


@pytest.fixture(scope="module")
def office(tmp_path_factory):
    """Label -> a workbook as LibreOffice shows it, and the built ones with their stored values."""
    folder, paths = tmp_path_factory.mktemp("office"), {}
    built = {label: Reader(build(folder / f"built{k}.xlsx", CASES[label]))
             for k, label in enumerate(BUILT)}  # fmt: skip

    def save(label, given, reader=built["delivered"]):
        paths[label] = folder / f"{len(paths)}.xlsx"
        reader.save(paths[label], given)

    for label, given in (CASES | {"eps 0": EPS_0}).items():
        save(label, given, built.get(label, built["delivered"]))
    book = built["delivered"].formulas
    for k, mistakes in enumerate(WRONG):
        with spoiled(book, mistakes):
            for draw, given in enumerate(draws()):
                save((k, draw), given)
    for k, (wrong, _) in enumerate(WRONG_INPUTS):
        save(k, Inputs())
        for name, value in wrong.items():
            cell(book, name).value = value
        book.save(paths[k])
    copies = recalculated(list(paths.values()), folder / "out")
    return {label: BASE.showing(copy) for label, copy in zip(paths, copies, strict=True)}, built


def compare(reader, given):
    """Each quantity as the sheet shows it, against the oracle, to 1e-9 of what it is made of."""
    wanted = oracle(given)
    assert wanted.keys() == COMPUTED.keys()
    for name, want in wanted.items():
        got = np.reshape(reader.shown(name), np.shape(want)).astype(float)
        over = COMPUTED[name].over or name
        sizes = (want, wanted[over] if over in wanted else getattr(given, over))
        scale = max(np.abs(np.asarray(size)).max() for size in sizes)
        assert np.abs(got - want).max() <= 1e-9 * max(scale, 1), name


def test_stored_numbers_agree_with_the_oracle():
    compare(BASE, Inputs())


@needs_libreoffice
@pytest.mark.parametrize("case", CASES)
def test_recalculated_numbers_agree_with_the_oracle(case, office):
    shown = office[0][case]
    compare(shown, CASES[case])
    assert not list(differences(shown, CASES[case]))  # `check` refuses no right workbook
    assert not [sheet["B3"].value for sheet in shown.values.worksheets[1:] if sheet["B3"].value]


@pytest.mark.parametrize("case", [c for c in CASES if c not in ("up to 1e9", "near 1e6")])
def test_reference_agrees_with_the_oracle(case):
    found = reference(CASES[case])
    for name, want in oracle(CASES[case]).items():
        assert np.allclose(found[name].numpy(), want, rtol=1e-9, atol=1e-9), name


@needs_libreoffice
def test_zero_over_zero_shows_excels_own_error(office):
    undefined = reference(EPS_0)["bn_xhat"].isnan().flatten().tolist()
    assert undefined.count(True) == 16
    for name in ("bn_xhat", "bn_y", "bn_dx"):
        assert [value == "#DIV/0!" for value in office[0]["eps 0"].shown(name)] == undefined
    assert not list(differences(office[0]["eps 0"], EPS_0))


@needs_libreoffice
@pytest.mark.parametrize("case", BUILT)
def test_stored_values_are_those_of_the_formulas(case, office):
    """Every cell, with labels and the panel's arithmetic, of a workbook with these inputs."""
    built = office[1][case]
    for sheet in built.formulas:
        for found in (c for row in sheet.iter_rows() for c in row if c.data_type == "f"):
            books = (built.values, office[0][case].values)
            one, two = (book[sheet.title][found.coordinate].value for book in books)
            if isinstance(one, (int, float)) and isinstance(two, (int, float)):
                assert abs(one - two) <= 1e-11 * max(1, abs(one)), where(found)
            else:
                assert (one or "") == (two or ""), where(found)


def test_the_lessons_pixel_can_be_computed_by_hand():
    given, found = inputs(), reference()
    assert given.x[0, 0, 0, 0] == 7
    for norm, at, mean, var, xhat in (("bn", 0, 3, 4, 2), ("ln", 0, 5, 16, 0.5),
                                      ("gn", (0, 0), 4, 9, 1)):  # fmt: skip
        assert (found[f"{norm}_mean"][at], found[f"{norm}_var"][at]) == (mean, var)
        assert np.isclose(found[f"{norm}_xhat"][0, 0, 0, 0], xhat, rtol=1e-5)
    sheet = BASE.values["Illustration"]
    total = "(7 + 1 + 1 + 3 + 6 + 4 + 5 + 5 + 1 + 2 + 0 + 1 + 4 + 2 + 4 + 2) / 16"
    assert sheet["C25"].value == total
    assert sheet["C27"].value == "(4)² + (-2)² + (-2)² + (0)² +"
    assert sheet["C31"].value == "(7 − 3) / √(4 + 0.00001)"
    assert sheet["C32"].value == "2 · 2 + 1"
    assert sheet["B4"].value.startswith("Look at one pixel: 7 becomes 2.00 under BN, 0.50 under LN")
    for one, two in (("bn", "ln"), ("bn", "gn"), ("ln", "gn")):  # and the norms differ visibly
        gap = found[f"{one}_xhat"] - found[f"{two}_xhat"]
        assert gap.square().mean().sqrt() > 0.4


@needs_libreoffice
@pytest.mark.parametrize("k", range(len(WRONG_INPUTS)))
def test_wrong_inputs_are_named_in_words(k, office):
    sheets = office[0][k].values
    said = sheets["Illustration"]["B3"].value
    assert all(words in said for words in WRONG_INPUTS[k][1]), said
    for title in ("Layer N+1", "Train and eval", "Gradients", "Charts"):
        assert sheets[title]["B3"].value == f"Illustration: {said}"


@pytest.fixture(scope="module")
def found(office):
    """For each set of mistakes, all cells that differ on one of `check`'s own inputs."""
    return [{where(c) for draw, given in enumerate(draws())
             for _, c, _ in differences(office[0][k, draw], given)}
            for k in range(len(WRONG))]  # fmt: skip


@needs_libreoffice
@pytest.mark.parametrize("k, name", [(k, name) for k, some in enumerate(WRONG) for name in some])
def test_a_wrong_formula_is_found(k, name, found):
    assert where(cell(BASE.formulas, name)) in found[k]


def test_draws_are_what_learners_type():
    given = draws()
    for name in ("gamma", "beta", "multiply"):
        assert all((getattr(g, name) < 0).any() and (getattr(g, name) > 0).any() for g in given)
    assert {0.0, 1.0} < {g.momentum for g in given}
    for name, options in LISTS.items():
        assert {getattr(g, name) for g in given} == set(options), name
    assert max(g.x.abs().max() for g in given) > 1e5
    assert any((var == 0).any() and (var > 0).any() for g in given
               for var in (reference(g)["ln_var"], reference(g)["next_bn_var"]))  # fmt: skip


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
