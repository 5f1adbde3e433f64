"""What a folder keeps of a run: every finished epoch, whatever happens between."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
import torch
from conftest import epochs_kept, posix_signals, same, still_there
from torch import nn

import utils
from utils import Experiment, fit

SHORT = Experiment(norm="GN", l1=1e-5, l2=1e-4, epochs=2, dropout=0.1)


def test_a_finished_run_is_loaded_not_trained_again(digits, tmp_path, monkeypatch):
    first = fit(SHORT, digits, tmp_path)
    monkeypatch.setattr(utils, "train_epoch", None)
    again = fit(SHORT, digits, tmp_path)
    assert same(first, again) and again.history["seconds"] == first.history["seconds"]
    assert not again.model.training


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


def test_another_run_is_not_continued(digits, tmp_path, monkeypatch):
    one = replace(SHORT, epochs=1)
    fit(one, digits, tmp_path)
    assert epochs_trained(monkeypatch, one, digits, tmp_path) == 0
    assert epochs_trained(monkeypatch, replace(one, l2=0), digits, tmp_path) == 1
    for name, other in OTHERS.items():
        try:
            with monkeypatch.context() as patch:
                how = {"data": digits, **(other(patch, digits) or {})}
                assert epochs_trained(monkeypatch, one, directory=tmp_path, **how) == 1, name
        finally:
            torch.set_default_dtype(torch.float32)
    assert len(list(tmp_path.iterdir())) == 2 + len(OTHERS)


def test_a_network_of_ones_own_needs_a_name_to_be_kept(digits, tmp_path):
    with pytest.raises(ValueError, match="needs a name"):
        fit(SHORT, digits, tmp_path, network=wide)
    first = fit(SHORT, digits, tmp_path, network=wide, name="wide, 1")
    assert same(first, fit(SHORT, digits, tmp_path, network=wide, name="wide, 1"))
    fit(SHORT, digits, tmp_path, network=wide, name="wide, 2")
    assert len(list(tmp_path.iterdir())) == 2


# --------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "another run's"])
def test_a_file_that_is_not_the_runs_is_named_and_kept(digits, tmp_path, damage):
    fit(SHORT, digits, tmp_path)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    if damage == "another run's":
        fit(replace(SHORT, l1=1e-4), digits, tmp_path / "other")
        content = next((tmp_path / "other").iterdir()).read_bytes()
    harm = {"cut": content[:-100], "empty": b"", "text": b"hello"}.get(damage, content)
    file.write_bytes(harm)
    with pytest.raises(RuntimeError, match=re.escape(f"{file.name} is damaged or another run")):
        fit(SHORT, digits, tmp_path)
    assert file.read_bytes() == harm


class Harmful:
    """What is pickled is called when it is read without care."""

    def __reduce__(self):
        return os.mkdir, ("called",)


def test_a_file_that_cannot_be_read_is_not_called_damaged(digits, tmp_path, monkeypatch):
    first = fit(SHORT, digits, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", Mock(side_effect=PermissionError(13, "Permission denied")))
        with pytest.raises(RuntimeError, match=r"could not be read \(Permission denied\)"):
            fit(SHORT, digits, tmp_path)
    assert same(first, fit(SHORT, digits, tmp_path))


def test_no_code_in_a_file_is_run(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(SHORT, digits, "kept")
    (file,) = Path("kept").iterdir()
    torch.save({"identity": Harmful()}, file)
    with pytest.raises(RuntimeError, match="is damaged"):
        fit(SHORT, digits, "kept")
    assert not Path("called").exists()


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
        with pytest.raises(RuntimeError, match="No space left on device.: make room"):
            fit(SHORT, digits, tmp_path)
    (file,) = tmp_path.iterdir()
    assert len(torch.load(file, weights_only=True)["history"]) == 1
    assert same(fit(SHORT, digits, tmp_path), fit(SHORT, digits))


def test_a_folder_that_cannot_be_written_is_said_before_training(digits, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(utils, "train_epoch", None)
    with pytest.raises(RuntimeError, match="choose another folder"):
        fit(SHORT, digits, tmp_path / "file" / "checkpoints")
    monkeypatch.setattr(os.path, "ismount", lambda path: False)
    with pytest.raises(RuntimeError, match="mount your Drive first, or choose another folder"):
        fit(SHORT, digits, "/content/drive/MyDrive/checkpoints")


def test_a_folder_that_is_removed_meanwhile_is_made_again(digits, tmp_path, monkeypatch):
    folder = tmp_path / "kept"

    def remove():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

    after_the_first_epoch(monkeypatch, remove)
    fit(SHORT, digits, folder)
    (file,) = folder.iterdir()
    assert len(torch.load(file, weights_only=True)["history"]) == 2


def test_a_planted_link_is_not_followed_and_what_a_killed_process_left_is_removed(
    digits, tmp_path, monkeypatch
):
    victim, folder = tmp_path / "victim", tmp_path / "kept"
    victim.write_text("precious")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    def plant():
        (file,) = folder.iterdir()
        file.with_name(f"{file.name}.{os.getpid()}").symlink_to(victim)
        file.with_name(f"{file.name}.{ended.pid}").write_bytes(b"half")

    after_the_first_epoch(monkeypatch, plant)
    assert fit(SHORT, digits, folder).finished
    assert victim.read_text() == "precious"
    assert [path.suffix for path in folder.iterdir()] == [".pt"]


# ------------------------------------------------------------------------------ stopped, killed


def at_call(number, act, original=nn.functional.cross_entropy):
    """``cross_entropy``, of which there are 6 steps and 2 evaluations an epoch; then acts."""
    calls = []

    def cross_entropy(*args, **how):
        calls.append(1)
        if len(calls) == number:
            act()
        return original(*args, **how)

    return cross_entropy


def interrupt():
    raise KeyboardInterrupt


def test_an_interrupt_passes_through_and_every_finished_epoch_is_kept(
    digits, tmp_path, monkeypatch
):
    experiment = replace(SHORT, norm="BN", epochs=3)
    with monkeypatch.context() as patch:
        patch.setattr(nn.functional, "cross_entropy", at_call(12, interrupt))
        with pytest.raises(KeyboardInterrupt):
            fit(experiment, digits, tmp_path)
    assert torch.is_grad_enabled()
    assert epochs_trained(monkeypatch, experiment, digits, tmp_path) == 2
    assert same(fit(experiment, digits, tmp_path), fit(experiment, digits))


def test_gradients_are_on_after_an_interrupt_at_the_worst_moment(digits, monkeypatch):
    """``predict`` has switched them off, and is about to switch them on again."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.no_grad, "__exit__", lambda *_: interrupt())
        fit(SHORT, digits)
    assert torch.is_grad_enabled()


