"""L2 under BN on 300 images, the course's largest gain by a penalty: regularization, or a rate?

Behind a norm, L2 on a convolution's weights changes no function; it shrinks them, and so raises
their effective rate (1706.05350; ``matched_rate.py``). On the head, which has no norm behind it, L2
regularizes. So: L2 on everything, on the convolutions alone, on the head alone, and none at once,
twice and three times the rate. But at a higher rate the weights grow longer, and eat most of it up.
So also: no L2, and each convolution's weights rescaled after each step to their length at the
start, or to two thirds of it, about where L2 on the convolutions ends. Behind a norm this changes
no function, only the effective rate. If the gain is the rate's, these arms have it without L2.

The runs are those of ``few_images.py`` with BN on 300 images, at the strength chosen there; "all"
and "none" are its rows "BN + L2, 300" and "BN, 300".
"""

from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import torch
import torch.nn.functional as F

from backstage.evidence.measures.few_images import CHOSEN, SmallExperiment, drawn
from backstage.evidence.measures.runs import score, supply
from s6_model import Net
from utils import Data, make_optimizer

L2 = CHOSEN["BN, L2"][0]  # at 300 images


@dataclass(frozen=True)
class PartExperiment(SmallExperiment):
    """``l2`` acts on a part of the weights; ``lr`` is of all parameters."""

    norm: str = "BN"
    l2_on: Literal["none", "all", "convolutions", "head"] = "none"
    length: float = 0.0  # of each convolution's weights, in units of the start's; 0: free


def settings() -> dict[str, PartExperiment]:
    found = {
        f"L2 on {part}": PartExperiment(l2=L2, l2_on=part)
        for part in ("all", "convolutions", "head")
    }
    rate = PartExperiment().lr
    found |= {f"no L2, rate x {k}": PartExperiment(lr=k * rate) for k in (1, 2, 3)}
    return found | {f"no L2, length x {k:g}": PartExperiment(length=k) for k in (1.0, 0.66)}


def weights_in(model: Net, part: str) -> list[torch.Tensor]:
    """Those that L2 acts on."""
    convolutions = [m.weight for m in model.features if isinstance(m, torch.nn.Conv2d)]
    head = [model.head.weight]
    return {"none": [], "convolutions": convolutions, "head": head, "all": convolutions + head}[
        part
    ]


@torch.no_grad()
def rescale(weights: list[torch.Tensor], lengths: list[float]) -> None:
    """Makes each tensor as long as that, in place."""
    for w, length in zip(weights, lengths, strict=True):
        w *= length / w.norm()


def trained(experiment: PartExperiment, data: Data) -> Net:
    """The network after all steps, by the lesson's Adam."""
    torch.manual_seed(experiment.seed)
    model = Net(experiment.norm).to(memory_format=torch.channels_last).train()
    decayed, convolutions = (weights_in(model, p) for p in (experiment.l2_on, "convolutions"))
    lengths = [experiment.length * w.norm().item() for w in convolutions]
    optimizer, scheduler = make_optimizer(experiment, model, experiment.steps)
    for x, y in islice(supply(data.train, experiment), experiment.steps):
        squares = sum(w.square().sum() for w in decayed)
        loss = F.cross_entropy(model(x), y) + experiment.l2 * 0.5 * squares
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if experiment.length:
            rescale(convolutions, lengths)
    return model


def measure(experiment: PartExperiment, seed: int, data: Data) -> dict:
    """``score`` at the end, and ‖w‖ of the convolutions and of the head at the end."""
    data = drawn(data, experiment.size, seed)
    model = trained(replace(experiment, seed=seed), data)
    norms = {
        f"{part}_norm": torch.cat([w.detach().flatten() for w in weights_in(model, part)])
        .norm()
        .item()
        for part in ("convolutions", "head")
    }
    return score(model, data) | norms
