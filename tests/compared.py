"""What docs/RESULTS.md compares: for each finding its file, its kind and its arms, seed by seed."""

from functools import cache
from itertools import product

import numpy as np
import pandas as pd

from backstage.evidence import load
from backstage.evidence.measures import faster
from backstage.evidence.measures.few_images import SIZES

MLPS = ("sigmoid MLP", "ReLU MLP")
NETWORKS = (*MLPS, "CNN")
STARTS = ("default", "He")
NORMS = ("BN", "LN", "GN")


@cache
def rows(name):
    return load(name)


@cache
def arms(name, *columns, value="test_accuracy", scale=100):
    """A function of the columns' values: the arm's values, seed by seed."""
    table = scale * rows(name).pivot(index="seed", columns=list(columns), values=value)
    return lambda *key: table[key if len(columns) > 1 else key[0]].to_numpy(dtype=float)


def at_best_rate(name, *columns, chosen_on):
    """The rows of each arm at the rate that is best in the mean over the seeds."""
    table = rows(name)
    mean = table.groupby([*columns, "lr"])[chosen_on].mean().unstack()
    best = mean.idxmax(axis=1).rename("best").reset_index()
    table = table.merge(best, on=list(columns))
    table = table[table["lr"] == table["best"]].set_index("seed").sort_index()
    groups = {k: 100 * g["test_accuracy"].to_numpy() for k, g in table.groupby(list(columns))}
    return lambda *key: groups[key]


@cache
def steps(target):
    """Steps to the target, at the best rate of each network and norm, and at none's best."""
    runs = rows("faster")
    reached = [faster.steps_to(target, accuracy, 100) for accuracy in runs["accuracy"]]
    runs = runs.assign(steps=pd.Series(reached, dtype=float).fillna(runs["max_steps"]))
    mean = np.log(runs["steps"]).groupby([runs["network"], runs["norm"], runs["lr"]]).mean()
    best = {key[:2]: key[2] for key in mean.groupby(level=[0, 1]).idxmin()}
    table = runs.set_index(["network", "norm", "lr"]).sort_index()

    def of(network, norm, shared=False):
        lr = best[network, "none" if shared else norm]
        return table.loc[(network, norm, lr)].sort_values("seed")["steps"].to_numpy()

    return of


def fewer_steps(norm, shared=False):
    return {
        f"{network} {target:.0%}": (
            steps(target)(network, "none"),
            steps(target)(network, norm, shared),
        )
        for network in NETWORKS
        for target in (0.95, 0.96, 0.97)
    }


def by_either_statistics():
    """BN's sigmoid MLP, each column at the rate that is best for it."""
    runs, found = rows("faster_batch_statistics"), {}
    for column, label in (("steps", "running averages"), ("batch_steps", "batch statistics")):
        table = runs.assign(n=runs[column].astype(float).fillna(runs["max_steps"]))
        best = np.log(table["n"]).groupby(table["lr"]).mean().idxmin()
        bn = table[table["lr"] == best].sort_values("seed")["n"].to_numpy()
        found[label] = (steps(0.97)("sigmoid MLP", "none"), bn)
    return found


def less_time():
    """Steps to 97%, times what a step costs, measured in turns."""
    cost = {"CNN": "CNN, batch 32"} | dict.fromkeys(MLPS, "ReLU MLP, batch 60")
    found = {}
    for network in NETWORKS:
        ratios = rows("cost").set_index("setting").loc[cost[network], "ratio"]
        found[network] = (
            steps(0.97)(network, "none"),
            steps(0.97)(network, "BN") * np.median([r["BN"] for r in ratios]),
        )
    return found


@cache
def largest(name, norm, **where):
    """Where no rate trains without a norm, the one that came nearest: against the claim."""
    table = rows(name).query("norm == @norm").sort_values("seed")
    for column, value in where.items():
        table = table[table[column] == value]
    nearest = table["tried"].map(lambda tried: max(tried, key=lambda pair: pair[1])[0])
    return table["largest_rate"].astype(float).fillna(nearest).to_numpy()


