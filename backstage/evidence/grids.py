"""The table of grids: which settings are compared, on how many seeds, and what is measured."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backstage.evidence.measures import (
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
    sigma_detached,
    smoothness,
    sparsity,
    steadiness,
    three_experiments,
    two_starts,
    very_deep,
)
from utils import Data


@dataclass(frozen=True)
class Grid:
    """Settings that are compared, by name; each is measured once per seed."""

    question: str
    settings: dict[str, Any]  # dataclasses of plain values: the columns of a row
    measure: Callable[[Any, int, Data], dict]  # of setting, seed and data
    seeds: int = 10
    images: int = 60_000  # trained on, a stratified part where the data set has more
    data: str = "mnist"  # as ``utils.load_data`` calls it


GRIDS = {
    # Why normalization helps
    "faster": Grid(
        "How many steps and seconds does each norm need to reach 97%?",
        faster.settings(),
        faster.measure,
    ),
    "largest_rate": Grid(
        "At how large a learning rate does each norm still train an MLP?",
        largest_rate.settings(),
        largest_rate.measure,
    ),
    "gradients": Grid(
        "Do the gradients of deep networks vanish or explode at the start?",
        gradients.settings(),
        gradients.measure,
    ),
    "very_deep": Grid(
        "How deep can a network be and still train?",
        very_deep.settings(),
        very_deep.measure,
    ),
    "very_deep_ten_epochs": Grid(
        "And if it trains for ten epochs?",
        very_deep.ten_epochs(),
        very_deep.measure_ten,
        seeds=5,
    ),
    "smoothness": Grid(
        "How smooth is the loss along the gradient, from two starts?",
        smoothness.settings(),
        smoothness.measure,
    ),
    "layer_norm": Grid(
        "Which part of layer norm does what?",
        layer_norm.settings(),
        layer_norm.measure,
    ),
    "cost": Grid(
        "How long does a training step take with each norm?",
        cost.settings(),
        cost.measure,
    ),
    "two_starts": Grid(
        "What does a norm do for two short epochs of plain SGD, from two starts?",
        two_starts.settings(),
        two_starts.measure,
    ),
    "largest_rate_starts": Grid(
        "At how large a rate does the CNN still train, from two starts?",
        largest_rate_starts.settings(),
        largest_rate_starts.measure,
    ),
    "gradient_growth": Grid(
        "How do gradients grow over the layers, at the start and after one step?",
        gradient_growth.settings(),
        gradient_growth.measure,
    ),
    "faster_batch_statistics": Grid(
        "How long does BN's sigmoid MLP take without running averages?",
        faster_batch_statistics.settings(),
        faster_batch_statistics.measure,
    ),
    "sigma_detached": Grid(
        "Is it the right angle to the weights that σ's derivative is good for?",
        sigma_detached.settings(),
        sigma_detached.measure,
    ),
    "covariate_shift": Grid(
        "Does BN train as fast if noise shifts what it puts out?",
        covariate_shift.settings(),
        covariate_shift.measure,
    ),
    # Batch size
    "batch_size": Grid(
        "Which norms tolerate small batches?",
        batch_size.settings(),
        batch_size.measure,
        images=10_000,
    ),
    "batch_size_sqrt": Grid(
        "And if the learning rate falls with the square root of the batch size?",
        batch_size.settings(batch_size.square_root, (2, 32)),
        batch_size.measure,
        images=10_000,
    ),
    "ghost": Grid(
        "What does BN lose if fewer images share its statistics and all else stays?",
        ghost.settings(),
        ghost.measure,
        images=10_000,
    ),
    # Penalties
    "penalty_path": Grid(
        "What do L1 and L2 do to the weights as they get stronger?",
        penalty_path.settings(),
        penalty_path.measure,
        seeds=3,
    ),
    "sparsity": Grid(
        "Does L1 make weights zero, by subgradient and by its proximal step?",
        sparsity.settings(),
        sparsity.measure,
    ),
    "equilibrium": Grid(
        "How far does L2 let the weights under a norm turn per step?",
        equilibrium.settings(),
        equilibrium.measure,
    ),
    "matched_rate": Grid(
        "Does L2 under BN do anything that a learning rate would not?",
        matched_rate.settings(),
        matched_rate.measure,
    ),
    "few_images": Grid(
        "On how many training images does a penalty help?",
        few_images.settings(),
        few_images.measure,
    ),
    "few_images_tune": Grid(
        "Which strengths validate best, for each number of training images?",
        few_images.candidates(),
        few_images.measure_candidate,
        seeds=2,
    ),
    "lesson_weights": Grid(
        "What are the lesson's weights without a penalty?",
        lesson_weights.settings(),
        lesson_weights.measure,
        seeds=1,
    ),
    "l2_or_rate": Grid(
        "Is the gain of L2 under BN on 300 images regularization, or a rate?",
        l2_or_rate.settings(),
        l2_or_rate.measure,
    ),
    # Who wins
    "tune": Grid(
        "Which strengths and groups validate best?",
        three_experiments.candidates(),
        runs.validation,
        seeds=2,
    ),
    "replicate": Grid(
        "Does GN + L1 supersede BN + L1 + L2 and LN + L2, and is it the norm or the penalty?",
        three_experiments.factorial(),
        runs.final_epoch,
    ),
    "constant": Grid(
        "Is GN + L1 consistent in its last epochs if the learning rate does not fall?",
        three_experiments.constant(),
        runs.final_epoch,
    ),
    "steadiness": Grid(
        "Is it BN that is unsteady in its last epochs, or its running averages?",
        steadiness.settings(),
        steadiness.measure,
    ),
    "lengths": Grid(
        "Would 16 epochs of the three experiments do as well as 20?",
        three_experiments.lengths(),
        runs.validation,
    ),
    "source": Grid(
        "Does the ranking depend on how L1 is written?",
        three_experiments.source(),
        runs.final_epoch,
    ),
    # Fashion-MNIST
    "fashion_tune": Grid(
        "Which strengths validate best on Fashion-MNIST, augmented or not?",
        fashion.candidates(),
        runs.validation,
        seeds=2,
        data="fashion",
    ),
    "fashion_experiments": Grid(
        "Does GN + L1 supersede the others where there is room for a difference?",
        fashion.experiments(),
        runs.final_epoch,
        data="fashion",
    ),
    "fashion_two_starts": Grid(
        "With and without a norm on Fashion-MNIST, from two starts",
        two_starts.settings(),
        two_starts.measure,
        data="fashion",
    ),
    "fashion_ghost": Grid(
        "What does BN lose on Fashion-MNIST if 2 of 32 images share its statistics?",
        fashion.ghosts(),
        fashion.measure_ghost,
        images=10_000,
        data="fashion",
    ),
    # Your own network
    "new_domain": Grid(
        "What becomes of a network's norms on other digits than it was trained on?",
        new_domain.settings(),
        new_domain.measure,
        seeds=5,
    ),
    "pre_post_norm": Grid(
        "Does a transformer train with the norm before or after its sublayers?",
        pre_post_norm.settings(),
        pre_post_norm.measure,
        seeds=5,
    ),
}


@dataclass(frozen=True)
class Task:
    """One run, and so one row: all that a worker needs to make it."""

    grid: str
    name: str  # of the setting
    setting: Any
    seed: int
    measure: Callable[[Any, int, Data], dict]
    images: int
    data: str

    @property
    def columns(self) -> dict:
        """The part of the row that is known beforehand."""
        file = self.measure.__module__.replace(".", "/") + ".py"
        row = {"grid": self.grid, "setting": self.name, "measure": file, "data": self.data}
        return (
            row | {"images": self.images} | dataclasses.asdict(self.setting) | {"seed": self.seed}
        )


def tasks(name: str, grid: Grid) -> list[Task]:
    """All runs of a grid, seed by seed: an interrupted sweep leaves its first seeds complete."""
    return [
        Task(name, setting, value, seed, grid.measure, grid.images, grid.data)
        for seed in range(grid.seeds)
        for setting, value in grid.settings.items()
    ]
