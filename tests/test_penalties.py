"""What the measures of penalties compute, against torch, closed forms and plain SciPy."""

import json
from collections import defaultdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from scipy import stats
from torch import nn

import utils
from backstage.evidence import grids, results, scaling, sentences
from backstage.evidence.claim import judge, judged_lines
from backstage.evidence.claimed import penalties
from backstage.evidence.measures import (
    equilibrium,
    few_images,
    matched_rate,
    penalty_path,
    short,
    sparsity,
)
from backstage.evidence.statistics import CONTRADICTED, NOT_DETECTED, NOT_SHOWN, SHOWN, SUPPORTED
from s6_model import Net, penalized

pytestmark = pytest.mark.usefixtures("quick_statistics")


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("penalty_path", 4 * (1 + 9 + 9)),
        ("sparsity", 3),
        ("equilibrium", 5),
        ("matched_rate", 3),
        ("few_images", 4 * (3 * 4 + 2)),
        ("few_images_tune", 4 * 3 * 2 * 5),
    ],
)
def test_each_setting_is_there_once(name, rows):
    settings = grids.GRIDS[name].settings
    assert len(settings) == len(set(settings.values())) == rows


# ------------------------------------------------------------------------------------ training


def test_a_short_run_is_adam_with_weight_decay_on_the_weights(digits):
    experiment = short.ShortExperiment(norm="GN", l2=0.03, steps=6, seed=2)
    found = short.train(experiment, digits.train)
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
    assert ((short.weights(found) == 0).any()).item() == proximal


def test_pruning_takes_the_smallest_weights_of_the_network():
    torch.manual_seed(0)
    model = Net("GN")
    before = short.weights(model).clone()
    after = short.weights(sparsity.pruned(model, 0.7))
    gone = after == 0
    assert gone.double().mean() == pytest.approx(0.7, abs=1e-3)
    assert before[gone].abs().max() < before[~gone].abs().min()
    assert torch.equal(after[~gone], before[~gone])
    assert torch.equal(short.weights(model), before)


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


# ------------------------------------------------------- verdicts: on made-up rows, then stored


def sparse_rows(zeros=30.0, kept=20.0, seeds=6):
    """Proximal L1 has so many percent of zeros, and each way keeps more than the one before."""
    generator, order = np.random.default_rng(0), ["no penalty", "subgradient", "proximal"]
    for task in grids.tasks("sparsity", seeds):
        noise = generator.normal(0, 0.5)
        row = results.identity(task) | {"status": "ok", "test_accuracy": 0.95, "below_1e-3": 0.1}
        row |= {"zeros": 0.0 if task.setting != "proximal" else (zeros + noise) / 100}
        row |= {"pruned_50": 0.9, "pruned_70": 0.8}
        yield row | {"pruned_90": (40 + kept * order.index(task.setting) + noise) / 100}


@pytest.mark.parametrize(
    "kept, expected", [(20, SUPPORTED), (-15, CONTRADICTED), (0, NOT_DETECTED)]
)
def test_the_verdicts_on_pruning_follow_what_is_kept(tmp_path, kept, expected):
    results.write_rows(tmp_path / "sparsity.jsonl", sparse_rows(kept=kept))
    claims = [c for c in penalties.CLAIMS if c.family == penalties.SPARSITY]
    assert list(judge(claims, tmp_path)["verdict"]) == [SUPPORTED, expected, expected]
    line = penalties.never_zero(tmp_path)
    assert line.verdict == SUPPORTED and line.effect.startswith("0.00% at most (proximal: 29.")


def test_zeros_by_subgradient_would_contradict(tmp_path):
    rows = [r | {"zeros": 0.2} for r in sparse_rows()]
    results.write_rows(tmp_path / "sparsity.jsonl", rows)
    assert penalties.never_zero(tmp_path).verdict == CONTRADICTED


@pytest.mark.parametrize("off, expected", [(1.0, SHOWN), (1.2, NOT_SHOWN)])
def test_the_verdict_on_the_angle_follows_the_formula(tmp_path, off, expected):
    rows = [
        results.identity(t)
        | {"status": "ok", "angle": off * (1 + 0.001 * t.seed) * (2 * s.lr * s.l2) ** 0.5}
        for t in grids.tasks("equilibrium", 3)
        for s in [grids.GRIDS["equilibrium"].settings[t.setting]]
    ]
    results.write_rows(tmp_path / "equilibrium.jsonl", rows)
    line = penalties.equilibrium(tmp_path)
    assert line.verdict == expected and line.effect.startswith(f"{off:.2f}×")


@pytest.mark.parametrize("points, expected", [(0.0, SHOWN), (1.0, NOT_SHOWN)])
def test_the_verdict_on_the_matched_rate(tmp_path, points, expected):
    generator, rows = np.random.default_rng(0), []
    for task in grids.tasks("matched_rate", 10):
        better = points if task.setting == "L2" else 0.0
        accuracy = (95 + better + generator.normal(0, 0.1)) / 100
        rows.append(results.identity(task) | {"status": "ok", "test_accuracy": accuracy})
    results.write_rows(tmp_path / "matched_rate.jsonl", rows)
    assert penalties.only_a_rate(tmp_path).verdict == expected