@cache
def spread(name, norm, columns):
    """The largest gradient over the smallest, of all layers and depths; 0 as the least float32."""
    table = rows(name)
    for column, value in columns:
        table = table[table[column] == value]
    table = table[table["norm"] == norm].groupby("seed")
    smallest = table["smallest"].min().clip(lower=2.0**-149)
    return (table["largest"].max() / smallest).to_numpy()


def spreads(name, *places):
    return {
        label: (spread(name, "none", columns), spread(name, "BN", columns))
        for label, columns in places
    }


def growth(column, network, norm, lr=0.1):
    table = rows("gradient_growth").query(
        "network == @network and norm == @norm and depth == 40 and lr == @lr and not residual"
    )
    return table[column].to_numpy()


@cache
def probes(norm, start, probe):
    """Means over ten losses, of the seeds in which all arms from both starts reached them all."""
    table = rows("smoothness").dropna(subset="beta")
    table = table[table.groupby("seed")["setting"].transform("nunique") == 8]
    return table.query("norm == @norm and start == @start").sort_values("seed")[probe].to_numpy()


def smoother(norm, **probed):
    return {
        f"{label}, {start}": (probes("none", start, p), probes(norm, start, p))
        for start in STARTS
        for p, label in probed.items()
    }


RAW = {"loss_range": "loss range", "gradient_change": "gradient change", "beta": "effective β"}


def spread_of_last(accuracies):
    """SD around a straight line through the last five epochs' accuracies, for each seed."""
    y, x = np.array([list(a)[-5:] for a in accuracies]).T, np.arange(5)
    slope, start = np.polyfit(x, y, 1)
    return np.sqrt(np.sum((y - np.outer(x, slope) - start) ** 2, axis=0) / 3)


def unsteadiness(name, setting):
    runs = rows(name).query("setting == @setting").sort_values("seed")
    return spread_of_last(h["test_accuracy"] for h in runs["history"])


def with_precise_statistics():
    bn = rows("steadiness").sort_values("seed")
    running, precise = (spread_of_last(bn[f"{c}_accuracy"]) for c in ("running", "precise"))
    return {
        "BN + L1 + L2, than with running averages": (running, precise),
        "GN + L1, than BN + L1 + L2": (precise, unsteadiness("constant", "GN + L1")),
    }


deep = at_best_rate("very_deep", "norm", "residual", "depth", chosen_on="test_accuracy")
deep_ten = at_best_rate(
    "very_deep_ten_epochs", "norm", "residual", "depth", chosen_on="val_accuracy"
)
start = at_best_rate("two_starts", "norm", "start", chosen_on="val_accuracy")
start_on_clothes = at_best_rate("fashion_two_starts", "norm", "start", chosen_on="val_accuracy")
variant = arms("layer_norm", "norm", "scale")
batch = arms("batch_size", "norm", "batch_size")
batch_precise = arms("batch_size", "norm", "batch_size", value="precise_test_accuracy")
square = arms("batch_size_sqrt", "norm", "batch_size")
ghost = arms("ghost", "norm_batch", "batch_size")
ghost_precise = arms("ghost", "norm_batch", "batch_size", value="precise_test_accuracy")
sparse = arms("sparsity", "setting", value="pruned_90")
zeros = arms("sparsity", "setting", value="zeros")
rate = arms("matched_rate", "setting")
few = arms("few_images", "setting")
l2_or = arms("l2_or_rate", "setting")
replicate, source = arms("replicate", "setting"), arms("source", "setting")
clothes = arms("fashion_experiments", "setting")
clothes_ghost = arms("fashion_ghost", "setting")
clothes_precise = arms("fashion_ghost", "setting", value="precise_test_accuracy")
detached = arms("sigma_detached", "setting")
domain = arms("new_domain", "norm", "statistics", "tuning", "batch_size", "lr")
transformer = arms("pre_post_norm", "position", "depth", "lr", "warm_up")
UNTOUCHED = ("as trained", "none", 32, 0.003)
UPDATED = ("updated", "none", 32, 0.003)


