"""backstage.publish: what it writes into lessons and texts, and what it does for a class."""

import base64
import io

import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from backstage.publish import copies, run_notebook, teaching
from backstage.publish.__main__ import address_of, main
from backstage.publish.notebooks import SET_UP, describe, figures, fold, paths
from backstage.publish.page import anchor, page

ADDRESS = "https://github.com/someone/a-course"

# -------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "text",
    [
        "https://github.com/a/b.c",
        "http://github.com/a/b.c",
        "https://www.github.com/a/b.c/",
        "github.com/a/b.c",
        "https://GitHub.com/a/b.c.git",
        "https://github.com/a/b.c/tree/main",
        "https://github.com/a/b.c/blob/main/README.md",
        "https://x-access-token:secret@github.com/a/b.c.git",
        "git@github.com:a/b.c.git",
        "ssh://git@github.com/a/b.c",
        "ssh://git@github.com:22/a/b.c.git",
    ],
)
def test_the_spellings_of_an_address_are_understood_and_a_token_is_not_kept(text):
    assert address_of(text).lower() == "https://github.com/a/b.c"


@pytest.mark.parametrize(
    "text",
    ["", "/srv/x.git", "https://example.org/a/b", "github.com", "https://github.com/Owner/.."]
    + ["https://github.com/Owner/.git", "https://github.com/Owner", "https://github.com/-/a"]
    + ["https://evilgithub.com/a/b", "https://github.com/a/b; rm -r x", "https://github.com/a/."],
)
def test_what_is_no_repository_s_address_is_refused(text):
    assert address_of(text) == ""


# ------------------------------------------------------------------------------------- publishing


def a_png(color="navy"):
    picture, png = Image.new("RGB", (60, 40), "white"), io.BytesIO()
    picture.paste(color, (50, 2, 59, 40))  # nearer to two edges than the margin is wide
    picture.save(png, "png")
    return base64.b64encode(png.getvalue()).decode()


@pytest.fixture
def course(tmp_path):
    """A small course: a lesson with a table, two figures and a plain cell; a README, docs/."""
    figure = new_output("display_data", {"image/png": a_png(), "text/plain": "<Figure>"})
    table = new_output("stream", name="stdout", text="BN  99\n\n")
    cells = [
        new_markdown_cell("# A title\n\nA text."),
        new_code_cell("set up", execution_count=1),
        new_code_cell("f", metadata={"tags": ["table"]}, outputs=[table], execution_count=2),
        new_code_cell("# alt: BN falls.\ng", metadata={"tags": ["bn"]}, execution_count=3),
    ]
    cells[3].outputs = [figure, nbformat.from_dict(figure)]
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "docs").mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "Session6_9.ipynb")
    marks = "".join(f"<!-- {n} -->\nold\n<!-- end of {n} -->\n" for n in ("button", "table", "x"))
    (tmp_path / "README.md").write_text(marks)
    (tmp_path / "docs" / "MORE.md").write_text("<!-- bn -->\nold\n<!-- end of bn -->\n")
    return tmp_path


def lesson(course):
    return nbformat.read(course / "notebooks" / "Session6_9.ipynb", as_version=4)


def test_a_tagged_output_goes_between_the_marks_of_its_name(course):
    assert main([], course) == 0
    readme = (course / "README.md").read_text()
    assert "<!-- table -->\n```text\nBN  99\n```\n<!-- end of table -->" in readme
    assert "<!-- x -->\nold\n" in readme  # no cell has this tag
    links = "![BN falls. (1 of 2)](bn-1.png)\n\n![BN falls. (2 of 2)](bn-2.png)"
    assert links in (course / "docs" / "MORE.md").read_text()
    drawn = Image.open(course / "docs" / "bn-1.png").convert("RGB")
    edge = {drawn.getpixel((drawn.width - 1, y)) for y in range(drawn.height)}
    assert drawn.size == (18, 40) and edge == {(255, 255, 255)}  # a margin of 8 is left


def test_publishing_writes_set_up_badge_and_address_and_can_be_undone(course, capsys):
    main([], course)
    before = lesson(course)
    assert "no address is known" in capsys.readouterr().out
    main(["https://token@github.com/someone/a-course.git"], course)
    once, after = lesson(course), lesson(course)
    assert "token@" not in nbformat.writes(after) + (course / "README.md").read_text()
    badge = "github/someone/a-course/blob/main/notebooks/Session6_9.ipynb)"
    assert badge in after.cells[0].source and badge in (course / "README.md").read_text()
    assert after.cells[0].source.startswith("# A title\n\n[![Open in Colab]")
    assert f'REPOSITORY = "{ADDRESS}"  # @param' in after.cells[1].source
    assert [c.get("outputs") for c in after.cells] == [c.get("outputs") for c in before.cells]
    main([ADDRESS], course)
    assert lesson(course) == once
    main([], course)
    assert lesson(course) == before and before.cells[1].source == SET_UP


def test_another_address_is_refused_and_nothing_is_written(course, capsys):
    before = lesson(course)
    with pytest.raises(SystemExit):
        main(["https://example.org/x"], course)
    assert "no address like https" in capsys.readouterr().err and lesson(course) == before


