"""Is it BN that is unsteady in the last epochs, or its running averages?

BN + L1 + L2 of the grid ``constant`` again, tested after each epoch in two ways: with the running
averages, as there, and with precise statistics (2105.07576, section 3), which owe nothing to the
last batches. GN and LN keep no averages; their rows are those of ``constant``.
"""

import contextlib
from dataclasses import replace

import torch

from backstage.evidence.bn_statistics import with_precise_statistics
from backstage.evidence.measures.runs import part
from backstage.evidence.measures.three_experiments import BN_L1_L2, constant
from s6_model import Net
from utils import Data, Experiment, History, Run, evaluate, make_bar, make_optimizer, train_epoch

STATISTICS_OF = 10_000  # images, stratified


def settings() -> dict[str, Experiment]:
    return {BN_L1_L2.label: constant()[BN_L1_L2.label]}


def measure(experiment: Experiment, seed: int, data: Data) -> dict:
    """Test accuracies in 0..1 after each epoch: ``running_accuracy`` and ``precise_accuracy``."""
    experiment, images = replace(experiment, seed=seed), part(data.train, STATISTICS_OF)
    torch.manual_seed(seed)
    run = Run(Net(experiment.norm).to(memory_format=torch.channels_last), History(experiment))
    steps = -(-len(data.train) // experiment.batch_size) * experiment.epochs
    optimizer, scheduler = make_optimizer(experiment, run.model, steps)
    running, precise = [], []
    with contextlib.closing(make_bar(experiment.label, steps)) as bar:
        while not run.finished:
            run.history.epochs.append(train_epoch(run, data.train, optimizer, scheduler, bar))
            running.append(evaluate(run.model, data.test)[1])
            precise.append(evaluate(with_precise_statistics(run.model, images), data.test)[1])
    return {"running_accuracy": running, "precise_accuracy": precise}
