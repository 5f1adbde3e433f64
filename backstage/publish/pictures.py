"""The README's pictures, from the committed notebooks and the workbook, into docs/.

    python -m backstage.publish.pictures     # or: make pictures; LibreOffice draws the workbook

A notebook's cell that is tagged ``picture:NAME`` gives docs/NAME.png, or NAME-1.png and so on where
it has several figures. docs/pictures.json holds what each picture was made from, so that a test can
tell when one is stale, and its text for those who cannot see it.
"""

import base64
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
import openpyxl
from openpyxl.worksheet.properties import PageSetupProperties
from PIL import Image, ImageChops

from backstage.files import replacing, small_png
from backstage.publish.alt_text import figures
from backstage.publish.contents import ROOT, paths

TAG = "picture:"
WIDTH = 1000  # pixels, at most
WORKBOOK, SHEET = "normalization_demo.xlsx", "Illustration"
WORKBOOK_TEXT = (
    "The workbook's main sheet: four images of four channels as coloured grids of numbers, with "
    "the mean and the variance of batch, layer and group norm beside them."
)


@dataclass(frozen=True)
class Source:
    """What a picture is made from."""

    file: str  # in the repository
    sha256: str  # of the figure as the notebook holds it, or of the workbook
    alt: str


def from_notebooks(root: Path = ROOT) -> Iterator[tuple[str, Source, bytes]]:
    """(name, source, PNG) of each figure with the tag."""
    for path in paths(root):
        for cell in nbformat.read(root / path, as_version=4).cells:
            tags = [t for t in cell.metadata.get("tags", []) if t.startswith(TAG)]
            found = figures(cell)
            for i, figure in enumerate(found if tags else [], start=1):
                name = tags[0].removeprefix(TAG) + (f"-{i}" if len(found) > 1 else "")
                png = base64.b64decode(figure.data["image/png"])
                alt = figure.metadata["image/png"]["alt"]
                yield name, Source(path.as_posix(), hashlib.sha256(png).hexdigest(), alt), png


def of_workbook(root: Path = ROOT) -> Source:
    digest = hashlib.sha256((root / WORKBOOK).read_bytes()).hexdigest()
    return Source(WORKBOOK, digest, WORKBOOK_TEXT)


def sources(root: Path = ROOT) -> dict[str, Source]:
    """Of every picture, by its name, as the committed files are now."""
    return {name: source for name, source, _ in from_notebooks(root)} | {
        "workbook": of_workbook(root)
    }


def small(picture: Image.Image) -> bytes:
    """Without the margins of one colour, no wider than ``WIDTH``, with a palette."""
    picture = picture.convert("RGB")
    paper = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    left, top, right, bottom = ImageChops.difference(picture, paper).getbbox()
    right, bottom = min(right + 8, picture.width), min(bottom + 8, picture.height)
    picture = picture.crop((max(left - 8, 0), max(top - 8, 0), right, bottom))
    if picture.width > WIDTH:
        size = (WIDTH, round(picture.height * WIDTH / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    png = io.BytesIO()
    picture.save(png, "png")
    return small_png(png.getvalue(), 128)


def a_page_for_each_sheet(source: Path, target: Path) -> int:
    """Writes the workbook so that it prints like this; gives the page of its main sheet."""
    book = openpyxl.load_workbook(source)
    for sheet in book:
        sheet.print_area = sheet.row_breaks = sheet.col_breaks = None
        sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
        sheet.page_setup.fitToWidth = sheet.page_setup.fitToHeight = 1
        sheet.page_setup.orientation = "landscape"
        sheet.oddFooter.right.text = ""
    book.save(target)
    return book.sheetnames.index(SHEET) + 1


def draw_workbook(root: Path = ROOT) -> Image.Image:
    """Its main sheet, as LibreOffice and poppler's pdftoppm draw it."""
    for program in ("soffice", "pdftoppm"):
        if not shutil.which(program):
            raise SystemExit(f"{program} is not installed: it is needed to draw the workbook.")
    with tempfile.TemporaryDirectory() as folder:
        book, pdf, page = (Path(folder) / name for name in ("book.xlsx", "book.pdf", "page"))
        number = str(a_page_for_each_sheet(root / WORKBOOK, book))
        profile = f"-env:UserInstallation={Path(folder).as_uri()}/profile"
        convert = ["soffice", profile, "--headless", "--convert-to", "pdf", "--outdir", folder]
        subprocess.run([*convert, book], check=True, capture_output=True)
        draw = ["pdftoppm", "-png", "-r", "200", "-f", number, "-singlefile"]
        subprocess.run([*draw, pdf, page], check=True)
        return Image.open(page.with_suffix(".png")).convert("RGB")


def write(folder: Path, name: str, png: bytes) -> None:
    with replacing(folder / f"{name}.png") as file:
        file.write(png)


def main(root: Path = ROOT) -> int:
    docs = root / "docs"
    docs.mkdir(exist_ok=True)
    listed = docs / "pictures.json"
    before = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else {}
    for name, _, png in from_notebooks(root):
        write(docs, name, small(Image.open(io.BytesIO(png))))
    if before.get("workbook", {}).get("sha256") != of_workbook(root).sha256:
        write(docs, "workbook", small(draw_workbook(root)))
    found = sources(root)
    for old in docs.glob("*.png"):
        if old.stem not in found:
            old.unlink()
    with replacing(listed, "w", encoding="utf-8") as file:
        text = {name: asdict(source) for name, source in sorted(found.items())}
        file.write(json.dumps(text, indent=1, ensure_ascii=False) + "\n")
    size = sum(p.stat().st_size for p in docs.glob("*.png"))
    print(f"{len(found)} pictures in docs/, {size / 1e6:.2f} MB.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
