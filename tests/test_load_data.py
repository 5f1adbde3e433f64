"""Where the data sets come from: a folder, a download, or the stand-in and a line that says why."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torchvision
from conftest import ROOT, needs_mnist, posix_signals

import utils
from utils import DataError

FILES = [f"{a}-{b}-ubyte" for a in ("train", "t10k") for b in ("images-idx3", "labels-idx1")]


@pytest.fixture
def copied_mnist(tmp_path, monkeypatch):
    """The four files, where a test may damage them."""
    shutil.copytree(os.environ["MNIST_ROOT"], tmp_path / "root")
    for path in (tmp_path / "root").rglob("*"):
        path.chmod(0o755)
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path / "root"))
    return tmp_path / "root" / "MNIST" / "raw"


@needs_mnist
@pytest.mark.parametrize("damage", ["cut short", "altered", "missing", "folder"])
def test_a_damaged_file_is_neither_used_nor_deleted(copied_mnist, damage):
    path = copied_mnist / FILES[3]
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "altered":
        content[-1] ^= 1
        path.write_bytes(content)
    if damage == "cut short":
        path.write_bytes(content[:-1])
    if damage == "folder":
        path.mkdir()
    before = sorted((p.name, p.stat().st_size) for p in copied_mnist.iterdir())
    with pytest.raises(DataError, match="MNIST/raw does not have the published files") as error:
        utils.load_data()
    assert str(error.value).count("\n") == 0
    assert sorted((p.name, p.stat().st_size) for p in copied_mnist.iterdir()) == before


@needs_mnist
def test_a_home_folder_is_understood(monkeypatch):
    root = Path(os.environ["MNIST_ROOT"]).resolve()
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.setenv("MNIST_ROOT", f"~/{root.name}")
    assert len(utils.load_data().train) == 60_000


# ------------------------------------------------------------------------------------- downloads


@pytest.fixture
def nothing_at_hand(tmp_path, monkeypatch):
    """No data set anywhere, and no mirror; gives the folder that downloads go to."""
    for root in ("MNIST_ROOT", "FASHION_ROOT"):
        monkeypatch.delenv(root, raising=False)
    monkeypatch.setattr(utils, "REPOSITORY", tmp_path)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [])
    return tmp_path / "data"


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror with four small files of the right kind: its address."""
    folder, resources = tmp_path / "mirror", []
    folder.mkdir()
    for name, head in zip(FILES, [(2051, 2, 28, 28), (2049, 2)] * 2, strict=True):
        pixels = bytes(2 * 784 if "images" in name else 2)
        raw = b"".join(number.to_bytes(4, "big") for number in head) + pixels
        packed = gzip.compress(raw, mtime=0)
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    small = f"kind.resources = {resources!r}\nkind(sys.argv[3]"
    monkeypatch.setattr(utils, "_DOWNLOAD", utils._DOWNLOAD.replace("kind(sys.argv[3]", small))
    source = utils.SOURCES["mnist"]._replace(checksum="")  # the end of any fingerprint
    monkeypatch.setitem(utils.SOURCES, "mnist", source)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with serving(handler) as url:
        yield url


class serving:
    """A server of HTTP on this machine, while the block runs."""

    def __init__(self, handler):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Bad(http.server.BaseHTTPRequestHandler):
    """Serves HTML, breaks off, speaks something else, redirects to nonsense or drips."""

    def do_GET(self):
        self.asked.set()
        if self.how == "not HTTP":
            self.wfile.write(b"SSH-2.0-hello\r\n")
        elif self.how == "redirect":
            self.send_response(302)
            self.send_header("Location", "gopher://[nonsense")
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Length", "6" if self.how == "HTML" else "1000000")
            self.end_headers()
            self.wfile.write(b"<html>")
        with contextlib.suppress(OSError):
            while self.how == "drips" and not self.over.wait(0.1):
                self.wfile.write(b".")

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("hows", [["HTML", "breaks off", "not HTTP", "redirect"], ["drips"]])
def test_after_bad_mirrors_comes_the_next(nothing_at_hand, mirror, monkeypatch, hows):
    events = {"asked": threading.Event(), "over": threading.Event()}
    wait = subprocess.Popen.wait

    def until_it_drips(process, timeout=None):  # and the limit is over
        if timeout and not events["asked"].is_set():
            events["asked"].wait()
            raise subprocess.TimeoutExpired(process.args, timeout)
        return wait(process, timeout)

    if hows == ["drips"]:
        monkeypatch.setattr(subprocess.Popen, "wait", until_it_drips)
    with contextlib.ExitStack() as stack:
        bad = [type("Bad", (Bad,), {"how": how, **events}) for how in hows]
        urls = [stack.enter_context(serving(handler)) for handler in bad]
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [*urls, mirror])
        data = utils.load_data()
        events["over"].set()
    assert (data.name, len(data.train)) == ("MNIST", 2)
    assert [path.name for path in nothing_at_hand.iterdir()] == ["MNIST"]


def test_without_a_network_the_stand_in_takes_its_place_and_a_line_says_why(
    nothing_at_hand, monkeypatch, capsys
):
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    data = utils.load_data()
    assert (len(data.train), len(data.test)) == (1437, 360)
    assert data.train.x.shape[1:] == (1, 28, 28)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "no mirror" in said[1] and "1,797" in said[1]
    assert list(nothing_at_hand.iterdir()) == []


def test_fashion_has_no_stand_in_but_a_sentence(nothing_at_hand):
    with pytest.raises(DataError, match=r"no mirror.*set \$FASHION_ROOT"):
        utils.load_data("fashion")


def test_a_folder_that_cannot_be_written_is_the_reason(nothing_at_hand, capsys):
    nothing_at_hand.write_text("a file, where the folder should be")
    assert utils.load_data().name == "scikit-learn digits"
    assert "data/: " in capsys.readouterr().out


def test_a_data_root_without_the_files_is_said(nothing_at_hand, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path))
    utils.load_data()
    assert "$MNIST_ROOT" in capsys.readouterr().out


def test_two_downloads_at_once_leave_one_copy(nothing_at_hand, mirror, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [mirror])
    rename = os.rename

    def overtaken(source, target):
        shutil.copytree(source, target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", overtaken)
    assert utils.load_data().name == "MNIST"
    assert [path.name for path in nothing_at_hand.iterdir()] == ["MNIST"]


@posix_signals
def test_what_a_killed_download_left_is_removed_by_the_next(nothing_at_hand, tmp_path):
    """Its own process ends with it."""
    script = (
        "import utils, pathlib, torchvision; torchvision.datasets.MNIST.mirrors = [{!r}]\n"
        "utils.REPOSITORY = pathlib.Path({!r}); utils.load_data()"
    )
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts, and never says a word
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/"
        process = subprocess.Popen(
            [sys.executable, "-c", script.format(url, str(tmp_path))],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        while not list(nothing_at_hand.glob(".download*/MNIST/raw")):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(nothing_at_hand.iterdir())
    utils.load_data()
    assert not list(nothing_at_hand.iterdir())
