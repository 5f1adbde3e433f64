"""The contract of the committed notebooks, and their set-up cell played as Colab plays it.

That their code runs and their claims hold is what nbval tests.
"""

import json
import re
import shutil
import subprocess

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from backstage.publish import run_notebook

PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in PATHS}
# Built from texts, and short: what they say and how they are built is in test_exercises.
EXERCISES = {
    f"{path.parent.name}/{path.stem}": nbformat.read(path, as_version=4)
    for path in sorted((ROOT / "notebooks").glob("*/*.ipynb"))
}


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(params=NOTEBOOKS)
def notebook(request):
    return NOTEBOOKS[request.param]


@pytest.fixture(params=NOTEBOOKS | EXERCISES)
def any_notebook(request):
    return (NOTEBOOKS | EXERCISES)[request.param]


def test_there_are_notebooks():
    assert "Session6_1" in NOTEBOOKS


def test_every_lesson_has_exercises_and_solutions():
    assert len(EXERCISES) == 12
    assert {f"{kind}/{name}" for name in NOTEBOOKS for kind in ("exercises", "solutions")} <= set(
        EXERCISES
    )


def test_every_notebook_begins_with_the_same_set_up_cell():
    both = [*NOTEBOOKS.values(), *EXERCISES.values()]
    assert len({code(notebook)[0].source for notebook in both}) == 1


def test_is_committed_executed_from_top_to_bottom(any_notebook):
    counts = [cell.execution_count for cell in code(any_notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_has_no_debris_in_its_outputs(any_notebook):
    outputs = [output for cell in code(any_notebook) for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    text = json.dumps([{**o, "data": {**o.get("data", {}), "image/png": ""}} for o in outputs])
    assert not re.search(r"(?<![\w.])/(root|home|work|tmp|Users)/", text)
    assert "it/s" not in text and "widget-view" not in text and "Warning" not in text


def test_is_prose_first(notebook):
    cells = code(notebook)
    # Some cells write a sentence, from results: that is prose too.
    writes = [any("text/markdown" in o.get("data", {}) for o in cell.outputs) for cell in cells]
    prose = sum(writes) + sum(cell.cell_type == "markdown" for cell in notebook.cells)
    assert prose >= 0.8 * writes.count(False)
    lengths = sorted(len(cell.source.splitlines()) for cell in cells)
    assert lengths[-1] <= 30 and lengths[len(lengths) // 2] <= 8


def test_asserts_its_own_claims(notebook):
    assert any("assert " in cell.source for cell in code(notebook)[1:])


def test_is_not_too_heavy_to_open():
    assert all(path.stat().st_size <= 700_000 for path in PATHS)


def play(source, folder, monkeypatch):
    """Runs the set-up cell, and a cell after it, in a fresh kernel in the folder."""
    monkeypatch.setenv("PYTHONPATH", "")
    check = "import utils, s6_model; print(utils.__file__)"
    cells = [nbformat.v4.new_code_cell(text) for text in (source, check)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook.cells[1].outputs[0].text.strip()


def copy_code(folder):
    for name in ("s6_model.py", "utils.py", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "backstage", folder / "backstage")


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """A repository to clone from, with the files as they are here."""
    folder = tmp_path_factory.mktemp("remote")
    copy_code(folder)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder.as_uri()


def test_the_set_up_cell_clones_when_the_notebook_is_alone(remote, tmp_path, monkeypatch):
    source = code(NOTEBOOKS["Session6_1"])[0].source
    filled = source.replace('REPOSITORY = ""', f'REPOSITORY = "{remote}"')
    assert filled != source and "# @param" in source
    clone = str(tmp_path / "normalization-lesson" / "utils.py")
    assert play(filled, tmp_path, monkeypatch) == clone
    assert play(source, tmp_path, monkeypatch) == clone  # a second time it is found


def test_the_set_up_cell_finds_the_clone_it_lies_in(tmp_path, monkeypatch):
    copy_code(tmp_path)
    folder = tmp_path / "somewhere" / "below"
    folder.mkdir(parents=True)
    source = code(NOTEBOOKS["Session6_1"])[0].source
    assert play(source, folder, monkeypatch) == str(tmp_path / "utils.py")


def test_the_set_up_cell_says_what_to_fill_in(tmp_path, monkeypatch):
    source = code(NOTEBOOKS["Session6_1"])[0].source
    with pytest.raises(CellExecutionError, match="fill in REPOSITORY"):
        play(source, tmp_path, monkeypatch)


BARS = """
import sys, tqdm.std
bars = [tqdm.std.tqdm(total=3, mininterval=0) for _ in range(3)]
for bar in 2 * bars:
    bar.update()
    bar.set_postfix(loss=0.5)
print("a warning", file=sys.stderr)
for bar in bars:
    bar.update()
    bar.close()
print("a result")
"""


def test_bars_are_shown_and_not_kept(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PROGRESS", "text")  # as execute leaves it
    path = tmp_path / "bars.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BARS)]), path)
    kept = run_notebook.execute(path).cells[0].outputs
    text = {o.name: o.text for o in kept}
    assert text["stdout"] == "a result\n" and text["stderr"].strip() == "a warning"
    shown = capfd.readouterr().err
    assert "3/3" in shown and "loss=0.5" in shown
