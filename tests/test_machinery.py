"""Downloads, checkpoints, interrupts and processes, with the lesson's training on top of them."""

import gzip
import hashlib
import http.server
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
import torch.nn.functional as F
import torchvision
from conftest import ROOT, meanwhile, needs_mnist, posix_signals, same, still_there

import utils
from backstage.files import replacing
from backstage.machinery import mnist, progress
from backstage.machinery.checkpoint import Checkpoint, CheckpointError
from backstage.machinery.parallel import WorkerLost, side_by_side
from backstage.machinery.progress import deferred_interrupt, quiet, steps
from utils import Diverged, Experiment, fit

SHORT = Experiment(norm="GN", l1=1e-5, l2=1e-4, epochs=2, dropout=0.1)


# ----------------------------------------------------------------------------------- the data


@pytest.fixture
def copied_mnist(tmp_path, monkeypatch):
    """The four files, where a test may damage them."""
    shutil.copytree(os.environ["MNIST_ROOT"], tmp_path / "root")
    for path in (tmp_path / "root").rglob("*"):
        path.chmod(0o755)
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path / "root"))
    return tmp_path / "root" / "MNIST" / "raw"


@needs_mnist
@pytest.mark.parametrize("damage", ["cut short", "altered", "missing"])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_file_is_named_and_neither_used_nor_deleted(copied_mnist, name, damage):
    path = copied_mnist / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "altered":
        path.write_bytes(content)
    elif damage == "cut short":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    before = sorted((p.name, p.stat().st_size) for p in copied_mnist.iterdir())
    with pytest.raises(mnist.DataError, match=name):
        utils.load_data()
    assert sorted((p.name, p.stat().st_size) for p in copied_mnist.iterdir()) == before


def mute_server():
    """A server that accepts connections and never says a word, as seen through a dead network."""
    server = socket.create_server(("127.0.0.1", 0), backlog=16)
    return server, f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.fixture
def nothing_at_hand(tmp_path, monkeypatch):
    monkeypatch.delenv("MNIST_ROOT", raising=False)
    monkeypatch.setattr(utils, "REPOSITORY", tmp_path)
    monkeypatch.setattr(mnist, "SECONDS_PER_MIRROR", 0.5)


def test_a_dead_network_gives_the_stand_in_soon_and_says_so(nothing_at_hand, monkeypatch, capsys):
    servers = [mute_server(), mute_server()]
    mirrors = [url for _, url in servers] + ["http://127.0.0.1:9/", "http://no-such-host.invalid/"]
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", mirrors)
    start = time.perf_counter()
    data = utils.load_data()
    assert time.perf_counter() - start < 0.5 * len(mirrors) + 2
    assert (len(data.train), len(data.test)) == (1437, 360)
    assert data.train.x.shape[1:] == (1, 28, 28)
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "1,797" in said and "accuracies" in said
    for server, _ in servers:
        server.close()


