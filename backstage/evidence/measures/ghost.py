"""Ghost batches: BN's statistics from a few images within an optimizer's batch that stays."""

from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backstage.evidence.bn_statistics import with_other_statistics
from backstage.evidence.measures.batch_size import BASE
from backstage.evidence.measures.runs import outcome, trained
from s6_model import Net
from utils import Data, Experiment, Run


class GhostBatchNorm(nn.BatchNorm2d):
    """BN that splits each training batch into ghost batches of n images, each normalized by itself.

    Statistics and their gradients are those of a ghost batch, and each one moves the running
    averages by the momentum, as if torch's layer had seen one after another (arXiv 1705.08741,
    section 4). In eval mode it is torch's layer.

    Args:
        n: images per ghost batch; what is left of a batch is one more, a smaller one.
        channels: C.
    """

    def __init__(self, n: int, channels: int):
        super().__init__(channels)
        self.n = n

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        if not self.training:
            return super().forward(x)
        left = len(x) % self.n
        if not left:
            return self.by_ghost(x, self.n)
        if left == len(x):
            return self.by_ghost(x, left)
        whole = self.by_ghost(x[:-left], self.n)
        return torch.cat([whole, self.by_ghost(x[-left:], left)])

    def by_ghost(self, x: Tensor, n: int) -> Tensor:
        """Normalizes k ghost batches at once, as k·C channels of one batch of n images."""
        k, (channels, height, width) = len(x) // n, x.shape[1:]
        ghosts = x.view(k, n, channels, height, width).transpose(0, 1)
        ghosts = ghosts.reshape(n, k * channels, height, width)
        mean, var = torch.empty_like(ghosts[0, :, 0, 0]), torch.empty_like(ghosts[0, :, 0, 0])
        affine = self.weight.repeat(k), self.bias.repeat(k)
        # Momentum 1 leaves each ghost batch's mean and unbiased variance in mean and var.
        y = F.batch_norm(ghosts, mean.zero_(), var.zero_(), *affine, True, 1.0, self.eps)
        with torch.no_grad():
            after = torch.arange(k - 1, -1, -1).to(mean)  # ghost batches that come later
            weights = self.momentum * (1 - self.momentum) ** after
            for running, found in ((self.running_mean, mean), (self.running_var, var)):
                running *= (1 - self.momentum) ** k
                running += weights @ found.view(k, channels)
        return y.view(n, k, channels, height, width).transpose(0, 1).reshape(x.shape)


@dataclass(frozen=True)
class GhostExperiment(Experiment):
    """A BN experiment; ``batch_size`` is the optimizer's batch."""

    norm_batch: int = 32  # images that share BN's statistics


def settings(base: Experiment = BASE) -> dict[str, GhostExperiment]:
    """2 to 32 images per ghost batch in 32 and in 128 images, the rate in proportion to these."""
    found = {}
    for batch in (32, 128):
        lr = base.lr * batch / base.batch_size
        fields = vars(replace(base, norm="BN", batch_size=batch, lr=lr))
        for n in (2, 4, 8, 16, 32):
            found[f"BN {n} in {batch}"] = GhostExperiment(**fields, norm_batch=n)
    return found


def measure(experiment: GhostExperiment, seed: int, data: Data) -> dict:
    """One run's outcome, BN also tested with precise statistics and with those of n test images."""
    layer = partial(GhostBatchNorm, experiment.norm_batch)
    run = trained(experiment, seed, data, network=lambda: Net(layer))
    plain = Net("BN")  # its layers take whatever they are given as one batch
    plain.load_state_dict(run.model.state_dict())
    other = with_other_statistics(Run(plain, run.history), data, experiment.norm_batch)
    return outcome(run, data) | other
