"""The named grids: which settings are compared, on how many seeds, and what is measured."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from backstage.evidence.measures import (
    backward_theorem,
    batch_size,
    cost,
    covariate_shift,
    equilibrium,
    fashion,
    faster,
    faster_batch_statistics,
    few_images,
    ghost,
    gradient_growth,
    gradients,
    l2_or_rate,
    largest_rate,
    largest_rate_starts,
    layer_norm,
    lesson_weights,
    matched_rate,
    new_domain,
    penalty_path,
    pre_post_norm,
    runs,
    scale_free_smoothness,
    sigma_detached,
    smoothness,
    sparsity,
    two_starts,
    very_deep,
    with_without,
)
from utils import (
    RECIPE,
    THREE_EXPERIMENTS,
    Data,
    DataError,
    Experiment,
    load_data,
    split_validation,
)


class EvidenceError(RuntimeError):
    """A sweep or its results cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Grid:
    """Settings that are compared, by the names that tables and plots give them."""

    question: str
    settings: dict[str, Any]  # frozen dataclasses of plain values
    measure: Callable[[Any, int, Data], dict] = runs.final_epoch  # of setting, seed and data
    images: int = 60_000  # trained on, a stratified part where the data set has more
    seeds: int = 10
    recipe: int = RECIPE  # of the measure: raised, it makes the stored rows stale


def named(experiments: Sequence[Experiment]) -> dict[str, Experiment]:
    return {experiment.label: experiment for experiment in experiments}


NORMS = ("none", "BN", "LN", "GN")
GN_L1, LN_L2, BN_L1_L2 = THREE_EXPERIMENTS
BATCH_SIZES = (2, 4, 8, 16, 32, 128)


def factorial(epochs: int = 10) -> list[Experiment]:
    """Each norm with each penalty, at the strengths of the three experiments."""
    return [
        replace(GN_L1, norm=norm, l1=l1, l2=l2, epochs=epochs)
        for norm in NORMS
        for l2 in (0.0, LN_L2.l2)
        for l1 in (0.0, GN_L1.l1)
    ]


def constant(epochs: int = 10) -> list[Experiment]:
    """The three experiments at a learning rate that does not fall, a fifth of the peak.

    A fifth is near what such networks are trained with without a schedule (0.005 for a peak of
    0.025). Every epoch is augmented: a change of the images before the last epochs would look like
    a lack of consistency in them.
    """
    return [
        replace(e, schedule="constant", lr=e.lr / 5, epochs=epochs, plain_epochs=0)
        for e in THREE_EXPERIMENTS
    ]


def source(epochs: int = 10) -> list[Experiment]:
    """The three experiments with L1 as a mean per tensor over every parameter.

    λ1 = 1e-3 and λ2 = 5e-4 are what a published solution of this exercise uses with that form.
    """
    return [
        replace(e, mean_l1=True, l1=1e-3 if e.l1 else 0.0, l2=5e-4 if e.l2 else 0.0, epochs=epochs)
        for e in THREE_EXPERIMENTS
    ]


BATCH_BASE = replace(GN_L1, l1=0.0, l2=0.0, epochs=6)


def batch_sizes(
    rate: Callable[[int], float],
    sizes: Sequence[int] = BATCH_SIZES,
    norms: Sequence[str] = NORMS,
) -> dict[str, Experiment]:
    """Norms at batches of 2 to 128 images, with equally many epochs.

    Batches of 2 take half of the grid's time: 6 epochs of 10,000 images are 30,000 steps, at 128
    images 474.

    Args:
        rate: the peak learning rate for batches of so many images.
        sizes: of the batches.
        norms: to be compared.
    """
    return {
        f"{norm}, batch {n}": replace(BATCH_BASE, norm=norm, batch_size=n, lr=rate(n))
        for n in sizes
        for norm in norms
    }


def linear(n: int) -> float:
    """In proportion, as in arXiv 1803.08494, section 4.1 (0.1·N/32); the lesson's rate at 128."""
    return BATCH_BASE.lr * n / BATCH_BASE.batch_size


