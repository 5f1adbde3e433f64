"""Several runs at the same time, in processes that end with the one that started them."""

import io
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
import tqdm.std
from conftest import ROOT, meanwhile, posix_signals, same

import utils
from utils import Diverged, Experiment, fit

SHORT = Experiment(norm="GN", l1=1e-5, l2=1e-4, epochs=2, dropout=0.1)
TWO = [replace(SHORT, norm=norm, epochs=4) for norm in ("GN", "BN")]
LONG = [replace(e, epochs=10_000) for e in TWO]


def together(experiments, data, directory=None):
    return utils.fit_together(experiments, data, directory, device="cpu")


def children():
    return [p for p in multiprocessing.active_children() if p.is_alive()]


def test_together_is_as_alone_and_in_order(digits):
    short_last = [TWO[0], replace(TWO[1], epochs=1)]
    alone = [fit(e, digits, device="cpu") for e in short_last]
    assert all(map(same, together(short_last, digits), alone))
    assert not children()


@posix_signals
@pytest.mark.usefixtures("interruptible")
def test_stopped_together_end_at_once_and_what_is_finished_is_kept(digits, tmp_path):
    with meanwhile(
        ready=lambda: len(list(tmp_path.glob("*.pt"))) == 2,
        act=lambda: os.kill(os.getpid(), signal.SIGINT),
    ):
        with pytest.raises(KeyboardInterrupt):
            together(LONG, digits, tmp_path)
    assert not children()
    kept = [torch.load(file, weights_only=True)["history"] for file in tmp_path.glob("*.pt")]
    assert len(kept) == 2 and all(1 <= len(history) < 10_000 for history in kept)


def test_one_that_diverges_ends_all_with_its_reason(digits):
    with pytest.raises(Diverged, match=r"GN \+ L1 \+ L2 diverged in epoch") as caught:
        together([replace(TWO[0], lr=1e9), LONG[1]], digits)
    epoch = int(re.search(r"epoch (\d+)", str(caught.value))[1])
    assert caught.value.history["epoch"] == list(range(1, epoch))
    assert not children()


def test_a_process_killed_from_outside_is_said_and_the_epochs_are_kept(digits, tmp_path):
    with meanwhile(
        ready=lambda: len(list(tmp_path.glob("*.pt"))) == 2,
        act=lambda: children()[0].kill(),
    ):
        with pytest.raises(RuntimeError, match="process was killed.*finished epoch is kept"):
            together(LONG, digits, tmp_path)
    assert not children() and len(list(tmp_path.glob("*.pt"))) == 2


def test_where_processes_cannot_start_one_is_trained_after_another(tmp_path):
    """The path of a socket must be short, and the processes are started through one."""
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    script = (
        "import utils; from utils import Experiment; data = utils.load_data('digits')\n"
        "if __name__ == '__main__':\n"
        f"    runs = utils.fit_together({[replace(e, epochs=1) for e in TWO]!r}, data)\n"
        "    print([run.finished for run in runs])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(deep)}
    shown = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
    ).stdout
    assert "one experiment after another" in shown and "[True, True]" in shown


def test_on_an_accelerator_one_is_trained_after_another(digits, monkeypatch):
    def fit_there(experiment, data, directory, device):
        return utils.Run(None, utils.History(experiment)), device

    monkeypatch.setattr(utils, "fit", fit_there)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    runs = utils.fit_together(TWO, digits, device="cuda")
    assert [(r.experiment, device) for r, device in runs] == [(e, "cuda") for e in TWO]


# ------------------------------------------------------------------------------------- the pool


def threads_of(_):
    return torch.get_num_threads()


def test_the_pool_has_one_thread_a_process():
    with utils.process_pool(2) as pool:
        assert list(pool.map(threads_of, range(5))) == [1] * 5
    assert not children()


@posix_signals
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_pool_at_once():
    with meanwhile(ready=children, act=partial(os.kill, os.getpid(), signal.SIGINT)):
        with pytest.raises(KeyboardInterrupt), utils.process_pool(2) as pool:
            list(pool.map(time.sleep, [3_600] * 4))
    assert not children()


# -------------------------------------------------------------------------------------- the bar


def test_each_run_has_a_bar_that_says_where_it_is(digits, monkeypatch):
    shown = io.StringIO()
    monkeypatch.delenv("PROGRESS", raising=False)
    monkeypatch.setattr(utils.tqdm.auto, "tqdm", partial(tqdm.std.tqdm, file=shown))
    together(TWO, digits)
    for label in ("GN + L1 + L2", "BN + L1 + L2"):
        assert re.search(
            rf"{re.escape(label)}: 100%.* 24/24 .*epoch 4, loss .*test", shown.getvalue()
        )


def test_no_bar_where_none_is_asked_for(digits, monkeypatch, capsys):
    monkeypatch.setenv("PROGRESS", "none")
    fit(SHORT, digits)
    assert capsys.readouterr().err == ""
