"""How smooth the loss is along the gradient, with and without a norm.

The three probes of 1805.11604 (section 3.1, figure 4): from the present weights, walk along the
gradient by several steps and see how far the loss ranges, how much the gradient changes, and how
fast it does, the "effective β": the largest ‖g(w − t·g) − g(w)‖ / ‖t·g‖. Of a quadratic loss, β is
the curvature along the gradient.

Where this departs from the paper, which compares a VGG with and without BN step by step: it
compares *at the same loss*, from He's initialization, and with LN and GN too. From torch's default
initialization the network without a norm sits on a plateau at first, which looks smooth; and steps
later, the arms are at different losses, where curvatures differ anyhow. The probes use one fixed
batch, so that no noise from the batch's choice gets in.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backstage.evidence.measures.gradients import convolutions, initialize
from backstage.evidence.measures.runs import endless, part, step
from s6_model import NORMS, Net
from utils import Data, normalize


@dataclass(frozen=True)
class Setting:
    norm: str = "BN"
    lr: float = 0.1  # of plain SGD and of the probes; every arm reaches every level at it
    images: int = 10_000  # trained on, a stratified sixth of MNIST
    batch_size: int = 128  # the lesson's
    probe_images: int = 512  # in the fixed batch
    check_every: int = 2  # steps between two looks at the fixed batch's loss
    max_steps: int = 2_000  # then the levels not reached are given up


LEVELS = (2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 0.8, 0.6, 0.5, 0.4)  # losses in nats: ten checkpoints
STEPS = (0.5, 1.0, 2.0, 4.0)  # times the rate: the paper's range


def settings() -> dict[str, Setting]:
    """Each norm."""
    return {norm: Setting(norm) for norm in NORMS}


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """The three probes the first time that the fixed batch's loss is at or below each level.

    ``loss_range`` (nats), ``gradient_change`` (‖Δg‖) and ``beta`` are geometric means over the ten
    levels, None where one is never reached; ``probes`` is the list of all, with the loss and the
    step at which they were taken.
    """
    images = part(data.train, setting.images)
    fixed = part(images, setting.probe_images)
    x_fixed, y_fixed = normalize(fixed.x.float() / 255), fixed.y
    torch.manual_seed(seed)
    model = Net(setting.norm)
    for convolution in convolutions(model):
        initialize(convolution.weight, "He")
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), setting.lr, fused=True)
    steps, left, found = 0, list(LEVELS), []
    for x, y in endless(images, setting.batch_size, seed):
        if steps % setting.check_every == 0:
            with torch.no_grad():
                loss = F.cross_entropy(copy.deepcopy(model)(x_fixed), y_fixed).item()
            if left and loss <= left[0]:
                probe = probes(model, x_fixed, y_fixed, setting.lr)
                while left and loss <= left[0]:
                    found.append({"level": left.pop(0), "step": steps, "loss": loss} | probe)
        if not left or steps == setting.max_steps:
            break
        step(model, optimizer, x, y)
        steps += 1
    row = {"probes": found}
    for name in ("loss_range", "gradient_change", "beta"):
        values = torch.tensor([p[name] for p in found], dtype=torch.double)
        row[name] = None if left else values.log().mean().exp().item()
    return row


def probes(model: nn.Module, x: Tensor, y: Tensor, lr: float) -> dict[str, float]:
    """Loss range, gradient change and effective β on the way along −g; the model stays as it is."""
    _, here = loss_and_gradient(model, x, y)
    losses, changes, betas = [], [], []
    for t in (lr * s for s in STEPS):
        loss, there = loss_and_gradient(moved(model, here, -t), x, y)
        losses.append(loss)
        changes.append(norm_of([a - b for a, b in zip(there, here, strict=True)]))
        betas.append(changes[-1] / (t * norm_of(here)))
    return {
        "loss_range": max(losses) - min(losses),
        "gradient_change": max(changes),
        "beta": max(betas),
    }


def loss_and_gradient(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, list[Tensor]]:
    """In training mode; of a copy, for BN would move its running averages."""
    model = copy.deepcopy(model).train()
    loss = F.cross_entropy(model(x), y)
    return loss.item(), list(torch.autograd.grad(loss, list(model.parameters())))


def moved(model: nn.Module, direction: list[Tensor], distance: float) -> nn.Module:
    """A copy with the weights w + distance·direction."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, along in zip(model.parameters(), direction, strict=True):
            parameter.add_(along, alpha=distance)
    return model


def norm_of(tensors: list[Tensor]) -> float:
    """ℓ2 norm of all their elements."""
    return torch.cat([t.flatten() for t in tensors]).norm().item()
