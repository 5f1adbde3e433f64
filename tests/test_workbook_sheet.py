"""The workbook as a file: built twice alike, its names, what it refuses, its look and its pages."""

import importlib
import re
import zipfile
from xml.etree import ElementTree

import numpy as np
import openpyxl
import pytest
from openpyxl.utils import range_boundaries
from workbook_cases import (
    BASE,
    COMMITTED,
    NORMS,
    ROWS,
    cells_named,
    edited,
    needs_libreoffice,
    random_inputs,
)

from backstage.workbook.__main__ import main
from backstage.workbook.build import SHEETS, build, replace_workbook
from backstage.workbook.check import recalculated
from backstage.workbook.inputs import LISTS, InputError, Inputs, names
from backstage.workbook.pictures import picture, plot_grid, plot_statistics
from backstage.workbook.reference import reference


def test_committed_workbook_is_what_the_program_builds(tmp_path, capsys):
    fresh, again = build(tmp_path / "fresh.xlsx"), tmp_path / "again.xlsx"
    assert main(["build", str(again)]) == 0
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
                    assert same, (
                        f"{sheet.title}!{c.coordinate}: run python -m backstage.workbook again"
                    )


def test_an_edited_workbook_is_kept(tmp_path):
    built, path = COMMITTED.read_bytes(), tmp_path / "demo.xlsx"
    mine = edited(path, random_inputs(40)).read_bytes()
    for data in (built, built, b"no workbook", built):
        if data == b"no workbook":
            path.write_bytes(data)
        else:
            replace_workbook(path, data)
    kept = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert kept == {"demo.xlsx": built, "demo.before1.xlsx": mine,
                    "demo.before2.xlsx": b"no workbook"}  # fmt: skip


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "demo.xlsx"
    path.write_bytes(b"mine")

    def fail(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(importlib.import_module("backstage.workbook.build"), "replacing", fail)
    with pytest.raises(InputError, match="cannot be written .Permission denied"):
        replace_workbook(path, b"built")
    assert path.read_bytes() == b"mine"


def test_build_says_where_it_cannot_write(tmp_path, capsys):
    assert main(["build", str(tmp_path / "no" / "demo.xlsx")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    with pytest.raises(InputError, match="ends in .xlsx"):
        replace_workbook(tmp_path / "demo.csv", b"")


# ------------------------------------------------------------------------------------ the names


def test_every_number_has_its_name():
    for quantity, array in (Inputs().quantities() | reference(Inputs())).items():
        for name, at in names(quantity, array):
            assert len(cells_named(BASE.formulas, name)) == np.size(array[at]), name


def test_names_that_notebooks_and_readers_know():
    """Those of the first edition."""
    blocks = [
        "x",
        "next_x",
        "step2_x",
        "step3_x",
        "step1_x",
        "dy",
        "eval_xhat",
        "eval_y",
        "train_y",
    ]
    blocks += [f"{n}_{k}" for n in NORMS for k in ("held", "dx")]
    blocks += [f"{p}{n}_{k}" for p in ("", "next_") for n in NORMS for k in ("xhat", "y")]
    singles = ["eps", "groups", "momentum"]
    singles += [f"{k}_{c}" for k in ("gamma", "beta") for c in ROWS]
    singles += [f"{n}_{k}_{c}" for n in NORMS for k in ("dgamma", "dbeta") for c in ROWS]
    kinds = ["mean", "var", "held_mean", "held_var", "dx_mean", "dx_var", "pull_mean"]
    for key in kinds + ["next_mean", "next_var"]:
        prefix, key = ("next_", key[5:]) if key.startswith("next_") else ("", key)
        singles += [f"{prefix}{n}_{key}_{i}" for n in ("bn", "ln") for i in ROWS]
        singles += [f"{prefix}gn_{key}_{n}_{c}" for n in ROWS for c in ROWS]
    running = ("before_mean", "before_var", "batch_mean", "batch_var", "batch_unbiased", "run_mean",
               "run_var")  # fmt: skip
    singles += [f"{key}_{step}_{c}" for key in running for step in (1, 2, 3) for c in ROWS]
    known = BASE.formulas.defined_names
    assert all(f"{b}_{n}_{c}" in known for b in blocks for n in ROWS for c in ROWS)
    assert not [name for name in singles if name not in known]


def test_delivered_inputs_give_mistakes_away():
    inputs = Inputs()
    assert 1 not in inputs.gamma and 0 not in inputs.beta and inputs.momentum != 0.1
    for quantity in ("x", "next_x", "step2_x", "step3_x", "dy"):
        array = getattr(inputs, quantity)
        assert np.array_equal(array, np.round(array)) and np.abs(array).max() <= 3


# ---------------------------------------------------------------------------- what it refuses


def input_cells():
    """(sheet, coordinate, quantity) of every cell to type into."""
    for quantity, array in Inputs().quantities().items():
        for name, _ in names(quantity, array):
            for cell in cells_named(BASE.formulas, name):
                yield cell.parent.title, cell.coordinate, quantity


def test_validation_is_switched_on_in_the_file():
    """The attributes themselves: without them a rule is there and never fires."""
    with zipfile.ZipFile(COMMITTED) as archive:
        rules = [r for k in range(1, 7) for r in re.findall(
            r"<dataValidation .*?</dataValidation>", archive.read(f"xl/worksheets/sheet{k}.xml").decode())]  # fmt: skip # noqa: E501
    assert len(rules) > 20
    for rule in rules:
        assert 'showErrorMessage="1"' in rule and 'showInputMessage="1"' in rule
        assert 'allowBlank="1"' not in rule and "errorStyle" not in rule  # "stop"
        assert re.search(r' error="Type [^"]+"', rule) and "e+" not in rule
    assert any('prompt="' in rule for rule in rules)


def test_every_input_is_guarded_unlocked_and_everything_else_protected():
    guarded, typed = {}, {(sheet, at) for sheet, at, _ in input_cells()}
    for sheet in BASE.formulas:
        assert sheet.protection.sheet and not sheet.protection.password
        rules = sheet.data_validations.dataValidation
        guarded |= {(sheet.title, sheet.cell(*at).coordinate): rule for rule in rules
                    for part in rule.sqref.ranges for row in part.rows for at in row}  # fmt: skip
        for row in sheet.iter_rows():
            for cell in row:
                if cell.data_type == "f":
                    assert cell.protection.locked, cell
    for sheet, at, quantity in input_cells():
        rule = guarded[sheet, at]
        assert rule.type == ("list" if quantity in LISTS else "decimal")
        assert not BASE.formulas[sheet][at].protection.locked
    assert typed <= set(guarded)


ODF = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"


@needs_libreoffice
def test_libreoffice_takes_the_validation_over(tmp_path):
    """What it would refuse, read back from its own format."""
    (copy,) = recalculated([COMMITTED], tmp_path / "office", "fods")
    root = ElementTree.parse(copy).getroot()
    rules = {r.get(f"{ODF}name"): r for r in root.iter(f"{ODF}content-validation")}
    used = [c.get(f"{ODF}content-validation-name") for c in root.iter(f"{ODF}table-cell")]
    conditions = [rules[name].get(f"{ODF}condition") for name in used if name]
    assert len(conditions) >= 5 * 4  # one entry may stand for several cells
    text = " ".join(conditions)
    assert 'cell-content-is-in-list("1";"2";"4")' in text
    assert 'cell-content-is-in-list("BN";"LN";"GN")' in text
    assert "cell-content-is-decimal-number() and cell-content-is-between(0,1)" in text
    assert "cell-content-is-between(-1000000000,1000000000)" in text
    for name in {name for name in used if name}:
        rule = rules[name]
        assert rule.get(f"{ODF}allow-empty-cell") == "false"
        message = rule.find(f"{ODF}error-message")
        assert message.get(f"{ODF}display") == "true"
        assert message.get(f"{ODF}message-type") == "stop"
        assert "".join(message.itertext()).strip().startswith("Type ")


# ---------------------------------------------------------------------------------- the look


def test_what_moves_is_marked_against_the_delivered_numbers():
    """Every number has its copy forty columns to the right, hidden; one rule compares the two."""
    for sheet, shown in zip(BASE.formulas, BASE.shown, strict=True):
        if sheet.title == "Read me":
            continue
        rules = [rule for entry in sheet.conditional_formatting for rule in entry.rules]
        assert any('="on"' in rule.formula[0] for rule in rules), sheet.title
        assert all("!" not in rule.formula[0] for rule in rules)  # not every program could
        named = 0
        for name, target in BASE.formulas.defined_names.items():
            for title, area in target.destinations:
                if title != sheet.title or "in_set" in name or name == "explain_x":
                    continue
                left, top, right, bottom = range_boundaries(area)
                for row in range(top, bottom + 1):
                    for column in range(left, right + 1):
                        cell, base = shown.cell(row, column), shown.cell(row, column + 40)
                        one, two = cell.value or "", base.value or ""
                        assert one == two or abs(one - two) < 1e-14, (name, base.coordinate)
                        named += 1
        assert named
        hidden = sheet.column_dimensions["AN"]
        assert hidden.hidden and hidden.min <= 41 and hidden.max >= 90


def test_charts_are_native():
    with zipfile.ZipFile(COMMITTED) as archive:
        charts = [archive.read(n).decode() for n in archive.namelist() if "charts/chart" in n]
        assert not [n for n in archive.namelist() if n.endswith(".png")]
    assert len(charts) == 7
    assert sum("scatterChart" in chart for chart in charts) == 4
    assert all("Charts'!" in chart or "Charts!" in chart for chart in charts)


def points(sheet, columns):
    """The width of columns in points: in the file, characters of 7 pixels."""
    widths = {}
    for dimension in sheet.column_dimensions.values():
        for k in range(dimension.min, dimension.max + 1):
            widths[k] = dimension.width
    return sum(round(7 * widths.get(k, 9.14)) * 0.75 for k in columns)


def test_pages_are_readable_on_paper():
    """One A4 page per layer, nothing smaller than 7 points."""
    assert tuple(BASE.formulas.sheetnames) == SHEETS
    pages = {}
    for sheet in BASE.formulas:
        size = (297, 210) if sheet.page_setup.orientation == "landscape" else (210, 297)
        margins = sheet.page_margins
        wide = size[0] / 25.4 * 72 - 72 * (margins.left + margins.right)
        high = size[1] / 25.4 * 72 - 72 * (margins.top + margins.bottom)
        areas = [area.replace("$", "").split("!")[-1] for area in sheet.print_area.split(",")]
        pages[sheet.title] = len(areas)
        for area in areas:
            left, top, right, bottom = range_boundaries(area)
            heights = [sheet.row_dimensions[k].height or 17 for k in range(top, bottom + 1)]
            scale = min(1, wide / points(sheet, range(left, right + 1)), high / sum(heights))
            if not sheet.sheet_properties.pageSetUpPr or (
                not sheet.sheet_properties.pageSetUpPr.fitToPage
            ):
                assert sheet.page_setup.scale / 100 <= scale
                scale = sheet.page_setup.scale / 100
            sizes = [c.font.size for row in sheet[area] for c in row if c.value is not None]
            smallest = min(sizes, default=9)  # charts alone: their text has 9 points
            assert smallest * scale >= 7, (sheet.title, area, scale)
        assert sheet.page_setup.paperSize == 9
    assert pages["Layer N+1"] == 1 and pages["Illustration"] == 2  # what is typed, and layer N


def test_pictures_show_the_numbers():
    values = Inputs().quantities() | reference(Inputs())
    marked = np.zeros((4, 4, 2, 2), bool)
    marked[0, 0, 0, 0] = True
    grid = values["gn_xhat"].copy()
    grid[3, 3] = np.nan
    ax = plot_grid(grid, "gn", 2, "title", marked=marked)
    texts = [t.get_text() for t in ax.texts]
    assert texts.count("0/0") == 4 and f"{grid[0, 0, 0, 1]:.2f}" in texts
    bold = [t.get_text() for t in ax.texts if t.get_weight() == "bold"]
    assert bold == [f"{grid[0, 0, 0, 0]:.2f}"]
    numbers = [t.get_text() for t in plot_statistics(values).texts]
    assert f"{values['bn_var'][2]:.3f}" in numbers and "-0.000" not in numbers
    image = picture(ax.figure)
    assert image.data.startswith(b"\x89PNG") and len(image.data) < 30_000


def test_pictures_colour_numbers_by_sign_and_fade_what_is_not_marked():
    grid = np.full((4, 4, 2, 2), 2.0)
    grid[0] = -2.0
    for tile, value in zip(plot_grid(grid, limit=3).patches, grid.flatten(), strict=False):
        red, _, blue, _ = tile.get_facecolor()
        assert red > blue + 0.2 if value > 0 else blue > red + 0.2
    faded = plot_grid(grid, limit=3, marked=grid > 0).patches[:16]  # image 1
    assert {tile.get_facecolor() for tile in faded} == {(1, 1, 1, 1)}


def test_norms_have_their_colours_and_channels_have_others():
    from backstage.workbook.grid import HEAD_TINT
    from backstage.workbook.reference import NORMS as TABLE
    from utils import NORM_COLORS

    hues = {norm.upper(): f"#{about.color}" for norm, about in TABLE.items()}
    assert hues == {norm: NORM_COLORS[norm] for norm in hues}
    assert not set(HEAD_TINT) & {color.strip("#") for color in NORM_COLORS.values()}
