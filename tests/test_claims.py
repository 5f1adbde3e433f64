"""evidence.claims, tables and sentences: from rows to verdicts, to a table, to words."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import stats

from backstage.evidence import claims, grids, results, sentences, tables
from backstage.evidence.claim import Line, judged_lines
from backstage.evidence.claimed import batch_size, does_it_replicate
from backstage.evidence.grids import GRIDS
from backstage.evidence.statistics import (
    CONTRADICTED,
    NOT_DETECTED,
    NOT_SHOWN,
    SHOWN,
    SUPPORTED,
    contrasts,
    equivalences,
)
from backstage.files import between, replace_part
from utils import THREE_EXPERIMENTS

pytestmark = pytest.mark.usefixtures("quick_statistics")

SEEDS = 10

# ---------------------------------------------------------------------------------------- tables


def history(accuracies):
    return {"epoch": list(range(1, len(accuracies) + 1)), "test_accuracy": list(accuracies)}


def runs(**curves):
    """Rows of settings, each with its runs' accuracies in percent."""
    return pd.DataFrame(
        [
            {"setting": setting, "seed": seed, "history": history(np.array(curve) / 100)}
            for setting, of_seeds in curves.items()
            for seed, curve in enumerate(of_seeds)
        ]
    )


def test_std_last_epochs_is_in_points_over_the_last_epochs():
    spread = tables.std_last_epochs(
        runs(b=[[10, 99, 98], [90, 99, 99]], a=[[50, 97, 99], [20, 50, 60]]), epochs=2
    )
    assert list(spread.columns) == ["b", "a"]  # as they come, not by the alphabet
    two = 1 / 2**0.5  # SD of two values, per distance
    assert spread["b"].tolist() == pytest.approx([two, 0])
    assert spread["a"].tolist() == pytest.approx([2 * two, 10 * two])


def test_the_last_epochs_are_five():
    late, early = runs(a=[[10, 90, 90, 90, 90, 90]]), runs(a=[[90, 10, 90, 90, 90, 90]])
    assert tables.std_last_epochs(late).loc[0, "a"] == pytest.approx(0)
    assert tables.std_last_epochs(early).loc[0, "a"] > 1


def test_around_the_line_steady_progress_does_not_count():
    wobble = np.array([0.1, -0.2, 0.3, -0.3, 0.1])
    climbs = wobble + np.linspace(97, 99, 5)
    spread = np.exp(tables.log_std_around_line(runs(a=[climbs], b=[98 + wobble])))
    assert spread.loc[0, "a"] == pytest.approx(spread.loc[0, "b"])
    fit = stats.linregress(np.arange(5), climbs)
    residual = climbs - fit.intercept - fit.slope * np.arange(5)
    assert spread.loc[0, "a"] == pytest.approx(np.sqrt((residual**2).sum() / 3))


# ------------------------------------------------------------------------------ verdicts on rows


def small_batch_rows(bn_loss=5.0, average_loss=2.0, gn_loss=0.0, seeds=SEEDS):
    """The grid's rows with known losses at batches of 2, all norms alike elsewhere."""
    generator, rows = np.random.default_rng(0), []
    for task in grids.tasks("batch_size", seeds):
        norm, n = task.setting.split(", batch ")
        loss = {"BN": bn_loss, "GN": gn_loss}.get(norm, 0.0) if n == "2" else 0.0
        precise = 98 - loss + 0.1 * generator.standard_normal()
        running = precise - (average_loss if norm == "BN" and n == "2" else 0.0)
        row = results.identity(task) | {"status": "ok", "test_accuracy": running / 100}
        row |= {"precise_test_accuracy": precise / 100, "batch_test_accuracy": precise / 100}
        rows.append(row)
    return rows


def replication_rows(name, better=0.0, steadier=1.0, seeds=SEEDS):
    """A grid's rows, GN + L1 better by so many points and so many times steadier than all."""
    generator, rows = np.random.default_rng(0), []
    for task in grids.tasks(name, seeds):
        ours = task.setting == "GN + L1"
        epochs = GRIDS[name].settings[task.setting].epochs
        wave = generator.normal(0, 0.03, epochs) / (steadier if ours else 1)
        curve = (99.3 + ours * better + wave) / 100
        row = results.identity(task) | {"status": "ok", "test_accuracy": curve[-1]}
        rows.append(row | {"history": history(curve)})
    return rows


FAMILIES = ("supersedes", "source", "steady", "small batches", "control")  # of these grids


