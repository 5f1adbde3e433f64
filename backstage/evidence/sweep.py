"""Does what is missing of a grid: many runs, side by side, each a row of its results.

    python -m backstage.evidence.sweep list
    python -m backstage.evidence.sweep run replicate --seeds 10 --jobs 2
    python -m backstage.evidence.sweep status

Runs go to one process per core with one thread each, which for a network this small gets more done
than one run on all cores. Started again, a sweep does what is missing; killed at any moment, it
leaves every finished row, once.

Seeds are paired: a seed gives all settings of a grid the same initial weights, where they share
them, and the same batches, where they share the batch size.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock

from backstage.evidence.grids import GRIDS, EvidenceError, Task, sweep_data, tasks
from backstage.evidence.results import (
    RESULTS,
    VERSIONS,
    Rows,
    append_row,
    make_row,
    read_rows,
    shown,
    why_stale,
    write_rows,
)
from backstage.machinery.parallel import side_by_side
from backstage.machinery.progress import make_bar


def missing(rows: Rows, wanted: Sequence[Task], retry_failed: bool = False) -> list[Task]:
    """The tasks without a row that counts."""

    def counts(row: dict | None, data: str) -> bool:
        if row is None or why_stale(row, data):
            return False
        return row["status"] == "ok" or not retry_failed

    return [t for t in wanted if not counts(rows.get(t.slot), t.data)]


@contextlib.contextmanager
def only_writer(folder: Path, name: str) -> Iterator[Path]:
    """The path of the grid's results, which no other sweep writes to meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        lock = filelock.FileLock(folder / f".{name}.lock")  # let go by the system, even on kill -9
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise EvidenceError(
            f"Another sweep of {name!r} is running: wait for it, or stop it."
        ) from error
    except OSError as error:
        raise EvidenceError(
            f"Results cannot be written to {shown(folder)} ({error.strerror}): choose another "
            f"folder with --results."
        ) from error
    with lock:
        yield folder / f"{name}.jsonl"


def row_or_interrupted(task: Task) -> dict | None:
    """In a worker: the task's row, or None if it was asked to stop."""
    try:
        return make_row(task)
    except KeyboardInterrupt:
        return None


def run_sweep(
    name: str,
    seeds: int | None = None,
    jobs: int = 2,
    dask: str | None = None,
    retry_failed: bool = False,
    folder: Path = RESULTS,
    data: str = "mnist",
) -> None:
    """Runs what is missing of a grid. Stale rows count as missing and stay until they are replaced.

    Args:
        name: of the grid.
        seeds: 0 to seeds - 1; by default as many as the grid asks for.
        jobs: processes at a time.
        dask: address of a scheduler, whose workers take the processes' place.
        retry_failed: also run what failed before.
        folder: of the results, ``<name>.jsonl``.
        data: ``"mnist"``, or ``"digits"`` for trying out.

    Raises:
        EvidenceError: when it cannot start or go on; every finished row is kept.
        DataError: when MNIST cannot be had.
        RuntimeError: when workers are lost or the cluster cannot be used.
    """
    wanted = tasks(name, seeds, data)
    if jobs < 1:
        raise EvidenceError(f"{jobs} jobs: use a whole number from 1 up.")
    with only_writer(folder, name) as path:
        rows = read_rows(path, name)
        todo = missing(rows, wanted, retry_failed)
        if not todo:
            return
        sweep_data(data, GRIDS[name].images)  # fails, or downloads, once and before the runs
        try:
            write_rows(path, rows.values())  # without half a line, or lines that were replaced
            with path.open("a", encoding="utf-8") as file:
                for row in finished(todo, jobs, dask, len(wanted)):
                    append_row(file, row)
                    rows |= {(row["setting"], row["seed"]): row}
            write_rows(path, rows.values())
        except OSError as error:
            raise EvidenceError(
                f"{shown(path)} could not be written ({error.strerror}): make room and start "
                f"again; it still has the rows before."
            ) from error


