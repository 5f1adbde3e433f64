"""What the measures share: a part of the images, an endless supply of batches, one step of SGD.

Nothing is augmented and no rate follows a schedule, so that arms differ in their norm alone.
"""

from collections.abc import Iterator
from itertools import count

import torch
import torch.nn.functional as F
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from utils import Data, Experiment, Images, batches


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
    train, val = train_test_split(
        range(len(data.train)),
        test_size=min(size, len(data.train) // 5),
        stratify=data.train.y,
        random_state=0,
    )
    return Data(data.name, data.train[train], data.test, data.train[val])


def endless(images: Images, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalized batches (N, 1, H, W) and labels (N,), reshuffled each epoch, the same per seed."""
    for epoch in count(1):
        yield from epoch_of(images, batch_size, seed, epoch)


def epoch_of(
    images: Images, batch_size: int, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of ``endless``; its last batch may be short."""
    return batches(images, Experiment(batch_size=batch_size, seed=seed, augment=False), epoch)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    """One step; gives the batch's loss before it, in nats."""
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
