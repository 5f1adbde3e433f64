"""Does a network train slowly because the inputs of its layers keep shifting?

1502.03167 says so, and that BN helps because it holds their mean and variance fixed. 1805.11604
(section 2.2 and figure 2) puts it to the test: behind each BN it adds noise, whose mean and scale
change with every step, channel and image. If a shifting distribution were what slows training down,
that network would have to be slow. Here: the lesson's network from He's start, plain SGD with
momentum, 158 steps (two epochs of 10,000 images); without a norm, with BN, and with BN and noise.
"""

from dataclasses import dataclass
from itertools import islice, pairwise

import torch
from torch import Tensor, nn

from backstage.evidence.measures.runs import endless, part, step
from backstage.evidence.measures.two_starts import started
from s6_model import Net, make_norm
from utils import Data


@dataclass(frozen=True)
class Setting:
    norm: str = "BN"
    noise: float = 0.0  # the largest shift of a channel's mean, in γ's units
    lr: float = 0.03  # of SGD; from He's start all arms train at it
    momentum: float = 0.9
    steps: int = 158
    images: int = 10_000
    batch_size: int = 128
    last: int = 20  # steps whose mean loss counts


def settings() -> dict[str, Setting]:
    """No norm, BN, and BN with two amounts of noise; the paper's is 0.5."""
    arms = (("none", 0.0), ("BN", 0.0), ("BN", 0.5), ("BN", 1.0))
    return {f"{norm}, noise {noise:g}": Setting(norm, noise) for norm, noise in arms}


class Noisy(nn.Module):
    """A norm and, in training, noise behind it that changes with every step and image.

    As in 1805.11604's appendix A: a channel's mean moves by up to ±noise and its scale by up to
    1 + noise / 2, drawn anew each step; each image adds a tenth of its own to both.
    """

    def __init__(self, norm: str, channels: int, noise: float):
        super().__init__()
        self.norm, self.noise = make_norm(norm, channels), noise

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        y = self.norm(x)
        if not (self.training and self.noise):
            return y
        n, c = y.shape[:2]
        mean = self.noise * (2 * torch.rand(c, 1, 1) - 1) + 0.1 * (2 * torch.rand(n, c, 1, 1) - 1)
        scale = 1 + self.noise / 2 * torch.rand(c, 1, 1) + 0.1 * torch.randn(n, c, 1, 1)
        return scale * y + mean


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """``loss`` in nats, the mean of the last steps', and ``shift``.

    ``shift`` is how far what comes out of the last norm moves from one step to the next: the
    change of a channel's mean over the batch, in its standard deviations; the mean over channels
    and steps.
    """
    torch.manual_seed(seed)
    model = started(Net(lambda c: Noisy(setting.norm, c, setting.noise)), "He")
    seen = []

    def keep(_layer, _inputs, y: Tensor):
        seen.append((y.detach().mean((0, 2, 3)), y.detach().std((0, 2, 3))))

    last = [layer for layer in model.modules() if isinstance(layer, Noisy)][-1]
    last.register_forward_hook(keep)
    optimizer = torch.optim.SGD(model.parameters(), setting.lr, momentum=setting.momentum)
    supply = endless(part(data.train, setting.images), setting.batch_size, seed)
    losses = [step(model, optimizer, x, y) for x, y in islice(supply, setting.steps)]
    moves = [((new - old).abs() / std).mean().item() for (old, std), (new, _) in pairwise(seen)]
    return {
        "loss": sum(losses[-setting.last :]) / setting.last,
        "shift": sum(moves) / len(moves),
    }
