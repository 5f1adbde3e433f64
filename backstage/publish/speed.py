"""The README's numbers on speed and memory, measured side by side in one run.

    MNIST_ROOT=... python -m backstage.publish.speed [--repeats 3]

1. Seconds per epoch, training and test, of each experiment on 2 threads, in turn with an epoch of
   the usual way, so that a machine that slows down does so for both.
2. The three experiments for all their epochs, side by side as the lesson trains them, against as
   many epochs of the usual way.
3. Runs of one epoch on 2 processes of one thread, as a sweep does them, against one after another
   on 2 threads. The start of the processes counts, though a sweep of hours starts them once.
4. The peak memory of ``make lesson``, all of its processes together (Linux): the proportional set
   size, which counts a page that n processes share as 1/n for each.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import psutil
import torch

import utils
from backstage.machinery.parallel import side_by_side
from backstage.machinery.progress import quiet
from backstage.publish.usual_way import Usual

CORES = 2


def seconds(function: Callable, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def in_turn(repeats: int, one: Callable[[], float], other: Callable[[], float]) -> list[tuple]:
    """Pairs of seconds, measured one, other, one, other, …"""
    return [(one(), other()) for _ in range(repeats)]


def ratios(pairs: list[tuple]) -> str:
    medians = [median(side) for side in zip(*pairs, strict=True)]
    each = ", ".join(f"{a / b:.2f}" for a, b in pairs)
    return (
        f"{medians[0]:.1f} s / {medians[1]:.1f} s = {medians[0] / medians[1]:.2f} (by run {each})"
    )


def second_epoch(experiment: utils.Experiment, data: utils.Data) -> float:
    """The first pays for what is set up once."""
    return utils.fit(replace(experiment, epochs=2, plain_epochs=0), data).history["seconds"][1]


def per_epoch(data: utils.Data, repeats: int) -> float:
    """Prints the ratio; gives the usual way's seconds for one epoch of all three."""
    root = os.environ.get("MNIST_ROOT", utils.REPOSITORY / "data")
    usual = {e: Usual(e, root) for e in utils.THREE_EXPERIMENTS}
    sums = in_turn(
        repeats,
        lambda: sum(seconds(one.epoch) for one in usual.values()),
        lambda: sum(second_epoch(e, data) for e in usual),
    )
    print(f"an epoch of all three, usual way / lesson: {ratios(sums)}", flush=True)
    return median(theirs for theirs, _ in sums)


def for_all_epochs(data: utils.Data, usual_epoch: float) -> None:
    epochs = utils.THREE_EXPERIMENTS[0].epochs
    ours = seconds(utils.fit_together, utils.THREE_EXPERIMENTS, data)
    ratio = epochs * usual_epoch / ours
    print(
        f"{epochs} epochs of all three, usual way / lesson: {ratio:.1f} ({ours:.0f} s)", flush=True
    )


def short_run(seed: int) -> None:
    with quiet():
        utils.fit(utils.Experiment(epochs=1, seed=seed), utils.load_data(), device="cpu")


def runs_per_hour(repeats: int, runs: int = 12) -> None:
    def one_after_another():
        for seed in range(runs):
            short_run(seed)

    pairs = in_turn(
        repeats,
        lambda: seconds(one_after_another),
        lambda: seconds(list, side_by_side(short_run, range(runs), CORES)),
    )
    print(f"{runs} runs of one epoch, 2 threads / 2 processes: {ratios(pairs)}", flush=True)


def held(process: psutil.Process) -> int:
    """Bytes of the process and all that it started."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += one.memory_full_info().pss
    return total


def peak_memory() -> None:
    peak = 0
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "backstage.publish.run_notebook",
            "notebooks/Session6_1.ipynb",
        ]
        environment = {**os.environ, "CHECKPOINTS": str(Path(folder) / "checkpoints")}
        lesson = subprocess.Popen(
            [*command, "--out", folder],
            cwd=utils.REPOSITORY,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while lesson.poll() is None:
            peak = max(peak, held(psutil.Process(lesson.pid)))
            time.sleep(0.5)
    if lesson.returncode:
        raise SystemExit("The lesson stopped with an error.")
    print(f"peak memory of the lesson: {peak / 1e9:.2f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("memory", "speed"), help="one of the two halves")
    arguments = parser.parse_args()
    data = utils.load_data()
    if data.name != "MNIST":
        parser.error("this needs MNIST: set MNIST_ROOT.")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
    if arguments.only != "memory":
        with quiet():
            for_all_epochs(data, per_epoch(data, arguments.repeats))
            runs_per_hour(arguments.repeats)
    del data  # the lesson's processes would share its pages
    if arguments.only != "speed":
        peak_memory()


if __name__ == "__main__":
    main()
