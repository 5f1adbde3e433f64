"""What the measures compute, held against torch's layers, autograd and closed forms."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import utils
from evidence.measures import gradients, training, with_without
from s6_model import Net


@pytest.mark.parametrize(
    ("module", "rows"),
    [(with_without, 4 * 6), (gradients, 3 * 2 * 4 * 4)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_setting_has_a_name_of_its_own(module, rows):
    settings = module.settings()
    assert len(settings) == len(set(settings.values())) == rows
    for setting in settings.values():
        assert dataclasses.is_dataclass(setting) and setting.__dataclass_params__.frozen


# ------------------------------------------------------------------------------------ training


def test_a_part_of_the_images_has_every_digit_in_proportion(digits):
    part = training.part(digits.train, 350)
    whole = digits.train.y.bincount()
    assert len(part) == 350
    assert (part.y.bincount() - whole / 2).abs().max() <= 1
    assert torch.equal(part.x, training.part(digits.train, 350).x)


def test_validation_images_are_taken_out_of_the_training_set(digits):
    data = training.with_validation(digits, 100)
    assert (len(data.train), len(data.val)) == (600, 100)
    pixels = {tuple(x.flatten().tolist()) for x in data.train.x}
    assert not any(tuple(x.flatten().tolist()) in pixels for x in data.val.x)


# -------------------------------------------------------------------------------- with_without


@pytest.mark.parametrize("norm", ["BN", "GN"])
def test_with_without_trains_as_a_plain_loop_in_torch_does(norm, digits):
    setting = with_without.Setting(norm, lr=0.01, epochs=5)
    torch.manual_seed(3)
    model = Net(norm)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(1, 6):
        for x, y in training.epoch_of(digits.train, 128, 3, epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    accuracy = utils.evaluate(model, digits.test)[1]
    assert accuracy > 0.2  # or there were nothing to compare
    found = with_without.measure(setting, 3, digits)["test_accuracy"]
    assert found == pytest.approx(accuracy, abs=2 / len(digits.test))  # sums in another order


def test_a_batchs_own_statistics_make_up_for_wrong_running_averages(digits):
    data = utils.Data("", digits.train, digits.train)  # what it has seen, so that it does well
    setting = with_without.Setting("BN", lr=0.1, epochs=8)
    assert with_without.measure(setting, 0, data)["batch_accuracy"][-1] > 0.8
    model = Net("BN")
    before = with_without.batch_accuracy(model, digits.test, 90)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.fill_(1e3)
    assert with_without.batch_accuracy(model, digits.test, 90) == before
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


@pytest.mark.parametrize("residual", [False, True])
def test_all_norms_start_from_the_same_convolutions(residual):
    def weights(norm):
        torch.manual_seed(1)
        model = gradients.deep_cnn(gradients.Setting(norm, 6, residual))
        return [c.weight for c in gradients.convolutions(model)] + [model[-1].weight]

    for norm in ("LN", "GN", "none"):
        for ours, reference in zip(weights(norm), weights("BN"), strict=True):
            assert torch.equal(ours, reference)


@pytest.mark.parametrize(
    ("init", "sigma"), [("N(0, 0.01)", 0.01), ("Xavier", 1 / 12), ("He", 1 / 72**0.5)]
)
def test_initial_weights_have_the_spread_their_name_promises(init, sigma):
    torch.manual_seed(0)
    weight = torch.empty(16, 16, 3, 3)
    gradients.initialize(weight, init)
    assert weight.std().item() == pytest.approx(sigma, rel=0.05)


def test_without_a_norm_small_initial_weights_make_gradients_vanish_with_depth(digits):
    def smallest(norm, depth):
        setting = gradients.Setting(norm, depth, init="N(0, 0.01)", batch_size=32)
        return gradients.measure(setting, 0, digits)["smallest"]

    assert smallest("none", 10) < 1e-4 * smallest("none", 5) < 1e-8
    assert smallest("BN", 10) > 0.01
