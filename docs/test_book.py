"""The built book in a headless Chromium without a network: make book-test."""

import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from bs4 import BeautifulSoup

BOOK = Path(__file__).resolve().parent.parent / "build" / "book"
PAGES = [p for p in sorted(BOOK.rglob("*.html")) if "_static" not in p.parts]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(not PAGES, reason="there is no book yet: make book"),
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed"),
]


def opened(address: str, folder: Path) -> BeautifulSoup:
    """The page as it is once its scripts have run; no name can be looked up."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000"]
    command += ["--allow-file-access-from-files", f"--user-data-dir={folder}", address]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return BeautifulSoup(done.stdout, "html.parser")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_formula_is_drawn(page, tmp_path):
    written = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select(".math")
    if written:
        shown = opened(page.as_uri(), tmp_path).select(".math")
        assert len(shown) == len(written)
        assert all(formula.select("mjx-container svg") for formula in shown)


def test_the_search_finds_a_lesson(tmp_path):
    page = opened((BOOK / "search.html").as_uri() + "?q=ghost", tmp_path)
    found = [a["href"] for a in page.select("#search-results a")]
    assert any("Session6_3" in link for link in found)


def test_no_internal_link_is_dead_and_nothing_is_fetched_from_elsewhere():
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    anchors = {page: set(re.findall(r'\bid="([^"]*)"', text)) for page, text in texts.items()}
    dead = []
    for page, text in texts.items():
        soup = BeautifulSoup(text, "html.parser")
        for tag, name in (("a", "href"), ("img", "src"), ("script", "src"), ("link", "href")):
            for where in (urlparse(element[name]) for element in soup.select(f"{tag}[{name}]")):
                if where.scheme or where.netloc:
                    assert tag == "a" or where.scheme == "data", f"{page.name} fetches {where}"
                    continue
                file = (page.parent / unquote(where.path)).resolve() if where.path else page
                anchor = unquote(where.fragment)
                if not file.exists() or (anchor and anchor not in anchors.get(file, {anchor})):
                    dead.append(f"{page.name}: {where.geturl()}")
    assert len(PAGES) > 8 and not dead
