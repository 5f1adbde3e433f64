"""evidence.grids, results and sweep: what a row holds, staleness, kill and restart, errors."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from conftest import ROOT, meanwhile, posix_signals, still_there
from torch import nn

import utils
from backstage.evidence import bn_statistics, grids, results, sweep
from backstage.evidence.grids import GRIDS, EvidenceError, Task
from backstage.evidence.measures import training
from s6_model import NORMS, Net
from utils import THREE_EXPERIMENTS, Experiment, fit

DEMO = GRIDS["demo"]


def serial(function, tasks, jobs, dask=None):
    """The same without processes, which cannot see what a test changes."""
    for position, task in enumerate(tasks):
        yield position, function(task)


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(sweep, "side_by_side", serial)


def arguments(folder, *options, name="demo", seeds=2, jobs=1):
    options = ("--seeds", str(seeds), "--jobs", str(jobs), *options)
    return ["run", name, "--data", "digits", "--results", str(folder), *options]


def run(folder, *options, **how):
    return sweep.main(arguments(folder, *options, **how))


def rows(folder):
    return results.read_rows(folder / "demo.jsonl", "demo")


def untimed(folder, seeds=2):
    """The rows of the first seeds without their seconds, by slot."""
    kept = {slot: row for slot, row in rows(folder).items() if slot[1] < seeds}
    return {slot: {k: v for k, v in r.items() if k != "seconds"} for slot, r in kept.items()}


def of(command, folder, **how):
    return sweep.main([command, "--data", "digits", "--results", str(folder)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted sweep of two seeds, done by worker processes."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder, jobs=2) == 0
    return folder


@pytest.fixture
def copied(whole, tmp_path):
    """The uninterrupted sweep's results, to spoil."""
    (tmp_path / "demo.jsonl").write_bytes((whole / "demo.jsonl").read_bytes())
    return tmp_path


def edit(folder, slot, **values):
    table = rows(folder)
    table[slot] |= values
    results.write_rows(folder / "demo.jsonl", table.values())


def one_sentence(capsys):
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said
    return said


# --------------------------------------------------------------------------------------- grids


def test_replicate_crosses_norms_and_penalties_at_the_lessons_strengths():
    settings = GRIDS["replicate"].settings
    assert len(settings) == 16 and {e.norm for e in settings.values()} == set(NORMS)
    gn_l1, ln_l2, _ = THREE_EXPERIMENTS
    for norm in NORMS:
        strengths = {(e.l1, e.l2) for e in settings.values() if e.norm == norm}
        assert strengths == {(0, 0), (gn_l1.l1, 0), (0, ln_l2.l2), (gn_l1.l1, ln_l2.l2)}
    plain = {dataclasses.replace(e, norm="GN", l1=0.0, l2=0.0) for e in settings.values()}
    assert plain == {dataclasses.replace(gn_l1, l1=0.0, epochs=10)}


@pytest.mark.parametrize("name", ["replicate", "constant", "source", "accuracy"])
def test_the_claims_three_arms_are_in_the_grid(name):
    for arm in THREE_EXPERIMENTS:
        found = GRIDS[name].settings[arm.label]
        assert (found.norm, found.groups, found.batch_size) == (arm.norm, 4, arm.batch_size)
        assert found.schedule == ("constant" if name == "constant" else arm.schedule)
        assert found.mean_l1 == (name == "source")


@pytest.mark.parametrize(
    "name, power, sizes, norms",
    [
        ("batch_size", 1, [2, 4, 8, 16, 32, 128], 4),
        ("batch_size_sqrt", 0.5, [2, 32], 3),
    ],
)
def test_batch_size_scales_the_learning_rate_and_nothing_else(name, power, sizes, norms):
    settings = GRIDS[name].settings.values()
    assert sorted({e.batch_size for e in settings}) == sizes
    base = THREE_EXPERIMENTS[0]
    for e in settings:
        assert e.lr == pytest.approx(base.lr * 32 / 128 * (e.batch_size / 32) ** power)
    same = {dataclasses.replace(e, norm="GN", batch_size=1, lr=1.0) for e in settings}
    assert len(settings) == len(sizes) * norms
    assert len(same) == 1 and same.pop().label == "GN"


