"""The sweep: its grids, a row and its figures, staleness, kill and restart, Dask, its errors."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch
from conftest import ROOT, meanwhile
from torch import nn

import sweep
import utils
from s6_model import NORMS, Net
from utils import THREE_EXPERIMENTS, Experiment, fit

TINY = sweep.Grid(
    "Does the sweep work?",
    {norm: Experiment(norm=norm, epochs=2, plain_epochs=1) for norm in NORMS},
    images=300,
    bn_statistics=True,
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A grid of four short runs per seed, on 300 digits."""
    monkeypatch.setenv("PROGRESS", "none")
    monkeypatch.setitem(sweep.GRIDS, "tiny", TINY)


def run(folder, *options, seeds=2, jobs=1):
    options = ("--seeds", str(seeds), "--jobs", str(jobs), *options)
    return sweep.main(["run", "tiny", "--data", "digits", "--results", str(folder), *options])


def rows(folder):
    return sweep.read_rows(folder / "tiny.csv", "tiny")


def untimed(folder, seeds=2):
    """The rows of the first seeds without their seconds, by slot."""
    kept = {slot: row for slot, row in rows(folder).items() if int(slot[1]) < seeds}
    return {slot: {k: v for k, v in r.items() if k != "seconds"} for slot, r in kept.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted sweep of two seeds."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROGRESS", "none")
        patch.setitem(sweep.GRIDS, "tiny", TINY)
        assert run(folder) == 0
    return folder


@pytest.fixture
def copied(whole, tmp_path):
    """The uninterrupted sweep's table, to spoil."""
    (tmp_path / "tiny.csv").write_bytes((whole / "tiny.csv").read_bytes())
    return tmp_path


def edit(folder, slot, **values):
    """Changes a row of the table."""
    table = rows(folder)
    table[slot] |= values
    sweep.write_rows(folder / "tiny.csv", table)


# --------------------------------------------------------------------------------------- grids


def test_replicate_crosses_norms_and_penalties_at_the_lessons_strengths():
    settings = sweep.GRIDS["replicate"].settings
    assert len(settings) == 16
    assert {e.norm for e in settings.values()} == set(NORMS)
    gn_l1, ln_l2, _ = THREE_EXPERIMENTS
    for norm in NORMS:
        strengths = {(e.l1, e.l2) for e in settings.values() if e.norm == norm}
        assert strengths == {(0, 0), (gn_l1.l1, 0), (0, ln_l2.l2), (gn_l1.l1, ln_l2.l2)}
    plain = {dataclasses.replace(e, norm="GN", l1=0, l2=0) for e in settings.values()}
    assert plain == {dataclasses.replace(gn_l1, l1=0, epochs=10)}


@pytest.mark.parametrize("name", ["replicate", "constant", "source"])
def test_the_claims_three_arms_are_in_the_grid(name):
    settings = sweep.GRIDS[name].settings
    for arm in THREE_EXPERIMENTS:
        found = settings[arm.label]
        assert (found.norm, found.groups, found.batch_size) == (arm.norm, 4, arm.batch_size)
        assert found.schedule == ("constant" if name == "constant" else arm.schedule)
        assert found.mean_l1 == (name == "source")


def test_batch_size_scales_the_learning_rate_and_nothing_else():
    settings = sweep.GRIDS["batch_size"].settings
    assert sorted({e.batch_size for e in settings.values()}) == [2, 4, 8, 16, 32, 128]
    assert len(settings) == 24
    base = THREE_EXPERIMENTS[0]
    for e in settings.values():
        assert e.lr / e.batch_size == pytest.approx(base.lr / base.batch_size)
    same = {dataclasses.replace(e, norm="GN", batch_size=1, lr=1) for e in settings.values()}
    assert len(same) == 1 and same.pop().label == "GN"


# --------------------------------------------------------------------------------------- a row


