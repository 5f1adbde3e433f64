"""What the benchmarks decide; what they measure is theirs to print."""

from benchmarks import tune
from utils import Experiment


def test_tuning_takes_the_strongest_penalty_near_the_lowest_loss():
    weak, middle, strong = (Experiment(norm="GN", l1=l1) for l1 in (1e-6, 1e-5, 1e-4))
    assert tune.choose({weak: 0.0240, middle: 0.0244, strong: 0.0246}) == middle
    assert tune.choose({weak: 0.0240, middle: 0.0246, strong: 0.0260}) == weak
    assert tune.choose({weak: 0.0246, middle: 0.0242, strong: 0.0240}) == strong


def test_of_equally_strong_penalties_tuning_takes_the_lower_loss():
    two, four = (Experiment(norm="GN", groups=groups, l1=1e-5) for groups in (2, 4))
    assert tune.choose({two: 0.0243, four: 0.0242}) == four
    assert tune.choose({two: 0.0242, four: 0.0243}) == two


def test_what_is_tuned_are_the_strengths_and_the_groups_alone():
    grid = tune.candidates(epochs=10, lr=0.02)
    assert [e.label for e in grid] == ["GN + L1"] * 6 + ["LN + L2"] * 3
    assert {(e.groups, e.l1) for e in grid[:6]} == {(g, l1) for g in (2, 4) for l1 in tune.L1}
    assert {(e.epochs, e.lr, e.seed) for e in grid} == {(10, 0.02, 0)}