def fit_and_be_killed(*args):
    """In a process of its own: in the second epoch, at its fourth step."""
    nn.functional.cross_entropy = at_call(12, lambda: os.kill(os.getpid(), signal.SIGKILL))
    fit(*args)


@posix_signals
def test_a_killed_run_ends_as_one_never_killed(digits, tmp_path, monkeypatch):
    experiment = replace(SHORT, norm="BN", epochs=3)
    with pytest.raises(BrokenProcessPool), utils.process_pool(1) as pool:
        pool.submit(fit_and_be_killed, experiment, digits, tmp_path).result()
    assert epochs_trained(monkeypatch, experiment, digits, tmp_path) == 2
    assert same(fit(experiment, digits, tmp_path), fit(experiment, digits))


def fit_for_ever(data, directory):
    two = [replace(SHORT, norm=norm, epochs=10_000) for norm in ("GN", "BN")]
    utils.fit_together(two, data, directory, device="cpu")


@posix_signals
def test_processes_end_with_a_killed_parent(digits, tmp_path):
    with pytest.raises(BrokenProcessPool), utils.process_pool(1) as pool:
        parent = pool.submit(os.getpid).result()
        before = set(psutil.Process().children(recursive=True))
        future = pool.submit(fit_for_ever, digits, tmp_path)
        while not (len(kept := epochs_kept(tmp_path)) == 2 and all(kept)) and not future.done():
            time.sleep(0.01)
        workers = list(set(psutil.Process().children(recursive=True)) - before)
        assert len(workers) >= 2
        os.kill(parent, signal.SIGKILL)
        future.result()
    assert not still_there(workers), "they outlive it"
    kept = epochs_kept(tmp_path)
    assert len(kept) == 2 and all(1 <= epochs < 10_000 for epochs in kept)


def fit_there(*args):
    fit(*args)


def test_two_processes_share_an_experiment_and_a_directory(digits, tmp_path):
    with utils.process_pool(2) as pool:
        how = replace(SHORT, epochs=8), digits, tmp_path
        both = [pool.submit(fit_there, *how) for _ in range(2)]
        assert [future.result() for future in both] == [None, None]
    assert [path.suffix for path in tmp_path.iterdir()] == [".pt"]
