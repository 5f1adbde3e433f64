"""What all notebooks have alike: the set-up cell, Colab's badge, folded cells, texts of figures."""

import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from backstage.files import replacing

ROOT = Path(__file__).resolve().parents[2]
COLAB = "https://colab.research.google.com"
# Twelve lines that a learner can read. The address is an argument, so no shell ever sees it; a
# private or wrong one is refused at once (askPass answers for the person who is not asked).
SET_UP = """\
# @title Set-up { display-mode: "form" }
REPOSITORY = ""  # @param {type:"string"}
import pathlib, runpy, shutil, subprocess

git = "git -c core.askPass=true -c http.lowSpeedTime=60 -c http.lowSpeedLimit=1 clone -q --depth=1"
here = pathlib.Path("normalization-lesson").resolve()
root = next((p for p in here.parents if (p / "backstage/setup.py").exists()), here)
if not (root / "backstage/setup.py").exists():  # alone, as in Colab: fetch the rest of the course
    assert REPOSITORY and shutil.which("git"), "Needs git, and the course's address in REPOSITORY."
    run = subprocess.run([*git.split(), "--", REPOSITORY, root], capture_output=True, text=True)
    assert not run.returncode, f"{run.stderr}Check address and network; delete a folder in the way."
runpy.run_path(str(root / "backstage/setup.py"), run_name="__main__");"""
REPOSITORY = re.compile(r'REPOSITORY = ".*?"')
BADGE = re.compile(r"\n\n\[!\[Open in Colab\].*")
ALT = re.compile(r"^[ \t]*# alt: *(.+(?:\n[ \t]*#  +.+)*)", re.MULTILINE)
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def paths(root: Path = ROOT) -> list[Path]:
    """The lessons, in reading order."""
    return sorted((root / "notebooks").glob("*.ipynb"))


def set_up(address: str = "") -> str:
    """The source of the set-up cell."""
    return REPOSITORY.sub(f'REPOSITORY = "{address}"', SET_UP)


def badge(address: str, branch: str, name: str) -> str:
    """Colab's badge, which opens the lesson of that name from GitHub."""
    where = f"{address.removeprefix('https://github.com')}/blob/{branch}/notebooks/{name}.ipynb"
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/github{where})"


def figures(cell: NotebookNode) -> list[NotebookNode]:
    """The outputs of a cell that are pictures."""
    return [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]


def fold(cell: NotebookNode) -> None:
    """Gives a cell tagged hide-input or hide-output JupyterLab's and Colab's marks for it."""
    tags = cell.metadata.get("tags", [])
    marks = {"source_hidden": "hide-input" in tags, "outputs_hidden": "hide-output" in tags}
    cell.metadata.pop("jupyter", None)
    cell.metadata.pop("cellView", None)
    if any(marks.values()):
        cell.metadata["jupyter"] = {mark: True for mark, wanted in marks.items() if wanted}
    if "hide-input" in tags:
        cell.metadata["cellView"] = "form"


def describe(cell: NotebookNode, heading: str) -> None:
    """Gives the figures of a cell their text, for those who cannot see them.

    An author says it in a comment, "# alt: BN falls below 16 images, GN does not.", of one line or
    of several; otherwise it is the heading above. nbconvert looks for it in the output's metadata,
    the book in the cell's.
    """
    found, said = figures(cell), ALT.search(cell.source)
    text = re.sub(r"\s*\n\s*#\s*", " ", said[1]).strip() if said else re.sub(r"[$`*]", "", heading)
    for i, figure in enumerate(found, start=1):
        of = f" ({i} of {len(found)})" if len(found) > 1 else ""
        figure.metadata.setdefault("image/png", {})["alt"] = text + of
    if found:
        cell.metadata["mystnb"] = {"image": {"alt": text}}


def finish(notebook: NotebookNode) -> None:
    """Folds and describes; what is already so stays as it is."""
    heading = "Figure"
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = ([heading] + HEADING.findall(cell.source))[-1]
        else:
            fold(cell)
            describe(cell, heading)


def save(notebook: NotebookNode, path: Path) -> None:
    with replacing(path, "w", encoding="utf-8") as file:
        file.write(nbformat.writes(notebook).rstrip() + "\n")


def publish(path: Path, address: str, branch: str) -> NotebookNode:
    """Writes set-up cell and badge into a lesson, and gives it back; outputs stay as they are."""
    notebook = nbformat.read(path, as_version=4)
    title = notebook.cells[0]
    title.source = BADGE.sub("", title.source)
    if address:
        heading, _, rest = title.source.partition("\n")
        title.source = f"{heading}\n\n{badge(address, branch, path.stem)}\n{rest}"
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.source = set_up(address)
    cell.metadata["tags"] = sorted({*cell.metadata.get("tags", []), "hide-input"})
    finish(notebook)
    save(notebook, path)
    return notebook
