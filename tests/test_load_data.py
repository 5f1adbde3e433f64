"""Where the data sets come from: a folder, a download, or the stand-in and a line that says why."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import psutil
import pytest
from conftest import needs_mnist, posix_signals, still_there

import utils

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
    with pytest.raises(RuntimeError, match="MNIST/raw does not have the published files") as error:
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
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [])
    monkeypatch.setattr("torchvision.datasets.FashionMNIST.mirrors", [])
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
    source = *utils.SOURCES["mnist"][:-1], ""  # the end of any fingerprint
    monkeypatch.setitem(utils.SOURCES, "mnist", source)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with serving(handler) as url:
        yield url


@contextlib.contextmanager
def serving(handler):
    """The address of a server of HTTP on this machine, while the block runs."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Page(http.server.BaseHTTPRequestHandler):
    """Answers with HTML to whatever is asked for."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")


def test_after_a_bad_mirror_comes_the_next(nothing_at_hand, mirror, monkeypatch):
    with serving(Page) as page:
        monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [page, mirror])
        data = utils.load_data()
    assert (data.name, len(data.train)) == ("MNIST", 2)
    assert [path.name for path in nothing_at_hand.iterdir()] == ["MNIST"]


def test_a_download_that_never_ends_is_given_up(nothing_at_hand, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", ["one", "another"])
    monkeypatch.setattr(utils, "_DOWNLOAD", "import time; time.sleep(3_600)")
    run, before = subprocess.run, set(psutil.Process().children())

    def impatient(*command, timeout, **how):
        return run(*command, timeout=timeout / 1_000, **how)

    monkeypatch.setattr(subprocess, "run", impatient)
    assert utils.load_data().name == "scikit-learn digits"
    assert not list(nothing_at_hand.iterdir())
    assert set(psutil.Process().children()) <= before


def test_without_a_mirror_the_stand_in_takes_its_place_and_a_line_says_why(nothing_at_hand, capsys):
    data = utils.load_data()
    assert (len(data.train), len(data.test)) == (1437, 360)
    assert data.train.x.shape[1:] == (1, 28, 28)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "no mirror" in said[1] and "1,797" in said[1]
    assert list(nothing_at_hand.iterdir()) == []
    with pytest.raises(RuntimeError, match=r"no mirror.*set \$FASHION_ROOT"):
        utils.load_data("fashion")


def test_a_folder_that_cannot_be_written_is_the_reason(nothing_at_hand, capsys):
    nothing_at_hand.write_text("a file, where the folder should be")
    assert utils.load_data().name == "scikit-learn digits"
    assert "data/: " in capsys.readouterr().out


def test_a_data_root_without_the_files_is_said(nothing_at_hand, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path))
    utils.load_data()
    assert "$MNIST_ROOT" in capsys.readouterr().out


def test_two_downloads_at_once_leave_one_copy(nothing_at_hand, monkeypatch):
    def gives(mirror, kind, folder):
        for place in (folder, nothing_at_hand):  # the other one's is in its place already
            (place / kind / "raw").mkdir(parents=True)
            (place / kind / "raw" / "file").write_text("")
        return True

    monkeypatch.setattr(utils, "_gives", gives)
    monkeypatch.setattr(utils, "_read", lambda folder, *_: folder)
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", ["any"])
    assert utils.load_data() == nothing_at_hand / "MNIST" / "raw"
    assert [path.name for path in nothing_at_hand.iterdir()] == ["MNIST"]


def load_from(url, folder):
    from torchvision import datasets

    datasets.MNIST.mirrors = [url]
    utils.REPOSITORY = folder
    utils._DOWNLOAD = utils._DOWNLOAD.replace("timeout(15)", "timeout(600)")
    os.environ.pop("MNIST_ROOT", None)
    utils.load_data()


@posix_signals
def test_a_killed_downloads_own_process_ends_and_what_it_left_is_removed_by_the_next(
    nothing_at_hand, tmp_path
):
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,  # accepts, and never says a word
        pytest.raises(BrokenProcessPool),
        utils.process_pool(1) as pool,
    ):
        parent = psutil.Process(pool.submit(os.getpid).result())
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/"
        future = pool.submit(load_from, url, tmp_path)
        while not list(nothing_at_hand.glob(".download*/MNIST/raw")) and not future.done():
            time.sleep(0.05)
        (child,) = parent.children()
        parent.kill()
        future.result()
    assert not still_there([child])
    assert list(nothing_at_hand.iterdir())
    utils.load_data()
    assert not list(nothing_at_hand.iterdir())