def write(folder, changed=lambda rows: rows, small=None, **how):
    """Four grids' results; lines by claim."""
    for name in ("replicate", "constant", "source"):
        results.write_rows(folder / f"{name}.jsonl", changed(replication_rows(name, **how)))
    rows = changed(small_batch_rows(**(small or {})))
    results.write_rows(folder / "batch_size.jsonl", rows)
    return {name: claims.family(name, folder) for name in FAMILIES}


@pytest.mark.parametrize(
    "better, expected", [(0.3, SUPPORTED), (-0.3, CONTRADICTED), (0.0, NOT_DETECTED)]
)
def test_the_verdicts_follow_the_accuracies(tmp_path, better, expected):
    found = write(tmp_path, better=better)
    for name, lines in (("supersedes", 3), ("source", 2)):
        assert list(found[name]["verdict"]) == [expected] * lines
        assert set(found[name]["seeds"]) == {SEEDS}
        assert found[name]["mean"].to_numpy() == pytest.approx(better, abs=0.06)


@pytest.mark.parametrize("steadier, expected", [(20, SUPPORTED), (1 / 20, CONTRADICTED)])
def test_steadier_is_a_smaller_spread(tmp_path, steadier, expected):
    found = write(tmp_path, steadier=steadier)["steady"]
    assert list(found["verdict"]) == [expected] * 3 + [NOT_DETECTED]
    assert np.exp(found["mean"].iloc[:3]).to_numpy() == pytest.approx(steadier, rel=0.6)


def test_known_losses_at_small_batches_are_found(tmp_path):
    found = write(tmp_path)
    assert list(found["small batches"]["verdict"]) == [SUPPORTED] * 3
    assert list(found["control"]["verdict"]) == [SUPPORTED] * 2 + [NOT_DETECTED] * 2
    whole, precise, average = found["small batches"]["mean"]
    assert whole == pytest.approx(precise + average, abs=1e-9)
    assert average == pytest.approx(2.0, abs=1e-9)
    assert batch_size.stability(tmp_path).verdict == SHOWN


def test_opposite_losses_contradict(tmp_path):
    small = {"bn_loss": -1.0, "average_loss": 0.0, "gn_loss": 2.0}
    found = write(tmp_path, small=small)
    assert list(found["small batches"]["verdict"][:2]) == [CONTRADICTED] * 2
    assert found["control"].loc["GN − none", "verdict"] == CONTRADICTED
    line = batch_size.stability(tmp_path)
    assert line.verdict == NOT_SHOWN and "GN, batch 2 − 32" in line.claim


@pytest.mark.parametrize("norm", ["GN", "BN"])
def test_a_failed_run_is_left_out_and_withholds_support(tmp_path, norm):
    failed = (f"{norm}, batch 2", 3)

    def one_failed(rows):
        return [r for r in rows if (r["setting"], r["seed"]) != failed]

    found = write(tmp_path, one_failed)["small batches"]
    assert list(found["verdict"]) == [NOT_DETECTED] * 3 and set(found["seeds"]) == {9}
    assert batch_size.stability(tmp_path).verdict == (NOT_SHOWN if norm == "GN" else SHOWN)


def test_the_arms_of_the_claim_are_settings_of_its_grids():
    arms = {arm for c in claims.CLAIMS if c.family.name == "supersedes" for arm in (c.a, c.b)}
    assert arms == {e.label for e in THREE_EXPERIMENTS} | {"GN"}
    for claim in claims.CLAIMS:
        if claim.family.name in ("supersedes", "source", "steady"):
            assert {claim.a, claim.b} <= set(GRIDS[claim.grid].settings)
    assert {c.family.name for c in claims.CLAIMS} == set(claims.FAMILIES)


# --------------------------------------------------------------- the stored rows, by plain SciPy


def stored(name):
    path = ROOT / "results" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def series(name, setting, value):
    """One value per seed, in the order of the seeds."""
    rows = sorted((r for r in stored(name) if r["setting"] == setting), key=lambda r: r["seed"])
    assert [r["seed"] for r in rows] == list(range(10))
    return np.array([value(r) for r in rows])


def accuracy(row):
    return 100 * row["test_accuracy"]


def log_residual_sd(row):
    y = np.array(row["history"]["test_accuracy"][-5:])
    fit = stats.linregress(range(5), y)
    return np.log(np.sqrt(((y - fit.intercept - fit.slope * np.arange(5)) ** 2).sum() / 3))


def loss_at_2(norm, column="test_accuracy"):
    def value(row):
        return 100 * row[column]

    two, thirty_two = (series("batch_size", f"{norm}, batch {n}", value) for n in (2, 32))
    return two - thirty_two


