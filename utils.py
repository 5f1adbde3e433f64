"""Data, training and plotting for the notebooks, which drive it; it drives ``s6_model``.

Three parts in this order: **data** (MNIST as tensors, and the split), **training** (an
``Experiment`` is trained by ``fit``, which gives a ``Run``), **plotting** (figures from histories
and arrays).
"""

import contextlib
import copyreg
import ctypes
import functools
import hashlib
import multiprocessing.connection
import os
import pickle
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
import tqdm.auto
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import train_test_split
from torch import Tensor

from s6_model import NORMS, Net, l1_loss, l2_loss

REPOSITORY = Path(__file__).resolve().parent

# ---------------------------------------------------------------------------------------- data

MEAN, STD = 0.1307, 0.3081  # of the pixels of MNIST's training set, scaled to [0, 1]

# MD5 sums of the unpacked files, as published for MNIST.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
SECONDS_PER_MIRROR = 15


class DataError(RuntimeError):
    """The data cannot be used; the message says which file and what to do."""


def _described(value) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


@dataclass(frozen=True)
class Images:
    """Grey images with labels: x (N, 1, H, W) uint8, 0..255; y (N,) int64, 0..9."""

    x: Tensor
    y: Tensor

    def __post_init__(self):
        x, y = self.x, self.y
        if not isinstance(x, Tensor) or x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] != 1:
            raise ValueError(
                f"Images must be a uint8 tensor of shape (N, 1, H, W), not {_described(x)}."
            )
        if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.shape != x.shape[:1]:
            raise ValueError(
                f"Labels must be an int64 tensor of shape ({len(x)},), one per image, not "
                f"{_described(y)}."
            )
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) <= 9:
            raise ValueError(f"Labels must lie in 0..9, not in {int(y.min())}..{int(y.max())}.")

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index) -> "Images":
        return Images(self.x[index], self.y[index])

    def to(self, device: torch.device) -> "Images":
        return Images(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Data:
    """A data set: what is trained on, what is tested on, and what hyperparameters are chosen on."""

    name: str
    train: Images
    test: Images
    val: Images | None = None

    def __str__(self) -> str:
        sizes = [f"{len(self.train):,} training", f"{len(self.test):,} test"]
        if self.val is not None:
            sizes.insert(1, f"{len(self.val):,} validation")
        height, width = self.train.x.shape[2:]
        return f"{self.name}: {', '.join(sizes)} images of {height}x{width} pixels"

    def to(self, device: torch.device) -> "Data":
        val = None if self.val is None else self.val.to(device)
        return Data(self.name, self.train.to(device), self.test.to(device), val)

    def fingerprint(self) -> str:
        """Names the data, so that a checkpoint is not continued on other data."""
        checksum, sizes = 0, []
        for part in (self.train, self.val, self.test):
            sizes.append(0 if part is None else len(part))
            for tensor in () if part is None else (part.x, part.y):
                checksum = zlib.crc32(tensor.cpu().contiguous().numpy(), checksum)
        return f"{self.name}, {' + '.join(map(str, sizes))} images, {checksum:08x}"


def load_data(name: str = "mnist") -> Data:
    """Real MNIST (60,000 + 10,000 images), or a small stand-in where there is none.

    MNIST is looked for in ``$MNIST_ROOT``, then in the repository's ``data/``, then downloaded to
    ``data/``. Where none of these works, scikit-learn's 1,797 scanned digits take its place, and
    a line says so.

    Args:
        name: ``"mnist"``, or ``"digits"`` for the stand-in itself.

    Raises:
        ValueError: for another name.
        DataError: where a file of MNIST is not the published one; it is left as it is.
    """
    if name == "digits":
        return _load_digits()
    if name != "mnist":
        raise ValueError(f"Unknown data set {name!r}: use 'mnist' or 'digits'.")
    folder = REPOSITORY / "data"
    asked_for = os.environ.get("MNIST_ROOT")
    if asked_for and _has_mnist(Path(asked_for)):
        return _load_mnist(Path(asked_for))
    if asked_for:
        print(f"$MNIST_ROOT has no MNIST/raw folder with MNIST's files; trying {folder.name}/.")
    if _has_mnist(folder) or _download_mnist(folder):
        return _load_mnist(folder)
    print(
        "MNIST could not be downloaded: using scikit-learn's 1,797 scanned digits instead. "
        "Everything runs, but accuracies are lower and far noisier than the lesson's."
    )
    return _load_digits()


def split_validation(data: Data, size: int = 5_000, seed: int = 0) -> Data:
    """Takes a stratified validation set out of the training set, for choosing hyperparameters."""
    if not 0 < size < len(data.train):
        raise ValueError(f"size must lie between 0 and {len(data.train)}, not {size}.")
    labels = data.train.y.cpu().numpy()
    train, val = train_test_split(
        np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed
    )
    return Data(data.name, data.train[train], data.test, data.train[val])


def _raw(root: Path) -> Path:
    return root / "MNIST" / "raw"


def _has_mnist(root: Path) -> bool:
    return any((_raw(root) / name).exists() for name in MNIST_MD5)


def _load_mnist(root: Path) -> Data:
    for name, published in MNIST_MD5.items():
        path = _raw(root) / name
        if not path.exists():
            raise DataError(f"{path} is missing: put it back, or move {root} away to download.")
        if hashlib.md5(path.read_bytes()).hexdigest() != published:
            raise DataError(
                f"{path} is not the published file (truncated or altered; its MD5 sum differs): "
                f"move it away and put a fresh copy in its place."
            )
    train, test = (
        torchvision.datasets.MNIST(root, train=train, download=False) for train in (True, False)
    )
    return Data("MNIST", *(Images(d.data.unsqueeze(1), d.targets) for d in (train, test)))


def _load_digits() -> Data:
    digits = load_digits()
    x = torch.from_numpy(digits.images).float().unsqueeze(1) * (255 / 16)  # (1797, 1, 8, 8)
    # As in MNIST, the digit fills 20 x 20 pixels and has a margin of 4.
    x = F.pad(F.interpolate(x, size=(20, 20), mode="bilinear", align_corners=False), (4, 4, 4, 4))
    every = Images(x.round().to(torch.uint8), torch.from_numpy(digits.target).long())
    train, test = train_test_split(
        np.arange(len(every)), test_size=360, stratify=digits.target, random_state=0
    )
    return Data("scikit-learn digits", every[train], every[test])


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


def _download_mnist(folder: Path) -> bool:
    """Downloads MNIST beside ``folder`` and moves it in when complete. False without a network."""
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


def normalize(x: Tensor) -> Tensor:
    """(N, 1, H, W) uint8 in 0..255, or float in 0..1 -> float32 with MNIST's mean 0 and std 1."""
    x = x.float() / 255 if x.dtype == torch.uint8 else x
    return (x - MEAN) / STD


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Turns, slants, stretches and shifts each image at random, as different hands would write it.

    Up to 10 degrees, a slant of 0.2, 12% in width and in height, and 1.5 pixels. The whole batch at
    once, which is many times as fast as one image at a time. The random numbers come from a CPU
    generator on every device, so all devices see the same images.

    Args:
        x: (N, 1, H, W) float; what comes in from outside the image is 0.
        generator: of the CPU.
    """

    def uniform(limit: float) -> Tensor:  # (N,), in [-limit, limit]
        return (2 * torch.rand(len(x), generator=generator) - 1) * limit

    angle, slant = uniform(10 * torch.pi / 180), uniform(0.2)
    width, height = 1 + uniform(0.12), 1 + uniform(0.12)
    # grid_sample counts an image's width from -1 to 1, so that a pixel is 2/W.
    right, down = uniform(1.5 * 2 / x.shape[3]), uniform(1.5 * 2 / x.shape[2])
    cos, sin = angle.cos(), angle.sin()
    rows = [cos * width, (cos * slant - sin) * height, right]
    rows += [sin * width, (sin * slant + cos) * height, down]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3).to(x.device)
    # F.affine_grid's grid, as one matrix product in place of N small ones.
    grid = theta @ _pixel_centres(*x.shape[2:]).to(x.device)  # (N, 2, H*W)
    return F.grid_sample(x, grid.view(-1, 2, *x.shape[2:]).permute(0, 2, 3, 1), align_corners=False)


def _pixel_centres(height: int, width: int) -> Tensor:
    """x, y and 1 of each pixel, (3, H*W), x and y from -1 to 1 over the image."""
    y, x = ((2 * torch.arange(size) + 1) / size - 1 for size in (height, width))
    return torch.stack([x.repeat(height), y.repeat_interleave(width), torch.ones(height * width)])


# ------------------------------------------------------------------------------------ training


@dataclass(frozen=True)
class Experiment:
    """Everything that a run depends on, besides the data. Vary with ``dataclasses.replace``."""

    norm: str = "BN"  # one of s6_model.NORMS
    groups: int = 4  # of GN
    l1: float = 0.0  # λ1, times Σ|w|
    l2: float = 0.0  # λ2, times ½Σw²
    mean_l1: bool = False  # L1 as it is often written: each tensor's mean, gains and biases too
    epochs: int = 20
    batch_size: int = 128
    lr: float = 0.025  # Adam's step size, at its peak
    schedule: str = "one-cycle"  # up, then down to nothing; or "constant"
    augment: bool = True
    plain_epochs: int = 2  # the last epochs, which see the images as they are
    dropout: float = 0.0  # probability, before the head
    seed: int = 0  # of the initial weights, the order of the batches, augmentation and dropout

    def __post_init__(self):
        if self.norm not in NORMS:
            raise ValueError(f"Unknown norm {self.norm!r}: use one of {', '.join(NORMS)}.")
        for name in ("l1", "l2"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: a penalty cannot be negative.")
        for name in ("epochs", "batch_size", "groups"):
            if not (isinstance(getattr(self, name), int) and getattr(self, name) >= 1):
                raise ValueError(f"{name} = {getattr(self, name)}: use a whole number from 1 up.")
        if self.schedule not in ("one-cycle", "constant"):
            raise ValueError(f"Unknown schedule {self.schedule!r}: use 'one-cycle' or 'constant'.")
        if not self.lr > 0:
            raise ValueError(f"lr = {self.lr}: use a positive learning rate.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout}: use a probability from 0 up to below 1.")

    @property
    def label(self) -> str:
        """As in "GN + L1"."""
        penalties = [name for name, on in (("L1", self.l1), ("L2", self.l2)) if on]
        return " + ".join([self.norm, *penalties])


class Diverged(RuntimeError):
    """The loss became infinite or NaN; ``history`` holds the epochs before."""

    def __init__(self, message: str, history: "History"):
        super().__init__(message)
        self.history = history


# Exceptions are rebuilt from their message alone unless told otherwise.
copyreg.pickle(Diverged, lambda error: (Diverged, (str(error), error.history)))


class CheckpointError(RuntimeError):
    """A checkpoint can be neither read nor written; the message says which and what to do."""


@dataclass
class History:
    """What a run measured, one dict per epoch; ``history["test_accuracy"]`` is a column.

    ``epoch``         1, 2, …
    ``running_loss``, ``running_accuracy``
                      data loss and accuracy over the epoch's training batches, as trained on:
                      augmented, with dropout, while the weights move
    ``train_loss``, ``train_accuracy``
                      after the epoch, in eval mode, not augmented, on a fixed part of the training
                      set; ``val_…`` likewise on the validation set (NaN where there is none) and
                      ``test_…`` on the test set
    ``l1``, ``l2``    Σ|w| and ½Σw² after the epoch; times λ, the penalty
    ``lr``            learning rate of the epoch's last step
    ``seconds``       of the epoch, evaluation included

    Losses are means per image in nats and never hold a penalty, so they compare across λ.
    """

    experiment: Experiment
    epochs: list[dict] = field(default_factory=list)

    def __getitem__(self, column: str) -> list[float]:
        return [epoch[column] for epoch in self.epochs]

    def __len__(self) -> int:
        return len(self.epochs)


@dataclass
class Run:
    """A trained model and its history. ``finished`` is False where the run was interrupted."""

    model: Net
    history: History

    @property
    def experiment(self) -> Experiment:
        return self.history.experiment

    @property
    def finished(self) -> bool:
        return len(self.history) == self.experiment.epochs


# Strengths and groups were chosen on the validation split by benchmarks/tune.py.
THREE_EXPERIMENTS = (
    Experiment(norm="GN", l1=1e-5),
    Experiment(norm="LN", l2=1e-4),
    Experiment(norm="BN", l1=1e-5, l2=1e-4),
)


def pick_device(name: str | None = None) -> torch.device:
    """The named device, or else CUDA, Apple's MPS or the CPU, the first that is there."""
    if name is not None:
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def batches(images: Images, experiment: Experiment, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The epoch's batches: x (batch_size, 1, H, W) float32, normalized, and y (batch_size,).

    They depend on the seed and the epoch only, so experiments that differ in their norm get the
    same ones, and a continued run gets those it would have got.
    """
    generator = torch.Generator().manual_seed(1_000_003 * experiment.seed + epoch)
    order = torch.randperm(len(images), generator=generator).to(images.y.device)
    plain = not experiment.augment or epoch > experiment.epochs - experiment.plain_epochs
    for index in order.split(experiment.batch_size):
        x = images.x[index].float() / 255
        yield normalize(x if plain else augment(x, generator)), images.y[index]


def make_optimizer(experiment: Experiment, model: Net, steps: int):
    """Adam, and the schedule of its learning rate over so many steps."""
    optimizer = torch.optim.Adam(model.parameters(), lr=experiment.lr, fused=True)
    if experiment.schedule == "constant":
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, experiment.lr, steps)


def penalty(experiment: Experiment, model: Net) -> Tensor:
    """λ1·L1 + λ2·L2, which is part of the loss whatever the optimizer."""
    if experiment.mean_l1:
        l1 = l1_loss(model, everything=True, reduction="mean")
    else:
        l1 = l1_loss(model)
    return experiment.l1 * l1 + experiment.l2 * l2_loss(model)


def train_epoch(run: Run, images: Images, optimizer, scheduler, progress) -> dict:
    """One pass over the training images; gives the epoch's running loss and accuracy."""
    model, experiment, epoch = run.model, run.experiment, len(run.history) + 1
    torch.manual_seed(1_000_003 * experiment.seed + epoch)  # for dropout
    model.train()
    loss_sum = correct = 0
    for step, (x, y) in enumerate(batches(images, experiment, epoch), start=1):
        logits = model(x)
        data_loss = F.cross_entropy(logits, y)
        loss = data_loss + penalty(experiment, model)
        if not loss.isfinite():
            raise Diverged(_why_diverged(experiment, epoch, step, loss.item()), run.history)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lr = scheduler.get_last_lr()[0]
        scheduler.step()
        loss_sum += data_loss.item() * len(y)
        correct += (logits.argmax(dim=1) == y).sum().item()
        progress.update()
        if step % 20 == 0:
            progress.set_postfix(epoch=epoch, loss=f"{data_loss.item():.3f}", **_last_test(run))
    return {
        "epoch": epoch,
        "running_loss": loss_sum / len(images),
        "running_accuracy": correct / len(images),
        "lr": lr,
    }


@torch.no_grad()
def predict(model: Net, images: Images, batch_size: int = 1_000) -> Tensor:
    """The model's logits (N, 10) in eval mode, on the images' device."""
    model.eval()
    return torch.cat([model(normalize(x)) for x in images.x.split(batch_size)])


def evaluate(model: Net, images: Images | None) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in 0..1, in eval mode; NaN where images is None."""
    if images is None:
        return float("nan"), float("nan")
    logits = predict(model, images)
    correct = (logits.argmax(dim=1) == images.y).sum().item()
    return F.cross_entropy(logits, images.y).item(), correct / len(images)


@functools.cache  # once per process is enough
def keep_freed_memory() -> None:
    """Lets the C library keep the memory of freed tensors of up to 32 MB for the next ones.

    By default glibc hands large ones back, and the system clears their pages anew at the next step:
    dozens of page faults a step, which is little for a network as small as the lesson's, and much
    for larger activations. Elsewhere than on glibc, nothing.
    """
    trim_threshold, mmap_threshold = -1, -3  # as in glibc's malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 32 * 2**20)
        mallopt(trim_threshold, 2**31 - 1)


def fit(
    experiment: Experiment,
    data: Data,
    directory: str | Path | None = None,
    device: str | None = None,
) -> Run:
    """Trains one experiment from its seed; continues it where a checkpoint of it exists.

    An interrupt (the notebook's stop button) ends the training and gives the run so far. On one
    machine, the same experiment on the same data gives the same weights and history, bit for bit
    (but for ``seconds``), whether or not it was interrupted or killed in between.

    Args:
        experiment: what to train.
        data: what to train, validate and test on.
        directory: where each epoch is checkpointed; None for not at all.
        device: as in ``pick_device``.

    Raises:
        Diverged: when the loss is no longer finite.
        CheckpointError: when a checkpoint is damaged, belongs to something else, or can't be
            written. No file is overwritten then.
    """
    place = pick_device(device)
    keep_freed_memory()
    torch.backends.cudnn.deterministic = True  # or CUDA's sums differ from run to run
    torch.manual_seed(experiment.seed)
    model = Net(experiment.norm, experiment.groups, experiment.dropout)
    model = model.to(place, memory_format=torch.channels_last)  # faster on a CPU
    run = Run(model, History(experiment))
    steps = -(-len(data.train) // experiment.batch_size)  # per epoch, the last batch may be short
    optimizer, scheduler = make_optimizer(experiment, model, steps * experiment.epochs)
    checkpoint = None
    if directory is not None:
        checkpoint = Checkpoint(directory, run, data, optimizer, scheduler)
        checkpoint.load()
    data = data.to(place)
    every = -(-len(data.train) // 5_000)
    # At most 5,000 of the training images, the same ones in each epoch.
    measured = {"train": data.train[::every], "val": data.val, "test": data.test}
    bar = _progress(experiment.label, experiment.epochs * steps, len(run.history) * steps)
    with bar as progress:
        try:
            while not run.finished:
                start = time.perf_counter()
                row = train_epoch(run, data.train, optimizer, scheduler, progress)
                for name, images in measured.items():
                    row[f"{name}_loss"], row[f"{name}_accuracy"] = evaluate(model, images)
                with torch.no_grad():
                    row["l1"], row["l2"] = l1_loss(model).item(), l2_loss(model).item()
                row["seconds"] = time.perf_counter() - start
                run.history.epochs.append(row)
                if checkpoint is not None:
                    checkpoint.save()
        except KeyboardInterrupt:
            done, todo = len(run.history), experiment.epochs
            print(f"{experiment.label}: interrupted; its first {done} of {todo} epochs are kept.")
    return run


def fit_together(
    experiments: Sequence[Experiment],
    data: Data,
    directory: str | Path | None = None,
    device: str | None = None,
) -> list[Run]:
    """``fit`` for several experiments at the same time, each in a process of its own.

    A network this small gains little from a second core; a second network does. Each process has
    one thread, so that on one machine the outcome is bit for bit that of ``fit`` on one thread. On
    an accelerator, one experiment is trained after another, in this process. A script must call
    this under ``if __name__ == "__main__":``, as the processes may import it.

    An interrupt ends all of them and gives the runs so far, once all have begun; a second one ends
    them at once. On an accelerator, the runs not yet begun are missing then.

    Args:
        experiments: what to train, each a different one.
        data, directory, device: as in ``fit``.

    Raises:
        ValueError: where an experiment comes twice.
        Diverged, CheckpointError: as ``fit``, at the first of them; the others are stopped.
        RuntimeError: when a process is killed from outside.
    """
    if len(set(experiments)) < len(experiments):
        raise ValueError("The same experiment comes twice: give each a seed of its own.")
    if pick_device(device).type != "cpu":
        runs = []
        for experiment in experiments:
            runs.append(fit(experiment, data, directory, device))
            if not runs[-1].finished:
                break
        return runs
    with contextlib.ExitStack() as stack:
        shared = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "data"
        torch.save(data, shared)
        processes = [_process(e, shared, directory) for e in experiments]
        connections = [stack.enter_context(process) for process in processes]
        return _collect(dict(zip(connections, experiments, strict=True)))


@contextlib.contextmanager
def _process(*task) -> Iterator[multiprocessing.connection.Connection]:
    """A process that trains, and the connection to it. At the end of the block it is gone."""
    # A fork of this process would inherit torch's locks. Where it is safe, fork one that has done
    # nothing but import: it starts at once, and the libraries are in memory once.
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    context.set_forkserver_preload(["torchvision", "sklearn", "scipy.stats", "matplotlib.pyplot"])
    ours, theirs = context.Pipe()
    process = context.Process(target=_fit_in_process, args=(theirs, *task), daemon=True)
    process.start()
    theirs.close()  # or its end would go unnoticed
    try:
        yield ours
    finally:
        if process.is_alive():
            process.terminate()
        process.join()
        ours.close()


def _collect(experiments: dict[multiprocessing.connection.Connection, Experiment]) -> list[Run]:
    """Shows the processes' progress until each has sent its run."""
    runs, bars = {}, {}
    with contextlib.ExitStack() as stack:
        stopped = stack.enter_context(_asked_to_stop(experiments))
        while waiting := [connection for connection in experiments if connection not in runs]:
            for connection in multiprocessing.connection.wait(waiting):
                try:
                    message = connection.recv()
                except (EOFError, OSError) as error:
                    if stopped:
                        raise KeyboardInterrupt from error
                    raise RuntimeError(_why_gone(experiments[connection])) from error
                match message:
                    case Exception():
                        raise message
                    case Run():
                        runs[connection] = message
                    case {"steps": steps, **shown}:
                        bars[connection].update(steps)
                        bars[connection].set_postfix(shown)
                    case begun:
                        bars[connection] = stack.enter_context(_progress(**begun))
    return [runs[connection] for connection in experiments]


@contextlib.contextmanager
def _asked_to_stop(connections) -> Iterator[list[bool]]:
    """The first interrupt goes to the processes, in place of breaking off what is being received.

    The list that it gives is empty until then.
    """
    asked = []

    def ask(*_):
        signal.signal(signal.SIGINT, before)  # the next one breaks off
        asked.append(True)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.send("stop")

    before = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if not (in_main and callable(before)):  # nothing arrives, or it was started to ignore it
        yield asked
        return
    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _why_gone(experiment: Experiment) -> str:
    return (
        f"The process that trained {experiment.label} is gone. Either it was killed, most likely "
        f"for want of memory: train one experiment after another, with fit. Or it could not begin, "
        f'for the reason printed above: a script needs if __name__ == "__main__": around this call.'
    )


class _Relay:
    """Stands for the bar that ``fit_together`` shows, in the process that does the steps."""

    connection = None  # to the process that shows the bar; None where there is none

    def __init__(self, **begun):
        self.connection.send(begun)
        self.steps, self.shown = 0, {}

    def __enter__(self) -> "_Relay":
        return self

    def __exit__(self, *_) -> None:
        self.set_postfix(**self.shown)

    def update(self) -> None:
        self.steps += 1
        if self.connection.poll():  # asked to stop
            raise KeyboardInterrupt

    def set_postfix(self, **shown) -> None:
        self.connection.send({"steps": self.steps, **shown})
        self.steps, self.shown = 0, shown


def _fit_in_process(connection, experiment: Experiment, shared: Path, directory) -> None:
    """What a process of ``fit_together`` does; it ends with the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which says when to stop
    torch.set_num_threads(1)
    _Relay.connection = connection
    with contextlib.suppress(BrokenPipeError):
        try:
            data = torch.load(shared, mmap=True, weights_only=False)  # once in memory for all
            outcome = fit(experiment, data, directory, device="cpu")
        except Exception as error:  # for the process that asked
            if not isinstance(error, (Diverged, CheckpointError)):
                traceback.print_exc()  # which does not travel with it
            outcome = error
        connection.send_bytes(pickle.dumps(outcome))  # send() would share the tensors' memory


def _why_diverged(experiment: Experiment, epoch: int, step: int, loss: float) -> str:
    heavy = experiment.l1 > 1e-2 or experiment.l2 > 1
    cause = (
        f"the penalty (l1 = {experiment.l1:g}, l2 = {experiment.l2:g}) outweighs the data loss"
        if heavy
        else f"the learning rate (lr = {experiment.lr:g}) is too high"
    )
    return (
        f"{experiment.label} diverged in epoch {epoch}, step {step}: its loss is {loss}. Most "
        f"likely {cause}; lower it and run again."
    )


def _last_test(run: Run) -> dict[str, str]:
    return {"test": f"{run.history['test_accuracy'][-1]:.2%}"} if len(run.history) else {}


def _progress(label: str, total: int, done: int) -> "tqdm.std.tqdm | _Relay":
    """A bar with the time left: a widget in a notebook, text in a terminal.

    ``PROGRESS=text`` asks for text in a notebook too, on stderr, for whoever executes it without
    a browser; ``PROGRESS=none`` for no bar.
    """
    if _Relay.connection is not None:
        return _Relay(label=label, total=total, done=done)
    asked = os.environ.get("PROGRESS")
    kind = tqdm.std.tqdm if asked == "text" else tqdm.auto.tqdm
    off = asked == "none"
    return kind(desc=label, total=total, initial=done, unit="step", mininterval=0.5, disable=off)


@contextlib.contextmanager
def replacing(path: Path, mode: str = "wb", **how) -> Iterator[IO]:
    """A file to write to, beside the path, which takes its place when it is whole.

    At any moment the path is whole or not there, as long as one process at a time writes it; after
    an error it is as it was.

    Args:
        path: of the file to replace or make; it keeps its permissions.
        mode, how: as in ``open``.
    """
    beside = path.with_name(path.name + ".partial")
    try:
        with beside.open(mode, **how) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


class Checkpoint:
    """One file per experiment: the last whole epoch of a run and all that is needed next."""

    VERSION = 1

    def __init__(self, directory: str | Path, run: Run, data: Data, optimizer, scheduler):
        self.run, self.parts = run, {"model": run.model, "optimizer": optimizer}
        self.parts["scheduler"] = scheduler
        # What the file must agree with, to the letter, before it is continued.
        self.identity = {
            "version": self.VERSION,
            "experiment": asdict(run.experiment),
            "data": data.fingerprint(),
        }
        experiment = run.experiment
        digest = hashlib.sha256(repr(self.identity).encode()).hexdigest()[:8]
        name = f"{experiment.label.replace(' ', '')}-seed{experiment.seed}-{digest}.pt"
        self.path = Path(directory) / name

    def load(self) -> None:
        """Brings the run to where the file left it; does nothing where there is none."""
        self._check_directory()
        if not self.path.exists():
            return
        try:
            with zipfile.ZipFile(self.path) as archive:  # torch.load does not compare checksums
                damaged, cause = archive.testzip() is not None, None
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            found = state["identity"]
        except Exception as error:  # zipfile and torch.load raise a dozen kinds between them
            damaged, cause = True, error
        if damaged:
            raise CheckpointError(
                f"{self.path} is damaged and cannot be continued: move it away to train "
                f"{self.run.experiment.label} from the start."
            ) from cause
        for part, value in self.identity.items():
            if found.get(part) != value:
                difference = _difference(found.get(part), value)
                raise CheckpointError(
                    f"{self.path} belongs to another {part} ({difference}): choose another "
                    f"directory, or move the file away."
                )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.run.history.epochs = state["history"]

    def save(self) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"identity": self.identity, "history": self.run.history.epochs}
        try:
            with replacing(self.path) as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.path} could not be written ({error}): make room, or choose another "
                f"directory. The epochs before are in it still; run again to continue."
            ) from error

    def _check_directory(self) -> None:
        """Fails before the first epoch is trained, not after it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path.parent).close()
        except OSError as error:
            raise CheckpointError(
                f"Checkpoints cannot be written to {self.path.parent} ({error.strerror}): choose "
                f"another directory."
            ) from error


def _difference(found, wanted) -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [k for k in {**found, **wanted} if found.get(k) != wanted.get(k)]
        return ", ".join(f"{k} {found.get(k)}, not {wanted.get(k)}" for k in keys)
    return f"{found}, not {wanted}"


# ------------------------------------------------------------------------------------ plotting

# One colour per norm, the same in every figure of the course; distinct for the colour-blind
# (Okabe and Ito's palette).
NORM_COLORS = {
    "BN": "#0072B2",
    "LN": "#E69F00",
    "GN": "#009E73",
    "IN": "#CC79A7",
    "none": "#666666",
}
LINE_STYLES = {"": ":", "L1": "-", "L2": "--", "L1 + L2": "-."}  # by penalty


def plot_curve(histories: Sequence[History], column: str, ax: Axes | None = None) -> Axes:
    """One column of several histories over the epochs: norms by colour, penalties by dashes."""
    ax = ax or plt.subplots(figsize=(5, 3.2))[1]
    percent = column.endswith("accuracy")
    for history in histories:
        label = history.experiment.label
        norm, _, penalty = label.partition(" + ")
        values = [100 * v if percent else v for v in history[column]]
        style = {"color": NORM_COLORS[norm], "linestyle": LINE_STYLES[penalty]}
        ax.plot(history["epoch"], values, marker=".", label=label, **style)
    ax.set_title(column.replace("_", " "))
    ax.set_xlabel("epoch")
    ax.set_ylabel("%" if percent else "nats per image")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    return ax


def plot_curves(histories: Sequence[History], zoom: bool = True) -> Figure:
    """Train and test accuracy and loss of several histories together.

    Args:
        zoom: leave out of view what lies below the second half of the epochs.
    """
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), sharey="row", layout="constrained")
    for row, quantity in zip(axes, ("accuracy", "loss"), strict=True):
        for ax, part in zip(row, ("train", "test"), strict=True):
            plot_curve(histories, f"{part}_{quantity}", ax)
    if zoom and all(len(h) > 3 for h in histories):
        late = [epoch for h in histories for epoch in h.epochs[len(h) // 2 :]]
        lowest = min(min(e["train_accuracy"], e["test_accuracy"]) for e in late)
        highest = max(max(e["train_loss"], e["test_loss"]) for e in late)
        axes[0, 0].set_ylim(100 * lowest - 0.1, 100.05)
        axes[1, 0].set_ylim(0, 1.05 * highest)
    axes[0, 0].legend()
    return figure


def most_confident_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Indices of the misclassified images, the one with the surest wrong answer first."""
    probability, predicted = logits.softmax(dim=1).max(dim=1)
    wrong = (predicted != labels).nonzero().flatten()
    return wrong[probability[wrong].argsort(descending=True)]


def shared_and_own_errors(
    logits: dict[str, Tensor], labels: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Which images every model gets wrong, and which only one does, by the model's name."""
    wrong = {name: z.argmax(dim=1) != labels for name, z in logits.items()}
    count = torch.stack(list(wrong.values())).sum(dim=0)
    own = {name: (w & (count == 1)).nonzero().flatten() for name, w in wrong.items()}
    return (count == len(wrong)).nonzero().flatten(), own


def plot_digits(
    images: Images,
    logits: Tensor,
    indices: Tensor,
    title: str = "",
    columns: int = 5,
) -> Figure:
    """The images at ``indices`` in a grid, each with its true and predicted label and how sure."""
    indices = indices.cpu()
    probability, predicted = (v.cpu() for v in logits.softmax(dim=1).max(dim=1))
    rows = max(1, -(-len(indices) // columns))
    size = (1.05 * columns, 1.4 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, i in zip(axes.flat, indices.tolist(), strict=False):
        ax.imshow(images.x[i, 0].cpu().numpy(), cmap="gray_r", vmin=0, vmax=255)
        true, guess = int(images.y[i]), int(predicted[i])
        ax.set_title(f"{true} taken for {guess}\n{float(probability[i]):.1%} sure", fontsize=7)
    if not len(indices):
        axes.flat[0].text(0, 0.5, "none")
    figure.suptitle(title)
    return figure


def plot_confusion(logits: Tensor, labels: Tensor, title: str = "", ax: Axes | None = None) -> Axes:
    """How often each digit (row) was taken for each other (column); the diagonal is left out."""
    ax = ax or plt.subplots(figsize=(4.2, 4.2))[1]
    counts = np.zeros((10, 10), dtype=int)
    np.add.at(counts, (labels.cpu().numpy(), logits.argmax(dim=1).cpu().numpy()), 1)
    np.fill_diagonal(counts, 0)  # thousands there would hide the few beside it
    ConfusionMatrixDisplay(counts).plot(ax=ax, cmap="Reds", colorbar=False)
    for text in ax.texts:
        if text.get_text() == "0":
            text.set_text("")
    ax.set_title(title)
    return ax


def plot_normalization_axes(groups: int = 2) -> Figure:
    """What is normalized together: the N x C x HW cubes of BN, LN, IN and GN.

    The coloured cells share one mean and one variance; after the figure in arXiv 1803.08494,
    section 3.

    Args:
        groups: of GN, dividing the six channels drawn.
    """
    n, c, hw = 5, 6, 5
    if c % groups:
        raise ValueError(f"The figure draws {c} channels; {groups} groups do not divide them.")
    together = {name: np.zeros((n, c, hw), dtype=bool) for name in ("BN", "LN", "IN", "GN")}
    together["BN"][:, 0, :] = True  # the front, where the viewer sees each slice whole
    together["LN"][0, :, :] = True
    together["IN"][0, 0, :] = True
    together["GN"][0, : c // groups, :] = True
    captions = {
        "BN": "a channel, over N, H, W",
        "LN": "an image, over C, H, W",
        "IN": "an image's channel, over H, W",
        "GN": f"an image's C/{groups} channels, over these, H, W",
    }
    figure = plt.figure(figsize=(12, 3.6))
    for i, (name, mask) in enumerate(together.items(), start=1):
        ax = figure.add_subplot(1, 4, i, projection="3d")
        colors = np.where(mask, NORM_COLORS[name], "#f4f4f4")
        ax.voxels(np.ones_like(mask), facecolors=colors, edgecolor="#555555", linewidth=0.5)
        ax.set_title(f"{name}\n{captions[name]}", fontsize=10)
        ax.set_xlabel("N", labelpad=-14)
        ax.set_ylabel("C", labelpad=-14)
        ax.set_zlabel("H, W", labelpad=-14)
        ax.set(xticks=[], yticks=[], zticks=[])
        ax.set_box_aspect((n, c, hw))
        ax.view_init(elev=22, azim=-128)
    figure.subplots_adjust(left=0.01, right=0.97, bottom=0.02, top=0.84, wspace=0.05)
    return figure


def accuracy_interval(correct: int, total: int) -> tuple[float, float]:
    """95% interval of an accuracy, from the binomial distribution (Wilson's score interval)."""
    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return interval.low, interval.high
