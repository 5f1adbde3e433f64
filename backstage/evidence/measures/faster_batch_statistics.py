"""How long BN's sigmoid MLP takes to 97%, if its validation does not wait for running averages.

The BN runs of ``faster.py`` with the sigmoid MLP, validated at each check in eval mode, whose
running averages lag behind the weights, and with the statistics of each validation batch. The other
arms compute the same in both modes; their rows are those of the grid ``faster``. One rate more than
there, as BN's best was the last.
"""

from dataclasses import dataclass

import torch

from backstage.evidence.bn_statistics import evaluate_by_batch
from backstage.evidence.measures import faster
from backstage.evidence.measures.runs import with_validation
from utils import Data, evaluate


@dataclass(frozen=True)
class Setting(faster.Setting):
    network: str = "sigmoid MLP"
    max_steps: int = faster.STEPS["sigmoid MLP"]


def settings() -> dict[str, Setting]:
    rates = (*faster.RATES["sigmoid MLP"], 3.0)
    return {f"BN, rate {lr:g}": Setting(lr=lr) for lr in rates}


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """Validation accuracies in 0..1 at each check until both have reached the target.

    ``accuracy`` in eval mode, ``batch_accuracy`` with the statistics of each batch of as many
    images as in training; ``steps`` and ``batch_steps`` until either reaches the target, on
    straight lines between the checks, None where it isn't reached.
    """
    data = with_validation(data, setting.validation)
    torch.manual_seed(seed)
    model = faster.make_network(setting.network, setting.norm)
    optimizer = torch.optim.SGD(
        model.parameters(), setting.lr, momentum=setting.momentum, fused=True
    )
    running, batch = [], []
    for _ in faster.checks(setting, seed, data, model, optimizer):
        running.append(evaluate(model, data.val)[1])
        batch.append(evaluate_by_batch(model, data.val, setting.batch_size)[1])
        if min(max(running), max(batch)) >= setting.target:
            break
    every = setting.check_every
    return {
        "accuracy": running,
        "batch_accuracy": batch,
        "steps": faster.steps_to(setting.target, running, every),
        "batch_steps": faster.steps_to(setting.target, batch, every),
    }
