"""The exercises as they stand in the lessons, which go on with stubs and with solutions."""

import re

import matplotlib.pyplot as plt
import nbformat
import pytest
from conftest import ROOT, needs_mnist

from backstage.exercises import cells, texts

ALL_LESSONS = True  # whether each lesson has to have all of its exercises
CHECKED = re.compile(r'^\w+ = check\("(\w+)", \w+\)$', re.MULTILINE)
PATHS = {lesson: ROOT / "notebooks" / f"{lesson}.ipynb" for lesson in texts.LESSONS}
each_lesson = pytest.mark.parametrize("lesson", texts.LESSONS)


def lesson_cells(lesson: str) -> list:
    """The cells of a lesson that has exercises."""
    found = nbformat.read(PATHS[lesson], as_version=4).cells if PATHS[lesson].exists() else []
    if not ALL_LESSONS and not any(CHECKED.search(cell.source) for cell in found):
        pytest.skip("no exercises in it yet")
    return found


@each_lesson
def test_the_cells_are_those_of_the_exercises_text(lesson):
    sources = [cell.source for cell in lesson_cells(lesson)]
    for task in texts.read(lesson):
        at = sources.index(cells.stub_cell(task))
        assert sources[at - 1] == cells.task_cell(task)
    names = [name for source in sources for name in CHECKED.findall(source)]
    assert sorted(names) == sorted(task.name for task in texts.read(lesson))


@needs_mnist
@each_lesson
@pytest.mark.parametrize("filled_in", [False, True], ids=["stubs", "solutions"])
def test_the_lesson_goes_on(lesson, filled_in, monkeypatch, capsys):
    """All of its code in one process, with the stubs or with the solutions in their place."""
    monkeypatch.setenv("SMOKE_TEST", "1")
    monkeypatch.chdir(ROOT / "notebooks")
    plt.switch_backend("Agg")
    code = [cell.source for cell in lesson_cells(lesson) if cell.cell_type == "code"][1:]
    for task in texts.read(lesson) if filled_in else ():
        solved = f"{task.solution}\n\n\n{cells.check_line(task)}"
        code = [solved if source == cells.stub_cell(task) else source for source in code]
    scope = {"__name__": "__main__", "display": print}
    for source in code:
        exec(compile(source, f"<{lesson}>", "exec"), scope)
    plt.close("all")
    said = capsys.readouterr().out
    for task in texts.read(lesson):
        assert (f"✓ {task.name}: right" if filled_in else f"… {task.name}: not yet") in said
