"""Why does it cost accuracy to detach σ? The weights' length, and the gradient's direction.

1911.07013 (section 4.1) detaches the derivatives of μ and σ in layer norm. With them, the function
is blind to the length of the weights before the norm, so their gradient stands at a right angle to
them; σ's derivative is what makes it so. Detached, the gradient has a part along the weights, which
can grow or shrink them, and with them the effective rate, step after step.

So: ``layer_norm.py``'s network and runs with LN-simple, with σ detached, and with σ detached but
each convolution's gradient projected to the right angle again. If the third is as good as the
first, the right angle is what the derivative is good for. A convolution here is its weight and bias
together, as the norm behind it is blind to their common length.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backstage.evidence.measures import layer_norm
from backstage.evidence.measures.runs import endless, part, with_validation
from utils import Data, evaluate


@dataclass(frozen=True)
class Setting:
    norm: str = "LN-simple"  # or "σ detached"
    projected: bool = False  # the gradient of each convolution, to a right angle to it
    images: int = 10_000  # this and what follows as in layer_norm.py
    validation: int = 5_000
    epochs: int = 3
    batch_size: int = 32
    lr: float = 1e-3  # Adam's
    log_every: int = 20  # steps


def settings() -> dict[str, Setting]:
    return {
        "LN-simple": Setting(),
        "σ detached": Setting("σ detached"),
        "σ detached, projected": Setting("σ detached", projected=True),
    }


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])


@torch.no_grad()
def lengths_and_cosines(convolutions: list[nn.Conv2d]) -> tuple[list[float], list[float]]:
    """‖w‖ of each convolution, and the cosine between it and its gradient."""
    ws = [flat(list(c.parameters())) for c in convolutions]
    gs = [flat([p.grad for p in c.parameters()]) for c in convolutions]
    cosines = [F.cosine_similarity(w, g, dim=0).item() for w, g in zip(ws, gs, strict=True)]
    return [w.norm().item() for w in ws], cosines


@torch.no_grad()
def project(convolution: nn.Conv2d) -> None:
    """Takes the part along the weights out of their gradient."""
    parameters = list(convolution.parameters())
    w, g = flat(parameters), flat([p.grad for p in parameters])
    along = (g @ w) / (w @ w)
    for p in parameters:
        p.grad -= along * p


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """Test and validation accuracy in 0..1 after training; ``log``, every ``log_every`` steps.

    Of each of the two convolutions: ``lengths``, ‖w‖; ``cosines``, between w and the gradient as
    backward made it; and ``loss`` in nats. ``final_lengths`` at the end.
    """
    data = with_validation(data, setting.validation)
    images = part(data.train, setting.images)
    torch.manual_seed(seed)
    model = layer_norm.three_layer_cnn(setting.norm).to(memory_format=torch.channels_last)
    convolutions = [layer for layer in model if isinstance(layer, nn.Conv2d)]
    optimizer = torch.optim.Adam(model.parameters(), lr=setting.lr, fused=True)
    supply = endless(images, setting.batch_size, seed)
    log = []
    for done in range(setting.epochs * -(-len(images) // setting.batch_size)):
        x, y = next(supply)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        if done % setting.log_every == 0:
            lengths, cosines = lengths_and_cosines(convolutions)
            log.append({"step": done, "loss": loss.item(), "lengths": lengths, "cosines": cosines})
        if setting.projected:
            for convolution in convolutions:
                project(convolution)
        optimizer.step()
    return {
        "test_accuracy": evaluate(model, data.test)[1],
        "val_accuracy": evaluate(model, data.val)[1],
        "final_lengths": lengths_and_cosines(convolutions)[0],
        "log": log,
    }
