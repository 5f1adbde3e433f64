"""What a visitor sees first: the README, its numbers and pictures, the figures' texts, the page."""

import ast
import io
import json
import re
from importlib.metadata import packages_distributions

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from conftest import ROOT
from PIL import Image

from backstage import setup
from backstage.evidence.statistics import CONTRADICTED, NOT_DETECTED, SUPPORTED
from backstage.exercises.catalogue import EXERCISES
from backstage.exercises.more_styles import STYLES
from backstage.files import between
from backstage.publish import contents, pictures, publish, readme
from backstage.publish.alt_text import describe, figures
from backstage.publish.page import page

README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURES = json.loads((ROOT / "docs" / "pictures.json").read_text(encoding="utf-8"))
LINK = re.compile(r"\]\(([^)\s]+)\)")

# -------------------------------------------------------------------------------------- README


@pytest.mark.usefixtures("quick_statistics")
def test_the_readme_s_numbers_are_those_of_the_notebooks_and_the_results():
    for name, text in readme.parts().items():
        assert between(name).search(README)[0] == text, "make pictures"


@pytest.mark.parametrize(
    "verdicts, said",
    [
        ((SUPPORTED, SUPPORTED), "GN + L1 wins.** Over 7 seeds, GN + L1 beats both A and B."),
        ((SUPPORTED, NOT_DETECTED), "no clear winner.** Over 7 seeds, GN + L1 could not be shown"),
        ((NOT_DETECTED, CONTRADICTED), "GN + L1 loses.** Over 7 seeds, GN + L1 falls behind B."),
    ],
)
def test_the_first_sentence_follows_the_verdict(monkeypatch, verdicts, said):
    found = pd.DataFrame({"verdict": verdicts, "seeds": 7}, index=["x", "y"])
    monkeypatch.setattr(readme, "supersedes", lambda: (found, {"x": "A", "y": "B"}))
    assert readme.in_short().startswith(f"**What came out: {said}")


def test_the_readme_lists_the_notebooks_that_are_there():
    first = nbformat.read(ROOT / contents.paths()[0], as_version=4)
    source = next(c.source for c in first.cells if c.cell_type == "code")
    address = publish.REPOSITORY.search(source)[0].split('"')[1] or None
    listed = between("notebooks").search(README)[0]
    branch = re.search(r"/blob/([^/]+)/", listed)
    assert listed == contents.table(address, branch[1] if branch else "main"), "make pictures"


@pytest.mark.parametrize("name", ["README.md", "docs/RESULTS.md", "CONTRIBUTING.md"])
def test_its_links_lead_somewhere(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    for link in LINK.findall(text):
        if link.startswith("#"):
            assert link[1:] in anchors, link
        elif not link.startswith("https://"):
            assert ((ROOT / name).parent / link.partition("#")[0]).exists(), link


def test_the_first_screen_has_pictures_and_both_ways_to_start():
    first = README.partition("\n## ")[0]
    for name in ("cubes", "workbook", "with-and-without", "curves"):
        assert f"docs/{name}.png" in first
    assert "make lab" in first and "make lesson" in first and "Colab" in first
    assert all(f"docs/mistakes-{i}.png" in README for i in (1, 2, 3))


def test_results_counts_what_is_there():
    text = " ".join((ROOT / "docs" / "RESULTS.md").read_text(encoding="utf-8").split())
    files = (ROOT / "results").glob("*.jsonl")
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    hours = sum(row["seconds"] for row in rows) / 3600
    assert f"The {len(rows):,} stored runs took {hours:.0f} hours of one core" in text
    mistakes = sum(len(exercise.mistakes) for exercise in EXERCISES.values())
    styles = sum(2 + len(STYLES[name]) for name in EXERCISES)  # the solution and the recipe, too
    assert f"{len(EXERCISES)} exercises; each of their {mistakes} known mistakes" in text
    assert f"all of {styles} right answers in different styles" in text


# ------------------------------------------------------------------------------------- pictures


def test_no_picture_is_stale():
    found = {name: source.sha256 for name, source in pictures.sources().items()}
    assert {name: entry["sha256"] for name, entry in PICTURES.items()} == found, "make pictures"


def test_the_pictures_are_there_small_and_described():
    files = {path.stem: path.stat().st_size for path in (ROOT / "docs").glob("*.png")}
    assert files.keys() == PICTURES.keys() and sum(files.values()) < 1_500_000
    shown = re.findall(r"!\[([^\]]*)\]\(docs/([\w-]+)\.png\)", README)
    assert {name for _, name in shown} == files.keys()
    assert all(len(alt.split()) > 8 for alt, _ in shown)


def test_a_picture_s_margins_are_paper_to_its_very_edge():
    drawn = Image.new("RGB", (60, 40), "white")
    drawn.paste("black", (50, 2, 59, 40))  # nearer to two edges than the margin is wide
    kept = Image.open(io.BytesIO(pictures.small(drawn))).convert("RGB")
    edge = [kept.getpixel((kept.width - 1, y)) for y in range(kept.height)]
    assert set(edge) == {(255, 255, 255)}


# -------------------------------------------------------------------------------- figures' texts


def test_every_committed_figure_has_a_text():
    for path in contents.paths():
        for cell in nbformat.read(ROOT / path, as_version=4).cells:
            for figure in figures(cell):
                assert figure.metadata["image/png"]["alt"].strip(), f"{path}: make pictures"


def described(source, count=1):
    data = {"image/png": "aWNvbg==", "text/plain": "<Figure>"}
    outputs = [nbformat.v4.new_output("display_data", data) for _ in range(count)]
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("Text.\n\n## 4 · What $\\gamma$ does?"),
            nbformat.v4.new_code_cell(source, outputs=outputs),
        ]
    )
    describe(notebook)
    return notebook, [o.metadata["image/png"]["alt"] for o in notebook.cells[1].outputs]