def test_what_is_tuned_are_the_strengths_and_the_groups_alone():
    settings = list(GRIDS["tune"].settings.values())
    assert [e.label for e in settings] == ["GN + L1"] * 6 + ["LN + L2"] * 3
    strengths = {(e.groups, e.l1) for e in settings[:6]}
    assert strengths == {(g, l1) for g in (2, 4) for l1 in (1e-6, 1e-5, 1e-4)}
    plain = {dataclasses.replace(e, norm="GN", groups=4, l1=0.0, l2=0.0) for e in settings}
    assert plain == {dataclasses.replace(THREE_EXPERIMENTS[0], l1=0.0, epochs=10)}


def tuned(losses):
    """The setting chosen, given validation losses of two seeds by (groups, λ1)."""
    found = [
        {"setting": f"{groups} groups, {l1}", "l1": l1, "l2": 0.0, "val_loss": loss + off}
        for (groups, l1), loss in losses.items()
        for off in (-0.001, 0.001)
    ]
    return grids.choose(results.pd.DataFrame(found)).name


def test_tuning_takes_the_strongest_penalty_near_the_lowest_loss():
    weak, middle, strong = ((4, l1) for l1 in (1e-6, 1e-5, 1e-4))
    assert tuned({weak: 0.0240, middle: 0.0244, strong: 0.0246}) == "4 groups, 1e-05"
    assert tuned({weak: 0.0240, middle: 0.0246, strong: 0.0260}) == "4 groups, 1e-06"
    assert tuned({weak: 0.0246, middle: 0.0242, strong: 0.0240}) == "4 groups, 0.0001"


def test_of_equally_strong_penalties_tuning_takes_the_lower_loss():
    assert tuned({(2, 1e-5): 0.0243, (4, 1e-5): 0.0242}) == "4 groups, 1e-05"
    assert tuned({(2, 1e-5): 0.0242, (4, 1e-5): 0.0243}) == "2 groups, 1e-05"


def test_tuning_measures_on_images_it_did_not_train_on(monkeypatch):
    seen, data = [], grids.sweep_data("digits", 300)
    last = {"val_loss": 0.5, "val_accuracy": 0.8, "test_accuracy": 1.0}

    def fit(experiment, split, device):
        seen.append(split)
        return utils.Run(Net(), utils.History(experiment, [last]))

    monkeypatch.setattr(training, "fit", fit)
    for seed in (0, 1):
        found = training.validation(Experiment(epochs=1), seed, data)
        assert found == {"val_loss": 0.5, "val_accuracy": 0.8}
    for split in seen:
        every = torch.cat([split.train.x, split.val.x]).flatten(1)
        assert len(split.val) == 30
        assert len(every.unique(dim=0)) == len(data.train.x.flatten(1).unique(dim=0))
    assert not torch.equal(seen[0].val.x, seen[1].val.x)


# --------------------------------------------------------------------------------------- a row


def test_a_row_has_what_fit_gives(whole):
    table = results.load_results("demo", whole, "digits").set_index(["setting", "seed"])
    assert len(table) == 8 and list(table.index)[:3] == [("none", 0), ("none", 1), ("BN", 0)]
    data = grids.sweep_data("digits", 300)
    assert len(data.train) == 300 and (data.train.y.bincount() - 30).abs().max() <= 1
    again = fit(dataclasses.replace(DEMO.settings["GN"], seed=1), data, device="cpu")
    row = table.loc["GN", 1]
    assert row["history"]["test_loss"] == again.history["test_loss"]  # to the last bit
    assert row["test_loss"] == again.history["test_loss"][-1]
    assert row["final_l1"] == again.history["l1"][-1]
    wrong = utils.predict(again.model, data.test).argmax(dim=1) != data.test.y
    assert row["wrong"] == wrong.nonzero().flatten().tolist()
    assert (row["train_images"], row["test_images"], row["lr"]) == (300, 360, 0.025)
    assert row["torch"] == torch.__version__ and row["seconds"] > 0 and row["processor"]
    assert row["fingerprint"] == data.fingerprint() and row["recipe"] == utils.RECIPE


