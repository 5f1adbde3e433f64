"""`check`: it finds wrong formulas, refuses no right sheet, and says in one sentence what is bad.

SLOW=1 tries every wrong formula one at a time, through the command line's own `check`.
"""

import importlib
import os
import re
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import psutil
import pytest
from openpyxl.workbook.defined_name import DefinedName
from workbook_cases import (
    BASE,
    COMMITTED,
    ROWS,
    cells_named,
    edited,
    needs_libreoffice,
    oracle,
    random_inputs,
)  # fmt: skip

from backstage.workbook.__main__ import main
from backstage.workbook.check import bare, check, compare, drawn, recalculated
from backstage.workbook.inputs import InputError, Inputs, names
from backstage.workbook.reader import Reader
from backstage.workbook.tolerance import allowances


def sub(old, new, count=0):
    """A mistake: a piece of the formula is replaced (a regular expression)."""
    return lambda formula: re.sub(old, new, formula, count=count)


# 44 mistakes in three sheets: name -> what becomes of its formula. The ones in a sheet do not feed
# on each other, so each has to be found by itself.
WRONG = (
    {
        "bn_var_1": sub(r"DEVSQ\((.*?)\)/COUNT\(\1\)", r"DEVSQ(\1)/(COUNT(\1)-1)"),
        "bn_mean_2": sub("AVERAGE", "SUM"),
        "ln_var_3": lambda f: "=SUMSQ(N12:U13)/16",
        "ln_mean_1": sub("N8:U9", "N8:U8"),
        "gn_mean_2_3": sub("groups=2", "groups=4"),
        "gn_var_4_1": sub(r"groups=1,(.*?),IF\(groups=2", "groups=1,0.5,IF(groups=2"),
        "gn_mean_1_1": sub("IF.groups=1,.*?,IF.groups=2", "IF(groups=1,N8,IF(groups=2"),
        "next_bn_mean_4": sub("AVERAGE", "MAX"),
        "next_gn_var_2_2": sub("groups=4,.*", 'groups=4,1,"?")))'),
        "run_var_1_2": sub("batch_unbiased", "batch_var"),
        "run_mean_2_3": sub("momentum", "0.15"),
        "run_var_3_1": sub(r"\(1-momentum\)", "0.85"),
        "batch_unbiased_2_4": sub("16/15", "15/16"),
        "before_mean_2_1": sub("run_mean_1_1", "batch_mean_1_1"),
        "used_x_4_4": sub("add_4", "add_3"),
        "step1_x_2_1": sub("'Illustration'!N10", "'Illustration'!C10"),
        "gn_mean_is_1": lambda f: '=IF(groups=2,"= LN","")',
        "gn_var_is_2": sub("= IN", "=IN"),
    },
    {
        "bn_xhat_1_1": sub(r"SQRT\(bn_var_1\+eps\)", "SQRT(bn_var_1+0.00001)"),
        "ln_xhat_2_2": sub(r"\+eps\)", ")"),
        "gn_xhat_3_3": sub("gn_mean_3_3", "gn_mean_3_1"),
        "next_gn_xhat_1_4": sub("next_gn_mean", "gn_mean"),
        "next_ln_y_2_1": sub("beta_1", "beta_2", 2),
        "eval_xhat_3_1": sub("run_var_3_1", "batch_var_1_1"),
        "bn_y_2_3": lambda f: "=R22",
        "ln_y_4_2": sub(r"\+beta_2", "-beta_2"),
        "ln_y_1_1": sub(r"gamma_1\*", "1*"),
        "gn_y_4_4": sub("gamma_4", "1.5", 3),
        "ln_dbeta_1": sub("SUM", "AVERAGE"),
        "gn_held_3_1": sub(r"gamma_1\*", "gamma_2*"),
        "ln_held_1_3": sub("SQRT", ""),
        "train_y_4_1": sub("'Illustration'!\\w+", "eval_gap"),
        "chart_ln_xhat_3": sub("CHOOSE", "MAX"),
        "explain_size": lambda f: "=16",
        "in_set_1_2": lambda f: "=1",
    },
    {
        "bn_dx_2_2": sub(r"-'Illustration'!\w+\*bn_pull_mean_2", ""),
        "gn_dx_1_1": sub("-gn_held_mean_1_1", ""),
        "bn_dgamma_1": sub("'Illustration'", "'Gradients'"),
        "gn_pull_mean_2_2": sub("/16", "/15"),
        "ln_held_var_4": sub("DEVSQ", "SUMSQ"),
        "ln_dx_var_2": sub("/COUNT", "/SUM"),
        "eval_y_2_2": sub(r"gamma_2\*\w+\+", "gamma_2+"),
        "eval_gap": sub("/64", "/63"),
        "explain_y": sub(r"\*explain_xhat", "+explain_xhat"),
        "chart_run_var_3": sub("run_var_2", "run_var_1", 4),
        "chart_gn_dx_var_1": sub("gn_dx_var_1_4", "gn_held_var_1_4"),
    },
)
ONE_BY_ONE = [(k, name) for k, mistakes in enumerate(WRONG) for name in mistakes]


