"""Data, training and plots for the notebooks; ``s6_model`` has the network.

Three parts, in this order: **data** (MNIST as tensors, split and augmented), **training** (``fit``
trains an ``Experiment`` and returns a ``Run``), **plots** (figures from histories and arrays).
What they stand on comes last: devices, files, downloads, checkpoints and processes. You can follow
the course without that part.

Where ``SMOKE_TEST=1`` is in the environment, data sets and runs are short, so that the notebooks
can be tested in seconds.
"""

import contextlib
import hashlib
import io
import math
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
import tqdm.auto
import tqdm.std
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from s6_model import AXES, Net, eval_mode, l1_loss, l1_mean_loss, l2_loss

REPOSITORY = Path(__file__).resolve().parent

# ---------------------------------------------------------------------------------------- data

MEAN, STD = 0.1307, 0.3081  # of the pixels of MNIST's training set, scaled to [0, 1]


@dataclass(frozen=True)
class Images:
    """Grey images with labels: x (N, 1, H, W) uint8, 0..255; y (N,) int64, 0..9.

    ``mean`` and ``std`` are those of the training set's pixels, scaled to [0, 1]. They travel with
    the images, so that all parts of a data set are normalized alike.
    """

    x: Tensor
    y: Tensor
    mean: float = MEAN
    std: float = STD

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
        if not (0 <= self.mean <= 1 and 0 < self.std <= 1):
            raise ValueError(
                f"mean = {self.mean}, std = {self.std}: give those of the pixels scaled to [0, 1]."
            )

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index) -> "Images":
        return replace(self, x=self.x[index], y=self.y[index])

    def to(self, device: torch.device) -> "Images":
        return replace(self, x=self.x.to(device), y=self.y.to(device))


def _described(value) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


@dataclass(frozen=True)
class Data:
    """A data set: images to train on, to test on and, where there are any, to tune on."""

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
        """Identifies the images and labels, as in "MNIST, 10000 + 0 + 10000 images, 696c6af6"."""
        checksum, sizes = 0, []
        for part in (self.train, self.val, self.test):
            sizes.append(0 if part is None else len(part))
            for tensor in () if part is None else (part.x, part.y):
                checksum = zlib.crc32(tensor.cpu().contiguous().numpy(), checksum)
        return f"{self.name}, {' + '.join(map(str, sizes))} images, {checksum:08x}"


def load_data(name: str = "mnist") -> Data:
    """A data set: 60,000 + 10,000 images of ten digits, or of ten kinds of clothes.

    It is looked for in ``$MNIST_ROOT`` (or ``$FASHION_ROOT``), then in the repository's ``data/``,
    then downloaded to ``data/``. If none of these works, scikit-learn's 1,797 scanned digits take
    MNIST's place, and a line says so.

    Args:
        name: ``"mnist"``, ``"fashion"`` for Fashion-MNIST (arXiv 1708.07747), or ``"digits"`` for
            scikit-learn's digits.

    Raises:
        ValueError: for another name.
        DataError: where a file is not the published one, and is left as it is; or where
            Fashion-MNIST cannot be had.
    """
    if name not in ("digits", *SOURCES):
        raise ValueError(f"Unknown data set {name!r}: use 'mnist', 'fashion' or 'digits'.")
    data = None if name == "digits" else _find_or_download(SOURCES[name])
    if data is None:
        data = _scanned_digits()
    if _smoke_test():
        return Data(data.name, _stratified(data.train, 1_000)[0], _stratified(data.test, 300)[0])
    return data


def _stratified(images: Images, size: int, seed: int = 0) -> tuple[Images, Images]:
    """So many of the images, with each digit's share in them; and the rest."""
    rest, part = train_test_split(
        np.arange(len(images)), test_size=size, stratify=images.y.cpu().numpy(), random_state=seed
    )
    return images[part], images[rest]


