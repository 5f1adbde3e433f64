"""The claims on why normalization works: from rows to tables, to verdicts, to sentences."""

import json
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import stats

from backstage.evidence import grids, results, why_sentences, why_tables
from backstage.evidence.claimed import why_it_works as why
from backstage.evidence.grids import GRIDS
from backstage.evidence.measures.gradients import INITS
from backstage.evidence.measures.smoothness import LEVELS
from backstage.evidence.statistics import CONTRADICTED, NOT_DETECTED, SUPPORTED, contrasts

pytestmark = pytest.mark.usefixtures("quick_statistics")

RNG = 1  # of the noise; where there is no effect, one in 20 shows one nevertheless
SEEDS = 3  # few, for speed; the noise is small
NAMES = ("faster", "largest_rate", "gradients", "very_deep", "smoothness", "layer_norm")

# ------------------------------------------------------------------------------- made-up rows


def faster(setting, gain, noise):
    steps = 1_000 * (1 + abs(np.log10(setting.lr / 0.03))) * noise / gain
    return {"steps": steps, "cpu_seconds": steps / 400}


def largest_rate(setting, gain, noise):
    return {"largest_rate": 0.1 * gain * noise, "tried": [[0.1, 0.9], [1.0, 0.1]]}


def gradients(setting, gain, noise):
    """Shrinking in all layers alike, as networks get deeper."""
    size = 1e-9 ** (setting.depth / 40) * (gain if setting.depth == 40 else 1) * noise
    return {"smallest": size, "largest": size, "growth": 1.0}


def very_deep(setting, gain, noise):
    return {"test_accuracy": 0.5 + 0.1 * np.log(gain) + 0.01 * np.log(noise) - setting.lr / 1e3}


def smoothness(setting, gain, noise):
    probe = dict.fromkeys(why_tables.PROBES, noise / gain)
    return {"probes": [{"level": level} | probe for level in LEVELS]}


def layer_norm(setting, gain, noise):
    steps = {"none": 0, "DetachNorm": 0, "LN": 1, "LN-simple": 2, "AdaNorm": 2}
    points = steps.get(setting.norm, 0) * 0.1 * np.log(gain) + 0.01 * np.log(noise)
    return {"test_accuracy": 0.5 + points, "val_accuracy": 0.5 + points}


def rows(name, gain=1.0, seeds=SEEDS):
    """A grid's rows in which every norm is so many times better than none (e times: 10 points)."""
    generator, made = np.random.default_rng(RNG), []
    measure = globals()[name]
    for task in grids.tasks(name, seeds):
        setting = GRIDS[name].settings[task.setting]
        better = gain if setting.norm != "none" else 1.0
        found = measure(setting, better, np.exp(0.02 * generator.standard_normal()))
        made.append(results.identity(task) | {"status": "ok"} | found)
    return made


def theorem_rows(error=1e-15):
    return [
        results.identity(task) | {"status": "ok", "mean_error": 1e-16, "variance_error": error}
        for task in grids.tasks("backward_theorem", 2)
    ]


def write(folder, name, made):
    results.write_rows(folder / f"{name}.jsonl", made)


# ----------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("gain", "expected"), [(2.0, SUPPORTED), (0.5, CONTRADICTED), (1.0, NOT_DETECTED)]
)
def test_the_verdicts_follow_the_rows(tmp_path, gain, expected):
    for name in NAMES:
        write(tmp_path, name, rows(name, gain))
    write(tmp_path, "backward_theorem", theorem_rows())
    lines = why.lines(tmp_path)
    assert len(lines) == len({line.claim for line in lines}) <= 20
    exact = [line for line in lines if "theorem" in line.claim]
    assert [line.verdict for line in exact] == [SUPPORTED]
    assert {line.verdict for line in lines if line not in exact} == {expected}
    assert {line.notebook for line in lines} == {why.NOTEBOOK}
    for line in lines:
        if "×" in line.effect:
            assert float(line.effect.partition("×")[0]) == pytest.approx(gain, rel=0.1)


