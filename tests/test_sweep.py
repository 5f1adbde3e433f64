"""A sweep: what its rows hold, and that nothing finished is lost, whatever is killed and when."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest
import tiny_grid
import torch
from conftest import ROOT, meanwhile, posix_signals, still_there
from tiny_grid import GRID, Setting

import utils
from backstage.evidence import load, sweep
from backstage.evidence.__main__ import main
from backstage.evidence.grids import GRIDS, tasks

WANTED = {(task.name, task.seed) for task in tasks("tiny", GRID)}


def rows(folder):
    """Of all lines that are whole, by setting and seed: they are written as the runs end."""
    path = folder / "tiny.jsonl"
    text = path.read_text() if path.exists() else ""
    whole = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return sorted(whole, key=lambda row: (row["setting"], row["seed"]))


def slots(folder):
    return [(row["setting"], row["seed"]) for row in rows(folder)]


def in_this_process(monkeypatch):
    monkeypatch.setattr(sweep, "workers", lambda *_: ThreadPoolExecutor(1))
    monkeypatch.setattr(tiny_grid, "sleep", lambda _: None)


@pytest.fixture
def in_process(monkeypatch):
    in_this_process(monkeypatch)


def test_a_row_has_its_settings_columns_and_what_was_measured(tmp_path, in_process):
    sweep.run("tiny", GRID, folder=tmp_path)
    assert slots(tmp_path) == sorted(WANTED)
    row = rows(tmp_path)[-1]
    known = {"grid": "tiny", "power": 2, "seed": 11, "value": 121, "status": "ok", "images": 300}
    assert known.items() <= row.items()
    assert (ROOT / row["measure"]).name == "tiny_grid.py" or row["measure"] == "tiny_grid.py"
    assert row["fingerprint"] == sweep.data_of("digits", 300).fingerprint()
    assert (row["recipe"], row["torch"]) == (utils.RECIPE, torch.__version__)
    table = load("tiny", tmp_path).pivot(index="seed", columns="power", values="value")
    assert list(table[2]) == [seed**2 for seed in range(12)]


def test_a_failed_run_has_a_row_with_its_reason_and_is_run_again(tmp_path, in_process):
    grid = replace(GRID, settings={"power 3": Setting(3)}, seeds=2)
    sweep.run("tiny", grid, folder=tmp_path)
    assert [row["status"] for row in rows(tmp_path)] == ["ok", "failed"]
    assert rows(tmp_path)[1]["reason"] == "ValueError: a cube of 1"
    assert list(load("tiny", tmp_path)["seed"]) == [0]
    sweep.run("tiny", grid, folder=tmp_path)
    assert slots(tmp_path) == [("power 3", 0), ("power 3", 1), ("power 3", 1)]


def test_cut_off_at_any_byte_it_goes_on_where_it_was(tmp_path, in_process, capsys):
    path, rng = tmp_path / "tiny.jsonl", random.Random(0)
    for _ in range(10):
        sweep.run("tiny", GRID, folder=tmp_path)
        assert sorted(slots(tmp_path)) == sorted(WANTED)  # each once
        os.truncate(path, rng.randrange(path.stat().st_size))
    assert "tiny.jsonl ends in half a line, which is left out." in capsys.readouterr().err


def test_a_file_with_the_line_ends_of_windows_keeps_its_rows(tmp_path, in_process):
    sweep.run("tiny", GRID, folder=tmp_path)
    path = tmp_path / "tiny.jsonl"
    first, *others = path.read_bytes().splitlines()
    path.write_bytes(b"\r\n".join([first, *others[:4], others[5][:9]]))
    sweep.run("tiny", GRID, folder=tmp_path)
    assert sorted(slots(tmp_path)) == sorted(WANTED)


@posix_signals
def test_killed_it_loses_no_finished_run(tmp_path, monkeypatch):
    command = [sys.executable, str(ROOT / "tests" / "tiny_grid.py"), tmp_path]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while len(slots(tmp_path)) < 5 and process.poll() is None:
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not still_there(workers, 120), "they outlive it"
    before = set(slots(tmp_path))
    assert before and before < WANTED
    in_this_process(monkeypatch)
    sweep.run("tiny", GRID, folder=tmp_path)
    assert sorted(slots(tmp_path)) == sorted(WANTED)  # each once


@posix_signals
def test_a_killed_dask_worker_loses_no_finished_run(tmp_path):
    distributed, before = pytest.importorskip("distributed"), set()
    how = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(**how) as cluster:

        def kill_one():
            before.update(slots(tmp_path))
            os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)

        with meanwhile(ready=lambda: len(slots(tmp_path)) >= 8, act=kill_one):
            with contextlib.suppress(RuntimeError):  # runs were lost with the worker
                sweep.run("tiny", GRID, scheduler=cluster.scheduler_address, folder=tmp_path)
        assert before and before <= set(slots(tmp_path))
        sweep.run("tiny", GRID, scheduler=cluster.scheduler_address, folder=tmp_path)
    assert sorted(slots(tmp_path)) == sorted(WANTED)


def test_dask_workers_with_several_threads_are_refused(tmp_path):
    """Their runs would draw from each other's random numbers."""
    distributed = pytest.importorskip("distributed")
    how = {"processes": False, "threads_per_worker": 2, "dashboard_address": None}
    with distributed.LocalCluster(n_workers=1, **how, silence_logs=50) as cluster:
        with pytest.raises(RuntimeError, match="--nthreads 1"):
            sweep.run("tiny", GRID, scheduler=cluster.scheduler_address, folder=tmp_path)


def test_what_stands_in_for_mnist_is_refused(monkeypatch):
    monkeypatch.setattr(sweep, "load_data", lambda _: utils.load_data("digits"))
    sweep.data_of.cache_clear()
    with pytest.raises(RuntimeError, match="needs MNIST: set MNIST_ROOT"):
        sweep.data_of("mnist", 300)


def test_the_list_shows_what_is_there(tmp_path, monkeypatch, capsys, in_process):
    monkeypatch.setitem(GRIDS, "tiny", GRID)
    monkeypatch.setattr(sys, "argv", ["", "--results", str(tmp_path), "run", "tiny"])
    assert main() == 0
    monkeypatch.setattr(sys, "argv", ["", "--results", str(tmp_path), "list"])
    assert main() == 0
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.lstrip().startswith("tiny"))
    assert "24 of 24" in line and tiny_grid.__name__ in line


def test_settings_differ_and_cannot_be_changed():
    for name, grid in GRIDS.items():
        settings = list(grid.settings.values())
        assert len(set(settings)) == len(settings), name
        assert all(setting.__dataclass_params__.frozen for setting in settings), name


def test_every_stored_row_is_of_its_grid_and_made_by_todays_recipe():
    for name in (path.stem for path in (ROOT / "results").glob("*.jsonl")):
        grid, path = GRIDS[name], ROOT / "results" / f"{name}.jsonl"
        table = load(name)
        assert sweep.done(path) <= {(task.name, task.seed) for task in tasks(name, grid)}, name
        assert len(table) == len(sweep.done(path)), name
        assert set(table["recipe"]) == {utils.RECIPE}, name