def split_validation(data: Data, size: int = 5_000, seed: int = 0) -> Data:
    """Takes ``size`` images of the training set, stratified by digit, for choosing settings on."""
    classes, total = len(data.train.y.unique()), len(data.train)
    if _smoke_test():
        size = min(size, total // 5)
    if not isinstance(size, int | np.integer) or not classes <= size <= total - classes:
        raise ValueError(
            f"size = {size!r}: both parts need images of all {classes} digits, so use a whole "
            f"number from {classes} to {total - classes}."
        )
    val, train = _stratified(data.train, size, seed)
    return Data(data.name, train, data.test, val)


def normalize(x: Tensor, mean: float = MEAN, std: float = STD) -> Tensor:
    """(N, 1, H, W) floats in [0, 1] -> the same with mean 0 and standard deviation 1.

    Args:
        x: the images.
        mean, std: of the training set they belong to; by default MNIST's.
    """
    if not x.is_floating_point():
        raise TypeError(f"normalize takes floats from 0 to 1, not {x.dtype}: use x.float() / 255.")
    if x.numel() and not -0.1 < x.min() <= x.max() < 1.1:  # interpolated ones may be a hair outside
        raise ValueError(
            f"normalize takes floats from 0 to 1, not from {x.min():g} to {x.max():g}: divide "
            f"pixels of 0 to 255 by 255, and normalize them once."
        )
    return (x - mean) / std


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Turns, slants, stretches and shifts each image at random, as different hands would write it.

    By up to 10 degrees, a slant of 0.2, 12% in width and in height, and 1.5 pixels. It works on the
    whole batch at once, which is faster than one image at a time. The random numbers come from a
    CPU generator whatever the device, so that all devices see the same images.

    Args:
        x: (N, 1, H, W) float32; what comes in from outside the image is 0.
        generator: of the CPU.
    """
    if x.dtype != torch.float32:
        raise TypeError(f"augment takes float32 images, not {x.dtype}: use x.float().")

    def uniform(limit: float) -> Tensor:  # (N,), in [-limit, limit]
        return (2 * torch.rand(len(x), generator=generator, **_PLAIN) - 1) * limit

    angle, slant = uniform(10 * torch.pi / 180), uniform(0.2)
    width, height = 1 + uniform(0.12), 1 + uniform(0.12)
    # grid_sample counts an image's width from -1 to 1, so that a pixel is 2/W.
    right, down = uniform(1.5 * 2 / x.shape[3]), uniform(1.5 * 2 / x.shape[2])
    cos, sin = angle.cos(), angle.sin()
    rows = [cos * width, (cos * slant - sin) * height, right]
    rows += [sin * width, (sin * slant + cos) * height, down]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3).to(x.device)
    # F.affine_grid's grid, as one matrix product instead of N small ones.
    grid = theta @ _pixel_centres(*x.shape[2:]).to(x.device)  # (N, 2, H*W)
    return F.grid_sample(x, grid.view(-1, 2, *x.shape[2:]).permute(0, 2, 3, 1), align_corners=False)


_PLAIN = {"dtype": torch.float32, "device": "cpu"}  # whatever torch's defaults have been set to


def _pixel_centres(height: int, width: int) -> Tensor:
    """x, y and 1 of each pixel, (3, H*W), x and y from -1 to 1 over the image."""
    y, x = ((2 * torch.arange(size, **_PLAIN) + 1) / size - 1 for size in (height, width))
    ones = torch.ones(height * width, **_PLAIN)
    return torch.stack([x.repeat(height), y.repeat_interleave(width), ones])


# ------------------------------------------------------------------------------------ training

# Raise it whenever the same Experiment would give another result: the stored ones are stale then.
# (A test trains a few short runs and tells you.)
RECIPE = 1

COUNT = (int, lambda v: v >= 1, "a whole number from 1 up")
STRENGTH = (float, lambda v: 0 <= v < math.inf, "a finite number from 0 up")
SWITCH = (bool, lambda v: True, "True or False")

# What each field of an Experiment may be: its type, a condition and both in words.
ALLOWED = {
    "norm": (str, lambda v: v in (*AXES, "none"), "'BN', 'LN', 'GN', 'IN' or 'none'"),
    "groups": COUNT,
    "l1": STRENGTH,
    "l2": STRENGTH,
    "mean_l1": SWITCH,
    "epochs": COUNT,
    "batch_size": COUNT,
    "lr": (float, lambda v: 0 < v < math.inf, "a finite number above 0"),
    "schedule": (str, lambda v: v in ("one-cycle", "constant"), "'one-cycle' or 'constant'"),
    "augment": SWITCH,
    "plain_epochs": (int, lambda v: v >= 0, "a whole number from 0 up"),
    "dropout": (float, lambda v: 0 <= v < 1, "a number from 0 up and below 1"),
    "seed": (int, lambda v: 0 <= v < 2**32, "a whole number from 0 to 4294967295"),
}


@dataclass(frozen=True)
class Experiment:
    """Everything a run depends on, besides the data. Vary one with ``dataclasses.replace``.

    Raises:
        ValueError: for a value that is not allowed.
    """

    norm: str = "BN"  # or "LN", "GN", "IN", "none"
    groups: int = 4  # in GN; they must divide the network's channels
    l1: float = 0.0  # λ1, times Σ|w|
    l2: float = 0.0  # λ2, times ½Σw²
    mean_l1: bool = False  # L1 as it is often written: s6_model.l1_mean_loss
    epochs: int = 20
    batch_size: int = 128
    lr: float = 0.025  # Adam's step size, at its peak
    schedule: str = "one-cycle"  # up, then down to nothing; or "constant"
    augment: bool = True
    plain_epochs: int = 2  # the last ones, which see the images as they are
    dropout: float = 0.0  # probability, before the head
    seed: int = 0  # for the initial weights, the order of the images, augmentation and dropout

    def __post_init__(self):
        for name, (kind, is_allowed, words) in ALLOWED.items():
            value = getattr(self, name)
            value = value.item() if isinstance(value, np.generic) else value
            if kind is float and type(value) is int:
                value = float(value)
            if type(value) is not kind or not is_allowed(value):
                raise ValueError(f"{name} = {value!r}: it should be {words}.")
            object.__setattr__(self, name, value)
        if self.norm == "GN" and any(c % self.groups for c in Net.CHANNELS):
            raise ValueError(
                f"groups = {self.groups}: it should divide the network's channels, "
                f"{', '.join(map(str, Net.CHANNELS))}."
            )

    @property
    def label(self) -> str:
        """As in "GN + L1"."""
        penalties = [name for name, on in (("L1", self.l1), ("L2", self.l2)) if on]
        return " + ".join([self.norm, *penalties])


# The strengths and GN's groups were chosen on validation images (docs/RESULTS.md, Tuning).
THREE_EXPERIMENTS = (
    Experiment(norm="GN", l1=1e-5),
    Experiment(norm="LN", l2=1e-4),
    Experiment(norm="BN", l1=1e-5, l2=1e-4),
)


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

    Losses are means per image in nats and never include a penalty, so they compare across λ.
    """

    experiment: Experiment
    epochs: list[dict] = field(default_factory=list)

    def __getitem__(self, column: str) -> list[float]:
        return [epoch[column] for epoch in self.epochs]

    def __len__(self) -> int:
        return len(self.epochs)


@dataclass
class Run:
    """A trained model, in eval mode, and its history."""

    model: nn.Module
    history: History

    @property
    def experiment(self) -> Experiment:
        return self.history.experiment

    @property
    def finished(self) -> bool:
        return len(self.history) == self.experiment.epochs


class Diverged(RuntimeError):
    """The loss became infinite or NaN; ``history`` holds the epochs before."""

    def __init__(self, message: str, history: History | None = None):
        super().__init__(message)
        self.history = history


def seed_of(experiment: Experiment, epoch: int) -> int:
    """The seed of an epoch's random numbers; all epochs differ, as no run has a million of them."""
    return 1_000_003 * experiment.seed + epoch


def batches(images: Images, experiment: Experiment, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The epoch's batches: x (batch_size, 1, H, W) float32, normalized, and y (batch_size,).

    They depend on the seed and the epoch only. So experiments that differ in their norm get the
    same batches, and a run that is continued gets the ones it would have had.
    """
    generator = torch.Generator("cpu").manual_seed(seed_of(experiment, epoch))
    order = torch.randperm(len(images), generator=generator, device="cpu").to(images.y.device)
    plain = not experiment.augment or epoch > experiment.epochs - experiment.plain_epochs
    for index in order.split(experiment.batch_size):
        x = images.x[index].float() / 255
        x = x if plain else augment(x, generator)
        yield (x - images.mean) / images.std, images.y[index]


def make_optimizer(experiment: Experiment, model: nn.Module, steps: int):
    """Adam, and the schedule of its learning rate over that many steps."""
    optimizer = torch.optim.Adam(model.parameters(), lr=experiment.lr, fused=True)
    if experiment.schedule == "constant":
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, experiment.lr, steps)


def penalty(experiment: Experiment, model: nn.Module) -> Tensor:
    """λ1·L1 + λ2·L2, which is part of the loss whatever the optimizer."""
    l1 = l1_mean_loss(model) if experiment.mean_l1 else l1_loss(model)
    return experiment.l1 * l1 + experiment.l2 * l2_loss(model)


def train_epoch(run: Run, images: Images, optimizer, scheduler, bar) -> dict:
    """One pass over the training images; returns the epoch's running loss and accuracy."""
    model, experiment, epoch = run.model, run.experiment, len(run.history) + 1
    torch.manual_seed(seed_of(experiment, epoch))  # for dropout
    model.train()
    dtype = _parameter(model).dtype
    measured, waiting, sizes = [], [], []
    for x, y in batches(images, experiment, epoch):
        logits = model(x.to(dtype))
        data_loss = F.cross_entropy(logits, y)
        loss = data_loss + penalty(experiment, model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lr = scheduler.get_last_lr()[0]
        scheduler.step()
        hits = (logits.argmax(dim=1) == y).sum()
        # A GPU works ahead of Python. Asking it for a number makes both wait, so ask rarely.
        waiting.append(torch.stack([loss.detach(), data_loss.detach(), hits]))
        sizes.append(len(y))
        if len(waiting) == 20 or sum(sizes) == len(images):
            measured += torch.stack(waiting).tolist()
            waiting.clear()
            for step, (total, *_) in enumerate(measured, start=1):
                check_finite(run, step, total)
            bar.set_postfix_str(_status(run, measured[-1][1]), refresh=False)
        bar.update()
    return {
        "epoch": epoch,
        "running_loss": sum(m[1] * size for m, size in zip(measured, sizes, strict=True))
        / len(images),
        "running_accuracy": sum(hits for *_, hits in measured) / len(images),
        "lr": lr,
    }


def _status(run: Run, loss: float) -> str:
    """What a run's bar says behind its steps."""
    text = f"epoch {len(run.history) + 1}, loss {loss:.3f}"
    return f"{text}, test {run.history['test_accuracy'][-1]:.2%}" if len(run.history) else text


def check_finite(run: Run, step: int, loss: float) -> None:
    """Raises Diverged, with epoch and step, where the loss is infinite or NaN."""
    if math.isfinite(loss):
        return
    experiment = run.experiment
    cause = (
        f"the penalty (l1 = {experiment.l1:g}, l2 = {experiment.l2:g}) outweighs the data loss"
        if experiment.l1 > 1e-2 or experiment.l2 > 1
        else f"the learning rate (lr = {experiment.lr:g}) is too high"
    )
    raise Diverged(
        f"{experiment.label} diverged in epoch {len(run.history) + 1}, step {step}: its loss is "
        f"{loss}. Most likely {cause}; lower it and run again.",
        run.history,
    )


@torch.no_grad()
def predict(model: nn.Module, images: Images, batch_size: int = 1_000) -> Tensor:
    """The model's logits (N, 10) in eval mode, on the images' device. The model stays as it is."""
    if not batch_size >= 1:
        raise ValueError(f"batch_size = {batch_size}: use a whole number from 1 up.")
    like = _parameter(model)
    with eval_mode(model):
        logits = [
            model(((x.to(like.device).float() / 255 - images.mean) / images.std).to(like.dtype))
            for x in images.x.split(batch_size)
        ]
    return torch.cat(logits).to(images.y.device)


def _parameter(model: nn.Module) -> Tensor:
    """One of the model's parameters, which has the dtype and the device that its input should."""
    return next(model.parameters(), torch.zeros(0, **_PLAIN))


def evaluate(model: nn.Module, images: Images | None) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in 0..1, in eval mode; NaN where images is None."""
    if images is None:
        return float("nan"), float("nan")
    logits = predict(model, images)
    correct = (logits.argmax(dim=1) == images.y).sum().item()
    return F.cross_entropy(logits.float(), images.y).item(), correct / len(images)


def fit(
    experiment: Experiment,
    data: Data,
    directory: str | Path | None = None,
    device: str | None = None,
    network: Callable[[], nn.Module] | None = None,
    name: str | None = None,
) -> Run:
    """Trains one experiment from its seed; continues it where it has a checkpoint.

    Stop the cell whenever you like. With a directory, every finished epoch is kept: run the cell
    again and it continues. Without one, nothing is kept. On the same kind of processor, the same
    experiment on the same data gives the same weights and history, bit for bit (but for
    ``seconds``), even if it is stopped or killed in between.

    Args:
        experiment: what to train.
        data: what to train, validate and test on.
        directory: where each epoch is checkpointed; None for not at all.
        device: as in ``pick_device``.
        network: what to train in place of ``Net``; called once the seed is set.
        name: of your network, needed with a directory. Change it whenever you change the network,
            as its checkpoints cannot tell what code it runs.

    Raises:
        ValueError: for images that cannot be trained on, a network without a name, or a device
            that is not there.
        Diverged: when the loss is no longer finite.
        CheckpointError: when a checkpoint is damaged, belongs to something else, or can't be
            written. No file is overwritten then.
    """
    if network is not None and directory is not None and not name:
        raise ValueError(
            "A network of your own needs a name with a directory: add name='my network, 1', and "
            "change it whenever you change the network."
        )
    return _train(make_bar, experiment, data, directory, device, network, name)


def _train(open_bar, experiment, data, directory, device, network=None, name=None) -> Run:
    """``fit``, with a function that opens the bar to count the steps on."""
    if _smoke_test():
        experiment, directory = replace(experiment, epochs=min(3, experiment.epochs)), None
    place = pick_device(device)
    torch.backends.cudnn.deterministic = True  # or CUDA's sums differ from run to run
    torch.manual_seed(experiment.seed)
    with torch.device("cpu"):  # the same start on all devices
        model = (
            network() if network else Net(experiment.norm, experiment.groups, experiment.dropout)
        )
    model = model.to(place, memory_format=torch.channels_last)  # faster on a CPU
    check_trainable(experiment, data, model)
    run = Run(model, History(experiment))
    steps = -(-len(data.train) // experiment.batch_size)  # the last batch may be short
    optimizer, scheduler = make_optimizer(experiment, model, steps * experiment.epochs)
    checkpoint = None
    if directory is not None:
        scales = [(part.mean, part.std) for part in (data.train, data.val, data.test) if part]
        identity = data.fingerprint(), scales, name
        checkpoint = Checkpoint(directory, run, optimizer, scheduler, *identity)
        run.history.epochs = checkpoint.load()
    data = data.to(place)
    done = len(run.history) * steps
    with open_bar(experiment.label, experiment.epochs * steps, done) as bar:
        while not run.finished:
            start = time.perf_counter()
            row = train_epoch(run, data.train, optimizer, scheduler, bar) | measure(run, data)
            # The last step can ruin the weights, too.
            check_finite(run, steps, row["train_loss"] + row["test_loss"] + row["l2"])
            run.history.epochs.append(row | {"seconds": time.perf_counter() - start})
            if checkpoint is not None:
                checkpoint.save(run.history.epochs)
    model.eval()
    return run


def measure(run: Run, data: Data) -> dict:
    """Losses, accuracies and sizes of the weights after an epoch."""
    # At most 5,000 of the training images, the same ones after each epoch.
    few = data.train[:: -(-len(data.train) // 5_000)]
    row = {}
    for name, images in {"train": few, "val": data.val, "test": data.test}.items():
        row[f"{name}_loss"], row[f"{name}_accuracy"] = evaluate(run.model, images)
    row["l1"], row["l2"] = l1_loss(run.model).item(), l2_loss(run.model).item()
    return row


def check_trainable(experiment: Experiment, data: Data, model: nn.Module) -> None:
    """Refuses data that would fail in the first epoch, or after it."""
    parts = {"training": data.train, "validation": data.val, "test": data.test}
    for name, images in parts.items():
        if images is not None and not len(images):
            raise ValueError(f"There are no {name} images: give at least one.")
        if images is not None:
            predict(model, images[:1])  # the model's own sentence, if it cannot take them
    last = len(data.train) % experiment.batch_size or experiment.batch_size
    # Net's last block has a single pixel per channel for images below 20 x 20.
    small = isinstance(model, Net) and max(data.train.x.shape[2:]) < 20
    if experiment.norm == "BN" and last == 1 and small:
        raise ValueError(
            f"The last batch of {len(data.train)} images in batches of {experiment.batch_size} is "
            f"one image, which leaves BN one value per channel to average: change the batch size."
        )


def fit_together(
    experiments: Sequence[Experiment],
    data: Data,
    directory: str | Path | None = None,
    device: str | None = None,
) -> list[Run]:
    """``fit`` for several experiments at the same time, each in a process with one thread.

    A network this small gains little from a second core, but a second network gains a lot. The
    result is that of ``fit`` on one thread, bit for bit. On an accelerator, or where processes
    can't start, one experiment is trained after another. A script must call this under
    ``if __name__ == "__main__":``, as the processes may import it.

    Stopped, all of them stop; as in ``fit``, a directory keeps every finished epoch.

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
    runs = None
    if pick_device(device).type == "cpu":
        runs = _side_by_side(experiments, data, directory)
    return runs or [fit(experiment, data, directory, device) for experiment in experiments]


# --------------------------------------------------------------------------------------- plots

# One colour per norm, the same in every figure of the course. Colour-blind readers can tell them
# apart (Okabe and Ito's palette).
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


def plot_curves(histories: Sequence[History], title: str = "") -> Figure:
    """Train and test accuracy and loss of several histories together.

    The axes are logarithmic, in the share of mistakes and in the loss: halving either is one step
    up or down. So the first epochs can be read as well as the last ones.
    """
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.6), sharey="row", layout="constrained")
    for row, quantity in zip(axes, ("accuracy", "loss"), strict=True):
        for ax, part in zip(row, ("train", "test"), strict=True):
            plot_curve(histories, f"{part}_{quantity}", ax)
    magnify_high_accuracies(axes[0, 0])
    axes[1, 0].set_yscale("log")
    axes[1, 0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[1, 0].yaxis.set_major_formatter("{x:g}")
    axes[1, 0].yaxis.set_minor_formatter("")
    axes[0, 1].legend(loc="lower right")
    figure.suptitle(title)
    return figure


def magnify_high_accuracies(ax: Axes) -> None:
    """Makes an axis of accuracies in % logarithmic in the mistakes; 100% still has a place."""

    def steps_up(accuracy):
        return -np.log10(np.maximum(100.1 - accuracy, 1e-3))

    ax.set_yscale("function", functions=(steps_up, lambda steps: 100.1 - 10.0**-steps))
    ax.yaxis.set_major_locator(FixedLocator([0, 50, 80, 90, 95, 98, 99, 99.5, 100]))
    ax.yaxis.set_major_formatter("{x:g}")


def most_confident_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Indices of the misclassified images, the surest wrong answer first."""
    _check_same_images(logits, labels)
    probability, predicted = logits.softmax(dim=1).max(dim=1)
    wrong = (predicted != labels).nonzero().flatten()
    return wrong[probability[wrong].argsort(descending=True)]


def shared_and_own_errors(
    logits: dict[str, Tensor], labels: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Which images every model gets wrong, and which only one does, by the model's name."""
    for z in logits.values():
        _check_same_images(z, labels)
    wrong = {name: z.argmax(dim=1) != labels for name, z in logits.items()}
    count = torch.stack(list(wrong.values())).sum(dim=0)
    own = {name: (w & (count == 1)).nonzero().flatten() for name, w in wrong.items()}
    return (count == len(wrong)).nonzero().flatten(), own


def _check_same_images(logits: Tensor, labels: Tensor) -> None:
    if len(logits) != len(labels):
        raise ValueError(
            f"{len(logits)} predictions and {len(labels)} labels: give those of the same images."
        )


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
    size = (1.4 * columns, 1.65 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, i in zip(axes.flat, indices.tolist(), strict=False):
        ax.imshow(images.x[i, 0].cpu().numpy(), cmap="gray_r", vmin=0, vmax=255)
        true, guess = int(images.y[i]), int(predicted[i])
        ax.set_title(f"{true} taken for {guess}\n{float(probability[i]):.1%} sure", fontsize=10)
    if not len(indices):
        axes.flat[0].text(0, 0.5, "none")
    figure.suptitle(title)
    return figure


def plot_confusion(
    logits: Tensor, labels: Tensor, title: str = "", ax: Axes | None = None, vmax: int = 10
) -> Axes:
    """How often each digit (row) was taken for each other (column), without the right ones.

    Args:
        vmax: the count of the darkest red; the same in figures that are to be compared.
    """
    ax = ax or plt.subplots(figsize=(4.2, 4.2))[1]
    counts = confusion_matrix(labels.cpu(), logits.argmax(dim=1).cpu(), labels=list(range(10)))
    np.fill_diagonal(counts, 0)  # thousands there would hide the few beside it
    shown = ConfusionMatrixDisplay(counts)
    # No red is so dark that black could not be read on it.
    shown.plot(ax=ax, cmap="Reds", colorbar=False, im_kw={"vmin": 0, "vmax": 1.6 * vmax})
    for text in ax.texts:
        text.set(color="black", text="" if text.get_text() == "0" else text.get_text())
    ax.set(title=title, xlabel="taken for", ylabel="true digit")
    return ax


def plot_normalization_axes(groups: int = 2) -> Figure:
    """What is normalized together: the N x C x HW cubes of BN, LN, IN and GN.

    The coloured cells share one mean and one variance; after the figure in arXiv 1803.08494,
    section 3.

    Args:
        groups: in GN; they must divide the six channels drawn.
    """
    n, c, hw = 5, 6, 5
    if groups < 1 or c % groups:
        raise ValueError(f"The figure draws {c} channels; {groups} groups do not divide them.")
    share = {1: "all", 2: "half", 3: "a third"}.get(groups, f"1/{groups}")
    captions = {
        "BN": "one channel\nof all images",
        "LN": "all channels\nof one image",
        "IN": "one channel\nof one image",
        "GN": f"{share} of the channels\nof one image",
    }
    figure = plt.figure(figsize=(12, 3.9))
    for i, (norm, axes) in enumerate(AXES.items(), start=1):
        together = np.zeros((n, groups, c // groups, hw), dtype=bool)  # H and W are drawn as one
        # The first set of each: all indices along its axes, 0 along the others.
        together[tuple(slice(None) if d in axes else 0 for d in range(4))] = True
        colors = np.where(together.reshape(n, c, hw), NORM_COLORS[norm], "#f4f4f4")
        ax = figure.add_subplot(1, 4, i, projection="3d")
        ax.voxels(np.ones((n, c, hw)), facecolors=colors, edgecolor="#555555", linewidth=0.5)
        ax.set_title(f"{norm}\n{captions[norm]}", fontsize=11, y=0.98)
        ax.set_xlabel("images N", labelpad=-12)
        ax.set_ylabel("channels C", labelpad=-12)
        ax.set_zlabel("pixels H, W", labelpad=-12)
        ax.set(xticks=[], yticks=[], zticks=[])
        ax.set_box_aspect((n, c, hw))
        ax.view_init(elev=22, azim=-128)
    figure.suptitle("Coloured: the numbers that share one mean and one variance")
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.03, top=0.78, wspace=0.1)
    return figure


def accuracy_interval(correct: int, total: int) -> tuple[float, float]:
    """95% interval of an accuracy, from the binomial distribution (Wilson's score interval)."""
    if not 0 <= correct <= total or not total:
        raise ValueError(f"{correct} of {total} images right: there is no such accuracy.")
    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return interval.low, interval.high


# ----------------------------------------------------- what it stands on: you may stop reading here


def _smoke_test() -> bool:
    return os.environ.get("SMOKE_TEST") == "1"


def pick_device(name: str | None = None) -> torch.device:
    """The named device, or else the first of CUDA, Apple's MPS and the CPU that this machine has.

    Raises:
        ValueError: for a device that is not there.
    """
    there = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    there.append("cpu")
    if name is not None and str(name).split(":")[0] not in there:
        usable = ", ".join(map(repr, there))
        raise ValueError(f"device = {name!r}: this machine has only {usable}.")
    return torch.device(name or there[0])


def make_bar(label: str, total: int, done: int = 0, unit: str = "step") -> tqdm.std.tqdm:
    """A bar with the time left: a widget in a notebook, text in a terminal.

    ``PROGRESS=text`` in the environment asks for text everywhere, ``PROGRESS=none`` for no bar.
    """
    wish = os.environ.get("PROGRESS")
    kind = tqdm.std.tqdm if wish == "text" else tqdm.auto.tqdm
    off = {"disable": True} if wish == "none" else {}  # else TQDM_DISABLE decides
    how = {"mininterval": 0.3, "miniters": 1}
    return kind(desc=label, total=total, initial=done, unit=unit, **how, **off)


class DataError(RuntimeError):
    """The data cannot be used; the message says why and what to do."""


class Source(NamedTuple):
    """A data set of torchvision's."""

    name: str
    kind: str  # torchvision's class, after which it names its folder
    root: str  # the environment variable for the folder that this is in
    mean: float
    std: float
    checksum: str  # the last part of its fingerprint

    def raw(self, root: Path) -> Path:
        return root / self.kind / "raw"


SOURCES = {
    "mnist": Source("MNIST", "MNIST", "MNIST_ROOT", MEAN, STD, "3528fddb"),
    "fashion": Source("Fashion-MNIST", "FashionMNIST", "FASHION_ROOT", 0.2860, 0.3530, "c9293d1e"),
}


def _find_or_download(source: Source) -> Data | None:
    """The data set; None, and a line that says why, where MNIST cannot be had."""
    folder = REPOSITORY / "data"
    if asked_for := os.environ.get(source.root):
        root = Path(asked_for).expanduser()
        if source.raw(root).exists():
            return _read(source, root)
        print(f"${source.root} has no {source.kind}/raw in it.")
    problem = "" if source.raw(folder).exists() else _download(source, folder)
    if not problem:
        return _read(source, folder)
    if source.name != "MNIST":
        raise DataError(
            f"{source.name} could not be downloaded ({problem}): set ${source.root} to a folder "
            f"with {source.kind}/raw in it."
        )
    print(
        f"MNIST could not be downloaded ({problem}): using scikit-learn's 1,797 scanned digits "
        f"instead. Everything runs, but accuracies are lower and far noisier than the lesson's."
    )
    return None


def _read(source: Source, root: Path) -> Data:
    def numbers(name: str, head: int) -> Tensor:
        return torch.from_numpy(np.fromfile(source.raw(root) / name, np.uint8, offset=head))

    parts = []
    try:
        for part in ("train", "t10k"):
            x = numbers(f"{part}-images-idx3-ubyte", 16).view(-1, 1, 28, 28)
            y = numbers(f"{part}-labels-idx1-ubyte", 8).long()
            parts.append(Images(x, y, source.mean, source.std))
        data = Data(source.name, *parts)
        problem = "" if data.fingerprint().endswith(source.checksum) else "the checksum differs"
    except (OSError, RuntimeError, ValueError) as error:  # missing, a folder, cut short, …
        problem = str(error)
    if problem:
        raise DataError(
            f"{source.raw(root)} does not have the published files ({problem}): move it away to "
            f"download them, or put good ones there."
        )
    return data


def _scanned_digits() -> Data:
    """scikit-learn's 1,797 scanned digits, as MNIST has them and split 1,437 to 360."""
    digits = load_digits()
    x = torch.from_numpy(digits.images).float().unsqueeze(1) * (255 / 16)  # (1797, 1, 8, 8)
    # As in MNIST, the digit fills 20 x 20 pixels and has a margin of 4.
    x = F.pad(F.interpolate(x, size=(20, 20), mode="bilinear", align_corners=False), (4, 4, 4, 4))
    images = Images(x.round().to(torch.uint8), torch.from_numpy(digits.target).long())
    test, train = _stratified(images, 360)
    return Data("scikit-learn digits", train, test)


DOWNLOAD_SECONDS = 300  # for each of torchvision's mirrors, which has no limit of its own
# In a process of its own, which can be ended. It ends with this one, which holds its input open.
_DOWNLOAD = """
import os, socket, sys, threading, torchvision
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
socket.setdefaulttimeout(15)
kind = getattr(torchvision.datasets, sys.argv[1])
kind.mirrors = [sys.argv[2]]
kind(sys.argv[3], download=True)
"""


def _download(source: Source, folder: Path) -> str:
    """Downloads beside ``folder`` and moves it in once complete. Gives the reason if it fails."""
    from torchvision import datasets

    print(f"Downloading {source.name} to {folder.name}/.")
    fresh = _beside(folder / ".download")
    try:
        fresh.mkdir(parents=True)
        for mirror in getattr(datasets, source.kind).mirrors:
            if _gives(mirror, source.kind, fresh):
                with contextlib.suppress(OSError):  # another process has just done the same
                    os.rename(fresh / source.kind, folder / source.kind)
                return (
                    "" if source.raw(folder).exists() else f"{folder.name}/ is not as it should be"
                )
    except OSError as error:
        return f"{folder.name}/: {error.strerror}"
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return "no mirror has it"


def _gives(mirror: str, kind: str, folder: Path) -> bool:
    command = [sys.executable, "-c", _DOWNLOAD, kind, mirror, str(folder)]
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere) as child:
        try:
            return child.wait(DOWNLOAD_SECONDS) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            child.kill()


def _beside(path: Path) -> Path:
    """A name beside ``path`` that is this process's own. What killed ones left there is removed."""
    mine = path.with_name(f"{path.name}.{os.getpid()}")
    for left in path.parent.glob(f"{path.name}.*"):
        number = left.suffix[1:]
        if left == mine or (number.isdigit() and not _is_running(int(number))):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(True)
    return mine


def _is_running(pid: int) -> bool:
    try:
        if sys.platform != "win32":  # where one can't ask
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or written; the message says which one and what to do."""


class Checkpoint:
    """A run's state and history, in a file that is whole at any moment.

    Args:
        directory: of the file; created where it is missing.
        run, optimizer, scheduler: what is kept.
        identity: all else that a file must agree with to be continued.
    """

    def __init__(self, directory: str | Path, run: Run, optimizer, scheduler, *identity):
        experiment, model = run.experiment, run.model
        self.parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        network = str(model), _parameter(model).dtype
        self.identity = repr((RECIPE, experiment, *network, *identity))
        digest = hashlib.sha256(self.identity.encode()).hexdigest()[:12]
        name = f"{experiment.label}-seed{experiment.seed}-{digest}.pt".replace(" ", "")
        self.path = Path(directory).expanduser().resolve() / name

    def load(self) -> list[dict]:
        """Brings the parts to where the file left them; gives the history, empty without a file."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path.parent).close()  # fails now, not after an epoch
            content = self.path.read_bytes() if self.path.exists() else None
        except OSError as error:
            raise CheckpointError(
                f"Checkpoints cannot be kept in {self.path.parent} ({error.strerror}): choose "
                f"another directory."
            ) from error
        if content is None:
            return []
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                problem = archive.testzip() and "is damaged"  # torch.load compares no checksums
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception:  # zipfile and torch.load raise a dozen kinds between them
            problem = "is damaged"
        if not problem and state["identity"] != self.identity:
            problem = "belongs to another run"
        if problem:
            raise CheckpointError(f"{self.path} {problem}: move it away to train from the start.")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return state["history"]

    def save(self, history: list[dict]) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        content, beside = io.BytesIO(), _beside(self.path)
        torch.save(state | {"identity": self.identity, "history": history}, content)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)  # somebody may have removed it
            with beside.open("xb") as file:  # x: a file of its own, no link to another
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self.path)
        except OSError as error:
            kept = " It still holds the epochs before." if self.path.exists() else ""
            raise CheckpointError(
                f"{self.path} could not be written ({error.strerror}): make room, or choose "
                f"another directory.{kept}"
            ) from error
        finally:
            beside.unlink(missing_ok=True)


def process_pool(jobs: int, initializer: Callable | None = None, *arguments) -> ProcessPoolExecutor:
    """Processes with one torch thread each and no bars, to be used in a ``with`` block.

    They end with this process, however it ends, and at once where the block is left by an
    exception, a Ctrl-C included. What they are given is imported there by its name, so a script
    needs ``if __name__ == "__main__":``.

    Args:
        jobs: how many.
        initializer, arguments: called with these in each process, before anything else.
    """
    return _Pool(jobs, _context(), initializer, arguments)


def _context():
    # A fork of this process would inherit torch's locks. Where it can be had, fork one that has
    # done nothing but import: that starts at once, and holds the libraries in memory once.
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        preload = ["torch", "matplotlib.pyplot", "scipy.stats", "sklearn.datasets"]
        context.set_forkserver_preload(preload)
    return context


class _Pool(ProcessPoolExecutor):
    def __init__(self, jobs: int, context, *begin):
        # Nothing is ever sent: that its other end is closed tells the workers to end.
        self.reader, self.writer = context.Pipe(duplex=False)
        super().__init__(jobs, context, _begin, (self.reader, *begin))

    def __exit__(self, kind, *how):
        if kind is not None:
            self.writer.close()
        return super().__exit__(kind, *how)


def _begin(parent, initializer: Callable | None, arguments: tuple) -> None:
    """In a new worker."""

    def end_with_parent():
        with contextlib.suppress(EOFError, OSError):
            parent.recv()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    os.environ["PROGRESS"] = "none"
    torch.set_num_threads(1)
    if initializer is not None:
        initializer(*arguments)


class _Meter:
    """A run's bar in its worker: it writes to memory that the parent reads."""

    def __init__(self, context):
        self.numbers = context.RawArray("q", 3)  # steps done, in all, and done before
        self.text = context.RawArray("c", 80)

    def __call__(self, label: str, total: int, done: int):
        self.numbers[:] = done, total, done
        return contextlib.nullcontext(self)

    def update(self) -> None:
        self.numbers[0] += 1

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        self.text.value = text.encode()

    def show(self, bar: tqdm.std.tqdm) -> None:
        """In the parent."""
        done, total, before = self.numbers
        if total and not bar.total:
            bar.reset(total)
            bar.initial = before
        bar.n = done
        bar.set_postfix_str(self.text.value.decode())


CANNOT_START = (OSError, EOFError, ImportError, NotImplementedError, BrokenProcessPool)


def _side_by_side(experiments: Sequence[Experiment], data: Data, directory) -> list[Run] | None:
    """``fit_together`` in processes; None, and a line, where they cannot start."""
    with contextlib.ExitStack() as stack:
        try:
            meters = [_Meter(_context()) for _ in experiments]
            shared = stack.enter_context(_saved(data))
            pool = stack.enter_context(process_pool(len(experiments), _receive, meters))
            pool.submit(os.getpid).result()
        except CANNOT_START as error:
            print(
                f"No process could be started ({error}): training one experiment after another. "
                f'(A script needs if __name__ == "__main__": around this call.)'
            )
            return None
        tasks = [
            pool.submit(_fit_there, i, e, shared, directory) for i, e in enumerate(experiments)
        ]
        bars = [stack.enter_context(make_bar(e.label, None)) for e in experiments]
        running = tasks
        try:
            while running:
                done, running = wait(running, timeout=0.5)
                for bar, meter in zip(bars, meters, strict=True):
                    meter.show(bar)
                for task in done:
                    task.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "A training process was killed, most likely for want of memory: train fewer at a "
                "time. With a directory, every finished epoch is kept."
            ) from error
        return [pickle.loads(task.result()) for task in tasks]


@contextlib.contextmanager
def _saved(data: Data) -> Iterator[Path]:
    """A file of the data, which the processes map, so that it is in memory once."""
    path = _beside(Path(tempfile.gettempdir()) / "lesson-data")
    try:
        with path.open("xb") as file:
            torch.save(data, file)
        yield path
    finally:
        path.unlink(missing_ok=True)


_meters: list[_Meter] = []  # in a worker


def _receive(meters: list[_Meter]) -> None:
    _meters.extend(meters)


def _fit_there(i: int, experiment: Experiment, shared: Path, directory) -> bytes:
    data = torch.load(shared, mmap=True, weights_only=False)
    return pickle.dumps(_train(_meters[i], experiment, data, directory, "cpu"))  # by value
