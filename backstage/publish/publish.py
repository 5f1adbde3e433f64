"""What every notebook has alike, and where the course is published.

    python -m backstage.publish.publish  # the clone's origin, if on GitHub
    python -m backstage.publish.publish https://github.com/OWNER/NAME  # this address

Writes the set-up cell of every notebook, the README's table of them and, once there is an address,
their "Open in Colab" badges and the default of ``REPOSITORY``. Marks folded cells for each reader,
and gives every figure a text for those who cannot see it. Outputs are left as they are.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat

from backstage.files import replace_part, replacing
from backstage.publish.alt_text import describe
from backstage.publish.contents import ROOT, badge, paths, table
from backstage.publish.folding import fold

SET_UP = """\
# @title Set-up { display-mode: "form" }
REPOSITORY = ""  # @param {type:"string"}
import os, re, sys, urllib.parse
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents, Path("normalization-lesson").resolve()]
root = next((f for f in folders if (f / "s6_model.py").exists()), folders[-1])
if not root.exists():  # the notebook is alone, as in Colab, which says where it is from
    told = !curl -s -m 5 "http://$COLAB_JUPYTER_IP:$KMP_TARGET_PORT/api/sessions"
    found = re.findall(r"https://github\\.com/[\\w.-]+/[\\w.-]+", urllib.parse.unquote(str(told)))
    !git clone -q --depth 1 "{[*found, REPOSITORY][0]}" "{root}"
assert root.exists(), "This notebook is alone: fill in REPOSITORY and run this cell again."
sys.path.insert(0, str(root))
from backstage import setup

setup.install_what_is_missing()
SMOKE_TEST = os.environ.get("SMOKE_TEST") == "1"  # the short setting, for tests"""
REPOSITORY = re.compile(r'REPOSITORY = ".*?"')
BADGE = re.compile(r"\n\n\[!\[Open in Colab\].*")


def address_of(text: str) -> str | None:
    """As in "https://github.com/OWNER/NAME"; None for what is not a repository on GitHub."""
    found = re.fullmatch(
        r"(?:https://|ssh://git@|git@)github\.com[:/]([\w.-]+)/([\w.-]+?)(?:\.git)?/?", text
    )
    return found and f"https://github.com/{found[1]}/{found[2]}"


def origin(folder: Path = ROOT) -> str:
    """The address that the clone is from, or ""."""
    command = ["git", "remote", "get-url", "origin"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout.strip()


def set_up(address: str | None = None) -> str:
    """The source of the set-up cell."""
    return REPOSITORY.sub(f'REPOSITORY = "{address or ""}"', SET_UP)


def write(path: Path, address: str | None, branch: str, root: Path) -> None:
    """Set-up cell, badge under the title, folded cells' marks and figures' texts, in one."""
    notebook = nbformat.read(root / path, as_version=4)
    title = notebook.cells[0]
    title.source = BADGE.sub("", title.source)
    if address:
        heading, _, rest = title.source.partition("\n")
        title.source = f"{heading}\n\n{badge(address, branch, path)}\n{rest}"
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.source = set_up(address)
    cell.metadata["tags"] = sorted({*cell.metadata.get("tags", []), "hide-input"})
    fold(notebook)
    describe(notebook)
    with replacing(root / path, "w", encoding="utf-8") as file:
        file.write(nbformat.writes(notebook).rstrip() + "\n")


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m backstage.publish.publish", description=__doc__.splitlines()[0]
    )
    parser.add_argument("address", nargs="?", help="as in https://github.com/OWNER/NAME")
    parser.add_argument("--branch", default="main", help="that Colab shows (main)")
    asked = parser.parse_args(arguments)
    given = asked.address or origin(root)
    address = address_of(given)
    if asked.address and not address:
        parser.error(f"{given} is no address like https://github.com/OWNER/NAME.")
    for path in paths(root):
        write(path, address, asked.branch, root)
    replace_part("notebooks", table(address, asked.branch, root), root / "README.md")
    where = f"They point to {address}." if address else "They point nowhere: no address is known."
    print(f"Wrote {len(paths(root))} notebooks. {where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
