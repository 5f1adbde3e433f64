"""claims.py against SciPy, NumPy and simulation: its intervals, error rates, verdicts and table."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import stats

import claims
import sweep
from claims import ALPHA, CONTRADICTED, NOT_DETECTED, SUPPORTED
from sweep import SweepError
from utils import THREE_EXPERIMENTS

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
    effects = [claims.paired_effect(t["A"], t["B"], confidence) for t in studies(0.07, trials=MANY)]
    covered = sum(e.low <= 0.07 <= e.high for e in effects)
    assert at_most(covered, confidence, MANY) and at_least(covered, confidence, MANY)


def test_p_is_below_alpha_as_often_as_it_says_where_nothing_is_there():
    found = sum(claims.paired_effect(t["A"], t["B"]).p < ALPHA for t in studies(0, trials=MANY))
    assert at_most(found, ALPHA, MANY) and at_least(found, ALPHA, MANY)


def test_a_paired_effect_is_students_by_hand():
    a, b = np.array([99.41, 99.38, 99.52, 99.44]), np.array([99.36, 99.40, 99.41, 99.35])
    effect = claims.paired_effect(a, b)
    d = a - b
    mean = d.sum() / 4
    error = np.sqrt(((d - mean) ** 2).sum() / 3) / 2
    assert effect.mean == pytest.approx(mean, abs=1e-12)
    assert effect.low == pytest.approx(mean - stats.t.ppf(0.975, 3) * error, abs=1e-12)
    assert effect.high == pytest.approx(mean + stats.t.ppf(0.975, 3) * error, abs=1e-12)
    assert effect.p == pytest.approx(2 * stats.t.sf(mean / error, 3), abs=1e-12)
    assert effect.seeds == 4
    back = claims.paired_effect(b, a)
    assert (back.mean, back.low, back.high) == pytest.approx(
        (-effect.mean, -effect.high, -effect.low)
    )
    assert back.p == pytest.approx(effect.p)


def test_an_effect_reads_as_mean_and_interval():
    assert str(claims.Effect(0.05, -0.01, 0.11, 0.08, 10)) == "+0.050 [-0.010, +0.110]"


@pytest.mark.parametrize("gap, p", [(0.0, 1.0), (0.02, 0.0), (-0.02, 0.0)])
def test_constant_differences_have_an_interval_without_width(gap, p):
    """As accuracies in percent they are constant but for rounding, which is no evidence."""
    b = 100 * np.array([0.9937, 0.9941, 0.9929])
    effect = claims.paired_effect(b + gap, b)
    assert effect.low == effect.high == effect.mean == pytest.approx(gap, abs=1e-9)
    assert effect.p == p
    expected = NOT_DETECTED if gap == 0 else SUPPORTED if gap > 0 else CONTRADICTED
    assert claims.verdict(effect) == expected
    assert claims.p_equivalent(b + gap, b, 0.1) == 0
    assert claims.p_equivalent(b + gap + 0.2, b, 0.1) == 1


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
def test_refuses_what_are_no_pairs(a, b, message):
    with pytest.raises(ValueError, match=message):
        claims.paired_effect(a, b)
    with pytest.raises(ValueError, match=message):
        claims.p_equivalent(a, b, 0.1)


@pytest.mark.parametrize("margin", [0, -0.1, float("nan")])
def test_refuses_a_margin_that_is_none(margin):
    with pytest.raises(ValueError, match="margin"):
        claims.p_equivalent([1, 2, 3], [1, 2, 4], margin)


# -------------------------------------------------------------------------------- equivalence


def test_equivalence_is_an_interval_of_90_percent_inside_the_margin():
    for table in studies(0.05, trials=100):
        inner = claims.paired_effect(table["A"], table["B"], confidence=1 - 2 * ALPHA)
        inside = -0.1 < inner.low and inner.high < 0.1
        assert inside == (claims.p_equivalent(table["A"], table["B"], 0.1) < ALPHA)


@pytest.mark.parametrize("edge", [0.1, -0.1])
def test_at_the_margins_edge_equivalence_is_found_at_its_error_rate(edge):
    wrong = sum(claims.p_equivalent(t["A"], t["B"], 0.1) < ALPHA for t in studies(edge))
    assert at_most(wrong, ALPHA)


def test_well_inside_the_margin_equivalence_is_found():
    found = sum(claims.p_equivalent(t["A"], t["B"], 0.1) < ALPHA for t in studies(0))
    assert at_least(found, 0.85)


# ---------------------------------------------------------------------------------- a family


def verdicts(tables, judge=claims.contrasts, **options):
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
        family = claims.contrasts(table, pairs)
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
        found = claims.contrasts(table, PAIRS, margin=0.1)
        ps = [stats.ttest_rel(table[a], table[b]).pvalue for a, b in PAIRS.values()]
        assert list(found["p"]) == pytest.approx(ps, abs=1e-9)
        assert list(found["p_holm"]) == holm(ps)
        assert list(found.index) == list(PAIRS)
        beyond = [claims.p_beyond(table[a], table[b], 0.02) for a, b in PAIRS.values()]
        assert list(claims.unmoved(table, PAIRS, 0.02)["p_beyond"]) == holm(beyond)


def test_of_a_family_only_what_stands_the_correction_is_supported():
    """p is 0.03 for each difference by itself, and 0.09 for each of the three."""
    d = stats.norm.ppf((np.arange(SEEDS) + 0.5) / SEEDS)
    d *= stats.t.ppf(0.985, SEEDS - 1) ** -1 * np.sqrt(SEEDS) / d.std(ddof=1)
    table = pd.DataFrame({"A": 1 + d, "B": 0.0, "C": 1 + d[::-1], "D": 0.0})
    pairs = {"x": ("A", "B"), "y": ("C", "D"), "z": ("A", "D")}
    found = claims.contrasts(table, pairs)
    assert list(found["p"]) == pytest.approx([0.03] * 3)
    assert list(found["verdict"]) == [NOT_DETECTED] * 3
    assert list(claims.contrasts(table, {"x": pairs["x"]})["verdict"]) == [SUPPORTED]


def test_a_verdict_goes_by_the_corrected_p():
    effect = claims.Effect(0.1, 0.01, 0.19, 0.03, 10)
    assert claims.verdict(effect) == SUPPORTED
    assert claims.verdict(effect, p=0.09) == NOT_DETECTED
    assert claims.verdict(effect, p=float("nan")) == NOT_DETECTED


def test_all_of_is_no_better_than_its_worst():
    for parts in itertools.product((SUPPORTED, NOT_DETECTED, CONTRADICTED), repeat=2):
        worst = next(v for v in (CONTRADICTED, NOT_DETECTED, SUPPORTED) if v in parts)
        assert claims.all_of(parts) == worst


def test_contrasts_refuse_a_missing_run():
    table = next(studies(0))
    table.loc[3, "A"] = np.nan
    with pytest.raises(ValueError, match="leave out that seed"):
        claims.contrasts(table, PAIRS)


# ----------------------------------------------------------------------------------- unmoved


@pytest.mark.parametrize("edge", [0.1, -0.1])
def test_unmoved_at_the_margins_edge_is_decided_at_its_error_rates(edge):
    found = verdicts(studies(edge, trials=80), claims.unmoved, margin=0.1)
    # All three are called the same, or any of them moved, each at 5%; a single one is also at 5%.
    assert at_most(sum(claims.all_of(v) == SUPPORTED for v in found), ALPHA, 80)
    assert at_most(sum(CONTRADICTED in v for v in found), ALPHA, 80)
    assert at_most(sum(v[0] == SUPPORTED for v in found), ALPHA, 80)


def test_unmoved_finds_both_what_stays_and_what_moves():
    stays = itertools.chain(*verdicts(studies(0, trials=25), claims.unmoved, margin=0.1))
    assert at_least(list(stays).count(SUPPORTED), 0.85, 75)
    for effect in (0.4, -0.4):
        moves = itertools.chain(*verdicts(studies(effect, trials=10), claims.unmoved, margin=0.1))
        assert at_least(list(moves).count(CONTRADICTED), 0.99, 30)


def test_unmoved_is_not_detected_where_the_seeds_cannot_tell():
    found = verdicts(studies(0, trials=10, sd=3.0), claims.unmoved, margin=0.1)
    assert set(itertools.chain(*found)) <= {NOT_DETECTED, CONTRADICTED}


# ----------------------------------------------------------------------------------- crowned


def test_crowned_is_as_by_going_through_all_draws():
    generator = np.random.default_rng(0)
    table = pd.DataFrame(generator.integers(0, 4, (5, 3)), columns=list("ABC"))  # many ties
    wins = dict.fromkeys(table, 0.0)
    for draw in itertools.product(*(table[c] for c in table)):
        winners = [c for c, v in zip(table, draw, strict=True) if v == max(draw)]
        for winner in winners:
            wins[winner] += 1 / len(winners) / 5**3
    shares = claims.crowned(table)
    assert shares.to_dict() == pytest.approx(wins)
    assert shares.sum() == pytest.approx(1)


def test_crowned_knows_the_sure_winner_and_the_even_match():
    table = pd.DataFrame({"A": [3.0, 4.0], "B": [1.0, 2.0], "C": [1.0, 2.0]})
    assert claims.crowned(table).to_dict() == {"A": 1, "B": 0, "C": 0}
    assert claims.crowned(table[["B", "C"]]).to_dict() == {"B": 0.5, "C": 0.5}


def test_crowned_refuses_a_missing_run():
    with pytest.raises(ValueError, match="missing"):
        claims.crowned(pd.DataFrame({"A": [1.0, np.nan], "B": [1.0, 2.0]}))


# -------------------------------------------------------------------------- what is measured


@pytest.mark.parametrize("norm", ["GN", "LN", "none"])
def test_batch_mates_do_not_move_an_image(norm):
    assert claims.effect_of_batch_mates(norm) <= 1e-6


def test_batch_mates_move_an_image_under_bn():
    assert claims.effect_of_batch_mates("BN") > 0.1


def history(accuracies):
    return {"epoch": list(range(1, len(accuracies) + 1)), "test_accuracy": list(accuracies)}


def test_late_spread_is_the_sd_of_the_last_epochs_in_points():
    runs = pd.DataFrame(
        {
            "setting": ["b", "b", "a", "a"],
            "seed": [0, 1, 0, 1],
            "history": [
                history([0.1, 0.99, 0.98]),
                history([0.9, 0.99, 0.99]),
                history([0.5, 0.97, 0.99]),
                history([0.2, 0.5, 0.6]),
            ],
        }
    )
    spread = claims.late_spread(runs, epochs=2)
    assert list(spread.columns) == ["b", "a"]  # as they come, not by the alphabet
    two = 1 / 2**0.5  # SD of two values, per distance
    assert spread["b"].tolist() == pytest.approx([two, 0])
    assert spread["a"].tolist() == pytest.approx([2 * two, 10 * two])


def test_the_last_epochs_are_five():
    long = pd.DataFrame(
        [{"setting": "a", "seed": 0, "history": history([0.1, 0.9, 0.9, 0.9, 0.9, 0.9])}]
    )
    assert claims.late_spread(long).loc[0, "a"] == pytest.approx(0)
    long.at[0, "history"] = history([0.9, 0.1, 0.9, 0.9, 0.9, 0.9])
    assert claims.late_spread(long).loc[0, "a"] > 1


# ---------------------------------------------------------------------------------- the table


def write_results(folder, better=0.0, steadier=1.0, seeds=SEEDS):
    """The three grids' tables, with GN + L1 better by so many points and so many times steadier."""
    folder.mkdir(exist_ok=True)
    for name in ("replicate", "constant", "source"):
        generator, rows = np.random.default_rng(0), {}
        for one in sweep.tasks(name, seeds):
            ours = one.setting == "GN + L1"
            wave = generator.normal(0, 0.03, one.experiment.epochs) / (steadier if ours else 1)
            curve = (99.3 + ours * better + wave) / 100
            row = one.identity() | {"status": "ok", "test_accuracy": curve[-1]}
            row["history"] = json.dumps(history(curve.tolist()))
            rows[one.slot] = {column: str(value) for column, value in row.items()}
        sweep.write_rows(folder / f"{name}.csv", rows)
    return claims.replication_claims(folder)