def test_a_theorem_that_fails_is_contradicted(tmp_path):
    write(tmp_path, "backward_theorem", theorem_rows(error=1e-6))
    assert why.theorem(tmp_path).verdict == CONTRADICTED


def test_a_line_shows_the_weakest_part_of_its_claim():
    parts = pd.DataFrame(
        {
            "mean": [1.0, 0.5, 0.1, -1.0],
            "low": [0.9, 0.4, -0.1, -1.1],
            "high": [1.1, 0.6, 0.3, -0.9],
            "verdict": [SUPPORTED, SUPPORTED, NOT_DETECTED, CONTRADICTED],
            "seeds": 10,
        },
        index=["a", "b", "c", "d"],
    )
    for count, verdict, name in (
        (2, SUPPORTED, "b"),
        (3, NOT_DETECTED, "c"),
        (4, CONTRADICTED, "d"),
    ):
        line = why.line_of("It is", parts[:count], ratio=False)
        assert line.verdict == verdict and f"({name}, the weakest; " in line.effect
        assert f"{min(count, 2)} of {count} parts" in line.effect
    assert why.line_of("It is", parts[:1], ratio=True).effect == "2.72× [2.46, 3.00]"


def unreached(made, norm):
    """That norm's first seed never got there, in the CNN."""
    for row in made:
        if (row["network"], row["norm"], row["seed"]) == ("CNN", norm, 0):
            row |= {"steps": None, "cpu_seconds": None}
    return made


def test_a_norm_that_never_got_there_is_not_faster(tmp_path):
    write(tmp_path, "faster", unreached(rows("faster", gain=8), "BN"))
    parts = why.found(why.FASTER, tmp_path)
    stopped = [part == "CNN" and "LN" not in claim for claim, part in parts.index]
    assert sum(stopped) == 3 and set(parts[stopped]["verdict"]) == {NOT_DETECTED}
    assert set(parts[~np.array(stopped)]["verdict"]) == {SUPPORTED}
    assert set(parts["left_out"]) == {0}


def test_no_norm_that_never_got_there_counts_all_its_steps(tmp_path):
    write(tmp_path, "faster", unreached(rows("faster"), "none"))
    table = why_tables.log_costs(results.load_results("faster", tmp_path))
    limit = GRIDS["faster"].settings["CNN, none, rate 0.01"].max_steps
    assert np.exp(table.loc[0, "none, CNN: steps"]) == pytest.approx(limit)
    assert np.exp(table.loc[0, "none, CNN: seconds"]) == pytest.approx(limit / 400)


# ------------------------------------------------------------------------------------- tables


def test_each_arm_runs_at_its_own_best_rate_and_at_the_one_for_none(tmp_path):
    made = rows("faster")
    for row in made:
        if row["norm"] == "BN" and row["lr"] == 0.1:
            row["steps"] /= 3
    write(tmp_path, "faster", made)
    runs = results.load_results("faster", tmp_path)
    best = why_tables.fastest_rates(runs)
    assert best["CNN", "BN"] == best["ReLU MLP", "BN"] == 0.1
    assert best["CNN", "none"] == best["CNN", "LN"] == best["sigmoid MLP", "none"] == 0.03
    used = why_tables.arms(runs)
    assert set(used["BN, CNN"]["lr"]) == {0.1}
    assert set(used["BN, CNN, shared rate"]["lr"]) == {0.03}


def test_where_no_rate_trains_the_nearest_counts_for_none_and_nothing_for_a_norm(tmp_path):
    made = rows("largest_rate")
    for row in made:
        if row["network"] == "CNN" and row["seed"] == 1:
            row |= {"largest_rate": None, "tried": [[0.1, 0.2], [0.5, 0.4], [2.0, 0.1]]}
    write(tmp_path, "largest_rate", made)
    table = why_tables.largest_rates(results.load_results("largest_rate", tmp_path))
    assert table.loc[1, "none, CNN"] == 0.5
    assert table.loc[1, ["BN, CNN", "LN, CNN", "GN, CNN"]].isna().all()
    assert table.notna().sum().sum() == 10 * SEEDS - 3


