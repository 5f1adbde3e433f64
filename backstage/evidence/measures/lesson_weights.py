"""The weights of the lesson's networks without a penalty, to put beside those of the lesson."""

from dataclasses import replace

from backstage.evidence.measures.penalty_path import described
from backstage.evidence.measures.runs import trained
from utils import THREE_EXPERIMENTS, Data, Experiment


def settings() -> dict[str, Experiment]:
    """The norms of the three experiments, trained as long as these are."""
    return {e.norm: replace(e, l1=0.0, l2=0.0) for e in THREE_EXPERIMENTS}


def measure(experiment: Experiment, seed: int, data: Data) -> dict:
    run = trained(experiment, seed, data)
    last = run.history.epochs[-1]
    columns = ("test_accuracy", "train_accuracy")
    return {column: last[column] for column in columns} | described(run.model)
