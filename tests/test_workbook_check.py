"""`check`: it finds wrong formulas, refuses no right sheet, and says in one sentence what is bad.

SLOW=1 tries every wrong formula one at a time, through the command line.
"""

import datetime
import importlib
import os
import re
import zipfile

import openpyxl
import pytest
from openpyxl.workbook.defined_name import DefinedName
from workbook_cases import BASE, WORKBOOK, cell, needs_libreoffice

from backstage.workbook import InputError, Inputs, reference
from backstage.workbook.__main__ import main
from backstage.workbook.check import differences, draws, retyped
from backstage.workbook.given import LISTS
from backstage.workbook.reader import Reader, where


def sub(old, new):
    """A mistake: a piece of the formula is replaced (a regular expression)."""
    return lambda formula: re.sub(old, new, formula)


# Those of one sheet do not feed on each other, so that each has to be found by itself.
WRONG = (
    {
        "ln_var_3": sub("VARP", "SUMSQ"),
        "gn_mean_2_3": sub(r"groups,(\w+:\w+),\w+:\w+", r"groups,\1,\1"),
        "gn_var_4_1": sub("groups", "2"),
        "next_bn_mean_4": sub("AVERAGE", "MEDIAN"),
        "next_gn_var_2_2": sub(r"NA\(\),\w+:\w+", "NA(),AC10:AD10"),
        "ln_y_4_2": sub(r"\+beta_2", "-beta_2"),
        "gn_y_4_4": sub("gamma_4", "ABS(gamma_4)"),
        "next_ln_y_2_1": sub("beta_1", "beta_2"),
        "eval_gap": sub("/64", "/63"),
        "set_column": sub("INT", ""),
        "bn_dgamma_2": sub("SUMPRODUCT", "SUMXMY2"),
        "ln_dbeta_1": sub("SUM", "AVERAGE"),
        "gn_pull_mean_2_2": sub("AVERAGE", "SUM"),
        "ln_held_var_4": sub("VARP", "DEVSQ"),
        "next_gn_xhat_1_4": sub("next_gn_mean", "gn_mean"),
    },
    {
        "bn_var_4": sub("VARP", "VAR"),
        "bn_xhat_1_1": sub("eps", "0.00001"),
        "ln_xhat_2_2": sub(r"\+eps", ""),
        "gn_xhat_3_3": sub("gn_mean_3_3", "gn_mean_3_1"),
        "bn_y_2_3": lambda formula: "=1.5",
        "used_x_4_4": sub("add_4", "add_3"),
        "gn_held_3_1": sub("SQRT", ""),
        "bn_dx_2_2": sub(r"-Illustration!\w+\*bn_pull_mean_2", ""),
        "ln_dx_1_1": sub("-ln_held_mean_1", ""),
        "run_mean_2_2": sub(r"\(1-momentum\)", "0.8"),
        "run_var_1_2": sub("batch_unbiased", "batch_var"),
        "batch_unbiased_2_4": sub("VAR", "VARP"),
        "before_mean_2_4": sub("run_mean_1_4", "batch_mean_1_4"),
        "step1_x_2_3": sub("R10", "G10"),
        "eval_xhat_3_1": sub("run_var_3_1", "batch_var_1_1"),
        "eval_y_2_1": sub(r"gamma_1\*", "gamma_1+"),
        "explain_var": sub("VARP", "VAR"),
    },
)
ONE_BY_ONE = [(k, name) for k, mistakes in enumerate(WRONG) for name in mistakes]


def spoiled(mistakes):
    book = openpyxl.load_workbook(WORKBOOK)
    for name, spoil in mistakes.items():
        right = cell(book, name).value
        cell(book, name).value = spoil(right)
        assert cell(book, name).value != right, name
    return book


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """For each sheet of mistakes, all cells that differ on one of `check`'s own inputs."""
    folder, out = tmp_path_factory.mktemp("wrong"), []
    for k, mistakes in enumerate(WRONG):
        spoiled(mistakes).save(folder / f"{k}.xlsx")
        copies = retyped(Reader(folder / f"{k}.xlsx"), draws())
        pairs = zip(copies, draws(), strict=True)
        out.append({where(c) for copy, given in pairs for _, c, _ in differences(copy, given)})
    return out


