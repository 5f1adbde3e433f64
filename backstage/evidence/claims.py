"""What the lesson's sources claim, and the verdicts that the sweeps' results give.

python -m backstage.evidence.claims            prints the table
python -m backstage.evidence.claims --write    writes it into RESULTS.md
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from backstage.evidence.claim import Line, judge
from backstage.evidence.claimed import penalties
from backstage.evidence.grids import EvidenceError
from backstage.evidence.results import RESULTS
from backstage.files import replace_part
from utils import REPOSITORY

# In the notebooks' order.
MODULES = (penalties,)
CLAIMS = [claim for module in MODULES for claim in module.CLAIMS]
FAMILIES = {claim.family.name: claim.family for claim in CLAIMS}


def family(name: str, folder: Path = RESULTS) -> pd.DataFrame:
    """``contrasts`` of the claims of the family of that name, by the name of the contrast."""
    return judge([claim for claim in CLAIMS if claim.family.name == name], folder)


def all_lines(folder: Path = RESULTS) -> list[Line]:
    """The whole table, notebook by notebook."""
    return [line for module in MODULES for line in module.lines(folder)]


def markdown(lines: Sequence[Line], folder: str = "../notebooks/") -> str:
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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m backstage.evidence.claims", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--write", action="store_true", help="into the file, in place of the old")
    parser.add_argument("--file", type=Path, default=REPOSITORY / "docs" / "RESULTS.md")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    asked = parser.parse_args(arguments)
    try:
        table = markdown(all_lines(asked.results))
        if asked.write:
            replace_part("claims", table, asked.file)
    except (EvidenceError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
