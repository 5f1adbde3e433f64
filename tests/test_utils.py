"""Data, training and plotting, against torchvision, SciPy, autograd and float64."""

import contextlib
import math
import os
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from conftest import epochs_kept, needs_fashion, needs_mnist, same
from mpl_toolkits.mplot3d import Axes3D
from scipy.stats import beta
from torch import nn

import utils
from s6_model import Net, l1_loss, l2_loss
from utils import Diverged, Experiment, Images, fit

SHORT = Experiment(norm="GN", l1=1e-5, l2=1e-4, epochs=2, dropout=0.1)


def normalized(images):
    return utils.normalize(images.x.float() / 255)


# --------------------------------------------------------------------------------------- data


@needs_mnist
def test_mnist_is_as_torchvision_reads_it():
    from torchvision import datasets  # here, as it takes two seconds

    data = utils.load_data()
    oracle = datasets.MNIST(os.environ["MNIST_ROOT"], train=False, download=False)
    assert (len(data.train), len(data.test), data.val) == (60_000, 10_000, None)
    for i in (0, 1234, 9999):
        image, label = oracle[i]
        assert np.array_equal(data.test.x[i, 0].numpy(), np.asarray(image))
        assert data.test.y[i] == label


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


def splits(digits, size):
    return utils.split_validation(utils.Data("few", digits.train[:50], digits.test), size)