def test_a_sentence_of_sameness_follows_its_verdict():
    row = {"mean": 0.1, "low": -0.1, "high": 0.3, "verdict": SHOWN}
    said = "A is the same as B within ±0.5 points: +0.100 [-0.100, +0.300] points (90% interval)."
    assert sentences.same(row, "A", "B", "±0.5 points") == said
    said = sentences.same(row | {"verdict": NOT_SHOWN}, "A", "B", "±10%", ratio=True)
    assert said.startswith("A is not shown to be the same as B within ±10%: 1.11× [0.90, 1.35]")


def stored(name, setting, value):
    """One value per seed, in the order of the seeds, from the file itself."""
    lines = (ROOT / "results" / f"{name}.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["setting"] == setting]
    return np.array([value(row) for row in sorted(rows, key=lambda row: row["seed"])])


def inside(difference, margin):
    low = stats.ttest_1samp(difference, -margin, alternative="greater").pvalue
    high = stats.ttest_1samp(difference, margin, alternative="less").pvalue
    return max(low, high) < 0.05


def test_the_verdicts_of_sameness_come_out_by_plain_scipy_too():
    l2, matched = (
        stored("matched_rate", setting, lambda row: 100 * row["test_accuracy"])
        for setting in ("L2", "no L2, matched rate")
    )
    expected = SHOWN if inside(l2 - matched, 0.5) else NOT_SHOWN
    assert penalties.only_a_rate().verdict == expected

    def log_ratio(row):
        return np.log(row["angle"] / (2 * row["lr"] * row["l2"]) ** 0.5)

    ratios = [stored("equilibrium", s, log_ratio) for s in grids.GRIDS["equilibrium"].settings]
    expected = SHOWN if all(inside(r, np.log(1.1)) for r in ratios) else NOT_SHOWN
    assert penalties.equilibrium().verdict == expected


def test_the_verdicts_of_the_claims_come_out_by_plain_scipy_too():
    def percent(column):
        return lambda row: 100 * row[column]

    def difference(grid, column, a, b):
        return stored(grid, a, percent(column)) - stored(grid, b, percent(column))

    sparse = [
        difference("sparsity", "zeros", "proximal", "subgradient"),
        difference("sparsity", "pruned_90", "subgradient", "no penalty"),
        difference("sparsity", "pruned_90", "proximal", "subgradient"),
    ]
    effect = [difference("matched_rate", "test_accuracy", "L2", "no L2")]
    few, rivals = (
        [
            difference("few_images", "test_accuracy", c.a, c.b)
            for c in penalties.CLAIMS
            if c.family == family
        ]
        for family in (penalties.FEW, penalties.RIVALS)
    )
    expected = []
    for family in (sparse, effect, few, rivals):
        p = np.array([stats.ttest_1samp(d, 0).pvalue for d in family])
        order = p.argsort()
        corrected = np.empty(len(p))
        corrected[order] = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
        for d, small in zip(family, corrected < 0.05, strict=True):
            direction = SUPPORTED if d.mean() > 0 else CONTRADICTED
            expected.append(direction if small else NOT_DETECTED)
    assert [line.verdict for line in judged_lines(penalties.CLAIMS)] == expected


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


def few_images_rows(gain):
    """Ten seeds of every setting; whatever is added to a norm gains so many points."""
    generator = np.random.default_rng(0)
    for task in grids.tasks("few_images", 10):
        setting = grids.GRIDS["few_images"].settings[task.setting]
        plain = not (setting.l1 or setting.l2 or setting.augment or setting.dropout)
        points = 90 + task.seed + (0 if plain else gain) + generator.normal(0, 0.01)
        yield results.identity(task) | {"status": "ok", "test_accuracy": points / 100}


@pytest.mark.parametrize("gain, verdict", [(1, SUPPORTED), (-1, CONTRADICTED), (0, NOT_DETECTED)])
def test_the_line_on_few_images_follows_its_rows(tmp_path, gain, verdict):
    results.write_rows(tmp_path / "few_images.jsonl", list(few_images_rows(gain)))
    line = penalties.few_images(tmp_path)
    assert (line.verdict, line.seeds) == (verdict, 10)
    held = 36 if gain == 1 else 0
    assert line.effect.startswith(f"{held} of 36 gains are supported")


@pytest.mark.parametrize("norm", ["BN", "LN", "GN"])
def test_under_a_norm_l2_is_a_rate_and_the_line_says_so(norm):
    matched, unmatched = scaling.unmatched(norm)
    assert matched <= 1e-12 < 1e-2 < unmatched
    assert penalties.same_as_a_rate().verdict == SUPPORTED


def test_without_a_norm_no_rate_replaces_l2():
    assert scaling.unmatched("none")[0] > 1e-4


@pytest.mark.parametrize("matched, unmatched", [(1e-3, 1.0), (1e-15, 1e-13)])
def test_a_run_that_no_rate_replaces_contradicts_the_line(monkeypatch, matched, unmatched):
    monkeypatch.setattr(scaling, "unmatched", lambda norm: (matched, unmatched))
    assert penalties.same_as_a_rate().verdict == CONTRADICTED


@pytest.mark.parametrize(
    "row, text",
    [((0.031, -0.033, 0.095), "+0.031 [-0.033, +0.095] points"),
     ((35.34, 28.418, 42.262), "+35.3 [+28.4, +42.3] points")],
)  # fmt: skip
def test_a_wide_interval_shows_no_digits_that_it_does_not_know(row, text):
    assert sentences.interval(dict(zip(("mean", "low", "high"), row, strict=True))) == text
