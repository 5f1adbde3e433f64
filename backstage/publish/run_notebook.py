"""Executes notebooks without a browser: progress live in the terminal, results as files.

    python -m backstage.publish.run_notebook notebooks/X.ipynb --out build  # .ipynb, .html, figures
    python -m backstage.publish.run_notebook notebooks/*.ipynb --in-place  # committed outputs

In a browser a progress bar is a widget. Here it is text on the kernel's stderr, shown as it comes
and not kept in the notebook; everything else is kept.
"""

import argparse
import base64
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from backstage.files import replacing, small_png
from backstage.publish.alt_text import describe, figures
from backstage.publish.folding import fold
from backstage.publish.page import page

QUIET = ["--log-level=ERROR"]  # or each kernel begins with a warning about its own transport
# A bar as tqdm draws it; where there are several, with \x1b[A to go a line up.
BAR = re.compile(r"\r[^\r\n\x1b]*|\x1b\[A")
TABLE = "final-table"  # the tag of the cell whose output is printed at the end


class LiveClient(NotebookClient):
    """Shows the kernel's progress bars as they come, and keeps them out of the notebook."""

    def process_message(self, msg, cell, cell_index):
        content = msg["content"]
        if msg["msg_type"] == "stream" and content["name"] == "stderr":
            rest, bars = BAR.subn("", content["text"])
            if bars or not rest.strip():
                sys.stderr.write(content["text"])
                sys.stderr.flush()
                if not rest.strip():
                    return None
                content["text"] = rest
        return super().process_message(msg, cell, cell_index)


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook executed in a fresh kernel, in its own folder."""
    notebook = nbformat.read(path, as_version=4)
    os.environ["PROGRESS"] = "text"
    start = time.perf_counter()
    print(f"{path}: {sum(c.cell_type == 'code' for c in notebook.cells)} code cells")
    place = {"metadata": {"path": str(path.parent)}}
    client = LiveClient(notebook, timeout=None, resources=place, extra_arguments=QUIET)
    client.execute()
    print(f"{path}: done in {time.perf_counter() - start:.0f} s")
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell ran; differs from run to run
    shrink(notebook)
    fold(notebook)
    describe(notebook)
    return notebook


def shrink(notebook: nbformat.NotebookNode) -> None:
    """Stores the figures with a palette: as good to look at, half the size."""
    for figure in (f for cell in notebook.cells for f in figures(cell)):
        png = small_png(base64.b64decode(figure.data["image/png"]))
        figure.data["image/png"] = base64.b64encode(png).decode()


def write(path: Path, text: str) -> None:
    with replacing(path, "w", encoding="utf-8") as file:
        file.write(text)


def save(notebook: nbformat.NotebookNode, name: str, folder: Path) -> None:
    """Leaves ``name``.ipynb, ``name``.html and the figures in the folder."""
    pictures = folder / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    write(folder / f"{name}.ipynb", nbformat.writes(notebook))
    write(folder / f"{name}.html", page(notebook, name))
    found = [f for cell in notebook.cells for f in figures(cell)]
    for i, figure in enumerate(found, start=1):
        with replacing(pictures / f"{name}-{i:02}.png") as file:
            file.write(base64.b64decode(figure.data["image/png"]))
    for cell in notebook.cells:
        if TABLE in cell.metadata.get("tags", []):
            print("\n" + "".join(o.text for o in cell.outputs if o.output_type == "stream"))
    print(f"Notebook: {folder / name}.ipynb\nWeb page: {folder / name}.html")
    print(f"Figures:  {pictures}{os.sep} ({len(found)})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="leave notebook, page and figures in this folder")
    where.add_argument(
        "--in-place", action="store_true", help="replace the notebook by the executed one"
    )
    arguments = parser.parse_args()
    for path in arguments.notebooks:
        if not path.is_file():
            parser.error(f"{path} is not there.")
        try:
            notebook = execute(path)
        except CellExecutionError as error:
            print(
                f"\n{path} stopped with an error and is left as it was:\n{error}", file=sys.stderr
            )
            return 1
        if arguments.in_place:
            write(path, nbformat.writes(notebook) + "\n")
        else:
            save(notebook, path.stem, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