def square_root(n: int) -> float:
    """In proportion to √n, as arXiv 2205.10287 argues for Adam; as ``linear`` at 32."""
    return linear(32) * (n / 32) ** 0.5


def candidates(epochs: int = 10) -> dict[str, Experiment]:
    """GN + L1 and LN + L2 at each strength of their penalty, GN in groups of 2 and of 4."""
    gn = [replace(GN_L1, groups=g, l1=l1) for g in (2, 4) for l1 in (1e-6, 1e-5, 1e-4)]
    ln = [replace(LN_L2, l2=l2) for l2 in (1e-5, 1e-4, 1e-3)]
    return {
        f"{e.label}, {e.groups} groups, {e.l1 + e.l2:g}": replace(e, epochs=epochs) for e in gn + ln
    }


NEAR = 0.0005  # of the lowest validation loss: seeds alone put such settings in any order


def choose(results: pd.DataFrame) -> pd.Series:
    """The setting that tuning takes: of those near the lowest mean loss, the strongest penalty.

    Of equally strong ones it is the one with the lower loss. The test set takes no part.

    Args:
        results: rows of the grid ``tune``, of the settings to choose from.
    """
    mean = results.groupby("setting").agg({"val_loss": "mean", "l1": "first", "l2": "first"})
    near = mean[mean["val_loss"] <= mean["val_loss"].min() + NEAR]
    strength = near["l1"] + near["l2"]
    return near[strength == strength.max()].sort_values("val_loss").iloc[0]


GRIDS = {
    "replicate": Grid(
        "Does GN + L1 supersede BN + L1 + L2 and LN + L2, and is it the norm or the penalty?",
        named(factorial()),
    ),
    "constant": Grid(
        "Is GN + L1 consistent in its last epochs if the learning rate does not fall?",
        named(constant()),
    ),
    "source": Grid(
        "Does the ranking depend on how L1 is written?",
        named(source()),
    ),
    "batch_size": Grid(
        "Which norms tolerate small batches?",
        batch_sizes(linear),
        measure=batch_size.measure,
        images=10_000,
    ),
    "batch_size_sqrt": Grid(
        "And if the learning rate falls with the square root of the batch size?",
        batch_sizes(square_root, (2, 32), ("none", "BN", "GN")),
        measure=batch_size.measure,
        images=10_000,
        seeds=5,
    ),
    "ghost": Grid(
        "What does BN lose if fewer images share its statistics and all else stays?",
        ghost.settings(),
        measure=ghost.measure,
        images=10_000,
    ),
    "accuracy": Grid(
        "What do the three experiments score?",
        named(THREE_EXPERIMENTS),
        seeds=3,
    ),
    "tune": Grid(
        "Which strengths and groups score best on validation images?",
        candidates(),
        measure=runs.validation,
        seeds=2,
    ),
    "fashion_tune": Grid(
        "Which strengths score best on Fashion-MNIST's validation images, augmented or not?",
        fashion.candidates(),
        measure=runs.validation,
        seeds=2,
    ),
    "fashion_two_starts": Grid(
        "With and without a norm on Fashion-MNIST, from two starts",
        two_starts.settings(),
        two_starts.measure,
    ),
    "fashion_ghost": Grid(
        "What does BN lose on Fashion-MNIST if 2 of 32 images share its statistics?",
        fashion.ghosts(),
        fashion.measure_ghost,
        images=10_000,
    ),
    "demo": Grid(
        "Does a sweep work here? It takes seconds; its results prove nothing.",
        {norm: Experiment(norm=norm, epochs=2, plain_epochs=1) for norm in NORMS},
        measure=batch_size.measure,
        images=300,
        seeds=2,
    ),
}

