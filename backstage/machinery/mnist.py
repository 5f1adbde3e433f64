"""MNIST's four files, found, verified or downloaded, and a small stand-in for them."""

import hashlib
import os
import shutil
import socket
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

# MD5 sums of the unpacked files, as published for MNIST.
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
SECONDS_PER_MIRROR = 15


class DataError(RuntimeError):
    """The data cannot be used; the message says which file and what to do."""


def is_in(root: Path) -> bool:
    """Whether any of the files is in ``root/MNIST/raw``, torchvision's layout."""
    return any((root / "MNIST" / "raw" / name).exists() for name in MD5)


def find_or_download(folder: Path) -> Path | None:
    """The folder that MNIST is in: ``$MNIST_ROOT`` or this one. A line says where it is in neither.

    Args:
        folder: where it is looked for next, and downloaded to.
    """
    if asked_for := os.environ.get("MNIST_ROOT"):
        if is_in(Path(asked_for)):
            return Path(asked_for)
        print(f"$MNIST_ROOT has no MNIST/raw folder with MNIST's files; trying {folder.name}/.")
    if is_in(folder) or download(folder):
        return folder
    print(
        "MNIST could not be downloaded: using scikit-learn's 1,797 scanned digits instead. "
        "Everything runs, but accuracies are lower and far noisier than the lesson's."
    )
    return None


def read(root: Path) -> list[tuple[Tensor, Tensor]]:
    """Training and test set, each as images (N, 28, 28) uint8 and labels (N,) int64.

    Raises:
        DataError: where a file is missing or not the published one; it is left as it is.
    """
    for name, published in MD5.items():
        path = root / "MNIST" / "raw" / name
        if not path.exists():
            raise DataError(f"{path} is missing: put it back, or move {root} away to download.")
        if hashlib.md5(path.read_bytes()).hexdigest() != published:
            raise DataError(
                f"{path} is not the published file (its MD5 sum differs): move it away and put a "
                f"fresh copy in its place."
            )
    parts = [torchvision.datasets.MNIST(root, train=t, download=False) for t in (True, False)]
    return [(part.data, part.targets) for part in parts]


def stand_in() -> list[tuple[Tensor, Tensor]]:
    """scikit-learn's 1,797 scanned digits, in the same form and split 1,437 to 360."""
    digits = load_digits()
    x = torch.from_numpy(digits.images).float().unsqueeze(1) * (255 / 16)  # (1797, 1, 8, 8)
    # As in MNIST, the digit fills 20 x 20 pixels and has a margin of 4.
    x = F.pad(F.interpolate(x, size=(20, 20), mode="bilinear", align_corners=False), (4, 4, 4, 4))
    x, y = x.round().to(torch.uint8).squeeze(1), torch.from_numpy(digits.target).long()
    parts = train_test_split(range(len(y)), test_size=360, stratify=digits.target, random_state=0)
    return [(x[part], y[part]) for part in parts]


def download(folder: Path) -> bool:
    """Downloads MNIST beside ``folder`` and moves it in once complete. False without a network."""
    mirrors = [m for m in torchvision.datasets.MNIST.mirrors if _answers(m, SECONDS_PER_MIRROR)]
    if not mirrors:
        return False
    # torchvision names its folder after the class, hence a subclass of the same name.
    mnist = type("MNIST", (torchvision.datasets.MNIST,), {"mirrors": mirrors})
    folder.mkdir(parents=True, exist_ok=True)
    limit = socket.getdefaulttimeout()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as fresh:
        try:
            socket.setdefaulttimeout(SECONDS_PER_MIRROR)  # torchvision's own requests have none
            mnist(fresh, download=True)
        except (OSError, RuntimeError):
            return False
        finally:
            socket.setdefaulttimeout(limit)
        shutil.move(Path(fresh) / "MNIST", folder / "MNIST")
    return True


def _answers(url: str, seconds: float) -> bool:
    """Whether a server answers within that time; in a thread, since name look-ups have no limit."""
    answered = threading.Event()

    def ask():
        try:
            urllib.request.urlopen(url, timeout=seconds).close()
        except urllib.error.HTTPError:
            pass  # A refusal of the bare folder is an answer too.
        except (OSError, ValueError):
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()
