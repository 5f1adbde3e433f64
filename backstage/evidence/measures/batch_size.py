"""The lesson's network at batches of 2 to 128 images, with equally many epochs: 1803.08494, 4.1.

A batch that shrinks as a whole changes the gradients and the number of steps too: ``ghost.py``
changes the norm's batch alone. Batches of 2 take half of the time: 6 epochs of 10,000 images are
30,000 steps, at 128 images 474.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from backstage.evidence.bn_statistics import with_other_statistics
from backstage.evidence.measures.runs import outcome, trained
from utils import THREE_EXPERIMENTS, Data, Experiment

BASE = replace(THREE_EXPERIMENTS[0], norm="GN", l1=0.0, l2=0.0, epochs=6)
SIZES = (2, 4, 8, 16, 32, 128)


def linear(n: int) -> float:
    """In proportion, as in arXiv 1803.08494, section 4.1 (0.1·N/32); the lesson's rate at 128."""
    return BASE.lr * n / BASE.batch_size


def square_root(n: int) -> float:
    """In proportion to √n, as arXiv 2205.10287 argues for Adam; as ``linear`` at 32.

    The paper's rule changes Adam's other settings with the batch too; here the rate alone.
    """
    return linear(32) * (n / 32) ** 0.5


def settings(
    rate: Callable[[int], float] = linear,
    sizes: Sequence[int] = SIZES,
    norms: Sequence[str] = ("none", "BN", "LN", "GN"),
) -> dict[str, Experiment]:
    """Each norm at each size; ``rate`` is the peak learning rate for batches of so many images."""
    return {
        f"{norm}, batch {n}": replace(BASE, norm=norm, batch_size=n, lr=rate(n))
        for n in sizes
        for norm in norms
    }


def measure(experiment: Experiment, seed: int, data: Data) -> dict:
    """``outcome``; a BN network is also tested with precise and with batch statistics."""
    run = trained(experiment, seed, data)
    found = outcome(run, data)
    if experiment.norm == "BN":
        found |= with_other_statistics(run, data, experiment.batch_size)
    return found
