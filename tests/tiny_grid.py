"""A grid of runs that take no time, for workers to import."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from backstage.evidence import sweep
from backstage.evidence.grids import Grid


@dataclass(frozen=True)
class Setting:
    power: int
    seconds: float = 0.05


def measure(setting, seed, data):
    time.sleep(setting.seconds)
    if setting.power == 3 and seed == 1:
        raise ValueError("a cube of 1")
    return {"value": seed**setting.power, "images": len(data.train)}


GRID = Grid("?", {f"power {p}": Setting(p) for p in (1, 2)}, measure, 12, 300, "digits")

if __name__ == "__main__":  # python tests/tiny_grid.py FOLDER [SCHEDULER]
    sweep.run("tiny", GRID, 2, *sys.argv[2:] or [None], folder=Path(sys.argv[1]))
