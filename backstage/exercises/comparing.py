"""What measurements prove: intervals and p values; and statistics of all images."""

import torch

from backstage.exercises.inputs import SHAPES, Draw, as_trained_on, returned
from backstage.exercises.judging import Trial


def interval_cases() -> list[dict]:
    return [
        {"a": Draw(k).normal(n, mean=99, std=0.5).tolist(),
         "b": Draw(k + 5).normal(n, mean=98, std=1.0).tolist()}
        for k, n in enumerate((3, 5, 10, 40))
    ]  # fmt: skip


def mcnemar_cases() -> list[dict]:
    """Of images that both, only a, only b or neither has right."""
    tables = [(3, 0, 1, 0), (5, 6, 1, 1), (20, 2, 7, 3), (4, 3, 3, 2), (6, 0, 0, 2)]
    tables += [(900, 60, 38, 20), (9000, 30, 45, 10), (500, 0, 14, 1)]
    return [
        {"a_right": torch.tensor([1] * both + [1] * a + [0] * b + [0] * none).bool(),
         "b_right": torch.tensor([1] * both + [0] * a + [1] * b + [0] * none).bool()}
        for both, a, b, none in tables
    ]  # fmt: skip


def precise_cases() -> list[dict]:
    cases = [{"batches": [torch.tensor([[[[1.0]]], [[[3.0]]]]), torch.tensor([[[[8.0]]]])]}]
    for k, (_, *rest) in enumerate(SHAPES[1:]):
        draws, sizes = [Draw(10 * k + i) for i in range(3)], (4, 4, 1 + k)
        pieces = zip(draws, sizes, strict=True)
        cases.append({"batches": [d.normal(n, *rest, mean=1.0 + n) for d, n in pieces]})
    return [*cases[:-1], as_trained_on(cases[-1])]


TRIALS = {
    "paired_interval": Trial(
        interval_cases, returned("the mean", "the lower end", "the upper end")
    ),
    "mcnemar": Trial(mcnemar_cases, returned("p")),
    "precise_statistics": Trial(precise_cases, returned("the mean", "the variance")),
}
