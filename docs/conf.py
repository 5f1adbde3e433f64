"""How Sphinx builds the course as a website that needs no network: make book."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from backstage.publish.page import MATHJAX, mathjax_file  # noqa: E402

project = "Normalization by hand and by experiment"
html_title = "Batch, Layer and Group Normalization"
copyright = "the course's authors, MIT license"
extensions = ["myst_nb"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
myst_heading_slug_func = "backstage.publish.page.anchor"
myst_links_external_new_tab = False
suppress_warnings = ["myst.xref_missing"]  # links to the program's own files lead to nowhere here
# README.md is the front page; backstage/ is there to be linked to.
exclude_patterns = ["README.md", "docs/index.md", "backstage"]

nb_execution_mode = "off"  # the outputs are those that were committed
nb_merge_streams = True

html_theme = "sphinx_book_theme"
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": True,
    "use_fullscreen_button": False,
    "search_bar_text": "Search the course",
}
html_context = {"default_mode": "auto"}  # light or dark, as the reader has it
html_static_path = [str(HERE / "book.css"), str(mathjax_file())]
html_css_files = ["book.css"]
html_copy_source = False
html_show_search_summary = False  # would fetch pages, which a browser refuses for local files
# One MathJax that is shipped along draws all formulas, with or without a network.
mathjax_path = mathjax_file().name
mathjax3_config = {
    "tex": {"inlineMath": [["\\(", "\\)"]], "displayMath": [["\\[", "\\]"]]},
    "options": MATHJAX["options"],
}