@pytest.mark.parametrize(
    "source, text",
    [
        ("# alt: BN falls.\nplot()", "BN falls."),
        ("plot()\n    # alt: BN falls\n    #   below 16.\n# not this", "BN falls below 16."),
        ("plot()", "What gamma does"),
        ('ax.set_title("All of the seeds")', "What gamma does: All of the seeds"),
        ('figure.suptitle(\n    f"Each of {n} seeds"\n)', "What gamma does: Each of … seeds"),
        ("ax.set(title=f'{norm}, {n}')", "What gamma does"),
    ],
)
def test_a_figure_s_text_is_the_author_s_or_heading_and_titles(source, text):
    assert described(source)[1] == [text]


def test_several_figures_of_a_cell_are_told_apart():
    assert described("# alt: Digits.", 2)[1] == ["Digits. (1 of 2)", "Digits. (2 of 2)"]


def test_the_page_has_its_texts_and_its_formulas_inside():
    notebook, (text,) = described("# alt: <BN> falls.")
    html = page(notebook, "A title")
    soup = BeautifulSoup(html, "html.parser")
    assert soup.title.text == "A title" and soup.select_one(".jp-RenderedImage img")["alt"] == text
    assert not soup.select('script[src^="http"], link[href^="http"]')
    assert "MathJax" in html and "$\\gamma$" in html


# ---------------------------------------------------------------------------------- installation

ROOMS = ("backstage/machinery", "backstage/evidence", "backstage/workbook", "backstage/exercises")


def top_level_imports(source):
    """Modules imported where the file is loaded; not in functions, which may do without."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


def sources_of_the_notebooks():
    for room in ROOMS:
        yield from (path.read_text(encoding="utf-8") for path in (ROOT / room).rglob("*.py"))
    yield from ((ROOT / name).read_text(encoding="utf-8") for name in ("utils.py", "s6_model.py"))
    for path in contents.paths():
        cells = nbformat.read(ROOT / path, as_version=4).cells
        lines = "\n".join(c.source for c in cells if c.cell_type == "code").splitlines()
        yield "\n".join(x for x in lines if re.match(r"(import|from) [\w., ]+", x) and "(" not in x)


def test_the_notebooks_part_of_the_requirements_has_all_that_they_import():
    text = setup.REQUIREMENTS.read_text(encoding="utf-8")
    installed = {re.match(r"[\w-]+", line)[0].lower() for line in setup.needed(text)}
    known = packages_distributions()
    imported = {name for source in sources_of_the_notebooks() for name in top_level_imports(source)}
    packages = {d.lower() for name in imported for d in known.get(name, [])} - {"ipython"}
    assert {"torch", "scikit-learn", "xlsxwriter"} <= packages <= installed
