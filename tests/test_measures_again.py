"""The measures of starts, scales and new data, held against torch, closed forms and each other."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from backstage.evidence.measures import (
    fashion,
    faster,
    faster_batch_statistics,
    few_images,
    gradient_growth,
    l2_or_rate,
    largest_rate_starts,
    new_domain,
    pre_post_norm,
    runs,
    sigma_detached,
    smoothness,
    steadiness,
    three_experiments,
    two_starts,
    very_deep,
)
from backstage.evidence.measures.layer_norm import three_layer_cnn
from s6_model import Net
from utils import evaluate, fit, normalize


def first_batch(data, size=64, dtype=torch.float32):
    return normalize(data.train.x[:size].to(dtype) / 255), data.train.y[:size]


# ---------------------------------------------------------------------------------- two starts


def test_hes_start_has_the_deviation_of_its_formula():
    torch.manual_seed(0)
    model = two_starts.started(Net("none"), "He")
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 6
    for layer in layers:
        fan_in = layer.weight[0].numel()
        assert layer.weight.detach().std() * math.sqrt(fan_in / 2) == pytest.approx(1, abs=0.2)


def test_the_default_start_is_torchs_own():
    torch.manual_seed(0)
    own = Net("BN").state_dict()
    torch.manual_seed(0)
    found = two_starts.started(Net("BN"), "default").state_dict()
    assert all(torch.equal(found[name], own[name]) for name in own)
    with pytest.raises(ValueError, match="Unknown start 'Xavier'"):
        two_starts.started(Net("BN"), "Xavier")


SHORT = {
    two_starts: {"epochs": 1},
    smoothness: {"max_steps": 0},
    largest_rate_starts: {"steps": 1},
}


@pytest.mark.parametrize("module", SHORT, ids=lambda module: module.__name__.rpartition(".")[2])
def test_the_start_that_is_asked_for_is_taken(module, digits, monkeypatch):
    asked = set()
    monkeypatch.setattr(module, "started", lambda net, start: asked.add(start) or net)
    module.measure(module.Setting("none", "He", **SHORT[module]), 0, digits)
    assert asked == {"He"}


def test_the_rate_is_chosen_on_images_that_are_neither_trained_nor_tested_on(digits, monkeypatch):
    monkeypatch.setattr(two_starts, "evaluate", lambda model, images: (0, len(images)))
    found = two_starts.measure(two_starts.Setting("none", epochs=1), 0, digits)
    validation = runs.with_validation(digits, two_starts.Setting.validation).val
    assert found["val_accuracy"] == len(validation) != len(digits.test) == found["test_accuracy"]


# ------------------------------------------------------------------------------ gradient growth


def test_gradients_grow_as_the_mean_field_theory_of_batch_norm_says(digits):
    setting = gradient_growth.Setting("MLP", "BN", depth=30)
    found = gradient_growth.measure(setting, 0, digits)
    assert found["growth"] == pytest.approx(math.sqrt(math.pi / (math.pi - 1)), abs=0.03)
    assert len(found["norms"]) == len(found["after_norms"]) == 30


def test_nothing_corrects_hes_weights_for_padding():
    torch.manual_seed(0)
    model = gradient_growth.make_network(gradient_growth.Setting("CNN", "none", depth=40))
    inner = torch.cat([m.weight.flatten() for m in gradient_growth.inner_layers(model)[1:]])
    assert inner.detach().std() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.01)


# --------------------------------------------------------------------------------- L2 or rate


@pytest.mark.parametrize(("part", "l2"), [("none", 0.0), ("all", 0.03)])
def test_l2_on_all_or_nothing_is_the_short_run(part, l2, digits):
    experiment = l2_or_rate.PartExperiment(steps=4, l2=l2, l2_on=part, seed=1)
    plain = few_images.SmallExperiment(norm="BN", steps=4, l2=l2, seed=1)
    ours, theirs = l2_or_rate.trained(experiment, digits), runs.train(plain, digits.train)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_length_that_is_kept_is_kept(digits):
    experiment = l2_or_rate.PartExperiment(steps=3, length=0.5, seed=1)
    torch.manual_seed(1)
    start = l2_or_rate.weights_in(Net("BN"), "convolutions")
    ours = l2_or_rate.weights_in(l2_or_rate.trained(experiment, digits), "convolutions")
    for a, b in zip(ours, start, strict=True):
        assert a.norm().item() == pytest.approx(b.norm().item() / 2)
        assert not torch.allclose(a, b / 2)


# ------------------------------------------------------------------------------- a new domain


def test_the_digits_parts_are_apart_and_whole():
    few = new_domain.digits(0)
    parts = [{x.numpy().tobytes() for x in p.x} for p in (few.train, few.val, few.test)]
    assert [len(p.y) for p in (few.train, few.val, few.test)] == [100, 697, 1_000]
    assert not (parts[0] & parts[2] or parts[0] & parts[1] or parts[1] & parts[2])


@pytest.mark.parametrize("tuning", ["training", "frozen"])
def test_frozen_statistics_stay_and_scales_still_learn(tuning):
    model = Net("BN")
    before = copy.deepcopy(model.state_dict())
    new_domain.tune(model, new_domain.Setting(tuning=tuning, epochs=1), 0, new_domain.digits(0))
    after = model.state_dict()
    assert torch.equal(before["features.1.running_mean"], after["features.1.running_mean"]) == (
        tuning == "frozen"
    )
    assert not torch.equal(before["features.1.weight"], after["features.1.weight"])


# ----------------------------------------------------------------------------- pre and post norm


def test_each_layer_starts_from_weights_of_its_own_and_post_norm_ends_standardized():
    torch.manual_seed(0)
    model = pre_post_norm.RowTransformer(pre_post_norm.Setting("post", depth=2))
    first, second = (layer.linear1.weight for layer in model.layers)
    assert not torch.equal(first, second)
    tokens = model.layers(torch.randn(2, 28, 32))
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, 28), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.var(-1, correction=0), torch.ones(2, 28), atol=1e-3, rtol=0)


# ----------------------------------------------------------------------------- scale and angle


def test_scale_free_beta_does_not_see_the_length_of_the_weights(digits):
    torch.manual_seed(0)
    model = Net("BN").double()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 1e-12
    doubled = copy.deepcopy(model)
    with torch.no_grad():
        for p in doubled.features.parameters():
            if p.ndim == 4:
                p *= 2
    batch = first_batch(digits, dtype=torch.float64)
    one, two = (smoothness.scale_free_beta(m, *batch) for m in (model, doubled))
    assert two["weight_norm"] == pytest.approx(2 * one["weight_norm"])
    assert two["scale_free_beta"] == pytest.approx(one["scale_free_beta"], rel=1e-4)


def test_a_gradient_stands_at_a_right_angle_unless_sigma_is_detached(digits):
    x, y = first_batch(digits)

    def cosines(norm, projected=False):
        torch.manual_seed(0)
        model = three_layer_cnn(norm)
        convolutions = [layer for layer in model if isinstance(layer, nn.Conv2d)]
        nn.functional.cross_entropy(model(x), y).backward()
        for convolution in convolutions if projected else ():
            sigma_detached.project(convolution)
        return [abs(c) for c in sigma_detached.lengths_and_cosines(convolutions)[1]]

    assert max(cosines("LN-simple")) < 1e-3
    assert min(cosines("σ detached")) > 0.01
    assert max(cosines("σ detached", projected=True)) < 1e-5


# ------------------------------------------------------------------------------------- the rest


def test_batch_statistics_are_looked_at_without_changing_the_run(digits):
    setting = faster_batch_statistics.Setting(lr=0.3, max_steps=30, check_every=10)
    found = faster_batch_statistics.measure(setting, 0, digits)
    plain = faster.Setting("sigmoid MLP", lr=0.3, max_steps=30, check_every=10)
    assert found["accuracy"] == faster.measure(plain, 0, digits)["accuracy"]
    assert found["batch_accuracy"] != found["accuracy"]


def test_fashions_ghosts_share_all_but_the_norm():
    two, whole, gn = fashion.ghosts().values()
    assert replace(two, norm_batch=32) == whole and two.norm_batch == 2
    assert (gn.norm, gn.batch_size, gn.lr) == ("GN", two.batch_size, two.lr)


# ------------------------------------------------------------------------- lengths, long and short


def test_steadiness_is_fits_run_looked_at_in_two_ways(digits):
    (experiment,) = steadiness.settings().values()
    experiment = replace(experiment, epochs=3, lr=0.002)
    found = steadiness.measure(experiment, 4, digits)
    run = fit(replace(experiment, seed=4), digits, device="cpu")
    assert found["running_accuracy"] == run.history["test_accuracy"]
    for layer in run.model.modules():  # the oracle: all images in one batch, training mode
        if isinstance(layer, nn.BatchNorm2d):
            layer.train().momentum = 1.0
    run.model(first_batch(digits, len(digits.train))[0])
    assert found["precise_accuracy"][-1] == pytest.approx(
        evaluate(run.model, digits.test)[1], abs=0.01
    )
    assert found["precise_accuracy"] != found["running_accuracy"]


def test_ten_epochs_are_scored_on_images_that_were_kept_apart(digits, monkeypatch):
    seen, setting = [], very_deep.Setting("BN", 5, epochs=1, images=10_000)
    monkeypatch.setattr(
        very_deep, "evaluate", lambda model, images: seen.append(images) or (0, len(images))
    )
    monkeypatch.setattr(very_deep, "trained", lambda setting, seed, images: seen.append(images))
    found = very_deep.measure_ten(setting, 0, digits)
    trained_on, validation, test = seen
    assert len(trained_on) + len(validation) == len(digits.train) and test is digits.test
    assert found == {"val_accuracy": len(validation), "test_accuracy": len(test)}
    assert {s.epochs for s in very_deep.ten_epochs().values()} == {10}


def test_lengths_differ_in_the_epochs_alone():
    found = list(three_experiments.lengths().values())
    assert [e.epochs for e in found] == [20, 16] * 3
    assert [replace(e, epochs=20) for e in found[1::2]] == found[::2]
