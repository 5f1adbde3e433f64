"""How far L2 lets the weights under a norm turn per step: 2006.08419's angle, in equilibrium.

The gradient of scale-invariant weights is perpendicular to them, so each step of plain SGD
lengthens w, and L2 shortens it by the factor 1 − ηλ. Where both balance, w turns by an angle of
√(2ηλ) per step (√(2ηλ/(1 + α)) with momentum α), whatever the size it started from.
"""

from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from backstage.evidence.measures.runs import endless, part, step
from s6_model import Net
from utils import Data

IMAGES = 10_000


@dataclass(frozen=True)
class Setting:
    lr: float
    l2: float  # on the convolutions alone: so large a λ would leave nothing of the head
    norm: str = "BN"
    batch_size: int = 16  # the steps are what counts

    @property
    def steps(self) -> int:
        """‖w‖⁴ nears its equilibrium as e^(−4ηλt), which is e^−3 = 0.05 half-way.

        At least 300: a network that is still learning fast changes its gradients faster than that.
        """
        return max(300, round(1.5 / (self.lr * self.l2)))


PRODUCTS = (2e-2, 6e-3, 2e-3)  # η·λ, each about a third of the last


def settings() -> dict[str, Setting]:
    """BN at each product, GN at the middle one, and there η and λ also split otherwise."""
    found = {f"BN, ηλ = {p:g}": Setting(0.1, p / 0.1) for p in PRODUCTS}
    middle = PRODUCTS[1]
    found[f"BN, ηλ = {middle:g}, η = 0.3"] = Setting(0.3, middle / 0.3)
    found[f"GN, ηλ = {middle:g}"] = Setting(0.1, middle / 0.1, norm="GN")
    return found


def convolutions(model: Net) -> list[nn.Parameter]:
    """The weights with a norm behind them, which do not depend on their size."""
    return [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Between two vectors, in radians; exact for small angles, where the arc cosine is not."""
    a, b = (v.detach().double().flatten() for v in (a, b))
    a, b = a / a.norm(), b / b.norm()
    return 2 * torch.asin((a - b).norm() / 2)


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """``angle``: radians per step, root mean square over the layers and the second half's steps."""
    images = part(data.train, IMAGES)
    torch.manual_seed(seed)
    model = Net(setting.norm).to(memory_format=torch.channels_last).train()
    own = convolutions(model)
    others = [p for p in model.parameters() if not any(p is w for w in own)]
    groups = [{"params": own, "weight_decay": setting.l2}, {"params": others}]
    optimizer = torch.optim.SGD(groups, setting.lr)
    squares = []
    supply = endless(images, setting.batch_size, seed)
    for done, (x, y) in enumerate(islice(supply, setting.steps)):
        before = [w.detach().clone() for w in own]
        loss = step(model, optimizer, x, y)
        if done >= setting.steps // 2:
            turned = [angle(a, b) for a, b in zip(before, own, strict=True)]
            squares.append(torch.stack(turned).square())
    layers = torch.stack(squares).mean(0).sqrt()
    return {
        "angle": layers.square().mean().sqrt().item(),
        "angles": [round(a, 6) for a in layers.tolist()],  # layer by layer
        "loss": loss,
    }