@pytest.mark.parametrize(
    "better, expected", [(0.3, SUPPORTED), (-0.3, CONTRADICTED), (0.0, NOT_DETECTED)]
)
def test_the_verdicts_follow_the_results(tmp_path, better, expected):
    lines = write_results(tmp_path, better)
    assert [line.verdict for line in lines[:5]] == [expected] * 5
    assert all(line.seeds == SEEDS for line in lines)
    assert {line.notebook for line in lines} == {"Session6_5_does_it_replicate"}
    mean = float(lines[0].effect.split()[0])
    assert mean == pytest.approx(better, abs=0.06)


@pytest.mark.parametrize("steadier, expected", [(20, SUPPORTED), (1 / 20, CONTRADICTED)])
def test_steadier_is_a_smaller_spread(tmp_path, steadier, expected):
    lines = write_results(tmp_path, steadier=steadier)
    assert [line.verdict for line in lines[5:]] == [expected] * 4
    assert all("steadier" in line.claim and line.effect.endswith("of SD") for line in lines[5:])


def test_the_arms_of_the_claim_are_settings_of_its_grids():
    arms = {arm for pair in claims.THE_CLAIM.values() for arm in pair}
    assert arms == {e.label for e in THREE_EXPERIMENTS}
    for name in ("replicate", "constant", "source"):
        assert arms <= set(sweep.GRIDS[name].settings)
    names = claims.THE_CLAIM | claims.CREDIT | claims.STEADIER
    for name, (a, b) in names.items():  # a name says what is subtracted from what
        assert name.replace("(", "").replace(")", "") == f"{a} − {b}"


