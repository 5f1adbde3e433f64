"""Transformers with the norm before or after each sublayer, with and without warm-up.

2002.04745: with layer norm after the residual sum ("post-norm", as in 1706.03762), the gradients of
the last layers are large at the start, so that training needs a warm-up; before each sublayer
("pre-norm") they are not, and it does not. Here an image's 28 rows are a sequence, and everything
is small: width 32, 4 heads, feed-forward width 64, no dropout, 200 steps of 64 images.

Where this departs from the paper: classification in place of translation; Adam's rate is constant
after its warm-up, which is a quarter of the steps; the output is the mean over the rows.
"""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from backstage.evidence.measures.runs import endless, part, step
from utils import Data, evaluate


@dataclass(frozen=True)
class Setting:
    position: str = "pre"  # of the norm, or "post"
    depth: int = 12  # layers
    lr: float = 0.003  # Adam's
    warm_up: int = 0  # steps in which the rate rises from 0 on a straight line
    width: int = 32
    heads: int = 4
    steps: int = 200
    batch_size: int = 64
    tested: int = 2_500  # a stratified quarter


DEPTHS = (2, 12)
RATES = (0.001, 0.003, 0.01)
WARM_UPS = (0, 50)


def settings() -> dict[str, Setting]:
    """Both positions at each depth and rate, with and without warm-up."""
    return {
        f"{position}-norm, depth {depth}, rate {lr:g}, warm-up {warm_up}": Setting(
            position, depth, lr, warm_up
        )
        for depth, lr, warm_up, position in product(DEPTHS, RATES, WARM_UPS, ("pre", "post"))
    }


class RowTransformer(nn.Module):
    """(N, 1, 28, 28) -> (N, 10): each row of the image is a token."""

    def __init__(self, setting: Setting):
        super().__init__()
        d, pre = setting.width, setting.position == "pre"
        self.embed = nn.Linear(28, d)
        self.place = nn.Parameter(0.02 * torch.randn(28, d))
        self.layers = nn.Sequential(
            *(  # not nn.TransformerEncoder, whose layers would all start from the same weights
                nn.TransformerEncoderLayer(
                    d, setting.heads, 2 * d, dropout=0.0, batch_first=True, norm_first=pre
                )
                for _ in range(setting.depth)
            )
        )
        self.last = nn.LayerNorm(d) if pre else nn.Identity()  # post-norm ends in one already
        self.head = nn.Linear(d, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.squeeze(1)) + self.place  # (N, 28, d)
        return self.head(self.last(self.layers(tokens)).mean(dim=1))


def gradient_norms(model: RowTransformer, x: Tensor, y: Tensor) -> list[float]:
    """‖∂L/∂W‖ of each layer's second feed-forward weight, from the first layer to the last."""
    loss = nn.functional.cross_entropy(model(x), y)
    weights = [layer.linear2.weight for layer in model.layers]
    return [g.double().norm().item() for g in torch.autograd.grad(loss, weights)]


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """``test_accuracy`` in 0..1 at the end; ``norms`` of the first batch's gradients at the start;
    ``losses``, each 10 steps' mean, in nats.
    """
    torch.manual_seed(seed)
    model = RowTransformer(setting).train()
    supply = endless(data.train, setting.batch_size, seed)
    first = next(supply)
    norms = gradient_norms(model, *first)
    optimizer = torch.optim.Adam(model.parameters(), setting.lr)
    losses = []
    for done in range(setting.steps):
        rate = (
            setting.lr * min(1.0, (done + 1) / setting.warm_up) if setting.warm_up else setting.lr
        )
        optimizer.param_groups[0]["lr"] = rate
        losses.append(step(model, optimizer, *(next(supply) if done else first)))
    tens = torch.tensor(losses).view(-1, 10).mean(dim=1).tolist()
    accuracy = evaluate(model, part(data.test, setting.tested))[1]
    return {"test_accuracy": accuracy, "norms": norms, "losses": tens}
