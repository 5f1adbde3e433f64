"""The lesson's workbook: batch, layer and group norm of 4 images, in live formulas.

    python -m backstage.workbook                builds normalization_demo.xlsx
    python -m backstage.workbook build FILE     builds it somewhere else
    python -m backstage.workbook check FILE     recomputes a workbook, edited or not, with PyTorch

`check` ends with status 0 where sheet and PyTorch agree, 1 where they do not, 2 for bad input.
"""

import argparse
import sys
from pathlib import Path

from backstage.workbook.build import WORKBOOK, build
from backstage.workbook.check import check
from backstage.workbook.inputs import InputError


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m backstage.workbook",
                                     description=__doc__.splitlines()[0])  # fmt: skip
    commands = parser.add_subparsers(dest="command", metavar="build | check")
    make = commands.add_parser("build", help="build the workbook (also without any word)")
    make.add_argument("file", nargs="?", type=Path, default=WORKBOOK)
    test = commands.add_parser("check", help="recompute a workbook with PyTorch")
    test.add_argument("file", type=Path)
    given = parser.parse_args(arguments)
    try:
        if given.command == "check":
            report = check(given.file)
            print(report)
            return 0 if report.agrees else 1
        print(f"Wrote {build(getattr(given, 'file', WORKBOOK)).name}.")
        return 0
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
