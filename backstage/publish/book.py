"""The course as a website, with search, that needs no network: build/book/index.html.

    python -m backstage.publish.book     # or: make book

Lays out notebooks, pictures and texts as they stand in the repository, and has Sphinx with MyST-NB
build them. Nothing is executed, and nothing downloaded.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat

from backstage.publish.alt_text import figures
from backstage.publish.contents import ROOT, Entry, contents, further, paths

COPIED = ("README.md", "CONTRIBUTING.md", "LICENSE", "normalization_demo.xlsx")


def place_notebook(path: Path, source: Path, root: Path = ROOT) -> None:
    """Copies it, with its figures' texts where MyST-NB looks for them, and its tables' links."""
    notebook = nbformat.read(root / path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):  # Sphinx follows links in texts, not in outputs
            data = output.get("data", {})
            if "text/markdown" in data:
                data["text/markdown"] = data["text/markdown"].replace(".ipynb)", ".html)")
        if found := figures(cell):
            alt = found[0].metadata.get("image/png", {}).get("alt", "")
            cell.metadata["mystnb"] = {"image": {"alt": alt}}
    (source / path).parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, source / path)


def toctree(entries: Sequence[Entry]) -> str:
    return "\n".join(entry.path.with_suffix("").as_posix() for entry in entries)


def lay_out(source: Path, root: Path = ROOT) -> None:
    """All that Sphinx reads, in an empty folder."""
    shutil.rmtree(source, ignore_errors=True)
    (source / "static").mkdir(parents=True)
    for name in COPIED:
        shutil.copy(root / name, source)
    shutil.copytree(root / "docs", source / "docs")
    shutil.copy(root / "docs" / "conf.py", source)
    shutil.copy(root / "docs" / "book.css", source / "static")
    for path in paths(root):
        place_notebook(path, source, root)
    index = (root / "docs" / "index.md").read_text(encoding="utf-8")
    index = index.replace("{notebooks}", toctree(contents(root)))
    index = index.replace("{further}", toctree(further(root)))
    (source / "index.md").write_text(index, encoding="utf-8")


def main(root: Path = ROOT) -> int:
    source, built = root / "build" / "book-source", root / "build" / "book"
    lay_out(source, root)
    shutil.rmtree(built, ignore_errors=True)
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-d", source / "doctrees"]
    status = subprocess.run([*sphinx, source, built], cwd=root).returncode
    if not status:
        print(f"The book: {built / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