def spoiled(book, mistakes):
    """Puts mistakes into formulas; returns what the cells held."""
    right = {}
    for name, spoil in mistakes.items():
        cell = cells_named(book, name)[0]
        right[cell], cell.value = cell.value, spoil(cell.value)
        assert cell.value != right[cell], (name, cell.value)
    return right


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """For each sheet of mistakes the names of the cells that differ on `check`'s own inputs."""
    folder, paths = tmp_path_factory.mktemp("wrong"), []
    book = bare(openpyxl.load_workbook(COMMITTED))
    for k, mistakes in enumerate(WRONG):
        right = spoiled(book, mistakes)
        paths += [edited(folder / f"{k}_{s}.xlsx", drawn(s), book) for s in range(3)]
        for cell, formula in right.items():
            cell.value = formula
    readers = [BASE.showing(copy) for copy in recalculated(paths, folder / "office")]
    return [[compare(reader, drawn(s)) for s, reader in enumerate(readers[3 * k : 3 * k + 3])]
            for k in range(len(WRONG))]  # fmt: skip


def differs(report, name):
    """Whether the first cell of a name shows another number than PyTorch."""
    for quantity, want in report.expected.items():
        for cell_name, at in names(quantity, want):
            if cell_name == name:
                got, right = report.values[quantity][at], want[at]
                if want.dtype.kind != "f":
                    rows = {row.quantity: row for row in report.rows}
                    return not rows[quantity].agrees
                limit = allowances(report.inputs, report.expected)[quantity][at]
                return bool(np.any(~(np.abs(got - right) <= limit)))
    raise AssertionError(f"no cell is called {name}")


@needs_libreoffice
@pytest.mark.parametrize("sheet, name", ONE_BY_ONE)
def test_a_wrong_formula_is_found(sheet, name, found):
    assert any(differs(report, name) for report in found[sheet])


@needs_libreoffice
@pytest.mark.skipif(not os.environ.get("SLOW"), reason="ten seconds each: set SLOW=1")
@pytest.mark.parametrize("sheet, name", ONE_BY_ONE)
def test_check_finds_each_wrong_formula_alone(sheet, name, tmp_path):
    book = openpyxl.load_workbook(COMMITTED)
    spoiled(book, {name: WRONG[sheet][name]})
    book.save(tmp_path / "wrong.xlsx")
    assert main(["check", str(tmp_path / "wrong.xlsx")]) == 1


def test_check_finds_a_wrong_number_in_every_quantity():
    reader = Reader(COMMITTED)
    for quantity, want in oracle(Inputs()).items():
        cell = cells_named(reader.shown, names(quantity, want)[-1][0])[-1]
        right, cell.value = cell.value, cell.value + 1e-6
        rows = compare(reader, Inputs()).rows
        assert quantity in [row.quantity for row in rows if not row.agrees]
        cell.value = right
    assert compare(reader, Inputs()).agrees


# ------------------------------------------------------------------------------ the command line


@pytest.fixture
def without_libreoffice(monkeypatch):
    monkeypatch.setattr(
        importlib.import_module("backstage.workbook.check"), "soffice", lambda: None
    )


