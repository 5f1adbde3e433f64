"""Several runs at the same time, in processes that end with the one that started them."""

import io
import multiprocessing
import os
import re
import signal
import time
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial

import pytest
import torch
import tqdm.std
from conftest import epochs_kept, meanwhile, posix_signals, same

import utils
from utils import Diverged, Experiment, fit

SHORT = Experiment(norm="GN", l1=1e-5, l2=1e-4, epochs=2, dropout=0.1)
TWO = [replace(SHORT, norm=norm, epochs=4) for norm in ("GN", "BN")]
LONG = [replace(e, epochs=10_000) for e in TWO]


def together(experiments, data, directory=None):
    return utils.fit_together(experiments, data, directory, device="cpu")


def children():
    return [p for p in multiprocessing.active_children() if p.is_alive()]


def test_together_is_as_alone_and_in_order_and_each_run_has_a_bar(digits, monkeypatch):
    shown = io.StringIO()
    monkeypatch.delenv("PROGRESS", raising=False)
    monkeypatch.setattr(utils.tqdm.auto, "tqdm", partial(tqdm.std.tqdm, file=shown))
    short_last = [TWO[0], replace(TWO[1], epochs=1)]
    runs = together(short_last, digits)
    assert not children()
    for bar in (r"GN \+ L1 \+ L2: 100%.* 24/24 .*epoch 4, test", r"BN.*: 100%.* 6/6 .*epoch 1, te"):
        assert re.search(bar, shown.getvalue())
    assert all(map(same, runs, [fit(e, digits, device="cpu") for e in short_last]))


@posix_signals
@pytest.mark.usefixtures("interruptible")
def test_stopped_together_end_at_once_and_what_is_finished_is_kept(digits, tmp_path):
    with meanwhile(
        ready=lambda: len(kept := epochs_kept(tmp_path)) == 2 and all(kept),
        act=lambda: os.kill(os.getpid(), signal.SIGINT),
    ):
        with pytest.raises(KeyboardInterrupt):
            together(LONG, digits, tmp_path)
    assert not children()
    kept = epochs_kept(tmp_path)
    assert len(kept) == 2 and all(1 <= epochs < 10_000 for epochs in kept)


def test_one_that_diverges_ends_all_with_its_reason(digits):
    with pytest.raises(Diverged, match=r"GN \+ L1 \+ L2 diverged in epoch"):
        together([replace(TWO[0], lr=1e9), LONG[1]], digits)
    assert not children()


@pytest.fixture
def trained_alone(monkeypatch):
    """What ``fit_together`` hands to ``fit``, which does nothing."""
    calls = []
    monkeypatch.setattr(utils, "fit", lambda *args: calls.append(args))
    return calls


def test_after_a_killed_process_one_is_trained_after_another(
    digits, tmp_path, trained_alone, capsys
):
    with meanwhile(
        ready=lambda: len(list(tmp_path.glob("*.pt"))) == 2,
        act=lambda: max(children(), key=lambda p: p.pid).kill(),  # the last to start
    ):
        together(LONG, digits, tmp_path)
    assert not children() and len(list(tmp_path.glob("*.pt"))) == 2
    assert trained_alone == [(e, digits, tmp_path, "cpu") for e in LONG]
    assert "one experiment after another" in capsys.readouterr().out


def test_where_processes_cannot_start_one_is_trained_after_another(
    digits, trained_alone, monkeypatch, capsys
):
    def refuse(_):
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    together(TWO, digits)
    assert trained_alone == [(e, digits, None, "cpu") for e in TWO]
    said = capsys.readouterr().out
    assert "AF_UNIX path too long" in said and "one experiment after another" in said


def test_on_an_accelerator_one_is_trained_after_another(digits, trained_alone, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    utils.fit_together(TWO, digits, device="cuda")
    assert trained_alone == [(e, digits, None, "cuda") for e in TWO]


# ------------------------------------------------------------------------------------- the pool


def threads_of(_):
    return torch.get_num_threads()


@posix_signals
@pytest.mark.usefixtures("interruptible")
def test_the_pool_has_one_thread_a_process_and_an_interrupt_ends_it_at_once():
    with pytest.raises(KeyboardInterrupt), utils.process_pool(2) as pool:
        assert list(pool.map(threads_of, range(5))) == [1] * 5
        with meanwhile(ready=children, act=partial(os.kill, os.getpid(), signal.SIGINT)):
            wait([pool.submit(time.sleep, 3_600) for _ in range(4)])
    assert not children()


def test_no_bar_where_none_is_asked_for(digits, monkeypatch, capsys):
    monkeypatch.setenv("PROGRESS", "none")
    fit(SHORT, digits)
    assert capsys.readouterr().err == ""


@posix_signals
def test_the_death_of_any_worker_is_noticed():
    """Also of the last to start, whose start Python's pool may not have taken note of."""
    with pytest.raises(BrokenProcessPool), utils.process_pool(3) as pool:
        tasks = [pool.submit(time.sleep, 3_600) for _ in range(3)]
        max(children(), key=lambda p: p.pid).kill()
        tasks[0].result(timeout=60)
    assert not children()


@pytest.mark.parametrize("asked, dtype", [("1", torch.float64), ("0", torch.float32)])
def test_a_worker_takes_the_smoke_test_and_the_dtype_from_its_parent(asked, dtype, monkeypatch):
    """Its own environment is that of a process that may have been started long before."""
    monkeypatch.setenv("SMOKE_TEST", asked)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with utils.process_pool(1) as pool:
            assert pool.submit(os.getenv, "SMOKE_TEST").result() == asked
            assert pool.submit(torch.get_default_dtype).result() == dtype
    finally:
        torch.set_default_dtype(before)
