"""The lesson's workbook: batch, layer and group norm of 4 images, in live formulas.

    python -m backstage.workbook                builds normalization_demo.xlsx
    python -m backstage.workbook build FILE     builds it somewhere else
    python -m backstage.workbook check FILE     recomputes a workbook, edited or not, with PyTorch

Ends with status 0 if all went well, 1 where sheet and PyTorch differ, 2 where it can't say.
"""

import argparse
import math
import sys

from backstage.workbook import InputError, build, check
from backstage.workbook.build import WORKBOOK
from backstage.workbook.table import COMPUTED


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("backstage.workbook", None, __doc__, formatter_class=style)
    parser.add_argument("command", nargs="?", choices=("build", "check"), default="build")
    parser.add_argument("file", nargs="?", default=WORKBOOK)
    given = parser.parse_args(arguments)
    try:
        if given.command == "build":
            print(f"Wrote {build(given.file).name}.")
            return 0
        wrong, how = check(given.file)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    numbers = sum(math.prod(q.shape) for q in COMPUTED.values())
    verdict = f"{numbers:,} numbers: sheet and PyTorch agree."
    if wrong:
        verdict = f"Sheet and PyTorch differ in {len(wrong)} of {len(COMPUTED)} quantities."
    print(*(f"{quantity:<18} {what}" for quantity, what in wrong.items()), how, verdict,
          "Not looked at: the charts, colours, texts and validation.", sep="\n")  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