def test_one_row_comes_out_again_bit_by_bit_and_a_difference_is_found(copied):
    assert results.differences(*results.rerun("demo", "GN", 1, copied, "digits")) == {}
    stored, fresh = results.rerun("demo", "BN", 1, copied, "digits")
    assert results.differences(stored, fresh) == {}
    edit(copied, ("BN", 1), test_loss=stored["test_loss"] * (1 + 1e-15))
    stored, fresh = results.rerun("demo", "BN", 1, copied, "digits")
    assert list(results.differences(stored, fresh)) == ["test_loss"]
    with pytest.raises(EvidenceError, match="no row for 'BN' with seed 7"):
        results.rerun("demo", "BN", 7, copied, "digits")


def test_a_process_loads_its_data_once(tmp_path, monkeypatch, in_process):
    calls, load = [], grids.load_data
    monkeypatch.setattr(grids, "load_data", lambda name: calls.append(name) or load(name))
    grids.sweep_data.cache_clear()
    assert run(tmp_path, seeds=1) == 0
    assert calls == ["digits"] and len(rows(tmp_path)) == 4


@dataclasses.dataclass(frozen=True)
class Guess:
    """A setting that is no Experiment."""

    digits: tuple[int, ...]
    data: str = "ours"


def share(setting, seed, data):
    return {"share": torch.isin(data.test.y, torch.tensor(setting.digits)).float().mean().item()}


def test_a_grid_may_measure_something_else(tmp_path, monkeypatch, in_process):
    settings = {"low": Guess((0, 1, 2), data="a"), "high": Guess((8, 9), data="b")}
    monkeypatch.setitem(GRIDS, "demo", grids.Grid("?", settings, share, images=300, recipe=7))
    assert run(tmp_path, seeds=1) == 0
    table = results.load_results("demo", tmp_path, "digits")
    assert list(table["setting"]) == ["low", "high"] and table["share"].between(0.1, 0.5).all()
    assert list(table["digits"]) == [[0, 1, 2], [8, 9]] and set(table["recipe"]) == {7}
    settings["high"] = Guess((7, 8, 9), data="b")
    assert results.why_stale(rows(tmp_path)["high", 0], "digits") == "digits [8, 9], not [7, 8, 9]"


# ------------------------------------------------------------------------------- BN's statistics


@pytest.fixture(scope="module")
def trained():
    data = grids.sweep_data("digits", 300)
    return fit(Experiment(norm="BN", epochs=1, batch_size=8), data, device="cpu"), data


def pixels(images):
    return utils.normalize(images.x.float() / 255)


def buffers(model):
    return [buffer.clone() for buffer in model.buffers()]


