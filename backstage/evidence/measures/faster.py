"""How long to 97% validation accuracy, in steps and in CPU seconds, at each learning rate.

1502.03167 (section 4.1) trains an MLP of three layers of 100 sigmoid units on MNIST, batch 60, with
and without BN; here with ReLU too, with LN, and the lesson's network beside it. BN's claim is
fewer *steps*; that training is more efficient is one about *seconds*, as a norm makes steps dearer.
The claim that larger rates still train (1502.03167, section 3.3; 1806.02375) is in
``largest_rate.py``.

Where this departs from the paper: it starts from "small random Gaussian values", which is more than
a network without a norm bears, so here from He's initialization (ReLU) or Xavier's (sigmoid), the
best known start without a norm; SGD has momentum 0.9, which takes a tenth of the steps; no run is
longer than ``max_steps``, where the paper's take 50,000.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from backstage.evidence.measures.runs import endless, step, with_validation
from s6_model import NORMS, Net
from utils import Data, evaluate


@dataclass(frozen=True)
class Setting:
    network: str = "ReLU MLP"  # or "sigmoid MLP", or "CNN", the lesson's network
    norm: str = "BN"
    lr: float = 0.1  # of SGD
    momentum: float = 0.9  # the usual one
    batch_size: int = 60  # the paper's
    target: float = 0.97  # validation accuracy
    validation: int = 2_500  # images, taken out of the training set
    check_every: int = 100  # steps, a tenth of an epoch; each check takes as long as some 10 steps
    max_steps: int = 4_000  # then the target counts as not reached


RATES = {  # in steps of about 3, to where each arm gets slower again in a pilot
    "ReLU MLP": (0.01, 0.03, 0.1, 0.3),
    "sigmoid MLP": (0.03, 0.1, 0.3, 1.0),
    "CNN": (0.01, 0.03, 0.1),
}
STEPS = {"ReLU MLP": 4_000, "sigmoid MLP": 6_000, "CNN": 3_000}  # a half more than most take


def settings() -> dict[str, Setting]:
    """Each network with each norm at each rate. An MLP's units have no order, so no groups."""
    return {
        f"{network}, {norm}, rate {lr:g}": Setting(network, norm, lr, max_steps=STEPS[network])
        for network, rates in RATES.items()
        for norm in NORMS
        if network == "CNN" or norm != "GN"
        for lr in rates
    }


def make_network(network: str, norm: str) -> nn.Module:
    """(N, 1, 28, 28) -> (N, 10)."""
    if network == "CNN":
        return Net(norm).to(memory_format=torch.channels_last)
    if network not in RATES:
        raise ValueError(f"Unknown network {network!r}: use one of {', '.join(RATES)}.")
    norms = {"BN": nn.BatchNorm1d, "LN": nn.LayerNorm, "none": nn.Identity}
    relu = network == "ReLU MLP"
    layers = [nn.Flatten()]
    for features in (784, 100, 100):
        linear = nn.Linear(features, 100)
        if relu:
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        else:
            nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, norms[norm](100), nn.ReLU() if relu else nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(100, 10))


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """Steps and CPU seconds until the target; None where it isn't reached in ``max_steps``.

    ``steps`` is between two checks, by a straight line through their accuracies; ``cpu_seconds``
    are this process's own, in training only, for as many steps. ``accuracy`` is the validation
    accuracy in 0..1 at each check; it ends early where the loss blows up.
    """
    data = with_validation(data, setting.validation)
    torch.manual_seed(seed)
    model = make_network(setting.network, setting.norm)
    optimizer = torch.optim.SGD(
        model.parameters(), setting.lr, momentum=setting.momentum, fused=True
    )
    accuracies, seconds = [], []
    for spent in checks(setting, seed, data, model, optimizer):
        seconds.append(spent)
        accuracies.append(evaluate(model, data.val)[1])
        if accuracies[-1] >= setting.target:
            break
    steps = steps_to(setting.target, accuracies, setting.check_every)
    return {
        "steps": steps,
        "cpu_seconds": steps and steps * sum(seconds) / (len(seconds) * setting.check_every),
        "accuracy": accuracies,
    }


def checks(
    setting: Setting, seed: int, data: Data, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[float]:
    """Trains; gives the CPU seconds of each ``check_every`` steps. Ends early if it diverges."""
    supply = endless(data.train, setting.batch_size, seed)
    for _ in range(setting.max_steps // setting.check_every):
        model.train()
        start = time.process_time()
        for _ in range(setting.check_every):
            loss = step(model, optimizer, *next(supply))
        spent = time.process_time() - start
        if not loss < float("inf"):
            return
        yield spent


def steps_to(target: float, accuracies: list[float], check_every: int) -> float | None:
    """When the accuracy first reaches the target, on straight lines between the checks.

    Check i, counted from 1, is after i·check_every steps; before the first step, 0.
    """
    before = 0.0
    for i, accuracy in enumerate(accuracies):
        if accuracy >= target:
            return check_every * (i + (target - before) / (accuracy - before))
        before = accuracy
    return None
