"""The stored runs: python -m backstage.evidence [list | run GRID]."""

import argparse
import os
import sys
from pathlib import Path

import pandas as pd

from backstage.evidence import sweep
from backstage.evidence.grids import GRIDS, Grid
from backstage.evidence.rows import RESULTS, read


def row_of(name: str, grid: Grid, folder: Path) -> dict:
    """How much of a grid is there, in how many hours of one core, and on which processor."""
    path = folder / f"{name}.jsonl"
    rows = read(path) if path.exists() else pd.DataFrame()
    wanted = grid.seeds * len(grid.settings)
    found = {"grid": name, "runs": f"{len(sweep.done(path))} of {wanted}"}
    if len(rows):
        found |= {
            "hours": f"{rows['seconds'].sum() / 3600:.1f}",
            "processor": "; ".join(sorted(rows["processor"].unique())),
        }
    return found | {"measure": grid.measure.__module__.rpartition(".")[2]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m backstage.evidence", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the rows")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the grids, and how much of them is there")
    run = commands.add_parser("run", help="run what is missing of a grid")
    run.add_argument("grid", choices=GRIDS, metavar="GRID")
    run.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    run.add_argument("--scheduler", help="address of a Dask scheduler, tcp://host:8786")
    asked = parser.parse_args()
    if asked.command == "list":
        rows = [row_of(name, grid, asked.results) for name, grid in GRIDS.items()]
        print(pd.DataFrame(rows).fillna("").to_string(index=False))
        return 0
    try:
        grid = GRIDS[asked.grid]
        sweep.run(asked.grid, grid, asked.jobs, asked.scheduler, asked.results)
    except (RuntimeError, OSError) as error:
        print(f"{error}\nEvery finished run is kept: start again to go on.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
