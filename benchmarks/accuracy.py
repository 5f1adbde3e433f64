"""The accuracy of the three experiments: final epoch, test set, mean over seeds.

    MNIST_ROOT=... python benchmarks/accuracy.py [--seeds 3] [--jobs 2] [--directory build/accuracy]

Trains on all 60,000 images, with the settings that ``tune.py`` chose. One process per core; each
epoch is saved, so that a run which is stopped continues.
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


def train(experiment: utils.Experiment, directory: Path) -> utils.History:
    os.environ["PROGRESS"] = "none"
    torch.set_num_threads(1)
    return utils.fit(experiment, utils.load_data(), directory).history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--directory", type=Path, default=utils.REPOSITORY / "build" / "accuracy")
    arguments = parser.parse_args()
    if utils.load_data().name != "MNIST":
        parser.error("this benchmark needs MNIST: set MNIST_ROOT.")
    seeds = range(arguments.seeds)
    runs = [dataclasses.replace(e, seed=seed) for e in utils.THREE_EXPERIMENTS for seed in seeds]
    work = Parallel(arguments.jobs, return_as="generator")
    histories = work(delayed(train)(e, arguments.directory) for e in runs)
    print(f"{'':<13} {'epochs':>6} {'mean %':>7}   each seed", flush=True)
    for e in utils.THREE_EXPERIMENTS:
        group = itertools.islice(histories, arguments.seeds)
        accuracies = [100 * h["test_accuracy"][-1] for h in group]
        each = ", ".join(f"{a:.2f}" for a in accuracies)
        print(
            f"{e.label:<13} {e.epochs:>6} {statistics.mean(accuracies):>7.3f}   {each}", flush=True
        )


if __name__ == "__main__":
    main()
