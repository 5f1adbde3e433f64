"""A grid of runs that take next to no time, for workers to import."""

import sys
from dataclasses import dataclass
from pathlib import Path
from time import sleep

from backstage.evidence import sweep
from backstage.evidence.grids import Grid


@dataclass(frozen=True)
class Setting:
    power: int


def measure(setting, seed, data):
    sleep(0.05)
    if setting.power == 3 and seed == 1:
        raise ValueError("a cube of 1")
    return {"value": seed**setting.power, "images": len(data.train)}


GRID = Grid("?", {f"power {p}": Setting(p) for p in (1, 2)}, measure, 12, 300, "digits")

if __name__ == "__main__":  # python tests/tiny_grid.py FOLDER
    sweep.run("tiny", GRID, folder=Path(sys.argv[1]))
