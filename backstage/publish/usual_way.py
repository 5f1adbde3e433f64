"""The usual way to train on MNIST, which the lesson's speed is measured against.

Per-sample PIL transforms in a ``DataLoader``, and a network that works at full resolution in its
first layers: what solutions of this exercise commonly look like. The lesson itself uses none of it.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

from s6_model import make_norm
from utils import MEAN, STD, Experiment


def net(norm: str, dropout: float = 0.04) -> nn.Sequential:
    """8,880 parameters: (N, 1, 28, 28) -> (N, 10)."""

    def block(c_in: int, c_out: int, padding: int = 0) -> list[nn.Module]:
        convolution = nn.Conv2d(c_in, c_out, 3, padding=padding, bias=False)
        return [convolution, make_norm(norm, c_out), nn.ReLU(), nn.Dropout(dropout)]

    return nn.Sequential(
        *block(1, 8),  # 26 x 26
        *block(8, 16),  # 24 x 24
        nn.Conv2d(16, 8, 1, bias=False),
        nn.MaxPool2d(2),  # 12 x 12
        *block(8, 12),  # 10 x 10
        *block(12, 16),  # 8 x 8
        *block(16, 16),  # 6 x 6
        *block(16, 16, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(16, 10, 1, bias=False),
        nn.Flatten(),
    )


def loaders(root: str, workers: int) -> tuple[DataLoader, DataLoader]:
    tensor = [transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))]
    turned = [
        transforms.RandomRotation((-7.0, 7.0), fill=0),
        transforms.ColorJitter(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.1),
    ]
    train = MNIST(root, train=True, transform=transforms.Compose([*turned, *tensor]))
    test = MNIST(root, train=False, transform=transforms.Compose(tensor))
    return tuple(
        DataLoader(part, batch_size=64, shuffle=part.train, num_workers=workers)
        for part in (train, test)
    )


class Usual:
    """One experiment trained the usual way, an epoch at a time."""

    def __init__(self, experiment: Experiment, root: str, workers: int = 0, epochs: int = 20):
        torch.manual_seed(experiment.seed)
        self.experiment = experiment
        self.model = net(experiment.norm)
        self.train, self.test = loaders(root, workers)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.01, momentum=0.8, weight_decay=experiment.l2
        )
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=0.05, epochs=epochs, steps_per_epoch=len(self.train)
        )

    def epoch(self) -> float:
        """Trains one epoch and gives the test accuracy after it."""
        self.model.train()
        for x, y in self.train:
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(x), y)
            if self.experiment.l1:
                loss = loss + self.experiment.l1 * sum(
                    p.abs().sum() for p in self.model.parameters()
                )
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
        self.model.eval()
        correct = 0
        with torch.no_grad():
            for x, y in self.test:
                correct += (self.model(x).argmax(dim=1) == y).sum().item()
        return correct / len(self.test.dataset)
