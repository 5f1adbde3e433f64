"""A notebook as one HTML file that needs no network: its figures and its formulas are inside."""

import importlib.util
import json
import re
from pathlib import Path

from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from backstage.publish.notebooks import figures

MATHJAX = {
    "tex": {"inlineMath": [["$", "$"], ["\\(", "\\)"]], "processEscapes": True},
    "options": {"enableMenu": False},  # its menu would load more
}


def mathjax_file() -> Path:
    """MathJax in one script that draws formulas with its own fonts, from its package."""
    package = importlib.util.find_spec("mathjax").submodule_search_locations[0]
    return Path(package) / "static" / "mathjax" / "es5" / "tex-svg.js"


def page(notebook: NotebookNode, title: str) -> str:
    html, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": title}})
    soup = BeautifulSoup(html, "html.parser")
    for script in soup.select('script[src^="http"], script[type="text/x-mathjax-config"]'):
        script.decompose()
    drawn = [f for cell in notebook.cells for f in figures(cell)]
    for image, figure in zip(soup.select(".jp-RenderedImage img"), drawn, strict=True):
        image["alt"] = figure.metadata["image/png"]["alt"]
    scripts = f"<script>window.MathJax = {json.dumps(MATHJAX)}</script>\n"
    scripts += f"<script>{mathjax_file().read_text(encoding='utf-8')}</script>\n"
    return re.sub("(?=</head>)", lambda _: scripts, str(soup), count=1)


def anchor(title: str) -> str:
    """Jupyter's for a lesson's numbered sections ("2-·-A-new-domain"), else GitHub's."""
    if re.match(r"\d+ · ", title):
        return title.replace(" ", "-")
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
