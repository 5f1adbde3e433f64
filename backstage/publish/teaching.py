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
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue  # Jupyter's own copies
        print(path.relative_to(folder))
        try:
            cells = nbformat.read(path, as_version=4).cells
        except (OSError, ValueError, nbformat.reader.NotJSONError) as error:
            print(f"  not a notebook: {error}"[:96])
            continue
        for cell in cells:
            for name in CHECK.findall(cell.source) if cell.cell_type == "code" else ():
                print(f"  {name:<22} {last_said(cell.outputs)}")


def last_said(outputs: list) -> str:
    """The first line of the verdict that stands under the cell."""
    lines = "".join(o.get("text", "") for o in outputs).splitlines()
    error = "(an error)" if any(o.output_type == "error" for o in outputs) else "(not run)"
    return next((line for line in lines if line[:1] in "✓✗…"), error)


if __name__ == "__main__":
    commands = {"handout": handout, "collect": collect}
    if len(sys.argv) != 3 or sys.argv[1] not in commands:
        sys.exit(__doc__.strip())
    commands[sys.argv[1]](Path(sys.argv[2]))