def test_a_row_has_what_fit_gives(whole):
    table = sweep.load_results("tiny", whole, "digits").set_index(["setting", "seed"])
    assert len(table) == 8 and list(table.index)[:3] == [("BN", 0), ("BN", 1), ("LN", 0)]
    data = sweep.sweep_data("digits", 300)
    assert len(data.train) == 300 and (data.train.y.bincount() - 30).abs().max() <= 1
    again = fit(dataclasses.replace(TINY.settings["GN"], seed=1), data, device="cpu")
    row = table.loc["GN", 1]
    assert row["history"]["test_loss"] == again.history["test_loss"]  # to the last bit
    assert row["test_loss"] == again.history["test_loss"][-1]
    assert row["final_l1"] == again.history["l1"][-1]
    wrong = utils.predict(again.model, data.test).argmax(dim=1) != data.test.y
    assert row["wrong"] == wrong.nonzero().flatten().tolist()
    assert (row["train_images"], row["test_images"], row["lr"]) == (300, 360, 0.025)
    assert row["torch"] == torch.__version__ and row["seconds"] > 0
    assert row["fingerprint"] == data.fingerprint()


def test_one_row_comes_out_again_bit_by_bit_and_a_difference_is_found(copied):
    stored, fresh = sweep.rerun("tiny", "BN", 1, copied, "digits")
    assert sweep.differences(stored, fresh) == {}
    edit(copied, ("BN", "1"), test_loss=str(stored["test_loss"] * (1 + 1e-15)))
    stored, fresh = sweep.rerun("tiny", "BN", 1, copied, "digits")
    assert list(sweep.differences(stored, fresh)) == ["test_loss"]
    with pytest.raises(sweep.SweepError, match="no row for 'BN' with seed 7"):
        sweep.rerun("tiny", "BN", 7, copied, "digits")


def test_a_process_loads_its_data_once(tmp_path, monkeypatch):
    calls = []
    load = sweep.load_data
    monkeypatch.setattr(sweep, "load_data", lambda name: calls.append(name) or load(name))
    sweep.sweep_data.cache_clear()
    assert run(tmp_path, seeds=1) == 0
    assert calls == ["digits"] and len(rows(tmp_path)) == 4


def test_a_run_leaves_threads_and_progress_bar_as_they_were(monkeypatch):
    torch.set_num_threads(2)
    monkeypatch.delenv("PROGRESS")
    seen = []
    monkeypatch.setattr(sweep, "fit", lambda *_, **__: seen.append(torch.get_num_threads()))
    sweep.train(sweep.task("tiny", "BN", 0, "digits"))
    assert seen == [1] and torch.get_num_threads() == 2 and "PROGRESS" not in os.environ


# ------------------------------------------------------------------------------- BN's statistics


@pytest.fixture(scope="module")
def trained():
    data = sweep.sweep_data("digits", 300)
    return fit(Experiment(norm="BN", epochs=1, batch_size=8), data, device="cpu"), data


def buffers(model):
    return [buffer.clone() for buffer in model.buffers()]


def test_precise_statistics_are_those_of_all_images_at_once(trained):
    run, data = trained
    before = buffers(run.model)
    precise = sweep.with_precise_statistics(run.model, data.train, batch_size=70)  # and 20
    first = precise.features[0](utils.normalize(data.train.x)).double()
    bn = precise.features[1]
    assert torch.allclose(bn.running_mean.double(), first.mean((0, 2, 3)), atol=1e-5)
    variance = first.var((0, 2, 3), unbiased=False)
    assert torch.allclose(bn.running_var.double(), variance, rtol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(before, buffers(run.model), strict=True))
    # In one batch, every layer normalizes by what it then stores: training mode gives the same.
    whole = sweep.with_precise_statistics(run.model, data.train, batch_size=300)
    x = utils.normalize(data.train.x)
    logits = whole(x), whole.train()(x)
    assert torch.allclose(*logits, atol=1e-3)


