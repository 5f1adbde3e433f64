"""From the grids behind "why it works" to tables: a row per seed, a column per arm.

Tables that compare by ratios hold logarithms. Where an arm was run at several learning rates, its
column has those at its best one: the best in the mean over the seeds, chosen on the very numbers
that are compared, for every arm alike and from equally many rates.
"""

import numpy as np
import pandas as pd

from backstage.evidence.tables import accuracies

# ---------------------------------------------------------------------------------------- faster


def counted(results: pd.DataFrame) -> pd.DataFrame:
    """Steps and CPU seconds of every run; one that never got there counts as all steps it had.

    That is less than it would have needed, so it flatters its arm: see ``bounds``. Its seconds are
    that many steps at what a step of its arm takes on average.
    """
    steps, seconds = (results[c].astype(float) for c in ("steps", "cpu_seconds"))
    per_step = (seconds / steps).groupby([results["network"], results["norm"]]).transform("mean")
    full = steps.fillna(results["max_steps"])
    return results.assign(
        reached=steps.notna(), steps=full, cpu_seconds=seconds.fillna(full * per_step)
    )


def fastest_rates(results: pd.DataFrame) -> pd.Series:
    """The rate with the fewest steps, as a geometric mean over the seeds, by network and norm."""
    runs = counted(results)
    mean = np.log(runs["steps"]).groupby([runs["network"], runs["norm"], runs["lr"]]).mean()
    best = mean.groupby(level=["network", "norm"], sort=False).idxmin()
    return best.map(lambda place: place[2])


def arms(results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs of each arm at its own best rate, and all at the best one without a norm."""
    runs, best, found = counted(results), fastest_rates(results), {}
    for network, norm in best.index:
        own = runs[(runs["network"] == network) & (runs["norm"] == norm)].set_index("seed")
        name = f"{norm}, {network}"
        found[name] = own[own["lr"] == best[network, norm]]
        found[f"{name}, shared rate"] = own[own["lr"] == best[network, "none"]]
    return found


def log_costs(results: pd.DataFrame) -> pd.DataFrame:
    """Logarithms of the steps and CPU seconds to the target, as in "BN, CNN: steps"."""
    found = {}
    for name, runs in arms(results).items():
        found[f"{name}: steps"] = np.log(runs["steps"])
        found[f"{name}: seconds"] = np.log(runs["cpu_seconds"])
    return pd.DataFrame(found)


def bounds(results: pd.DataFrame) -> set[str]:
    """The columns of ``log_costs`` in which a run never got there."""
    stopped = [name for name, runs in arms(results).items() if not runs["reached"].all()]
    return {f"{name}: {what}" for name in stopped for what in ("steps", "seconds")}


# --------------------------------------------------------------------------------- larger rates


def largest_rates(results: pd.DataFrame) -> pd.DataFrame:
    """The largest rate that trains, as in "BN, CNN"; NaN for a norm with which none does.

    Where no rate trains without a norm, the one with the highest accuracy counts, the nearest to
    training: that flatters no norm, and so it speaks against the claim.
    """
    nearest = results["tried"].map(lambda tried: max(tried, key=lambda pair: pair[1])[0])
    rate = results["largest_rate"].astype(float)
    rate = rate.fillna(nearest.where(results["norm"] == "none"))
    arm = results["norm"] + ", " + results["network"]
    return results.assign(arm=arm, rate=rate).pivot(index="seed", columns="arm", values="rate")


def log_largest_rates(results: pd.DataFrame) -> pd.DataFrame:
    """Their logarithms."""
    return np.log(largest_rates(results))


# ------------------------------------------------------------------------------------- gradients

# The least that a float32 can hold. A gradient that comes out as 0 is smaller still, so counting it
# as this makes vanishing look better than it is.
LEAST = 2.0**-149


def vanished(results: pd.DataFrame) -> set[str]:
    """Where a gradient came out as 0, as in "none, plain, He": the spread is larger still."""
    kind = results["residual"].map({True: "residual", False: "plain"})
    arm = results["norm"] + ", " + kind + ", " + results["init"]
    return set(arm[results["smallest"] < LEAST])


def log_gradient_ranges(results: pd.DataFrame) -> pd.DataFrame:
    """How far apart gradients lie, as in "BN, plain, He": log of the largest over the smallest.

    Of ‖∂L/∂W_l‖ in all layers of the networks of every depth: whether gradients shrink or grow from
    layer to layer, or in all layers together as the network gets deeper, it shows.
    """
    kind = results["residual"].map({True: "residual", False: "plain"})
    rows = results.assign(
        arm=results["norm"] + ", " + kind + ", " + results["init"],
        smallest=results["smallest"].clip(lower=LEAST),
    ).groupby(["seed", "arm"])
    return (np.log(rows["largest"].max()) - np.log(rows["smallest"].min())).unstack()


# ------------------------------------------------------------------------------------- very deep


def at_best_rate(results: pd.DataFrame) -> pd.DataFrame:
    """Each arm's accuracies in percent at its best rate, as in "BN, plain, depth 20"."""
    arm = results["setting"].str.rpartition(", rate ")[0]
    mean = results["test_accuracy"].groupby([arm, results["lr"]]).mean().unstack()
    best = arm.map(mean.idxmax(axis=1))
    return accuracies(results.assign(setting=arm)[results["lr"] == best])


# ------------------------------------------------------------------------------------ smoothness

PROBES = {
    "loss_range": "loss range",
    "gradient_change": "gradient change",
    "beta": "effective β",
}


def common_probes(results: pd.DataFrame) -> pd.DataFrame:
    """Every probe at the losses that all arms of its seed reached: a row for each."""
    rows = [
        {"seed": run.seed, "norm": run.norm} | probe
        for run in results.itertuples()
        for probe in run.probes
    ]
    probes = pd.DataFrame(rows)
    arms_there = probes.groupby(["seed", "level"])["norm"].transform("nunique")
    return probes[arms_there == results["norm"].nunique()]


def log_smoothness(results: pd.DataFrame) -> pd.DataFrame:
    """Logarithms of the three probes, as in "BN: effective β", the mean over the losses."""
    probes = common_probes(results).set_index(["seed", "norm"])[list(PROBES)]
    table = np.log(probes).groupby(level=["seed", "norm"]).mean().unstack()
    table.columns = [f"{norm}: {PROBES[probe]}" for probe, norm in table.columns]
    return table


# ------------------------------------------------------------------------------------ layer norm


def layer_norm_accuracies(results: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy in percent by variant; AdaNorm's with the C that validates best."""
    mean = accuracies(results, "val_accuracy").mean()
    candidates = [name for name in mean.index if name.startswith("AdaNorm")]
    best = mean[candidates].idxmax()
    table = accuracies(results).drop(columns=[name for name in candidates if name != best])
    return table.rename(columns={best: "AdaNorm"})
