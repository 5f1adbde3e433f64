"""The course's notebooks in reading order, with what a reader can do after each."""

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
COLAB = "https://colab.research.google.com"
# By the name of the file. A notebook that is not listed comes after those that are.
AFTERWARDS = {
    "Session6_0_by_hand": "compute BN, LN and GN by hand, build them from scratch, and prove them "
    "equal to PyTorch's: outputs, gradients, running statistics",
    "Session6_1": "train the three experiments, read their curves and their mistakes, and say when "
    "`model.eval()` changes what BN computes",
    "Session6_2_why_it_works": "say what a norm does for speed, for large learning rates and for "
    "the gradients of deep networks, and what it does not do",
    "Session6_3_batch_size": "choose a norm for small batches, and tell what BN loses there from "
    "what any network loses",
    "Session6_4_penalties": "write L1 and L2 into a loss correctly, and predict what each does to "
    "weights under a norm",
    "Session6_5_does_it_replicate": "tell a real difference between two methods from the luck of "
    "one seed",
}
WORDS_A_MINUTE, SECONDS_A_CELL = 150, 40  # to read; to predict, to run, to look


def paths(root: Path = ROOT) -> list[Path]:
    """Of every notebook of the course, as seen from its root."""
    found = sorted((root / "notebooks").rglob("*.ipynb"))
    return [path.relative_to(root) for path in found if ".ipynb_checkpoints" not in path.parts]


@dataclass(frozen=True)
class Entry:
    path: Path  # in the repository
    title: str
    afterwards: str  # what a reader can do then; "" where it is not said
    minutes: int  # to read and to try, not to compute


def minutes(notebook: nbformat.NotebookNode) -> int:
    """To the nearest five, by its words and its cells of code."""
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    words = len(" ".join(prose).split())
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    return max(5, 5 * round((words / WORDS_A_MINUTE + cells * SECONDS_A_CELL / 60) / 5))


def entry(path: Path, root: Path = ROOT) -> Entry:
    notebook = nbformat.read(root / path, as_version=4)
    title = re.search(r"^# +(.+)$", notebook.cells[0].source, re.MULTILINE)[1]
    return Entry(path, title, AFTERWARDS.get(path.stem, ""), minutes(notebook))


def contents(root: Path = ROOT) -> list[Entry]:
    """The notebooks at the top of notebooks/, in reading order."""
    order = list(AFTERWARDS)
    found = [path for path in paths(root) if len(path.parts) == 2]
    found.sort(key=lambda p: (order.index(p.stem) if p.stem in order else len(order), p.stem))
    return [entry(path, root) for path in found]


def further(root: Path = ROOT) -> list[Entry]:
    """The notebooks in folders of their own: exercises, solutions."""
    return [entry(path, root) for path in paths(root) if len(path.parts) > 2]


def practice(lesson: Path, root: Path = ROOT) -> str:
    """Links to the notebooks of the lesson's name in folders of their own: exercises, solutions."""
    found = [p for p in paths(root) if p.name == lesson.name and p != lesson]
    return ", ".join(f"[{p.parent.name}]({p.as_posix()})" for p in found)


def badge(address: str, branch: str, path: Path) -> str:
    """Colab's badge, which opens the notebook from GitHub."""
    where = address.removeprefix("https://github.com")
    link = f"{COLAB}/github{where}/blob/{branch}/{path.as_posix()}"
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({link})"


def table(address: str | None = None, branch: str = "main", root: Path = ROOT) -> str:
    """The README's table of the notebooks, with Colab's badges where there is an address."""
    head = "| Notebook | Afterwards you can | Minutes | Practise |" + " Colab |" * bool(address)
    rows = [head, "|---" * (head.count("|") - 1) + "|"]
    for e in contents(root):
        row = [f"[{e.title}]({e.path.as_posix()})", e.afterwards, e.minutes, practice(e.path, root)]
        if address:
            row.append(badge(address, branch, e.path))
        rows.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(rows)
