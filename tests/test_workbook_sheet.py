"""The workbook's look: what it refuses, what can be read on a projector, its charts."""

import re
import zipfile
from statistics import median

import numpy as np
import pytest
from openpyxl.formula import Tokenizer
from openpyxl.worksheet.cell_range import CellRange
from workbook_cases import BASE, WORKBOOK, cell

from backstage.workbook.given import LISTS
from backstage.workbook.page import COLORS, SHADES
from backstage.workbook.table import COMPUTED, GRADIENTS, INPUTS, MAIN, QUANTITIES, formula
from utils import NORM_COLORS

SHEETS = ["Read me", MAIN, "Layer N+1", "Train and eval", GRADIENTS, "Charts"]


def named_cells(quantities):
    for name in quantities:
        for found in BASE.cells[name]:
            yield name, found


def test_sheets_and_names_are_those_of_the_table():
    assert BASE.formulas.sheetnames == SHEETS and BASE.formulas.active.title == MAIN
    assert set(BASE.formulas.defined_names) == {n for q in QUANTITIES.values() for n in q.names()}
    taken = [(q.sheet, q.place(*index)) for q in QUANTITIES.values() for index in q.indices()]
    assert len(set(taken)) == len(taken) and not BASE.displaced()


def test_inputs_are_guarded_and_unlocked_and_everything_else_is_protected():
    guarded = {}
    for sheet in BASE.formulas:
        assert sheet.protection.sheet and not sheet.protection.password
        for rule in sheet.data_validations.dataValidation:
            for part in rule.sqref.ranges:
                guarded |= {(sheet.title, at): rule for row in part.rows for at in row}
    for name, found in named_cells(INPUTS):
        rule = guarded[found.parent.title, (found.row, found.column)]
        assert rule.type == ("list" if name in LISTS else "decimal"), name
        assert rule.error.startswith("Type ") and not found.protection.locked
        assert found.number_format != "General" or name in LISTS  # Excel would make it a date
    assert all(found.protection.locked for _, found in named_cells(COMPUTED))


def luminance(color):
    channels = (int(color[-6:][k : k + 2], 16) / 255 for k in (0, 2, 4))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, two):
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("title", SHEETS)
def test_text_can_be_read_on_a_projector(title):
    cells = (c for row in BASE.formulas[title].iter_rows() for c in row if c.value is not None)
    for found in cells:
        fill = found.fill.fgColor.rgb if found.fill.fill_type else "FFFFFFFF"
        ink = found.font.color
        assert found.font.size >= 11, found
        if ink and ink.type == "rgb" and not found.hyperlink:
            assert contrast(ink.rgb, fill) >= 4.5, found
        for side in (found.border.left, found.border.top):
            if side.style == "medium":
                assert contrast(side.color.rgb, "FFFFFF") >= 3


@pytest.mark.parametrize("title", SHEETS[1:5])
def test_a_sheet_fits_a_1080p_screen(title):
    """1,860 pixels across and 41 rows of 20 pixels, at zoom 100, beside a program's own bars."""
    sheet = BASE.formulas[title]
    assert (sheet.sheet_view.zoomScale or 100) == 100 and sheet["B3"].font.size >= 16
    used = [found for _, found in named_cells(QUANTITIES) if found.parent.title == title]
    last = max(found.column for found in used)
    widths = {k: d.width for d in sheet.column_dimensions.values() for k in range(d.min, d.max + 1)}
    assert sum(round(7 * widths[k]) for k in range(1, last + 1)) <= 1860
    assert max(found.row for found in used) <= 41


def rules(title):
    for entry in BASE.formulas[title].conditional_formatting:
        for rule in entry.rules:
            yield str(entry.sqref), rule


def test_gns_boxes_are_fills_that_follow_groups():
    """In x, statistics, x̂ and y of both layers, and in the gradients; no borders, no formats."""
    for name in ("used_x", "next_x", "gn_mean", "gn_var", "gn_xhat", "gn_y", "next_gn_y", "gn_dx"):
        first = BASE.cells[name][0]
        own = [rule for ranges, rule in rules(first.parent.title)
               if ranges.split(":")[0].split()[0] == first.coordinate]  # fmt: skip
        assert any("MOD(" in r.formula[0] and r.dxf.fill is not None for r in own), name
    for title in SHEETS:
        for _, rule in rules(title):
            assert rule.dxf.border is None and rule.dxf.numFmt is None
            assert "!" not in rule.formula[0]  # not every program could


def test_every_number_greys_out_where_an_input_is_wrong():
    for title in SHEETS[1:5]:
        areas = [sqref for sqref, rule in rules(title) if rule.formula[0] == '$B$3<>""']
        ranges = [CellRange(area) for sqref in areas for area in sqref.split()]
        for name, found in named_cells(COMPUTED):
            if found.parent.title == title:
                assert any(found.coordinate in area for area in ranges), name


def test_charts_are_native_and_have_a_text_for_those_who_cannot_see_them():
    with zipfile.ZipFile(WORKBOOK) as archive:
        kinds = ("xl/charts/chart", "xl/drawings/drawing", "xl/media")
        names = [name for name in archive.namelist() if name.startswith(kinds)]
        parts = {name: archive.read(name).decode() for name in names}
    assert len([name for name in parts if "charts" in name]) == 7
    drawings = "".join(text for name, text in parts.items() if "drawings" in name)
    texts = re.findall(r'<xdr:cNvPr id="\d+" name="Chart \d+" descr="([^"]{40,})"', drawings)
    assert len(texts) == 7
    assert not [name for name in parts if "media" in name]


def test_the_charts_tables_hold_the_numbers_of_the_other_sheets():
    sheet = BASE.values["Charts"]
    for column, name in ((3, "used_x"), (4, "bn_xhat"), (6, "gn_xhat"), (8, "ln_y")):
        channel = np.reshape(BASE.shown(name), (4, 4, 4))[:, 0]  # the first is chosen
        assert [sheet.cell(row, column).value for row in range(8, 24)] == channel.flatten().tolist()


def test_colours_are_the_lessons():
    assert all(color == NORM_COLORS[norm.upper()] for norm, color in COLORS.items())
    assert all(contrast(light, dark) > 1.15 for light, dark in SHADES.values())


EVERYWHERE = set(  # in Excel since 2019, LibreOffice, Google Sheets and Gnumeric
    "AND AVERAGE CHOOSE COLUMN COUNT FIXED IF INDEX INT ISBLANK ISNUMBER LEFT MATCH NA OFFSET OR "
    "RIGHT ROUND ROW SQRT SUBSTITUTE SUM SUMPRODUCT SUMXMY2 VAR VARP _xlfn.TEXTJOIN".split()
)


def test_functions_are_those_that_every_program_has():
    cells = (c for sheet in BASE.formulas for row in sheet.iter_rows() for c in row)
    texts = (getattr(c.value, "text", c.value) for c in cells if c.data_type == "f")
    tokens = (token for text in texts for token in Tokenizer(text).items)
    assert {t.value[:-1] for t in tokens if t.type == "FUNC" and t.subtype == "OPEN"} == EVERYWHERE


def test_formulas_can_be_read():
    lengths = [len(formula(q, index)) for q in COMPUTED.values() for index in q.indices()]
    assert median(lengths) <= 45 and max(lengths) <= 120
    assert cell(BASE.formulas, "bn_var_2").value == "=VARP(P8:Q15)"
    assert cell(BASE.formulas, "bn_xhat_1_1").value == "=(N8-bn_mean_1)/SQRT(bn_var_1+eps)"
    assert cell(BASE.formulas, "bn_y_1_1").value == "=gamma_1*N22+beta_1"