def test_precise_statistics_are_those_of_all_images_at_once(trained):
    run, data = trained
    before = buffers(run.model)
    precise = bn_statistics.with_precise_statistics(run.model, data.train)
    first = precise.features[0](pixels(data.train)).double()
    bn = precise.features[1]
    assert torch.allclose(bn.running_mean.double(), first.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(bn.running_var.double(), first.var((0, 2, 3)), rtol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(before, buffers(run.model), strict=True))
    # Every layer normalizes by what it then stores: training mode gives the same.
    assert torch.allclose(
        precise(pixels(data.train)), precise.train()(pixels(data.train)), atol=5e-3
    )


def test_batch_statistics_are_those_of_training_mode(trained):
    run, data = trained
    before = buffers(run.model)
    loss, accuracy = bn_statistics.evaluate_by_batch(run.model, data.test, 360)
    assert all(torch.equal(a, b) for a, b in zip(before, buffers(run.model), strict=True))
    oracle = Net("BN")
    oracle.load_state_dict(run.model.state_dict())
    logits = oracle.train()(pixels(data.test))
    assert loss == pytest.approx(nn.functional.cross_entropy(logits, data.test.y).item(), rel=1e-4)
    right = (logits.argmax(1) == data.test.y).float().mean().item()
    assert accuracy == pytest.approx(right, abs=0.003)
    by_two = bn_statistics.evaluate_by_batch(run.model, data.test, 2)[0]
    assert by_two != pytest.approx(loss, rel=1e-2)


def test_only_bn_has_the_other_statistics_in_its_row(whole):
    table = results.load_results("demo", whole, "digits")
    has = table["precise_test_accuracy"].notna() & table["batch_test_accuracy"].notna()
    assert set(table.loc[has, "norm"]) == {"BN"} and has.sum() == 2


@pytest.mark.parametrize("norm", ["GN", "LN", "none"])
def test_batch_mates_do_not_move_an_image(norm):
    assert bn_statistics.effect_of_batch_mates(norm) <= 1e-6


def test_batch_mates_move_an_image_under_bn():
    assert bn_statistics.effect_of_batch_mates("BN") > 0.1


# ------------------------------------------------------------------------------- failed and stale


def with_setting(monkeypatch, name, **changes):
    """The demo with one setting changed."""
    changed = dataclasses.replace(DEMO.settings[name], **changes)
    settings = DEMO.settings | {name: changed}
    monkeypatch.setitem(GRIDS, "demo", dataclasses.replace(DEMO, settings=settings))


def test_a_failed_run_is_a_row_and_is_run_again_on_demand(
    tmp_path, monkeypatch, capsys, in_process
):
    with_setting(monkeypatch, "GN", lr=1e30, schedule="constant")
    assert run(tmp_path, seeds=1) == 0
    status = {slot[0]: row["status"] for slot, row in rows(tmp_path).items()}
    assert status == {"none": "ok", "BN": "ok", "LN": "ok", "GN": "failed"}
    assert "Diverged: GN diverged" in rows(tmp_path)["GN", 0]["reason"]
    capsys.readouterr()
    assert len(results.load_results("demo", tmp_path, "digits")) == 3
    assert "1 failed or stale rows" in capsys.readouterr().out
    of("status", tmp_path)
    assert "GN, seed 0 failed: Diverged" in capsys.readouterr().out

    ran = []
    monkeypatch.setattr(training, "fit", lambda e, *_, **__: ran.append(e.label) or 1 / 0)
    assert run(tmp_path, seeds=1) == 0 and ran == []
    assert run(tmp_path, "--retry-failed", seeds=1) == 0 and ran == ["GN"]
    assert rows(tmp_path)["GN", 0]["reason"] == "ZeroDivisionError: division by zero"


def test_rows_of_other_settings_stay_until_the_new_ones_are_there(
    copied, monkeypatch, capsys, in_process
):
    with_setting(monkeypatch, "LN", groups=2)
    of("status", copied)
    said = capsys.readouterr().out
    assert "demo: 6 of 8 runs" in said
    assert "LN, seed 1 is stale: groups 4, not 2" in said and "GN, seed 0 is" not in said
    old, ran, fit = rows(copied), [], training.fit

    def second_is_interrupted(experiment, *args, **how):
        ran.append((experiment.norm, experiment.seed))
        if len(ran) == 2:
            assert rows(copied)["LN", 1] == old["LN", 1]  # still there
            raise KeyboardInterrupt
        return fit(experiment, *args, **how)

    def interrupted(function, tasks, jobs, dask):  # as processes end
        yield from serial(function, tasks, jobs, dask)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", second_is_interrupted)
    monkeypatch.setattr(sweep, "side_by_side", interrupted)
    assert run(copied) == 130
    assert ran == [("LN", 0), ("LN", 1)]
    assert len(rows(copied)) == 8 and rows(copied)["LN", 0]["groups"] == 2


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"recipe": 0}, f"recipe 0, not {utils.RECIPE}"),
        ({"images": 200}, "images 200, not 300"),
        ({"data": "mnist"}, "data mnist, not digits"),
        ({"lr": 0.5}, "lr 0.5, not 0.025"),
        ({"dropout": None}, "dropout None, not 0.0"),  # a setting that was added since
    ],
)
def test_a_row_made_differently_is_stale(copied, capsys, changes, reason):
    edit(copied, ("GN", 0), **changes)
    assert results.why_stale(rows(copied)["GN", 0], "digits") == reason
    assert len(results.load_results("demo", copied, "digits")) == 7
    capsys.readouterr()
    of("list", copied)
    line = next(n for n in capsys.readouterr().out.splitlines() if n.startswith("demo"))
    assert line.split()[1:6] == ["8", "7", "0", "1", "1"]  # runs, ok, failed, stale, missing


