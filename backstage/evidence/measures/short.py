"""What the measures of penalties share: short runs of the lesson's network, counted in steps.

The same number of steps whatever the number of images, one evaluation at the end, no images set
aside and, unless asked for, nothing augmented.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import torch
import torch.nn.functional as F
from torch import Tensor

from s6_model import Net, penalized
from utils import Data, Experiment, Images, batches, evaluate, make_optimizer, penalty


@dataclass(frozen=True)
class ShortExperiment(Experiment):
    """An experiment of so many steps; ``epochs`` is only a bound that no run comes near."""

    steps: int = 200
    epochs: int = 1_000
    batch_size: int = 32  # a quarter of the lesson's: four times the steps for the same images
    lr: float = 0.01  # less than the lesson's, at which such batches often stall without a norm
    augment: bool = False
    plain_epochs: int = 0


def supply(images: Images, experiment: Experiment) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end, those of the experiment's seed, as ``utils.batches`` makes them."""
    for epoch in count(1):
        yield from batches(images, experiment, epoch)


def train(experiment: ShortExperiment, images: Images) -> Net:
    """The network after all steps, by the lesson's Adam on data loss and penalty."""
    torch.manual_seed(experiment.seed)
    model = Net(experiment.norm, experiment.groups, experiment.dropout)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer, scheduler = make_optimizer(experiment, model, experiment.steps)
    for x, y in islice(supply(images, experiment), experiment.steps):
        loss = F.cross_entropy(model(x), y) + penalty(experiment, model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return model


def weights(model: torch.nn.Module) -> Tensor:
    """All weights that a penalty acts on, in one row."""
    return torch.cat([p.detach().flatten() for p in penalized(model)])


def score(model: Net, data: Data) -> dict[str, float]:
    """Accuracies and losses at the end, on the test images and on at most 5,000 it trained on."""
    few = data.train[:: -(-len(data.train) // 5_000)]
    test_loss, test_accuracy = evaluate(model, data.test)
    train_loss, train_accuracy = evaluate(model, few)
    found = {"test_accuracy": test_accuracy, "test_loss": test_loss}
    return found | {"train_accuracy": train_accuracy, "train_loss": train_loss}
