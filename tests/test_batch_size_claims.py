"""The claims on ghost batches, and the words for what was found."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import stats

from backstage.evidence import claims, grids, results, seed_plots, sentences, tables
from backstage.evidence.claim import judged_lines
from backstage.evidence.claimed import batch_size
from backstage.evidence.grids import GRIDS
from backstage.evidence.statistics import CONTRADICTED, NOT_DETECTED, SUPPORTED
from utils import NORM_COLORS

pytestmark = pytest.mark.usefixtures("quick_statistics")

VERDICTS = (SUPPORTED, NOT_DETECTED, CONTRADICTED)

# ------------------------------------------------------------------------------ verdicts on rows


def made_up(name, accuracy, precise=None, seeds=10):
    """A grid's rows, given accuracies in percent by setting; seeds scatter a little."""
    generator, rows = np.random.default_rng(1), []
    for task in grids.tasks(name, seeds):
        noise = 0.02 * generator.standard_normal()
        row = results.identity(task) | {"status": "ok"}
        row["test_accuracy"] = (accuracy(task.setting) + noise) / 100
        row["precise_test_accuracy"] = ((precise or accuracy)(task.setting) + noise) / 100
        row["batch_test_accuracy"] = row["test_accuracy"]
        rows.append(row)
    return rows


def write_ghosts(folder, loss, precise_loss, gn):
    """BN loses so much with ghost batches of 2, from 98.5%; GN has ``gn``."""

    def of(lost):
        return lambda setting: 98.5 - (lost if setting.startswith("BN 2 ") else 0)

    results.write_rows(folder / "ghost.jsonl", made_up("ghost", of(loss), of(precise_loss)))
    plain = made_up("batch_size", lambda setting: gn if setting.startswith("GN") else 98.5)
    results.write_rows(folder / "batch_size.jsonl", plain)


@pytest.mark.parametrize(
    "loss, precise_loss, gn, expected",
    [
        (0.5, 0.2, 98.2, [SUPPORTED] * 4 + [SUPPORTED] * 2),
        (0.5, 0.0, 97.5, [SUPPORTED] * 2 + [NOT_DETECTED] * 2 + [CONTRADICTED] * 2),
        (-0.5, -0.5, 99.0, [CONTRADICTED] * 4 + [NOT_DETECTED] * 2),
    ],
)
def test_known_losses_with_ghost_batches_are_found(tmp_path, loss, precise_loss, gn, expected):
    write_ghosts(tmp_path, loss, precise_loss, gn)
    found = pd.concat(
        [claims.family(name, tmp_path) for name in ("ghost batches", "ghost batches and GN")]
    )
    assert list(found["verdict"]) == expected
    known = [loss, loss, precise_loss, precise_loss, *[gn - (98.5 - loss)] * 2]
    assert found["mean"].to_numpy() == pytest.approx(known, abs=0.04)


def test_claims_across_two_grids_compare_the_same_images_and_steps():
    of_two = [claim for claim in batch_size.CLAIMS if claim.other_grid]
    assert len(of_two) == 2
    for claim in of_two:
        gn, bn = (GRIDS[grid].settings[column] for grid, column in claim.columns)
        assert (gn.norm, bn.norm) == ("GN", "BN")
        for field in set(vars(gn)) - {"norm"}:
            assert getattr(gn, field) == getattr(bn, field)
        assert GRIDS[claim.grid].images == GRIDS[claim.other_grid].images


def test_error_growth_is_a_ratio_of_errors():
    table = pd.DataFrame({"a": [98.0, 99.0], "b": [99.0, 98.0]})
    assert np.exp(tables.error_growth(table, "a", "b")).tolist() == pytest.approx([2.0, 0.5])


# --------------------------------------------------------------- the stored rows, by plain SciPy


