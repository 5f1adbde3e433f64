"""For a class.

python -m backstage.publish.teaching handout FOLDER  # the lessons without folded solutions
python -m backstage.publish.teaching collect FOLDER  # what check last said, per notebook
"""

import re
import sys
from pathlib import Path

import nbformat

from backstage.publish.notebooks import paths, save

SOLUTION = re.compile(r"\n*<details>\s*<summary>Solution.*?</details>", re.DOTALL)
CHECK = re.compile(r"""\bcheck\(\s*["'](\w+)["']""")


def handout(folder: Path) -> None:
    """Writes the lessons into the folder; the rest of the course comes from their set-up cell."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths():
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            cell.source = SOLUTION.sub("", cell.source)
        save(notebook, folder / path.name)
        print(folder / path.name)


def collect(folder: Path) -> None:
    """Reads handed-in notebooks, and runs none of them."""
    for path in sorted(folder.rglob("*.ipynb")):
        print(path.relative_to(folder))
        for cell in nbformat.read(path, as_version=4).cells:
            for name in CHECK.findall(cell.source) if cell.cell_type == "code" else ():
                said = "".join(o.get("text", "") for o in cell.outputs).strip().splitlines()
                print(f"  {name:<22} {said[0] if said else '(not run)'}")


if __name__ == "__main__":
    commands = {"handout": handout, "collect": collect}
    if len(sys.argv) != 3 or sys.argv[1] not in commands:
        sys.exit(__doc__.strip())
    commands[sys.argv[1]](Path(sys.argv[2]))