def test_check_agrees_and_leaves_the_file_alone(tmp_path, capsys, without_libreoffice):
    path = Path(shutil.copy(COMMITTED, tmp_path / "mine.xlsx"))
    before = path.read_bytes()
    assert main(["check", str(path)]) == 0
    assert "sheet and PyTorch agree" in capsys.readouterr().out
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def patched(path, changes, source=COMMITTED):
    """A copy of the workbook with pieces of its parts replaced: part -> (regex, replacement)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for item in old.namelist():
            data = old.read(item)
            if item in changes:
                data, n = re.subn(*changes[item], data, count=1, flags=re.S)
                assert n, item
            new.writestr(item, data)
    return path


SHEET = "xl/worksheets/sheet2.xml"  # Illustration
PIXEL = rb'(<c r="C8"[^>]*)><v>1</v></c>'


@needs_libreoffice
def test_old_values_and_hidden_mistakes(tmp_path, capsys):
    """An input changed by a program that keeps the old values; a right value, a wrong formula."""
    path = patched(tmp_path / "old.xlsx", {SHEET: (PIXEL, rb"\1><v>7</v></c>")})
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "shows old values" in out and "does not calculate" not in out
    mistake = (rb"SQRT\(bn_var_1\+eps\)", rb"SQRT(bn_var_1+0.00001)")
    path = patched(tmp_path / "hidden.xlsx", {SHEET: mistake})
    assert main(["check", str(path)]) == 1
    assert "(inputs drawn at random)" in capsys.readouterr().out


@needs_libreoffice
def test_a_file_that_libreoffice_saved_is_not_called_stale(tmp_path):
    inputs = random_inputs(61, shift=1e6 + 0.123456789, eps=1e-3)
    (saved,) = recalculated([edited(tmp_path / "mine.xlsx", inputs)], tmp_path / "office")
    report = check(saved)
    assert report.agrees and not report.stale, str(report)


def test_without_values_and_without_libreoffice(tmp_path, capsys, without_libreoffice):
    path = edited(tmp_path / "edited.xlsx", random_inputs(30))
    one_sentence(["check", str(path)], "nothing can be said", capsys)


def test_values_in_place_of_formulas_do_not_agree(tmp_path, capsys, without_libreoffice):
    book = openpyxl.load_workbook(COMMITTED)
    cells_named(book, "bn_mean_2")[0].value = 0.125
    reader = Reader(COMMITTED)
    path = tmp_path / "values.xlsx"
    bare(reader.shown).save(path)  # every formula replaced by its value
    assert main(["check", str(path)]) == 1
    assert "cannot follow" in capsys.readouterr().out


def one_sentence(arguments, sentence, capsys):
    start, memory = time.monotonic(), psutil.Process().memory_info().rss
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.err.count("\n") == 1 and not captured.out
    assert captured.err[0] != " " and captured.err.endswith(".\n") and len(captured.err) < 400
    assert time.monotonic() - start < 10 and psutil.Process().memory_info().rss - memory < 1e9


# ---------------------------------------------------------------------------------- bad inputs

TYPED = {  # what stands in an input cell -> (name, value, what the sentence says)
    "text": ("x_2_3", "two", 'G10 holds "two", which is text, not a number'),
    "text that looks like one": ("x_2_3", "3 ", "which is text"),
    "true": ("gamma_1", True, "which is a truth value"),
    "empty": ("dy_4_4", None, "Gradients!I12 is empty: type a number from"),
    "groups 3": ("groups", 3, "(groups) is 3: type 1, 2 or 4"),
    "groups 2.5": ("groups", 2.5, "(groups) is 2.5"),
    "negative eps": ("eps", -1e-5, "(eps) is -1e-05: type a number from 0"),
    "momentum": ("momentum", 1.5, "Train and eval!C4 (momentum) is 1.5"),
    "too large": ("step3_x_1_1", 1e10, "(step3_x) is 1e+10"),
    "formula": ("beta_2", "=1+1", "holds a formula without its value"),
    "error": ("beta_2", "#DIV/0!", "shows the error #DIV/0!"),
    "norm": ("explain_norm", "IN", 'holds "IN": type BN, LN or GN'),
    "number for a norm": ("explain_norm", 7, 'holds "7": type BN, LN or GN'),
    "pixel": ("explain_pixel", None, "is empty: type upper left"),
    "image 5": ("explain_image", 5, "(explain_image) is 5: type 1, 2, 3 or 4"),
    "knob": ("add_3", "plus", "which is text"),
    "multiply": ("multiply_2", -2e9, "(multiply) is -2e+09"),
    "date": ("x_1_1", np.datetime64("2020-01-01").astype(object), "not a number"),
}


def save_with(path, name, value):
    book = openpyxl.load_workbook(COMMITTED)
    cells_named(book, name)[0].value = value
    book.save(path)


def name_at(target):
    """The committed workbook with the name bn_y_1_2 elsewhere, or gone."""

    def make(path):
        book = openpyxl.load_workbook(COMMITTED)
        del book.defined_names["bn_y_1_2"]
        if target:
            book.defined_names["bn_y_1_2"] = DefinedName("bn_y_1_2", attr_text=target)
        book.save(path)

    return make


def packed(parts, method=zipfile.ZIP_DEFLATED):
    def make(path):
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in parts.items():
                archive.writestr(name, data)

    return make


def inside(part, old, new):
    return lambda path: patched(path, {part: (old, new)})


def without(part):
    def make(path):
        with zipfile.ZipFile(COMMITTED) as old, zipfile.ZipFile(path, "w") as new:
            for item in old.namelist():
                if item != part:
                    new.writestr(item, old.read(item))

    return make


def flipped(path):
    data = bytearray(COMMITTED.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)


def encrypted(path):
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600
                     + "EncryptedPackage".encode("utf-16-le") + b"\0" * 600)  # fmt: skip


def locked_zip(path):
    data = bytearray(COMMITTED.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for found in re.finditer(re.escape(mark), bytes(data)):
            data[found.start() + offset] |= 1
    path.write_bytes(data)


def bomb(cells):
    row = b'<row r="%d">' + b'<c r="A1"><v>1</v></c>' * 1000 + b"</row>"
    return b"<sheetData>" + b"".join(row % k for k in range(2, 2 + cells // 1000))


FILES = {  # a file's name -> (what makes it, what the sentence says)
    "text.xlsx": (lambda p: p.write_text("x,y\n1,2\n"), "is text, not a workbook"),
    "table.csv": (lambda p: p.write_text("x,y\n1,2\n"), "save it as .xlsx"),
    "empty.xlsx": (lambda p: p.write_bytes(b""), "is empty"),
    "old.xls": (lambda p: p.write_bytes(b"\xd0\xcf\x11\xe0" + b"\0" * 999), "old format .xls"),
    "secret.xlsx": (encrypted, "has a password"),
    "locked.xlsx": (locked_zip, "has a password"),
    "open.ods": (packed({"mimetype": "application/vnd.oasis.opendocument.spreadsheet"}),
                 "is .ods: open it"),
    "binary.xlsb": (packed({"xl/workbook.bin": b"x"}), "is .xlsb"),
    "note.xlsx": (packed({"note.txt": "no workbook"}), "another kind of file"),
    "half.xlsx": (lambda p: p.write_bytes(COMMITTED.read_bytes()[:20000]), "damaged"),
    "flipped.xlsx": (flipped, "damaged"),
    "picture.png": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 99), "save it as .xlsx"),
    "other.xlsx": (lambda p: openpyxl.Workbook().save(p), "is missing: start from"),
    "no_styles.xlsx": (inside(SHEET, rb'<c r="C8" s="\d+"', b'<c r="C8" s="99999"'), "damaged"),
    "no_string.xlsx": (inside(SHEET, rb'(<c r="B1"[^>]*t="s"><v>)\d+', rb"\g<1>99999"), "damaged"),
    "no_strings.xlsx": (without("xl/sharedStrings.xml"), "damaged"),
    "no_sheet.xlsx": (without(SHEET), "The name x_1_1 points nowhere"),
    "no_workbook.xlsx": (without("xl/workbook.xml"), "another kind of file"),
    "no_types.xlsx": (without("[Content_Types].xml"), "damaged"),
    "cut_xml.xlsx": (inside(SHEET, rb"</sheetData>.*", b""), "damaged"),
    "bad_xml.xlsx": (inside(SHEET, rb"<sheetData>", b"<sheetData><&>"), "damaged"),
    "bad_number.xlsx": (inside(SHEET, PIXEL, rb"\1><v>one</v></c>"), "damaged"),
    "nan.xlsx": (inside(SHEET, PIXEL, rb"\1><v>NaN</v></c>"), "Illustration!C8 holds NaN"),
    "inf.xlsx": (inside(SHEET, PIXEL, rb"\1><v>1e999</v></c>"), "Illustration!C8 holds inf"),
    "minus.xlsx": (inside(SHEET, PIXEL, rb"\1><v>-1e999</v></c>"), "Illustration!C8 holds -inf"),
    "bomb.xlsx": (inside(SHEET, rb"<sheetData>", bomb(10_000_000)), "holds far more"),
    "many.xlsx": (inside(SHEET, rb"<sheetData>", bomb(200_000)), "holds far more"),
    "merge.xlsx": (inside(SHEET, rb"<mergeCell ref", b'<mergeCell ref="AZ60:XFD1048576"/>'
                          b"<mergeCell ref"), "holds far more"),
    "merge2.xlsx": (inside(SHEET, rb"<mergeCell ref", b'<mergeCell ref="A60:XFD900"/>'
                           b"<mergeCell ref"), "holds far more"),
    "links.xlsx": (inside("xl/worksheets/sheet1.xml", rb'<hyperlink ref="B5"',
                          b'<hyperlink ref="B5:XFD1048576"'), "holds far more"),
    "laughs.xlsx": (inside("xl/workbook.xml", rb"\?>", b'?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
                           + b"".join(b'<!ENTITY %c "%s">' % (98 + k, b"&%c;" % (97 + k) * 10)
                                      for k in range(9)) + b"]>"), "damaged"),
    "gone.xlsx": (name_at(None), "The name bn_y_1_2 is missing"),
    "nowhere.xlsx": (name_at("Nowhere!$A$1"), "The name bn_y_1_2 points nowhere"),
    "ref.xlsx": (name_at("#REF!"), "The name bn_y_1_2 points nowhere"),
    "number.xlsx": (name_at("3"), "The name bn_y_1_2 points nowhere"),
    "formula.xlsx": (name_at("SUM(Illustration!$A$1:$A$4)"), "The name bn_y_1_2 points nowhere"),
    "two.xlsx": (name_at("Illustration!$A$1,Illustration!$B$2"), "points nowhere"),
    "column.xlsx": (name_at("Illustration!$A:$B"), "whole rows or columns"),
    "row.xlsx": (name_at("Illustration!$3:$4"), "whole rows or columns"),
    "sheet.xlsx": (name_at("Illustration!$A$1:$XFD$1048576"), "has 17,179,869,184 cells, not 4"),
    "large.xlsx": (name_at("Illustration!$C$10:$D$12"), "has 6 cells, not 4"),
    "nothing.xlsx": (lambda p: None, "There is no file"),
    "folder.xlsx": (lambda p: p.mkdir(), "is a folder"),
    "pipe.xlsx": (lambda p: os.mkfifo(p), "no ordinary file"),
    "loop.xlsx": (lambda p: p.symlink_to(p), "There is no file"),
}  # fmt: skip
assert len(FILES) + len(TYPED) >= 60


@pytest.mark.parametrize("name", FILES)
def test_a_nasty_file_gets_one_sentence(name, tmp_path, capsys):
    make, sentence = FILES[name]
    make(tmp_path / name)
    one_sentence(["check", str(tmp_path / name)], sentence, capsys)


@pytest.mark.parametrize("bad", TYPED)
def test_a_bad_input_gets_one_sentence(bad):
    name, value, sentence = TYPED[bad]
    (formula, cell, _), *_ = BASE.cells(name, 4 if name[0] in "xds" else 1)
    before, kinds = (formula.value, cell.value), (formula.data_type, cell.data_type)
    formula.value = value
    cell.value = None if bad == "formula" else value
    try:
        with pytest.raises(InputError) as caught:
            BASE.inputs()
    finally:
        formula.value, cell.value = before
        formula.data_type, cell.data_type = kinds
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_bad_input_on_the_command_line(tmp_path, capsys):
    save_with(tmp_path / "bad.xlsx", "groups", 3)
    one_sentence(["check", str(tmp_path / "bad.xlsx")], "type 1, 2 or 4", capsys)


HARMLESS = {
    "a name over a whole column": lambda book: book.defined_names.__setitem__(
        "mine", DefinedName("mine", attr_text="Illustration!$A:$A")),
    "a name over a whole sheet": lambda book: book.defined_names.__setitem__(
        "mine", DefinedName("mine", attr_text="Illustration!$A$1:$XFD$1048576")),
    "a sheet of one's own": lambda book: book.create_sheet("Bob's notes"),
    "a sheet with another name": lambda book: setattr(book["Gradients"], "title", "Bob's"),
}  # fmt: skip


@pytest.mark.parametrize("label", HARMLESS)
def test_what_a_person_adds_does_no_harm(label, tmp_path):
    book = openpyxl.load_workbook(COMMITTED)
    HARMLESS[label](book)
    if "another" in label:  # as a spreadsheet program does when a sheet is renamed
        for name in book.defined_names.values():
            name.attr_text = name.attr_text.replace("Gradients!", "'Bob''s'!").replace(
                "'Gradients'!", "'Bob''s'!")  # fmt: skip
    book.save(tmp_path / "mine.xlsx")
    reader = Reader(tmp_path / "mine.xlsx")
    assert np.array_equal(reader.inputs().dy, Inputs().dy)
    assert all(len(reader.cells(f"bn_dx_{n}_1", 4)) == 4 for n in ROWS)
