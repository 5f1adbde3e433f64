"""How smooth the loss is along the gradient, measured so that the weights' length does not matter.

The probes of 1805.11604 (``smoothness.py``) walk by a fixed multiple of the gradient. Under a norm,
twice the weights are the same function, with half the gradient and a quarter of the curvature: the
raw probes fall, though nothing has become smoother. Here a walk along the convolutions' gradient is
as long as a fixed angle times ‖w‖, and β = ‖Δg‖ / ‖Δw‖ is multiplied by ‖w‖². For common rescaling
of the convolutions under a norm, this is the same number. Without a norm it is a number too, the
curvature per relative change of the weights, but not one that rescaling leaves alone.

The raw probes are taken beside it, and both from two starts (``two_starts.started``), since the
start decides how long the weights are.
"""

from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backstage.evidence.measures import smoothness
from backstage.evidence.measures.gradients import convolutions
from backstage.evidence.measures.runs import endless, part, step
from backstage.evidence.measures.smoothness import LEVELS, norm_of
from backstage.evidence.measures.two_starts import STARTS, started
from s6_model import NORMS, Net
from utils import Data, normalize


@dataclass(frozen=True)
class Setting:
    norm: str = "BN"
    start: str = "default"  # torch's own, or "He"
    lr: float = 0.1  # of plain SGD and of the raw probes, as in smoothness.py, like what follows
    images: int = 10_000
    batch_size: int = 128
    probe_images: int = 512
    check_every: int = 2
    max_steps: int = 2_000


ANGLES = (0.01, 0.02, 0.04, 0.08)  # ‖Δw‖ / ‖w‖, in radians as they are small
RAW = ("loss_range", "gradient_change", "beta")


def settings() -> dict[str, Setting]:
    """Each norm from each start."""
    return {f"{norm}, {start}": Setting(norm, start) for start, norm in product(STARTS, NORMS)}


def scale_free_beta(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """The largest ‖Δg‖·‖w‖² / ‖Δw‖ over the angles, of the convolutions; and their ‖w‖."""
    place = [i for i, p in enumerate(model.parameters()) if p.ndim == 4]
    _, here = smoothness.loss_and_gradient(model, x, y)
    length = norm_of([layer.weight.detach() for layer in convolutions(model)])
    along = [g if i in place else torch.zeros_like(g) for i, g in enumerate(here)]
    unit = norm_of(along)
    found = []
    for angle in ANGLES:
        moved = smoothness.moved(model, along, -angle * length / unit)
        _, there = smoothness.loss_and_gradient(moved, x, y)
        change = norm_of([there[i] - here[i] for i in place])
        found.append(change * length / angle)
    return {"scale_free_beta": max(found), "weight_norm": length}


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """The probes the first time that the fixed batch's loss is at or below each of ``LEVELS``.

    ``loss_range`` (nats), ``gradient_change``, ``beta``, ``scale_free_beta`` and ``weight_norm``
    are geometric means over the levels, None where one is never reached; ``probes`` lists all, with
    the loss and the step at which they were taken.
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
            loss = loss_of(model, x_fixed, y_fixed)
            if left and loss <= left[0]:
                probe = smoothness.probes(model, x_fixed, y_fixed, setting.lr)
                probe |= scale_free_beta(model, x_fixed, y_fixed)
                while left and loss <= left[0]:
                    found.append({"level": left.pop(0), "step": steps, "loss": loss} | probe)
        if not left or steps == setting.max_steps:
            break
        step(model, optimizer, x, y)
        steps += 1
    row = {"probes": found}
    for name in (*RAW, "scale_free_beta", "weight_norm"):
        values = torch.tensor([p[name] for p in found], dtype=torch.double)
        row[name] = None if left else values.log().mean().exp().item()
    return row


@torch.no_grad()
def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """In training mode, BN's running averages moved, which nothing here reads."""
    return F.cross_entropy(model(x), y).item()
