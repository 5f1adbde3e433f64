"""One rule: the output of a notebook's cell tagged NAME goes between the marks NAME of a text.

The texts are README.md and those in docs/; the marks are the lines "<!-- NAME -->" and
"<!-- end of NAME -->". A figure goes to docs/NAME.png (NAME-1.png and so on where there are
several), and a link to it between the marks; of a cell without figures, what it printed goes there.
"""

import base64
import io
import re
from pathlib import Path

from nbformat import NotebookNode
from PIL import Image, ImageChops

from backstage.files import replace_part, replacing, small_png
from backstage.publish.notebooks import figures

WIDTH = 1000  # pixels, at most: twice what GitHub shows in half a window
MARK = re.compile(r"<!-- end of (.+?) -->")


def texts(root: Path) -> list[Path]:
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def copy(notebooks: list[NotebookNode], root: Path) -> list[str]:
    """Fills the marks that some cell's tag names; gives these names."""
    cells = {
        tag: cell
        for notebook in notebooks
        for cell in notebook.cells
        for tag in cell.metadata.get("tags", [])
    }
    filled = []
    for text in texts(root):
        for name in MARK.findall(text.read_text(encoding="utf-8")):
            if name in cells:
                replace_part(name, shown(cells[name], name, text, root / "docs"), text)
                filled.append(name)
    return filled


def shown(cell: NotebookNode, name: str, text: Path, docs: Path) -> str:
    """What stands between the marks; writes the pictures that it links to."""
    parts, found = [], figures(cell)
    for i, figure in enumerate(found, start=1):
        picture = docs / f"{name}{f'-{i}' if len(found) > 1 else ''}.png"
        write(picture, base64.b64decode(figure.data["image/png"]))
        where = picture.relative_to(text.parent).as_posix()
        parts.append(f"![{figure.metadata['image/png']['alt']}]({where})")
    for output in cell.outputs if not found else ():
        data = output.get("data", {})
        printed = output.get("text") or data.get("text/plain", "")
        parts.append(data.get("text/markdown") or f"```text\n{printed.rstrip()}\n```")
    return "\n\n".join(parts)


def write(path: Path, png: bytes) -> None:
    """Without the margins of one colour, no wider than ``WIDTH``, with a palette."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    paper = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    left, top, right, bottom = ImageChops.difference(picture, paper).getbbox()
    right, bottom = min(right + 8, picture.width), min(bottom + 8, picture.height)
    picture = picture.crop((max(left - 8, 0), max(top - 8, 0), right, bottom))
    if picture.width > WIDTH:
        size = (WIDTH, round(picture.height * WIDTH / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    whole = io.BytesIO()
    picture.save(whole, "png")
    with replacing(path) as file:
        file.write(small_png(whole.getvalue(), 128))
