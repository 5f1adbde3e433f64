"""Every number and verdict of docs/RESULTS.md, from the rows of results/ by plain SciPy.

All comparisons of a file are one family; what is printed is looked up in the finding's row.
"""

import re
from functools import cache

import numpy as np
import pandas as pd
import pytest
from compared import COMPARED, ON_CLOTHES, growth, rows, start
from conftest import ROOT
from scipy import stats
from statsmodels.stats.power import TTestPower

PAGE = (ROOT / "docs" / "RESULTS.md").read_text(encoding="utf-8")


def differences(kind, a, b):
    return a - b if kind == "−" or isinstance(kind, float) else np.log(a) - np.log(b)


FAMILIES = {}  # of each file: (finding, label) of what is tested for a difference
for finding, (file, kind, parts) in (*COMPARED.items(), *ON_CLOTHES.items()):
    for label, pair in parts.items() if kind in ("−", "/") else ():
        FAMILIES.setdefault(file, {})[finding, label] = differences(kind, *pair)


def judged(family):
    """By finding and label: supported, contradicted or not detected, Holm's correction."""
    p = np.array([stats.ttest_1samp(d, 0).pvalue for d in family.values()])
    order = p.argsort()
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return {
        key: "not detected" if q >= 0.05 else "supported" if d.mean() > 0 else "contradicted"
        for (key, d), q in zip(family.items(), corrected, strict=True)
    }


def same(d, margin):
    low, high = stats.ttest_1samp(d, 0).confidence_interval(0.9)
    if -margin < low and high < margin:
        return "shown"
    return "differs by more than the margin" if low > margin or high < -margin else "not shown"


@cache
def verdicts(file):
    """Verdict, and whether it is fragile, by finding and label."""
    family = FAMILIES[file]
    found, seeds = judged(family), len(next(iter(family.values())))
    less = [judged({k: np.delete(d, i) for k, d in family.items()}) for i in range(seeds)]
    fragile = {}
    for key, d in family.items():
        exact = stats.permutation_test(
            (np.round(d, 9),), np.mean, permutation_type="samples", n_resamples=np.inf
        ).pvalue
        fragile[key] = any(other[key] != found[key] for other in less)
        fragile[key] |= found[key] != "not detected" and exact >= 0.05
    return {key: (found[key], bool(fragile[key])) for key in family}


def times(ratio):
    if ratio < 1_000:
        return f"{ratio:.2f}"
    digit, power = f"{ratio:.0e}".split("e+")
    return f"{digit}·10{str(int(power)).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def printed(finding, label, table=COMPARED):
    """Of one comparison: how the page has it, and its verdict."""
    file, kind, parts = table[finding]
    d = differences(kind, *parts[label])
    ratio = kind in ("/", "1.1")
    look = (lambda x: times(np.exp(x))) if ratio else "{:+.2f}".format
    test = stats.ttest_1samp(d, 0)
    low, high = test.confidence_interval(0.95 if kind in ("−", "/") else 0.90)
    text = f"{look(d.mean())}{'×' * ratio} [{look(low)}, {look(high)}]"
    if kind not in ("−", "/"):
        margin = np.log(1.1) if ratio else kind
        verdict = same(d, margin)
        fragile = any(same(np.delete(d, i), margin) != verdict for i in range(len(d)))
        return text + "†" * fragile, verdict
    verdict, fragile = verdicts(file)[finding, label]
    if verdict != "not detected":
        return f"**{text}**" + "†" * fragile, verdict
    found = TTestPower().solve_power(nobs=len(d), alpha=0.05, power=0.8) * d.std(ddof=1)
    return f"{text}{'†' * fragile} ({look(found).lstrip('+')}{'×' * ratio})", verdict


# ------------------------------------------------------------------------------- the page itself

LINES = {line.split(" | ")[0].strip("| "): line for line in PAGE.splitlines() if " | " in line}


