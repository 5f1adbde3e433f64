"""The accuracy of the three experiments: final epoch, test set, mean over seeds.

    MNIST_ROOT=... python benchmarks/accuracy.py [--seeds 3] [--directory build/accuracy]

Each epoch is saved in the directory, so that a run which is stopped continues.
"""

import argparse
import dataclasses
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=utils.REPOSITORY / "build" / "accuracy")
    arguments = parser.parse_args()
    data = utils.load_data()
    if data.name != "MNIST":
        parser.error("this benchmark needs MNIST: set MNIST_ROOT.")
    print(f"{'':<13} {'epochs':>6}   {'mean %':>6}   each seed", flush=True)
    for experiment in utils.THREE_EXPERIMENTS:
        accuracies = []
        for seed in range(arguments.seeds):
            seeded = dataclasses.replace(experiment, seed=seed)
            run = utils.fit(seeded, data, arguments.directory)
            accuracies.append(100 * run.history["test_accuracy"][-1])
        each = ", ".join(f"{a:.2f}" for a in accuracies)
        mean = statistics.mean(accuracies)
        print(f"{experiment.label:<13} {experiment.epochs:>6}   {mean:>6.3f}   {each}", flush=True)


if __name__ == "__main__":
    main()