def test_every_verdict_comes_out_by_plain_scipy_too():
    def of(name, measure, *settings):
        return {s: series(name, s, measure) for s in settings}

    ours, bn, ln = "GN + L1", "BN + L1 + L2", "LN + L2"
    replicate = of("replicate", accuracy, ours, bn, ln, "GN")
    source = of("source", accuracy, ours, bn, ln)
    constant = of("constant", log_residual_sd, ours, bn, ln)
    one_cycle = of("replicate", log_residual_sd, ours, bn, "GN", "BN + L1")
    lost = {norm: loss_at_2(norm) for norm in ("none", "BN", "LN", "GN")}
    precise = loss_at_2("BN", "precise_test_accuracy")
    families = [
        [replicate[ours] - replicate[other] for other in (bn, ln, "GN")],
        [source[ours] - source[other] for other in (bn, ln)],
        [
            *(constant[other] - constant[ours] for other in (bn, ln)),
            one_cycle["GN"] - one_cycle[ours],
            one_cycle[bn] - one_cycle["BN + L1"],
        ],
        [lost["GN"] - lost["BN"], lost["GN"] - precise, precise - lost["BN"]],
        [lost["none"] - lost["BN"], lost["LN"] - lost["BN"]]
        + [lost["GN"] - lost["none"], lost["LN"] - lost["none"]],
    ]
    expected = []
    for family in families:
        p = np.array([stats.ttest_1samp(d, 0).pvalue for d in family])
        order = p.argsort()
        corrected = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
        for i, d in enumerate(family):
            small = corrected[order.tolist().index(i)] < 0.05
            direction = SUPPORTED if d.mean() > 0 else CONTRADICTED
            expected.append((direction if small else NOT_DETECTED, d))
    linear = (batch_size.SMALL_BATCHES, batch_size.CONTROL)
    judged = [claim for claim in batch_size.CLAIMS if claim.family in linear]
    lines = judged_lines([*does_it_replicate.CLAIMS, *judged])
    assert [line.verdict for line in lines] == [verdict for verdict, _ in expected]
    for line, (_, d) in zip(lines, expected, strict=True):
        low, high = stats.ttest_1samp(d, 0).confidence_interval()
        numbers = (d.mean(), low, high)
        if "×" in line.effect:
            assert line.effect == "{:.2f}× [{:.2f}, {:.2f}]".format(*np.exp(numbers))
        else:
            assert line.effect == "{:+.3f} [{:+.3f}, {:+.3f}] points".format(*numbers)


def test_the_verdict_on_gns_stability_comes_out_by_plain_scipy_too():
    reference = series("batch_size", "GN, batch 32", accuracy)
    inside, reach = [], {}
    for n in (2, 4, 8, 16, 128):
        d = series("batch_size", f"GN, batch {n}", accuracy) - reference
        low = stats.ttest_1samp(d, -0.3, alternative="greater").pvalue
        high = stats.ttest_1samp(d, 0.3, alternative="less").pvalue
        inside.append(max(low, high) < 0.05)
        reach[n] = max(map(abs, stats.ttest_1samp(d, 0).confidence_interval(0.9)))
    line = batch_size.stability()
    assert line.verdict == (SHOWN if all(inside) else NOT_SHOWN)
    assert f"GN, batch {max(reach, key=reach.get)} − 32" in line.claim


# --------------------------------------------------------------------------------- the sentences


def study(effect, spread=0.05):
    generator = np.random.default_rng(0)
    d = generator.normal(0, spread, SEEDS)
    return pd.DataFrame({"A": 99 + effect + d - d.mean(), "B": np.full(SEEDS, 99.0)})


@pytest.mark.parametrize(
    "effect, expected",
    [
        (0.3, "A beats B by 0.300 [0."),
        (-0.3, "A falls behind B by 0.300 [0."),
        (0.0, "No difference in accuracy was detected between A and B: +0.000 [-0."),
    ],
)
def test_a_comparisons_sentence_follows_its_verdict(effect, expected):
    found = contrasts(study(effect), {"A − B": ("A", "B")})
    said = sentences.compared(found.iloc[0], "A", "B")
    assert said.startswith(expected.replace("+0.000", said.split(": ")[-1][:6]))
    assert said.endswith("] points.") and said.count(". ") == 0
    low, high = found.iloc[0][["low", "high"]].abs().sort_values()
    if effect:
        assert f"[{low:.3f}, {high:.3f}]" in said


def test_a_ratios_sentence_says_by_what_factor():
    rows = contrasts(np.log(study(0.3)), {"A / B": ("A", "B")})
    words = {"more": "varies more than", "less": "varies less than", "ratio": True}
    said = sentences.compared(rows.iloc[0], "A", "B", **words)
    assert said.startswith("A varies more than B by 1.00× [1.00,")
    opposite = contrasts(np.log(study(0.3)), {"B / A": ("B", "A")})
    said = sentences.compared(opposite.iloc[0], "B", "A", **words)
    assert said.startswith("B varies less than A by 1.00× [1.00,")  # a factor of at least 1


