"""The verdicts about batch sizes: their error rates, their parts' sum, and runs that failed."""

import numpy as np
import pandas as pd
import pytest

import claims
from claims import CONTRADICTED, NOT_DETECTED, SUPPORTED

pytestmark = pytest.mark.usefixtures("quick_statistics")

BATCHES = (2, 8, 32, 128)
NORMS = ("none", "BN", "LN", "GN")


def results(bn_loss=5.0, average_loss=2.0, gn_loss=0.0, spread=0.1, seeds=10):
    """A grid's rows: norms at their usual accuracy, with known losses at batches of 2."""
    generator = np.random.default_rng(0)
    rows = []
    for norm in NORMS:
        for n in BATCHES:
            for seed in range(seeds):
                loss = {"BN": bn_loss, "GN": gn_loss}.get(norm, 0.0) if n == 2 else 0.0
                precise = 98 - loss + spread * generator.standard_normal()
                running = precise - (average_loss if norm == "BN" and n == 2 else 0.0)
                row = {"setting": f"{norm}, batch {n}", "norm": norm, "seed": seed}
                row |= {"test_accuracy": running / 100, "precise_test_accuracy": precise / 100}
                rows.append(row | {"batch_test_accuracy": precise / 100})
    return pd.DataFrame(rows)


def lines(monkeypatch, table):
    monkeypatch.setattr(claims, "load_results", lambda *_: table)
    return claims.batch_size_claims()


def test_known_effects_are_found(monkeypatch):
    found = lines(monkeypatch, results())
    assert [line.verdict for line in found] == [SUPPORTED] * 5
    assert all(line.seeds == 10 for line in found[1:])


def test_the_opposite_contradicts(monkeypatch):
    found = lines(monkeypatch, results(bn_loss=-1.0, average_loss=0.0, gn_loss=2.0))
    assert [line.verdict for line in found][:4] == [SUPPORTED] + [CONTRADICTED] * 3


def test_no_effect_is_not_detected(monkeypatch):
    found = lines(monkeypatch, results(bn_loss=0.0, average_loss=0.0))
    assert [line.verdict for line in found][2:4] == [NOT_DETECTED] * 2


def test_the_parts_of_bns_loss_sum_to_the_whole():
    found = claims.small_batch_contrasts(claims.small_batch_changes(results(), 2))
    whole, precise, average = found["mean"]
    assert whole == pytest.approx(precise + average, abs=1e-9)
    assert average == pytest.approx(2.0, abs=1e-9)


@pytest.mark.parametrize("scatter", [0.01, 5.0])
@pytest.mark.parametrize("truth", [0.0, 0.3, -0.3])
def test_within_the_margin_is_seldom_called_beyond_it(truth, scatter):
    generator = np.random.default_rng(1)
    draws = truth + scatter * generator.standard_normal((1_000, 10))
    wrong = np.mean([claims.p_beyond(d, np.zeros(10), 0.3) < 0.05 for d in draws])
    assert wrong < 0.07


@pytest.mark.parametrize("truth", [0.3, -0.3])
def test_at_the_margin_the_same_is_seldom_supported(truth):
    generator = np.random.default_rng(2)
    pairs, wrong = {"a − b": ("a", "b")}, 0
    for _ in range(200):
        draw = truth + 0.1 * generator.standard_normal(10)
        table = pd.DataFrame({"a": draw, "b": np.zeros(10)})
        wrong += claims.unmoved(table, pairs, 0.3)["verdict"].item() == SUPPORTED
    assert wrong / 200 < 0.1


def test_beyond_a_margin_of_nothing_is_the_two_sided_test():
    a, b = np.random.default_rng(3).standard_normal((2, 10))
    assert claims.p_beyond(a, b, 0.0) == pytest.approx(claims.paired_effect(a, b).p)
    assert claims.p_beyond([1.0, 1.0], [0.0, 0.0], 0.5) == 0
    assert claims.p_beyond([1.0, 1.0], [0.0, 0.0], 1.5) == 1


@pytest.mark.parametrize("norm", ["GN", "BN"])
def test_a_failed_run_is_left_out_and_withholds_support(monkeypatch, norm):
    table = results()
    failed = (table["setting"] == f"{norm}, batch 2") & (table["seed"] == 3)
    found = lines(monkeypatch, table[~failed])
    assert [line.verdict for line in found[2:]] == [NOT_DETECTED] * 3
    assert [line.seeds for line in found[2:]] == [9] * 3
    assert found[1].verdict == (NOT_DETECTED if norm == "GN" else SUPPORTED)


def test_a_setting_that_failed_throughout_is_refused(monkeypatch):
    table = results()
    with pytest.raises(ValueError, match="at least 2"):
        lines(monkeypatch, table[table["setting"] != "GN, batch 2"])