def test_the_best_rate_is_that_of_the_highest_mean_accuracy(tmp_path):
    made = rows("very_deep")
    arm = [r for r in made if r["setting"].startswith("GN, plain, depth 40, ")]
    for row in arm:
        row["test_accuracy"] = {0.003: 0.1, 0.01: 0.2, 0.03: 0.9, 0.1: 0.3}[row["lr"]]
    write(tmp_path, "very_deep", made)
    table = why_tables.at_best_rate(results.load_results("very_deep", tmp_path))
    assert table["GN, plain, depth 40"].tolist() == pytest.approx([90.0] * SEEDS)
    assert len(table.columns) == 2 * 4 * 4


def test_gradients_that_shrink_in_all_layers_alike_are_seen_to_vanish(tmp_path):
    made = rows("gradients")
    for row in made:
        if row["norm"] == "none" and row["depth"] == 40:
            row["smallest"] = row["largest"] = 0.0
    write(tmp_path, "gradients", made)
    rows_there = results.load_results("gradients", tmp_path)
    table = why_tables.log_gradient_ranges(rows_there)
    at_5, at_40 = 1e-9 ** (5 / 40), 1e-9
    spread = np.exp(table[["BN, plain, He", "none, plain, He"]]).mean()
    assert spread.iloc[0] == pytest.approx(at_5 / at_40, rel=0.1)
    assert spread.iloc[1] == pytest.approx(at_5 / 2.0**-149, rel=0.1)  # 0 counts as the least
    places = {f"{kind}, {init}" for kind in ("plain", "residual") for init in INITS}
    assert why_tables.vanished(rows_there) == {f"none, {place}" for place in places}


def test_probes_are_compared_where_all_arms_got(tmp_path):
    made = rows("smoothness", gain=4)
    stuck = next(r for r in made if r["norm"] == "none" and r["seed"] == 1)
    made[0]["probes"][-1]["beta"] *= 1e6  # BN's, seed 0: all got there, so it counts
    made[4]["probes"][-1]["beta"] *= 1e6  # BN's, seed 1: none did not
    stuck["probes"] = stuck["probes"][:-1]
    assert (made[4]["norm"], made[4]["seed"]) == ("BN", 1)
    write(tmp_path, "smoothness", made)
    table = np.exp(why_tables.log_smoothness(results.load_results("smoothness", tmp_path)))
    beta = table["BN: effective β"]
    assert beta[0] == pytest.approx(0.25 * 10 ** (6 / len(LEVELS)), rel=0.2)
    assert beta[1] == pytest.approx(0.25, rel=0.2)


def test_adanorms_constant_is_chosen_on_validation_images(tmp_path):
    made = rows("layer_norm")
    for row in made:
        if row["norm"] == "AdaNorm":
            row["val_accuracy"] += 0.1 * (row["scale"] == 1.0)
            row["test_accuracy"] = 0.9 if row["scale"] == 2.0 else 0.6
    write(tmp_path, "layer_norm", made)
    table = why_tables.layer_norm_accuracies(results.load_results("layer_norm", tmp_path))
    assert table["AdaNorm"].tolist() == pytest.approx([60.0] * SEEDS) and len(table.columns) == 7


# ---------------------------------------------------------- the stored rows, by plain SciPy


