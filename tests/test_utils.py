"""Data, training, checkpoints and statistics."""

import dataclasses
import math
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
import torchvision
from conftest import ROOT, meanwhile
from scipy.stats import beta

import utils
from s6_model import Net, l1_loss, l2_loss
from utils import CheckpointError, DataError, Diverged, Experiment, Images, fit

SHORT = Experiment(norm="GN", l1=1e-5, l2=1e-4, epochs=2, dropout=0.1)


def same(a: utils.Run, b: utils.Run) -> bool:
    """Weights, buffers and histories equal bit for bit, but for the seconds."""
    untimed = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in run.history.epochs]
        for run in (a, b)
    ]
    states = [run.model.state_dict() for run in (a, b)]
    # repr, since NaN (no validation set) is not equal to itself
    return repr(untimed[0]) == repr(untimed[1]) and all(
        torch.equal(v, states[1][k]) for k, v in states[0].items()
    )


# --------------------------------------------------------------------------------------- data


def has_mnist():
    """MNIST where the environment names it, as torchvision's layout; else the tests skip."""
    root = os.environ.get("MNIST_ROOT")
    return root is not None and utils._has_mnist(utils.Path(root))


needs_mnist = pytest.mark.skipif(not has_mnist(), reason="set MNIST_ROOT to a folder with MNIST")


@needs_mnist
def test_mnist_is_as_torchvision_reads_it():
    data = utils.load_data()
    oracle = torchvision.datasets.MNIST(os.environ["MNIST_ROOT"], train=False, download=False)
    assert (len(data.train), len(data.test), data.val) == (60_000, 10_000, None)
    for i in (0, 1234, 9999):
        image, label = oracle[i]
        assert np.array_equal(data.test.x[i, 0].numpy(), np.asarray(image))
        assert data.test.y[i] == label


@needs_mnist
def test_the_constants_of_normalize_are_the_training_sets():
    x = utils.load_data().train.x.double() / 255
    assert (round(x.mean().item(), 4), round(x.std().item(), 4)) == (utils.MEAN, utils.STD)


def test_the_validation_split_is_stratified_and_repeatable(digits):
    split = utils.split_validation(digits, size=100, seed=3)
    again = utils.split_validation(digits, size=100, seed=3)
    other = utils.split_validation(digits, size=100, seed=4)
    assert (len(split.train), len(split.val), len(split.test)) == (600, 100, 360)
    assert torch.equal(split.val.x, again.val.x) and not torch.equal(split.val.x, other.val.x)
    expected = digits.train.y.bincount() * 100 / 700
    assert (split.val.y.bincount() - expected).abs().max() <= 1
    parts = torch.cat([split.train.x, split.val.x]).flatten(1).sort(dim=0).values
    assert torch.equal(parts, digits.train.x.flatten(1).sort(dim=0).values)  # none lost or doubled


def test_refuses_an_impossible_validation_size(digits):
    with pytest.raises(ValueError, match="between 0 and 700"):
        utils.split_validation(digits, size=700)


def test_refuses_an_unknown_data_set():
    with pytest.raises(ValueError, match="'mnist' or 'digits'"):
        utils.load_data("cifar")


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (torch.zeros(2, 1, 28, 28), torch.zeros(2).long(), "uint8 tensor of shape"),
        (torch.zeros(2, 28, 28).byte(), torch.zeros(2).long(), "uint8 tensor of shape"),
        (torch.zeros(2, 3, 28, 28).byte(), torch.zeros(2).long(), "uint8 tensor of shape"),
        (np.zeros((2, 1, 28, 28), np.uint8), torch.zeros(2).long(), "not a ndarray"),
        (torch.zeros(2, 1, 28, 28).byte(), [0, 1], "not a list"),
        (torch.zeros(2, 1, 28, 28).byte(), torch.zeros(3).long(), "one per image"),
        (torch.zeros(2, 1, 28, 28).byte(), torch.zeros(2), "Labels must be an int64"),
        (torch.zeros(2, 1, 28, 28).byte(), torch.tensor([0, 10]), r"0\.\.9, not in 0\.\.10"),
        (torch.zeros(2, 1, 28, 28).byte(), torch.tensor([-1, 3]), r"0\.\.9, not in -1\.\.3"),
    ],
)
def test_refuses_images_and_labels_that_are_none(x, y, sentence):
    with pytest.raises(ValueError, match=sentence):
        Images(x, y)


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
    with pytest.raises(DataError, match=name):
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
    monkeypatch.setattr(utils, "SECONDS_PER_MIRROR", 0.5)


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
    import functools
    import http.server

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "mirror"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
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
    import gzip
    import hashlib

    folder, url = mirror
    resources = []
    for name in utils.MNIST_MD5:
        packed = gzip.compress((ROOT_OF_MNIST / "MNIST" / "raw" / name).read_bytes(), 1, mtime=0)
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/", url])
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    assert len(utils.load_data().train) == 60_000
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["MNIST"]
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    assert len(utils.load_data().train) == 60_000  # now from the folder


