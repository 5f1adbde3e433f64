"""A claim "a exceeds b", its family, and the verdict that the stored runs give."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from backstage.evidence.results import RESULTS, load_results
from backstage.evidence.sentences import interval
from backstage.evidence.statistics import NOT_DETECTED, SUPPORTED, contrasts
from backstage.evidence.tables import accuracies


@dataclass(frozen=True)
class Family:
    """Claims that are corrected together: those of one notebook section."""

    name: str
    notebook: str
    table: Callable[[pd.DataFrame], pd.DataFrame] = accuracies  # of a grid's rows
    ratio: bool = False  # the table holds logarithms
    # Of a grid's rows: the columns where some value is only known to be at least what stands there.
    bounds: Callable[[pd.DataFrame], Collection[str]] = lambda _: ()


@dataclass(frozen=True)
class Claim:
    """ "a exceeds b", seed by seed; both are columns of the family's table of their grid."""

    text: str
    family: Family
    grid: str
    a: str
    b: str
    other_grid: str = ""  # that b is a column of, where that is another one
    where: str = ""  # what it is about, where several parts make one claim

    @property
    def columns(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Grid and column of a and of b."""
        return (self.grid, self.a), (self.other_grid or self.grid, self.b)

    @property
    def contrast(self) -> str:
        """As in "(GN + L1) − (BN + L1 + L2)"."""
        a, b = (f"({name})" if {"+", ","} & set(name) else name for name in (self.a, self.b))
        return f"{a} / {b}" if self.family.ratio else f"{a} − {b}"


@dataclass(frozen=True)
class Line:
    """A line of the table of verdicts."""

    claim: str
    verdict: str
    effect: str
    seeds: int
    notebook: str


def judge(claims: Sequence[Claim], folder: Path = RESULTS) -> pd.DataFrame:
    """``contrasts`` of the claims of one family, by the name of the contrast.

    "a exceeds b" is not supported where b may be larger than what stands there.
    """
    family, tables, bounds = claims[0].family, {}, set()
    for grid in dict.fromkeys(grid for claim in claims for grid, _ in claim.columns):
        rows = load_results(grid, folder)
        tables[grid] = family.table(rows)
        bounds |= {(grid, column) for column in family.bounds(rows)}
    found = contrasts(pd.concat(tables, axis=1), {c.contrast: c.columns for c in claims})
    unsure = [claim.columns[1] in bounds for claim in claims]
    found.loc[unsure, "verdict"] = found.loc[unsure, "verdict"].replace(SUPPORTED, NOT_DETECTED)
    return found


def judged_lines(claims: Sequence[Claim], folder: Path = RESULTS) -> list[Line]:
    """A line for each claim, in their order, each corrected within its own family."""
    found = {}
    for family in dict.fromkeys(claim.family for claim in claims):
        found[family] = judge([claim for claim in claims if claim.family == family], folder)
    lines = []
    for claim in claims:
        family, row = claim.family, found[claim.family].loc[claim.contrast]
        effect = interval(row, ratio=family.ratio)
        lines.append(Line(claim.text, row["verdict"], effect, row["seeds"], family.notebook))
    return lines
