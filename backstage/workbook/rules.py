"""What the sheet does by itself: it refuses nonsense, says what is wrong, and shows GN's sets."""

from xlsxwriter.utility import xl_range, xl_rowcol_to_cell

from backstage.workbook import page as pages
from backstage.workbook.given import LIMIT, LISTS, RANGES, TINY, allowed
from backstage.workbook.table import CHANNELS, INPUTS, MAIN, Quantity

GROUPS = {MAIN: "$I$19"}  # rules on other sheets go by the name, as every program lets them
GREY = {"bg_color": "#F2F2F2", "font_color": "#A6A6A6"}
RED = {"bg_color": "#C00000", "font_color": "#FFFFFF"}
LIT = {"bn": "#56B4E9", "ln": "#F5B93A", "gn": "#4CC39C"}  # the explained pixel's set


def validate(sheet, q: Quantity) -> None:
    """A program refuses anything else, and says what it wants; pasting gets past it."""
    if q.formula:
        return
    wanted = allowed(q.name)
    rule = {"ignore_blank": False, "error_title": "Not possible here",
            "error_message": f"Type {wanted}."}  # fmt: skip
    if q.name in LISTS:
        rule |= {"validate": "list", "source": list(LISTS[q.name])}
    else:
        low, high = RANGES.get(q.name, (-LIMIT, LIMIT))
        rule |= {"validate": "decimal", "criteria": "between", "minimum": low, "maximum": high}
    for index in [(0, 0, 0, 0)] if q.tiles else q.indices():
        sheet.data_validation(q.area() if q.tiles else q.cell(*index), rule)


def complaints(title: str) -> str:
    """A formula: what is wrong with a sheet's inputs, in words, and with the first sheet's."""
    own = [_complaint(q) for q in INPUTS.values() if q.sheet == title]
    if title != MAIN:
        own.insert(0, f'IF({MAIN}!$B$3="","","{MAIN}: "&{MAIN}!$B$3)')
    return f'_xlfn.TEXTJOIN("  ·  ",TRUE,{",".join(own)})'


def _complaint(q: Quantity) -> str:
    """A formula: one input's part of it."""
    if q.tiles:
        return _first_wrong(q)
    cells = [q.cell(*index) for index in q.indices()]
    if len(cells) > 1:
        area = f"{cells[0]}:{cells[-1]}"
        return f'IF(COUNT({area})=4,"","{q.label} needs four numbers")'
    said = f'"{q.label} has to be {allowed(q.name)}"'
    if q.name in LISTS:
        options = ",".join(f'"{x}"' if isinstance(x, str) else str(x) for x in LISTS[q.name])
        return f'IF(ISNUMBER(MATCH({q.name},{{{options}}},0)),"",{said})'
    fits = f"AND({q.name}>=0,{q.name}<=1)"
    if q.name == "eps":
        fits = f"OR(eps=0,AND(eps>={TINY:G},eps<={LIMIT:G}))"
    return f'IF(ISNUMBER({q.name}),IF({fits},"",{said}),{said})'


def _first_wrong(q: Quantity) -> str:
    """A formula: "63 of 64 numbers: image 2, channel 3 is empty", or nothing."""
    area, (row, column) = q.area(), q.place(0, 0, 0, 0)
    where = (f'"image "&INT((ROW({area})-{row - 1})/2)&", channel "'
             f"&INT((COLUMN({area})-{column - 1})/2)")  # fmt: skip
    kind = f'IF(ISBLANK({area})," is empty"," is no number")'
    each = f'_xlfn.TEXTJOIN("; ",TRUE,IF(ISNUMBER({area}),"",{where}&{kind}))'
    return f'IF(COUNT({area})=64,"","{q.label}"&COUNT({area})&" of 64 numbers: "&LEFT({each},60))'


def _rule(page, areas: str, formula: str, style: dict, stop: bool = False) -> None:
    """A format for cells, "C9:D10 C12:D13", where the formula for the first of them holds."""
    page.sheet.conditional_format(areas.split()[0], {
        "type": "formula", "criteria": f"={formula}", "format": page.book.add_format(style),
        "multi_range": areas, "stop_if_true": stop})  # fmt: skip


def _areas(q: Quantity) -> str:
    """The ranges of a quantity's cells, and no others."""
    if q.tiles:
        return q.area()
    rows = {}
    for index in q.indices():
        row, column = q.place(*index)
        rows.setdefault(row, []).append(column)
    return " ".join(xl_range(row, columns[0], row + q.size[0] - 1, columns[-1] + q.size[1] - 1)
                    for row, columns in rows.items())  # fmt: skip


def follow(page, q: Quantity) -> None:
    """Grey where an input is wrong; the explained set lights up; GN's shades follow `groups`."""
    top, left = q.place(*[0] * len(q.shape))
    area = _areas(q)
    if q.formula:
        _rule(page, area, '$B$3<>""', GREY, stop=True)
    elif q.name not in LISTS:
        _rule(page, area, f"NOT(ISNUMBER({xl_rowcol_to_cell(top, left)}))", RED, stop=True)
    if q.name == "used_x":
        _explained(page, q, area)
    if q.norm == "gn" and q.steps != CHANNELS:
        _boxes(page, q, area, top, left)


def _explained(page, q: Quantity, area: str) -> None:
    row, column = q.place(0, 0, 0, 0)
    here, across = f"ROW()-{row}", f"COLUMN()-{column}"
    inside = f"{here}>=$C$24,{here}<$C$24+$H$24,{across}>=$F$24,{across}<$F$24+$J$24"
    chosen = (f'{here}=2*$D$23-(LEFT($H$23,5)="upper"),'
              f'{across}=2*$F$23-(RIGHT($H$23,4)="left")')  # fmt: skip
    _rule(page, area, f"AND({chosen})", {"bg_color": pages.SLATE, "font_color": "#FFFFFF"}, True)
    for norm, color in LIT.items():
        style = {"bg_color": color, "font_color": "#000000"}
        _rule(page, area, f'AND($C$23="{norm.upper()}",{inside})', style, True)


def _boxes(page, q: Quantity, area: str, top: int, left: int) -> None:
    """GN's sets in two shades, like a chessboard; a number that its group shows already hides."""
    groups, wide = GROUPS.get(page.title, 'INDIRECT("groups")'), 2 if q.tiles else 1
    image, channel = f"INT((ROW()-{top + 1})/2)", f"(COLUMN()-{left + 1})/{wide}"
    dark = f"MOD({image}+INT({channel}*{groups}/4),2)=1"
    light, darker = pages.SHADES["gn"]
    if not q.tiles:
        again = f"MOD({channel},4/{groups})>0"
        _rule(page, area, f"AND({again},{dark})", {"bg_color": darker, "font_color": darker}, True)
        _rule(page, area, again, {"font_color": light}, True)
    _rule(page, area, dark, {"bg_color": darker})