ROOT_OF_MNIST = utils.Path(os.environ.get("MNIST_ROOT", "."))


def test_a_data_root_without_mnist_is_said(nothing_at_hand, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    utils.load_data()
    assert "$MNIST_ROOT" in capsys.readouterr().out


def test_augmentation_without_strength_is_the_identity(monkeypatch):
    x = torch.rand(4, 1, 28, 28)
    middle = torch.full((4,), 0.5)  # of [0, 1): no angle, no slant, no stretch, no shift
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: middle)
    torch.testing.assert_close(utils.augment(x, None), x)


def test_augmentation_stays_within_its_limits():
    """Seen in a dot's centre of mass, 7 pixels to the right of the middle (13.5, 13.5)."""
    x = torch.zeros(500, 1, 28, 28)
    x[:, :, 13:15, 20:22] = 1.0
    out = utils.augment(x, torch.Generator().manual_seed(0))[:, 0]
    grid = torch.arange(28.0)
    mass = out.sum(dim=(1, 2))
    down, right = (out.sum(2) @ grid / mass - 13.5), (out.sum(1) @ grid / mass - 13.5)
    # Backwards from the dot: 10 degrees of the 7 pixels and of the shift, then 12%.
    farthest_down = (7 * math.sin(math.radians(10)) + 1.5 * math.hypot(1, 0.2)) / 0.88
    farthest_right = (7 + 1.5 * math.hypot(1, 0.2)) / 0.88 - 7 + 0.2 * farthest_down
    assert 0.6 * farthest_down < down.abs().max() < farthest_down + 0.3
    assert 0.6 * farthest_right < (right - 7).abs().max() < farthest_right + 0.3
    assert abs(down.mean()) < 0.3 and abs(right.mean() - 7) < 0.3


def test_augmentation_turns_as_torchvision_does(monkeypatch):
    """With the random numbers of an angle of 10 degrees, and the middle for the rest."""
    x = torch.zeros(1, 1, 28, 28)
    x[..., 6:22, 12:16] = 1.0
    draws = iter([1.0, 0.5, 0.5, 0.5, 0.5, 0.5])
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, next(draws)))
    bilinear = torchvision.transforms.InterpolationMode.BILINEAR
    oracle = torchvision.transforms.functional.rotate(x, 10, bilinear)
    torch.testing.assert_close(utils.augment(x, None), oracle, atol=1e-4, rtol=0)


def test_augmentation_is_as_scipy_does_it():
    """Each image by the matrix that its random numbers stand for, in float64 and in pixels."""
    x = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    out = utils.augment(x, torch.Generator().manual_seed(2))
    again = torch.Generator().manual_seed(2)
    draws = [2 * torch.rand(8, generator=again).double() - 1 for _ in range(6)]
    limits = (math.radians(10), 0.2, 0.12, 0.12, 1.5, 1.5)
    for i, row in enumerate(zip(*draws, strict=True)):
        angle, slant, width, height, right, down = (
            float(v) * limit for v, limit in zip(row, limits, strict=True)
        )
        turn = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        matrix = np.array(turn) @ [[1, slant], [0, 1]] @ np.diag([1 + width, 1 + height])
        matrix, shift = matrix[::-1, ::-1], np.array([down, right])  # scipy has (row, column)
        middle = np.full(2, 13.5)
        oracle = scipy.ndimage.affine_transform(
            np.pad(x[i, 0].double().numpy(), 9),  # zeros outside, also for the interpolation
            matrix,
            offset=9 + middle - matrix @ middle + shift,
            output_shape=(28, 28),
            order=1,
        )
        np.testing.assert_allclose(out[i, 0].numpy(), oracle, atol=1e-4)