def stored(name, value):
    """{setting: {seed: value}}, read without the claims' code."""
    found = defaultdict(dict)
    for line in (ROOT / "results" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found[row["setting"]][row["seed"]] = value(row)
    return {setting: [of[seed] for seed in sorted(of)] for setting, of in found.items()}


def arrays(name, value):
    return {s: np.array(v, dtype=float) for s, v in stored(name, value).items()}


def by_holm(differences):
    """Verdicts of "the mean is above 0"."""
    p = [stats.ttest_1samp(d, 0).pvalue if np.ptp(d) else float(d[0] == 0) for d in differences]
    order, worst, small = np.argsort(p), 0.0, {}
    for rank, i in enumerate(order):
        worst = max(worst, p[i] * (len(p) - rank))
        small[i] = worst < 0.05
    signs = [SUPPORTED if np.mean(d) > 0 else CONTRADICTED for d in differences]
    return [sign if small[i] else NOT_DETECTED for i, sign in enumerate(signs)]


def verdicts(family):
    return list(why.found(family)["verdict"])


def test_faster_by_plain_scipy():
    found = verdicts(why.FASTER)
    limits = {s: setting.max_steps for s, setting in GRIDS["faster"].settings.items()}
    steps = stored("faster", lambda r: r["steps"])
    missing = {s for s, v in steps.items() if None in v}
    logs = {s: np.log([n or limits[s] for n in v]) for s, v in steps.items()}
    each = stored("faster", lambda r: r["steps"] and r["cpu_seconds"] / r["steps"])

    def arm(network, norm, like=None):
        of = [s for s in logs if s.startswith(f"{network}, {like or norm}, ")]
        best = min(of, key=lambda s: logs[s].mean())
        return best.replace(f", {like}, ", f", {norm}, ") if like else best

    def seconds(network, norm):
        setting = arm(network, norm)
        of = [v for s in each if s.startswith(f"{network}, {norm}, ") for v in each[s] if v]
        own = [v or np.mean(of) for v in each[setting]]
        return logs[setting] + np.log(own)

    pairs, sure = [], []
    for norm, kind in (("BN", ""), ("BN", "none"), ("BN", "seconds"), ("LN", "")):
        for network in why.NETWORKS:
            none, own = arm(network, "none"), arm(network, norm, "none" if kind == "none" else None)
            if kind == "seconds":
                pairs.append(seconds(network, "none") - seconds(network, norm))
            else:
                pairs.append(logs[none] - logs[own])
            sure.append(own not in missing)
    expected = by_holm(pairs)
    expected = [
        v if ok or v != SUPPORTED else NOT_DETECTED for v, ok in zip(expected, sure, strict=True)
    ]
    assert found == expected


def test_larger_rates_by_plain_scipy():
    found = verdicts(why.LARGER_RATES)
    nearest = arrays("largest_rate", lambda r: max(r["tried"], key=lambda t: t[1])[0])
    rate = arrays("largest_rate", lambda r: r["largest_rate"])
    for setting in (s for s in rate if s.endswith(", none")):
        rate[setting] = np.where(np.isnan(rate[setting]), nearest[setting], rate[setting])
    rate = {s: np.log(v) for s, v in rate.items()}
    pairs = [(norm, n) for norm in ("BN", "LN") for n in why.NETWORKS] + [("GN", "CNN")]
    expected = by_holm([rate[f"{n}, {norm}"] - rate[f"{n}, none"] for norm, n in pairs])
    assert found == expected


def test_gradients_by_plain_scipy():
    found = verdicts(why.GRADIENTS)
    smallest = arrays("gradients", lambda r: max(r["smallest"], 2.0**-149))
    largest = arrays("gradients", lambda r: r["largest"])

    def spread(norm, kind, init):
        of = [f"{norm}, {kind}, depth {d}, {init}" for d in (5, 10, 20, 40)]
        return np.log(np.max([largest[s] for s in of], 0) / np.min([smallest[s] for s in of], 0))

    small, xavier, he = "N(0, 0.01)", "Xavier", "He"
    places = [("plain", small), ("plain", xavier)]
    places += [("residual", init) for init in (small, xavier, he)] + [("plain", he)]
    expected = by_holm([spread("none", *p) - spread("BN", *p) for p in places])
    assert found == expected


def test_very_deep_by_plain_scipy():
    found = verdicts(why.VERY_DEEP)
    accuracy = arrays("very_deep", lambda r: r["test_accuracy"])

    def best(norm, kind, depth):
        of = [v for s, v in accuracy.items() if s.startswith(f"{norm}, {kind}, depth {depth}, ")]
        return max(of, key=np.mean)

    arms = [(n, "plain", d) for n in ("BN", "LN", "GN") for d in (20, 40)]
    arms += [("BN", "residual", d) for d in (20, 40)]
    expected = by_holm([best(*arm) - best("none", *arm[1:]) for arm in arms])
    assert found == expected


def test_smoothness_by_plain_scipy():
    found = verdicts(why.SMOOTH)
    probes = stored("smoothness", lambda r: {p["level"]: p for p in r["probes"]})
    seeds = range(len(probes["none"]))
    shared = [set.intersection(*(set(probes[norm][i]) for norm in probes)) for i in seeds]

    def log(norm, probe):
        return np.array(
            [np.mean([np.log(probes[norm][i][level][probe]) for level in shared[i]]) for i in seeds]
        )

    names = ("loss_range", "gradient_change", "beta")
    expected = by_holm([log("none", p) - log(norm, p) for norm in ("BN", "LN") for p in names])
    assert found == expected


def test_layer_norm_by_plain_scipy():
    found = verdicts(why.LAYER_NORM)
    test, val = (
        arrays("layer_norm", lambda r, c=c: r[c]) for c in ("test_accuracy", "val_accuracy")
    )
    ada = max((s for s in val if s.startswith("AdaNorm")), key=lambda s: val[s].mean())
    pairs = [("LN", "none"), ("LN-simple", "LN"), ("LN-simple", "DetachNorm"), (ada, "LN")]
    assert found == by_holm([test[a] - test[b] for a, b in pairs])


# --------------------------------------------------------------------------------- sentences


def parts(*effects, spread=0.05):
    d = np.random.default_rng(0).normal(0, spread, 10)
    table = pd.DataFrame({f"a{i}": e + d - d.mean() for i, e in enumerate(effects)})
    table["b"] = 0.0
    return contrasts(table, {f"P{i}": (f"a{i}", "b") for i in range(len(effects))})


E, LESS = "(2.72×)", "(0.37×)"


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ((1, 1), f"It is more at P0 {E} and at P1 {E}."),
        ((-1, -1), f"It is less at P0 {LESS} and at P1 {LESS}."),
        ((0, 0), "No difference was detected at P0 and at P1."),
        ((-1, 1), f"It is more at P1 {E}; it is less at P0 {LESS}."),
        ((0, 1), f"It is more at P1 {E}; no difference was detected at P0."),
    ],
)
def test_a_sentence_has_each_part_with_its_verdict_and_the_table_s_number(effects, expected):
    words = ("it is more", "it is less", "no difference was detected")
    found = parts(*effects)
    assert why_sentences.in_each(found, *words, name="at {}".format) == expected
    headed = why_sentences.in_each(found, *words, name="at {}".format, head="In CNNs")
    assert headed == f"In CNNs: {expected[0].lower()}{expected[1:]}"


