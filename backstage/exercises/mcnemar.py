"""McNemar's exact test: which of two networks is better, on the images where they differ."""

import math
from collections.abc import Callable

import torch
from scipy import stats

from backstage.exercises.exercise import Exercise, Mistake


def counts(a_right: torch.Tensor, b_right: torch.Tensor) -> tuple[int, int, int]:
    """Images that only a, and that only b, has right; and all."""
    return int((a_right & ~b_right).sum()), int((~a_right & b_right).sum()), len(a_right)


def exact(a: int, b: int, n: int) -> float:
    return float(stats.binomtest(a, a + b).pvalue) if a + b else 1.0


def mcnemar_recipe(p: Callable = exact, count: Callable = counts):
    return lambda a_right, b_right: p(*count(a_right, b_right))


def mcnemar_oracle(a_right, b_right):
    """By adding up every outcome that is no likelier than the one seen."""
    a, b, _ = counts(a_right, b_right)
    ways = [math.comb(a + b, k) for k in range(a + b + 1)]
    return sum(way for way in ways if way <= ways[a]) / 2 ** (a + b)


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


EXERCISES = (
    Exercise("mcnemar", mcnemar_oracle, mcnemar_recipe, MCNEMAR_MISTAKES, mcnemar_cases, p_values),
)
