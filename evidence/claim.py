"""A claim "a exceeds b", its family, and the verdict that the stored runs give."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from evidence.results import RESULTS, load_results
from evidence.sentences import interval
from evidence.statistics import contrasts
from evidence.tables import accuracies


@dataclass(frozen=True)
class Family:
    """Claims that are corrected together: those of one notebook section."""

    name: str
    notebook: str
    table: Callable[[pd.DataFrame], pd.DataFrame] = accuracies  # of a grid's rows
    ratio: bool = False  # the table holds logarithms


@dataclass(frozen=True)
class Claim:
    """ "a exceeds b", seed by seed; both are columns of the family's table of the grid."""

    text: str
    family: Family
    grid: str
    a: str
    b: str

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
    """``contrasts`` of the claims of one family, by the name of the contrast."""
    table = claims[0].family.table
    tables = [
        table(load_results(grid, folder)).add_prefix(f"{grid}: ")
        for grid in dict.fromkeys(claim.grid for claim in claims)
    ]
    pairs = {c.contrast: (f"{c.grid}: {c.a}", f"{c.grid}: {c.b}") for c in claims}
    return contrasts(pd.concat(tables, axis=1), pairs)


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
