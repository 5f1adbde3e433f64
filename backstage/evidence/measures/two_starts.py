"""The lesson's network with and without a norm, from two starts, at six rates of plain SGD.

What 1502.03167 (abstract: "much higher learning rates", "less careful about initialization") and
1806.02375 claim, in its simplest form: the same network, the same weights to start from, the same
short training, and only the norm differs. Adam and a schedule, which hide most of the difference,
are left out on purpose.

Torch's default start draws the weights too small for a network of five ReLUs, which without a norm
begins on a plateau. A good start does part of what a norm does. He's is ``kaiming_normal_`` as it
comes (1502.01852, section 2.2): σ = √(2 / fan_in), on all convolutions and the head; the head's
bias, γ and β are left as they are.

The rows also show how BN differs between training and evaluation (1502.03167, section 3.1): its
test accuracy is measured twice, with the running averages that ``model.eval()`` uses and with the
statistics of each test batch.

The rate of each arm is to be chosen by ``val_accuracy``: these images are neither trained nor
tested on.
"""

from dataclasses import dataclass
from itertools import product

import torch
from torch import nn

from backstage.evidence.bn_statistics import evaluate_by_batch
from backstage.evidence.measures.runs import epoch_of, part, step, with_validation
from s6_model import NORMS, Net
from utils import Data, evaluate


@dataclass(frozen=True)
class Setting:
    norm: str = "BN"
    start: str = "default"  # torch's own, or "He"
    lr: float = 0.1
    momentum: float = 0.9  # the usual one
    epochs: int = 2  # enough to tell who has learned anything
    images: int = 10_000  # a stratified part of the training images: a run takes seconds
    validation: int = 5_000  # of the others
    batch_size: int = 128  # the lesson's


STARTS = ("default", "He")
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # SGD's whole useful range here, in steps of about 3


def settings() -> dict[str, Setting]:
    """Each norm from each start at each rate."""
    return {
        f"{norm}, {start}, rate {lr:g}": Setting(norm, start, lr)
        for start, norm, lr in product(STARTS, NORMS, RATES)
    }


def started(model: nn.Module, start: str) -> nn.Module:
    """The model; with "He", its convolutions and linear layers have new weights."""
    if start not in STARTS:
        raise ValueError(f"Unknown start {start!r}: use one of {', '.join(STARTS)}.")
    if start == "He":
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    return model


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """Accuracies in 0..1 after each epoch; a diverged network's is that of guessing.

    ``running_accuracy`` is that of ``model.eval()`` on the test images, where BN uses its running
    averages; ``batch_accuracy``, for BN only, is with the statistics of each test batch.
    ``test_accuracy`` is the last ``running_accuracy``; ``val_accuracy`` likewise on the validation
    images.
    """
    data = with_validation(data, setting.validation)
    images = part(data.train, setting.images)
    torch.manual_seed(seed)
    model = started(Net(setting.norm), setting.start).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), setting.lr, momentum=setting.momentum, fused=True
    )
    running, batch = [], []
    for epoch in range(1, setting.epochs + 1):
        model.train()
        for x, y in epoch_of(images, setting.batch_size, seed, epoch):
            step(model, optimizer, x, y)
        running.append(evaluate(model, data.test)[1])
        if setting.norm == "BN":  # the other norms compute the same in both modes
            batch.append(evaluate_by_batch(model, data.test, setting.batch_size)[1])
    return {
        "val_accuracy": evaluate(model, data.val)[1],
        "test_accuracy": running[-1],
        "running_accuracy": running,
        "batch_accuracy": batch,
    }
