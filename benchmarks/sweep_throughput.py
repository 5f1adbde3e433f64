"""Runs per hour of a sweep on 2 processes of 1 thread, against one run after another on 2 threads.

    MNIST_ROOT=... python benchmarks/sweep_throughput.py [--repeats 3] [--runs 8]

Both ways do the same runs, in turn, so that a machine that slows down does so for both: the arms of
the grid "replicate" in order, shortened to one epoch on 10,000 images. The processes are started
before the clock; in a sweep of hours they are started once.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import joblib
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sweep

CORES = 2


def short_runs(count: int) -> list[sweep.Task]:
    arms = sweep.tasks("replicate", seeds=-(-count // len(sweep.GRIDS["replicate"].settings)))
    return [
        dataclasses.replace(
            arm, experiment=dataclasses.replace(arm.experiment, epochs=1), images=10_000
        )
        for arm in arms[:count]
    ]


def one_after_another(runs: Sequence[sweep.Task]) -> None:
    os.environ["PROGRESS"] = "none"
    torch.set_num_threads(CORES)
    for run in runs:
        data = sweep.sweep_data(run.data, run.images)
        sweep.figures(sweep.fit(run.experiment, data, device="cpu"), data, test_bn=False)


def side_by_side(runs: Sequence[sweep.Task]) -> None:
    rows = list(sweep.results_of(runs, jobs=CORES, dask=None))
    failed = [row["reason"] for row in rows if row["status"] != "ok"]
    if failed:
        raise SystemExit(failed[0])


def seconds(way, runs: Sequence[sweep.Task]) -> float:
    start = time.perf_counter()
    way(runs)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--runs", type=int, default=8, help="even, so that both processes work")
    arguments = parser.parse_args()
    runs = short_runs(arguments.runs)
    sweep.sweep_data("mnist", 10_000)
    side_by_side(runs[: 2 * CORES])
    one_after_another(runs[:1])

    print(f"torch {torch.__version__}, {joblib.cpu_count()} cores, {len(runs)} runs of 1 epoch")
    pairs = []
    for _ in range(arguments.repeats):
        pair = seconds(one_after_another, runs), seconds(side_by_side, runs)
        pairs.append(pair)
        print(
            f"2 threads, in turn {pair[0]:6.1f} s   2 processes {pair[1]:6.1f} s   "
            f"{pair[0] / pair[1]:.2f}x",
            flush=True,
        )
    hourly = [3600 * len(runs) / statistics.median(way) for way in zip(*pairs, strict=True)]
    print(f"Runs per hour, medians of {len(pairs)}: {hourly[0]:.0f} and {hourly[1]:.0f}:")
    print(f"{hourly[1] / hourly[0]:.2f}x")


if __name__ == "__main__":
    main()