def test_batch_statistics_are_those_of_training_mode(trained):
    run, data = trained
    before = buffers(run.model)
    loss, accuracy = sweep.evaluate_by_batch(run.model, data.test, 360)
    assert all(torch.equal(a, b) for a, b in zip(before, buffers(run.model), strict=True))
    oracle = Net("BN")
    oracle.load_state_dict(run.model.state_dict())
    logits = oracle.train()(utils.normalize(data.test.x))
    assert loss == pytest.approx(nn.functional.cross_entropy(logits, data.test.y).item(), rel=1e-4)
    assert accuracy == pytest.approx(
        (logits.argmax(1) == data.test.y).float().mean().item(), abs=0.003
    )
    assert sweep.evaluate_by_batch(run.model, data.test, 2)[0] != pytest.approx(loss, rel=1e-2)


def test_only_bn_has_the_other_statistics_in_its_row(whole):
    table = sweep.load_results("tiny", whole, "digits")
    has = table["precise_test_accuracy"].notna() & table["batch_test_accuracy"].notna()
    assert set(table.loc[has, "norm"]) == {"BN"} and has.sum() == 2


# ------------------------------------------------------------------------------- failed and stale


def test_a_failed_run_is_a_row_and_is_run_again_on_demand(tmp_path, monkeypatch, capsys):
    bad = dataclasses.replace(TINY.settings["GN"], lr=1e30, schedule="constant")
    broken = dataclasses.replace(TINY, settings=TINY.settings | {"GN": bad})
    monkeypatch.setitem(sweep.GRIDS, "tiny", broken)
    assert run(tmp_path, seeds=1) == 0
    status = {slot[0]: row["status"] for slot, row in rows(tmp_path).items()}
    assert status == {"BN": "ok", "LN": "ok", "GN": "failed", "none": "ok"}
    assert "Diverged: GN diverged" in rows(tmp_path)["GN", "0"]["reason"]
    capsys.readouterr()
    assert len(sweep.load_results("tiny", tmp_path, "digits")) == 3
    assert "1 failed or stale rows" in capsys.readouterr().out
    sweep.main(["status", "--data", "digits", "--results", str(tmp_path)])
    assert "GN, seed 0 failed: Diverged" in capsys.readouterr().out

    ran = []
    monkeypatch.setattr(sweep, "fit", lambda e, *_, **__: ran.append(e.label) or 1 / 0)
    assert run(tmp_path, seeds=1) == 0 and ran == []
    assert run(tmp_path, "--retry-failed", seeds=1) == 0 and ran == ["GN"]
    assert rows(tmp_path)["GN", "0"]["reason"] == "ZeroDivisionError: division by zero"


def test_rows_of_other_settings_are_stale_until_the_new_ones_are_there(copied, monkeypatch, capsys):
    other = dataclasses.replace(TINY.settings["LN"], groups=2)
    monkeypatch.setitem(
        sweep.GRIDS, "tiny", dataclasses.replace(TINY, settings=TINY.settings | {"LN": other})
    )
    sweep.main(["status", "--data", "digits", "--results", str(copied)])
    said = capsys.readouterr().out
    assert "tiny: 6 of 40 runs" in said
    assert "LN, seed 1 is stale: groups 4, not 2" in said and "GN, seed 0 is" not in said
    old, ran = rows(copied), []
    train = sweep.train

    def second_is_interrupted(one):
        ran.append(one.slot)
        if len(ran) == 2:
            assert rows(copied)["LN", "1"] == old["LN", "1"]  # still there
            raise KeyboardInterrupt
        return train(one)

    monkeypatch.setattr(sweep, "train", second_is_interrupted)
    assert run(copied) == 130
    assert ran == [("LN", "0"), ("LN", "1")]
    assert len(rows(copied)) == 8 and rows(copied)["LN", "0"]["groups"] == "2"


def test_rows_of_other_training_code_are_stale(copied, capsys):
    edit(copied, ("GN", "0"), code="0123456789ab")
    capsys.readouterr()
    assert len(sweep.load_results("tiny", copied, "digits")) == 7
    sweep.main(["list", "--data", "digits", "--results", str(copied), "--seeds", "2"])
    line = next(n for n in capsys.readouterr().out.splitlines() if n.startswith("tiny"))
    assert line.split()[1:6] == ["8", "7", "0", "1", "1"]  # runs, ok, failed, stale, missing
    assert sweep.why_stale(rows(copied)["GN", "0"], "digits") == "other training code"
    assert run(copied) == 0 and rows(copied)["GN", "0"]["code"] != "0123456789ab"


