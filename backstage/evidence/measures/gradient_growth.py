"""How gradients grow over the layers of deep networks, at the start and after one step.

1902.08129 (abstract): in fully connected networks with BN, gradients explode with depth *at
initialization*, and a norm cannot help it; for ReLU the factor is √(π/(π − 1)) ≈ 1.21 per layer
(section 3); "after a single step of optimization the networks achieve a relatively stable
equilibrium in which gradients have dramatically smaller dynamic range". So: the norms ‖∂L/∂W_l‖
over the layers of the deep CNNs of ``gradients.py``, plain and with skips, and of plain MLPs, as
the paper's; before and after one step of plain SGD at three rates.

Where this departs from ``gradients.py``: all weights behind the input start from plain
``kaiming_normal_`` (fan_in, ReLU), with no correction for the zero padding of small maps, which
would suit the network without a norm alone. Where it departs from the paper: the step is taken on
real images, not noise.
"""

from dataclasses import dataclass
from itertools import product

import torch
from torch import nn

from backstage.evidence.measures import gradients
from backstage.evidence.measures.gradients import growth_per_layer
from backstage.evidence.measures.runs import endless, step
from s6_model import NORMS
from utils import Data


@dataclass(frozen=True)
class Setting:
    network: str = "CNN"  # gradients.py's, or "MLP"
    norm: str = "BN"
    depth: int = 10  # convolutions, or linear layers before the head
    residual: bool = False  # a skip around every two convolutions
    lr: float = 0.1  # of the one step, plain SGD without momentum
    channels: int = 16  # of the CNN, narrow enough for depth 40 to take a fraction of a second
    width: int = 256  # of the MLP
    batch_size: int = 128  # the lesson's


DEPTHS = (5, 10, 20, 40)
RATES = (0.01, 0.1, 1.0)


def settings() -> dict[str, Setting]:
    """Each norm at each depth and rate. An MLP's units have no order, so no groups."""
    kinds = (("CNN", False), ("CNN", True), ("MLP", False))
    return {
        f"{network}, {norm}, {'residual' if residual else 'plain'}, depth {depth}, rate {lr:g}": (
            Setting(network, norm, depth, residual, lr)
        )
        for (network, residual), depth, norm, lr in product(kinds, DEPTHS, NORMS, RATES)
        if network == "CNN" or norm != "GN"
    }


def make_network(setting: Setting) -> nn.Module:
    """(N, 1, 28, 28) -> (N, 10), its weights drawn by plain ``kaiming_normal_``, the head's not."""
    if setting.network == "CNN":
        model = gradients.deep_cnn(
            gradients.Setting(setting.norm, setting.depth, setting.residual, "He", setting.channels)
        )
    else:
        model = deep_mlp(setting)
    for layer in inner_layers(model):
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    return model


def deep_mlp(setting: Setting) -> nn.Sequential:
    """``depth`` times linear, norm, ReLU, and a head."""
    norms = {"BN": nn.BatchNorm1d, "LN": nn.LayerNorm, "none": nn.Identity}
    layers, features = [nn.Flatten()], 784
    for _ in range(setting.depth):
        linear = nn.Linear(features, setting.width, bias=False)
        layers += [linear, norms[setting.norm](setting.width), nn.ReLU()]
        features = setting.width
    return nn.Sequential(*layers, nn.Linear(features, 10))


def inner_layers(model: nn.Module) -> list[nn.Module]:
    """All convolutions and linear layers but the head."""
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)][:-1]


def gradient_norms(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[float]:
    """‖∂L/∂W_l‖ of each inner layer, from the first to the last, for one batch's loss."""
    loss = nn.functional.cross_entropy(model.train()(x), y)
    weights = [layer.weight for layer in inner_layers(model)]
    # In float64, or squares below 1e-38 would add up to 0.
    return [g.double().norm().item() for g in torch.autograd.grad(loss, weights)]


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """The gradients of the first batch at the start, and of the second after one step.

    ``norms``: ‖∂L/∂W_l‖ from the first layer to the last; ``smallest`` and ``largest`` of them;
    ``growth``, the factor per layer from the last inner layer back to the second, a straight line
    through their logarithms (None where a gradient is 0 or not finite). ``after_…``: likewise after
    a step on the first batch.
    """
    torch.manual_seed(seed)
    model = make_network(setting)
    supply = endless(data.train, setting.batch_size, seed)
    x, y = next(supply)
    found = described(gradient_norms(model, x, y), "")
    step(model, torch.optim.SGD(model.parameters(), setting.lr), x, y)
    return found | described(gradient_norms(model, *next(supply)), "after_")


def described(norms: list[float], prefix: str) -> dict:
    finite = all(n < float("inf") for n in norms)
    found = {
        "norms": norms if finite else None,
        "smallest": min(norms) if finite else None,
        "largest": max(norms) if finite else None,
        "growth": growth_per_layer(norms[1:]) if finite else None,
    }
    return {prefix + name: value for name, value in found.items()}
