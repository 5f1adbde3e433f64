"""What the tests share: the repository on the path, and a data set small enough for any machine.

torch is not imported here, so that the process that only hands out the tests starts at once.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

LONGEST = "sweep exercises workbook checkpoints together alone load_data exercises_in_lessons utils"


def pytest_collection_modifyitems(items):
    """The files that take longest come first, so that all workers end together."""
    longest = {f"test_{name}" for name in LONGEST.split()}
    items.sort(key=lambda item: item.path.stem not in longest and item.path.suffix != ".ipynb")


def needs(root: str, kind: str):
    there = (Path(os.environ.get(root, "nowhere")).expanduser() / kind / "raw").exists()
    return pytest.mark.skipif(not there, reason=f"set {root} to a folder with {kind}")


needs_mnist = needs("MNIST_ROOT", "MNIST")
needs_fashion = needs("FASHION_ROOT", "FashionMNIST")

posix_signals = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows ends a process that is sent a signal"
)


def same(a, b) -> bool:
    """Weights, buffers and histories of two runs equal bit for bit, but for the seconds."""
    untimed = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in run.history.epochs]
        for run in (a, b)
    ]
    states = [run.model.state_dict() for run in (a, b)]
    # repr, since NaN (no validation set) is not equal to itself
    return repr(untimed[0]) == repr(untimed[1]) and all(
        v.equal(states[1][k]) for k, v in states[0].items()
    )


@pytest.fixture(autouse=True, scope="module")
def whole_runs():
    """Notebooks are tested with short runs; what is tested here is the runs themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SMOKE_TEST", raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny tensors gain nothing from a second thread, and the suite may share the machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits():
    """700 real scans to train on (the last batch of 128 is a short one) and 360 to test on."""
    import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SMOKE_TEST", raising=False)
        data = utils.load_data("digits")
    return utils.Data(data.name, data.train[:700], data.test)


def epochs_kept(folder: Path) -> list[int]:
    """Of each checkpoint in the folder."""
    import torch

    return [len(torch.load(file, weights_only=True)["history"]) for file in folder.glob("*.pt")]


@pytest.fixture
def interruptible():
    """Ctrl-C arrives, though the suite was started in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def meanwhile(ready, act):
    """Acts as soon as it is ready, while the block runs."""
    over = threading.Event()

    def wait():
        while not ready() and not over.is_set():
            time.sleep(0.01)
        if not over.is_set():
            act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def still_there(processes: list[psutil.Process], seconds: float = 60) -> list[psutil.Process]:
    """Those that are alive after so many seconds; a zombie only waits to be noticed."""

    def is_alive(process):
        try:
            return process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    deadline = time.monotonic() + seconds
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [process for process in processes if is_alive(process)]