def test_a_stale_row_is_replaced(copied, whole, in_process):
    edit(copied, ("GN", 0), recipe=0, test_loss=9.9)
    assert run(copied) == 0
    assert untimed(copied) == untimed(whole)
    assert len((copied / "demo.jsonl").read_text().splitlines()) == 8


def test_rows_of_a_setting_that_is_gone_are_named_and_kept(copied, monkeypatch, in_process):
    fewer = {k: v for k, v in DEMO.settings.items() if k != "none"}
    monkeypatch.setitem(GRIDS, "demo", dataclasses.replace(DEMO, settings=fewer))
    assert results.why_stale(rows(copied)["none", 0], "digits") == "no longer in the grid"
    assert run(copied, seeds=3) == 0 and len(rows(copied)) == 8 + 3


def test_workers_with_other_code_are_refused(tmp_path, monkeypatch, capsys):
    def others(function, tasks, jobs, dask):
        for position, task in enumerate(tasks):
            yield position, function(task) | {"recipe": 0}

    monkeypatch.setattr(sweep, "side_by_side", others)
    assert run(tmp_path) == 2 and rows(tmp_path) == {}
    assert "workers have other code (recipe 0, not 1)" in capsys.readouterr().err


# -------------------------------------------------------------------------------- kill and restart


def restarts_to_the_same_rows(folder, whole, monkeypatch):
    there, ran, make_row = rows(folder), [], sweep.make_row
    monkeypatch.setattr(sweep, "side_by_side", serial)
    monkeypatch.setattr(sweep, "make_row", lambda task: ran.append(task.slot) or make_row(task))
    assert run(folder) == 0
    assert not set(ran) & set(there) and len(ran) == len(set(ran))  # only what was missing
    assert untimed(folder) == untimed(whole)
    lines = (folder / "demo.jsonl").read_text().splitlines()
    assert len(lines) == len(set(ran) | set(there))


@posix_signals
def test_killed_in_the_middle_and_started_again(tmp_path, whole, monkeypatch, capsys):
    command = [
        sys.executable,
        "-m",
        "backstage.evidence.sweep",
        *arguments(tmp_path, seeds=25, jobs=2),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while len(rows(tmp_path)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert run(tmp_path) == 2  # a second sweep does not write to the same file
        assert "Another sweep of 'demo' is running" in capsys.readouterr().err
        workers = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
    assert process.wait(10) == -signal.SIGKILL
    assert 2 <= len(rows(tmp_path)) < 100
    assert not still_there(workers), "they outlive it"
    restarts_to_the_same_rows(tmp_path, whole, monkeypatch)


@posix_signals
@pytest.mark.usefixtures("interruptible")
def test_interrupted_keeps_what_is_finished(tmp_path, whole, monkeypatch, capsys):
    with meanwhile(
        ready=lambda: len(rows(tmp_path)) >= 2,
        act=lambda: os.kill(os.getpid(), signal.SIGINT),
    ):
        assert run(tmp_path, seeds=50, jobs=2) == 130
    assert "Interrupted: every finished run is kept" in capsys.readouterr().err
    assert 2 <= len(rows(tmp_path)) < 200
    restarts_to_the_same_rows(tmp_path, whole, monkeypatch)


def test_an_interrupt_within_a_run_makes_no_row(tmp_path, monkeypatch, in_process):
    def half(experiment, *_, **__):  # as fit does, which takes the interrupt for itself
        return utils.Run(Net(), utils.History(experiment))

    monkeypatch.setattr(training, "fit", half)
    assert run(tmp_path) == 0 and rows(tmp_path) == {}
    with pytest.raises(KeyboardInterrupt):
        results.make_row(Task("demo", "BN", 0, "digits"))


def test_half_a_last_line_is_dropped_and_its_run_done_again(copied, whole, capsys, in_process):
    path = copied / "demo.jsonl"
    path.write_text(path.read_text()[:-20])
    assert len(rows(copied)) == 7
    assert one_sentence(capsys).endswith("demo.jsonl ends in half a row, which is left out.\n")
    assert run(copied) == 0
    capsys.readouterr()
    assert untimed(copied) == untimed(whole) and capsys.readouterr().err == ""


def test_of_two_lines_for_one_run_the_later_counts(copied):
    row = rows(copied)["BN", 0] | {"test_loss": 0.125}
    with (copied / "demo.jsonl").open("a") as file:
        results.append_row(file, row)
    assert len(rows(copied)) == 8 and rows(copied)["BN", 0]["test_loss"] == 0.125


def test_a_write_that_fails_leaves_the_rows_before(copied, monkeypatch, capsys, in_process):
    before = untimed(copied)
    full = OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(full))
        assert run(copied, seeds=3) == 2
    assert "could not be written (No space left on device)" in capsys.readouterr().err
    assert untimed(copied) == before
    assert run(copied, seeds=3) == 0 and len(rows(copied)) == 12


def test_on_dask_the_rows_are_the_same(tmp_path, whole):
    distributed = pytest.importorskip("distributed")
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**settings, silence_logs=50) as cluster:
        assert run(tmp_path, "--dask", cluster.scheduler_address) == 0
    assert untimed(tmp_path) == untimed(whole)


