"""The sweeps' rows: made by one run each, stored as lines of JSON, read as a table.

``results/<grid>.jsonl`` has an object per run. Rows are appended and on disk before the next one is
waited for; where a setting and seed come twice, the later line counts.
"""

import dataclasses
import functools
import json
import os
import platform
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO
from unittest.mock import patch

import pandas as pd
import torch
import torchvision

from backstage.evidence.grids import GRIDS, EvidenceError, Task, grid_named, sweep_data
from backstage.evidence.sweep import processor
from backstage.files import replacing
from utils import REPOSITORY

RESULTS = REPOSITORY / "results"

Rows = dict[tuple[str, int], dict]  # by setting and seed

# What the last bits of a result can depend on, besides the settings.
VERSIONS = ("python", "torch", "torchvision", "cpu", "processor")


@functools.cache
def versions() -> dict[str, str]:
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    found = (platform.python_version(), torch.__version__, torchvision.__version__, cpu)
    return dict(zip(VERSIONS, (*found, processor()), strict=True))


# ------------------------------------------------------------------------------------- one row


def identity(task: Task) -> dict:
    """The part of a row that is known beforehand; a stored row that differs in it is stale."""
    grid = GRIDS[task.grid]
    setting = dataclasses.asdict(grid.settings[task.setting]) | {"seed": task.seed}
    known = {"grid": task.grid, "setting": task.setting, "recipe": grid.recipe, "data": task.data}
    known |= {"images": grid.images, **setting}  # some settings take fewer images themselves
    return json.loads(json.dumps(known))  # as it is read back


def make_row(task: Task) -> dict:
    """Does one run; if it fails, its row has the reason. An interrupt is raised."""
    row = identity(task)
    threads, start = torch.get_num_threads(), time.perf_counter()
    torch.set_num_threads(1)  # as in a sweep
    try:
        data = sweep_data(task.data, GRIDS[task.grid].images)
        row |= {"train_images": len(data.train), "test_images": len(data.test)}
        row |= {"fingerprint": data.fingerprint(), "status": "ok"}
        grid = GRIDS[task.grid]
        with patch.dict(os.environ, {"PROGRESS": "none"}):  # no bar
            measured = grid.measure(grid.settings[task.setting], task.seed, data)
    except Exception as error:  # whatever it is, it is this run's; the others go on
        measured = {}
        row |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    finally:
        torch.set_num_threads(threads)
    return row | {"seconds": round(time.perf_counter() - start, 2)} | versions() | measured


def why_stale(row: dict, data: str = "mnist") -> str:
    """How the row was made differently from how it would be made today; empty if it was not."""
    grid = GRIDS.get(row["grid"])
    if grid is None or row["setting"] not in grid.settings:
        return "no longer in the grid"
    today = identity(Task(row["grid"], row["setting"], row["seed"], data))
    changed = [f"{c} {row.get(c)}, not {v}" for c, v in today.items() if row.get(c) != v]
    return ", ".join(changed)


# ------------------------------------------------------------------------------------ the file


def shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)


def read_rows(path: Path, name: str) -> Rows:
    """The rows of a file; none where there is no file. Half a last line is left out, and said so.

    Raises:
        EvidenceError: where the file does not have this grid's rows or is damaged. It is left as
            it is.
    """
    if not path.exists():
        return {}
    rows = {}
    try:
        *lines, last = path.read_text(encoding="utf-8").split("\n")
        for line in lines:
            row = json.loads(line)
            if row["grid"] != name or row["status"] not in ("ok", "failed"):
                raise ValueError("a row is not one of this grid's")
            rows[row["setting"], int(row["seed"])] = row
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvidenceError(
            f"{shown(path)} is damaged or has no rows of the grid {name!r} ({error}): move it "
            f"away, or bring back the version before."
        ) from error
    if last:
        print(f"{shown(path)} ends in half a row, which is left out.", file=sys.stderr)
    return rows


def append_row(file: IO, row: dict) -> None:
    """Writes a row to the end of the file, where it survives whatever comes next."""
    file.write(json.dumps(row) + "\n")
    file.flush()
    os.fsync(file.fileno())


def write_rows(path: Path, rows: Iterable[dict]) -> None:
    """The whole file anew."""
    with replacing(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


# -------------------------------------------------------------------------------- for notebooks


def load_results(name: str, folder: Path = RESULTS, data: str = "mnist") -> pd.DataFrame:
    """A grid's finished rows, in the order of its settings and seeds.

    ``load_results("replicate").pivot(index="seed", columns="setting", values="test_accuracy")`` has
    the paired runs side by side. A sentence tells you if failed or stale rows are left out.

    Raises:
        EvidenceError: for an unknown grid, a missing or damaged file, or one without such rows.
    """
    order = list(grid_named(name).settings)
    path = folder / f"{name}.jsonl"
    rows = read_rows(path, name)
    kept = [r for r in rows.values() if r["status"] == "ok" and not why_stale(r, data)]
    if not kept:
        raise EvidenceError(
            f"{shown(path)} has no rows: python -m backstage.evidence.sweep run {name} makes them."
        )
    if len(kept) < len(rows):
        print(f"{len(rows) - len(kept)} failed or stale rows of {shown(path)} are left out.")
    return pd.DataFrame(sorted(kept, key=lambda r: (order.index(r["setting"]), r["seed"])))


def rerun(
    name: str, setting: str, seed: int = 0, folder: Path = RESULTS, data: str = "mnist"
) -> tuple[pd.Series, pd.Series]:
    """One row as it is stored and as it comes out here and now.

    Raises:
        EvidenceError: as ``load_results``, and where there is no such row.
    """
    table = load_results(name, folder, data)
    found = table[(table["setting"] == setting) & (table["seed"] == seed)]
    if found.empty:
        raise EvidenceError(f"The grid {name!r} has no row for {setting!r} with seed {seed}.")
    return found.iloc[0], pd.Series(make_row(Task(name, setting, seed, data)))


def differences(stored: pd.Series, fresh: pd.Series) -> dict[str, tuple]:
    """What was measured and differs between two rows, as (stored, fresh); empty if bit-identical.

    On the same kind of processor with the same versions (``stored[list(VERSIONS)]``), it should be
    empty. Columns of seconds are never compared.
    """
    both = pd.DataFrame([stored, fresh])
    columns = [c for c in both if c not in {*VERSIONS, "status"} and not c.endswith("seconds")]
    pairs = {c: tuple(both[c]) for c in columns}
    return {c: pair for c, pair in pairs.items() if repr(pair[0]) != repr(pair[1])}
