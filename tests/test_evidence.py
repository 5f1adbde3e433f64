"""Verdicts with known answers, held against plain SciPy."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from backstage.evidence import judge, judge_same, load, readable, together
from backstage.evidence.seed_plots import plot_differences
from backstage.evidence.verdicts import DIFFERS, NOT_SHOWN, SHOWN, p_of_signs


def table(**columns) -> pd.DataFrame:
    return pd.DataFrame(columns, dtype=float)


NOISE = np.random.default_rng(0).normal(0, 1, (4, 10))
B = NOISE[0]
ARMS = table(b=B, above=B + 2 + NOISE[1] / 4, below=B - 2 + NOISE[2] / 4, same=B + NOISE[3] / 4)
CLAIMS = {"above": ("above", "b"), "below": ("below", "b"), "same": ("same", "b")}


def test_the_three_verdicts():
    found = judge(ARMS, CLAIMS)
    assert list(found["verdict"]) == ["supported", "contradicted", "not detected"]
    assert list(found["seeds"]) == [10] * 3


def test_effects_intervals_and_holms_p_are_scipys():
    found = judge(ARMS, CLAIMS)
    raw = []
    for claim, (a, b) in CLAIMS.items():
        test = stats.ttest_rel(ARMS[a], ARMS[b])
        low, high = test.confidence_interval(0.95)
        assert found.loc[claim, ["mean", "low", "high"]].tolist() == pytest.approx(
            [(ARMS[a] - ARMS[b]).mean(), low, high]
        )
        raw.append(test.pvalue)
    assert list(found["p"]) == pytest.approx(multipletests(raw, method="holm")[1])


def test_ratios_are_compared_by_their_logarithms():
    as_logs = judge(ARMS, CLAIMS)
    as_ratios = judge(np.exp(ARMS), CLAIMS, ratio=True)
    columns = ["mean", "low", "high"]
    assert np.allclose(np.log(as_ratios[columns]), as_logs[columns])
    assert list(as_ratios["verdict"]) == list(as_logs["verdict"])
    assert "×" in readable(as_ratios).iloc[0, 0]
    assert "×" not in readable(as_logs).iloc[0, 0]


def test_a_table_and_a_figure_show_the_interval_that_decides():
    assert "95%" in readable(judge(ARMS, CLAIMS)).columns[0]
    assert "90%" in readable(judge_same(ARMS, CLAIMS, 1.0)).columns[0]
    seeds = pd.DataFrame({"a": [1.0, 2.0, 4.0, 7.0]})
    for confidence in (0.90, 0.95):
        ax = plot_differences(seeds, Figure().subplots(), ["black"], confidence=confidence)
        (bar,) = ax.containers[0].lines[2]
        drawn = bar.get_segments()[0][:, 0]
        expected = stats.ttest_1samp(seeds["a"], 0).confidence_interval(confidence)
        assert drawn == pytest.approx(expected)


def test_nothing_is_supported_if_a_seed_is_missing():
    gap = ARMS.copy()
    gap.loc[3, "above"] = np.nan
    found = judge(gap, CLAIMS)
    assert list(found["verdict"]) == ["not detected", "contradicted", "not detected"]
    assert list(found["seeds"]) == [9] * 3
    assert judge_same(gap, {"": ("above", "b")}, margin=9)["verdict"].item() == NOT_SHOWN


def test_columns_without_a_difference_are_not_told_apart():
    found = judge(ARMS.assign(twin=ARMS["b"]), {"": ("twin", "b")})
    assert found["verdict"].item() == "not detected"


def test_a_verdict_that_the_exact_test_does_not_find_is_fragile():
    d = table(b=np.zeros(10), firm=[1, 1.2, 0.9, 1.1, 1.3, 1, 0.8, 1, 1.1, 0.9], five=0.0)
    d["five"] = [0.35, 0.35, 0.35, 0.35, 0.35, 0, 0, 0, 0, 0]  # exact p = 2/32
    assert stats.ttest_1samp(d["five"], 0).pvalue < 0.05
    for column, fragile in {"firm": False, "five": True}.items():
        assert judge(d, {"": (column, "b")})["fragile"].item() == fragile


def test_the_exact_test_is_scipys_permutation_test():
    for values in NOISE + 0.4:
        exact = stats.permutation_test(
            (values,), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        assert p_of_signs(pd.Series(values)) == pytest.approx(exact.pvalue)


def test_sameness_is_tost_and_has_a_word_for_a_difference():
    claims = {"same": ("same", "b"), "above": ("above", "b"), "b": ("below", "same")}
    found = judge_same(ARMS, claims, margin=0.5)
    assert list(found["verdict"]) == [SHOWN, DIFFERS, DIFFERS]
    for margin in (0.05, 0.1, 0.2, 0.5):
        p = ttost_paired(ARMS["same"], ARMS["b"], -margin, margin)[0]
        verdict = judge_same(ARMS, {"": ("same", "b")}, margin)["verdict"].item()
        assert (verdict == SHOWN) == (p < 0.05)


def test_a_claim_in_parts():
    found = judge(ARMS, CLAIMS)
    assert together(found.loc[["above"]]) == "supported"
    expected = "mixed (supported: above; contradicted: below; not detected: same)"
    assert together(found) == expected


def test_the_detectable_effect_is_found_in_80_of_100_experiments():
    draws = np.random.default_rng(1).normal(0, 1, (4_000, 10))
    size = judge(ARMS, {"": ("same", "b")})["detectable"].item() / NOISE[3].std(ddof=1) * 4
    share = (stats.ttest_1samp(draws + size, 0, axis=1).pvalue < 0.05).mean()
    assert share == pytest.approx(0.8, abs=0.02)


def test_intervals_cover_and_families_rarely_err():
    rng, covered, erred = np.random.default_rng(2), [], []
    for _ in range(100):
        drawn = pd.DataFrame(rng.normal(0, 1, (10, 4)), columns=list("abcd"))
        found = judge(drawn, {f"{x} > a": (x, "a") for x in "bcd"})
        covered += list((found["low"] < 0) & (found["high"] > 0))
        erred.append((found["verdict"] != "not detected").any())
    assert 0.92 < np.mean(covered) < 0.98
    assert np.mean(erred) < 0.08


def test_half_a_last_line_is_left_out(tmp_path, capsys):
    row = '{"grid": "x", "seed": 0, "status": "ok", "test_accuracy": 0.9871}\n'
    (tmp_path / "x.jsonl").write_text(row + row.replace("ok", "failed") + row[:30])
    assert load("x", tmp_path)["test_accuracy"].tolist() == [0.9871]
    assert capsys.readouterr().err == "x.jsonl ends in half a line, which is left out.\n"


def test_a_verdict_that_one_seed_decides_is_fragile():
    """Supported, by Student's t and by the signs; without its largest difference it is not."""
    d = pd.Series([0.9, 0.2, 0.7, -0.3, 0.7, 0.1, 0.6, -0.2, 0.5, 0.2])
    p = [stats.ttest_1samp(some, 0).pvalue for some in (d, d.drop(0))]
    assert p[0] < 0.05 < p[1] and p_of_signs(d) < 0.05
    found = judge(pd.DataFrame({"a": d, "b": 0.0}), {"a exceeds b": ("a", "b")})
    assert found["verdict"].iloc[0] == "supported" and found["fragile"].iloc[0]