def gains(norm, *what, sizes=SIZES[:1]):
    return {
        f"{w}, {n:,}": (few(f"{norm} + {w}, {n}"), few(f"{norm}, {n}")) for w in what for n in sizes
    }


def turning(setting):
    of = rows("equilibrium").query("setting == @setting")
    return of["angle"].to_numpy(), np.sqrt(2 * of["lr"] * of["l2"]).to_numpy()


def change(arm, norm):
    """What a norm gains from batches of 2 in place of 32."""
    return arm(norm, 2) - arm(norm, 32)


PENALTIES = ("L1", "L2", "L1 + L2")
PLAIN_CNN = (("network", "CNN"), ("residual", False), ("lr", 0.1))
SETTINGS_OF_L2 = {
    "L2 on all": "L2 on all",
    "on convolutions": "L2 on convolutions",
    "on the head": "L2 on head",
    "no L2, rate x 3": "no L2, rate x 3",
    "no L2, length kept": "no L2, length x 1",
}


def largest_rates(name, column, *arms):
    return {
        f"{norm}, {at}": tuple(largest(name, n, **{column: at}) for n in (norm, "none"))
        for norm, at in arms
    }


def in_spite_of_noise():
    """What shifting outputs cost: lower loss than without a norm, and larger shifts."""
    found = {}
    for what in ("loss", "shift"):
        arm = arms("covariate_shift", "norm", "noise", value=what, scale=1)
        for noise in (0.5, 1.0):
            pair = arm("BN", noise), arm("none", 0.0)
            found[f"{what}, noise {noise:g}"] = pair if what == "shift" else pair[::-1]
    return found


def frozen_or_not():
    return {
        f"in {n}, rate {lr:g}": tuple(
            domain("BN", "as trained", how, n, lr) for how in ("frozen", "training")
        )
        for n in (32, 4)
        for lr in (0.001, 0.003, 0.01)
    }


def of_transformers(better, other):
    """Twelve layers, where arms are (position, warm-up)."""
    return {
        f"rate {lr:g}": tuple(transformer(position, 12, lr, w) for position, w in (better, other))
        for lr in (0.001, 0.003, 0.01)
    }


def from_start(which, start=start):
    return {norm: (start(norm, which), start("none", which)) for norm in NORMS}


def at_starts(residual, *inits):
    places = ((i, (("init", i), ("residual", residual))) for i in inits)
    return spreads("gradients", *places)


def calmed():
    """Growth per layer at the start over that after one step."""
    return {
        f"{n}, rate {lr:g}": (growth("growth", n, "BN", lr), growth("after_growth", n, "BN", lr))
        for n in ("CNN", "MLP")
        for lr in (0.01, 0.1, 1.0)
    }


def deeper(residual, *norms):
    return {
        f"{norm}, {depth}": (deep(norm, residual, depth), deep("none", residual, depth))
        for norm in norms
        for depth in (20, 40)
    }


def in_ten_epochs():
    return {
        f"{kind}, {depth}": (deep_ten("BN", residual, depth), deep_ten("none", residual, depth))
        for kind, residual in (("plain", False), ("with skips", True))
        for depth in (20, 40)
    }


def of_variants(better, **others):
    return {label: (variant(better, 1), variant(other, 1)) for label, other in others.items()}


def ghosts(arm, what=""):
    return {f"in {n}{what}": (arm(32, n), arm(2, n)) for n in (32, 128)}


def loses_more(arm, than, norm="BN"):
    return {f"than {other}": (change(arm, other), change(arm, norm)) for other in than}


