"""Brings all that depends on the notebooks up to date.

    python -m backstage.publish                                # the clone's origin, if on GitHub
    python -m backstage.publish https://github.com/OWNER/NAME  # this address

Writes the set-up cell and, once there is an address, a badge "Open in Colab" into every lesson;
marks folded cells; gives figures a text; and copies tagged outputs into README.md and docs/.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from backstage.files import replace_part
from backstage.publish.copies import copy
from backstage.publish.notebooks import ROOT, badge, paths, publish

# https, http, ssh, git@, www, a token before the @; then OWNER/NAME, and what a browser adds.
ADDRESS = re.compile(
    r"(?:(?:https?|ssh|git)://)?(?:[^@/\s]+@)?(?:www\.)?github\.com(?::\d+/|[:/])"
    r"(?P<owner>[a-z\d](?:[a-z\d-]*[a-z\d])?)/(?P<name>(?!\.{1,2}(?:/|$)|\.git(?:/|$))[\w.-]+?)"
    r"(?:\.git)?(?:/(?:tree|blob)/\S*)?/?",
    re.IGNORECASE,
)
UPLOAD = (
    "In Colab: *File → Open notebook → GitHub*, and paste this repository's address, there and in "
    "the cell *Set-up*."
)


def address_of(text: str) -> str:
    """As in "https://github.com/OWNER/NAME", without a token; "" for what is not a repository."""
    found = ADDRESS.fullmatch(text.strip())
    return f"https://github.com/{found['owner']}/{found['name']}" if found else ""


def origin(root: Path = ROOT) -> str:
    """The address that the clone is from, or ""."""
    command = ["git", "remote", "get-url", "origin"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True).stdout.strip()


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m backstage.publish", description=__doc__.splitlines()[0]
    )
    parser.add_argument("address", nargs="?", help="as in https://github.com/OWNER/NAME")
    parser.add_argument("--branch", default="main", help="that Colab shows (main)")
    asked = parser.parse_args(arguments)
    address = address_of(asked.address or origin(root))
    if asked.address and not address:
        parser.error(f"{asked.address} is no address like https://github.com/OWNER/NAME.")
    lessons = [publish(path, address, asked.branch) for path in paths(root)]
    button = badge(address, asked.branch, paths(root)[0].stem) if address else UPLOAD
    replace_part("button", button, root / "README.md")
    filled = copy(lessons, root)
    where = f"They point to {address}." if address else "They point nowhere: no address is known."
    print(f"{len(lessons)} lessons. {where} Copied: {', '.join(filled) or 'nothing'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