def test_rows_of_a_setting_that_is_gone_are_named_and_kept(copied, monkeypatch):
    fewer = {k: v for k, v in TINY.settings.items() if k != "none"}
    monkeypatch.setitem(sweep.GRIDS, "tiny", dataclasses.replace(TINY, settings=fewer))
    assert sweep.why_stale(rows(copied)["none", "0"], "digits") == "no longer in the grid"
    assert run(copied, seeds=3) == 0 and len(rows(copied)) == 8 + 3


ORIGINAL = "".join((ROOT / name).read_text() for name in ("s6_model.py", "utils.py"))
ROOTS = ("fit",)


@pytest.mark.parametrize(
    "old, new, counts",
    [
        ("10 * torch.pi", "13 * torch.pi", True),  # in augment, which batches calls
        ("MEAN, STD = 0.1307", "MEAN, STD = 0.1308", True),
        ("0.5 * _flat(", "_flat(", True),
        ("nn.ReLU(inplace=True)", "nn.SiLU(inplace=True)", True),
        ("if not loss.isfinite():", "if loss.isnan():", True),
        ("# so do two", "", False),
        ("    # At most 5,000", "    # Some 5,000", False),
        ('"""Mean cross-entropy in nats', '"""The mean in nats', False),
        ("interrupted; its first", "stopped; the first", False),
        ("optimizer diverged", "", False),
        ("Unknown norm", "No such norm", False),
        ("-> tuple[float, float]:\n", "-> tuple:\n", False),
        ("def plot_curve(", "def draw_curve(", False),
        ("os.fsync(file.fileno())", "pass", False),  # of the checkpoint
    ],
)
def test_what_training_computes_counts_and_words_do_not(tmp_path, old, new, counts):
    prints = []
    for i, text in enumerate((ORIGINAL, ORIGINAL.replace(old, new))):
        (tmp_path / f"{i}.py").write_text(text)
        prints.append(sweep.fingerprint(sweep._definitions([tmp_path / f"{i}.py"]), ROOTS))
    assert (prints[0] != prints[1]) == counts
    if counts:
        assert old in ORIGINAL


def test_every_grids_own_statistics_are_part_of_its_code():
    assert sweep.code_hash("fit") != sweep.code_hash("fit", "bn_statistics")
    assert len({t.identity()["code"] for t in sweep.tasks("replicate", 1)}) == 1


# -------------------------------------------------------------------------------- kill and restart


