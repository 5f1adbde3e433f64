"""What a folder keeps of a run: every finished epoch, whatever happens between."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from conftest import ROOT, same, still_there
from torch import nn

import utils
from utils import CheckpointError, Experiment, fit

SHORT = Experiment(norm="GN", l1=1e-5, l2=1e-4, epochs=2, dropout=0.1)


def test_a_finished_run_is_loaded_not_trained_again(digits, tmp_path, monkeypatch):
    first = fit(SHORT, digits, tmp_path)
    monkeypatch.setattr(utils, "train_epoch", None)
    again = fit(SHORT, digits, tmp_path)
    assert same(first, again) and again.history["seconds"] == first.history["seconds"]
    assert not again.model.training


def test_experiments_share_a_directory(digits, tmp_path):
    for experiment in (SHORT, replace(SHORT, seed=1), replace(SHORT, l2=0)):
        fit(experiment, digits, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


# ------------------------------------------------------------------------------------- identity


def epochs_trained(monkeypatch, *args, **how):
    """How many epochs ``fit`` trains, rather than load."""
    trained, original = [], utils.train_epoch
    with monkeypatch.context() as patch:
        patch.setattr(utils, "train_epoch", lambda *a: trained.append(1) or original(*a))
        fit(*args, **how)
    return len(trained)


def wide():
    return utils.Net("LN")


OTHERS = {
    "recipe": lambda m, d: m.setattr(utils, "RECIPE", utils.RECIPE + 1),
    "precision": lambda m, d: torch.set_default_dtype(torch.float64),
    "images": lambda m, d: {"data": utils.Data(d.name, d.train[:500], d.test)},
    "test images": lambda m, d: {"data": utils.Data(d.name, d.train, d.test[::2])},
    "scale": lambda m, d: {"data": replace(d, train=replace(d.train, mean=0.2))},
    "network": lambda m, d: {"network": wide, "name": "wide"},
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_run_is_not_continued(digits, tmp_path, monkeypatch, other):
    fit(SHORT, digits, tmp_path)
    assert epochs_trained(monkeypatch, SHORT, digits, tmp_path) == 0
    try:
        how = OTHERS[other](monkeypatch, digits) or {}
        how = {"data": digits, **how}
        assert epochs_trained(monkeypatch, SHORT, directory=tmp_path, **how) == SHORT.epochs
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_network_of_ones_own_needs_a_name_to_be_kept(digits, tmp_path):
    with pytest.raises(ValueError, match="needs a name"):
        fit(SHORT, digits, tmp_path, network=wide)
    first = fit(SHORT, digits, tmp_path, network=wide, name="wide, 1")
    assert same(first, fit(SHORT, digits, tmp_path, network=wide, name="wide, 1"))
    fit(SHORT, digits, tmp_path, network=wide, name="wide, 2")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_passed_off_as_another_is_refused_and_kept(digits, tmp_path):
    fit(SHORT, digits, tmp_path)
    (mine,) = tmp_path.iterdir()
    other = replace(SHORT, l1=1e-4)
    fit(other, digits, tmp_path)
    (theirs,) = set(tmp_path.iterdir()) - {mine}
    content = mine.read_bytes()
    theirs.write_bytes(content)
    with pytest.raises(CheckpointError, match="another run"):
        fit(other, digits, tmp_path)
    assert theirs.read_bytes() == content


# --------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_checkpoint_is_named_and_kept(digits, tmp_path, damage):
    fit(SHORT, digits, tmp_path)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    harm = {"cut": content[:-100], "flipped": content, "empty": b"", "text": b"hello"}[damage]
    file.write_bytes(harm)
    with pytest.raises(CheckpointError, match=re.escape(f"{file.name} is damaged")):
        fit(SHORT, digits, tmp_path)
    assert file.read_bytes() == harm


def after_the_first_epoch(monkeypatch, act):
    original = utils.Checkpoint.save

    def save(checkpoint, history):
        original(checkpoint, history)
        if len(history) == 1:
            act()

    monkeypatch.setattr(utils.Checkpoint, "save", save)


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_every_moment_of_a_save_leaves_a_whole_checkpoint(digits, tmp_path, monkeypatch, broken):
    """The disk fills up, or the machine dies, anywhere within the second epoch's save."""

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        after_the_first_epoch(patch, lambda: patch.setattr(os, broken, fail))
        with pytest.raises(CheckpointError, match="No space left.*still holds the epochs before"):
            fit(SHORT, digits, tmp_path)
    (file,) = tmp_path.iterdir()
    assert len(torch.load(file, weights_only=True)["history"]) == 1
    assert same(fit(SHORT, digits, tmp_path), fit(SHORT, digits))


