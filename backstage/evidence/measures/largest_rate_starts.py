"""The largest learning rate at which the lesson's network still trains, from two starts.

As ``largest_rate.py`` (1502.03167, section 3.3; 1806.02375), for the CNN alone, from torch's
default start and from He's (``two_starts.started``): without a norm, torch's default leaves the
network on a plateau, where 200 steps at a small rate are too few, and how large a rate it bears
depends on the start.
"""

from dataclasses import dataclass
from itertools import product

import torch
from torch import nn

from backstage.evidence.measures.largest_rate import largest
from backstage.evidence.measures.two_starts import STARTS, started
from s6_model import NORMS, Net
from utils import Data


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
    """As ``largest_rate.largest``."""

    def make() -> nn.Module:
        net = started(Net(setting.norm), setting.start)
        return net.to(memory_format=torch.channels_last)

    return largest(make, setting, seed, data)