def stored(name, setting, column="test_accuracy"):
    """One value per seed, in percent, in the order of the seeds."""
    lines = (ROOT / "results" / f"{name}.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["setting"] == setting]
    rows.sort(key=lambda row: row["seed"])
    assert [row["seed"] for row in rows] == list(range(GRIDS[name].seeds))
    return np.array([100 * row[column] for row in rows])


def lost(batch, column="test_accuracy"):
    return stored("ghost", f"BN 32 in {batch}", column) - stored(
        "ghost", f"BN 2 in {batch}", column
    )


def corrected(p):
    """Holm (1979), step by step."""
    order, worst, found = np.argsort(p), 0.0, np.empty(len(p))
    for rank, i in enumerate(order):
        worst = max(worst, (len(p) - rank) * p[i])
        found[i] = worst
    return found


def test_every_verdict_comes_out_by_plain_scipy_too():
    families = [
        [*(lost(n) for n in (32, 128)), *(lost(n, "precise_test_accuracy") for n in (32, 128))],
        [
            stored("batch_size", f"GN, batch {n}") - stored("ghost", f"BN 2 in {n}")
            for n in (32, 128)
        ],
    ]
    judged = (batch_size.GHOST, batch_size.GHOST_AND_GN)
    lines = judged_lines([claim for claim in batch_size.CLAIMS if claim.family in judged])
    assert len(lines) == sum(map(len, families))
    for family in families:
        tests = [stats.ttest_1samp(d, 0) for d in family]
        for d, test, p in zip(family, tests, corrected([t.pvalue for t in tests]), strict=True):
            line = lines.pop(0)
            direction = SUPPORTED if d.mean() > 0 else CONTRADICTED
            assert line.verdict == (direction if p < 0.05 else NOT_DETECTED)
            numbers = (d.mean(), *test.confidence_interval())
            assert line.effect == "{:+.3f} [{:+.3f}, {:+.3f}] points".format(*numbers)
            assert line.seeds == len(d)


def test_a_whole_batch_as_one_ghost_is_the_plain_network():
    """Two grids made at different times, by different layers: the same but for chance."""
    d = stored("ghost", "BN 32 in 32") - stored("batch_size", "BN, batch 32")
    assert stats.ttest_1samp(d, 0).pvalue > 0.001 and abs(d.mean()) < 0.1


# --------------------------------------------------------------------------------- the sentences


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (1.2, 1.4, "BN's error grows 1.30× [1.20, 1.40], less than the paper's 1.47×."),
        (1.3, 1.6, "BN's error grows 1.44× [1.30, 1.60], and the paper's 1.47× is within the"),
        (1.6, 2.0, "BN's error grows 1.79× [1.60, 2.00], more than the paper's 1.47×."),
        (0.9, 1.2, "BN's error was not found to change: 1.04× [0.90, 1.20], and 1.47× in the"),
        (0.7, 0.9, "BN's error shrinks 0.79× [0.70, 0.90], less than the paper's 1.47×."),
    ],
)
def test_growth_is_set_beside_the_papers(low, high, expected):
    row = {"mean": np.log(low * high) / 2, "low": np.log(low), "high": np.log(high)}
    assert sentences.grows(row, "BN's error", 1.47).startswith(expected)


@pytest.mark.parametrize("fewer", VERDICTS)
@pytest.mark.parametrize("against_gn", VERDICTS)
def test_what_is_left_of_the_claim_follows_both_verdicts(fewer, against_gn):
    said = sentences.what_is_left(fewer, against_gn)
    holds = [fewer, against_gn].count(SUPPORTED)
    assert said.startswith(("Nothing", "Half of", "Both halves")[holds])
    assert ("do cost accuracy" in said) == (fewer == SUPPORTED)
    assert ("even raise" in said) == (fewer == CONTRADICTED)
    assert ("falls behind GN" in said) == (against_gn == SUPPORTED)
    assert ("still ahead of GN" in said) == (against_gn == CONTRADICTED)
    assert said.count(".") == 1


def test_the_sentence_on_a_second_run_says_what_came_out():
    assert sentences.again(None) == "Without MNIST, the run could not be made again."
    assert "same to the last bit" in sentences.again([])
    said = sentences.again(["test_loss"], gap=0.1, usual=0.2)
    assert said == "The run came out 0.10 points away, within the usual 0.20 between seeds."
    assert "0.30 points away, more than the usual 0.20" in sentences.again(["wrong"], 0.3, 0.2)


# ---------------------------------------------------------------------------------- the pictures


def relative_luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("norm", NORM_COLORS)
def test_text_on_a_norms_color_can_be_read(norm):
    shades = {"white": 1.0, "black": 0.0}
    both = relative_luminance(NORM_COLORS[norm]), shades[seed_plots.text_on(NORM_COLORS[norm])]
    assert (max(both) + 0.05) / (min(both) + 0.05) >= 4.5