def test_a_sentence_in_points_has_signs():
    said = why_sentences.in_each(parts(-1, 0), "above", "below", ratio=False)
    assert said == "Below P0 (-1.0 points); no difference was detected in P1."


def test_a_bound_is_said_to_be_one():
    found = parts(np.log(4e37), 1)
    said = why_sentences.in_each(found, "more in", "less in", at_least={"P0"})
    assert said == "More in P0 (at least 4·10³⁷×) and P1 (2.72×)."


def test_a_sentence_says_what_was_left_out():
    found = parts(1).assign(left_out=2, verdict=NOT_DETECTED)
    said = why_sentences.in_each(found, "more", "less")
    assert said.endswith("; 2 seeds are left out, which withholds any support.")
    assert "1 seed is left out" in why_sentences.in_each(found.assign(left_out=1), "more", "less")


def judged(**effects):
    found = parts(*effects.values())
    found.index = pd.MultiIndex.from_tuples([("It is", part) for part in effects])
    return found.rename_axis(["claim", "part"])


def test_rates_are_said_norm_by_norm():
    said = why_sentences.on_rates(judged(**{"BN, CNN": 1, "BN, MLP": 0, "GN, CNN": -1}))
    assert said == [
        f"BN trains at larger rates in the CNN {E}; BN was not found to differ in the MLP.",
        f"GN only trains at smaller ones in the CNN {LESS}.",
    ]


