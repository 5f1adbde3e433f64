"""What measurements prove: intervals, verdicts, and p values corrected."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from backstage.exercises.cases import Draw, returned
from backstage.exercises.exercise import Exercise, Mistake

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
        "the interval of ttest_ind",
        "It takes a and b for unpaired samples; but each seed has an a and a b.",
        {
            "error": lambda a, b: np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)),
            "quantile": lambda confidence, n: stats.t.ppf(0.5 + confidence / 2, 2 * n - 2),
        },
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
    ends += [(0.0, 0.4), (-0.4, 0.0)]
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
    Mistake(
        "'supported' where the lower end is exactly 0",
        "Then 0 lies in the interval, and no difference is still possible.",
        {"above": lambda low, high: low >= 0},
    ),
    Mistake(
        "'contradicted' where the upper end is exactly 0",
        "Then 0 lies in the interval, and no difference is still possible.",
        {"below": lambda low, high: high <= 0},
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


def holm_oracle(p):
    """By what it stands for: Bonferroni's test of every set of claims that a claim is in."""
    sets = [s for k in range(len(p)) for s in itertools.combinations(range(len(p)), k + 1)]
    tested = {s: min(1.0, len(s) * min(p[i] for i in s)) for s in sets}
    return [max(tested[s] for s in sets if i in s) for i in range(len(p))]


def holm_cases() -> list[dict]:
    ps = [[0.03, 0.02], [0.04, 0.01, 0.03], [0.6, 0.5, 0.001, 0.04], [0.02, 0.02, 0.9, 0.7, 0.04]]
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


def adjusted(answer, p: Sequence[float]):
    yield "the corrected p", answer(p)


def called(answer, low: float, high: float):
    yield "the verdict", answer(low, high)


EXERCISES = (
    Exercise("paired_interval", interval_oracle, interval_recipe, INTERVAL_MISTAKES, interval_cases,
             returned("the mean", "the lower end", "the upper end")),
    Exercise("verdict", verdict_oracle, verdict_recipe, VERDICT_MISTAKES, verdict_cases, called),
    Exercise("holm", holm_oracle, holm_recipe, HOLM_MISTAKES,
             holm_cases, adjusted),
)  # fmt: skip
