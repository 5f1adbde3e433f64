"""What the lesson's sources claim, and the verdicts that the sweeps' results give.

python -m evidence.claims            prints the table
python -m evidence.claims --write    writes it into README.md
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from evidence.bn_statistics import effect_of_batch_mates
from evidence.grids import EvidenceError
from evidence.results import RESULTS, load_results
from evidence.sentences import interval
from evidence.statistics import (
    CONTRADICTED,
    SUPPORTED,
    all_of,
    contrasts,
    equivalences,
    widest,
)
from evidence.tables import accuracies, against_reference, changes, log_std_around_line
from machinery.files import replacing
from utils import REPOSITORY

REPLICATE, BATCH_SIZE = "Session6_5_does_it_replicate", "Session6_3_batch_size"
EQUIVALENT_POINTS = 0.1  # of accuracy on all of MNIST: a sixth of the mean error there, 0.6%
BATCH_POINTS = 0.3  # on 10,000 training images: a sixth of GN's error at the reference, 1.7%


@dataclass(frozen=True)
class Family:
    """Claims that are corrected together: those of one notebook section."""

    notebook: str
    table: Callable[[pd.DataFrame], pd.DataFrame] = accuracies  # of a grid's rows
    ratio: bool = False  # the table holds logarithms


@dataclass(frozen=True)
class Claim:
    """ "a exceeds b", seed by seed."""

    text: str
    family: str
    grid: str
    a: str
    b: str

    @property
    def contrast(self) -> str:
        """As in "(GN + L1) − (BN + L1 + L2)"."""
        a, b = (f"({name})" if {"+", ","} & set(name) else name for name in (self.a, self.b))
        if FAMILIES[self.family].ratio:
            return f"{a} / {b}"
        return f"{a} − {b}"


FAMILIES = {
    "supersedes": Family(REPLICATE),
    "source": Family(REPLICATE),
    "steady": Family(REPLICATE, log_std_around_line, ratio=True),
    "small batches": Family(BATCH_SIZE, changes),
    "control": Family(BATCH_SIZE, changes),
}

OURS, BN, LN = "GN + L1", "BN + L1 + L2", "LN + L2"
CLAIMS = [
    Claim("GN + L1 beats BN + L1 + L2 on MNIST (10 epochs)", "supersedes", "replicate", OURS, BN),
    Claim("GN + L1 beats LN + L2", "supersedes", "replicate", OURS, LN),
    Claim("It is L1 that helps: GN + L1 beats GN", "supersedes", "replicate", OURS, "GN"),
    Claim(
        "GN + L1 beats BN + L1 + L2 with the source's penalties (L1 a mean per tensor, over every "
        "parameter)",
        *("source", "source", OURS, BN),
    ),
    Claim("GN + L1 beats LN + L2 with the source's penalties", *("source", "source", OURS, LN)),
    Claim(
        "GN + L1 is steadier than BN + L1 + L2: SD around the trend of the last 5 epochs, constant "
        "learning rate (a measure chosen after seeing the data)",
        *("steady", "constant", BN, OURS),
    ),
    Claim("GN + L1 is steadier than LN + L2, likewise", "steady", "constant", LN, OURS),
    Claim(
        "It is L1 that steadies: GN + L1 is steadier than GN, likewise (one-cycle learning rate)",
        *("steady", "replicate", "GN", OURS),
    ),
    Claim(
        "It is L2 that unsteadies BN: BN + L1 is steadier than BN + L1 + L2, likewise (one-cycle "
        "learning rate)",
        *("steady", "replicate", BN, "BN + L1"),
    ),
    # The first is the sum of the other two, seed by seed: what fixed but precise statistics leave
    # of BN's loss, and what the running average adds to it.
    Claim(
        "BN loses more than GN from batches of 2 in place of 32, the rate in proportion",
        *("small batches", "batch_size", "GN", "BN"),
    ),
    Claim(
        "It still does with precise statistics: part of the loss is training's",
        *("small batches", "batch_size", "GN", "BN, precise"),
    ),
    Claim(
        "BN loses more with running than with precise statistics: part of the loss is the running "
        "average's",
        *("small batches", "batch_size", "BN, precise", "BN"),
    ),
    Claim(
        "The control: BN loses more than a network without a norm, which shrinks its batches and "
        "its rate alike",
        *("control", "batch_size", "none", "BN"),
    ),
    Claim("BN loses more than LN", "control", "batch_size", "LN", "BN"),
    Claim("GN loses less than a network without a norm", "control", "batch_size", "GN", "none"),
    Claim("LN loses less than a network without a norm", "control", "batch_size", "LN", "none"),
]


@dataclass(frozen=True)
class Line:
    """A line of the table of verdicts."""

    claim: str
    verdict: str
    effect: str
    seeds: int
    notebook: str


def family(name: str, folder: Path = RESULTS) -> pd.DataFrame:
    """``contrasts`` of the claims of one family, by the name of the contrast."""
    claims = [claim for claim in CLAIMS if claim.family == name]
    tables = [
        FAMILIES[name].table(load_results(grid, folder)).add_prefix(f"{grid}: ")
        for grid in dict.fromkeys(claim.grid for claim in claims)
    ]
    pairs = {c.contrast: (f"{c.grid}: {c.a}", f"{c.grid}: {c.b}") for c in claims}
    return contrasts(pd.concat(tables, axis=1), pairs)


def verdicts(folder: Path = RESULTS) -> list[Line]:
    """A line for each claim."""
    found = {name: family(name, folder) for name in FAMILIES}
    lines = []
    for claim in CLAIMS:
        of = FAMILIES[claim.family]
        row = found[claim.family].loc[claim.contrast]
        effect = interval(row, ratio=of.ratio)
        lines.append(Line(claim.text, row["verdict"], effect, row["seeds"], of.notebook))
    return lines


def exact_independence() -> Line:
    """GN's output for an image, whatever its batch-mates: no statistics needed."""
    moved = effect_of_batch_mates("GN")
    return Line(
        "GN's output for an image does not depend on the rest of its batch",
        SUPPORTED if moved <= 1e-6 else CONTRADICTED,
        f"moves by at most {moved:.1g} (BN's: {effect_of_batch_mates('BN'):.1f})",
        1,
        BATCH_SIZE,
    )


