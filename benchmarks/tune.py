"""Chooses the strengths of the penalties and GN's groups, on validation images alone.

    MNIST_ROOT=... python benchmarks/tune.py [--seeds 2] [--epochs 10] [--lr 0.025] [--jobs 2]

Trains on 55,000 images, for half as many epochs as the lesson, and measures on the other 5,000
after the last epoch, another 5,000 for each seed. Prints the mean validation loss (finer than the
accuracy, where one image is 0.02 points) and accuracy of each candidate. Of those within NEAR of
the lowest loss, which chance alone can put in any order, the strongest penalty is chosen; the test
set takes no part. BN + L1 + L2 takes the λ1 and λ2 that suit the other two, so that the arms differ
in which penalties they have and not in how strong these are. One process per core; each epoch is
saved, so that a run which is stopped continues.
"""

import argparse
import dataclasses
import itertools
import os
import statistics
import sys
from pathlib import Path

import torch
from joblib import Parallel, delayed

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils

L1 = (1e-6, 1e-5, 1e-4)
L2 = (1e-5, 1e-4, 1e-3)
GROUPS = (2, 4)
NEAR = 0.0005


def candidates(epochs: int, lr: float) -> list[utils.Experiment]:
    """GN + L1 and LN + L2 at each strength of their own penalty, GN in groups of each size."""
    grid = []
    for e in utils.THREE_EXPERIMENTS[:2]:
        choices = itertools.product(
            GROUPS if e.norm == "GN" else (e.groups,),
            L1 if e.l1 else (0.0,),
            L2 if e.l2 else (0.0,),
        )
        grid += [
            dataclasses.replace(e, groups=groups, l1=l1, l2=l2, epochs=epochs, lr=lr)
            for groups, l1, l2 in choices
        ]
    return grid


def choose(losses: dict[utils.Experiment, float]) -> utils.Experiment:
    """The strongest penalty of those near the lowest loss; of equally strong ones, the lower."""
    near = [e for e, loss in losses.items() if loss <= min(losses.values()) + NEAR]
    return max(near, key=lambda e: (e.l1 + e.l2, -losses[e]))


def train(experiment: utils.Experiment, directory: Path) -> utils.History:
    os.environ["PROGRESS"] = "none"
    torch.set_num_threads(1)
    data = utils.split_validation(utils.load_data(), seed=experiment.seed)
    return utils.fit(experiment, data, directory).history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=utils.Experiment.lr, help="at its peak")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--directory", type=Path, default=utils.REPOSITORY / "build" / "tune")
    arguments = parser.parse_args()
    seeds, grid = range(arguments.seeds), candidates(arguments.epochs, arguments.lr)
    runs = [dataclasses.replace(e, seed=seed) for e in grid for seed in seeds]
    work = Parallel(arguments.jobs, return_as="generator")
    histories = work(delayed(train)(e, arguments.directory) for e in runs)
    mean_loss = {}
    print(f"{'':<13} {'groups':>6} {'λ1':>7} {'λ2':>7} {'val. loss':>10} {'val. %':>7}", flush=True)
    for _ in grid:
        group = list(itertools.islice(histories, arguments.seeds))
        e = group[0].experiment
        loss = statistics.mean(h["val_loss"][-1] for h in group)
        accuracy = statistics.mean(100 * h["val_accuracy"][-1] for h in group)
        print(
            f"{e.label:<13} {e.groups if e.norm == 'GN' else '':>6} {e.l1:>7g} {e.l2:>7g} "
            f"{loss:>10.4f} {accuracy:>7.2f}",
            flush=True,
        )
        mean_loss[e] = loss
    for label in dict.fromkeys(e.label for e in grid):
        losses = {e: loss for e, loss in mean_loss.items() if e.label == label}
        print("chosen:", choose(losses))


if __name__ == "__main__":
    main()