@pytest.mark.parametrize(
    "effects, expected",
    [
        ((0.3, 0.2), r"A beats C by 0\.300 \[.*\] points and D by 0\.200 \[.*\] points\."),
        ((0.3, 0.0), r"A was not found to beat D \([+-]0\.000 \[.*\] points\)\."),
        ((0.0, 0.0), r"A was not found to beat C \(.*\] points\) or D \(.*\] points\)\."),
        ((-0.3, 0.2), r"A falls behind C by 0\.300 \[0.*\] points\."),
    ],
)
def test_to_be_superior_takes_every_contrast(effects, expected):
    table = pd.concat([study(e).add_suffix(str(i)) for i, e in enumerate(effects)], axis=1)
    found = contrasts(table, {"A − C": ("A0", "B0"), "A − D": ("A1", "B1")})
    said = sentences.superior(found, "A", {"A − C": "C", "A − D": "D"})
    assert re.fullmatch(expected, said), said


@pytest.mark.parametrize(
    "effects, expected",
    [
        ((0.0, 0.02), "GN is equivalent within ±0.1 points at every size; it moves most at y"),
        ((0.0, 0.3), "GN is not shown to be the same within ±0.1 points at every size: 1 of 2"),
        ((-0.3, 0.2), "GN is not shown to be the same within ±0.1 points at every size: 2 of 2"),
    ],
)
def test_a_sentence_of_sameness_has_words_of_its_own(effects, expected):
    table = pd.concat([study(e).add_suffix(str(i)) for i, e in enumerate(effects)], axis=1)
    found = equivalences(table, {"x": ("A0", "B0"), "y": ("A1", "B1")}, 0.1)
    said = sentences.stays(found, "GN", 0.1, "at every size")
    assert said.startswith(expected) and said.endswith("points (90% interval).")
    assert "detected" not in said and "supported" not in said


def test_what_a_verdict_rests_on_is_said():
    assert sentences.rests_on("It", []) == "It does not depend on any single seed."
    assert sentences.rests_on("It", [4]) == "It would be another without seed 4."
    said = sentences.rests_on("It", [1, 4, 9])
    assert said == "It would be another without any one of seeds 1, 4 and 9."


def test_sentences_are_joined_to_one():
    said = sentences.joined("A beats B.", "No difference was detected.", "None is C.")
    assert said == "A beats B; no difference was detected; None is C."


# ------------------------------------------------------------------------------------- the table

LINE = Line("A beats B", SUPPORTED, "+0.1 [+0.0, +0.2] points", 10, "Session6_X")


def test_markdown_is_a_table_with_a_line_per_claim():
    lines = claims.markdown([LINE, LINE]).splitlines()
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert "**supported**" in lines[2] and "(../notebooks/Session6_X.ipynb)" in lines[2]
    assert "](Session6_X.ipynb)" in claims.markdown([LINE], folder="")


def test_a_file_keeps_all_but_the_table(tmp_path):
    readme = tmp_path / "README.md"
    before, after = "# Tïtle\n\n<!-- claims -->\n", "\n<!-- end of claims -->\n\nMore\\1.\n"
    readme.write_text(before + "old\nlines" + after, encoding="utf-8")
    readme.chmod(0o640)
    for table in (claims.markdown([LINE]), r"with \1 and \g<0>", claims.markdown([LINE] * 2)):
        replace_part("claims", table, readme)
        assert readme.read_text(encoding="utf-8") == before + table + after
    assert readme.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [readme]


@pytest.mark.parametrize("text", ["", "# Title\n", "<!-- claims -->\n", "<!-- end of claims -->\n"])
def test_a_file_without_the_marks_is_left_alone(tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ValueError, match="no place for the claims"):
        replace_part("claims", "table", readme)
    assert readme.read_text() == text and list(tmp_path.iterdir()) == [readme]


def test_missing_results_end_in_a_sentence(tmp_path, capsys):
    assert claims.main(["--results", str(tmp_path)]) == 2
    assert "python -m backstage.evidence.sweep run " in capsys.readouterr().err


def test_the_committed_table_is_what_the_results_say():
    found = between("claims").search((ROOT / "docs" / "RESULTS.md").read_text(encoding="utf-8"))
    assert found, "RESULTS.md has no marks for the table"
    assert found[0] == claims.markdown(claims.all_lines())