# ----------------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"norm": "bn"}, "BN, LN, GN, none"),
        ({"l1": -1e-5}, "cannot be negative"),
        ({"l2": math.nan}, "cannot be negative"),
        ({"epochs": 0}, "from 1 up"),
        ({"epochs": 2.5}, "from 1 up"),
        ({"batch_size": 0}, "from 1 up"),
        ({"lr": 0.0}, "positive"),
        ({"schedule": "cosine"}, "one-cycle"),
        ({"dropout": 1.0}, "probability"),
    ],
)
def test_refuses_impossible_experiments(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        Experiment(**setting)


def test_labels_derive_from_the_settings():
    assert Experiment(norm="GN", l1=1e-5).label == "GN + L1"
    assert Experiment(norm="BN", l1=1e-5, l2=1e-4).label == "BN + L1 + L2"
    assert Experiment(norm="none").label == "none"
    with pytest.raises(dataclasses.FrozenInstanceError):
        Experiment().norm = "LN"


def test_the_same_seed_gives_the_same_run_and_another_another(digits):
    first, again = fit(SHORT, digits), fit(SHORT, digits)
    assert same(first, again) and first.finished
    assert not same(first, fit(dataclasses.replace(SHORT, seed=1), digits))


def test_experiments_that_differ_in_the_norm_get_the_same_batches(digits):
    def of(experiment, epoch=1):
        return list(utils.batches(digits.train, experiment, epoch))

    for (x, y), (other_x, other_y) in zip(
        of(SHORT), of(dataclasses.replace(SHORT, norm="BN")), strict=True
    ):
        assert torch.equal(x, other_x) and torch.equal(y, other_y)
    assert not torch.equal(of(SHORT)[0][1], of(SHORT, epoch=2)[0][1])


def test_an_epoch_holds_each_image_once_and_the_last_epochs_as_they_are(digits):
    experiment = dataclasses.replace(SHORT, plain_epochs=1)
    for epoch, plain in ((1, False), (2, True)):
        x = torch.cat([x for x, _ in utils.batches(digits.train, experiment, epoch)])
        given = utils.normalize(digits.train.x)
        unchanged = torch.equal(x.flatten(1).sort(0).values, given.flatten(1).sort(0).values)
        assert len(x) == 700 and unchanged == plain


def test_history_has_what_it_promises(digits):
    data = utils.split_validation(digits, size=100)
    run = fit(SHORT, data)
    assert run.history["epoch"] == [1, 2]
    last = run.history.epochs[-1]
    for name, images in (("train", data.train), ("val", data.val), ("test", data.test)):
        logits = run.model(utils.normalize(images.x))
        loss = F.cross_entropy(logits, images.y).item()
        assert last[f"{name}_loss"] == pytest.approx(loss, rel=1e-4)
        hits = (logits.argmax(1) == images.y).float().mean().item()
        assert last[f"{name}_accuracy"] == pytest.approx(hits)
    assert last["l1"] == l1_loss(run.model).item() and last["l2"] == l2_loss(run.model).item()
    assert last["seconds"] > 0
    assert math.isnan(fit(SHORT, digits).history["val_loss"][0])


def test_the_running_loss_is_the_mean_over_images_without_the_penalty(digits):
    """A learning rate of almost nothing holds the weights still, so that it can be recomputed."""
    still = Experiment(norm="GN", l1=1.0, l2=1.0, epochs=1, lr=1e-30, plain_epochs=1)
    run = fit(still, digits)
    logits = utils.predict(run.model, digits.train)
    oracle = F.cross_entropy(logits.double(), digits.train.y).item()  # 700 = 5·128 + 60
    assert run.history["running_loss"][0] == pytest.approx(oracle, rel=1e-5)
    assert run.history["train_loss"][0] == pytest.approx(oracle, rel=1e-5)


def test_penalties_act_on_the_weights(digits):
    sums = [
        fit(Experiment(norm="GN", epochs=2, l1=l1, l2=l2), digits).history.epochs[-1]
        for l1, l2 in ((0, 0), (1e-2, 0), (0, 1e-1))
    ]
    assert sums[1]["l1"] < 0.8 * sums[0]["l1"]
    assert sums[2]["l2"] < 0.8 * sums[0]["l2"]


def test_one_step_is_adams_on_the_data_loss_plus_the_penalties(digits):
    """The oracle: the gradient from autograd, the first Adam step by hand in float64."""
    data = utils.Data("one batch", digits.train[:64], digits.test)
    experiment = Experiment(norm="LN", l1=1e-3, l2=1e-2, epochs=1, batch_size=64, plain_epochs=1)
    torch.manual_seed(experiment.seed)
    start = Net("LN").double()
    loss = F.cross_entropy(start(utils.normalize(data.train.x).double()), data.train.y)
    weights = [p for p in start.parameters() if p.ndim >= 2]
    loss = loss + 1e-3 * sum(p.abs().sum() for p in weights)
    loss = loss + 1e-2 / 2 * sum((p**2).sum() for p in weights)
    loss.backward()
    lr = fit(experiment, data).history["lr"][0]
    after = dict(fit(experiment, data).model.named_parameters())
    for name, p in start.named_parameters():
        step = p.grad / (p.grad.abs() + 1e-8)  # Adam's first: m̂/(√v̂ + ε) with m̂ = g, v̂ = g²
        expected = (p - lr * step).float()
        clear = p.grad.abs() > 1e-6  # below, float32 decides on the sign
        torch.testing.assert_close(after[name][clear], expected[clear], rtol=0, atol=2e-6)


def test_the_schedules_are_what_they_say(digits):
    cycle = fit(Experiment(norm="GN", epochs=4), digits).history["lr"]
    assert max(cycle) <= 0.025 and cycle[-1] < 1e-4 and sorted(cycle, reverse=True) == cycle
    constant = fit(Experiment(norm="GN", epochs=2, schedule="constant"), digits)
    assert constant.history["lr"] == [0.025, 0.025]


def test_the_penalty_is_the_experiments():
    model = Net("BN").double()
    both = utils.penalty(Experiment(l1=2.0, l2=3.0), model)
    assert both.item() == pytest.approx((2 * l1_loss(model) + 3 * l2_loss(model)).item())
    mean = utils.penalty(Experiment(l1=2.0, mean_l1=True), model)
    assert mean.item() == pytest.approx(2 * sum(p.abs().mean().item() for p in model.parameters()))


def test_evaluate_leaves_a_short_last_batch_its_weight(digits):
    model = Net("GN")
    logits = utils.predict(model, digits.train, batch_size=256)  # 256 + 256 + 188
    assert logits.shape == (700, 10) and not logits.requires_grad and not model.training
    torch.testing.assert_close(logits, utils.predict(model, digits.train, batch_size=700))
    loss, accuracy = utils.evaluate(model, digits.train)
    assert loss == pytest.approx(F.cross_entropy(logits, digits.train.y).item())
    assert 0 <= accuracy <= 1


def test_a_diverged_run_stops_with_epoch_step_and_cause(digits):
    with pytest.raises(Diverged, match=r"epoch 1, step \d+.*learning rate") as error:
        fit(Experiment(norm="none", lr=1e30, epochs=2), digits)
    assert len(error.value.history) == 0
    with pytest.raises(Diverged, match="penalty"):
        fit(Experiment(norm="none", l1=1e38, epochs=2), digits)


def test_pick_device_prefers_what_it_is_told():
    assert utils.pick_device("cpu") == torch.device("cpu")
    assert utils.pick_device().type in ("cuda", "mps", "cpu")


# --------------------------------------------------------------------------------- checkpoints


class Interrupt:
    """Stops a run with the notebook's stop button, after so many training steps."""

    def __init__(self, monkeypatch, steps):
        self.left, original = steps, F.cross_entropy

        def cross_entropy(*args, **kwargs):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        monkeypatch.setattr(F, "cross_entropy", cross_entropy)


@pytest.mark.parametrize("norm", ["BN", "GN"])
def test_an_interrupted_run_is_usable_and_continues_as_if_nothing_had_been(
    digits, tmp_path, monkeypatch, capsys, norm
):
    experiment = dataclasses.replace(SHORT, norm=norm, epochs=3)
    whole = fit(experiment, digits)
    with monkeypatch.context() as patch:
        Interrupt(patch, steps=12)  # 6 steps and 2 evaluations an epoch: in the second
        part = fit(experiment, digits, tmp_path)
    assert not part.finished and part.history["epoch"] == [1]
    assert "first 1 of 3 epochs" in capsys.readouterr().out
    assert same(fit(experiment, digits, tmp_path), whole)


def test_a_finished_run_is_loaded_not_trained_again(digits, tmp_path, monkeypatch):
    first = fit(SHORT, digits, tmp_path)
    monkeypatch.setattr(utils, "train_epoch", None)
    again = fit(SHORT, digits, tmp_path)
    assert same(first, again) and again.history["seconds"] == first.history["seconds"]


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
    assert psutil.wait_procs(workers, timeout=30)[1] == [], "they outlive it"
    files = directory.glob("*.pt")
    return [len(torch.load(file, weights_only=True)["history"]) for file in files]


def test_a_killed_run_ends_as_one_never_killed(tmp_path):
    data = utils.load_data("digits")
    experiment = Experiment(norm="BN", l1=1e-5, dropout=0.1, epochs=6)
    training = f"utils.fit({experiment!r}, utils.load_data('digits'), {str(tmp_path)!r})"
    (kept,) = killed_after_an_epoch(training, tmp_path)
    assert 1 <= kept < 6
    assert same(fit(experiment, data, tmp_path), fit(experiment, data))


# ---------------------------------------------------------------------------- several at one time

TWO = [dataclasses.replace(SHORT, norm=norm, epochs=4) for norm in ("GN", "BN")]


def together(experiments, data, directory=None):
    return utils.fit_together(experiments, data, directory, device="cpu")


def test_together_is_as_alone_and_in_order(digits):
    short_last = [TWO[0], dataclasses.replace(TWO[1], epochs=1)]
    alone = [fit(e, digits, device="cpu") for e in short_last]
    assert all(map(same, together(short_last, digits), alone))


@pytest.mark.usefixtures("interruptible")
def test_interrupted_together_are_usable_and_continue(digits, tmp_path):
    long = [dataclasses.replace(e, epochs=200) for e in TWO]
    with meanwhile(
        ready=lambda: len(list(tmp_path.glob("*.pt"))) == 2,
        act=lambda: os.kill(os.getpid(), signal.SIGINT),
    ):
        part = together(long, digits, tmp_path)
    assert [run.experiment for run in part] == long
    assert all(1 <= len(run.history) < 200 and not run.finished for run in part)
    kept = [torch.load(file, weights_only=True)["history"] for file in tmp_path.glob("*.pt")]
    assert sorted(map(len, kept)) == sorted(len(run.history) for run in part)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_killed_together_end_as_if_never_killed(tmp_path):
    data = utils.load_data("digits")
    where = f"utils.load_data('digits'), {str(tmp_path)!r}, device='cpu'"
    kept = killed_after_an_epoch(f"utils.fit_together({TWO!r}, {where})", tmp_path)
    assert 1 <= sum(kept) < 8
    whole = [fit(e, data, device="cpu") for e in TWO]
    assert all(map(same, together(TWO, data, tmp_path), whole))


def test_one_that_diverges_ends_all_with_its_reason(digits):
    wild = dataclasses.replace(TWO[0], lr=1e9)
    with pytest.raises(Diverged, match=r"GN \+ L1 \+ L2 diverged in epoch") as caught:
        together([wild, dataclasses.replace(TWO[1], epochs=10_000)], digits)
    epoch = int(re.search(r"epoch (\d+)", str(caught.value))[1])
    assert caught.value.history["epoch"] == list(range(1, epoch))
    assert not [p for p in multiprocessing.active_children() if p.is_alive()]


def test_one_that_is_killed_from_outside_is_named(digits):
    two_there = multiprocessing.active_children
    with meanwhile(
        ready=lambda: len(two_there()) == 2,
        act=lambda: max(two_there(), key=lambda p: p._identity).kill(),
    ):
        with pytest.raises(RuntimeError, match=r"trained BN \+ L1 \+ L2 is gone.*one .* after ano"):
            together([dataclasses.replace(e, epochs=10_000) for e in TWO], digits)


def test_refuses_the_same_experiment_twice(digits):
    with pytest.raises(ValueError, match="a seed of its own"):
        together([SHORT, SHORT], digits)


@pytest.mark.parametrize("interrupted", [False, True])
def test_on_an_accelerator_one_is_trained_after_another(digits, monkeypatch, interrupted):
    trained = []

    def fit_there(experiment, data, directory, device):
        trained.append((experiment, device))
        return utils.Run(None, utils.History(experiment, [{}] * (experiment.epochs - interrupted)))

    monkeypatch.setattr(utils, "fit", fit_there)
    runs = utils.fit_together(TWO, digits, device="cuda")
    begun = TWO[:1] if interrupted else TWO
    assert trained == [(e, "cuda") for e in begun] and [r.experiment for r in runs] == begun


def test_every_moment_of_a_save_leaves_a_whole_checkpoint(digits, tmp_path, monkeypatch):
    """The disk fills up, or the machine dies, anywhere within the second epoch's save."""
    for broken in ("torch.save", "os.fsync", "os.replace"):
        directory = tmp_path / broken
        fails_at_second(monkeypatch, broken)
        with pytest.raises(CheckpointError, match="No space left"):
            fit(SHORT, digits, directory)
        monkeypatch.undo()
        (file,) = directory.iterdir()
        assert len(torch.load(file, weights_only=True)["history"]) == 1
        assert same(fit(SHORT, digits, directory), fit(SHORT, digits))


def fails_at_second(monkeypatch, name):
    module, attribute = {"torch": torch, "os": os}[name.split(".")[0]], name.split(".")[1]
    original, calls = getattr(module, attribute), []

    def fail_second(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return original(*args, **kwargs)

    monkeypatch.setattr(module, attribute, fail_second)


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


def rename_to(experiment, data, directory):
    """Passes the one checkpoint there off as that of another experiment."""
    (file,) = directory.iterdir()
    run = utils.Run(Net(), utils.History(experiment))
    file.rename(utils.Checkpoint(directory, run, data, None, None).path)


def test_a_checkpoint_of_something_else_is_refused_and_kept(digits, tmp_path):
    other = dataclasses.replace(SHORT, l1=1e-4)
    fit(SHORT, digits, tmp_path / "a")
    rename_to(other, digits, tmp_path / "a")
    with pytest.raises(CheckpointError, match="another experiment .l1 1e-05, not 0.0001"):
        fit(other, digits, tmp_path / "a")

    fewer = utils.Data(digits.name, digits.train[:500], digits.test)
    fit(SHORT, digits, tmp_path / "b")
    rename_to(SHORT, fewer, tmp_path / "b")
    with pytest.raises(CheckpointError, match="another data .*700 [+] 0 [+] 360 images"):
        fit(SHORT, fewer, tmp_path / "b")

    other_test = utils.Data(digits.name, digits.train, digits.test[::2])
    assert other_test.fingerprint() != digits.fingerprint()
    assert len(list(tmp_path.rglob("*.pt"))) == 2


def test_a_checkpoint_of_another_version_is_refused(digits, tmp_path, monkeypatch):
    fit(SHORT, digits, tmp_path)
    monkeypatch.setattr(utils.Checkpoint, "VERSION", 2)
    rename_to(SHORT, digits, tmp_path)
    with pytest.raises(CheckpointError, match="another version .1, not 2"):
        fit(SHORT, digits, tmp_path)


def test_experiments_share_a_directory(digits, tmp_path):
    for experiment in (SHORT, dataclasses.replace(SHORT, seed=1), dataclasses.replace(SHORT, l2=0)):
        fit(experiment, digits, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


# ------------------------------------------------------------------------------- errors, plots


def logits_of(predictions):
    return F.one_hot(torch.tensor(predictions), 10).float() * 5


def test_errors_are_ordered_by_confidence():
    labels = torch.tensor([0, 1, 2, 3])
    logits = logits_of([0, 2, 3, 3])
    logits[2] *= 3
    assert utils.most_confident_errors(logits, labels).tolist() == [2, 1]


def test_shared_and_own_errors():
    labels = torch.tensor([0, 1, 2, 3, 4])
    logits = {
        "a": logits_of([9, 9, 2, 3, 9]),
        "b": logits_of([9, 1, 9, 3, 9]),
        "c": logits_of([9, 1, 2, 3, 4]),
    }
    shared, own = utils.shared_and_own_errors(logits, labels)
    assert shared.tolist() == [0]
    assert {k: v.tolist() for k, v in own.items()} == {"a": [1], "b": [2], "c": []}


def test_accuracy_interval_is_wilsons_and_close_to_the_exact_one():
    low, high = utils.accuracy_interval(9_945, 10_000)
    p, n, z = 0.9945, 10_000, 1.959964
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert low == pytest.approx((middle - half) / (1 + z**2 / n), rel=1e-6)
    assert high == pytest.approx((middle + half) / (1 + z**2 / n), rel=1e-6)
    exact = beta.ppf(0.025, 9_945, 56), beta.ppf(0.975, 9_946, 55)
    assert (low, high) == pytest.approx(exact, abs=2e-4)


@pytest.fixture(scope="module")
def histories(digits):
    return [fit(Experiment(norm=norm, l1=1e-5, epochs=2), digits).history for norm in ("GN", "BN")]


def test_curves_show_the_histories(histories):
    figure = utils.plot_curves(histories)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["train accuracy", "test accuracy", "train loss", "test loss"]
    for ax, column in zip(figure.axes, titles, strict=True):
        for line, history in zip(ax.lines, histories, strict=True):
            scale = 100 if "accuracy" in column else 1
            shown = [v / scale for v in line.get_ydata()]
            assert shown == pytest.approx(history[column.replace(" ", "_")])
            assert line.get_color() == utils.NORM_COLORS[history.experiment.norm]


def test_curves_of_runs_of_unequal_length(histories):
    shorter = utils.History(histories[0].experiment, histories[0].epochs[:1])
    empty = utils.History(histories[0].experiment, [])
    utils.plot_curves([shorter, histories[1], empty])


def test_the_view_of_curves_is_the_second_halfs():
    rows = [
        {"epoch": i + 1, "train_accuracy": a, "test_accuracy": a - 0.02}
        | {"train_loss": 1 - a, "test_loss": 1.1 - a}
        for i, a in enumerate((0.5, 0.99, 0.9, 0.95))
    ]
    histories = [utils.History(Experiment(), rows)]
    accuracy, _, loss, _ = utils.plot_curves(histories).axes
    assert accuracy.get_ylim() == pytest.approx((88 - 0.1, 100.05))
    assert loss.get_ylim() == pytest.approx((0, 0.2 * 1.05))
    accuracy, *_ = utils.plot_curves(histories, zoom=False).axes
    assert accuracy.get_ylim()[0] < 48


def test_the_gallery_shows_true_and_predicted(digits):
    logits = logits_of([(int(y) + 1) % 10 for y in digits.test.y])
    figure = utils.plot_digits(digits.test, logits, torch.arange(7))
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == 7
    true = int(digits.test.y[0])
    assert shown[0].get_title().startswith(f"{true} taken for {(true + 1) % 10}")
    assert np.array_equal(shown[0].images[0].get_array(), digits.test.x[0, 0].numpy())
    utils.plot_digits(digits.test, logits, torch.tensor([], dtype=torch.long))


def test_confusion_counts_the_errors():
    labels = torch.tensor([0, 0, 4, 9])
    ax = utils.plot_confusion(logits_of([0, 0, 9, 4]), labels)
    counts = ax.images[0].get_array()
    assert counts[4, 9] == counts[9, 4] == 1 and counts.sum() == 2


def test_the_cubes_show_what_each_norm_averages_over():
    figure = utils.plot_normalization_axes()
    assert [ax.get_title().split("\n")[0] for ax in figure.axes] == ["BN", "LN", "IN", "GN"]
    with pytest.raises(ValueError, match="do not divide"):
        utils.plot_normalization_axes(groups=4)
