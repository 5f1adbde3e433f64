"""What the measures of penalties compute, against torch and closed forms."""

import json
from collections import defaultdict

import numpy as np
import pytest
import scaling
import torch
import torch.nn.functional as F
from conftest import ROOT
from torch import nn

import utils
from backstage.evidence.measures import (
    equilibrium,
    few_images,
    matched_rate,
    penalty_path,
    runs,
    sparsity,
)
from s6_model import Net, penalized

# ------------------------------------------------------------------------------------ training


def test_a_short_run_is_adam_with_weight_decay_on_the_weights(digits):
    experiment = runs.ShortExperiment(norm="GN", l2=0.03, steps=6, seed=2)
    found = runs.train(experiment, digits.train)
    torch.manual_seed(2)
    model = Net("GN")
    weights = penalized(model)
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": weights, "weight_decay": 0.03}, {"params": others}]
    optimizer = torch.optim.Adam(groups, 0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, 6)
    for x, y in list(utils.batches(digits.train, experiment, 1))[:6]:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()
    for a, b in zip(found.parameters(), model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_counts_are_numpys_and_lose_nothing():
    values = np.array([-5.0, -0.5, 0.0, 0.01, 0.5, 7.0])
    found = penalty_path.counts(values, penalty_path.LINEAR)
    inside = np.histogram(values[1:-1], penalty_path.LINEAR)[0]
    inside[[0, -1]] += 1
    assert found == inside.tolist() and sum(found) == len(values)
    assert found[len(found) // 2] == 2  # 0 and 0.01 share the bin in the middle


def test_what_a_row_says_of_the_weights():
    model = Net("BN")
    for p in penalized(model):
        nn.init.constant_(p, 0.5)
    model.head.weight.data.zero_()
    found, share = penalty_path.described(model), 160 / 7648
    assert found["zeros"] == found["below_1e-3"] == pytest.approx(share)
    assert found["mean_size"] == pytest.approx(0.5 * (1 - share))
    assert np.array(found["filters"]).shape == (8, 6, 6)
    assert found["log_histogram"][0] == 160 and sum(found["log_histogram"]) == 7648


# ------------------------------------------------------------------------------------ sparsity


def test_the_soft_threshold_is_torchs_and_the_least_of_its_objective():
    w = torch.linspace(-2, 2, 41, dtype=torch.double)
    u = torch.linspace(-3, 3, 6001, dtype=torch.double)
    best = u[(0.5 * (u - w[:, None]) ** 2 + 0.3 * u.abs()).argmin(dim=1)]
    found = sparsity.soft_threshold(w, 0.3)
    assert torch.allclose(found, F.softshrink(w, 0.3), atol=1e-12)
    assert torch.allclose(found, best, atol=2e-3)


@pytest.mark.parametrize("proximal", [True, False])
def test_a_step_of_l1_is_the_textbooks(proximal, digits):
    experiment = sparsity.SparseExperiment(norm="GN", l1=0.05, proximal=proximal, steps=1)
    found = sparsity.train_sparse(experiment, digits)
    torch.manual_seed(0)
    model = Net("GN")
    x, y = next(iter(utils.batches(digits.train, experiment, 1)))
    F.cross_entropy(model(x), y).backward()
    for a, p in zip(found.parameters(), model.parameters(), strict=True):
        moved = p.detach() - 0.3 * p.grad
        if p.ndim >= 2:
            by = 0.3 * 0.05
            moved = F.softshrink(moved, by) if proximal else moved - by * p.detach().sign()
        assert torch.allclose(a, moved, atol=1e-5)
    assert ((runs.weights(found) == 0).any()).item() == proximal


def test_pruning_takes_the_smallest_weights_of_the_network():
    torch.manual_seed(0)
    model = Net("GN")
    before = runs.weights(model).clone()
    after = runs.weights(sparsity.pruned(model, 0.7))
    gone = after == 0
    assert gone.double().mean() == pytest.approx(0.7, abs=1e-3)
    assert before[gone].abs().max() < before[~gone].abs().min()
    assert torch.equal(after[~gone], before[~gone])
    assert torch.equal(runs.weights(model), before)


# -------------------------------------------------------------------------------- under a norm


@pytest.mark.parametrize("norm", ["BN", "LN", "GN"])
def test_under_a_norm_larger_weights_and_rates_are_the_same_run(norm):
    assert scaling.apart(norm, "SGD", times_lr=4) <= 1e-10
    assert scaling.apart(norm, "Adam", times_lr=2) <= 1e-6
    assert scaling.apart(norm, "SGD", times_lr=2) > 1e-3 < scaling.apart(norm, "Adam", times_lr=4)


def test_without_a_norm_they_are_not():
    assert scaling.apart("none", "SGD", 4) > 1e-3 < scaling.apart("none", "Adam", 2)


def test_l2_under_a_norm_is_a_rate_that_grows():
    """In float64, the head left out, and next to no ε."""
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(16, 1, 20, 20, generator=generator).double(), torch.arange(16) % 10)]
    outputs = []
    for setting in (
        matched_rate.Setting(l2=0.05, steps=20),
        matched_rate.Setting(matched=0.05, steps=20),
        matched_rate.Setting(steps=20),
    ):
        torch.manual_seed(0)
        model = Net("BN").double()
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps = 1e-30
        model.head.weight.requires_grad_(False)
        matched_rate.trained_at(setting, model, iter(batches * 20))
        outputs.append(model(batches[0][0]).detach())
    l2, matched, none = outputs
    assert (l2 - matched).abs().max() < 1e-9 < 1e-3 < (l2 - none).abs().max()


