"""One run of the lesson's network: what it scores after its last epoch, and its whole history."""

import contextlib
from dataclasses import replace

from backstage.evidence.bn_statistics import with_other_statistics
from utils import Data, Experiment, Run, fit, predict, split_validation


def trained(experiment: Experiment, seed: int, data: Data, **how) -> Run:
    """``fit`` on the CPU, from this seed. An interrupted run counts for nothing."""
    with contextlib.redirect_stdout(None):
        run = fit(replace(experiment, seed=seed), data, device="cpu", **how)
    if not run.finished:  # fit has taken the interrupt for itself
        raise KeyboardInterrupt
    return run


def outcome(run: Run, data: Data) -> dict:
    """A finished run's losses and accuracies, the test images it got wrong, and each epoch."""
    last = run.history.epochs[-1]
    columns = ("test_accuracy", "test_loss", "train_accuracy", "train_loss")
    found = {column: last[column] for column in columns}
    found |= {"final_l1": last["l1"], "final_l2": last["l2"]}
    wrong = predict(run.model, data.test).argmax(dim=1) != data.test.y
    found["wrong"] = wrong.nonzero().flatten().tolist()
    kept = [c for c in last if c != "seconds" and not c.startswith("val_")]
    return found | {"history": {column: run.history[column] for column in kept}}


def final_epoch(experiment: Experiment, seed: int, data: Data) -> dict:
    """Trains on all of the data."""
    return outcome(trained(experiment, seed, data), data)


def bn_statistics(experiment: Experiment, seed: int, data: Data) -> dict:
    """The same; a BN network is also tested with precise and with batch statistics."""
    run = trained(experiment, seed, data)
    found = outcome(run, data)
    if experiment.norm == "BN":
        found |= with_other_statistics(run, data, experiment.batch_size)
    return found


def validation(experiment: Experiment, seed: int, data: Data) -> dict:
    """Trains without 5,000 images, or a tenth of fewer, others for each seed; scores on these."""
    split = split_validation(data, size=min(5_000, len(data.train) // 10), seed=seed)
    last = trained(experiment, seed, split).history.epochs[-1]
    return {"val_loss": last["val_loss"], "val_accuracy": last["val_accuracy"]}