def test_what_is_committed_is_what_publishing_writes():
    """Texts between marks; the pictures' bytes depend on Pillow, so only that they are there."""
    lessons = [nbformat.read(path, as_version=4) for path in paths()]
    cells = {t: c for n in lessons for c in n.cells for t in c.metadata.get("tags", [])}
    for text in copies.texts(ROOT):
        content = text.read_text(encoding="utf-8")
        for name in set(copies.MARK.findall(content)) & set(cells):
            found = figures(cells[name])
            for i in range(1, len(found) + 1):
                assert (ROOT / "docs" / f"{name}{f'-{i}' if len(found) > 1 else ''}.png").exists()
            for output in cells[name].outputs if not found else ():
                assert output.text.rstrip() in content, f"{name}: make publish"


# ------------------------------------------------------------------------- folding, texts, pages


def test_tags_are_turned_into_every_reader_s_marks():
    hidden = {"source_hidden": True}, {"outputs_hidden": True}
    for tags, jupyter, colab in (
        ([], None, None),
        (["hide-input"], hidden[0], "form"),
        (["x", "hide-output"], hidden[1], None),
        (["hide-input", "hide-output"], hidden[0] | hidden[1], "form"),
    ):
        cell = new_code_cell("1", metadata={"tags": tags, "cellView": "form", "jupyter": {"a": 1}})
        fold(cell)
        assert (cell.metadata.get("jupyter"), cell.metadata.get("cellView")) == (jupyter, colab)


@pytest.mark.parametrize(
    "source, text",
    [
        ("# alt: BN falls.\nplot()", "BN falls."),
        ("plot()\n    # alt: BN falls\n    #   below 16.\n# not this", "BN falls below 16."),
        ("plot()", "What γ does"),
    ],
)
def test_a_figure_s_text_is_the_author_s_or_the_heading(source, text):
    cell = new_code_cell(source, outputs=[new_output("display_data", {"image/png": a_png()})])
    describe(cell, "What $γ$ does")
    assert figures(cell)[0].metadata["image/png"]["alt"] == text
    html = page(new_notebook(cells=[new_markdown_cell(r"$\gamma$"), cell]), "A title")
    soup = BeautifulSoup(html, "html.parser")
    assert soup.title.text == "A title" and soup.select_one(".jp-RenderedImage img")["alt"] == text
    assert not soup.select('script[src^="http"], link[href^="http"]') and "MathJax" in html


BARS = """
import sys, tqdm.std
bars = [tqdm.std.tqdm(total=3, mininterval=0) for _ in range(3)]
for bar in 2 * bars:
    bar.update()
    bar.set_postfix(loss=0.5)
print("a warning", file=sys.stderr)
print("a", end=" ", flush=True)
print("result", flush=True)
"""


def test_bars_are_shown_and_not_kept_and_printed_text_is_in_one_piece(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PROGRESS", "text")  # as execute leaves it
    nbformat.write(new_notebook(cells=[new_code_cell(BARS)]), tmp_path / "bars.ipynb")
    kept = run_notebook.execute(tmp_path / "bars.ipynb").cells[0].outputs
    assert [o.text.strip() for o in kept if o.name == "stdout"] == ["a result"]
    assert "".join(o.text for o in kept if o.name == "stderr").strip() == "a warning"
    assert "loss=0.5" in capfd.readouterr().err


# -------------------------------------------------------------------------------------- for a class


def test_a_handout_has_no_solutions_and_a_collection_what_check_said(tmp_path, capsys):
    teaching.handout(tmp_path / "out")
    given = [nbformat.read(p, as_version=4) for p in sorted((tmp_path / "out").glob("*.ipynb"))]
    assert len(given) == len(paths())
    assert not any("<summary>Solution" in cell.source for book in given for cell in book.cells)
    said = new_output("stream", name="stdout", text="torch.Size([2])\n✓ group_norm: right.\nmore")
    failed = new_output("error", ename="NameError", evalue="x", traceback=[])
    outputs = {"group_norm": [said], "bn_eval": [], "evaluate": [failed]}
    cells = [new_code_cell(f'{n} = check("{n}", {n})', outputs=o) for n, o in outputs.items()]
    (tmp_path / "in" / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("Kim.ipynb", ".ipynb_checkpoints/Kim.ipynb"):
        nbformat.write(new_notebook(cells=cells), tmp_path / "in" / name)
    (tmp_path / "in" / "Lee.ipynb").write_text("{")
    capsys.readouterr()
    teaching.collect(tmp_path / "in")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    verdicts = ["group_norm ✓ group_norm: right.", "bn_eval (not run)", "evaluate (an error)"]
    assert lines[:-1] == ["Kim.ipynb", *verdicts, "Lee.ipynb"]
    assert lines[-1].startswith("not a notebook")


def test_anchors_are_jupyters_for_a_lessons_sections_and_githubs_for_other_titles():
    assert anchor("2 · A new domain") == "2-·-A-new-domain"
    assert anchor("Other ways to start") == "other-ways-to-start"