def test_a_first_save_that_fails_says_nothing_of_epochs_before(digits, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CheckpointError, match="No space left") as error:
        fit(SHORT, digits, tmp_path)
    assert "holds" not in str(error.value) and not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_written_is_said_before_training(digits, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(utils, "train_epoch", None)
    with pytest.raises(CheckpointError, match="choose another directory"):
        fit(SHORT, digits, tmp_path / "file" / "checkpoints")


def test_a_directory_that_is_removed_meanwhile_is_made_again(digits, tmp_path, monkeypatch):
    folder = tmp_path / "kept"

    def remove():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

    with monkeypatch.context() as patch:
        after_the_first_epoch(patch, remove)
        fit(SHORT, digits, folder)
    (file,) = folder.iterdir()
    assert len(torch.load(file, weights_only=True)["history"]) == 2


def test_needs_no_chmod_and_follows_no_planted_link(digits, tmp_path, monkeypatch):
    victim, folder = tmp_path / "victim", tmp_path / "kept"
    victim.write_text("precious")

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    def plant():
        (file,) = folder.iterdir()
        for name in (f"{file.name}.partial", f"{file.name}.{os.getpid()}"):
            (folder / name).symlink_to(victim)

    monkeypatch.setattr(os, "chmod", refuse)
    after_the_first_epoch(monkeypatch, plant)
    assert fit(SHORT, digits, folder).finished
    assert victim.read_text() == "precious"


def test_what_a_killed_process_left_is_removed(digits, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    fit(SHORT, digits, tmp_path)
    (file,) = tmp_path.iterdir()
    file.with_name(f"{file.name}.{ended.pid}").write_bytes(b"half")
    file.unlink()
    fit(SHORT, digits, tmp_path)
    assert list(tmp_path.iterdir()) == [file]


# ------------------------------------------------------------------------------ stopped, killed


def test_an_interrupt_passes_through_and_every_finished_epoch_is_kept(
    digits, tmp_path, monkeypatch
):
    experiment = replace(SHORT, norm="BN", epochs=3)
    original, calls = nn.functional.cross_entropy, []

    def cross_entropy(*args, **how):
        calls.append(1)
        if len(calls) == 12:  # 6 steps and 2 evaluations an epoch: in the second
            raise KeyboardInterrupt
        return original(*args, **how)

    with monkeypatch.context() as patch:
        patch.setattr(nn.functional, "cross_entropy", cross_entropy)
        with pytest.raises(KeyboardInterrupt):
            fit(experiment, digits, tmp_path)
    assert torch.is_grad_enabled()
    assert epochs_trained(monkeypatch, experiment, digits, tmp_path) == 2
    assert same(fit(experiment, digits, tmp_path), fit(experiment, digits))


def killed_after_an_epoch(training, directory):
    """Runs a line of Python until the first checkpoint is there; gives the epochs that are kept."""
    script = (
        "import torch, utils; from utils import Experiment; torch.set_num_threads(1)\n"
        f"if __name__ == '__main__': {training}"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    while not list(directory.glob("*.pt")) and process.poll() is None:
        time.sleep(0.002)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not still_there(workers), "they outlive it"
    files = directory.glob("*.pt")
    return [len(torch.load(file, weights_only=True)["history"]) for file in files]


def test_a_killed_run_ends_as_one_never_killed(tmp_path):
    data = utils.load_data("digits")
    experiment = Experiment(norm="BN", l1=1e-5, dropout=0.1, epochs=6)
    training = f"utils.fit({experiment!r}, utils.load_data('digits'), {str(tmp_path)!r})"
    (kept,) = killed_after_an_epoch(training, tmp_path)
    assert 1 <= kept < 6
    assert same(fit(experiment, data, tmp_path), fit(experiment, data))


def test_killed_together_end_as_if_never_killed(tmp_path):
    data = utils.load_data("digits")
    two = [replace(SHORT, norm=norm, epochs=4) for norm in ("GN", "BN")]
    where = f"utils.load_data('digits'), {str(tmp_path)!r}, device='cpu'"
    kept = killed_after_an_epoch(f"utils.fit_together({two!r}, {where})", tmp_path)
    assert 1 <= sum(kept) < 8
    whole = [fit(e, data, device="cpu") for e in two]
    assert all(map(same, utils.fit_together(two, data, tmp_path, device="cpu"), whole))


def test_two_processes_share_an_experiment_and_a_directory(tmp_path):
    experiment = replace(SHORT, epochs=8)
    script = (
        "import torch, utils; from utils import Experiment; torch.set_num_threads(1)\n"
        f"utils.fit({experiment!r}, utils.load_data('digits'), {str(tmp_path)!r})"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PROGRESS": "none"}
    both = [subprocess.Popen([sys.executable, "-c", script], env=env) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert [path.suffix for path in Path(tmp_path).iterdir()] == [".pt"]
