"""An exercise's two cells, as they stand in its lesson.

PYTHONPATH=. python tests/exercise_cells.py Session6_3_batch_size    # prints them, to be copied
"""

import re
import sys

from backstage.exercises import texts
from backstage.exercises.texts import Task

YOURS = "...  # your turn"
GIVEN = re.compile(r'\s*(class |def |"""|super\(\))|$')  # what a stub has of the solution


def task_cell(task: Task) -> str:
    """The Markdown cell: what to do, with hints and solution folded."""
    heading = f"### Your turn: {task.title}" + " (if you have time)" * (not task.core)
    hints = "\n".join(f"- {hint}" for hint in task.hints)
    solution = f"```python\n{task.solution}\n```"
    return "\n\n".join([heading, task.prose, fold("Hints", hints), fold("Solution", solution)])


def fold(summary: str, text: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def stub_cell(task: Task) -> str:
    """The code cell: the solution without its bodies, and the check."""
    lines = []
    for line in task.solution.splitlines():
        if GIVEN.match(line):
            lines.append(line)
        elif not lines[-1].endswith(YOURS):
            lines.append(line[: len(line) - len(line.lstrip())] + YOURS)
    return "\n".join(lines) + f"\n\n\n{check_line(task)}"


def check_line(task: Task) -> str:
    return f'{task.defined} = check("{task.name}", {task.defined})'


if __name__ == "__main__":
    for each in texts.read(sys.argv[1]):
        print(task_cell(each), stub_cell(each), sep="\n\n----\n\n", end="\n\n----\n\n")