CLAIM = claims.Claim("A beats B", SUPPORTED, "+0.1 [+0.0, +0.2] points", 10, "Session6_X")


def test_markdown_is_a_table_with_a_line_per_claim():
    lines = claims.markdown([CLAIM, CLAIM]).splitlines()
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert "**supported**" in lines[2] and "(notebooks/Session6_X.ipynb)" in lines[2]


def test_the_readme_keeps_all_but_the_table(tmp_path):
    readme = tmp_path / "README.md"
    before, after = "# Tïtle\n\n<!-- claims -->\n", "\n<!-- end of claims -->\n\nMore\\1.\n"
    readme.write_text(before + "old\nlines" + after, encoding="utf-8")
    readme.chmod(0o640)
    for table in (claims.markdown([CLAIM]), r"with \1 and \g<0>", claims.markdown([CLAIM] * 2)):
        claims.write_readme(table, readme)
        assert readme.read_text(encoding="utf-8") == before + table + after
    assert readme.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [readme]


@pytest.mark.parametrize("text", ["", "# Title\n", "<!-- claims -->\n", "<!-- end of claims -->\n"])
def test_a_readme_without_its_marks_is_left_alone(tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(SweepError, match="no place for the table"):
        claims.write_readme("table", readme)
    assert readme.read_text() == text and list(tmp_path.iterdir()) == [readme]


def test_missing_results_end_in_a_sentence(tmp_path, capsys):
    assert claims.main(["--results", str(tmp_path)]) == 2
    assert "python sweep.py run replicate" in capsys.readouterr().err


def test_a_run_missing_from_an_arm_ends_in_a_sentence(tmp_path):
    write_results(tmp_path)
    path = tmp_path / "replicate.csv"
    rows = sweep.read_rows(path, "replicate")
    del rows["GN + L1", "4"]
    sweep.write_rows(path, rows)
    with pytest.raises(ValueError, match="leave out that seed"):
        claims.replication_claims(tmp_path)


def test_readable_shows_each_figure_that_a_verdict_goes_by():
    table = next(studies(0.3))
    shown = claims.readable(claims.contrasts(table, PAIRS, margin=0.1))
    d = table["A"] - table["B"]
    assert shown.loc["x", "mean"] == f"{d.mean():+.3f}"
    low, high = stats.ttest_rel(table["A"], table["B"]).confidence_interval()
    assert shown.loc["x", "95% interval"] == f"{low:+.3f} to {high:+.3f}"
    assert shown.loc["x", "p (Holm)"] == "< 0.001" and shown.loc["x", "p, equivalent"] == "1.000"
    assert list(shown["verdict"]) == [SUPPORTED] * 3 and set(shown["seeds"]) == {SEEDS}

    moved = claims.readable(claims.unmoved(table, PAIRS, 0.1))
    assert list(moved["verdict"]) == [CONTRADICTED] * 3
    assert set(moved["p, beyond (Holm)"]) == {"< 0.001"} and set(moved["left out"]) == {0}


def test_links_lead_to_the_notebooks_from_where_the_table_stands():
    assert "](notebooks/Session6_X.ipynb)" in claims.markdown([CLAIM])
    assert "](Session6_X.ipynb)" in claims.markdown([CLAIM], folder="")


@pytest.mark.skipif(not claims.RESULTS.exists(), reason="results/ does not exist yet")
def test_the_readmes_table_is_what_the_results_say():
    found = claims.BETWEEN.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found, "README.md has no marks for the table"
    lines = claims.replication_claims() + claims.batch_size_claims()
    assert found[0] == claims.markdown(lines)
