"""`python -m backstage.workbook`: one sentence for what cannot be checked; it builds and checks."""

import datetime
import importlib
import re
import zipfile
from importlib.metadata import version

import openpyxl
import pytest
from conftest import ROOT
from openpyxl.workbook.defined_name import DefinedName
from workbook_cases import BASE, WORKBOOK, cell, needs_libreoffice

from backstage.workbook import InputError, Inputs, build
from backstage.workbook.__main__ import main
from backstage.workbook.check import differences
from backstage.workbook.reader import Reader
from backstage.workbook.table import COMPUTED


def test_a_wrong_number_is_found_in_every_quantity(monkeypatch):
    assert not list(differences(BASE, Inputs()))
    last = {name: BASE.cells[name][-1] for name in COMPUTED}
    for found in last.values():
        stored = BASE.values[found.parent.title][found.coordinate]
        monkeypatch.setattr(stored, "_value", stored.value + 1e-4)
    assert {name: found for name, found, _ in differences(BASE, Inputs())} == last


CHECK = importlib.import_module("backstage.workbook.check")  # the package's `check` is a function


@pytest.fixture
def without_libreoffice(monkeypatch):
    monkeypatch.setattr(CHECK, "soffice", lambda: None)


def edited(path, change):
    """A copy of the workbook as openpyxl saves it after a change; no values beside formulas."""
    book = openpyxl.load_workbook(WORKBOOK)
    change(book)
    book.save(path)
    return path


def patched(path, old, new):
    """A copy with a piece of the main sheet's XML replaced; its stored values stay."""
    with zipfile.ZipFile(WORKBOOK) as before, zipfile.ZipFile(path, "w") as after:
        for item in before.namelist():
            data = before.read(item)
            if item == "xl/worksheets/sheet2.xml":
                data, count = re.subn(old, new, data, count=1)
                assert count
            after.writestr(item, data)
    return path


@needs_libreoffice
def test_check_recalculates(tmp_path, capsys, monkeypatch):
    """A right value beside a wrong formula, with two of the other inputs; the file is only read."""
    others = CHECK.draws()[:2]
    monkeypatch.setattr(CHECK, "draws", lambda: others)
    path = patched(tmp_path / "hidden.xlsx", rb"bn_var_1\+eps", b"bn_var_1+0.00001")
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
    path = patched(tmp_path / "typed.xlsx", rb'(<c r="C8"[^>]*><v>)7', rb"\g<1>8")
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


def test_a_name_moved_to_a_right_number_is_seen(tmp_path):
    def change(book):
        book["Illustration"]["BA17"].value = "=VARP(N8:O15)"
        book["Illustration"]["N17"].value = "=VAR(N8:O15)"
        rename("bn_var_1", "Illustration!$BA$17")(book)
        book["Gradients"].column_dimensions["L"].hidden = True

    found = Reader(edited(tmp_path / "moved.xlsx", change)).displaced()
    assert found.pop("bn_var") == "a name was moved away from its number"
    assert found["bn_held"] == "Gradients!L7 is hidden"
    assert {name[:3] for name in found} == {"bn_"}


def test_what_a_person_does_to_a_sheet_does_no_harm(tmp_path):
    def change(book):
        book.create_sheet("Bob's notes")["A1"] = "mine"
        book["Gradients"].title = "Bob's"
        for name in book.defined_names.values():
            name.attr_text = re.sub("'?Gradients'?!", "'Bob''s'!", name.attr_text)
            if "Layer N+1" in name.attr_text:  # as if a row were inserted at the top
                name.attr_text = re.sub(
                    r"\$(\d+)", lambda row: f"${int(row[1]) + 1}", name.attr_text
                )
        book.defined_names["mine"] = DefinedName("mine", attr_text="Illustration!$A:$A")
        book["Illustration"].column_dimensions["C"].width = 30

    reader = Reader(edited(tmp_path / "mine.xlsx", change))
    assert not reader.displaced() and reader.cells["next_bn_y"][0].row == 20
    assert {c.parent.title for c in reader.cells["bn_dx"]} == {"Bob's"}


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
    "gone.xlsx": (lambda p: edited(p, rename("bn_y_1_2", "")), "its name bn_y_1_2 is lost"),
    "ref.xlsx": (lambda p: edited(p, rename("bn_y_1_2", "#REF!")), "leads elsewhere"),
    "large.xlsx": (lambda p: edited(p, rename("bn_y_1_2", "Illustration!$C$10:$D$12")),
                   "leads elsewhere"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_people_hand_in_gets_one_sentence(name, tmp_path, capsys):
    make, sentence = FILES[name]
    make(tmp_path / name)
    assert main(["check", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.err.count("\n") == 1 and not captured.out
    assert captured.err.endswith(".\n") and len(captured.err) < 300


def test_a_build_is_the_same_to_the_byte_and_as_committed(tmp_path, capsys):
    assert main(["build", str(tmp_path / "new.xlsx")]) == 0
    assert capsys.readouterr().out == "Wrote new.xlsx.\n"
    made = (tmp_path / "new.xlsx").read_bytes()
    assert made == build(tmp_path / "again.xlsx").read_bytes()
    pinned = f"openpyxl=={version('openpyxl')}\n" in (ROOT / "constraints.txt").read_text()
    assert made == WORKBOOK.read_bytes() or not pinned  # other releases write other XML


def test_a_workbook_cannot_be_built_just_anywhere(tmp_path):
    with pytest.raises(InputError, match="ends in .xlsx"):
        build(tmp_path / "book.xls")
    with pytest.raises(InputError, match="cannot be written"):
        build(tmp_path / "nowhere" / "book.xlsx")
