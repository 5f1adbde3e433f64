"""The largest learning rate at which the lesson's network still trains, from two starts.

As ``largest_rate.py`` (1502.03167, section 3.3; 1806.02375), for the CNN alone, from torch's
default start and from He's (``two_starts.started``): without a norm, torch's default leaves the
network on a plateau, where 200 steps at a small rate are too few, and how large a rate it bears
depends on the start.
"""

from dataclasses import dataclass
from itertools import product

import torch

from backstage.evidence.measures.largest_rate import RATES, largest
from backstage.evidence.measures.runs import endless, step, with_validation
from backstage.evidence.measures.two_starts import STARTS, started
from s6_model import NORMS, Net
from utils import Data, evaluate


@dataclass(frozen=True)
class Setting:
    norm: str = "BN"
    start: str = "default"  # torch's own, or "He"
    momentum: float = 0.9  # this and what follows as in largest_rate.py
    batch_size: int = 60
    steps: int = 200
    accuracy: float = 0.5  # on the validation images; from there up, it trains
    validation: int = 2_000  # images


def settings() -> dict[str, Setting]:
    """Each norm from each start."""
    return {f"{norm}, {start}": Setting(norm, start) for start, norm in product(STARTS, NORMS)}


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """``largest_rate``, None where not even the first of ``RATES`` trains.

    Found by bisection, and, if that finds nothing, from its first rate down, as in
    ``largest_rate.py``. ``tried`` lists the rates looked at, in rising order, with their validation
    accuracies in 0..1.
    """
    data = with_validation(data, setting.validation)
    return largest(RATES, lambda lr: accuracy_at(lr, setting, seed, data), setting.accuracy)


def accuracy_at(lr: float, setting: Setting, seed: int, data: Data) -> float:
    """Validation accuracy in 0..1 after training at that rate; 0 where the loss blew up."""
    torch.manual_seed(seed)
    model = started(Net(setting.norm), setting.start).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=setting.momentum, fused=True)
    supply = endless(data.train, setting.batch_size, seed)
    for _ in range(setting.steps):
        if not step(model, optimizer, *next(supply)) < float("inf"):
            return 0.0
    return evaluate(model, data.val)[1]
