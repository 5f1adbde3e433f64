"""evidence.statistics against SciPy, NumPy and simulation: intervals, error rates, verdicts."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from backstage.evidence import statistics
from backstage.evidence.statistics import (
    ALPHA,
    CONTRADICTED,
    NOT_DETECTED,
    NOT_SHOWN,
    SHOWN,
    SUPPORTED,
)

pytestmark = pytest.mark.usefixtures("quick_statistics")

SEEDS = 10
TRIALS = 200
MANY = 500  # of what is quick
PAIRS = {"x": ("A", "B"), "y": ("A", "C"), "z": ("A", "D")}


def studies(effect, trials=TRIALS, seed=0, sd=0.085):
    """Tables of paired runs in which A exceeds B, C and D by the effect.

    What a seed does to all settings alike is ten times as large as what it does to each.
    """
    generator = np.random.default_rng(seed)
    for _ in range(trials):
        own = generator.normal(0, sd / 2**0.5, (SEEDS, 4))
        shared = generator.normal(99.4, 10 * sd, (SEEDS, 1))
        yield pd.DataFrame(shared + own + [effect, 0, 0, 0], columns=list("ABCD"))


def at_most(count, rate, trials=TRIALS):
    """Whether a count is what the rate, or a lower one, gives by chance, all but once in 10,000."""
    return count <= stats.binom.ppf(0.9999, trials, rate)


def at_least(count, rate, trials=TRIALS):
    return count >= stats.binom.ppf(0.0001, trials, rate)


# ---------------------------------------------------------------------------------- one effect


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_cover_at_their_nominal_rate(confidence):
    effects = [
        statistics.paired_effect(t["A"], t["B"], confidence) for t in studies(0.07, trials=MANY)
    ]
    covered = sum(e.low <= 0.07 <= e.high for e in effects)
    assert at_most(covered, confidence, MANY) and at_least(covered, confidence, MANY)


def test_p_is_below_alpha_as_often_as_it_says_where_nothing_is_there():
    found = sum(statistics.paired_effect(t["A"], t["B"]).p < ALPHA for t in studies(0, trials=MANY))
    assert at_most(found, ALPHA, MANY) and at_least(found, ALPHA, MANY)


def test_a_paired_effect_is_students_by_hand():
    a, b = np.array([99.41, 99.38, 99.52, 99.44]), np.array([99.36, 99.40, 99.41, 99.35])
    effect = statistics.paired_effect(a, b)
    d = a - b
    mean = d.sum() / 4
    error = np.sqrt(((d - mean) ** 2).sum() / 3) / 2
    assert effect.mean == pytest.approx(mean, abs=1e-12)
    assert effect.low == pytest.approx(mean - stats.t.ppf(0.975, 3) * error, abs=1e-12)
    assert effect.high == pytest.approx(mean + stats.t.ppf(0.975, 3) * error, abs=1e-12)
    assert effect.p == pytest.approx(2 * stats.t.sf(mean / error, 3), abs=1e-12)
    assert effect.seeds == 4
    back = statistics.paired_effect(b, a)
    assert (back.mean, back.low, back.high) == pytest.approx(
        (-effect.mean, -effect.high, -effect.low)
    )
    assert back.p == pytest.approx(effect.p)


def test_an_effect_reads_as_mean_and_interval():
    assert str(statistics.Effect(0.05, -0.01, 0.11, 0.08, 10)) == "+0.050 [-0.010, +0.110]"


@pytest.mark.parametrize("gap, p", [(0.0, 1.0), (0.02, 0.0), (-0.02, 0.0)])
def test_constant_differences_have_an_interval_without_width(gap, p):
    """As accuracies in percent they are constant but for rounding, which is no evidence."""
    b = 100 * np.array([0.9937, 0.9941, 0.9929])
    effect = statistics.paired_effect(b + gap, b)
    assert effect.low == effect.high == effect.mean == pytest.approx(gap, abs=1e-9)
    assert effect.p == p
    expected = NOT_DETECTED if gap == 0 else SUPPORTED if gap > 0 else CONTRADICTED
    assert statistics.verdict(effect) == expected
    assert statistics.p_equivalent(b + gap, b, 0.1) == 0
    assert statistics.p_equivalent(b + gap + 0.2, b, 0.1) == 1


@pytest.mark.parametrize(
    "a, b, message",
    [
        ([1, 2, 3], [1, 2], "same length"),
        ([1], [1], "at least 2"),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]], "two series"),
        ([1, 2, np.nan], [1, 2, 3], "leave out that seed"),
        ([1, 2, np.inf], [1, 2, 3], "leave out that seed"),
    ],
)
def test_series_that_are_no_pairs_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        statistics.paired_effect(a, b)
    with pytest.raises(ValueError, match=message):
        statistics.p_equivalent(a, b, 0.1)


@pytest.mark.parametrize("margin", [0, -0.1, float("nan")])
def test_a_margin_that_is_not_positive_is_refused(margin):
    with pytest.raises(ValueError, match="margin"):
        statistics.p_equivalent([1, 2, 3], [1, 2, 4], margin)


# -------------------------------------------------------------------------------- equivalence


def test_equivalence_is_an_interval_of_90_percent_inside_the_margin():
    for table in studies(0.05, trials=100):
        inner = statistics.paired_effect(table["A"], table["B"], confidence=1 - 2 * ALPHA)
        inside = -0.1 < inner.low and inner.high < 0.1
        assert inside == (statistics.p_equivalent(table["A"], table["B"], 0.1) < ALPHA)


@pytest.mark.parametrize("edge", [0.1, -0.1])
def test_at_the_margins_edge_equivalence_is_found_at_its_error_rate(edge):
    wrong = sum(statistics.p_equivalent(t["A"], t["B"], 0.1) < ALPHA for t in studies(edge))
    assert at_most(wrong, ALPHA)


def test_well_inside_the_margin_equivalence_is_found():
    found = sum(statistics.p_equivalent(t["A"], t["B"], 0.1) < ALPHA for t in studies(0))
    assert at_least(found, 0.85)


# ---------------------------------------------------------------------------------- a family


def verdicts(tables, judge=statistics.contrasts, **options):
    return [list(judge(table, PAIRS, **options)["verdict"]) for table in tables]


def test_where_nothing_is_there_a_family_finds_something_at_its_error_rate():
    found = verdicts(studies(0))
    assert at_most(sum(set(v) != {NOT_DETECTED} for v in found), ALPHA)
    assert at_most(sum(SUPPORTED in v for v in found), ALPHA / 2)
    assert at_most(sum(CONTRADICTED in v for v in found), ALPHA / 2)


def test_without_a_correction_it_would_not():
    """Twenty contrasts at p < 0.05 each: the simulation can tell."""
    generator = np.random.default_rng(0)
    fooled = 0
    for _ in range(30):
        table = pd.DataFrame(generator.normal(0, 1, (SEEDS, 40)))
        pairs = {str(i): (i, i + 20) for i in range(20)}
        family = statistics.contrasts(table, pairs)
        fooled += (family["p"] < ALPHA).any()
        assert (family["p_holm"] >= family["p"]).all()
    assert not at_most(fooled, ALPHA, 30)


@pytest.mark.parametrize("effect, expected", [(0.3, SUPPORTED), (-0.3, CONTRADICTED)])
def test_what_is_there_is_found_in_its_direction(effect, expected):
    found = list(itertools.chain(*verdicts(studies(effect, trials=50))))
    assert at_least(found.count(expected), 0.99, len(found))
    assert set(found) <= {expected, NOT_DETECTED}


def holm(ps):
    """The smallest of m p values times m, the next times m - 1, ..., never falling, at most 1."""
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(np.argsort(ps)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = highest
    return pytest.approx(corrected, abs=1e-9)


def test_holm_is_as_by_hand():
    for table in studies(0.05, trials=20):
        found = statistics.contrasts(table, PAIRS, margin=0.1)
        ps = [stats.ttest_rel(table[a], table[b]).pvalue for a, b in PAIRS.values()]
        assert list(found["p"]) == pytest.approx(ps, abs=1e-9)
        assert list(found["p_holm"]) == holm(ps)
        assert list(found.index) == list(PAIRS)


def test_holm_can_withdraw_support():
    """p is 0.03 for each difference by itself, and 0.09 for each of the three."""
    d = stats.norm.ppf((np.arange(SEEDS) + 0.5) / SEEDS)
    d *= stats.t.ppf(0.985, SEEDS - 1) ** -1 * np.sqrt(SEEDS) / d.std(ddof=1)
    table = pd.DataFrame({"A": 1 + d, "B": 0.0, "C": 1 + d[::-1], "D": 0.0})
    pairs = {"x": ("A", "B"), "y": ("C", "D"), "z": ("A", "D")}
    found = statistics.contrasts(table, pairs)
    assert list(found["p"]) == pytest.approx([0.03] * 3)
    assert list(found["verdict"]) == [NOT_DETECTED] * 3
    assert list(statistics.contrasts(table, {"x": pairs["x"]})["verdict"]) == [SUPPORTED]


def test_a_verdict_goes_by_the_corrected_p():
    effect = statistics.Effect(0.1, 0.01, 0.19, 0.03, 10)
    assert statistics.verdict(effect) == SUPPORTED
    assert statistics.verdict(effect, p=0.09) == NOT_DETECTED
    assert statistics.verdict(effect, p=float("nan")) == NOT_DETECTED


def test_all_of_is_no_better_than_its_worst():
    for parts in itertools.product((SUPPORTED, NOT_DETECTED, CONTRADICTED), repeat=2):
        worst = next(v for v in (CONTRADICTED, NOT_DETECTED, SUPPORTED) if v in parts)
        assert statistics.all_of(parts) == worst
    assert statistics.all_of([SHOWN, NOT_SHOWN, SHOWN]) == NOT_SHOWN
    assert statistics.all_of([SHOWN, SHOWN]) == SHOWN


def test_a_missing_run_leaves_out_its_seed_and_withholds_support():
    table = next(studies(0.3))
    table.loc[3, "C"] = np.nan
    found = statistics.contrasts(table, PAIRS)
    assert list(found["verdict"]) == [NOT_DETECTED] * 3 and set(found["left_out"]) == {1}
    oracle = stats.ttest_rel(table["A"].drop(3), table["B"].drop(3))
    assert found.loc["x", "p"] == pytest.approx(oracle.pvalue)
    against = statistics.contrasts(-table, PAIRS)  # a failed run does not save a claim either
    assert list(against["verdict"]) == [CONTRADICTED] * 3
    with pytest.raises(ValueError, match="at least 2"):
        statistics.contrasts(table.drop(columns="A"), PAIRS)


def test_a_seed_is_decisive_if_the_verdict_changes_without_it():
    d = np.array([0.9, 1.0, 1.1, 1.0, 0.9, 1.1, -1.5])
    table = pd.DataFrame({"A": d, "B": 0.0})
    p = [stats.ttest_1samp(np.delete(d, i), 0).pvalue for i in range(len(d))]
    p_all = stats.ttest_1samp(d, 0).pvalue
    expected = [i for i in range(len(d)) if (p[i] < ALPHA) != (p_all < ALPHA)]
    assert statistics.decisive_seeds(table, {"x": ("A", "B")}) == {"x": expected} == {"x": [6]}


def test_the_signs_test_is_as_by_going_through_all_patterns():
    for table in studies(0.05, trials=5):
        d = (table["A"].round(2) - table["B"].round(2)).to_numpy()  # as accuracies are: with ties
        patterns = np.array(list(itertools.product((1, -1), repeat=SEEDS)))
        as_far = abs((patterns * d).mean(axis=1)) >= abs(d.mean()) - 1e-9
        assert statistics.p_of_signs(d) == pytest.approx(as_far.mean())


# ---------------------------------------------------------------------------- claims of sameness


def same(effect, trials, **how):
    found = (statistics.equivalences(t, PAIRS, 0.1) for t in studies(effect, trials, **how))
    return [list(f["verdict"]) for f in found]


@pytest.mark.parametrize("edge", [0.1, -0.1])
def test_at_the_margin_sameness_is_shown_at_its_error_rate(edge):
    found = same(edge, 80)
    assert at_most(sum(statistics.all_of(v) == SHOWN for v in found), ALPHA, 80)
    assert at_most(sum(v[0] == SHOWN for v in found), ALPHA, 80)


def test_sameness_is_shown_of_what_stays_and_not_of_what_moves():
    stays = list(itertools.chain(*same(0, 25)))
    assert at_least(stays.count(SHOWN), 0.85, 75)
    assert set(itertools.chain(*same(0.4, 10), *same(-0.4, 10))) == {NOT_SHOWN}
    assert same(0, 10, sd=3.0).count([NOT_SHOWN] * 3) == 10  # the seeds cannot tell


def test_sameness_goes_by_the_90_percent_interval_and_the_widest_is_named():
    table = next(studies(0.05))
    found = statistics.equivalences(table, PAIRS, 0.1)
    for name, (a, b) in PAIRS.items():
        low, high = stats.ttest_rel(table[a], table[b]).confidence_interval(0.9)
        assert (found.loc[name, "low"], found.loc[name, "high"]) == pytest.approx((low, high))
        assert (found.loc[name, "verdict"] == SHOWN) == (-0.1 < low and high < 0.1)
    reach = found[["low", "high"]].abs().max(axis=1)
    assert statistics.widest(found).name == max(PAIRS, key=lambda name: reach[name])


def test_sameness_is_not_shown_if_a_run_failed():
    table = next(studies(0))
    table.loc[3, "B"] = np.nan
    found = statistics.equivalences(table, PAIRS, 0.3)
    assert list(found["verdict"]) == [NOT_SHOWN, SHOWN, SHOWN]
    assert list(found["left_out"]) == [1, 0, 0] and list(found["seeds"]) == [9, 10, 10]


# ------------------------------------------------------------------------ probability of being best


def test_probability_best_is_as_by_going_through_all_draws():
    generator = np.random.default_rng(0)
    table = pd.DataFrame(generator.integers(0, 4, (5, 3)), columns=list("ABC"))  # many ties
    wins = dict.fromkeys(table, 0.0)
    for draw in itertools.product(*(table[c] for c in table)):
        winners = [c for c, v in zip(table, draw, strict=True) if v == max(draw)]
        for winner in winners:
            wins[winner] += 1 / len(winners) / 5**3
    shares = statistics.probability_best(table)
    assert shares.to_dict() == pytest.approx(wins)
    assert shares.sum() == pytest.approx(1)


def test_probability_best_knows_the_sure_winner_and_the_even_match():
    table = pd.DataFrame({"A": [3.0, 4.0], "B": [1.0, 2.0], "C": [1.0, 2.0]})
    assert statistics.probability_best(table).to_dict() == {"A": 1, "B": 0, "C": 0}
    assert statistics.probability_best(table[["B", "C"]]).to_dict() == {"B": 0.5, "C": 0.5}


def test_probability_best_refuses_a_missing_run():
    with pytest.raises(ValueError, match="missing"):
        statistics.probability_best(pd.DataFrame({"A": [1.0, np.nan], "B": [1.0, 2.0]}))


# --------------------------------------------------------------------------------------- reading


def test_readable_shows_what_a_verdict_goes_by():
    table = next(studies(0.3))
    shown = statistics.readable(statistics.contrasts(table, PAIRS, margin=0.1))
    d = table["A"] - table["B"]
    assert shown.loc["x", "mean"] == f"{d.mean():+.3f}"
    low, high = stats.ttest_rel(table["A"], table["B"]).confidence_interval()
    assert shown.loc["x", "95% interval"] == f"{low:+.3f} to {high:+.3f}"
    assert shown.loc["x", "p (Holm)"] == "< 0.001" and shown.loc["x", "p, equivalent"] == "1.000"
    assert list(shown["verdict"]) == [SUPPORTED] * 3 and set(shown["seeds"]) == {SEEDS}
    shown = statistics.readable(statistics.equivalences(table, PAIRS, 0.1))
    low, high = stats.ttest_rel(table["A"], table["B"]).confidence_interval(0.9)
    assert shown.loc["x", "90% interval"] == f"{low:+.3f} to {high:+.3f}"


def test_logarithms_read_as_ratios():
    table = np.log(pd.DataFrame({"A": [2.0, 2.2, 1.8], "B": [1.0, 1.0, 1.0]}))
    found = statistics.readable(statistics.contrasts(table, {"A / B": ("A", "B")}), ratio=True)
    assert found.loc["A / B", "ratio"] == f"{stats.gmean([2.0, 2.2, 1.8]):.2f}×"


@pytest.mark.parametrize(
    "ratio, text",
    [(0.081, "0.08×"), (1.634, "1.63×"), (999, "999.00×"), (5_432, "5,000×"), (96_000, "100,000×"),
     (4e39, "4·10³⁹×"), (np.inf, "inf×")],
)  # fmt: skip
def test_ratios_are_read_without_an_exponent_of_the_computer_s(ratio, text):
    assert statistics.times(ratio) == text
