"""The exercises as the texts in ``lessons/`` have them: task, solution, hints, known mistakes.

A section for each exercise, with nothing in it that needs Python to add to:

    ## name · Title · core          ("· core" only where it belongs to the lesson's core path)
    what to do, and a fenced block with the solution
    Hints:
    - one
    Once right: a sentence to take along.
    Mistakes:
    - **what it looks like**: where to look, in a sentence.
      `old` → `new`               a change to the solution's text; a line for each way to write it,
      `a` → `b` & `c` → `d`       with & between changes that belong together; \\n is a new line
    - and those of bn_forward     (whichever can be made in this solution too)
"""

import ast
import itertools
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "lessons"
LESSONS = tuple(sorted(path.stem for path in FOLDER.glob("*.md")))
ITEM = re.compile("^- ", re.MULTILINE)
EDIT = re.compile(r"`([^`]+)` → `([^`]*)`")
Edits = tuple[tuple[str, str], ...]  # (old, new), one after the other


@dataclass(frozen=True)
class Mistake:
    """One that people make."""

    name: str  # goes on after "this looks like"
    advice: str
    spellings: tuple[Edits, ...]


@dataclass(frozen=True)
class Task:
    """One exercise's text."""

    lesson: str
    name: str
    title: str
    core: bool
    prose: str
    solution: str
    hints: tuple[str, ...]
    once_right: str  # a sentence to take along
    mistakes: tuple[Mistake, ...]
    others: tuple[str, ...]  # exercises whose mistakes are made here too

    @property
    def defined(self) -> str:
        """The name of the function or class: the exercise's, but for a class."""
        return ast.parse(self.solution).body[-1].name


@cache
def read(lesson: str) -> tuple[Task, ...]:
    """The exercises of a lesson, in their order."""
    text = (FOLDER / f"{lesson}.md").read_text(encoding="utf-8")
    sections = re.split("^## ", text, flags=re.MULTILINE)[1:]
    return tuple(_task(lesson, section) for section in sections)


def _task(lesson: str, section: str) -> Task:
    heading, _, section = section.partition("\n")
    name, title, *core = heading.split(" · ")
    prose, solution, rest = re.split(r"^```(?:python)?\n", section, flags=re.MULTILINE)
    hints, once_right, mistakes = re.split("^Once right: |^Mistakes:$", rest, flags=re.MULTILINE)
    items = ITEM.split(mistakes)[1:]
    others = [i.removeprefix("and those of ").strip() for i in items if not i.startswith("**")]
    return Task(
        lesson, name, title, bool(core), prose.strip(), solution.strip(),
        tuple(" ".join(hint.split()) for hint in ITEM.split(hints)[1:]),
        " ".join(once_right.split()),
        tuple(_mistake(item) for item in items if item.startswith("**")), tuple(others),
    )  # fmt: skip


def _mistake(item: str) -> Mistake:
    edits = [EDIT.findall(line.replace(r"\n", "\n")) for line in item.splitlines()]
    words = [line for line in item.splitlines() if not EDIT.search(line)]
    name, advice = re.fullmatch(r"\*\*(.+?)\*\*: (.+)", " ".join(" ".join(words).split())).groups()
    return Mistake(name, advice, tuple(tuple(spelling) for spelling in edits if spelling))


@cache
def tasks() -> dict[str, Task]:
    """All exercises by name, in the order of the course."""
    return {task.name: task for lesson in LESSONS for task in read(lesson)}


def needed(task: Task) -> list[Task]:
    """The exercises whose functions this one's solution calls, and itself as the last."""
    called = [t for t in tasks().values() if t is not task and f"{t.defined}(" in task.solution]
    return [*called, task]


def source(task: Task) -> str:
    """The solution with the functions that it calls."""
    return "\n\n\n".join(t.solution for t in needed(task))


@cache
def known_mistakes(name: str) -> tuple[Mistake, ...]:
    """Its own, those of the exercises that it names, and of those that it calls."""
    task = tasks()[name]
    theirs = [*task.others, *(t.name for t in needed(task)[:-1])]
    found: dict[str, Mistake] = {}
    for m in itertools.chain(task.mistakes, *(known_mistakes(other) for other in theirs)):
        before = found.get(m.name, Mistake(m.name, m.advice, ()))
        spellings = dict.fromkeys(before.spellings + m.spellings)
        found[m.name] = Mistake(m.name, before.advice, tuple(spellings))
    return tuple(found.values())


def edited(text: str, edits: Edits) -> str | None:
    """The text with these changes; None where one of them can't be made."""
    for old, new in edits:
        if old not in text:
            return None
        text = text.replace(old, new)
    return text
