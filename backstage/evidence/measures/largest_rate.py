"""The largest learning rate that still trains, with and without a norm.

1502.03167 (section 3.3): BN "enables higher learning rates"; 1806.02375: that is its whole gain.
The networks, their start and the batches are those of ``faster.py``. A rate "trains" where, after
200 steps, the loss is finite and the validation accuracy at least 50%: well above guessing, and
below what any arm has by then at a good rate. (1806.02375 asks whether the loss explodes within an
epoch; an accuracy also finds networks that are merely dead.)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from backstage.evidence.measures.faster import make_network
from backstage.evidence.measures.runs import endless, step, with_validation
from s6_model import NORMS
from utils import Data, evaluate


@dataclass(frozen=True)
class Setting:
    network: str = "ReLU MLP"  # or "sigmoid MLP"
    norm: str = "BN"
    momentum: float = 0.9  # as in faster.py
    batch_size: int = 60  # as in faster.py
    steps: int = 200  # a fifth of an epoch: a rate that is too large fails at once
    accuracy: float = 0.5  # on the validation images; from there up, it trains
    validation: int = 2_000  # images


RATES = tuple(2.0 ** (k / 2) / 256 for k in range(32))  # 0.004 to 181, each 1.41 times the last


def settings() -> dict[str, Setting]:
    """Each network with each norm. An MLP's units have no order, so no groups."""
    return {
        f"{network}, {norm}": Setting(network, norm)
        for network in ("ReLU MLP", "sigmoid MLP")
        for norm in NORMS
        if norm != "GN"
    }


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """``largest`` of the setting's network."""
    return largest(lambda: make_network(setting.network, setting.norm), setting, seed, data)


def largest(make: Callable[[], nn.Module], setting: Setting, seed: int, data: Data) -> dict:
    """``largest_rate``, None where not even the first of ``RATES`` trains.

    Found by bisection, which takes for granted that below a rate that trains all do. That fails
    where 200 steps at a small rate are too few; if it finds nothing, it goes down from the first
    rate it looked at, one by one. ``tried`` lists the rates it looked at, in rising order, with
    their validation accuracies in 0..1.
    """
    data, tried = with_validation(data, setting.validation), {}

    def trains(i: int) -> bool:
        tried[RATES[i]] = accuracy_at(RATES[i], make, setting, seed, data)
        return tried[RATES[i]] >= setting.accuracy

    last = last_true(trains, len(RATES))
    if last is None:
        last = next((i for i in range((len(RATES) - 1) // 2, -1, -1) if trains(i)), None)
    return {
        "largest_rate": None if last is None else RATES[last],
        "tried": [[rate, tried[rate]] for rate in sorted(tried)],
    }


def last_true(holds: Callable[[int], bool], count: int) -> int | None:
    """The last i in 0..count − 1 that holds, where all that hold come first; None if none does."""
    low, high = -1, count  # the last known to hold, the first known not to
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return None if low < 0 else low


def accuracy_at(
    lr: float, make: Callable[[], nn.Module], setting: Setting, seed: int, data: Data
) -> float:
    """Validation accuracy in 0..1 after training at that rate; 0 where the loss blew up."""
    torch.manual_seed(seed)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=setting.momentum, fused=True)
    supply = endless(data.train, setting.batch_size, seed)
    for _ in range(setting.steps):
        if not step(model, optimizer, *next(supply)) < float("inf"):
            return 0.0
    return evaluate(model, data.val)[1]
