"""What a figure shows, in words, for those who cannot see it.

An author says it in a comment in the figure's cell, of one line or of several:

    # alt: Test accuracy against batch size: BN falls from 16 images on, GN does not.

A cell that says nothing gets the heading above it and the titles in its code, so that no figure is
ever without. The text is kept where nbconvert expects it, in the output's metadata.
"""

import re

from nbformat import NotebookNode

SAID = re.compile(r"^[ \t]*# alt: *(.+(?:\n[ \t]*#  +.+)*)", re.MULTILINE)
TITLE = re.compile(r"""title(?:\(|\s*=)\s*(f?)(["'])(.+?)\2""")
HEADING = re.compile(r"^#+ +(?:\d+ · )?(.+)$", re.MULTILINE)


def figures(cell: NotebookNode) -> list[NotebookNode]:
    """The outputs of a cell that are pictures."""
    return [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]


def describe(notebook: NotebookNode) -> None:
    """Gives every figure its text."""
    heading = "Figure"
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = ([heading] + HEADING.findall(cell.source))[-1]
        found = figures(cell)
        for i, figure in enumerate(found, start=1):
            of = f" ({i} of {len(found)})" if len(found) > 1 else ""
            figure.metadata.setdefault("image/png", {})["alt"] = words(cell.source, heading) + of


def words(source: str, heading: str) -> str:
    """The author's text, or else the heading and the titles."""
    if said := SAID.search(source):
        return re.sub(r"\s*\n\s*#\s*", " ", said[1]).strip()
    titles = [re.sub(r"\{.*?\}", "…", t) if f else t for f, _, t in TITLE.findall(source)]
    titles = [t for t in dict.fromkeys(titles) if len(re.findall(r"[^\W\d]{2,}", t)) > 1]
    return plain(": ".join([heading.rstrip("?")] + ["; ".join(titles)] * bool(titles)))


def plain(text: str) -> str:
    """Without Markdown's and TeX's marks."""
    text = re.sub(r"\\(?:hat|text|mathrm|operatorname)\b|\\[,;!]|[$`*{}]", "", text)
    return re.sub(r"\\(\w+)", r"\1", text)