# Why normalization helps: each module has its settings and their measure.
WHY = {
    with_without: "What does a norm do for two short epochs of plain SGD?",
    faster: "How many steps and seconds does each norm need to reach 97%?",
    largest_rate: "At how large a learning rate does each norm still train?",
    gradients: "Do the gradients of deep networks vanish or explode at the start?",
    very_deep: "How deep can a network be and still train?",
    smoothness: "How smooth is the loss along the gradient?",
    backward_theorem: "What do the derivatives of μ and σ do to the gradient?",
    layer_norm: "Which part of layer norm does what?",
    cost: "How long does a training step take with each norm?",
}
# What a penalty does: likewise, with the number of seeds.
PENALTIES = {
    penalty_path: ("What do L1 and L2 do to the weights as they get stronger?", 3),
    sparsity: ("Does L1 make weights zero, by subgradient and by its proximal step?", 10),
    equilibrium: ("How far does L2 let the weights under a norm turn per step?", 10),
    matched_rate: ("Does L2 under BN do anything that a learning rate would not?", 10),
    few_images: ("On how many training images does a penalty help?", 10),
    lesson_weights: ("What are the lesson's weights without a penalty?", 1),
}


# Measured again, from both starts and so on, ten seeds each.
AGAIN = {
    two_starts: "What does a norm do for two short epochs of plain SGD, from two starts?",
    gradient_growth: "How do gradients grow over the layers, at the start and after one step?",
    largest_rate_starts: "At how large a rate does the CNN still train, from two starts?",
    covariate_shift: "Does BN train as fast if noise shifts what it puts out?",
    l2_or_rate: "Is the gain of L2 under BN on 300 images regularization, or a rate?",
    sigma_detached: "Is it the right angle to the weights that σ's derivative is good for?",
    faster_batch_statistics: "How long does BN's sigmoid MLP take without running averages?",
}
FIVE = {
    new_domain: "What becomes of a network's norms on other digits than it was trained on?",
    pre_post_norm: "Does a transformer train with the norm before or after its sublayers?",
    scale_free_smoothness: "How smooth is the loss, whatever the weights' length?",
}


def name_of(module) -> str:
    return module.__name__.rpartition(".")[2]


GRIDS |= {
    name_of(m): Grid(question, m.settings(), m.measure) for m, question in (WHY | AGAIN).items()
}
GRIDS |= {
    name_of(m): Grid(question, m.settings(), m.measure, seeds=seeds)
    for m, (question, seeds) in PENALTIES.items()
}
GRIDS |= {name_of(m): Grid(q, m.settings(), m.measure, seeds=5) for m, q in FIVE.items()}
GRIDS["few_images_tune"] = Grid(
    "Which strengths score best on validation images, for each number of training images?",
    few_images.candidates(),
    few_images.measure_candidate,
    seeds=2,
)


@dataclass(frozen=True)
class Task:
    """One run of a grid, and so one row of its results."""

    grid: str
    setting: str
    seed: int
    data: str = "mnist"

    @property
    def slot(self) -> tuple[str, int]:
        """The results count one row for each."""
        return self.setting, self.seed


def grid_named(name: str) -> Grid:
    if name not in GRIDS:
        raise EvidenceError(f"There is no grid {name!r}: use one of {', '.join(GRIDS)}.")
    return GRIDS[name]


def tasks(name: str, seeds: int | None = None, data: str = "mnist") -> list[Task]:
    """All runs of a grid, seed by seed: an interrupted sweep leaves its first seeds complete.

    Raises:
        EvidenceError: for an unknown grid or less than one seed.
    """
    grid = grid_named(name)
    seeds = grid.seeds if seeds is None else seeds
    if seeds < 1:
        raise EvidenceError(f"{seeds} seeds: use a whole number from 1 up.")
    return [Task(name, setting, seed, data) for seed in range(seeds) for setting in grid.settings]


@functools.lru_cache(maxsize=2)  # read once per process, not once per run
def sweep_data(name: str, images: int) -> Data:
    """The data set, its training images cut down to a stratified part, the same one every time.

    Raises:
        DataError: where MNIST is asked for and cannot be had; a stand-in would be no replication.
    """
    data = load_data(name)
    if name == "mnist" and data.name != "MNIST":
        raise DataError("This grid needs MNIST: set MNIST_ROOT to the folder that has MNIST/raw/.")
    if images >= len(data.train):
        return data
    part = split_validation(data, size=images).val
    return Data(data.name, part, data.test)
