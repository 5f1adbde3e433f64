"""What deep CNNs learn in one epoch or in ten, with and without a norm, against their depth.

The networks are those of ``gradients.py``, from He's initialization, 1.15 times as large for the
zero padding of small maps, which suits the network without a norm: that BN makes very deep CNNs
trainable (1512.03385, section 3.4, trains with it) has to hold against such a start, and at each
arm's best rate. Fixup (1901.09321) and NFNets (2102.06171) train deep without a norm.

The rate falls to nothing in a straight line: at a constant one, one epoch would end with BN's
running averages behind its weights (``two_starts.py``), and its test accuracy would show that.
"""

from dataclasses import dataclass
from itertools import product

import torch

from backstage.evidence.measures import gradients
from backstage.evidence.measures.runs import endless, part, step, with_validation
from s6_model import NORMS
from utils import Data, Images, evaluate


@dataclass(frozen=True)
class Setting:
    norm: str = "BN"
    depth: int = 10  # convolutions
    residual: bool = False  # a skip around every two of them
    lr: float = 0.03  # of SGD at the first step
    momentum: float = 0.9  # the usual one
    init: str = "He"  # of the convolutions
    channels: int = 16  # narrow, so that depth 40 takes seconds
    images: int = 5_000  # a stratified twelfth of MNIST,
    batch_size: int = 64  # so that an epoch is 79 steps, as of 10,000 images in batches of 128
    epochs: int = 1
    tested: int = 2_500  # a stratified quarter: the differences are far above its error


DEPTHS = (5, 10, 20, 40)
RATES = (0.003, 0.01, 0.03, 0.1)  # with skips, BN and GN do best at the last one


def settings() -> dict[str, Setting]:
    """Each norm at each depth, plain and residual, at each rate."""
    return {
        f"{norm}, {'residual' if residual else 'plain'}, depth {depth}, rate {lr:g}": Setting(
            norm, depth, residual, lr
        )
        for residual, depth, norm, lr in product((False, True), DEPTHS, NORMS, RATES)
    }


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """Test accuracy in 0..1 after training; a diverged network's is that of guessing."""
    model = trained(setting, seed, part(data.train, setting.images))
    return {"test_accuracy": evaluate(model, part(data.test, setting.tested))[1]}


# For ten epochs, around each arm's best rate: without a norm, skips want a small one.
RATES_OF_TEN = {
    ("none", False): (0.0003, 0.001, 0.003, 0.01, 0.03),
    ("none", True): (0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01),
    ("BN", False): (0.001, 0.003, 0.01, 0.03, 0.1),
    ("BN", True): (0.01, 0.03, 0.1, 0.3, 1.0),
}


def ten_epochs() -> dict[str, Setting]:
    """With BN and without, plain and residual, at depth 20 and 40."""
    return {
        f"{norm}, {'residual' if residual else 'plain'}, depth {depth}, rate {lr:g}": Setting(
            norm, depth, residual, lr, epochs=10
        )
        for (norm, residual), rates in RATES_OF_TEN.items()
        for depth, lr in product((20, 40), rates)
    }


def measure_ten(setting: Setting, seed: int, data: Data) -> dict:
    """As ``measure``; and on 5,000 validation images, by which the rate of an arm is chosen."""
    data = with_validation(data, 5_000)
    model = trained(setting, seed, part(data.train, setting.images))
    return {
        "val_accuracy": evaluate(model, data.val)[1],
        "test_accuracy": evaluate(model, data.test)[1],
    }


def trained(setting: Setting, seed: int, images: Images) -> torch.nn.Module:
    torch.manual_seed(seed)
    network = gradients.Setting(
        setting.norm, setting.depth, setting.residual, setting.init, setting.channels
    )
    model = gradients.deep_cnn(network).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), setting.lr, momentum=setting.momentum, fused=True
    )
    steps = setting.epochs * -(-len(images) // setting.batch_size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, total_iters=steps)
    supply = endless(images, setting.batch_size, seed)
    for _ in range(steps):
        step(model, optimizer, *next(supply))
        schedule.step()
    return model
