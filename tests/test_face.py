"""What a visitor sees first: README and docs, their links, and what the course installs."""

import ast
import re
import sys
from importlib.metadata import packages_distributions

import nbformat
import pytest
from conftest import ROOT

from backstage import setup
from backstage.publish.copies import texts
from backstage.publish.notebooks import paths

TEXTS = [*texts(ROOT), ROOT / "CONTRIBUTING.md"]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(text):
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


def notebook_text(path):
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def content(path):
    return notebook_text(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [*TEXTS, *paths()], ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    for link in LINK.findall(content(path)):
        if re.match(r"https?://|mailto:", link):
            continue
        where, _, anchor = link.partition("#")
        target = (path.parent / where).resolve() if where else path
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(content(target)), link
        elif anchor:  # Jupyter's anchors keep capitals, and have dashes for spaces
            headings = re.findall(r"^#+ (.+)$", content(target), re.MULTILINE)
            known = {h.replace(" ", "-") for h in headings} | anchors(content(target))
            assert anchor in known, link


def test_every_line_to_try_has_an_answer_for_teachers():
    """Lessons 2 to 6: a bullet for the number of each section that has such a line."""
    answers = (ROOT / "docs" / "TEACHING.md").read_text(encoding="utf-8").partition("## Answers")[2]
    for path in paths()[2:]:
        wanted, section = set(), ""
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                section = ([section] + re.findall(r"^## (\d+) ·", cell.source, re.MULTILINE))[-1]
            elif re.search("(#|;) try:", cell.source):
                wanted.add(section)
        given = answers.partition(f"(../notebooks/{path.name})")[2].partition("\n**[")[0]
        assert wanted and wanted <= set(re.findall(r"^- \*(\d+)", given, re.MULTILINE)), path.name


def test_pictures_are_small_described_and_all_shown():
    files = list((ROOT / "docs").glob("*.png"))
    assert sum(path.stat().st_size for path in files) < 1_500_000
    shown = {}
    for text in texts(ROOT):
        for alt, name in re.findall(r"!\[([^\]]*)\]\((?:docs/)?([\w-]+\.png)\)", content(text)):
            shown[name] = alt
    assert {path.name for path in files} == set(shown)
    assert all(len(alt.split()) > 5 for alt in shown.values())


def test_the_readme_has_one_picture_a_button_and_a_command_on_its_first_screen():
    first = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    assert len(re.findall(r"!\[[^\]]*\]\(docs/", first)) == 1
    assert "make lab" in first and "Colab" in first


def test_no_file_of_ours_imports_upwards():
    """notebooks -> backstage -> utils -> s6_model, and no package behind the door another."""
    packages = ("evidence", "exercises", "workbook", "publish")
    for path in [ROOT / "s6_model.py", ROOT / "utils.py", *(ROOT / "backstage").rglob("*.py")]:
        room = path.relative_to(ROOT).parts[1] if "backstage" in path.parts else path.stem
        allowed = {"s6_model": set(), "utils": {"s6_model"}}.get(room, {"s6_model", "utils"})
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top, _, rest = name.partition(".")
                if top in ("utils", "s6_model"):
                    assert top in allowed, f"{path}: {name}"
                if top == "backstage":
                    assert room not in ("utils", "s6_model"), f"{path}: {name}"
                    assert rest.split(".")[0] in {*packages, room, "files", "setup"} - (
                        {*packages} - {room}
                    ), f"{path}: {name}"


def imports(source):
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


def test_the_notebooks_part_of_the_requirements_has_all_that_they_import():
    text = setup.REQUIREMENTS.read_text(encoding="utf-8")
    installed = {re.match(r"[\w-]+", line)[0] for line in setup.needed(text)}
    rooms = [p for p in (ROOT / "backstage").rglob("*.py") if "publish" not in p.parts]
    sources = [p.read_text("utf-8") for p in [*rooms, ROOT / "utils.py", ROOT / "s6_model.py"]]
    for path in paths():
        lines = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        found = re.findall(r"^(?:import|from) [\w., ]+$", "\n".join(lines), re.MULTILINE)
        sources.append("\n".join(found))
    imported = {name for source in sources for name in imports(source)} - sys.stdlib_module_names
    known = packages_distributions()
    packages = {d.lower() for name in imported for d in known.get(name, [])} - {"ipython"}
    assert {"torch", "scikit-learn"} <= packages <= installed