def wait_for_rows(folder, n, seconds=120):
    """Until the table has so many rows; it is whole at each look."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if len(found := rows(folder)) >= n:
            return found
        time.sleep(0.01)
    raise AssertionError(f"no {n} rows after {seconds} s")


def restarts_to_the_same_rows(folder, whole, monkeypatch):
    there, ran = rows(folder), []
    train = sweep.train
    monkeypatch.setattr(sweep, "train", lambda one: ran.append(one.slot) or train(one))
    assert run(folder) == 0
    assert not set(ran) & set(there) and len(ran) == len(set(ran))  # only what was missing
    assert untimed(folder) == untimed(whole)
    lines = (folder / "tiny.csv").read_text().splitlines()
    assert len(lines) == 1 + len(set(ran) | set(there))


# As the command line does it, in a process of its own, but for the grid.
COMMAND = f"""
import dataclasses, runpy, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
import sweep, test_sweep
sweep.GRIDS["tiny"] = test_sweep.TINY
sys.argv[0] = {str(ROOT / "sweep.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_killed_in_the_middle_and_started_again(tmp_path, whole, monkeypatch):
    options = ["run", "tiny", "--seeds", "25", "--jobs", "2", "--data", "digits"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *options, "--results", str(tmp_path)],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_rows(tmp_path, 2)
        assert run(tmp_path) == 2  # a second sweep does not write into the same table
        workers = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
    assert process.wait(10) == -signal.SIGKILL
    assert 2 <= len(rows(tmp_path)) < 100
    assert psutil.wait_procs(workers, timeout=20)[1] == [], "its workers outlive it"
    restarts_to_the_same_rows(tmp_path, whole, monkeypatch)


def test_a_worker_that_begins_after_the_sweep_was_killed_ends():
    code = "import os, sweep, time; sweep.begin_worker(the_sweep=os.getpid()); time.sleep(60)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=50, capture_output=True)
    assert (ended.returncode, ended.stderr) == (1, b"")  # not by an exception


@pytest.mark.usefixtures("interruptible")
def test_interrupted_keeps_what_is_finished(tmp_path, whole, monkeypatch, capsys):
    with meanwhile(
        ready=lambda: len(rows(tmp_path)) >= 2,
        act=lambda: os.kill(os.getpid(), signal.SIGINT),
    ):
        assert run(tmp_path, seeds=50, jobs=2) == 130
    assert capsys.readouterr().err == (
        "Interrupted: every finished run is kept; start again to continue.\n"
    )
    assert 2 <= len(rows(tmp_path)) < 200
    restarts_to_the_same_rows(tmp_path, whole, monkeypatch)


def test_a_killed_worker_costs_no_other_run(tmp_path, whole, monkeypatch, capsys):
    starts, results_of = [], sweep.results_of

    def loses_a_worker(todo, jobs, dask):
        starts.append(len(todo))
        yield from itertools.islice(results_of(todo, jobs, dask), 3)
        if len(todo) > 3:
            raise sweep.TerminatedWorkerError

    monkeypatch.setattr(sweep, "results_of", loses_a_worker)
    assert run(tmp_path) == 0 and starts == [8, 5, 2]
    assert untimed(tmp_path) == untimed(whole)

    def loses_every_worker(*_):
        raise sweep.TerminatedWorkerError
        yield

    monkeypatch.setattr(sweep, "results_of", loses_every_worker)
    assert run(tmp_path, seeds=3) == 2  # and does not try for ever
    assert "start again with fewer --jobs" in capsys.readouterr().err


def test_an_interrupt_within_a_run_makes_no_row(tmp_path, monkeypatch):
    def half(experiment, *_, **__):  # as fit does, which takes the interrupt for itself
        return utils.Run(Net(), utils.History(experiment))

    monkeypatch.setattr(sweep, "fit", half)
    assert run(tmp_path) == 130 and rows(tmp_path) == {}


def test_a_write_that_fails_leaves_the_rows_before(copied, monkeypatch, capsys):
    before = (copied / "tiny.csv").read_bytes()
    full = OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(full))
        assert run(copied, seeds=3) == 2
    assert "could not be written (No space left on device)" in capsys.readouterr().err
    assert (copied / "tiny.csv").read_bytes() == before
    assert run(copied, seeds=3) == 0 and len(rows(copied)) == 12


# ---------------------------------------------------------------------------------------- Dask


def test_a_dask_worker_killed_in_the_middle_costs_no_row(tmp_path, whole):
    distributed = pytest.importorskip("distributed")

    class Nanny(distributed.Nanny):
        def __init__(self, *args, **kwargs):  # the killed one stays away; starting takes seconds
            super().__init__(*args, **kwargs)
            self.auto_restart = False

    settings = {"n_workers": 2, "threads_per_worker": 1, "worker_class": Nanny}
    settings |= {"dashboard_address": None}
    with distributed.LocalCluster(**settings, silence_logs=50) as cluster:
        with distributed.Client(cluster) as client:
            workers = list(client.run(os.getpid).values())
        at_kill = []

        def kill():
            at_kill.append(len(wait_for_rows(tmp_path, 2)))
            os.kill(workers[0], signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        assert run(tmp_path, "--dask", cluster.scheduler_address, seeds=4) == 0
        thread.join()
    assert at_kill[0] < 16 == len(rows(tmp_path))
    assert len((tmp_path / "tiny.csv").read_text().splitlines()) == 17
    assert untimed(tmp_path) == untimed(whole)


def test_without_dask_a_sentence_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run(tmp_path, "--dask", "tcp://127.0.0.1:1") == 2
    assert "--dask needs Dask: pip install distributed" in capsys.readouterr().err


# -------------------------------------------------------------------------------------- errors


def one_sentence(capsys):
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said
    return said


@pytest.mark.parametrize(
    "options, says",
    [
        (["run", "nonsense"], "no grid 'nonsense': use one of replicate, "),
        (["run", "tiny", "--seeds", "0"], "0 seeds: use a whole number from 1 up"),
        (["list", "--seeds", "-1"], "-1 seeds: use a whole number from 1 up"),
        (["run", "tiny", "--jobs", "0"], "0 jobs: use a whole number from 1 up"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path, capsys, options, says):
    assert sweep.main([*options, "--data", "digits", "--results", str(tmp_path)]) == 2
    assert says in one_sentence(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert run(tmp_path / "file" / "results") == 2
    assert "choose another folder with --results" in one_sentence(capsys)


def spoiled(text):
    """A table that lost its end, was someone else's, was edited by hand, or is not text."""
    lines = text.splitlines(keepends=True)
    yield text[: len(text) * 2 // 3].encode()
    yield text[:-2].encode()
    yield text[: text.index(",ok,") + 2].encode()
    yield b"epoch,loss\n1,0.5\n"
    yield text.replace("tiny,BN", "other,BN", 1).encode()
    yield "".join([*lines, lines[-1]]).encode()
    yield text.replace(",ok,", ",perhaps,", 1).encode()
    yield text.replace(",ok,,", ",ok,,about ", 1).encode()
    yield b"\x89PNG\r\n\x1a\n\x00\xff" + bytes(range(256))
    yield b""


@pytest.mark.parametrize("case", range(10))
def test_a_spoiled_table_is_named_and_left_alone(copied, capsys, case):
    path = copied / "tiny.csv"
    damaged = list(spoiled(path.read_text()))[case]
    path.write_bytes(damaged)
    assert run(copied, seeds=3) == 2
    assert "is damaged or no table of the grid 'tiny'" in one_sentence(capsys)
    assert sweep.main(["status", "--results", str(copied)]) == 2
    assert path.read_bytes() == damaged
    with pytest.raises(sweep.SweepError):
        sweep.load_results("tiny", copied, "digits")


def test_a_table_from_before_a_setting_was_added_is_stale_not_damaged(copied):
    path = copied / "tiny.csv"
    path.write_text(path.read_text().replace(",dropout,", ",removed,", 1))
    row = rows(copied)["BN", "0"]
    assert sweep.why_stale(row, "digits") == "dropout None, not 0.0"
    assert run(copied) == 0
    assert not any(sweep.why_stale(r, "digits") for r in rows(copied).values())


def test_a_stand_in_for_mnist_is_no_replication(tmp_path, monkeypatch, capsys):
    load = sweep.load_data
    monkeypatch.setattr(sweep, "load_data", lambda _: load("digits"))
    sweep.sweep_data.cache_clear()
    assert sweep.main(["run", "tiny", "--results", str(tmp_path)]) == 2
    assert "needs MNIST: set MNIST_ROOT" in one_sentence(capsys)


def test_a_grid_without_rows_says_how_to_make_them(tmp_path):
    with pytest.raises(sweep.SweepError, match="python sweep.py run tiny makes them"):
        sweep.load_results("tiny", tmp_path)


def test_committed_tables_can_be_read_and_have_no_stale_rows():
    for path in sorted((ROOT / "results").glob("*.csv")):
        found = sweep.read_rows(path, path.stem)
        assert {sweep.why_stale(row) for row in found.values()} <= {""}
        json.loads(next(iter(found.values()))["history"])
