"""The lesson's network with and without a norm, at six learning rates of plain SGD.

What 1502.03167 (abstract: "much higher learning rates", "less careful about initialization") and
1806.02375 claim, in its simplest form: the same network, the same weights to start from, the same
short training, and only the norm differs. Adam and a schedule, which hide most of the difference,
are left out on purpose.

The rows also show how BN differs between training and evaluation (1502.03167, section 3.1): its
test accuracy is measured twice, with the running averages that ``model.eval()`` uses and with the
statistics of each test batch.
"""

from dataclasses import dataclass

import torch

from backstage.evidence.bn_statistics import evaluate_by_batch
from backstage.evidence.measures.runs import epoch_of, part, step
from s6_model import NORMS, Net
from utils import Data, evaluate


@dataclass(frozen=True)
class Setting:
    norm: str = "BN"
    lr: float = 0.1
    momentum: float = 0.9  # the usual one
    epochs: int = 2  # enough to tell who has learned anything
    images: int = 10_000  # a stratified sixth of MNIST: 24 runs take less than a minute
    batch_size: int = 128  # the lesson's


RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # SGD's whole useful range here, in steps of about 3


def settings() -> dict[str, Setting]:
    """Each norm at each rate."""
    return {f"{norm}, rate {lr:g}": Setting(norm, lr) for norm in NORMS for lr in RATES}


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """Test accuracies in 0..1 after each epoch; a diverged network's is that of guessing.

    ``running_accuracy`` is that of ``model.eval()``, where BN uses its running averages;
    ``batch_accuracy``, for BN only, is with the statistics of each test batch. ``test_accuracy``
    is the last ``running_accuracy``.
    """
    images = part(data.train, setting.images)
    torch.manual_seed(seed)
    model = Net(setting.norm).to(memory_format=torch.channels_last)
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
        "test_accuracy": running[-1],
        "running_accuracy": running,
        "batch_accuracy": batch,
    }
