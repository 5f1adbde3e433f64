"""What measurements prove: intervals and p values; and statistics of all images."""

import math

import numpy as np
import torch
from scipy import stats

from backstage.exercises.inputs import SHAPES, Draw, as_trained_on, returned
from backstage.exercises.judging import Trial


def student(a, b):
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    return np.mean(a) - np.mean(b), low, high


def interval_cases() -> list[dict]:
    return [
        {"a": Draw(k).normal(n, mean=99, std=0.5).tolist(),
         "b": Draw(k + 5).normal(n, mean=98, std=1.0).tolist()}
        for k, n in enumerate((3, 5, 10, 40))
    ]  # fmt: skip


def binomial(a_right, b_right):
    """By adding up every outcome that is no likelier than the one seen."""
    a, b = int((a_right & ~b_right).sum()), int((~a_right & b_right).sum())
    ways = [math.comb(a + b, k) for k in range(a + b + 1)]
    return sum(way for way in ways if way <= ways[a]) / 2 ** (a + b)


def mcnemar_cases() -> list[dict]:
    """Of images that both, only a, only b or neither has right."""
    tables = [(3, 0, 1, 0), (5, 6, 1, 1), (20, 2, 7, 3), (4, 3, 3, 2), (6, 0, 0, 2)]
    tables += [(900, 60, 38, 20), (9000, 30, 45, 10), (500, 0, 14, 1)]
    return [
        {"a_right": torch.tensor([1] * both + [1] * a + [0] * b + [0] * none).bool(),
         "b_right": torch.tensor([1] * both + [0] * a + [1] * b + [0] * none).bool()}
        for both, a, b, none in tables
    ]  # fmt: skip


def at_once(batches):
    """Of all images as one batch, by torch.var_mean."""
    var, mean = torch.var_mean(torch.cat(batches), (0, 2, 3), correction=1)
    return mean, var


def precise_cases() -> list[dict]:
    cases = [{"batches": [torch.tensor([[[[1.0]]], [[[3.0]]]]), torch.tensor([[[[8.0]]]])]}]
    for k, (_, *rest) in enumerate(SHAPES[1:]):
        draws, sizes = [Draw(10 * k + i) for i in range(3)], (4, 4, 1 + k)
        pieces = zip(draws, sizes, strict=True)
        cases.append({"batches": [d.normal(n, *rest, mean=1.0 + n) for d, n in pieces]})
    cases[-1]["batches"] = [as_trained_on(x) for x in cases[-1]["batches"]]
    return cases


ENDS = returned("the mean", "the lower end", "the upper end")
TRIALS = {
    "paired_interval": Trial(student, interval_cases, ENDS),
    "mcnemar": Trial(binomial, mcnemar_cases, returned("p")),
    "precise_statistics": Trial(at_once, precise_cases, returned("the mean", "the variance")),
}