# -------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "options, says",
    [
        (["run", "nonsense"], "no grid 'nonsense': use one of replicate, "),
        (["run", "demo", "--seeds", "0"], "0 seeds: use a whole number from 1 up"),
        (["list", "--seeds", "-1"], "-1 seeds: use a whole number from 1 up"),
        (["run", "demo", "--jobs", "0"], "0 jobs: use a whole number from 1 up"),
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


SPOILED = {
    "a line cut short": lambda t: t.replace("}\n", "\n", 1),
    "someone else's": lambda t: '{"epoch": 1, "loss": 0.5}\n',
    "a list": lambda t: "[1, 2]\n",
    "another grid's": lambda t: t.replace('"demo"', '"other"', 1),
    "edited by hand": lambda t: t.replace('"ok"', '"perhaps"', 1),
    "no seed": lambda t: t.replace('"seed": 0', '"seed": "zero"'),
    "not text": lambda t: b"\x89PNG\r\n\x1a\n\x00\xff" + bytes(range(256)),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_spoiled_file_is_named_and_left_alone(copied, capsys, spoil):
    path = copied / "demo.jsonl"
    damaged = spoil(path.read_text())
    damaged = damaged if isinstance(damaged, bytes) else damaged.encode()
    path.write_bytes(damaged)
    assert run(copied, seeds=3) == 2
    assert "is damaged or has no rows of the grid 'demo'" in one_sentence(capsys)
    assert of("status", copied) == 2 and path.read_bytes() == damaged
    with pytest.raises(EvidenceError):
        results.load_results("demo", copied, "digits")


def test_a_stand_in_for_mnist_is_no_replication(tmp_path, monkeypatch, capsys):
    load = grids.load_data
    monkeypatch.setattr(grids, "load_data", lambda _: load("digits"))
    grids.sweep_data.cache_clear()
    assert sweep.main(["run", "demo", "--results", str(tmp_path)]) == 2
    assert "needs MNIST: set MNIST_ROOT" in one_sentence(capsys)


def test_a_grid_without_rows_says_how_to_make_them(tmp_path):
    with pytest.raises(EvidenceError, match="evidence.sweep run demo makes them"):
        results.load_results("demo", tmp_path)


def test_committed_results_can_be_read_and_have_no_stale_rows():
    paths = sorted((ROOT / "results").glob("*.jsonl"))
    assert len(paths) >= 4
    for path in paths:
        found = results.read_rows(path, path.stem)
        assert {results.why_stale(row) for row in found.values()} == {""}
        assert path.read_text() == "".join(json.dumps(row) + "\n" for row in found.values())


def test_a_row_is_forced_to_the_disk(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(os, "fsync", lambda file: written.append(os.fstat(file).st_size))
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
        results.append_row(file, {"a": 1})
        assert written == [len('{"a": 1}\n')]
