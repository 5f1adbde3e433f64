"""Writes the exercises' notebooks, with stubs and filled in, both from the texts in ``lessons/``.

    python -m backstage.publish.exercises                       # all of them
    python -m backstage.publish.exercises solutions/Session6_1  # those whose path has this

A text has a first block of code, which imports, and a section for each exercise: what to do, the
solution, three hints. A stub is the solution without what follows the docstrings.
"""

import argparse
import ast
import itertools
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from backstage.exercises.catalogue import EXERCISES, LESSONS
from backstage.exercises.learner import FILE
from backstage.publish import run_notebook

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS, TEXTS = ROOT / "notebooks", ROOT / "backstage" / "exercises" / "lessons"
KINDS = ("exercises", "solutions")


@dataclass(frozen=True)
class Task:
    """One exercise's text."""

    name: str
    title: str
    prose: str
    solution: str
    hints: tuple[str, ...]

    @property
    def check(self) -> str:
        """The call that checks it, unless the code has one."""
        defined = [node.name for node in ast.parse(self.solution).body if hasattr(node, "name")]
        return f'\n\n\ncheck("{self.name}", {defined[-1]})' if defined else ""


@dataclass(frozen=True)
class Text:
    """A lesson's exercises."""

    lesson: str
    opening: str
    imports: str
    tasks: tuple[Task, ...]


def read(lesson: str) -> Text:
    opening, *sections = re.split("^## ", (TEXTS / f"{lesson}.md").read_text(), flags=re.M)
    prose, imports, _ = _around_code(opening)
    return Text(lesson, prose, imports, tuple(map(_task, sections)))


def _around_code(text: str) -> tuple[str, str, str]:
    before, code, after = re.split("^```(?:python)?\n", text, flags=re.M)
    return before.strip(), code.rstrip(), after.strip()


def _task(section: str) -> Task:
    prose, solution, after = _around_code(section)
    heading, _, prose = prose.partition("\n")
    name, title = heading.split(" · ")
    hints = [" ".join(hint.split()) for hint in re.split("^- ", after, flags=re.M)[1:]]
    return Task(name, title, prose.strip(), solution, tuple(hints))


# ----------------------------------------------------------------------------------- stubs


def stub(solution: str) -> str:
    """The code with ``...`` for what is to be written: bodies, and values in capitals."""
    lines = solution.splitlines()
    for first, last, indent, text in sorted(_gaps(ast.parse(solution)), reverse=True):
        lines[first - 1 : last] = [" " * indent + text]
    return "\n".join(lines)


def _gaps(module: ast.Module):
    """Lines, from and to, that a stub leaves out, their indent, and what it has instead."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef):
            yield _body(node)
        if isinstance(node, ast.ClassDef):
            yield from (_body(n) for n in node.body if isinstance(n, ast.FunctionDef))
        if isinstance(node, ast.Assign) and node.targets[0].id.isupper():
            yield node.lineno, node.end_lineno, 0, f"{node.targets[0].id} = ...  # your turn"


def _body(function: ast.FunctionDef) -> tuple[int, int, int, str]:
    kept = [s for s in function.body if not _is_given(s)]
    first, last = kept[0], function.body[-1]
    above = max([s.end_lineno for s in function.body if _is_given(s)], default=first.lineno - 1)
    return above + 1, last.end_lineno, first.col_offset, "...  # your turn"


def _is_given(statement: ast.stmt) -> bool:
    """A docstring, or the call that every module begins with."""
    if not isinstance(statement, ast.Expr):
        return False
    docstring = isinstance(statement.value, ast.Constant)
    return docstring or ast.unparse(statement) == "super().__init__()"


# ------------------------------------------------------------------------------- notebooks


def set_up_cell() -> str:
    """The lessons' own, byte for byte."""
    lesson = nbformat.read(NOTEBOOKS / "Session6_1.ipynb", as_version=4)
    return next(cell.source for cell in lesson.cells if cell.cell_type == "code")


def notebook(text: Text, kind: str) -> nbformat.NotebookNode:
    """The notebook, not executed; ``kind`` is one of KINDS."""
    solved = kind == "solutions"
    other = KINDS[not solved]
    links = (
        f"Lesson: [{text.lesson}](../{text.lesson}.ipynb) · "
        f"{other.capitalize()}: [{text.lesson}](../{other}/{text.lesson}.ipynb)"
    )
    opening = text.opening.replace("# Exercises", "# Solutions", 1) if solved else text.opening
    cells = [new_markdown_cell(f"{opening}\n\n{links}"), new_code_cell(set_up_cell())]
    imports = text.imports
    if solved:  # to read a solution is not to find it
        imports = imports.replace("check, progress", "check_uncounted as check")
    cells.append(new_code_cell(imports))
    for number, task in enumerate(text.tasks, start=1):
        cells.append(new_markdown_cell(f"## {number} · {task.title}\n\n{task.prose}"))
        if not solved:
            cells.append(new_markdown_cell("\n".join(map(_folded, range(1, 4), task.hints))))
        code = task.solution if solved else stub(task.solution)
        cells.append(new_code_cell(code + task.check))
    if not solved:
        cells.append(new_markdown_cell("## How far you are\n\nOver all the exercises, by lesson:"))
        cells.append(new_code_cell("progress()"))
    for k, cell in enumerate(cells):
        cell["id"] = f"{kind}-{k:02}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _folded(number: int, hint: str) -> str:
    return f"<details><summary>Hint {number}</summary>\n\n{hint}\n\n</details>\n"


def path_of(lesson: str, kind: str) -> Path:
    return NOTEBOOKS / kind / f"{lesson}.ipynb"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", default="", help="build only paths with this in them")
    part = parser.parse_args().part
    assert [t.name for lesson in LESSONS for t in read(lesson).tasks] == list(EXERCISES)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FILE] = str(Path(folder) / "progress.json")
        for lesson, kind in itertools.product(LESSONS, KINDS):
            path = path_of(lesson, kind)
            if part in path.as_posix():
                path.parent.mkdir(exist_ok=True)
                run_notebook.write(path, nbformat.writes(notebook(read(lesson), kind)))
                run_notebook.write(path, nbformat.writes(run_notebook.execute(path)))


if __name__ == "__main__":
    main()
