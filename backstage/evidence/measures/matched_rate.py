"""Does L2 do anything under BN that a learning rate would not?

Under a norm, the gradient is g(αw) = g(w)/α. Put w_t = α_t·u_t with α_{t+1} = (1 − η_t·λ)·α_t, and
a step of plain SGD with L2, w ← (1 − η_t·λ)·w − η_t·g(w), becomes one of u without any,

    u ← u − η_t / (α_t·α_{t+1}) · g(u),

with a rate that grows as the weights of the first run shrink (arXiv 1910.07454 has this
for a constant rate). u and w are the same function at each step, but for the norm's ε. Only
the head, which has no norm behind it, is left as a place where L2 could do something of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from backstage.evidence.measures.runs import endless, part, step
from s6_model import Net, l2_loss
from utils import Data, evaluate

IMAGES = 10_000


@dataclass(frozen=True)
class Setting:
    l2: float = 0.0  # on all weights, convolutions and head, as in the lesson
    matched: float = 0.0  # the λ whose effective rates the convolutions get instead
    norm: str = "BN"
    lr: float = 0.3  # at the start; it falls to 0 on a straight line
    steps: int = 200
    batch_size: int = 32


STRENGTH = 1e-2  # leaves the weights 0.74 times as large, and matched rates 1.8 times as high


def settings() -> dict[str, Setting]:
    return {
        "L2": Setting(l2=STRENGTH),
        "no L2, matched rate": Setting(matched=STRENGTH),
        "no L2": Setting(),
    }


def rates(setting: Setting) -> Iterator[tuple[float, float]]:
    """For each step the rate of the head, γ and β, and the one of the convolutions."""
    shrunk = 1.0  # α
    for done in range(setting.steps):
        lr = setting.lr * (1 - done / setting.steps)
        after = shrunk * (1 - lr * setting.matched)
        yield lr, lr / (shrunk * after)
        shrunk = after


def trained_at(setting: Setting, model: Net, supply: Iterator) -> Net:
    """The model, trained in place by plain SGD."""
    normalized = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    own = {id(p) for p in normalized}
    others = [p for p in model.parameters() if id(p) not in own]
    optimizer = torch.optim.SGD([{"params": others}, {"params": normalized}], setting.lr)
    for both, (x, y) in zip(rates(setting), islice(supply, setting.steps), strict=True):
        for group, lr in zip(optimizer.param_groups, both, strict=True):
            group["lr"] = lr
        step(model, optimizer, x, y, lambda: setting.l2 * l2_loss(model))
    return model


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """Test accuracy in 0..1 at the end."""
    images = part(data.train, IMAGES)
    torch.manual_seed(seed)
    model = Net(setting.norm).to(memory_format=torch.channels_last).train()
    trained_at(setting, model, endless(images, setting.batch_size, seed))
    return {"test_accuracy": evaluate(model, data.test)[1]}
