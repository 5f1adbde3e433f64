"""From a grid's rows to tables that can be compared: a row per seed, a column per setting."""

import numpy as np
import pandas as pd

REFERENCE_BATCH = 32


def accuracies(results: pd.DataFrame, column: str = "test_accuracy") -> pd.DataFrame:
    """Final accuracy in percent, the settings in the grid's order. NaN for a seed that failed."""
    table = 100 * results.pivot(index="seed", columns="setting", values=column)
    return table[list(dict.fromkeys(results["setting"]))]


def with_precise(results: pd.DataFrame) -> pd.DataFrame:
    """``accuracies``, then those of BN's settings with precise statistics, as "…, precise"."""
    precise = accuracies(results, "precise_test_accuracy")
    return accuracies(results).join(precise.add_suffix(", precise"))


def std_last_epochs(results: pd.DataFrame, epochs: int = 5) -> pd.DataFrame:
    """Standard deviation of the test accuracy over a run's last epochs, in points."""
    spread = [np.std(h["test_accuracy"][-epochs:], ddof=1) for h in results["history"]]
    return accuracies(results.assign(spread=spread), "spread")


def log_std_around_line(results: pd.DataFrame, epochs: int = 5) -> pd.DataFrame:
    """Logarithm of the accuracy's SD around a straight line through a run's last epochs.

    The line takes out steady progress, which is no lack of steadiness. In logarithms because SDs
    are skewed and compare as ratios.
    """

    def spread(history: dict) -> float:
        last, x = np.array(history["test_accuracy"][-epochs:]), np.arange(epochs)
        residual = last - np.polyval(np.polyfit(x, last, 1), x)
        return np.sqrt((residual**2).sum() / (epochs - 2))

    spreads = [spread(history) for history in results["history"]]
    return np.log(accuracies(results.assign(spread=spreads), "spread"))


def batches_of(table: pd.DataFrame) -> list[int]:
    """The batch sizes of the grid's settings, which are called as in "GN, batch 2"."""
    return sorted({int(setting.rpartition(" ")[2]) for setting in table.columns})


def against_reference(table: pd.DataFrame, norm: str) -> dict[str, tuple[str, str]]:
    """Pairs for ``equivalences``: each batch size against the reference's."""
    return {
        f"{norm}, batch {n} − {REFERENCE_BATCH}": (
            f"{norm}, batch {n}",
            f"{norm}, batch {REFERENCE_BATCH}",
        )
        for n in batches_of(table)
        if n != REFERENCE_BATCH
    }


def change(table: pd.DataFrame, norm: str, n: int) -> pd.Series:
    """What a norm gains, seed by seed, from batches of n instead of the reference's.

    NaN for a seed that failed at either.
    """
    pair = table.reindex(columns=[f"{norm}, batch {n}", f"{norm}, batch {REFERENCE_BATCH}"])
    return pair.iloc[:, 0] - pair.iloc[:, 1]


def changes(results: pd.DataFrame, n: int = 2) -> pd.DataFrame:
    """``change`` for each norm, a row per seed; for BN also with precise and batch statistics."""
    table = accuracies(results)
    found = {norm: change(table, norm, n) for norm in ("none", "BN", "LN", "GN")}
    bn = results[results["norm"] == "BN"]
    for kind in ("precise", "batch"):
        theirs = accuracies(bn, f"{kind}_test_accuracy")
        found[f"BN, {kind}"] = change(theirs, "BN", n)
    return pd.DataFrame(found)


def error_growth(table: pd.DataFrame, setting: str, reference: str) -> pd.Series:
    """Logarithm of how many times as large one setting's error is, seed by seed.

    Args:
        table: ``accuracies``, in percent.
    """
    return np.log(100 - table[setting]) - np.log(100 - table[reference])