def finished(todo: list[Task], jobs: int, dask: str | None, total: int) -> Iterator[dict]:
    """The tasks' rows, each as soon as it is there, and a bar."""
    bar = make_bar(todo[0].grid, total, total - len(todo), unit="run")
    results = side_by_side(row_or_interrupted, todo, jobs, dask)
    with bar, contextlib.closing(results):
        try:
            for position, row in results:
                if row is None:
                    continue
                if reason := why_stale(row, todo[position].data):
                    raise EvidenceError(f"The workers have other code ({reason}): update them.")
                yield row
                bar.update()
        except ImportError as error:
            if dask is None:
                raise
            raise EvidenceError(
                f"The workers at {dask} cannot import this repository ({error}): start them, and "
                f"the scheduler, with its folder in PYTHONPATH."
            ) from error


# ----------------------------------------------------------------------------- the command line


def count(name: str, seeds: int | None, folder: Path, data: str) -> tuple[Counter, Rows]:
    """How many runs are wanted, there, missing, failed and stale; and the rows."""
    wanted, rows = tasks(name, seeds, data), read_rows(folder / f"{name}.jsonl", name)
    stale = {slot for slot, row in rows.items() if why_stale(row, data)}
    counts = Counter(r["status"] for slot, r in rows.items() if slot not in stale)
    counts |= {"runs": len(wanted), "stale": len(stale), "missing": len(missing(rows, wanted))}
    return counts, rows


def show_list(**where) -> None:
    columns = ("runs", "ok", "failed", "stale", "missing")
    width = max(map(len, GRIDS)) + 1
    print(f"{'grid':<{width}}" + "".join(f"{column:>9}" for column in columns))
    for name, grid in GRIDS.items():
        counts, _ = count(name, **where)
        numbers = "".join(f"{counts[c]:>9}" for c in columns)
        print(f"{name:<{width}}{numbers}  {grid.question}")


def show_status(**where) -> None:
    for name in GRIDS:
        counts, rows = count(name, **where)
        done = counts["runs"] - counts["missing"]
        hours = sum(row["seconds"] for row in rows.values()) / 3600
        print(f"{name}: {done} of {counts['runs']} runs, {hours:.1f} hours of one core")
        for row in rows.values():
            run = f"  {row['setting']}, seed {row['seed']}"
            if reason := why_stale(row, where["data"]):
                print(f"{run} is stale: {reason}")
            elif row["status"] == "failed":
                print(f"{run} failed: {row['reason']}")
        used = {" ".join(row.get(column, "?") for column in VERSIONS) for row in rows.values()}
        print("".join(f"  made with ({', '.join(VERSIONS)}): {u}\n" for u in sorted(used)), end="")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--seeds", type=int, help="how many, from 0 up (default: the grid's own)")
    shared.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    shared.add_argument("--data", choices=("mnist", "digits"), default="mnist")
    parser = argparse.ArgumentParser(
        prog="python -m backstage.evidence.sweep", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", parents=[shared], help="the grids and how much of them is there")
    commands.add_parser("status", parents=[shared], help="the same, stale and failed rows by name")
    run = commands.add_parser("run", parents=[shared], help="run what is missing of a grid")
    run.add_argument("name", help=f"one of {', '.join(GRIDS)}")
    run.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    run.add_argument("--dask", metavar="ADDRESS", help="of a Dask scheduler, tcp://host:8786")
    run.add_argument("--retry-failed", action="store_true", help="also what failed before")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, also where runs failed and are rows; 2 with a sentence; 130 interrupted."""
    asked = parse(arguments)
    where = {"seeds": asked.seeds, "folder": asked.results, "data": asked.data}
    try:
        if asked.command == "list":
            show_list(**where)
        elif asked.command == "status":
            show_status(**where)
        else:
            how = {"jobs": asked.jobs, "dask": asked.dask, "retry_failed": asked.retry_failed}
            run_sweep(asked.name, **how, **where)
            counts, _ = count(asked.name, **where)
            print(f"{asked.name}: {counts['ok']} rows, {counts['failed']} failed.")
    except RuntimeError as error:  # the evidence's, the data's or the workers'
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted: every finished run is kept; start again to continue.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
