"""What a notebook needs before its first line; its set-up cell runs this, once it has found it.

The packages that the notebooks import are the first part of ``requirements.txt``. Those that are
missing are installed; what is there, Colab's own PyTorch above all, stays as it is.
"""

from __future__ import annotations  # an old Python should read as far as check_python

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

OLDEST_PYTHON = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements.txt"
END = "# ---"  # begins the line after the notebooks' part


def begin() -> None:
    """Installs what is missing, and makes ``import utils`` find the course's own.

    A learner's file of the same name may have been imported already in this kernel.
    """
    install_what_is_missing()
    sys.path.insert(0, str(ROOT))
    for name in ("utils", "s6_model", "backstage"):
        module = sys.modules.get(name)
        folder = Path(getattr(module, "__file__", None) or "").parent
        if module and folder not in (ROOT, ROOT / name):
            print(f"{name}: the course's, in place of {module.__file__}")
            del sys.modules[name]
    if os.environ.get("SMOKE_TEST") == "1":
        from IPython import get_ipython

        if shell := get_ipython():
            shell.ast_transformers.append(ShortLoops())


class ShortLoops(ast.NodeTransformer):
    """Ends each training loop of a lesson's cells after 10 steps: a test asks if they run."""

    def visit_For(self, node: ast.For) -> ast.For:
        self.generic_visit(node)
        loops = [part for part in ast.walk(node) if isinstance(part, ast.For) and trains(part)]
        if loops == [node]:  # and none within it
            short = ast.parse("__import__('itertools').islice(0, 10)", mode="eval").body
            short.args[0] = node.iter
            node.iter = ast.copy_location(short, node.iter)
        return ast.fix_missing_locations(node)


def trains(loop: ast.For) -> bool:
    return any(getattr(part, "attr", "") == "backward" for part in ast.walk(loop))


def check_python() -> None:
    """Raises SystemExit, with a sentence, where Python is too old."""
    if sys.version_info < OLDEST_PYTHON:
        found, oldest = (".".join(map(str, v[:2])) for v in (sys.version_info, OLDEST_PYTHON))
        raise SystemExit(f"This is Python {found}: the course needs {oldest} or later.")


def needed(text: str) -> list[str]:
    """The notebooks' part of a file of requirements, as in ["torch>=2.5", …]."""
    lines = text.partition(END)[0].splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def is_here(requirement: str) -> bool:
    try:
        return bool(version(re.match(r"[\w.-]+", requirement)[0]))
    except PackageNotFoundError:
        return False


def install_what_is_missing(requirements: Path = REQUIREMENTS) -> None:
    check_python()
    wanted = needed(requirements.read_text(encoding="utf-8"))
    if missing := [r for r in wanted if not is_here(r)]:
        print("Installing", ", ".join(missing), flush=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", *missing]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    begin()
