"""When does a penalty help? Each norm with and without its penalties, on 300 to 10,000 images.

Each seed draws training images of its own, and all settings of a seed get the same ones. All runs
have the same number of steps: what differs is how often these see the same image again. Beside
the penalties: what augmentation and dropout buy GN in the same number of steps.
"""

from dataclasses import dataclass, replace

from backstage.evidence.measures.runs import ShortExperiment, score, train
from utils import Data, evaluate, split_validation

SIZES = (300, 1_000, 3_000, 10_000)
NORMS = ("GN", "LN", "BN")
# The lesson's strengths, which were chosen on all of MNIST, and up to 1,000 times as much.
STRENGTHS = {"L1": (1e-5, 1e-4, 1e-3, 3e-3, 1e-2), "L2": (1e-4, 1e-3, 1e-2, 3e-2, 1e-1)}

# For each norm, the strength for each of SIZES with the lowest loss on validation images:
# of the rows of the grid few_images_tune; a test chooses them again.
CHOSEN = {
    "GN, L1": (1e-5, 1e-5, 1e-5, 1e-5),
    "GN, L2": (1e-2, 1e-2, 1e-4, 1e-3),
    "LN, L1": (1e-4, 1e-4, 1e-4, 1e-5),
    "LN, L2": (1e-3, 1e-4, 1e-4, 1e-3),
    "BN, L1": (1e-3, 1e-5, 1e-5, 1e-5),
    "BN, L2": (3e-2, 1e-2, 1e-3, 1e-4),
}


@dataclass(frozen=True)
class SmallExperiment(ShortExperiment):
    """A short run on ``size`` images: 300 are seen 64 times each, 10,000 about twice."""

    size: int = 300
    steps: int = 600


def settings() -> dict[str, SmallExperiment]:
    """At each size: each norm alone, with L1, L2 and both; GN also augmented, and with dropout."""
    found = {}
    for position, size in enumerate(SIZES):
        for norm in NORMS:
            l1, l2 = (CHOSEN[f"{norm}, {penalty}"][position] for penalty in STRENGTHS)
            plain = SmallExperiment(norm=norm, size=size)
            for run in (plain, replace(plain, l1=l1), replace(plain, l2=l2)):
                found[f"{run.label}, {size}"] = run
            found[f"{norm} + L1 + L2, {size}"] = replace(plain, l1=l1, l2=l2)
        gn = SmallExperiment(norm="GN", size=size)
        found[f"GN + augmentation, {size}"] = replace(gn, augment=True)
        found[f"GN + dropout, {size}"] = replace(gn, dropout=0.25)
    return found


def candidates() -> dict[str, SmallExperiment]:
    """What ``CHOSEN`` is chosen from."""
    return {
        f"{norm}, {penalty}, {size}, λ = {strength:g}": SmallExperiment(
            norm=norm, size=size, **{penalty.lower(): strength}
        )
        for size in SIZES
        for norm in NORMS
        for penalty, strengths in STRENGTHS.items()
        for strength in strengths
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
