"""What the measures share: parts of the images, batches without end, a step, short and long runs.

Nothing is augmented and no rate follows a schedule unless a measure asks for it, so that arms
differ in what is measured alone.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice

import torch
import torch.nn.functional as F
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from s6_model import Net, penalized
from utils import (
    Data,
    Experiment,
    Images,
    Run,
    batches,
    evaluate,
    fit,
    make_optimizer,
    penalty,
    predict,
    split_validation,
)

# ------------------------------------------------------------------------------------ the images


def part(images: Images, size: int) -> Images:
    """So many of the images, stratified, the same ones every time; all where there are no more."""
    if size >= len(images):
        return images
    index = range(len(images))
    chosen, _ = train_test_split(index, train_size=size, stratify=images.y, random_state=0)
    return images[torch.tensor(chosen)]


def with_validation(data: Data, size: int) -> Data:
    """The data with a validation set of so many images, or a fifth where there are few."""
    if data.val is not None:
        return data
    size = min(size, len(data.train) // 5)
    train, val = train_test_split(
        range(len(data.train)), test_size=size, stratify=data.train.y, random_state=0
    )
    return Data(data.name, data.train[train], data.test, data.train[val])


def supply(images: Images, experiment: Experiment) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches (N, 1, H, W) and labels (N,) without end, those of the experiment's seed."""
    for epoch in count(1):
        yield from batches(images, experiment, epoch)


def endless(images: Images, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Likewise, nothing augmented."""
    return supply(images, Experiment(batch_size=batch_size, seed=seed, augment=False))


def epoch_of(
    images: Images, batch_size: int, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of ``endless``; its last batch may be short."""
    return batches(images, Experiment(batch_size=batch_size, seed=seed, augment=False), epoch)


# -------------------------------------------------------------------------------------- one step


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, penalty=None
) -> float:
    """One step; gives the loss before it, in nats.

    Args:
        penalty: a function without arguments, whose value is added to the data loss.
    """
    loss = F.cross_entropy(model(x), y)
    if penalty is not None:
        loss = loss + penalty()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


# ------------------------------------------------------------------ short runs, counted in steps


@dataclass(frozen=True)
class ShortExperiment(Experiment):
    """An experiment of so many steps; ``epochs`` is only a bound that no run comes near."""

    steps: int = 200
    epochs: int = 1_000
    batch_size: int = 32  # a quarter of the lesson's: four times the steps for the same images
    lr: float = 0.01  # less than the lesson's, at which such batches often stall without a norm
    augment: bool = False
    plain_epochs: int = 0


def train(experiment: ShortExperiment, images: Images) -> Net:
    """The network after all steps, by the lesson's Adam on data loss and penalty."""
    torch.manual_seed(experiment.seed)
    model = Net(experiment.norm, experiment.groups, experiment.dropout)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer, scheduler = make_optimizer(experiment, model, experiment.steps)
    for x, y in islice(supply(images, experiment), experiment.steps):
        step(model, optimizer, x, y, lambda: penalty(experiment, model))
        scheduler.step()
    return model


def weights(model: nn.Module) -> Tensor:
    """All weights that a penalty acts on, in one row."""
    return torch.cat([p.detach().flatten() for p in penalized(model)])


def score(model: Net, data: Data) -> dict[str, float]:
    """Accuracies and losses at the end, on the test images and on at most 5,000 it trained on."""
    few = data.train[:: -(-len(data.train) // 5_000)]
    test_loss, test_accuracy = evaluate(model, data.test)
    train_loss, train_accuracy = evaluate(model, few)
    found = {"test_accuracy": test_accuracy, "test_loss": test_loss}
    return found | {"train_accuracy": train_accuracy, "train_loss": train_loss}


# --------------------------------------------------------------- the lesson's runs, epoch by epoch


def trained(experiment: Experiment, seed: int, data: Data, **how) -> Run:
    """``fit`` on the CPU, from this seed."""
    with contextlib.redirect_stdout(None):
        return fit(replace(experiment, seed=seed), data, device="cpu", **how)


def outcome(run: Run, data: Data) -> dict:
    """A finished run's losses and accuracies, the test images it got wrong, and each epoch."""
    last = run.history.epochs[-1]
    columns = ("test_accuracy", "test_loss", "train_accuracy", "train_loss")
    found = {column: last[column] for column in columns}
    found |= {"final_l1": last["l1"], "final_l2": last["l2"]}
    wrong = predict(run.model, data.test).argmax(dim=1) != data.test.y
    found["wrong"] = wrong.nonzero().flatten().tolist()
    kept = [c for c in last if c != "seconds" and not c.startswith("val_")]
    return found | {"history": {column: run.history[column] for column in kept}}


def final_epoch(experiment: Experiment, seed: int, data: Data) -> dict:
    """Trains on all of the data; ``outcome``."""
    return outcome(trained(experiment, seed, data), data)


def validation(experiment: Experiment, seed: int, data: Data) -> dict:
    """Trains without 5,000 images, or a tenth of fewer, others for each seed; scores on these."""
    split = split_validation(data, size=min(5_000, len(data.train) // 10), seed=seed)
    last = trained(experiment, seed, split).history.epochs[-1]
    return {"val_loss": last["val_loss"], "val_accuracy": last["val_accuracy"]}
