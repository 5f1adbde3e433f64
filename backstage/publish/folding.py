"""Cells that are shown folded: tagged once, understood by every reader.

Authors tag a cell ``hide-input`` (long plotting code) or ``hide-output`` (the answer to a
prediction). The book goes by these tags. JupyterLab and Colab have marks of their own.
"""

from nbformat import NotebookNode


def fold(notebook: NotebookNode) -> None:
    """Gives the tagged cells the marks of JupyterLab and Colab, and takes the others' away."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            tags, marks = cell.metadata.get("tags", []), cell.metadata.get("jupyter", {})
            for part, tag in (("source", "hide-input"), ("outputs", "hide-output")):
                _set(marks, f"{part}_hidden", True, tag in tags)
            _set(cell.metadata, "jupyter", marks, bool(marks))
            _set(cell.metadata, "cellView", "form", "hide-input" in tags)


def _set(metadata: dict, key: str, value, wanted: bool) -> None:
    metadata.pop(key, None)
    if wanted:
        metadata[key] = value
