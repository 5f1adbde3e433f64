"""Seconds per epoch and to the end, against the usual way, side by side in one run.

    MNIST_ROOT=... python benchmarks/speed.py [--repeats 3] [--workers 0]

Each repeat times one epoch (training and test) of every experiment both ways, in turn, so that a
machine that slows down does so for both. Then the three experiments are trained to their end, side
by side as in the lesson, and that time is held against 20 epochs of the usual way (20 times its
median epoch).
"""

import argparse
import dataclasses
import os
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils
from benchmarks.usual_way import Usual


def one_epoch(experiment: utils.Experiment, data: utils.Data) -> float:
    """Seconds of the lesson's second epoch; the first pays for what is set up once."""
    two = dataclasses.replace(experiment, epochs=2, plain_epochs=0)
    return utils.fit(two, data).history["seconds"][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0, help="of the usual way's DataLoader")
    arguments = parser.parse_args()
    os.environ["PROGRESS"] = "none"
    data = utils.load_data()
    if data.name != "MNIST":
        parser.error("this benchmark needs MNIST: set MNIST_ROOT.")
    root = os.environ.get("MNIST_ROOT", utils.REPOSITORY / "data")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)

    usual = {e.label: Usual(e, root, arguments.workers) for e in utils.THREE_EXPERIMENTS}
    seconds = {e.label: ([], []) for e in utils.THREE_EXPERIMENTS}
    for _ in range(arguments.repeats):
        for e in utils.THREE_EXPERIMENTS:
            start = time.perf_counter()
            usual[e.label].epoch()
            theirs = time.perf_counter() - start
            ours = one_epoch(e, data)
            seconds[e.label][0].append(theirs)
            seconds[e.label][1].append(ours)
            print(f"{e.label:<13} {theirs:6.2f} s {ours:6.2f} s {theirs / ours:5.1f}x", flush=True)

    sums = [sum(statistics.median(s[i]) for s in seconds.values()) for i in (0, 1)]
    print(f"\nSeconds per epoch, medians of {arguments.repeats}, summed over the three:")
    print(f"usual way {sums[0]:.1f}, lesson {sums[1]:.1f}: {sums[0] / sums[1]:.1f}x")
    ratios = [
        sum(s[0][i] for s in seconds.values()) / sum(s[1][i] for s in seconds.values())
        for i in range(arguments.repeats)
    ]
    print(f"by repeat: {', '.join(f'{r:.1f}x' for r in ratios)}", flush=True)

    start = time.perf_counter()
    runs = utils.fit_together(utils.THREE_EXPERIMENTS, data)
    whole = time.perf_counter() - start
    for run in runs:
        accuracy = run.history["test_accuracy"][-1]
        print(f"{run.experiment.label}: {accuracy:.2%} after {run.experiment.epochs} epochs")
    print(f"All three to the end: {whole:.0f} s, against 20 x {sums[0]:.1f} s of the usual way:")
    print(f"{20 * sums[0] / whole:.1f}x")


if __name__ == "__main__":
    main()
