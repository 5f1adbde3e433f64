"""When does a penalty help? The lesson's three pairings on 300 to 10,000 training images.

Each seed draws training images of its own, and all settings of a seed get the same ones. All runs
have the same number of steps: what differs is how many images these see, at the same computing
time. Beside the penalties: what augmentation and dropout buy a network without one.
"""

from dataclasses import replace

from evidence.measures.short import ShortExperiment, score, train
from machinery.settings import settings as checked
from utils import THREE_EXPERIMENTS, Count, Data, evaluate, split_validation

SIZES = (300, 1_000, 3_000, 10_000)
TIMES = (1.0, 10.0, 100.0)  # the strengths of the lesson, which were chosen on all of MNIST

# For each size, of TIMES. So far the lesson's own; python -m evidence.sweep run few_images_tune,
# and penalty_tables.chosen of its rows, give what suits each size on validation images.
CHOSEN = {"GN + L1": (1.0,) * 4, "LN + L2": (1.0,) * 4, "BN + L1 + L2": (1.0,) * 4}


@checked
class SmallExperiment(ShortExperiment):
    """A short run on ``size`` images."""

    size: Count = 300


def pairings() -> list[SmallExperiment]:
    """The three experiments, short."""
    return [SmallExperiment(norm=e.norm, l1=e.l1, l2=e.l2) for e in THREE_EXPERIMENTS]


def stronger(experiment: SmallExperiment, times: float) -> SmallExperiment:
    return replace(experiment, l1=experiment.l1 * times, l2=experiment.l2 * times)


def settings() -> dict[str, SmallExperiment]:
    """At each size: each norm alone and with its penalty; GN also augmented, and with dropout."""
    found = {}
    for position, size in enumerate(SIZES):
        for pairing in pairings():
            plain = stronger(pairing, 0.0)
            penalized = stronger(pairing, CHOSEN[pairing.label][position])
            found[f"{plain.label}, {size}"] = replace(plain, size=size)
            found[f"{pairing.label}, {size}"] = replace(penalized, size=size)
        gn = SmallExperiment(norm="GN", size=size)
        found[f"GN + augmentation, {size}"] = replace(gn, augment=True)
        found[f"GN + dropout, {size}"] = replace(gn, dropout=0.25)
    return found


def candidates() -> dict[str, SmallExperiment]:
    """What ``CHOSEN`` is chosen from: each pairing at each size, its penalty 1 to 100 times."""
    return {
        f"{pairing.label}, {size}, × {times:g}": replace(stronger(pairing, times), size=size)
        for size in SIZES
        for pairing in pairings()
        for times in TIMES
    }


def drawn(data: Data, size: int, seed: int) -> Data:
    """So many training images, stratified, others for each seed; validation images beside them."""
    split = split_validation(data, min(5_000, len(data.train) // 3), seed=seed)
    return Data(data.name, split_validation(split, size, seed=seed).val, data.test, split.val)


def measure(experiment: SmallExperiment, seed: int, data: Data) -> dict:
    """``score`` at the end."""
    data = drawn(data, experiment.size, seed)
    return score(train(replace(experiment, seed=seed), data.train), data)


def measure_candidate(experiment: SmallExperiment, seed: int, data: Data) -> dict:
    """Validation loss and accuracy; the test images take no part."""
    data = drawn(data, experiment.size, seed)
    loss, accuracy = evaluate(train(replace(experiment, seed=seed), data.train), data.val)
    return {"val_loss": loss, "val_accuracy": accuracy}
