"""What the lesson's sources claim, and the verdicts that the sweeps' results give.

python -m evidence.claims            prints the table
python -m evidence.claims --write    writes it into README.md
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pandas as pd

from evidence.bn_statistics import effect_of_batch_mates
from evidence.grids import EvidenceError
from evidence.results import RESULTS, load_results
from evidence.statistics import (
    CONTRADICTED,
    SUPPORTED,
    Effect,
    all_of,
    contrasts,
    equivalences,
)
from evidence.tables import accuracies, against_reference, batches_of, changes, std_last_epochs
from machinery.files import replacing
from utils import REPOSITORY

REPLICATE, BATCH_SIZE = "Session6_5_does_it_replicate", "Session6_3_batch_size"
EQUIVALENT_POINTS = 0.1  # of accuracy on all of MNIST: ten of its 10,000 test images
BATCH_POINTS = 0.3  # on 10,000 training images, where accuracies scatter more


@dataclass(frozen=True)
class Claim:
    """ "a exceeds b", seed by seed. Claims with the same family are corrected together."""

    text: str
    family: str
    grid: str
    a: str
    b: str
    table: Callable[[pd.DataFrame], pd.DataFrame] = accuracies
    unit: str = "points"
    notebook: str = REPLICATE

    @property
    def contrast(self) -> str:
        """As in "GN + L1 − (BN + L1 + L2)"."""
        b = f"({self.b})" if " + " in self.b else self.b
        return f"{self.a} − {b}"


OURS, BN, LN = "GN + L1", "BN + L1 + L2", "LN + L2"
_TIGHT = {"table": std_last_epochs, "unit": "points of SD"}
_STEADY = "GN + L1 is steadier than {} in the last 5 epochs ({} learning rate)"
_SMALL = {"table": changes, "notebook": BATCH_SIZE, "family": "small batches"}

CLAIMS = [
    Claim("GN + L1 beats BN + L1 + L2 on MNIST (10 epochs)", "supersedes", "replicate", OURS, BN),
    Claim("GN + L1 beats LN + L2", "supersedes", "replicate", OURS, LN),
    Claim("It is L1 that helps: GN + L1 beats GN", "supersedes", "replicate", OURS, "GN"),
    Claim(
        "GN + L1 beats BN + L1 + L2 with the source's penalties (L1 a mean per tensor, over every "
        "parameter)",
        *("source's penalties", "source", OURS, BN),
    ),
    Claim(
        "GN + L1 beats LN + L2 with the source's penalties",
        *("source's penalties", "source", OURS, LN),
    ),
    Claim(_STEADY.format(BN, "one-cycle"), "steady, one-cycle", "replicate", BN, OURS, **_TIGHT),
    Claim(_STEADY.format(LN, "one-cycle"), "steady, one-cycle", "replicate", LN, OURS, **_TIGHT),
    Claim(_STEADY.format(BN, "constant"), "steady, constant", "constant", BN, OURS, **_TIGHT),
    Claim(_STEADY.format(LN, "constant"), "steady, constant", "constant", LN, OURS, **_TIGHT),
    # The first is the sum of the other two, seed by seed: what fixed but precise statistics leave
    # of BN's loss, and what the running average adds to it.
    Claim(
        "BN loses more than GN from batches of 2 in place of 32",
        **_SMALL,
        **{"grid": "batch_size", "a": "GN", "b": "BN"},
    ),
    Claim(
        "It still does with precise statistics: part of the loss is training's",
        **_SMALL,
        **{"grid": "batch_size", "a": "GN", "b": "BN, precise"},
    ),
    Claim(
        "BN loses more with running than with precise statistics: part of the loss is the running "
        "average's",
        **_SMALL,
        **{"grid": "batch_size", "a": "BN, precise", "b": "BN"},
    ),
]


@dataclass(frozen=True)
class Line:
    """A line of the README's table."""

    claim: str
    verdict: str
    effect: str
    seeds: int
    notebook: str


def family(name: str, folder: Path = RESULTS) -> pd.DataFrame:
    """``contrasts`` of the claims of one family, by the name of the contrast."""
    claims = [claim for claim in CLAIMS if claim.family == name]
    table = claims[0].table(load_results(claims[0].grid, folder))
    return contrasts(table, {claim.contrast: (claim.a, claim.b) for claim in claims})


def verdicts(folder: Path = RESULTS) -> list[Line]:
    """A line for each claim, family by family."""
    lines = []
    for name, claims in groupby(CLAIMS, key=lambda claim: claim.family):
        found = family(name, folder)
        for claim, row in zip(claims, found.to_dict("records"), strict=True):
            effect = Effect(**{key: row[key] for key in Effect.__annotations__})
            text = f"{effect} {claim.unit}"
            lines.append(Line(claim.text, row["verdict"], text, effect.seeds, claim.notebook))
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
    largest = same["mean"].abs().idxmax()
    [row] = same.loc[[largest], list(Effect.__annotations__)].to_dict("records")
    effect = Effect(**row)
    smallest, *_, biggest = batches_of(table)
    return Line(
        f"GN's accuracy is the same, within {BATCH_POINTS} points, at batches of {smallest} to "
        f"{biggest} (largest change: {largest})",
        all_of(list(same["verdict"])),
        f"{effect} points",
        effect.seeds,
        BATCH_SIZE,
    )


def all_lines(folder: Path = RESULTS) -> list[Line]:
    """The whole table, notebook by notebook."""
    lines = [*verdicts(folder), exact_independence(), stability(folder)]
    order = {REPLICATE: 0, BATCH_SIZE: 1}
    first = ("GN's output", "GN's accuracy")
    return sorted(lines, key=lambda n: (order[n.notebook], not n.claim.startswith(first)))


def markdown(lines: Sequence[Line], folder: str = "notebooks/") -> str:
    """The table as the README has it; intervals at 95%, uncorrected.

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
