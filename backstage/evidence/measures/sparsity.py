"""L1 by subgradient and by its proximal step: which of them makes weights zero?

Plain SGD, so that both minimize the same sum of data loss and λ·Σ|w| (with Adam, which rescales
each weight's gradient, the same λ would mean another pull in either). A step by the subgradient
adds λ·sign(w) to the gradient. The proximal step takes the data loss's gradient alone, and then
moves every weight towards 0 by η·λ, and not past it: the soft threshold, which is the exact
minimizer of ½(u − w)² + ηλ|u| over u (proximal gradient, or ISTA).

The network has BN, with which plain SGD gets far in few steps. It is tested with the statistics of
the test batch: the running ones would not know of the weights that pruning takes away.
"""

import copy
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from backstage.evidence.bn_statistics import evaluate_by_batch
from backstage.evidence.measures.runs import ShortExperiment, part, step, supply, weights
from s6_model import Net, l1_loss, penalized
from utils import Data, Images

IMAGES = 10_000
PRUNED = (0.5, 0.7, 0.9)  # parts of the weights


@dataclass(frozen=True)
class SparseExperiment(ShortExperiment):
    """``lr`` is SGD's, at the start; it falls to 0 on a straight line."""

    norm: str = "BN"
    lr: float = 0.3
    proximal: bool = False


def settings() -> dict[str, SparseExperiment]:
    """No penalty, and the same λ1 in both ways; in a pilot, it cost BN no accuracy, 1e-2 a lot."""
    return {
        "no penalty": SparseExperiment(),
        "subgradient": SparseExperiment(l1=4e-3),
        "proximal": SparseExperiment(l1=4e-3, proximal=True),
    }


def soft_threshold(w: Tensor, by: float) -> Tensor:
    """argmin over u of ½(u − w)² + by·|u|: each weight nearer to 0 by ``by``, and not past it."""
    return w.sign() * (w.abs() - by).clamp(min=0)


@torch.no_grad()
def proximal_step(model: Net, by: float) -> None:
    """The soft threshold on all weights that penalties act on."""
    for p in penalized(model):
        p.copy_(soft_threshold(p, by))


def train_sparse(experiment: SparseExperiment, data: Data) -> Net:
    """The network after all steps of plain SGD, no momentum."""
    torch.manual_seed(experiment.seed)
    model = Net(experiment.norm).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), experiment.lr)
    by_subgradient = experiment.l1 and not experiment.proximal
    subgradient = (lambda: experiment.l1 * l1_loss(model)) if by_subgradient else None
    for done, (x, y) in enumerate(islice(supply(data.train, experiment), experiment.steps)):
        lr = optimizer.param_groups[0]["lr"] = experiment.lr * (1 - done / experiment.steps)
        step(model, optimizer, x, y, subgradient)
        if experiment.proximal:
            proximal_step(model, lr * experiment.l1)
    return model


@torch.no_grad()
def pruned(model: Net, share: float) -> Net:
    """A copy with so large a part of its weights set to 0, the smallest of the whole network."""
    model = copy.deepcopy(model)
    size = weights(model).abs()
    limit = size.kthvalue(round(share * len(size))).values
    for p in penalized(model):
        p[p.abs() <= limit] = 0
    return model


def accuracy(model: Net, images: Images) -> float:
    return evaluate_by_batch(model, images, batch_size=500)[1]


def measure(experiment: SparseExperiment, seed: int, data: Data) -> dict:
    """Shares of zeros and of |w| < 1e-3; accuracy on every fifth test image, whole and pruned."""
    data = Data(data.name, part(data.train, IMAGES), data.test[::5])
    model = train_sparse(replace(experiment, seed=seed), data)
    size = weights(model).abs()
    found = {"zeros": (size == 0).double().mean().item()}
    found |= {"below_1e-3": (size < 1e-3).double().mean().item()}
    found |= {"test_accuracy": accuracy(model, data.test)}
    return found | {f"pruned_{s:.0%}"[:-1]: accuracy(pruned(model, s), data.test) for s in PRUNED}