def test_angles_are_right_when_they_are_tiny():
    for phi in (1e-7, 1e-3, 1.0):
        a, b = torch.tensor([3.0, 0.0]).double(), torch.tensor([np.cos(phi), np.sin(phi)])
        assert equilibrium.angle(a, b).item() == pytest.approx(phi, rel=1e-6)


def test_weights_turn_by_the_formula(digits):
    found = equilibrium.measure(equilibrium.Setting(0.1, 0.2), 0, digits)["angle"]
    assert found == pytest.approx(0.2, rel=0.25)  # √(2 · 0.1 · 0.2)


# ---------------------------------------------------------------------------------- few images


def test_each_seed_draws_images_of_its_own(digits):
    one, other = (few_images.drawn(digits, 200, seed) for seed in (0, 1))
    assert len(one.train) == 200 and not torch.equal(one.train.x, other.train.x)
    pixels = {tuple(x.flatten().tolist()) for x in one.train.x}
    assert not any(tuple(x.flatten().tolist()) in pixels for x in one.val.x)
    assert one.train.y.bincount().min() >= 17


def test_the_strengths_for_few_images_are_those_that_the_validation_images_chose():
    rows = [json.loads(s) for s in (ROOT / "results" / "few_images_tune.jsonl").open()]
    assert {row["seed"] for row in rows} == {0, 1}
    for name, strengths in few_images.CHOSEN.items():
        norm, penalty = name.split(", ")
        for size, strength in zip(few_images.SIZES, strengths, strict=True):
            losses = defaultdict(list)
            for row in rows:
                if (row["norm"], row["size"]) == (norm, size) and row[penalty.lower()]:
                    losses[row[penalty.lower()]].append(row["val_loss"])
            assert len(losses) == 5 and strength == min(losses, key=lambda k: sum(losses[k]))


@pytest.mark.parametrize("norm", ["BN", "LN", "GN"])
def test_under_a_norm_l2_is_a_rate(norm):
    matched, unmatched = scaling.unmatched(norm)
    assert matched <= 1e-12 < 1e-2 < unmatched


def test_without_a_norm_no_rate_replaces_l2():
    assert scaling.unmatched("none")[0] > 1e-4