def stability(folder: Path = RESULTS) -> Line:
    """GN's accuracy at every batch size against the reference's."""
    table = accuracies(load_results("batch_size", folder))
    same = equivalences(table, against_reference(table, "GN"), BATCH_POINTS)
    row = widest(same)
    return Line(
        f"GN's accuracy is the same, within ±{BATCH_POINTS} points, at batches of 2 to 128 "
        f"(widest 90% interval: {row.name})",
        all_of(list(same["verdict"])),
        interval(row),
        row["seeds"],
        BATCH_SIZE,
    )


def all_lines(folder: Path = RESULTS) -> list[Line]:
    """The whole table, notebook by notebook."""
    judged = verdicts(folder)
    ours = [line for line in judged if line.notebook == REPLICATE]
    theirs = [line for line in judged if line.notebook == BATCH_SIZE]
    return [*ours, exact_independence(), stability(folder), *theirs]


def markdown(lines: Sequence[Line], folder: str = "notebooks/") -> str:
    """The table as a file has it; intervals at 95% where nothing else is said, uncorrected.

    Args:
        lines: of the table.
        folder: of the notebooks, as seen from where the table stands.
    """
    rows = [
        f"| {n.claim} | **{n.verdict}** | {n.effect} | {n.seeds} | "
        f"[{n.notebook}]({folder}{n.notebook}.ipynb) |"
        for n in lines
    ]
    head = [
        "| Claim | Verdict | Effect, 95% interval | Seeds | Notebook |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


BETWEEN = re.compile(r"(?<=<!-- claims -->\n).*?(?=\n<!-- end of claims -->)", re.DOTALL)


def write_table(table: str, path: Path) -> None:
    """Puts the table between the file's two marks.

    Raises:
        EvidenceError: where the marks are missing.
    """
    text = path.read_text(encoding="utf-8")
    if not BETWEEN.search(text):
        raise EvidenceError(
            f"{path.name} has no place for the table: add the lines '<!-- claims -->' and "
            f"'<!-- end of claims -->', with a line between them."
        )
    with replacing(path, "w", encoding="utf-8") as file:
        file.write(BETWEEN.sub(lambda _: table, text))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m evidence.claims", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--write", action="store_true", help="into the file, in place of the old")
    parser.add_argument("--file", type=Path, default=REPOSITORY / "README.md")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    asked = parser.parse_args(arguments)
    try:
        table = markdown(all_lines(asked.results))
        if asked.write:
            write_table(table, asked.file)
    except (EvidenceError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