def test_gradients_are_said_kind_by_kind():
    small = "N(0, 0.01)"
    effects = {f"plain, {small}": 1, "plain, He": -1, f"residual, {small}": 1, "residual, He": 0}
    said = why_sentences.on_gradients(judged(**effects), at_least={f"plain, {small}"})
    less = f"with BN, gradients spread less from {small}"
    assert said == [
        f"Plain CNNs: {less} (at least 2.72×); gradients spread more with BN from He {LESS}.",
        f"CNNs with skips: {less} {E}; no difference was detected from He.",
    ]


def test_depths_are_said_one_by_one():
    effects = {"BN, plain, depth 20": 1, "LN, plain, depth 20": 0, "BN, residual, depth 20": -1}
    assert why_sentences.on_depth(judged(**effects)) == [
        "Plain, depth 20: accuracy is higher with BN (+1.0 points); no difference was detected "
        "with LN.",
        "With skips, depth 20: accuracy is lower with BN (-1.0 points).",
    ]


def test_how_many_seeds_stand_behind_is_said():
    assert why_sentences.standing(10, 10) == "All 10 seeds stand behind this section."
    assert "Only 3 of the 10 planned seeds" in why_sentences.standing(3, 10)


def test_runs_in_which_no_rate_trained_are_said():
    assert why_sentences.untrained([]) == []
    said = why_sentences.untrained(["CNN, none", "ReLU MLP, BN", "ReLU MLP, BN"])
    assert "In one run of the CNN without a norm, no rate trained." in said
    assert "In 2 runs of the ReLU MLP with BN, no rate trained." in said


def test_a_price_within_the_runs_range_is_none():
    ratios = pd.DataFrame({"none": [1.0] * 3, "BN": [1.4, 1.5, 1.6], "LN": [0.9, 0.95, 1.1]})
    free = "no price was measurable with LN (0.95×; 0.90 to 1.10× over the runs)."
    said = why_sentences.compared_costs(ratios)
    assert said == f"A step takes 1.50× as long with BN as without a norm; {free}"
    assert why_sentences.compared_costs(ratios.drop(columns="BN")) == f"N{free[1:]}"


def test_the_theorem_and_the_share_are_said():
    said = why_sentences.exactness(SUPPORTED, "largest error 0 in 10 draws")
    assert said == "The theorem holds to rounding: largest error 0 in 10 draws."
    assert why_sentences.exactness(CONTRADICTED, "…").startswith("The theorem fails")
    said = why_sentences.share_taken(pd.DataFrame({"first": [0.01, 0.02], "second": [0.03, 0.02]}))
    assert "2.0% of" in said and "(1.0 to 3.0% by layer and seed)" in said


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (-1, "costs 1.000 [0.9"),
        (1, "even gains accuracy: 1.000 [0.9"),
        (0, "was not found to change accuracy: "),
    ],
)
def test_what_detaching_costs_is_said_whatever_it_is(shift, expected):
    noise = np.random.default_rng(RNG).normal(0, 0.05, 10)
    scores = pd.DataFrame({"LN-simple": 97 + 0 * noise, "LN": 97.0})
    scores["σ detached"] = 97 + shift + noise - noise.mean()
    said = why_sentences.cost_of_detaching(scores)
    assert expected in said and ("does not explain" in said) == (shift == -1)
    assert ("the worst of all variants" in said) == (shift == -1)
    scores["DetachNorm"] = 90.0
    assert "the worst" not in why_sentences.cost_of_detaching(scores)


def test_verdicts_are_counted():
    said = why_sentences.tally([SUPPORTED, SUPPORTED, CONTRADICTED])
    assert said == "Of the 3 claims, 2 are supported, 1 contradicted."
    assert why_sentences.tally([NOT_DETECTED]) == "Of the 1 claims, 1 is not detected."
