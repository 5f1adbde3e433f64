"""What measurements prove: intervals, verdicts and exact tests."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests

from exercises.cases import Draw, returned
from exercises.checker import Exercise, Mistake

# ------------------------------------------------------------------------ paired intervals


def student(confidence: float, n: int) -> float:
    return stats.t.ppf(0.5 + confidence / 2, n - 1)


def interval_recipe(
    differences: Callable = lambda a, b: a - b,
    error: Callable = lambda a, b: np.std(a - b, ddof=1) / np.sqrt(len(a)),
    quantile: Callable = student,
):
    def paired_interval(a, b):
        a, b = np.asarray(a), np.asarray(b)
        mean = differences(a, b).mean()
        half = quantile(0.95, len(a)) * error(a, b)
        return mean, mean - half, mean + half

    return paired_interval


def interval_oracle(a, b):
    test = stats.ttest_rel(a, b)
    low, high = test.confidence_interval(0.95)
    return np.mean(a) - np.mean(b), low, high


def interval_cases() -> list[dict]:
    return [
        {"a": Draw(k).normal(n, mean=99, std=0.5).tolist(),
         "b": Draw(k + 5).normal(n, mean=98, std=1.0).tolist()}
        for k, n in enumerate((3, 5, 10))
    ]  # fmt: skip


INTERVAL_MISTAKES = (
    Mistake(
        "a difference the wrong way round",
        "It is a - b: positive where a is larger.",
        {"differences": lambda a, b: b - a},
    ),
    Mistake(
        "an interval for unpaired samples",
        "Each seed has an a and a b: take the differences first, then their spread.",
        {"error": lambda a, b: np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))},
    ),
    Mistake(
        "the differences' own spread",
        "That says where one more difference would lie; the mean's is smaller by √n.",
        {"error": lambda a, b: np.std(a - b, ddof=1)},
    ),
    Mistake(
        "a standard deviation divided by n",
        "From so few seeds, divide by n - 1: NumPy's ddof=1.",
        {"error": lambda a, b: np.std(a - b) / np.sqrt(len(a))},
    ),
    Mistake(
        "1.96 for Student's quantile",
        "The spread itself is estimated from few seeds: use t with n - 1 degrees of freedom.",
        {"quantile": lambda confidence, n: stats.norm.ppf(0.5 + confidence / 2)},
    ),
    Mistake(
        "a one-sided quantile",
        "2.5% belong on each side: the quantile at 0.975.",
        {"quantile": lambda confidence, n: stats.t.ppf(confidence, n - 1)},
    ),
    Mistake(
        "n degrees of freedom",
        "One is spent on the mean: n - 1.",
        {"quantile": lambda confidence, n: stats.t.ppf(0.5 + confidence / 2, n)},
    ),
    Mistake(
        "2n - 2 degrees of freedom",
        "That is for unpaired samples; here there are n differences, so n - 1.",
        {"quantile": lambda confidence, n: stats.t.ppf(0.5 + confidence / 2, 2 * n - 2)},
    ),
)

# -------------------------------------------------------------------------------- verdicts

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "not detected"


def verdict_recipe(
    above: Callable = lambda low, high: low > 0,
    below: Callable = lambda low, high: high < 0,
    words: tuple[str, str, str] = (SUPPORTED, CONTRADICTED, UNDECIDED),
):
    def verdict(low, high):
        if above(low, high):
            return words[0]
        return words[1] if below(low, high) else words[2]

    return verdict


def verdict_oracle(low, high):
    """By the signs of both ends."""
    return {2.0: SUPPORTED, -2.0: CONTRADICTED}.get(np.sign(low) + np.sign(high), UNDECIDED)


def verdict_cases() -> list[dict]:
    ends = [(0.1, 0.5), (-0.5, -0.1), (-0.1, 0.5), (-0.5, 0.1), (-0.01, 0.01), (-2.0, 2.5)]
    return [{"low": low, "high": high} for low, high in ends]


VERDICT_MISTAKES = (
    Mistake(
        "a verdict by the mean alone",
        "The whole interval has to lie on one side of 0.",
        {"above": lambda low, high: low + high > 0, "below": lambda low, high: low + high < 0},
    ),
    Mistake(
        "'supported' wherever the mean is positive",
        "The whole interval has to lie above 0: look at its lower end.",
        {"above": lambda low, high: low + high > 0},
    ),
    Mistake(
        "'contradicted' wherever it is not supported",
        "No difference found is not the opposite found: there are three outcomes.",
        {"below": lambda low, high: True},
    ),
    Mistake(
        "'not detected' where the opposite was found",
        "An interval that lies below 0 as a whole contradicts the claim.",
        {"below": lambda low, high: False},
    ),
    Mistake(
        "'supported' and 'contradicted' swapped",
        "The claim is that the difference is above 0.",
        {"words": (CONTRADICTED, SUPPORTED, UNDECIDED)},
    ),
    Mistake(
        "'supported' wherever the upper end is positive",
        "Both ends have to be above 0: look at the lower one.",
        {"above": lambda low, high: high > 0},
    ),
)

# ---------------------------------------------------------------------------------- Holm


def holm_recipe(
    factors: Callable = lambda n: np.arange(n, 0, -1),
    monotone: Callable = np.maximum.accumulate,
    capped: Callable = lambda p: np.minimum(p, 1.0),
    placed: Callable = lambda p, order: p[np.argsort(order)],
):
    def holm(p):
        p = np.asarray(p)
        order = np.argsort(p)
        return placed(capped(monotone(p[order] * factors(len(p)))), order)

    return holm


def holm_cases() -> list[dict]:
    ps = [[0.03, 0.02], [0.04, 0.01, 0.03], [0.6, 0.5, 0.001, 0.04], [0.02, 0.02, 0.9, 0.021, 0.04]]
    return [{"p": p} for p in ps]


HOLM_MISTAKES = (
    Mistake(
        "p values in sorted order",
        "Put each back in its place: the first result belongs to the first claim.",
        {"placed": lambda p, order: p},
    ),
    Mistake(
        "p values as they were",
        "The smallest is multiplied by their number, n, the next by n - 1, and so on.",
        {"factors": np.ones},
    ),
    Mistake(
        "Bonferroni's correction",
        "It multiplies every p by n; Holm's needs that only for the smallest.",
        {"factors": lambda n: np.full(n, n)},
    ),
    Mistake(
        "the factors the wrong way round",
        "The smallest p gets the largest factor.",
        {"factors": lambda n: np.arange(1, n + 1)},
    ),
    Mistake(
        "Benjamini and Hochberg's correction",
        "Its factor, n over the rank, controls something weaker.",
        {
            "factors": lambda n: n / np.arange(1, n + 1),
            "monotone": lambda p: np.minimum.accumulate(p[::-1])[::-1],
        },
    ),
    Mistake(
        "p values that may fall behind a smaller one",
        "In order of size, none may come out below the one before: a running maximum.",
        {"monotone": lambda p: p},
    ),
    Mistake("a p above 1", "A probability is at most 1.", {"capped": lambda p: p}),
)

# -------------------------------------------------------------------------------- McNemar


def counts(a_right: torch.Tensor, b_right: torch.Tensor) -> tuple[int, int, int]:
    """Images that only a, and that only b, has right; and all."""
    return int((a_right & ~b_right).sum()), int((~a_right & b_right).sum()), len(a_right)


def exact(a: int, b: int, n: int) -> float:
    return float(stats.binomtest(a, a + b).pvalue) if a + b else 1.0


def mcnemar_recipe(p: Callable = exact, count: Callable = counts):
    return lambda a_right, b_right: p(*count(a_right, b_right))


def mcnemar_oracle(a_right, b_right):
    from statsmodels.stats.contingency_tables import mcnemar

    a, b, n = counts(a_right, b_right)
    return mcnemar([[0, a], [b, 0]], exact=True).pvalue if a + b else 1.0


def mcnemar_cases() -> list[dict]:
    tables = [(3, 0, 1, 0), (5, 6, 1, 1), (20, 2, 7, 3), (4, 3, 3, 2), (6, 0, 0, 2)]
    return [
        {"a_right": torch.tensor([1] * both + [1] * a + [0] * b + [0] * none).bool(),
         "b_right": torch.tensor([1] * both + [0] * a + [1] * b + [0] * none).bool()}
        for both, a, b, none in tables
    ]  # fmt: skip


def chi_square(a: int, b: int, n: int, correction: float = 0.0) -> float:
    excess = max(abs(a - b) - correction, 0)
    return float(stats.chi2.sf(excess**2 / (a + b), 1)) if a + b else 1.0


def unpaired(a_right, b_right) -> tuple[int, int, int]:
    """All that each has right, as if the images were others."""
    return int(a_right.sum()), int(b_right.sum()), len(a_right)


MCNEMAR_MISTAKES = (
    Mistake(
        "all images that each has right",
        "Those that both have right say nothing about which is better: count where they differ.",
        {"count": unpaired},
    ),
    Mistake(
        "one side alone",
        "It might have been the other that is better: count both tails.",
        {"p": lambda a, b, n: float(stats.binom.cdf(min(a, b), a + b, 0.5)) if a + b else 1.0},
    ),
    Mistake(
        "one tail doubled without a limit",
        "Where both differ equally often, that is above 1: a p is at most 1.",
        {"p": lambda a, b, n: float(2 * stats.binom.cdf(min(a, b), a + b, 0.5))},
    ),
    Mistake(
        "the χ² approximation",
        "With so few differing images it is off: the exact test is the binomial's.",
        {"p": chi_square},
    ),
    Mistake(
        "the χ² approximation with a correction",
        "With so few differing images it is off: the exact test is the binomial's.",
        {"p": lambda a, b, n: chi_square(a, b, n, correction=1.0)},
    ),
    Mistake(
        "a test against all images",
        "Of the images on which they *differ*, half would go to each: their number is a + b.",
        {"p": lambda a, b, n: float(stats.binomtest(a, n).pvalue)},
    ),
)


def p_values(answer, **case):
    yield "p", answer(*case.values())


def adjusted(answer, p: Sequence[float]):
    yield "the corrected p", answer(p)


def called(answer, low: float, high: float):
    yield "the verdict", answer(low, high)


EXERCISES = (
    Exercise("mcnemar", mcnemar_oracle, mcnemar_recipe, MCNEMAR_MISTAKES, mcnemar_cases, p_values),
    Exercise("paired_interval", interval_oracle, interval_recipe, INTERVAL_MISTAKES, interval_cases,
             returned("the mean", "the lower end", "the upper end")),
    Exercise("verdict", verdict_oracle, verdict_recipe, VERDICT_MISTAKES, verdict_cases, called),
    Exercise("holm", lambda p: multipletests(p, method="holm")[1], holm_recipe, HOLM_MISTAKES,
             holm_cases, adjusted),
)  # fmt: skip