@needs_libreoffice
@pytest.mark.parametrize("sheet, name", ONE_BY_ONE)
def test_a_wrong_formula_is_found(sheet, name, found):
    assert where(cell(BASE.formulas, name)) in found[sheet]


@needs_libreoffice
@pytest.mark.skipif(not os.environ.get("SLOW"), reason="ten seconds each: set SLOW=1")
@pytest.mark.parametrize("sheet, name", ONE_BY_ONE)
def test_check_finds_each_wrong_formula_alone(sheet, name, tmp_path):
    spoiled({name: WRONG[sheet][name]}).save(tmp_path / "wrong.xlsx")
    assert main(["check", str(tmp_path / "wrong.xlsx")]) == 1


def test_a_wrong_number_is_found_in_every_quantity():
    reader = Reader(WORKBOOK)
    for name in reference():
        last = reader.cells[name][-1]
        stored = reader.values[last.parent.title][last.coordinate]
        right, stored.value = stored.value, stored.value + 1e-4
        assert {q for q, *_ in differences(reader, Inputs())} == {name}
        stored.value = right
    assert not list(differences(reader, Inputs()))


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


# ------------------------------------------------------------------------------ the command line


@pytest.fixture
def without_libreoffice(monkeypatch):
    module = importlib.import_module("backstage.workbook.check")
    monkeypatch.setattr(module, "soffice", lambda: None)


def edited(path, change):
    """A copy of the workbook as openpyxl saves it after a change; no values beside formulas."""
    book = openpyxl.load_workbook(WORKBOOK)
    change(book)
    book.save(path)
    return path


def patched(path, part, old, new):
    """A copy with a piece of one part of the file replaced; its stored values stay."""
    with zipfile.ZipFile(WORKBOOK) as before, zipfile.ZipFile(path, "w") as after:
        for item in before.namelist():
            data = before.read(item)
            if item == part:
                data, count = re.subn(old, new, data, count=1)
                assert count
            after.writestr(item, data)
    return path


MAIN_SHEET = "xl/worksheets/sheet2.xml"


@needs_libreoffice
def test_check_recalculates(tmp_path, capsys):
    """A right value beside a wrong formula; and the file is only read."""
    path = patched(tmp_path / "hidden.xlsx", MAIN_SHEET, rb"bn_var_1\+eps", b"bn_var_1+0.00001")
    before = path.read_bytes()
    assert main(["check", str(path)]) == 1
    said = capsys.readouterr().out
    assert "bn_xhat            Illustration!N22 shows" in said and "(with other inputs)" in said
    assert said.splitlines()[-1].startswith("Not looked at: the charts, colours")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_without_libreoffice_only_what_is_stored_is_compared(tmp_path, capsys, without_libreoffice):
    assert main(["check", str(WORKBOOK)]) == 0
    said = capsys.readouterr().out
    assert "1,999 numbers: sheet and PyTorch agree." in said and "Only the numbers stored" in said
    path = patched(tmp_path / "typed.xlsx", MAIN_SHEET, rb'(<c r="C8"[^>]*><v>)7', rb"\g<1>8")
    assert main(["check", str(path)]) == 1
    edited(tmp_path / "bare.xlsx", lambda book: None)
    assert main(["check", str(tmp_path / "bare.xlsx")]) == 2
    assert "formulas without values" in capsys.readouterr().err


def rename(name, target):
    def change(book):
        del book.defined_names[name]
        if target:
            book.defined_names[name] = DefinedName(name, attr_text=target)

    return change


def test_a_name_moved_to_a_right_number_is_seen(tmp_path, without_libreoffice, monkeypatch):
    def change(book):
        book["Illustration"]["BA17"].value = "=VARP(N8:O15)"
        book["Illustration"]["N17"].value = "=VAR(N8:O15)"
        rename("bn_var_1", "Illustration!$BA$17")(book)

    path = edited(tmp_path / "moved.xlsx", change)
    assert Reader(path).displaced() == {"bn_var": "a name was moved away from its number"}


def test_what_a_person_does_to_a_sheet_does_no_harm(tmp_path):
    def change(book):
        book.create_sheet("Bob's notes")["A1"] = "mine"
        book["Gradients"].title = "Bob's"
        for name in book.defined_names.values():
            name.attr_text = name.attr_text.replace("Gradients!", "'Bob''s'!")
            name.attr_text = name.attr_text.replace("'Gradients'!", "'Bob''s'!")
        book.defined_names["mine"] = DefinedName("mine", attr_text="Illustration!$A:$A")
        book["Illustration"].column_dimensions["C"].width = 30

    reader = Reader(edited(tmp_path / "mine.xlsx", change))
    assert not reader.displaced()
    assert {c.parent.title for c in reader.cells["bn_dx"]} == {"Bob's"}


