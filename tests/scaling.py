"""Two runs that differ in the size of the weights under a norm, held against each other in float64.

The gradient of scale-invariant weights is g(2w) = g(w)/2 (arXiv 1706.05350, section 2). A run from
2w stays at twice the other's weights, and so at the same function, if each of its steps is twice as
large. SGD steps by η·(g + λw), so it needs 4η, and λ/4 to keep g and λw in proportion. Adam divides
the gradient by its size, so its step is η whatever the gradient's scale: it needs 2η, and λ/4.
Adam's and the norms' ε are scaled along, as they stand beside quantities that are.
"""

import functools
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backstage.evidence.measures import matched_rate
from s6_model import Net

LR, L2 = 0.05, 0.01


def start(norm: str) -> tuple[Net, list[nn.Parameter], Tensor, Tensor]:
    """A network in float64 with its convolutions' weights, and one random batch."""
    x = torch.randn(20, 1, 20, 20, generator=torch.Generator().manual_seed(0)).double()
    torch.manual_seed(0)
    model = Net(norm).double()
    convolutions = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    return model, convolutions, x, torch.arange(20) % 10


@functools.cache
def logits_after(
    norm: str, optimizer: str, scale: float = 1, times_lr: float = 1, steps: int = 5
) -> Tensor:
    """Logits (20, 10) after so many steps on one random batch, in float64.

    Args:
        norm: of the network.
        optimizer: ``"SGD"``, with momentum 0.9, or ``"Adam"``.
        scale: of the convolutions' weights at the start; their λ is divided by its square, and the
            norms' ε multiplied, for it is added to a variance that grows as much.
        times_lr: of the convolutions' learning rate; head, γ and β keep theirs, without L2.
    """
    model, convolutions, x, y = start(norm)
    with torch.no_grad():
        for w in convolutions:
            w *= scale
    for layer in model.modules():
        if hasattr(layer, "eps"):
            layer.eps *= scale**2
    own = {id(w) for w in convolutions}
    groups = [
        {"params": convolutions, "lr": LR * times_lr, "weight_decay": L2 / scale**2},
        {"params": [p for p in model.parameters() if id(p) not in own]},
    ]
    if optimizer == "Adam":
        groups[0]["eps"] = 1e-8 / scale
        stepper = torch.optim.Adam(groups, LR)
    else:
        stepper = torch.optim.SGD(groups, LR, momentum=0.9)
    for _ in range(steps):
        stepper.zero_grad()
        F.cross_entropy(model(x), y).backward()
        stepper.step()
    return model(x).detach()


def apart(norm: str, optimizer: str, times_lr: float) -> float:
    """How far the logits of (w, η, λ) and (2w, times_lr·η, λ/4) are apart, at most."""
    one = logits_after(norm, optimizer)
    return (one - logits_after(norm, optimizer, scale=2, times_lr=times_lr)).abs().max().item()


@functools.cache
def logits_with(norm: str, l2: float = 0, matched: float = 0, steps: int = 20) -> Tensor:
    """Logits (20, 10) after plain SGD on one batch, in float64, the rate falling to 0.

    Args:
        norm: of the network; its ε is next to nothing, as it alone would tell w from αw.
        l2: λ, on the convolutions only: the head, which has no norm behind it, stays as it is.
        matched: the λ in whose place the convolutions get the rates of ``matched_rate.rates``.
        steps: how many.
    """
    model, _, x, y = start(norm)
    for layer in model.modules():
        if hasattr(layer, "eps"):
            layer.eps = 1e-30
    model.head.weight.requires_grad_(False)
    setting = matched_rate.Setting(l2=l2, matched=matched, lr=LR, steps=steps)
    return matched_rate.trained_at(setting, model, repeat((x, y)))(x).detach()


def unmatched(norm: str, l2: float = 0.05) -> tuple[float, float]:
    """How far a run without L2 is from one with it: at the matched rate, and at the same one."""
    one = logits_with(norm, l2=l2)
    others = (logits_with(norm, matched=l2), logits_with(norm))
    return tuple((one - other).abs().max().item() for other in others)
