"""How smooth the loss is along the gradient, with and without a norm.

The three probes of 1805.11604 (section 3.1, figure 4): from the present weights, walk along the
gradient by several steps and see how far the loss ranges, how much the gradient changes, and how
fast it does, the "effective β": the largest ‖g(w − t·g) − g(w)‖ / ‖t·g‖. Of a quadratic loss, β is
the curvature along the gradient.

They walk by a fixed multiple of the gradient. Under a norm, twice the weights are the same
function, with half the gradient and a quarter of the curvature: the probes fall, though nothing has
become smoother. So beside them, a walk along the convolutions' gradient that is as long as a fixed
angle times ‖w‖, and its β = ‖Δg‖ / ‖Δw‖ times ‖w‖². Under a norm, a common rescaling of the
convolutions leaves this number alone. Without a norm it is a number too, the curvature per relative
change of the weights, but not one that rescaling leaves alone.

Where this departs from the paper, which compares a VGG with and without BN step by step: it
compares *at the same loss*, from two starts (``two_starts.started``), which decide how long the
weights are, and with LN and GN too. From torch's default start the network without a norm sits on a
plateau at first, which looks smooth; and steps later, the arms are at different losses, where
curvatures differ anyhow. The probes use one fixed batch, so that no noise from the batch's choice
gets in.
"""

import copy
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backstage.evidence.measures.gradients import convolutions
from backstage.evidence.measures.runs import endless, part, step
from backstage.evidence.measures.two_starts import STARTS, started
from s6_model import NORMS, Net
from utils import Data, normalize


@dataclass(frozen=True)
class Setting:
    norm: str = "BN"
    start: str = "default"  # torch's own, or "He"
    lr: float = 0.1  # of plain SGD and of the probes; every arm reaches every level at it
    images: int = 10_000  # trained on, a stratified sixth of MNIST
    batch_size: int = 128  # the lesson's
    probe_images: int = 512  # in the fixed batch
    check_every: int = 2  # steps between two looks at the fixed batch's loss
    max_steps: int = 2_000  # then the levels not reached are given up


LEVELS = (2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 0.8, 0.6, 0.5, 0.4)  # losses in nats: ten checkpoints
STEPS = (0.5, 1.0, 2.0, 4.0)  # times the rate: the paper's range
ANGLES = (0.01, 0.02, 0.04, 0.08)  # ‖Δw‖ / ‖w‖, in radians as they are small


def settings() -> dict[str, Setting]:
    """Each norm from each start."""
    return {f"{norm}, {start}": Setting(norm, start) for start, norm in product(STARTS, NORMS)}


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """The probes the first time that the fixed batch's loss is at or below each of ``LEVELS``.

    ``loss_range`` (nats), ``gradient_change`` (‖Δg‖), ``beta``, ``scale_free_beta`` and
    ``weight_norm`` are geometric means over the levels, None where one is never reached;
    ``probes`` lists all, with the loss and the step at which they were taken.
    """
    images = part(data.train, setting.images)
    fixed = part(images, setting.probe_images)
    x_fixed, y_fixed = normalize(fixed.x.float() / 255), fixed.y
    torch.manual_seed(seed)
    model = started(Net(setting.norm), setting.start).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), setting.lr, fused=True)
    steps, left, found = 0, list(LEVELS), []
    for x, y in endless(images, setting.batch_size, seed):
        if steps % setting.check_every == 0:
            with torch.no_grad():
                loss = F.cross_entropy(copy.deepcopy(model)(x_fixed), y_fixed).item()
            if left and loss <= left[0]:
                probe = probes(model, x_fixed, y_fixed, setting.lr)
                probe |= scale_free_beta(model, x_fixed, y_fixed)
                while left and loss <= left[0]:
                    found.append({"level": left.pop(0), "step": steps, "loss": loss} | probe)
        if not left or steps == setting.max_steps:
            break
        step(model, optimizer, x, y)
        steps += 1
    row = {"probes": found}
    for name in ("loss_range", "gradient_change", "beta", "scale_free_beta", "weight_norm"):
        values = torch.tensor([p[name] for p in found], dtype=torch.double)
        row[name] = None if left else values.log().mean().exp().item()
    return row


def scale_free_beta(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """The largest ‖Δg‖·‖w‖² / ‖Δw‖ over the angles, of the convolutions; and their ‖w‖."""
    place = [i for i, p in enumerate(model.parameters()) if p.ndim == 4]
    _, here = loss_and_gradient(model, x, y)
    length = norm_of([layer.weight.detach() for layer in convolutions(model)])
    along = [g if i in place else torch.zeros_like(g) for i, g in enumerate(here)]
    unit = norm_of(along)
    found = []
    for angle in ANGLES:
        _, there = loss_and_gradient(moved(model, along, -angle * length / unit), x, y)
        change = norm_of([there[i] - here[i] for i in place])
        found.append(change * length / angle)
    return {"scale_free_beta": max(found), "weight_norm": length}


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
