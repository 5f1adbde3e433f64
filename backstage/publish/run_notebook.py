"""Executes notebooks without a browser, with progress in the terminal.

python -m backstage.publish.run_notebook notebooks/X.ipynb --out build  # .ipynb, .html, figures
python -m backstage.publish.run_notebook notebooks/*.ipynb --in-place  # committed outputs
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
from nbformat import NotebookNode

from backstage.files import small_png
from backstage.publish.notebooks import figures, finish, save
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
            rest = BAR.sub("", content["text"])
            if rest != content["text"] or not rest.strip():
                print(content["text"], end="", file=sys.stderr, flush=True)
            if not rest.strip():
                return None
            content["text"] = rest
        return super().process_message(msg, cell, cell_index)


def execute(path: Path) -> NotebookNode:
    """The notebook executed in a fresh kernel, in its own folder; figures with a palette."""
    notebook = nbformat.read(path, as_version=4)
    os.environ["PROGRESS"] = "text"
    start = time.perf_counter()
    place = {"metadata": {"path": str(path.parent)}}
    # Printed text comes in pieces that differ from run to run: they are joined.
    how = {"timeout": None, "coalesce_streams": True, "record_timing": False}
    LiveClient(notebook, resources=place, extra_arguments=QUIET, **how).execute()
    print(f"{path}: done in {time.perf_counter() - start:.0f} s")
    for figure in (f for cell in notebook.cells for f in figures(cell)):
        png = small_png(base64.b64decode(figure.data["image/png"]))
        figure.data["image/png"] = base64.b64encode(png).decode()
    finish(notebook)
    return notebook


def leave(notebook: NotebookNode, name: str, folder: Path) -> None:
    """Leaves ``name``.ipynb, ``name``.html and the figures in the folder, and prints the table."""
    pictures = folder / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    save(notebook, folder / f"{name}.ipynb")
    (folder / f"{name}.html").write_text(page(notebook, name), encoding="utf-8")
    found = [f for cell in notebook.cells for f in figures(cell)]
    for i, figure in enumerate(found, start=1):
        png = base64.b64decode(figure.data["image/png"])
        (pictures / f"{name}-{i:02}.png").write_bytes(png)
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
    where.add_argument("--in-place", action="store_true", help="replace the notebook")
    arguments = parser.parse_args()
    for path in arguments.notebooks:
        try:
            notebook = execute(path)
        except CellExecutionError as error:
            print(f"\n{path} stopped with an error, and is as it was:\n{error}", file=sys.stderr)
            return 1
        if arguments.in_place:
            save(notebook, path)
        else:
            leave(notebook, path.stem, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
