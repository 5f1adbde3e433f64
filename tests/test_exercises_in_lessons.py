"""The exercises as they stand in the lessons, and the lessons with the solutions filled in.

With the stubs, as they are committed, nbval runs them.
"""

import ast
import re

import exercise_cells as cells
import matplotlib.pyplot as plt
import nbformat
import pytest
from conftest import ROOT, needs_mnist

import utils
from backstage.exercises import texts
from backstage.setup import ShortLoops

CHECKED = re.compile(r'^\w+ = check\("(\w+)", \w+\)$', re.MULTILINE)
PATHS = {lesson: ROOT / "notebooks" / f"{lesson}.ipynb" for lesson in texts.LESSONS}
each_lesson = pytest.mark.parametrize("lesson", texts.LESSONS)


def lesson_cells(lesson: str) -> list:
    return nbformat.read(PATHS[lesson], as_version=4).cells


@each_lesson
def test_the_cells_are_those_of_the_exercises_text(lesson):
    sources = [cell.source for cell in lesson_cells(lesson)]
    for task in texts.read(lesson):
        at = sources.index(cells.stub_cell(task))
        assert sources[at - 1] == cells.task_cell(task)
    names = [name for source in sources for name in CHECKED.findall(source)]
    assert sorted(names) == sorted(task.name for task in texts.read(lesson))


def one_after_another(experiments, data, **how):
    """In the place of ``fit_together``, whose processes start when nbval runs the lesson."""
    return [utils.fit(experiment, data, **how) for experiment in experiments]


@needs_mnist
@each_lesson
def test_the_lesson_goes_on_with_the_solutions(lesson, monkeypatch, capsys):
    """All of its code in one process."""
    monkeypatch.setenv("SMOKE_TEST", "1")
    monkeypatch.chdir(ROOT / "notebooks")
    monkeypatch.setattr(utils, "fit_together", one_after_another)
    plt.switch_backend("Agg")
    code = [cell.source for cell in lesson_cells(lesson) if cell.cell_type == "code"][1:]
    for task in texts.read(lesson):
        solved = f"{task.solution}\n\n\n{cells.check_line(task)}"
        code = [solved if source == cells.stub_cell(task) else source for source in code]
    scope = {"__name__": "__main__", "display": print}
    for source in code:
        exec(compile(ShortLoops().visit(ast.parse(source)), f"<{lesson}>", "exec"), scope)
    plt.close("all")
    said = capsys.readouterr().out
    for task in texts.read(lesson):
        assert f"✓ {task.name}: right" in said
