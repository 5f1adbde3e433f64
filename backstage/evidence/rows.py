"""The stored runs: results/<grid>.jsonl has a line of JSON for each."""

import io
import sys
from pathlib import Path

import pandas as pd

from utils import REPOSITORY

RESULTS = REPOSITORY / "results"


def whole_lines(path: Path) -> str:
    """The file's text, without a last line that was cut off while it was being written."""
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        print(f"{path.name} ends in half a line, which is left out.", file=sys.stderr)
    return whole


def read(path: Path) -> pd.DataFrame:
    """All rows of the file, in its order; a column is missing only where no row has it."""
    return pd.read_json(io.StringIO(whole_lines(path)), lines=True, precise_float=True)


def load(name: str, folder: Path = RESULTS) -> pd.DataFrame:
    """The runs of a grid, a row for each, seed by seed; those that failed are left out.

    A row has its setting's own columns (``norm``, ``lr``, ``batch_size`` ...), ``seed``, and what
    was measured. Paired runs stand side by side in
    ``load("replicate").pivot(index="seed", columns=["norm", "l1", "l2"], values="test_accuracy")``.

    Args:
        name: of the grid, as ``python -m backstage.evidence list`` shows it.
        folder: where its rows are.
    """
    rows = read(folder / f"{name}.jsonl")
    return rows[rows["status"] == "ok"].sort_values("seed", kind="stable", ignore_index=True)