@pytest.fixture
def mirror(tmp_path):
    """Serves what is put in its folder, as a mirror of MNIST would."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "mirror"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_failed_download_leaves_nothing_behind(nothing_at_hand, monkeypatch, mirror, tmp_path):
    folder, url = mirror
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"half of it")
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [url])
    assert utils.load_data().name == "scikit-learn digits"
    assert list((tmp_path / "data").iterdir()) == []


@needs_mnist
def test_a_download_ends_up_in_the_data_folder(nothing_at_hand, monkeypatch, mirror, tmp_path):
    folder, url = mirror
    resources = []
    for name in mnist.MD5:
        packed = gzip.compress((ROOT_OF_MNIST / "MNIST" / "raw" / name).read_bytes(), 1, mtime=0)
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/", url])
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    assert len(utils.load_data().train) == 60_000
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["MNIST"]
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    assert len(utils.load_data().train) == 60_000  # now from the folder


ROOT_OF_MNIST = Path(os.environ.get("MNIST_ROOT", "."))


def test_a_data_root_without_mnist_is_said(nothing_at_hand, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    utils.load_data()
    assert "$MNIST_ROOT" in capsys.readouterr().out


# ----------------------------------------------------------------------------------- interrupts


def interrupt_after(steps, monkeypatch):
    """Presses the notebook's stop button in the middle of a training step."""
    original, left = F.cross_entropy, [steps]

    def cross_entropy(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr(F, "cross_entropy", cross_entropy)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("norm", ["BN", "GN"])
def test_an_interrupted_run_is_usable_and_continues_as_if_nothing_had_been(
    digits, tmp_path, monkeypatch, capsys, norm
):
    experiment = replace(SHORT, norm=norm, epochs=3)
    whole = fit(experiment, digits)
    with monkeypatch.context() as patch:
        interrupt_after(12, patch)  # 6 steps and 2 evaluations an epoch: in the second
        part = fit(experiment, digits, tmp_path)
    assert not part.finished and part.history["epoch"] == [1]
    assert "first 1 of 3 epochs" in capsys.readouterr().out
    assert same(fit(experiment, digits, tmp_path), whole)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_waits_for_the_end_of_the_step_and_a_second_one_does_not():
    def interrupt_twice_within_a_step(again):
        done = []
        try:
            with quiet(), steps("", 10) as bar:
                for step in range(10):
                    signal.raise_signal(signal.SIGINT)
                    if again:
                        signal.raise_signal(signal.SIGINT)
                    done.append(step)
                    bar.update()
        except KeyboardInterrupt:
            return done

    assert interrupt_twice_within_a_step(again=False) == [0]
    assert interrupt_twice_within_a_step(again=True) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@posix_signals
@pytest.mark.usefixtures("interruptible")
def test_after_200_interrupts_at_random_moments_training_still_works(digits, tmp_path, capsys):
    """Wherever it falls, in a save or in no_grad, and the next training goes on from there."""
    tiny = utils.Data("tiny", digits.train[:96], digits.test[:50])
    experiment = Experiment(epochs=1_000, batch_size=32)
    whole, interrupted = {}, 0
    start = time.perf_counter()
    with quiet():
        fit(replace(experiment, epochs=2), tiny, tmp_path)
    few_epochs = time.perf_counter() - start  # on this machine, as busy as it is
    moments = random.Random(0)
    for i in range(200):
        directory, moment = tmp_path / str(i % 4), moments.uniform(0, few_epochs)
        alarm = threading.Timer(moment, os.kill, (os.getpid(), signal.SIGINT))
        try:
            with quiet():
                alarm.start()
                run = fit(experiment, tiny, directory)
        except KeyboardInterrupt:  # it fell before fit could note it
            continue
        interrupted += 1
        assert torch.is_grad_enabled() and not run.finished
        for row in run.history.epochs:
            loss = row["running_loss"]
            assert whole.setdefault(row["epoch"], loss) == loss
    assert interrupted > 50 and len(whole) > 15


def test_outside_the_main_thread_an_interrupt_is_nobodys():
    asked = []

    def inside():
        with deferred_interrupt() as function:
            asked.append(function())

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert asked == [False]


# ---------------------------------------------------------------------------------- checkpoints


def test_a_finished_run_is_loaded_not_trained_again(digits, tmp_path, monkeypatch):
    first = fit(SHORT, digits, tmp_path)
    monkeypatch.setattr(utils, "train_epoch", None)
    again = fit(SHORT, digits, tmp_path)
    assert same(first, again) and again.history["seconds"] == first.history["seconds"]


@pytest.mark.parametrize("broken", ["torch.save", "os.fsync", "os.replace"])
def test_every_moment_of_a_save_leaves_a_whole_checkpoint(digits, tmp_path, monkeypatch, broken):
    """The disk fills up, or the machine dies, anywhere within the second epoch's save."""
    fails_at_second(monkeypatch, broken)
    with pytest.raises(CheckpointError, match="No space left"):
        fit(SHORT, digits, tmp_path)
    monkeypatch.undo()
    (file,) = tmp_path.iterdir()
    assert len(torch.load(file, weights_only=True)["history"]) == 1
    assert same(fit(SHORT, digits, tmp_path), fit(SHORT, digits))


def fails_at_second(monkeypatch, name):
    module, attribute = {"torch": torch, "os": os}[name.split(".")[0]], name.split(".")[1]
    original, calls = getattr(module, attribute), []

    def fail_second(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return original(*args, **kwargs)

    monkeypatch.setattr(module, attribute, fail_second)


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o600)
    with replacing(path, "w") as file:
        file.write("new")
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_cannot_be_written_is_said_before_training(digits, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(utils, "train_epoch", None)
    with pytest.raises(CheckpointError, match="choose another directory"):
        fit(SHORT, digits, tmp_path / "file" / "checkpoints")


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


@pytest.fixture
def passed_off(tmp_path, monkeypatch):
    """Files all have one name, as if somebody had passed one off as another."""
    original = Checkpoint.__init__

    def __init__(self, *args):
        original(self, *args)
        self.path = self.path.with_name("one.pt")

    monkeypatch.setattr(Checkpoint, "__init__", __init__)
    return tmp_path


def test_a_checkpoint_of_another_experiment_is_refused_and_kept(digits, passed_off):
    fit(SHORT, digits, passed_off)
    before = (passed_off / "one.pt").read_bytes()
    with pytest.raises(CheckpointError, match="another experiment .l1 1e-05, not 0.0001"):
        fit(replace(SHORT, l1=1e-4), digits, passed_off)
    assert (passed_off / "one.pt").read_bytes() == before


def test_a_checkpoint_of_other_data_is_refused(digits, passed_off):
    fit(SHORT, digits, passed_off)
    fewer = utils.Data(digits.name, digits.train[:500], digits.test)
    with pytest.raises(CheckpointError, match="another data .*700 [+] 0 [+] 360 images"):
        fit(SHORT, fewer, passed_off)
    other_test = utils.Data(digits.name, digits.train, digits.test[::2])
    assert other_test.fingerprint() != digits.fingerprint()


def test_a_checkpoint_of_another_network_is_refused(digits, passed_off):
    fit(SHORT, digits, passed_off)
    with pytest.raises(CheckpointError, match="another network"):
        fit(SHORT, digits, passed_off, network=lambda: utils.Net("LN"))


def test_a_checkpoint_of_another_version_is_refused(digits, passed_off, monkeypatch):
    fit(SHORT, digits, passed_off)
    monkeypatch.setattr(Checkpoint, "VERSION", 3)
    with pytest.raises(CheckpointError, match="another version .2, not 3"):
        fit(SHORT, digits, passed_off)


def test_experiments_share_a_directory(digits, tmp_path):
    for experiment in (SHORT, replace(SHORT, seed=1), replace(SHORT, l2=0)):
        fit(experiment, digits, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


# ------------------------------------------------------------------------------------ processes

# What the workers do; they import this module by name, from the folder that pytest put in the path.


def pid_after(seconds):
    with steps("waits", 1_000) as bar:
        for _ in range(int(50 * seconds)):
            time.sleep(0.02)
            bar.update()
    return os.getpid()


def threads_of(_):
    return torch.get_num_threads()


def fail(task):
    raise ValueError(f"task {task}")


def kill_itself_once(file):
    if not file.exists():
        file.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return file.name


def kill_itself(_):
    os.kill(os.getpid(), signal.SIGKILL)


def children():
    return [p for p in multiprocessing.active_children() if p.is_alive()]


def test_each_task_has_its_result_and_workers_have_one_thread():
    with quiet():
        found = dict(side_by_side(threads_of, range(5), jobs=2))
    assert found == dict.fromkeys(range(5), 1)
    assert not children()


def test_an_exception_ends_all_with_its_own_sentence():
    with pytest.raises(ValueError, match="task 7"):
        list(side_by_side(fail, [7], jobs=1))
    assert not children()


@posix_signals
def test_the_tasks_of_a_killed_worker_are_begun_again(tmp_path):
    names = ["a", "b"]
    (tmp_path / "a").touch()
    found = dict(side_by_side(kill_itself_once, [tmp_path / name for name in names], jobs=1))
    assert found == dict(enumerate(names))


@posix_signals
def test_a_task_that_is_killed_again_and_again_is_given_up():
    with pytest.raises(WorkerLost, match="want of memory: run fewer at a time"):
        list(side_by_side(kill_itself, [0], jobs=1))


@posix_signals
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_tasks_at_work_and_drops_the_others():
    start, results = time.monotonic(), []
    with meanwhile(ready=children, act=partial(os.kill, os.getpid(), signal.SIGINT)):
        with pytest.raises(KeyboardInterrupt):
            results.extend(side_by_side(pid_after, [60.0] * 4, jobs=2))
    assert results == [] and time.monotonic() - start < 20
    assert not children()


def test_the_bars_of_workers_are_shown_by_the_parent(capsys):
    dict(side_by_side(pid_after, [1.5], jobs=1))
    shown = capsys.readouterr().err
    assert re.search(r"waits: .*/1000", shown)


def test_a_worker_writes_its_bar_to_the_file_it_was_given(tmp_path, monkeypatch):
    monkeypatch.setattr(progress.Here, "file", tmp_path / "0")
    with steps("GN", 10, done=4) as bar:
        bar.update()
        bar.show(loss=0.5)
    assert json.loads((tmp_path / "0").read_text()) == {
        **{"label": "GN", "total": 10, "done": 4, "n": 5},
        "postfix": {"loss": 0.5},
    }
    (tmp_path / "stop").touch()
    with pytest.raises(KeyboardInterrupt), steps("GN", 10) as bar:
        bar.update()


# -------------------------------------------------------------------- the lesson's own processes

TWO = [replace(SHORT, norm=norm, epochs=4) for norm in ("GN", "BN")]


def together(experiments, data, directory=None):
    return utils.fit_together(experiments, data, directory, device="cpu")


def test_together_is_as_alone_and_in_order(digits):
    short_last = [TWO[0], replace(TWO[1], epochs=1)]
    alone = [fit(e, digits, device="cpu") for e in short_last]
    assert all(map(same, together(short_last, digits), alone))


@posix_signals
@pytest.mark.usefixtures("interruptible")
def test_interrupted_together_are_usable_and_continue(digits, tmp_path, capsys):
    long = [replace(e, epochs=200) for e in TWO]
    with meanwhile(
        ready=lambda: len(list(tmp_path.glob("*.pt"))) == 2,
        act=lambda: os.kill(os.getpid(), signal.SIGINT),
    ):
        part = together(long, digits, tmp_path)
    assert [run.experiment for run in part] == long
    assert all(1 <= len(run.history) < 200 and not run.finished for run in part)
    kept = [torch.load(file, weights_only=True)["history"] for file in tmp_path.glob("*.pt")]
    assert sorted(map(len, kept)) == sorted(len(run.history) for run in part)
    assert capsys.readouterr().out.count("of 200 epochs are kept") == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


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
    deadline = time.monotonic() + 120
    while not list(directory.glob("*.pt")) and time.monotonic() < deadline:
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
    where = f"utils.load_data('digits'), {str(tmp_path)!r}, device='cpu'"
    kept = killed_after_an_epoch(f"utils.fit_together({TWO!r}, {where})", tmp_path)
    assert 1 <= sum(kept) < 8
    whole = [fit(e, data, device="cpu") for e in TWO]
    assert all(map(same, together(TWO, data, tmp_path), whole))


def test_one_that_diverges_ends_all_with_its_reason(digits):
    wild = replace(TWO[0], lr=1e9)
    with pytest.raises(Diverged, match=r"GN \+ L1 \+ L2 diverged in epoch") as caught:
        together([wild, replace(TWO[1], epochs=10_000)], digits)
    epoch = int(re.search(r"epoch (\d+)", str(caught.value))[1])
    assert caught.value.history["epoch"] == list(range(1, epoch))
    assert not children()


def test_a_worker_killed_from_outside_is_said_and_the_epochs_are_kept(digits, tmp_path):
    with meanwhile(
        ready=lambda: len(list(tmp_path.glob("*.pt"))) == 2,
        act=lambda: children()[0].kill(),
    ):
        with pytest.raises(WorkerLost):
            together([replace(e, epochs=10_000) for e in TWO], digits, tmp_path)
    assert not children() and len(list(tmp_path.glob("*.pt"))) == 2


@pytest.mark.parametrize("interrupted", [False, True])
def test_on_an_accelerator_one_is_trained_after_another(digits, monkeypatch, interrupted):
    trained = []

    def fit_there(experiment, data, directory, device):
        trained.append((experiment, device))
        return utils.Run(None, utils.History(experiment, [{}] * (experiment.epochs - interrupted)))

    monkeypatch.setattr(utils, "fit", fit_there)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    runs = utils.fit_together(TWO, digits, device="cuda")
    begun = TWO[:1] if interrupted else TWO
    assert trained == [(e, "cuda") for e in begun] and [r.experiment for r in runs] == begun
