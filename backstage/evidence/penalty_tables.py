"""From the rows of the grids on penalties to tables: a row per seed, a column per quantity."""

import numpy as np
import pandas as pd

from backstage.evidence.tables import accuracies

SHARES = {
    "zeros": "zeros",
    "below_1e-3": "below 0.001",
    "test_accuracy": "whole",
    "pruned_50": "pruned by 50%",
    "pruned_70": "pruned by 70%",
    "pruned_90": "pruned by 90%",
}


def shares(results: pd.DataFrame) -> pd.DataFrame:
    """Of ``sparsity``, in percent, as in "proximal, zeros" and "subgradient, pruned by 90%"."""
    tables = [accuracies(results, column).add_suffix(f", {n}") for column, n in SHARES.items()]
    return pd.concat(tables, axis=1)


def turns(results: pd.DataFrame) -> pd.DataFrame:
    """Of ``equilibrium``: logarithms of the angle per step, and of √(2ηλ) in a column beside it."""
    expected = np.sqrt(2 * results["lr"] * results["l2"])
    both = results.assign(found=np.log(results["angle"]), expected=np.log(expected))
    wide = both.pivot(index="seed", columns="setting", values=["found", "expected"])
    order = list(dict.fromkeys(results["setting"]))
    return pd.concat([wide["found"][order], wide["expected"][order].add_suffix(", √(2ηλ)")], axis=1)


def angle_pairs(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Pairs for ``equivalences``: each setting's angle against its √(2ηλ)."""
    return {s: (s, f"{s}, √(2ηλ)") for s in table if not s.endswith("√(2ηλ)")}


def gaps(results: pd.DataFrame) -> pd.DataFrame:
    """Training minus test accuracy, in points."""
    return accuracies(results, "train_accuracy") - accuracies(results)


def chosen(results: pd.DataFrame) -> dict[str, tuple[float, ...]]:
    """Of ``few_images_tune``: the strength of the lowest mean validation loss, size by size.

    As ``evidence.measures.few_images.CHOSEN`` has it.
    """
    of = results["setting"].str.extract(
        r"(?P<penalty>.+, L\d), (?P<size>\d+), λ = (?P<strength>.+)"
    )
    rows = results.assign(**of).astype({"size": int, "strength": float})
    means = rows.groupby(["penalty", "size", "strength"])["val_loss"].mean().unstack()
    best = means.idxmin(axis=1).unstack()
    return {penalty: tuple(best.loc[penalty]) for penalty in best.index}