# ---------------------------------------------------------------------------------- bad inputs

TYPED = {  # what stands in an input cell -> (name, value, what the sentence says)
    "text": ("x_2_3", "two", "Illustration!G10 (x) holds two: type a number"),
    "true": ("gamma_1", True, "holds True"),
    "empty": ("dy_4_4", None, "Gradients!I13 is empty: type a number from"),
    "groups 3": ("groups", 3, "(groups) holds 3: type 1, 2 or 4"),
    "negative eps": ("eps", -1e-5, "(eps) is -1e-05: type 0, or a number from 1E-12"),
    "tiny eps": ("eps", 1e-70, "(eps) is 1e-70"),
    "momentum": ("momentum", 1.5, "Train and eval!C4 (momentum) is 1.5: type a number from 0 to 1"),
    "too large": ("step3_x_1_1", 1e10, "(step3_x) is 1e+10"),
    "error": ("beta_2", "#N/A", "holds #N/A"),
    "norm": ("explain_norm", "IN", "holds IN: type BN, LN or GN"),
    "date": ("x_1_1", datetime.datetime(2026, 1, 2),
             "holds a date (02 January 2026, which counts as 46,024)"),
}  # fmt: skip


@pytest.mark.parametrize("bad", TYPED)
def test_a_bad_input_gets_one_sentence(bad, monkeypatch):
    name, value, sentence = TYPED[bad]
    monkeypatch.setattr(cell(BASE.values, name), "_value", value)
    with pytest.raises(InputError, match="type") as caught:
        BASE.inputs()
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def packed(parts):
    def make(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, data)

    return make


STRICT = b'<workbook xmlns="http://purl.oclc.org/ooxml/spreadsheetml/main"/>'
FILES = {  # a file's name -> (what makes it, what the sentence says)
    "old.xls": (lambda p: p.write_bytes(b"\xd0\xcf\x11\xe0" + b"\0" * 999), "an old .xls"),
    "open.ods": (packed({"mimetype": "opendocument"}), "another kind of file (.ods?)"),
    "table.csv": (lambda p: p.write_text("x,y\n1,2\n"), "not an Excel workbook"),
    "empty.xlsx": (lambda p: p.write_bytes(b""), "not an Excel workbook"),
    "half.xlsx": (lambda p: p.write_bytes(WORKBOOK.read_bytes()[:20000]), "is cut off"),
    "strict.xlsx": (packed({"xl/workbook.xml": STRICT}), "Strict Open XML workbook"),
    "~$book.xlsx": (lambda p: p.write_bytes(b"\x05Bob"), "check book.xlsx"),
    "other.xlsx": (lambda p: openpyxl.Workbook().save(p), "not the lesson's workbook"),
    "broken.xlsx": (packed({"xl/workbook.xml": b"<workbook><&>"}), "is damaged"),
    "nothing.xlsx": (lambda p: None, "does not exist"),
    "folder.xlsx": (lambda p: p.mkdir(), "does not exist"),
    "gone.xlsx": (lambda p: edited(p, rename("bn_y_1_2", "")), "lost the name bn_y_1_2"),
    "ref.xlsx": (lambda p: edited(p, rename("bn_y_1_2", "#REF!")), "leads nowhere"),
    "large.xlsx": (lambda p: edited(p, rename("bn_y_1_2", "Illustration!$C$10:$D$12")),
                   "another number of cells"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_people_hand_in_gets_one_sentence(name, tmp_path, capsys):
    make, sentence = FILES[name]
    make(tmp_path / name)
    assert main(["check", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.err.count("\n") == 1 and not captured.out
    assert captured.err.endswith(".\n") and len(captured.err) < 300


def test_the_command_line_builds(tmp_path, capsys):
    assert main(["build", str(tmp_path / "new.xlsx")]) == 0
    assert capsys.readouterr().out == "Wrote new.xlsx.\n"
    assert (tmp_path / "new.xlsx").read_bytes() == WORKBOOK.read_bytes()