def gains_of(*norms, sizes):
    return {
        f"{norm}, {label}": pair
        for norm in norms
        for label, pair in gains(norm, *PENALTIES, sizes=sizes).items()
    }


def against_both(arm):
    """GN + L1 and each of the other two experiments."""
    return {f"than {other}": (arm("GN + L1"), arm(other)) for other in ("BN + L1 + L2", "LN + L2")}


def steadier(name, a, *others):
    return {f"{a}, than {b}": (unsteadiness(name, b), unsteadiness(name, a)) for b in others}


# The file, the kind ("−", "/" or the margin of a claim of sameness), and the arms by their labels.
COMPARED = {
    "a1": ("faster", "/", fewer_steps("BN")),
    "a2": ("faster", "/", fewer_steps("BN", shared=True)),
    "a3": ("faster", "/", less_time()),
    "a4": ("faster_batch_statistics", "/", by_either_statistics()),
    "a5": ("largest_rate", "/", largest_rates("largest_rate", "network", *product(["BN"], MLPS))),
    "a6": ("largest_rate", "/", largest_rates("largest_rate", "network", *product(["LN"], MLPS))),
    "a7": (
        "largest_rate_starts",
        "/",
        largest_rates("largest_rate_starts", "start", *product(NORMS, STARTS)),
    ),
    "a8": ("two_starts", "−", from_start("default")),
    "a9": ("two_starts", "−", from_start("He")),
    "a10": ("gradients", "/", at_starts(False, "N(0, 0.01)", "Xavier")),
    "a11": ("gradients", "/", at_starts(True, "N(0, 0.01)", "Xavier", "He")),
    "a12": ("gradient_growth", "/", spreads("gradient_growth", ("CNN", PLAIN_CNN))),
    "a13": (
        "gradient_growth",
        "/",
        {n: (growth("growth", n, "BN"), growth("growth", n, "none")) for n in ("CNN", "MLP")},
    ),
    "a14": ("gradient_growth", "/", calmed()),
    "a15": ("very_deep", "−", deeper(False, *NORMS)),
    "a16": ("very_deep", "−", deeper(True, "BN")),
    "a17": ("very_deep_ten_epochs", "−", in_ten_epochs()),
    "a18": ("covariate_shift", "/", in_spite_of_noise()),
    "a19": ("smoothness", "/", smoother("BN", **RAW)),
    "a20": ("smoothness", "/", smoother("BN", scale_free_beta="β·‖w‖²")),
    "b1": ("faster", "/", fewer_steps("LN")),
    "b2": ("smoothness", "/", smoother("LN", **RAW)),
    "b3": ("smoothness", "/", smoother("LN", scale_free_beta="β·‖w‖²")),
    "b4": ("layer_norm", "−", {"": (variant("LN", 1), variant("none", 1))}),
    "b5": (
        "layer_norm",
        "−",
        {n: (variant(n, 1), variant("LN", 1)) for n in ("LN-simple", "AdaNorm")},
    ),
    "b6": (
        "layer_norm",
        "−",
        of_variants("LN-simple", both="DetachNorm", σ="σ detached", μ="μ detached"),
    ),
    "b7": (
        "sigma_detached",
        "−",
        {
            "projected, than detached": (detached("σ detached, projected"), detached("σ detached")),
            "LN-simple, than projected": (detached("LN-simple"), detached("σ detached, projected")),
        },
    ),
    "c1": (
        "batch_size",
        0.3,
        {f"{n}": (batch("GN", n), batch("GN", 32)) for n in (2, 4, 8, 16, 128)},
    ),
    "c2": ("batch_size_sqrt", 0.3, {"2": (square("GN", 2), square("GN", 32))}),
    "c3": ("ghost", "−", ghosts(ghost) | ghosts(ghost_precise, ", precise")),
    "c4": ("ghost", "−", {f"in {n}": (batch("GN", n), ghost(2, n)) for n in (32, 128)}),
    "c5": (
        "batch_size",
        "−",
        loses_more(batch, ("GN", "LN"))
        | {"than GN, precise": (change(batch, "GN"), change(batch_precise, "BN"))},
    ),
    "c6": ("batch_size", "−", {"": (change(batch_precise, "BN"), change(batch, "BN"))}),
    "c7": ("batch_size", "−", {"": (change(batch, "none"), change(batch, "BN"))}),
    "c8": ("batch_size", "−", loses_more(batch, ("GN", "LN"), norm="none")),
    "c9": ("batch_size_sqrt", "−", loses_more(square, ("none", "GN", "LN"))),
    "d1": ("sparsity", "−", {"": (zeros("proximal"), zeros("subgradient"))}),
    "d2": (
        "sparsity",
        "−",
        {
            "subgradient, than without L1": (sparse("subgradient"), sparse("no penalty")),
            "proximal, than subgradient": (sparse("proximal"), sparse("subgradient")),
        },
    ),
    "d3": ("equilibrium", "1.1", {s: turning(s) for s in rows("equilibrium")["setting"].unique()}),
    "d4": ("matched_rate", 0.5, {"": (rate("L2"), rate("no L2, matched rate"))}),
    "d5": ("matched_rate", "−", {"": (rate("L2"), rate("no L2"))}),
    "d6": ("few_images", "−", gains("BN", *PENALTIES)),
    "d7": (
        "l2_or_rate",
        "−",
        {label: (l2_or(s), l2_or("no L2, rate x 1")) for label, s in SETTINGS_OF_L2.items()},
    ),
    "d8": ("few_images", "−", gains_of("GN", "LN", sizes=SIZES[:1])),
    "d9": ("few_images", "−", gains_of("GN", "LN", "BN", sizes=SIZES[1:])),
    "d10": ("few_images", "−", gains("GN", "augmentation", sizes=SIZES)),
    "d11": ("few_images", "−", gains("GN", "dropout", sizes=SIZES)),
    "d12": ("replicate", "−", against_both(replicate)),
    "d13": ("replicate", "−", {"": (replicate("GN + L1"), replicate("GN"))}),
    "d14": ("source", "−", against_both(source)),
    "d15": ("constant", "/", steadier("constant", "GN + L1", "BN + L1 + L2", "LN + L2")),
    "d16": ("steadiness", "/", with_precise_statistics()),
    "d17": (
        "replicate",
        "/",
        steadier("replicate", "GN + L1", "GN") | steadier("replicate", "BN + L1", "BN + L1 + L2"),
    ),
    "e1": (
        "new_domain",
        "−",
        {
            f"than {norm} as trained": (domain("BN", *UPDATED), domain(norm, *UNTOUCHED))
            for norm in NORMS
        },
    ),
    "e2": ("new_domain", "−", frozen_or_not()),
    "e3": ("pre_post_norm", "−", of_transformers(("pre", 0), ("post", 0))),
    "e4": ("pre_post_norm", "−", of_transformers(("post", 50), ("post", 0))),
}
# The same findings on Fashion-MNIST.
ON_CLOTHES = {
    "a8": ("fashion_two_starts", "−", from_start("default", start_on_clothes)),
    "a9": ("fashion_two_starts", "−", from_start("He", start_on_clothes)),
    "c3": (
        "fashion_ghost",
        "−",
        {
            label: (arm("BN 32 in 32"), arm("BN 2 in 32"))
            for label, arm in {"in 32": clothes_ghost, "in 32, precise": clothes_precise}.items()
        },
    ),
    "c4": (
        "fashion_ghost",
        "−",
        {"in 32": (clothes_ghost("GN, batch 32"), clothes_ghost("BN 2 in 32"))},
    ),
    "d12": ("fashion_experiments", "−", against_both(clothes)),
    "d13": ("fashion_experiments", "−", {"": (clothes("GN + L1"), clothes("GN"))}),
}