@pytest.mark.parametrize("finding", COMPARED)
def test_numbers_and_verdict_of_a_finding_are_those_of_its_rows(finding):
    file, _, parts = COMPARED[finding]
    cells = [cell.strip() for cell in LINES[finding].strip("| ").split(" | ")]
    found = [printed(finding, label) for label in parts]
    shown = found if len(found) < 20 else [f for f in found if f[1] != "not detected"]
    for text, _ in shown:
        assert text in cells[3]
    assert len(re.findall(r"\[[-+\d][^]]*, [^]]*\]", cells[3])) == len(shown)
    if len(found) > len(shown):
        assert cells[3].startswith(f"{len(shown)} of {len(found)} ")
    all_of = {verdict for _, verdict in found}
    assert cells[5].startswith(f"**{all_of.pop() if len(all_of) == 1 else 'mixed'}**")
    assert cells[6] == str(len(next(iter(parts.values()))[0]))
    assert cells[7] == f"[{file}](../results/{file}.jsonl)"


@pytest.mark.parametrize("finding", COMPARED)
def test_what_is_said_of_fashion_mnist_is_in_its_rows(finding):
    cell = LINES[finding].strip("| ").split(" | ")[4].strip()
    if finding not in ON_CLOTHES:
        assert cell == "–"
        return
    file, _, parts = ON_CLOTHES[finding]
    found = [printed(finding, label, ON_CLOTHES) for label in parts]
    assert all(text in cell for text, _ in found)
    all_of = {verdict for _, verdict in found}
    verdict = all_of.pop() if len(all_of) == 1 else "mixed"
    assert cell.startswith(f"**{verdict}**, {len(next(iter(parts.values()))[0])} seeds")
    assert cell.endswith(f"[{file}](../results/{file}.jsonl)")


def test_every_finding_of_the_page_is_compared():
    assert [key for key in LINES if re.fullmatch(r"[a-e]\d+", key)] == list(COMPARED)


def test_losses_of_tuning_are_means_of_two_seeds():
    table = pd.concat([rows("tune"), rows("fashion_tune")])
    table = table.replace({"data": {"mnist": "MNIST", "fashion": "Fashion-MNIST"}})
    arms = table.groupby(["data", "augment", "norm", "groups", "l1", "l2"])["val_loss"]
    for arm, (loss, seeds) in arms.agg(["mean", "count"]).iterrows():
        data, augment, norm, groups, l1, l2 = arm
        what = f"GN + L1, {groups} groups" if norm == "GN" else "LN + L2"
        begins = f"| {data}, {'augmented' if augment else 'plain'}, {what} |"
        (line,) = (line for line in PAGE.splitlines() if line.startswith(begins))
        assert f"{l1 + l2:.0e}: {loss:.4f}".replace("e-0", "e-") in line and seeds == 2


def test_sixteen_epochs_lose_what_is_said():
    table = rows("lengths")
    table = table.assign(label=table["setting"].str.partition(", ")[0])
    accuracy = 100 * table.pivot(index=["label", "seed"], columns="epochs", values="val_accuracy")
    loss = accuracy[20] - accuracy[16]
    low, high = stats.ttest_1samp(loss, 0).confidence_interval(0.95)
    assert len(loss) == 30 and f"{loss.mean():.2f} [{low:.2f}, {high:.2f}] points lower" in PAGE
    assert high > 0.05, "sixteen will do, by the rule"


def test_accuracies_are_means_of_ten_seeds():
    table = 100 * rows("replicate").groupby(["norm", "l1", "l2"])["test_accuracy"].mean()
    for norm in ("BN", "LN", "GN", "none"):
        by_penalty = table[norm].round(9)
        (l1,), (l2,) = ([v for v in set(by_penalty.index.get_level_values(i)) if v] for i in (0, 1))
        cells = [f"{by_penalty[key]:.2f}" for key in ((0, 0), (l1, 0), (0, l2), (l1, l2))]
        assert f"| {norm.replace('none', 'no norm')} | {' | '.join(cells)} |" in PAGE


def test_accuracies_in_words_are_those_of_the_rows():
    assert "(without one: 30%)" in LINES["a8"] and "(78%)" in LINES["a9"]
    assert [round(start("none", s).mean()) for s in ("default", "He")] == [30, 78]
    assert "1.21 here, and 1.15 in the CNN" in LINES["a13"]
    assert [f"{growth('growth', n, 'BN').mean():.2f}" for n in ("MLP", "CNN")] == ["1.21", "1.15"]
