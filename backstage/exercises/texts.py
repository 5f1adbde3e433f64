"""The exercises as the texts in ``lessons/`` have them: task, solution, hints, known mistakes.

A section for each exercise, with nothing in it that needs Python to add to:

    ## name · Title · core          ("· core" only where it belongs to the lesson's core path)
    what to do, and a fenced block with the solution
    Hints:
    - one
    Mistakes:
    - **what it looks like**: where to look, in a sentence.
      `old` → `new`               a change to the solution's text; a line for each way to write it,
      `a` → `b` & `c` → `d`       with & between changes that belong together; \\n is a new line
    - and those of bn_forward     (whichever can be made in this solution too)
"""

import ast
import itertools
import re
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "lessons"
LESSONS = tuple(sorted(path.stem for path in FOLDER.glob("*.md")))
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

    name: str
    title: str
    core: bool
    prose: str
    solution: str
    hints: tuple[str, ...]
    mistakes: tuple[Mistake, ...]
    others: tuple[str, ...]  # exercises whose mistakes are made here too

    @property
    def defined(self) -> str:
        """The name of the function or class: the exercise's, but for a class."""
        return ast.parse(self.solution).body[-1].name

    @property
    def text(self) -> str:
        """The lesson's Markdown cell: the task, with hints and solution folded."""
        heading = f"### Your turn: {self.title}" + " (if you have time)" * (not self.core)
        hints = "\n".join(f"- {hint}" for hint in self.hints)
        solution = f"```python\n{self.solution}\n```"
        return "\n\n".join([heading, self.prose, fold("Hints", hints), fold("Solution", solution)])

    @property
    def stub(self) -> str:
        """The lesson's code cell: the solution without its bodies, and the check."""
        lines = self.solution.splitlines()
        for function in sorted(_functions(self.solution), key=lambda f: -f.lineno):
            first, last, indent = _body(function)
            lines[first - 1 : last] = [" " * indent + "...  # your turn"]
        return "\n".join(lines) + f"\n\n\n{self.call}"

    @property
    def call(self) -> str:
        return f'{self.defined} = check("{self.name}", {self.defined})'


def fold(summary: str, text: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def _functions(source: str) -> list[ast.FunctionDef]:
    top = ast.parse(source).body
    within = itertools.chain(*(node.body for node in top if isinstance(node, ast.ClassDef)))
    return [node for node in (*top, *within) if isinstance(node, ast.FunctionDef)]


def _body(function: ast.FunctionDef) -> tuple[int, int, int]:
    """The lines that a stub leaves out, from and to, and their indent."""
    left_out = [s for s in function.body if not _is_given(s)]
    return left_out[0].lineno, function.body[-1].end_lineno, left_out[0].col_offset


def _is_given(statement: ast.stmt) -> bool:
    """A docstring, or the call that every module begins with."""
    is_docstring = isinstance(getattr(statement, "value", None), ast.Constant)
    return is_docstring or ast.unparse(statement) == "super().__init__()"


# ---------------------------------------------------------------------------------- reading


@cache
def read(lesson: str) -> tuple[Task, ...]:
    """The exercises of a lesson, in their order."""
    text = (FOLDER / f"{lesson}.md").read_text(encoding="utf-8")
    return tuple(map(_task, re.split("^## ", text, flags=re.MULTILINE)[1:]))


def _task(section: str) -> Task:
    heading, _, section = section.partition("\n")
    name, title, *core = heading.split(" · ")
    prose, solution, rest = re.split(r"^```(?:python)?\n", section, flags=re.MULTILINE)
    hints, _, mistakes = rest.partition("\nMistakes:\n")
    items = _items(mistakes)
    others = [i.removeprefix("and those of ").strip() for i in items if not i.startswith("**")]
    return Task(
        name, title, bool(core), prose.strip(), solution.strip(),
        tuple(" ".join(hint.split()) for hint in _items(hints)),
        tuple(_mistake(item) for item in items if item.startswith("**")), tuple(others),
    )  # fmt: skip


def _items(text: str) -> list[str]:
    return re.split("^- ", text, flags=re.MULTILINE)[1:]


def _mistake(item: str) -> Mistake:
    words = [line for line in item.splitlines() if not EDIT.search(line)]
    name, advice = re.fullmatch(r"\*\*(.+?)\*\*: (.+)", " ".join(" ".join(words).split())).groups()
    lines = [EDIT.findall(line) for line in item.splitlines() if EDIT.search(line)]
    spellings = [tuple((_code(a), _code(b)) for a, b in line) for line in lines]
    return Mistake(name, advice, tuple(spellings))


def _code(text: str) -> str:
    return text.replace(r"\n", "\n")


# -------------------------------------------------------------------------- what they need


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
        found[m.name] = Mistake(m.name, before.advice, before.spellings + m.spellings)
    return tuple(found.values())


def edited(text: str, edits: Edits) -> str | None:
    """The text with these changes; None where one of them can't be made."""
    for old, new in edits:
        if old not in text:
            return None
        text = text.replace(old, new)
    return text


def wrapped(text: str, width: int = 96) -> str:
    """In lines that fit into a notebook; a line that is indented stays so."""
    return "\n".join(
        textwrap.fill(line.lstrip(), width, initial_indent=" " * (len(line) - len(line.lstrip())),
                      subsequent_indent="  ", break_long_words=False)
        for line in text.splitlines()
    )  # fmt: skip
