"""Compares a workbook with PyTorch, number by number, on its own inputs and on others.

On the inputs of one file a wrong formula may show a right number: with an ε typed in, say. So
where LibreOffice is installed, copies of the file get other inputs and are recalculated.
"""

import contextlib
import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from openpyxl.cell import Cell

from backstage.workbook.expected import reference
from backstage.workbook.given import LISTS, InputError, Inputs
from backstage.workbook.reader import Reader, where
from backstage.workbook.table import COMPUTED

ONLY_STORED = "Only the numbers stored in the file were compared, since LibreOffice is not " \
              "installed: a wrong formula may still show a right number."  # fmt: skip


def check(path: str | Path) -> tuple[dict[str, str], str]:
    """Compares a workbook with PyTorch in float64; the file itself is only read.

    Returns what is wrong (quantity -> where, and by how much), and how it was compared. Raises
    InputError, one sentence with sheet and cell, for what cannot be computed with.
    """
    reader = Reader(Path(path))
    given, wrong = reader.inputs(), reader.displaced()
    stored = {}
    for quantity, _, what in differences(reader, given):
        stored.setdefault(quantity, what)
    bare = any("shows no value" in what for what in stored.values())
    if soffice() is None:
        if bare:
            raise InputError(f"{Path(path).name} has formulas without values: open it in a "
                             "spreadsheet program and save it there.")  # fmt: skip
        return wrong | stored, ONLY_STORED
    others = draws()
    for typed, copy in zip([given, *others], retyped(reader, [given, *others]), strict=True):
        end = "" if typed is given else " (with other inputs)"
        for quantity, _, what in differences(copy, typed):
            wrong.setdefault(quantity, what + end)
    how = f"Its formulas were recalculated, on its own inputs and on {len(others)} others."
    if bare or stored and not wrong:
        how = f"The file holds no values, or old ones: a copy was recalculated.\n{how}"
    return wrong, how


def differences(reader: Reader, given: Inputs) -> Iterator[tuple[str, Cell, str]]:
    """(quantity, cell, "Illustration!N17 shows 3.7, PyTorch has 3.5") for each that differs."""
    sizes = given.values() | reference(given)
    for name, q in COMPUTED.items():
        both = torch.cat([sizes[name].flatten(), sizes[q.over or name].flatten()])
        allowed = 1e-7 * max(1.0, both.nan_to_num(0, 0, 0).abs().max().item())
        wanted = sizes[name].flatten().tolist()
        rows = zip(reader.cells[name], reader.shown(name), wanted, strict=True)
        for cell, value, number in rows:
            if _gap(value, number) > allowed:
                shows = "no value" if value is None else value
                yield name, cell, f"{where(cell)} shows {shows}, PyTorch has {number:.6g}"


def _gap(value, number: float) -> float:
    """How far a cell is from PyTorch's number; 0 where PyTorch has none, for 0/0."""
    if not math.isfinite(number):
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.inf
    return abs(value - number)


def draws() -> list[Inputs]:
    """What learners may type: both signs, edges, one huge offset, a constant set beside others."""
    found, signs = [], torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
    for seed in range(6):
        random = torch.Generator().manual_seed(seed)

        def pixels(random=random):
            return 1 + 2 * torch.randn(4, 4, 2, 2, generator=random, dtype=torch.float64)

        typed = {q: pixels() for q in ("x", "next_x", "step2_x", "step3_x", "dy")}
        for k, name in enumerate(("gamma", "beta", "add", "multiply")):
            typed[name] = pixels().flatten()[:4].abs() * signs.roll(k + seed)
        typed |= {q: LISTS[q][(seed + k) % len(LISTS[q])] for k, q in enumerate(LISTS)}
        typed["eps"] = (0.5, 0.9, 0.1, 1e-3, 0.3, 0.7)[seed]
        typed["momentum"] = (0.3, 1.0, 0.7, 0.0, 0.45, 0.85)[seed]
        found.append(Inputs(**typed))
    found[3].x[1] = found[3].next_x[:, 2] = 3.0  # one constant image; one constant channel
    found[3].add[:] = 0
    found[4].x[:, 1] += 1e6  # one huge offset
    return found


def retyped(reader: Reader, typed: list[Inputs]) -> list[Reader]:
    """The workbook with each of these inputs typed in, recalculated in one start of LibreOffice."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{k}.xlsx" for k in range(len(typed))]
        for path, given in zip(paths, typed, strict=True):
            reader.save(path, given)
        return [reader.showing(copy) for copy in recalculated(paths, Path(folder) / "out")]


def soffice() -> str | None:
    """LibreOffice's program, or None where it is not installed."""
    return shutil.which("soffice") or shutil.which("libreoffice")


def recalculated(paths: list[Path], folder: Path) -> list[Path]:
    """Copies, in `folder`, of workbooks without values, as LibreOffice calculates and saves them.

    It gets a profile of its own, so that an open LibreOffice is not disturbed.
    """
    profile = f"-env:UserInstallation={(folder.resolve() / 'profile').as_uri()}"
    command = [soffice(), profile, "--headless", "--convert-to", "xlsx", "--outdir", folder, *paths]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(command, capture_output=True, timeout=120 + 5 * len(paths), check=True)
    copies = [folder / path.name for path in paths]
    if not all(copy.exists() for copy in copies):
        raise InputError("LibreOffice could not recalculate a copy of the workbook.")
    return copies