COUNT, SWITCH = "a whole number from 1 up", "True or False"
SEED = "a whole number from 0 to 4294967295"
BAD_SETTINGS = [
    ("norm", "bn", "'BN', 'LN', 'GN', 'IN' or 'none'"),
    ("groups", True, COUNT),
    ("l1", -1e-5, "a finite number from 0 up"),
    ("l2", "1e-4", "a finite number from 0 up"),
    ("mean_l1", 1, SWITCH),
    ("epochs", 2.5, COUNT),
    ("batch_size", np.float64(32), COUNT),
    ("lr", 0.0, "a finite number above 0"),
    ("lr", math.inf, "a finite number above 0"),
    ("schedule", "cosine", "'one-cycle' or 'constant'"),
    ("augment", "no", SWITCH),
    ("plain_epochs", math.nan, "a whole number from 0 up"),
    ("dropout", 1.0, "a number from 0 up and below 1"),
    ("seed", None, SEED),
    ("seed", 2**63, SEED),
]
X, Y = torch.zeros(2, 1, 28, 28).byte(), torch.zeros(2).long()
BAD_CALLS = [
    (lambda d: utils.load_data("cifar"), "'mnist', 'fashion' or 'digits'"),
    (lambda d: Images(X.float(), Y), "x must be a uint8 tensor of shape"),
    (lambda d: Images(X[:, 0], Y), "x must be a uint8 tensor of shape"),
    (lambda d: Images(X.numpy(), Y), "x must be a uint8 tensor of shape"),
    (lambda d: Images(X, Y[:1]), "y must be an int64 tensor of 2 labels in 0..9"),
    (lambda d: Images(X, Y + 10), r"labels in 0\.\.9, one an image"),
    (lambda d: Images(X, Y, 33.3, 78.6), "of the pixels scaled to"),
    (lambda d: replace(d, train=d.train[:0]), "no training images"),
    (lambda d: replace(d, test=d.test[:0]), "no test images"),
    (lambda d: replace(d, val=d.test[:0]), "no validation images"),
    (lambda d: fit(SHORT, replace(d, test=Images(X[..., :8], Y))), "H and W at least 16, not .* 8"),
    (lambda d: fit(replace(SHORT, groups=3), d), "8 channels into 3"),
    (lambda d: splits(d, 20.0), "size = 20.0: use a whole number"),
    (lambda d: splits(d, "20"), "size = '20': use a whole number"),
    (lambda d: utils.augment(d.test.x, None), "augment takes float32 images, not torch.uint8"),
    (lambda d: utils.augment(d.test.x.double(), None), "float32 images, not torch.float64"),
    (lambda d: utils.normalize(d.test.x), "floats from 0 to 1: "),
    (lambda d: utils.normalize(d.test.x.float()), "floats from 0 to 1: "),
    (lambda d: utils.normalize(normalized(d.test)), "and once"),
    (lambda d: utils.most_confident_errors(torch.eye(9), d.test.y[:1]), "9 predictions and 1 lab"),
    (lambda d: utils.shared_and_own_errors({"a": torch.eye(9)}, d.test.y[:1]), "9 predictions"),
    (lambda d: utils.fit_together([SHORT, SHORT], d), "a seed of its own"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD_SETTINGS)
def test_an_impossible_setting_gets_one_sentence(name, value, allowed):
    with pytest.raises(ValueError) as error:
        Experiment(**{name: value})
    shown = value.item() if isinstance(value, np.generic) else value
    assert str(error.value) == f"{name} = {shown!r}: it should be {allowed}."


@pytest.mark.parametrize(("call", "sentence"), BAD_CALLS)
def test_bad_input_gets_one_sentence(digits, call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence) as error:
        call(digits)
    assert str(error.value).count("\n") == 0


def test_numpys_numbers_are_welcome_and_become_pythons():
    experiment = Experiment(seed=np.int64(3), lr=np.float32(0.5), epochs=np.uint8(4), l1=0)
    assert repr(experiment) == repr(Experiment(seed=3, lr=0.5, epochs=4, l1=0.0))


def test_labels_derive_from_the_settings():
    assert Experiment(norm="GN", l1=1e-5).label == "GN + L1"
    assert Experiment(norm="BN", l1=1e-5, l2=1e-4).label == "BN + L1 + L2"
    assert Experiment(norm="none").label == "none"
    with pytest.raises(FrozenInstanceError):
        Experiment().norm = "LN"


def test_the_same_seed_gives_the_same_run_and_another_another(digits):
    first, again = fit(SHORT, digits), fit(SHORT, digits)
    assert same(first, again) and first.finished
    assert not same(first, fit(replace(SHORT, seed=1), digits))


def test_experiments_that_differ_in_the_norm_get_the_same_batches(digits):
    def of(experiment, epoch=1):
        return list(utils.batches(digits.train, experiment, epoch))

    for (x, y), (other_x, other_y) in zip(of(SHORT), of(replace(SHORT, norm="BN")), strict=True):
        assert torch.equal(x, other_x) and torch.equal(y, other_y)
    assert not torch.equal(of(SHORT)[0][1], of(SHORT, epoch=2)[0][1])


def test_an_epoch_holds_each_image_once_and_the_last_epochs_as_they_are(digits):
    experiment = replace(SHORT, plain_epochs=1)
    for epoch, plain in ((1, False), (2, True)):
        x = torch.cat([x for x, _ in utils.batches(digits.train, experiment, epoch)])
        given = normalized(digits.train)
        unchanged = torch.equal(x.flatten(1).sort(0).values, given.flatten(1).sort(0).values)
        assert len(x) == 700 and unchanged == plain


def test_history_has_what_it_promises(digits):
    data = utils.split_validation(digits, size=100)
    run = fit(SHORT, data)
    assert run.history["epoch"] == [1, 2]
    last = run.history.epochs[-1]
    for name, images in (("train", data.train), ("val", data.val), ("test", data.test)):
        logits = run.model(normalized(images))
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


def test_one_step_is_adams_on_the_data_loss_plus_the_penalties(digits):
    """The oracle: the gradient from autograd, the first Adam step by hand in float64."""
    data = utils.Data("one batch", digits.train[:64], digits.test)
    experiment = Experiment(norm="LN", l1=1e-3, l2=1e-2, epochs=1, batch_size=64, plain_epochs=1)
    torch.manual_seed(experiment.seed)
    start = Net("LN").double()
    loss = F.cross_entropy(start(normalized(data.train).double()), data.train.y)
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
    assert logits.shape == (700, 10) and not logits.requires_grad and model.training
    torch.testing.assert_close(logits, utils.predict(model, digits.train, batch_size=700))
    loss, accuracy = utils.evaluate(model, digits.train)
    assert loss == pytest.approx(F.cross_entropy(logits, digits.train.y).item())
    assert 0 <= accuracy <= 1


def test_trains_a_network_of_ones_own(digits):
    def own():
        return Net(lambda channels: torch.nn.BatchNorm2d(channels))

    assert same(fit(SHORT, digits, network=own), fit(replace(SHORT, norm="BN"), digits)) is False
    plain = replace(SHORT, norm="BN", dropout=0.0)
    assert same(fit(plain, digits, network=own), fit(plain, digits))


def test_a_step_waits_for_no_number_from_the_device(digits):
    """Each ``aten::_local_scalar_dense`` is a wait, on an accelerator."""
    run = utils.Run(Net(), utils.History(replace(SHORT, batch_size=16)))  # 44 steps
    optimizer = torch.optim.SGD(run.model.parameters())  # on a CPU, a fused Adam reads its step
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    with utils.make_bar("", 44) as bar, torch.profiler.profile() as profile:
        utils.train_epoch(run, digits.train, optimizer, scheduler, bar)
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls["aten::convolution"] >= 44 * 5
    assert calls.get("aten::_local_scalar_dense", 0) == 0


def test_a_diverged_run_stops_with_epoch_step_and_cause(digits):
    with pytest.raises(Diverged, match=r"epoch 1, step \d+.*learning rate") as error:
        fit(Experiment(norm="none", lr=1e30, epochs=2), digits)
    assert "l1 and l2 (0, 0)" in str(error.value)
    with pytest.raises(Diverged, match=r"l1 and l2 \(1e\+38, 0\)"):
        fit(Experiment(norm="none", l1=1e38, epochs=2), digits)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_last_step_that_ruins_the_weights_is_no_finished_epoch(digits, tmp_path, epochs):
    one_step = utils.Data("one batch", digits.train[:64], digits.test)
    with pytest.raises(Diverged, match="epoch 1, step 1"):
        fit(Experiment(norm="none", lr=1e30, epochs=epochs), one_step, tmp_path)
    assert epochs_kept(tmp_path) == [0]


# ------------------------------------------------------------- what the model and torch are set to


def test_prediction_leaves_every_module_in_its_mode(digits):
    model = Net("BN")
    model.features[1].eval()  # a frozen BN
    modes = [module.training for module in model.modules()]
    for images in (digits.test, Images(digits.test.x[:, :, :9], digits.test.y)):  # too small
        with contextlib.suppress(ValueError):
            utils.evaluate(model, images)
        assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_precision_is_trained_and_tested_in_it(digits, dtype):
    experiment = replace(SHORT, epochs=1)
    run = fit(experiment, digits, network=lambda: Net("GN").to(dtype))
    assert {p.dtype for p in run.model.parameters()} == {dtype}
    assert utils.predict(run.model, digits.test).dtype == dtype


class AlwaysThree(nn.Module):
    def __init__(self):
        super().__init__()
        self.scores = nn.Parameter(5 * F.one_hot(torch.tensor(3), 10).float())

    def forward(self, x):
        return self.scores.expand(len(x), 10)


def test_images_are_counted_exactly_in_half_precision(digits):
    """bfloat16 has no 699: its neighbours are 696, 700 and 704."""
    threes = Images(digits.train.x[:699], torch.full((699,), 3))
    experiment = Experiment(epochs=1, batch_size=699)
    run = fit(
        experiment, utils.Data("threes", threes, threes), network=lambda: AlwaysThree().bfloat16()
    )
    assert run.history["running_accuracy"] == [1.0]


@pytest.mark.parametrize("device, layout", [("cpu", "channels_last"), ("meta", "preserve_format")])
def test_channels_last_is_for_the_cpu_alone(digits, monkeypatch, device, layout):
    class Moved(Exception):
        pass

    def to(self, place, memory_format):
        raise Moved(place.type, memory_format)

    monkeypatch.setattr(Net, "to", to)
    with pytest.raises(Moved) as moved:
        fit(SHORT, digits, device=device)
    assert moved.value.args == (device, getattr(torch, layout))


def test_torchs_defaults_do_not_matter(digits):
    """The network of a float64 default is one; data, random numbers and results are the same."""
    one = replace(SHORT, epochs=1)
    before, batch = fit(one, digits), next(utils.batches(digits.train, one, 1))
    try:
        torch.set_default_dtype(torch.float64)
        assert torch.equal(next(utils.batches(digits.train, one, 1))[0], batch[0])
        assert fit(one, digits).model.head.weight.dtype == torch.float64
        torch.set_default_dtype(torch.float32)
        torch.set_default_device("meta")  # whatever is made there has no numbers in it
        assert utils.load_data("digits").fingerprint()[:12] == "scikit-learn"
        again = fit(one, digits)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert same(before, again)


def test_images_carry_their_mean_and_standard_deviation(digits):
    other = replace(digits.train, mean=0.286, std=0.353)
    x = digits.train.x[:50].float() / 255
    model, batch = Net("GN"), replace(SHORT, augment=False, batch_size=700)
    torch.testing.assert_close(
        utils.predict(model, other[:50]), utils.predict(model, other.to("cpu")[:50])
    )
    with torch.no_grad():
        torch.testing.assert_close(utils.predict(model, other[:50]), model((x - 0.286) / 0.353))
    ((whole, _),) = utils.batches(other, batch, 1)
    assert whole.mean().item() == pytest.approx(
        (digits.train.x.float().mean().item() / 255 - 0.286) / 0.353, rel=1e-4
    )


@pytest.mark.parametrize(
    "name",
    [pytest.param("mnist", marks=needs_mnist), pytest.param("fashion", marks=needs_fashion)],
)
def test_mean_and_standard_deviation_are_the_training_sets(name):
    data = utils.load_data(name)
    x = data.train.x.double() / 255
    found = round(x.mean().item(), 4), round(x.std().item(), 4)
    assert found == (data.train.mean, data.train.std) == (data.test.mean, data.test.std)
    assert (len(data.train), len(data.test)) == (60_000, 10_000)


def test_a_smoke_test_is_short_and_says_nothing_of_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SMOKE_TEST", "1")
    data = utils.load_data("digits")
    assert (len(data.train), len(data.test)) == (1_000, 300)
    assert data.train.y.bincount().min() > 90
    assert len(utils.split_validation(data).val) == 200
    run = fit(Experiment("GN", epochs=20), data, tmp_path)
    assert run.finished and len(run.history) == 3 and not list(tmp_path.iterdir())
    assert capsys.readouterr().out == ""


# -------------------------------------------------------------------------------------- plots


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


def test_curves_of_nan_and_of_runs_of_unequal_length(histories):
    rows = [row | {"train_loss": math.nan, "test_loss": math.nan} for row in histories[0].epochs]
    utils.plot_curves([utils.History(histories[0].experiment, 2 * rows)])
    shorter = utils.History(histories[0].experiment, histories[0].epochs[:1])
    empty = utils.History(histories[0].experiment, [])
    utils.plot_curves([shorter, histories[1], empty])


def test_curves_hide_no_epoch_and_a_step_up_halves_the_mistakes():
    rows = [
        {"epoch": i + 1, "train_accuracy": a, "test_accuracy": a - 0.02}
        | {"train_loss": 1 - a, "test_loss": 1.1 - a}
        for i, a in enumerate((0.5, 0.99, 0.9, 0.95))
    ]
    figure = utils.plot_curves([utils.History(Experiment(), rows)], "title")
    assert figure.get_suptitle() == "title"
    for ax in figure.axes:
        low, high = ax.get_ylim()
        assert all(low <= v <= high for v in ax.lines[0].get_ydata())
    accuracy, _, loss, _ = figure.axes
    for ax, (worst, better, best) in ((accuracy, (92, 96, 98)), (loss, (0.8, 0.4, 0.2))):
        heights = [ax.transData.transform((1, v))[1] for v in (worst, better, best)]
        first, second = np.diff(heights)
        assert first == pytest.approx(second, rel=0.06) and abs(first) > 1


def test_the_cubes_show_what_each_norm_averages_over(monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes3D, "voxels", lambda *_, facecolors, **__: drawn.append(facecolors))
    figure = utils.plot_normalization_axes()  # N, C, HW = 5, 6, 5
    norms = [ax.get_title().split("\n")[0] for ax in figure.axes]
    assert norms == ["BN", "LN", "IN", "GN"]
    first = {"BN": np.s_[:, 0], "LN": np.s_[0], "IN": np.s_[0, 0], "GN": np.s_[0, :3]}
    for norm, colors in zip(norms, drawn, strict=True):
        expected = np.zeros((5, 6, 5), dtype=bool)
        expected[first[norm]] = True
        assert np.array_equal(colors == utils.NORM_COLORS[norm], expected)
