"""What the measures compute, held against torch's layers, autograd and closed forms."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import utils
from backstage.evidence.bn_statistics import evaluate_by_batch
from backstage.evidence.measures import (
    cost,
    faster,
    gradients,
    largest_rate,
    layer_norm,
    runs,
    smoothness,
    two_starts,
    very_deep,
)
from s6_model import Net

# ------------------------------------------------------------------------------------ training


def test_a_part_of_the_images_has_every_digit_in_proportion(digits):
    part = runs.part(digits.train, 350)
    whole = digits.train.y.bincount()
    assert len(part) == 350
    assert (part.y.bincount() - whole / 2).abs().max() <= 1
    assert torch.equal(part.x, runs.part(digits.train, 350).x)


def test_validation_images_are_taken_out_of_the_training_set(digits):
    data = runs.with_validation(digits, 100)
    assert (len(data.train), len(data.val)) == (600, 100)
    pixels = {tuple(x.flatten().tolist()) for x in data.train.x}
    assert not any(tuple(x.flatten().tolist()) in pixels for x in data.val.x)


NETWORKS = {
    "deep": lambda norm: gradients.deep_cnn(gradients.Setting(norm, 6)),
    "deep, residual": lambda norm: gradients.deep_cnn(gradients.Setting(norm, 6, True)),
    "variants of LN": layer_norm.three_layer_cnn,
} | {name: functools.partial(faster.make_network, name) for name in faster.RATES}


@pytest.mark.parametrize("network", NETWORKS)
def test_all_norms_start_from_the_same_weights(network):
    def weights(norm):
        torch.manual_seed(1)
        return [p for p in NETWORKS[network](norm).parameters() if p.ndim >= 2]

    norms = {"deep": ("BN", "LN", "GN"), "variants of LN": layer_norm.VARIANTS}
    for norm in norms.get(network.partition(",")[0], ("BN", "LN")):
        for ours, reference in zip(weights(norm), weights("none"), strict=True):
            assert torch.equal(ours, reference)


def test_settings_are_chosen_on_images_kept_from_training(digits):
    short = utils.Experiment("GN", epochs=1, batch_size=350)
    found = runs.validation(short, 2, digits)
    split = utils.split_validation(digits, size=70, seed=2)
    last = utils.fit(dataclasses.replace(short, seed=2), split, device="cpu").history.epochs[-1]
    assert found == {"val_loss": last["val_loss"], "val_accuracy": last["val_accuracy"]}


# ---------------------------------------------------------------------------------- two_starts


@pytest.mark.parametrize("norm", ["BN", "GN"])
def test_two_starts_trains_as_a_plain_loop_in_torch_does(norm, digits):
    setting = two_starts.Setting(norm, lr=0.01, epochs=5)
    images = runs.with_validation(digits, setting.validation).train
    torch.manual_seed(3)
    model = Net(norm).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(1, 6):
        for x, y in runs.epoch_of(images, 128, 3, epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    accuracy = utils.evaluate(model, digits.test)[1]
    assert accuracy > 0.2  # or there were nothing to compare
    found = two_starts.measure(setting, 3, digits)["test_accuracy"]
    assert found == pytest.approx(accuracy, abs=2 / len(digits.test))  # sums in another order


def test_a_batchs_own_statistics_make_up_for_wrong_running_averages(digits):
    data = utils.Data("", digits.train, digits.train)  # what it has seen, so that it does well
    setting = two_starts.Setting("BN", lr=0.1, epochs=8)
    assert two_starts.measure(setting, 0, data)["batch_accuracy"][-1] > 0.8
    model = Net("BN")
    before = evaluate_by_batch(model, digits.test, 90)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.fill_(1e3)
    assert evaluate_by_batch(model, digits.test, 90) == before
    means = [m.running_mean for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((mean == 1e3).all() for mean in means)  # measuring leaves them as they are


# ----------------------------------------------------------------------------------- gradients


def test_gradient_norms_are_those_of_finite_differences():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 2, bias=False), nn.Tanh(), nn.Conv2d(2, 3, 2, bias=False), nn.Flatten()
    ).double()
    x, y = torch.randn(4, 1, 3, 3).double(), torch.tensor([0, 1, 2, 0])
    expected = []
    for layer in (model[0], model[2]):
        slopes = []
        for i in range(layer.weight.numel()):
            losses = []
            for shift in (1e-5, -2e-5):
                layer.weight.data.view(-1)[i] += shift
                losses.append(F.cross_entropy(model(x), y).item())
            layer.weight.data.view(-1)[i] += 1e-5
            slopes.append((losses[0] - losses[1]) / 2e-5)
        expected.append(sum(s * s for s in slopes) ** 0.5)
    assert gradients.gradient_norms(model, x, y) == pytest.approx(expected, rel=1e-6)


def test_growth_per_layer_is_the_ratio_of_a_geometric_series():
    assert gradients.growth_per_layer([8, 4, 2, 1]) == pytest.approx(2)
    assert gradients.growth_per_layer([0.1, 0.0]) is None


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("depth", [5, 10])
def test_a_deep_cnn_has_as_many_convolutions_as_its_depth_says(depth, residual):
    model = gradients.deep_cnn(gradients.Setting("GN", depth, residual))
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == depth
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(
    ("init", "sigma"), [("N(0, 0.01)", 0.01), ("Xavier", 1 / 12), ("He", 1 / 72**0.5)]
)
def test_initial_weights_have_the_spread_their_name_promises(init, sigma):
    torch.manual_seed(0)
    weight = torch.empty(16, 16, 3, 3)
    gradients.initialize(weight, init)
    assert weight.std().item() == pytest.approx(sigma, rel=0.05)


def test_he_keeps_the_signal_of_a_plain_network_alive_at_depth_40(digits):
    torch.manual_seed(0)
    model = gradients.deep_cnn(gradients.Setting("none", 40))
    squares = []
    for layer in gradients.convolutions(model)[1:]:
        layer.register_forward_hook(lambda *a: squares.append(a[2].square().mean().item()))
    model(utils.normalize(digits.train.x[:64].float() / 255))
    # Unscaled, 38 layers would leave 0.76 ** 38 = 3e-5 of it.
    assert 0.02 < squares[-1] / squares[0] < 50


def test_without_a_norm_small_initial_weights_make_gradients_vanish_with_depth(digits):
    def smallest(norm, depth):
        setting = gradients.Setting(norm, depth, init="N(0, 0.01)", batch_size=32)
        return gradients.measure(setting, 0, digits)["smallest"]

    assert smallest("none", 10) < 1e-4 * smallest("none", 5) < 1e-8
    assert smallest("BN", 10) > 0.01


# ------------------------------------------------------- layer_norm and the theorem behind it


def test_ln_simple_is_torchs_layer_norm():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5, dtype=torch.double, requires_grad=True)
    upstream = torch.randn_like(x)
    expected = F.layer_norm(x, [3, 5, 5])
    (gradient,) = torch.autograd.grad(expected, x, upstream)
    for ours in (layer_norm.standardize(x), layer_norm.make_variant("LN-simple", 3)(x)):
        torch.testing.assert_close(ours, expected)
        torch.testing.assert_close(torch.autograd.grad(ours, x, upstream)[0], gradient)


def test_ln_is_torchs_layer_norm_with_a_gain_and_shift_per_channel():
    torch.manual_seed(0)
    layer, x = layer_norm.make_variant("LN", 3).double(), torch.randn(4, 3, 5, 5).double()
    nn.init.normal_(layer[1].weight)
    nn.init.normal_(layer[1].bias)
    gain, shift = (v.view(3, 1, 1).expand(3, 5, 5) for v in (layer[1].weight, layer[1].bias))
    torch.testing.assert_close(layer(x), F.layer_norm(x, [3, 5, 5], gain, shift))


def jacobian_of_layer_norm(x):
    """∂y_i/∂x_j in closed form: the constant-μ-and-σ part, and what μ and σ take off it."""
    h, sigma = x.numel(), x.std(correction=0)
    y = (x - x.mean()) / sigma
    of_mean = torch.full((h, h), 1 / h, dtype=torch.double) / sigma
    of_std = torch.outer(y, y) / h / sigma
    return torch.eye(h, dtype=torch.double) / sigma, of_mean, of_std


@pytest.mark.parametrize("detach_mean", [False, True])
@pytest.mark.parametrize("detach_std", [False, True])
def test_detaching_leaves_out_its_part_of_the_closed_form_gradient(detach_mean, detach_std):
    torch.manual_seed(0)
    x = torch.randn(7, dtype=torch.double)
    constant, of_mean, of_std = jacobian_of_layer_norm(x)
    expected = constant - (not detach_mean) * of_mean - (not detach_std) * of_std

    def ours(v):
        return layer_norm.standardize(v[None], detach_mean, detach_std, eps=0)[0]

    torch.testing.assert_close(torch.autograd.functional.jacobian(ours, x), expected)
    torch.testing.assert_close(ours(x), F.layer_norm(x, [7], eps=0))


@pytest.mark.parametrize(
    ("variant", "same_as"),
    [("μ detached", (True, False)), ("σ detached", (False, True)), ("DetachNorm", (True, True))],
)
def test_each_variant_detaches_what_its_name_says(variant, same_as):
    x = torch.randn(2, 3, 4, 4, dtype=torch.double, requires_grad=True)
    upstream = torch.randn_like(x)
    ours, expected = layer_norm.make_variant(variant, 3)(x), layer_norm.standardize(x, *same_as)
    gradients = (torch.autograd.grad(v, x, upstream)[0] for v in (ours, expected))
    torch.testing.assert_close(*gradients)


def test_adanorms_factor_is_a_constant_on_the_way_back():
    y = torch.tensor([-2.0, 0.0, 3.0], requires_grad=True)
    z = layer_norm.AdaScale(2.0)(y)
    z.sum().backward()
    assert z.tolist() == pytest.approx([2 * 1.2 * -2, 0, 2 * 0.7 * 3])
    assert y.grad.tolist() == pytest.approx([2.4, 2.0, 1.4])


def test_rho_squared_is_the_squared_correlation_of_output_and_gradient(digits):
    torch.manual_seed(0)
    scale, head = nn.Conv2d(1, 1, 1), nn.Linear(784, 10)  # LN undoes the first
    model = nn.Sequential(scale, layer_norm.make_variant("LN-simple", 1), nn.Flatten(), head)
    nn.init.ones_(scale.weight)
    images = digits.test[:5]
    weight, squares = head.weight.detach().double(), []
    for x, label in zip(images.x, images.y, strict=True):  # g = Wᵀ(softmax − one-hot)
        y = F.layer_norm(utils.normalize(x.float() / 255).double(), x.shape).flatten()
        p = (weight @ y + head.bias.detach()).softmax(0) - F.one_hot(label, 10)
        squares.append(np.corrcoef(y, weight.T @ p)[0, 1] ** 2)
    found = layer_norm.rho_squared(model, images)
    assert found == pytest.approx([np.mean(squares)], rel=1e-3)


@pytest.mark.parametrize("norm", ["none", "AdaNorm"])
def test_a_layer_norm_run_gives_accuracies_and_rho_for_each_norm_layer(norm, digits):
    row = layer_norm.measure(layer_norm.Setting(norm, epochs=1, validation=50), 0, digits)
    assert 0 < row["test_accuracy"] < 1 and 0 < row["val_accuracy"] < 1
    assert len(row["rho2"]) == (0 if norm == "none" else 2)


def theorem_errors(back_mean: bool, back_std: bool, claimed=None) -> tuple[float, float]:
    """1911.07013, section 3.2, on random rows of 32: the largest errors of what it says of ∂ℓ/∂x.

    y = (x − μ)/σ; g = ∂ℓ/∂y has mean ḡ and variance D. The derivative of μ brings the mean of ∂ℓ/∂x
    from ḡ/σ to 0, that of σ its variance from D/σ² to (1 − ρ²)·D/σ², with ρ the correlation of y
    and g (the theorem says "smaller or equal"). ``claimed`` are the derivatives it is told of.
    """
    told_mean, told_std = claimed or (back_mean, back_std)
    rng = torch.Generator().manual_seed(0)
    one_each, rows = (
        torch.randn(s, generator=rng).double() for s in ((4, 1_000, 1), (2, 1_000, 32))
    )
    x = (one_each[0] + one_each[1].exp() * rows[0]).requires_grad_()  # of any mean and scale
    y = layer_norm.standardize(x, not back_mean, not back_std, eps=0)
    # Part of g goes along y, or ρ² would be near 0 in every row.
    g = one_each[2] + one_each[3] * y.detach() + rows[1]
    (gradient,) = torch.autograd.grad(y, x, g)
    y, g, gradient, std = (v.detach().numpy() for v in (y, g, gradient, x.std(1, correction=0)))
    rho2 = np.array([np.corrcoef(a, b)[0, 1] ** 2 for a, b in zip(y, g, strict=True)])
    mean = 0 if told_mean else g.mean(1) / std
    share = 1 - rho2 if told_std else 1
    size = np.sqrt((g**2).mean(1)) / std
    variance_ratio = gradient.var(1) * std**2 / g.var(1)
    return np.abs((gradient.mean(1) - mean) / size).max(), np.abs(variance_ratio - share).max()


WAYS = list(itertools.product((True, False), repeat=2))


@pytest.mark.parametrize("back", WAYS)
def test_the_derivatives_of_mean_and_deviation_do_what_the_theorem_says(back):
    assert max(theorem_errors(*back)) < 1e-12
    for other in WAYS:
        assert (max(theorem_errors(*back, claimed=other)) > 1e-3) == (other != back)


# ---------------------------------------------------------------------------------- smoothness


class Quadratic(nn.Module):
    """Gives ½ wᵀAw, which the test takes for the loss."""

    def __init__(self, a, w):
        super().__init__()
        self.a, self.w = a, nn.Parameter(w)

    def forward(self, _x):
        return self.w @ self.a @ self.w / 2


def test_beta_of_a_quadratic_loss_is_the_eigenvalue_along_the_gradient(monkeypatch):
    monkeypatch.setattr(smoothness.F, "cross_entropy", lambda loss, _y: loss)
    a = torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).double()
    values, vectors = torch.linalg.eigh(a @ a.T)
    for value, vector in zip(values, vectors.T, strict=True):
        model = Quadratic(a @ a.T, 3 * vector)
        found = smoothness.probes(model, None, None, lr=0.1)
        assert found["beta"] == pytest.approx(value.item())
        length = 3 * value.item()  # ‖g‖; the loss along −g is ½·9·λ·(1 − tλ)²
        assert found["gradient_change"] == pytest.approx(0.4 * value.item() * length)
        losses = [4.5 * value.item() * (1 - t * value.item()) ** 2 for t in (0.05, 0.1, 0.2, 0.4)]
        assert found["loss_range"] == pytest.approx(max(losses) - min(losses))


def test_probing_leaves_weights_and_running_averages_as_they_are(digits):
    model = Net("BN")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    smoothness.probes(
        model, utils.normalize(digits.train.x[:64].float() / 255), digits.train.y[:64], 0.1
    )
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in model.parameters())


def test_the_probes_are_taken_at_the_first_loss_below_each_level(monkeypatch, digits):
    monkeypatch.setattr(smoothness, "LEVELS", (2.2, 2.1, 2.0))
    row = smoothness.measure(smoothness.Setting("BN", max_steps=60), 0, digits)
    assert [p["level"] for p in row["probes"]] == [2.2, 2.1, 2.0]
    assert all(p["loss"] <= p["level"] for p in row["probes"])
    betas = [p["beta"] for p in row["probes"]]
    assert row["beta"] == pytest.approx(np.prod(betas) ** (1 / 3))


def test_a_network_that_misses_a_level_has_no_mean_over_the_levels(digits):
    row = smoothness.measure(smoothness.Setting("GN", max_steps=2), 0, digits)
    assert row["beta"] is None and row["loss_range"] is None


# ------------------------------------------------------------------- faster, and the largest rate


def test_steps_to_the_target_lie_on_the_line_between_two_checks():
    scripted = [0.5, 0.9, 0.96, 0.98, 0.95]
    at = [100 * (i + 1) for i in range(4)]
    expected = np.interp(0.97, scripted[:4], at)
    assert faster.steps_to(0.97, scripted, check_every=100) == pytest.approx(expected)
    assert faster.steps_to(0.5, scripted, check_every=100) == 100
    assert faster.steps_to(0.99, scripted, check_every=100) is None
    assert faster.steps_to(0.97, [], check_every=100) is None


def test_an_mlp_without_a_norm_is_three_layers_of_a_hundred_units(digits):
    torch.manual_seed(0)
    model = faster.make_network("sigmoid MLP", "none")
    x = h = utils.normalize(digits.train.x[:5].float() / 255)
    h = h.flatten(1)
    *hidden, (weight, bias) = [(m.weight, m.bias) for m in model if isinstance(m, nn.Linear)]
    assert len(hidden) == 3
    for w, b in hidden:
        assert len(w) == 100
        h = torch.sigmoid(h @ w.T + b)
    torch.testing.assert_close(model(x), h @ weight.T + bias)


def test_training_ends_at_the_first_check_that_reaches_the_target(digits):
    setting = faster.Setting(norm="BN", lr=0.03, target=0.9, check_every=4, max_steps=200)
    row = faster.measure(setting, 0, digits)
    *before, last = row["accuracy"]
    assert last >= 0.9 > max(before)
    assert 4 * len(before) < row["steps"] <= 4 * (len(before) + 1)
    assert 0 < row["cpu_seconds"] < 10


def test_a_run_that_misses_the_target_has_neither_steps_nor_seconds(digits):
    for lr in (1e-9, 1e9):  # learns nothing; blows up
        setting = faster.Setting(norm="none", lr=lr, check_every=10, max_steps=20)
        row = faster.measure(setting, 0, digits)
        assert row["steps"] is None and row["cpu_seconds"] is None
    assert len(row["accuracy"]) == 0


@pytest.mark.parametrize("last", [None, 0, 1, 13, 30, 31])
def test_bisection_finds_the_last_rate_that_trains_in_a_few_runs(last):
    asked = []

    def trains(i):
        asked.append(i)
        return last is not None and i <= last

    assert largest_rate.last_true(trains, 32) == last
    assert len(asked) <= 6


def test_the_largest_rate_is_the_last_that_trained(digits):
    setting = largest_rate.Setting("ReLU MLP", "none", steps=40)
    row = largest_rate.measure(setting, 0, digits)
    trained = [rate for rate, accuracy in row["tried"] if accuracy >= 0.5]
    assert row["largest_rate"] == max(trained)
    above = [a for rate, a in row["tried"] if rate > row["largest_rate"]]
    assert above and max(above) < 0.5
    few = runs.with_validation(digits, 50)
    make = functools.partial(faster.make_network, "ReLU MLP", "none")
    assert largest_rate.accuracy_at(1e9, make, setting, 0, few) == 0


def test_small_rates_that_take_too_long_do_not_hide_a_larger_one_that_trains(digits, monkeypatch):
    """Only one rate trains, where the bisection does not look: the two it looks at next fail."""
    rate = largest_rate.RATES[10]
    monkeypatch.setattr(largest_rate, "accuracy_at", lambda lr, *_: 0.9 if lr == rate else 0.1)
    row = largest_rate.measure(largest_rate.Setting(), 0, digits)
    assert row["largest_rate"] == rate and [rate, 0.9] in row["tried"]
    monkeypatch.setattr(largest_rate, "accuracy_at", lambda *_: 0.1)
    assert largest_rate.measure(largest_rate.Setting(), 0, digits)["largest_rate"] is None


def test_a_deep_network_with_bn_learns_where_the_one_without_has_not(digits):
    """At a depth and rate where it shows even on 700 small images."""
    setting = very_deep.Setting("BN", 16, residual=True, lr=0.1, epochs=4, batch_size=32)
    bn = very_deep.measure(setting, 0, digits)["test_accuracy"]
    none = very_deep.measure(dataclasses.replace(setting, norm="none"), 0, digits)["test_accuracy"]
    assert bn > 0.4 > 0.3 > none


# ---------------------------------------------------------------------------------------- cost


@pytest.mark.parametrize(("network", "norms"), [("CNN", 4), ("ReLU MLP", 3)])
def test_a_norms_cost_is_the_median_of_its_own_steps(network, norms, digits, monkeypatch):
    clock = {"now": 0.0}
    seconds_of_a_step = {nn.BatchNorm1d: 3, nn.BatchNorm2d: 3, nn.LayerNorm: 2, nn.GroupNorm: 2}

    def step(model, *_):
        kinds = [seconds_of_a_step.get(type(layer), 0) for layer in model.modules()]
        clock["now"] += 1 + max(kinds)

    monkeypatch.setattr(cost, "step", step)
    monkeypatch.setattr(cost.time, "process_time", lambda: clock["now"])
    row = cost.measure(cost.Setting(network, 16, turns=3, steps=2), 0, digits)
    assert len(row["ms_per_step"]) == norms
    assert row["ms_per_step"]["none"] == pytest.approx(1_000)
    assert (row["ratio"]["BN"], row["ratio"]["LN"]) == pytest.approx((4, 3))
