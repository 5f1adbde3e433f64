"""The built book in a headless Chromium with its network off: make book-test.

Each page is opened once, at a phone's width, and asked everything.
"""

import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from bs4 import BeautifulSoup

BOOK = Path(__file__).resolve().parent.parent / "build" / "book"
PAGES = [p for p in sorted(BOOK.rglob("*.html")) if "_static" not in p.parts]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
websocket = pytest.importorskip("websocket", reason="pip install -r docs/requirements.txt")
pytestmark = [
    pytest.mark.skipif(not PAGES, reason="there is no book yet: make book"),
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed"),
]
PHONE = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": True}
RENDERED = (
    "[...document.querySelectorAll('.math')].every(m => m.querySelector('mjx-container svg'))"
)


class Browser:
    """A page of Chromium, driven by its DevTools protocol."""

    def __init__(self, folder: Path):
        off = "--host-resolver-rules=MAP * ~NOTFOUND"  # no name can be looked up
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", off]
        command += ["--remote-debugging-port=0", "--remote-allow-origins=*"]
        self.process = subprocess.Popen(
            [*command, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = self.wait(lambda: (folder / "DevToolsActivePort").read_text().splitlines()[0])
        pages = self.wait(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/json").read())
        address = next(p for p in json.loads(pages) if p["type"] == "page")["webSocketDebuggerUrl"]
        self.socket, self.number, self.errors = websocket.create_connection(address, 120), 0, []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", **PHONE)

    @staticmethod
    def wait(read, seconds: float = 120):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if answer := read():
                    return answer
            except (OSError, IndexError):
                pass
            time.sleep(0.2)
        raise TimeoutError("Chromium does not answer.")

    def call(self, method: str, **how) -> dict:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": how}))
        while True:
            message = json.loads(self.socket.recv())
            self.note(message)
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]

    def note(self, message: dict) -> None:
        """Keeps what a reader would see as an error in the browser's console."""
        kind, content = message.get("method"), message.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.errors.append(content["exceptionDetails"])
        if kind == "Log.entryAdded" and content["entry"]["level"] == "error":
            self.errors.append(content["entry"]["text"] + " " + content["entry"].get("url", ""))
        if kind == "Runtime.consoleAPICalled" and content["type"] in ("error", "assert"):
            self.errors.append(content["args"])
        if kind == "Network.loadingFailed" and not content.get("canceled"):
            self.errors.append(content["errorText"])

    def ask(self, script: str):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return answer["result"].get("value")

    def open(self, address: str) -> None:
        self.errors.clear()
        self.call("Page.navigate", url=address)
        here = f"document.readyState == 'complete' && location.href == {json.dumps(address)}"
        self.wait(lambda: self.ask(here))

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_page_is_whole_without_a_network(browser, path):
    browser.open(path.as_uri())
    browser.wait(lambda: browser.ask(RENDERED))  # every formula
    formulas = len(BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select(".math"))
    assert browser.ask("document.querySelectorAll('mjx-container').length") >= formulas
    assert browser.ask("document.querySelectorAll('mjx-merror').length") == 0
    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
    assert browser.ask(broken) == []
    assert browser.ask("document.documentElement.scrollWidth") <= PHONE["width"] + 1
    assert browser.errors == []


def test_there_are_formulas_to_render():
    texts = [path.read_text(encoding="utf-8") for path in PAGES]
    assert sum(text.count('class="math') for text in texts) > 20


def test_inputs_fold(browser):
    browser.open((BOOK / "notebooks" / "Session6_1.html").as_uri())
    folded = "document.querySelector('details.hide.above-input')"
    shown = f"{folded}.querySelector('.highlight').checkVisibility()"
    assert browser.ask(f"{folded}.open") is False and browser.ask(shown) is False
    browser.ask(f"{folded}.querySelector('summary').click()")
    assert browser.ask(f"{folded}.open") is True and browser.ask(shown) is True


def test_the_search_finds(browser):
    browser.open((BOOK / "search.html").as_uri() + "?q=eval")
    found = "document.querySelectorAll('#search-results li a').length"
    assert browser.wait(lambda: browser.ask(found)) > 0
    assert browser.errors == []


def links():
    for path in PAGES:
        soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for tag, name in (("a", "href"), ("img", "src"), ("script", "src"), ("link", "href")):
            for element in soup.select(f"{tag}[{name}]"):
                yield path, tag, element[name]


def test_no_internal_link_is_dead_and_nothing_is_fetched_from_elsewhere():
    anchors = {p: set(re.findall(r'\bid="([^"]*)"', p.read_text(encoding="utf-8"))) for p in PAGES}
    dead, count = [], 0
    for page, tag, link in links():
        where = urlparse(link)
        if where.scheme or where.netloc:
            assert tag == "a" or where.scheme == "data", f"{page.name} fetches {link}"
            continue
        count += 1
        target, anchor = unquote(where.path), unquote(where.fragment)
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and file in anchors and anchor not in anchors[file]):
            dead.append(f"{page.name}: {link}")
    assert count > 100 and not dead
