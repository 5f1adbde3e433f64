"""Files that are whole at any moment, parts of them between marks, and small pictures."""

import contextlib
import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from PIL import Image


@contextlib.contextmanager
def replacing(path: Path, mode: str = "wb", **how) -> Iterator[IO]:
    """A file to write to, beside ``path``, that takes its place once it is complete.

    At any moment ``path`` is either complete or not there, as long as only one process writes to
    it. After an error it is as it was.

    Args:
        path: the file to replace or create; it keeps its permissions.
        mode, how: as for ``open``.
    """
    beside = path.with_name(path.name + ".partial")
    try:
        with beside.open(mode, **how) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def between(name: str) -> re.Pattern:
    """What stands between a text's two marks of that name."""
    return re.compile(f"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)


def replace_part(name: str, text: str, path: Path) -> None:
    """Puts the text between the file's two marks of that name.

    Raises:
        ValueError: where the marks are missing.
    """
    before = path.read_text(encoding="utf-8")
    if not between(name).search(before):
        raise ValueError(
            f"{path.name} has no place for the {name}: add the lines '<!-- {name} -->' and "
            f"'<!-- end of {name} -->'."
        )
    with replacing(path, "w", encoding="utf-8") as file:
        file.write(between(name).sub(lambda _: f"{text}\n", before))


def small_png(png: bytes, colors: int = 256) -> bytes:
    """The same picture with a palette of so many colours: as good to look at, half the size."""
    picture, small = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    picture.quantize(colors, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()
