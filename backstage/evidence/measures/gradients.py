"""Gradients in deep CNNs at the start, against depth.

1502.03167 (introduction) says that BN tackles vanishing and exploding gradients; 1902.08129 that in
plain fully connected networks, at the start, BN itself makes gradients explode. So: the norms
‖∂L/∂W_l‖ over the layers of plain and residual CNNs of growing depth, from three initializations;
and ``very_deep.py`` trains such networks.
"""

import math
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backstage.evidence.measures.runs import endless
from s6_model import NORMS, make_norm
from utils import Data


@dataclass(frozen=True)
class Setting:
    norm: str = "BN"
    depth: int = 10  # convolutions
    residual: bool = False  # a skip around every two of them
    init: str = "He"  # of the convolutions: "He", "Xavier" or "N(0, 0.01)"
    channels: int = 16  # narrow enough for depth 40 to take a fraction of a second
    batch_size: int = 128  # the lesson's


DEPTHS = (5, 10, 20, 40)
INITS = ("N(0, 0.01)", "Xavier", "He")


def settings() -> dict[str, Setting]:
    """Each norm at each depth, plain and residual, from each initialization."""
    grid = product(INITS, (False, True), DEPTHS, NORMS)
    return {
        f"{norm}, {'residual' if residual else 'plain'}, depth {depth}, {init}": Setting(
            norm, depth, residual, init
        )
        for init, residual, depth, norm in grid
    }


class Block(nn.Module):
    """Convolutions, each with its norm and a ReLU; a residual block adds its input to the last.

    The skip goes around the ReLU too ("pre-activation", 1603.05027), so nothing stands in its way.
    """

    def __init__(self, norm: str, channels: int, convolutions: int, residual: bool):
        super().__init__()
        self.residual = residual
        self.layers = nn.Sequential()
        for _ in range(convolutions):
            convolution = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
            layers = [convolution, make_norm(norm, channels), nn.ReLU()]
            if residual:  # norm, ReLU, convolution
                layers = [*layers[1:], layers[0]]
            self.layers.extend(layers)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return x + self.layers(x) if self.residual else self.layers(x)


def deep_cnn(setting: Setting) -> nn.Sequential:
    """(N, 1, 28, 28) -> (N, 10); ``depth`` convolutions, all but the first at 4 x 4 pixels.

    The first strides by 7, which makes depth 40 cheap and leaves every layer behind it the same
    shape, so that their gradients compare. The head sees every pixel, as VGG's did: behind an
    average over the pixels, a plain network of depth 20 without a norm got to 20% at most in a
    pilot of one epoch, and the claim would be tested against a weaker rival than there is.
    """
    norm, channels, more = setting.norm, setting.channels, setting.depth - 1
    if setting.residual:
        blocks = [
            Block(norm, channels, size, True) for size in [2] * (more // 2) + [1] * (more % 2)
        ]
        blocks += [make_norm(norm, channels), nn.ReLU()]
    else:
        blocks = [make_norm(norm, channels), nn.ReLU(), Block(norm, channels, more, False)]
    model = nn.Sequential(
        nn.Conv2d(1, channels, kernel_size=7, stride=7, bias=False),  # (N, C, 4, 4)
        *blocks,  # (N, C, 4, 4)
        nn.Flatten(),
        nn.Linear(channels * 4 * 4, 10),
    )
    first, *inner = convolutions(model)
    initialize(first.weight, setting.init)
    # On 4 x 4 pixels, a signal that passes layer after layer gathers in the middle, where windows
    # lie more inside: 0.76 of its energy stays, the largest eigenvalue of "add up 3 neighbours of 4
    # and divide by 3", once for H and once for W.
    seen = ((1 + 2 * math.cos(math.pi / 5)) / 3) ** 2
    for convolution in inner:
        initialize(convolution.weight, setting.init, seen)
    return model


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]


def initialize(weight: Tensor, init: str, seen: float = 1.0) -> None:
    """Draws from a normal distribution: its σ is 0.01 or, for He and Xavier, set by the fans.

    ``seen`` is the share of a window that is not zero padding. He and Xavier count all of it, which
    on small maps makes the signal of a network without a norm fade by depth 40.
    """
    if init == "N(0, 0.01)":  # σ = 0.01, as AlexNet's
        nn.init.normal_(weight, std=0.01)
    elif init == "Xavier":
        nn.init.xavier_normal_(weight, gain=seen**-0.5)
    elif init == "He":
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
        weight.data.mul_(seen**-0.5)
    else:
        raise ValueError(f"Unknown initialization {init!r}: use one of {', '.join(INITS)}.")


def gradient_norms(model: nn.Module, x: Tensor, y: Tensor) -> list[float]:
    """‖∂L/∂W_l‖ of each convolution, from the first to the last, for one batch's loss."""
    loss = F.cross_entropy(model.train()(x), y)
    weights = [convolution.weight for convolution in convolutions(model)]
    # In float64, or squares below 1e-38 would add up to 0.
    return [g.double().norm().item() for g in torch.autograd.grad(loss, weights)]


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """The gradients of the first batch at the start.

    ``norms``: ‖∂L/∂W_l‖ from the first convolution to the last; ``smallest`` and ``largest`` of
    them; ``growth``, the factor per layer from the last inner layer back to the first, a straight
    line through their logarithms (None where a gradient is 0).
    """
    torch.manual_seed(seed)
    model = deep_cnn(setting)
    x, y = next(endless(data.train, setting.batch_size, seed))
    norms = gradient_norms(model, x, y)
    return {
        "norms": norms,
        "smallest": min(norms),
        "largest": max(norms),
        "growth": growth_per_layer(norms[1:]),
    }


def growth_per_layer(norms: list[float]) -> float | None:
    """exp(−slope) of log ‖∂L/∂W_l‖ over l: above 1, gradients grow on their way back."""
    if min(norms) == 0:
        return None
    logs = torch.tensor(norms, dtype=torch.double).log()
    layer = torch.arange(len(norms), dtype=torch.double)
    layer -= layer.mean()
    return math.exp(-(layer @ logs / (layer @ layer)).item())
