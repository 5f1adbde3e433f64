"""Data, training and plots for the notebooks; ``s6_model`` has the network.

In this order: **data** (MNIST as tensors, split and augmented), **training** (``fit`` trains an
``Experiment`` and returns a ``Run``) and **plots** (of histories and predictions). What they stand
on comes last, below a line: you can follow the course without it.

With ``SMOKE_TEST=1`` in the environment, data sets and runs are short, so that the notebooks can be
tested in seconds.
"""

import contextlib
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
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import psutil
import torch
import torch.nn.functional as F
import tqdm.auto
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from s6_model import AXES, Net, eval_mode, l1_loss, l1_mean_loss, l2_loss

REPOSITORY = Path(__file__).resolve().parent

# ---------------------------------------------------------------------------------------- data

MEAN, STD = 0.1307, 0.3081  # of the pixels of MNIST's training set, scaled to [0, 1]


@dataclass(frozen=True, eq=False)
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
        if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] != 1:
            raise ValueError("x must be a uint8 tensor of shape (N, 1, H, W), pixels of 0..255.")
        if y.dtype != torch.int64 or y.shape != x.shape[:1] or ((y < 0) | (y > 9)).any():
            raise ValueError(f"y must be an int64 tensor of {len(x)} labels in 0..9, one an image.")
        if not (0 <= self.mean <= 1 and 0 < self.std <= 1):
            raise ValueError("mean and std must be those of the pixels scaled to [0, 1].")

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index) -> "Images":
        return replace(self, x=self.x[index], y=self.y[index])

    def to(self, device: torch.device) -> "Images":
        return replace(self, x=self.x.to(device), y=self.y.to(device))


@dataclass(frozen=True, eq=False)
class Data:
    """A data set: images to train on, to test on and, where there are any, to tune on."""

    name: str
    train: Images
    test: Images
    val: Images | None = None

    def __post_init__(self):
        for name, images in self.parts().items():
            if not len(images):
                raise ValueError(f"There are no {name} images: give at least one.")

    def parts(self) -> dict[str, Images]:
        """Those that are there, by their names."""
        parts = {"training": self.train, "validation": self.val, "test": self.test}
        return {name: images for name, images in parts.items() if images is not None}

    def __str__(self) -> str:
        sizes = ", ".join(f"{len(images):,} {name}" for name, images in self.parts().items())
        height, width = self.train.x.shape[2:]
        return f"{self.name}: {sizes} images of {height}x{width} pixels"

    def to(self, device: torch.device) -> "Data":
        val = self.val and self.val.to(device)
        return Data(self.name, self.train.to(device), self.test.to(device), val)

    def fingerprint(self) -> str:
        """Identifies the images and labels, as in "MNIST, 10000 + 0 + 10000 images, 696c6af6"."""
        sizes = " + ".join(str(len(part or ())) for part in (self.train, self.val, self.test))
        checksum = 0
        for part in self.parts().values():
            for tensor in (part.x, part.y):
                checksum = zlib.crc32(tensor.cpu().contiguous().numpy(), checksum)
        return f"{self.name}, {sizes} images, {checksum:08x}"


def load_data(name: str = "mnist") -> Data:
    """The data set "mnist", "fashion" (Fashion-MNIST, arXiv 1708.07747) or "digits" (scans).

    It is looked for in ``$MNIST_ROOT`` (or ``$FASHION_ROOT``), then in the repository's
    ``data/``, then downloaded to ``data/``. If none of these works, scikit-learn's 1,797 scanned
    digits take MNIST's place, and a line says so.

    Raises:
        RuntimeError: where a file is not the published one, or Fashion-MNIST cannot be had.
    """
    if name not in ("digits", *SOURCES):
        raise ValueError(f"Unknown data set {name!r}: use 'mnist', 'fashion' or 'digits'.")
    data = _scanned_digits() if name == "digits" else _find_or_download(name)
    if _smoke_test():
        return Data(data.name, _stratified(data.train, 1_000)[0], _stratified(data.test, 300)[0])
    return data


def _stratified(images: Images, size: int, seed: int = 0) -> tuple[Images, Images]:
    """``size`` images, with every digit in its share; and the remaining ones."""
    rest, part = train_test_split(
        np.arange(len(images)), test_size=size, stratify=images.y.cpu().numpy(), random_state=seed
    )
    return images[part], images[rest]


def split_validation(data: Data, size: int = 5_000, seed: int = 0) -> Data:
    """Takes ``size`` images of the training set, stratified by digit, for choosing settings on."""
    if not isinstance(size, int | np.integer):
        raise TypeError(f"size = {size!r}: use a whole number, of images.")
    if _smoke_test():
        size = min(size, len(data.train) // 5)
    val, train = _stratified(data.train, size, seed)
    return Data(data.name, train, data.test, val)


def normalize(x: Tensor, mean: float = MEAN, std: float = STD) -> Tensor:
    """(N, 1, H, W) floats in [0, 1] -> the same with mean 0 and standard deviation 1.

    ``mean`` and ``std`` are those of the training set that the images belong to.
    """
    # Interpolated images may be a hair outside.
    if not x.is_floating_point() or (x.numel() and not -0.1 < x.min() <= x.max() < 1.1):
        raise ValueError("normalize takes floats from 0 to 1: give it x.float() / 255, and once.")
    return (x - mean) / std


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Turns, slants, stretches and shifts each image at random, as different hands would write it.

    By up to 10 degrees, a slant of 0.2, 12% in width and in height, and 1.5 pixels. ``x`` is
    (N, 1, H, W) float32; what comes in from outside the image is 0. The generator is the CPU's
    whatever the device, so that all devices see the same images.
    """
    if x.dtype != torch.float32:
        raise TypeError(f"augment takes float32 images, not {x.dtype}: use x.float().")

    def uniform(limit: float) -> Tensor:  # (N,), in [-limit, limit]
        return (2 * torch.rand(len(x), generator=generator, **_PLAIN) - 1) * limit

    angle, slant = uniform(10 * torch.pi / 180), uniform(0.2)
    width, height = 1 + uniform(0.12), 1 + uniform(0.12)
    # grid_sample counts an image's width from -1 to 1, so that a pixel is 2/W.
    h, w = x.shape[2:]
    right, down = uniform(1.5 * 2 / w), uniform(1.5 * 2 / h)
    cos, sin = angle.cos(), angle.sin()
    rows = [cos * width, (cos * slant - sin) * height, right]
    rows += [sin * width, (sin * slant + cos) * height, down]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3).to(x.device)
    # F.affine_grid's grid, as one matrix product instead of N small ones: of x, y and 1 at each
    # pixel's centre, (3, H*W).
    ys, xs = ((2 * torch.arange(size, **_PLAIN) + 1) / size - 1 for size in (h, w))
    centres = torch.stack([xs.repeat(h), ys.repeat_interleave(w), torch.ones(h * w, **_PLAIN)])
    grid = (theta @ centres.to(x.device)).view(-1, 2, h, w).permute(0, 2, 3, 1)
    return F.grid_sample(x, grid, align_corners=False)


_PLAIN = {"dtype": torch.float32, "device": "cpu"}  # whatever torch's defaults have been set to


# ------------------------------------------------------------------------------------ training

# Raise it whenever the same Experiment would give another result: the stored ones are stale then.
# (A test trains a few short runs and tells you.)
RECIPE = 1

# What the fields of an Experiment may be: their type, a condition and both in words.
ALLOWED = {
    "norm": (str, lambda v: v in (*AXES, "none"), "'BN', 'LN', 'GN', 'IN' or 'none'"),
    "groups epochs batch_size": (int, lambda v: v >= 1, "a whole number from 1 up"),
    "l1 l2": (float, lambda v: 0 <= v < math.inf, "a finite number from 0 up"),
    "mean_l1 augment": (bool, lambda v: True, "True or False"),
    "lr": (float, lambda v: 0 < v < math.inf, "a finite number above 0"),
    "schedule": (str, lambda v: v in ("one-cycle", "constant"), "'one-cycle' or 'constant'"),
    "plain_epochs": (int, lambda v: v >= 0, "a whole number from 0 up"),
    "dropout": (float, lambda v: 0 <= v < 1, "a number from 0 up and below 1"),
    "seed": (int, lambda v: 0 <= v < 2**32, "a whole number from 0 to 4294967295"),
}


@dataclass(frozen=True)
class Experiment:
    """Everything a run depends on, besides the data. Vary one with ``dataclasses.replace``."""

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
        for names, (kind, is_allowed, words) in ALLOWED.items():
            for name in names.split():
                value = getattr(self, name)
                value = value.item() if isinstance(value, np.generic) else value
                value = float(value) if kind is float and type(value) is int else value
                if type(value) is not kind or not is_allowed(value):
                    raise ValueError(f"{name} = {value!r}: it should be {words}.")
                object.__setattr__(self, name, value)

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

    ``epoch``                            1, 2, …
    ``running_loss``, ``…_accuracy``     over the epoch's batches, while the weights move
    ``train_loss``, ``…_accuracy``       after it, in eval mode, on at most 5,000 training images
    ``val_…`` and ``test_…``             likewise, on all of these; NaN where there are none
    ``l1``, ``l2``                       Σ|w| and ½Σw² after the epoch; times λ, the penalty
    ``lr``                               learning rate of the epoch's last step
    ``seconds``                          of the epoch, evaluation included

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


def seed_of(experiment: Experiment, epoch: int) -> int:
    """The seed of an epoch's random numbers: another one for each epoch of a run."""
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
    """Adam, and the schedule of its learning rate over that many steps.

    One-cycle also moves Adam's β1, from 0.95 down to 0.85 and back.
    """
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
    dtype = next(model.parameters()).dtype
    measured, sizes = [], []
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
        # A GPU works ahead of Python. Asking it for a number makes both wait, so ask at the end.
        measured.append(torch.stack([v.detach().float() for v in (loss, data_loss, hits)]))
        sizes.append(len(y))
        bar.update()
    measured = torch.stack(measured).tolist()
    for step, (total, *_) in enumerate(measured, start=1):
        check_finite(run, step, total)
    running_loss = sum(m[1] * size for m, size in zip(measured, sizes, strict=True)) / len(images)
    running_accuracy = sum(hits for *_, hits in measured) / len(images)
    running = {"running_loss": running_loss, "running_accuracy": running_accuracy}
    return {"epoch": epoch, **running, "lr": lr}


class Diverged(RuntimeError):
    """The loss became infinite or NaN."""


def check_finite(run: Run, step: int, loss: float) -> None:
    """Raises Diverged, with epoch and step, where the loss is infinite or NaN."""
    e = run.experiment
    if not math.isfinite(loss):
        raise Diverged(
            f"{e.label} diverged in epoch {len(run.history) + 1}, step {step}: its loss or weights "
            f"are no longer finite. Lower the learning rate ({e.lr:g}) or, if large, l1 and "
            f"l2 ({e.l1:g}, {e.l2:g})."
        )


def measure(run: Run, data: Data) -> dict:
    """Losses, accuracies and sizes of the weights after an epoch."""
    few = data.train[:: -(-len(data.train) // 5_000)]  # the same ones after each epoch
    row = {}
    for name, images in {"train": few, "val": data.val, "test": data.test}.items():
        scores = evaluate(run.model, images) if images else (math.nan, math.nan)
        row[f"{name}_loss"], row[f"{name}_accuracy"] = scores
    return row | {"l1": l1_loss(run.model).item(), "l2": l2_loss(run.model).item()}


def evaluate(model: nn.Module, images: Images) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in 0..1, in eval mode."""
    logits = predict(model, images)
    correct = (logits.argmax(dim=1) == images.y).sum().item()
    return F.cross_entropy(logits.float(), images.y).item(), correct / len(images)


@torch.no_grad()
def predict(model: nn.Module, images: Images, batch_size: int = 1_000) -> Tensor:
    """The model's logits (N, 10) in eval mode, on the images' device. The model stays as it is."""
    like = next(model.parameters())  # whose dtype and device the images should have
    with eval_mode(model):
        logits = [
            model(((x.to(like.device).float() / 255 - images.mean) / images.std).to(like.dtype))
            for x in images.x.split(batch_size)
        ]
    return torch.cat(logits).to(images.y.device)


@torch.enable_grad()  # also afterwards, if an interrupt comes while predict has them switched off
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
    again and it continues. Without one, nothing is kept. On the same kind of processor and with as
    many threads, the same experiment on the same data gives the same weights and history, bit for
    bit (but for ``seconds``), even if it is stopped or killed in between. For that, it sets torch's
    seed and makes cuDNN deterministic.

    Args:
        directory: for the checkpoints; None for none.
        device: as in ``pick_device``.
        network: what to train in place of ``Net``; called once the seed is set.
        name: of your network, needed with a directory. Change it whenever you change the network,
            as its checkpoints cannot tell what code it runs.

    Raises:
        Diverged: when the loss is no longer finite.
        RuntimeError: when a checkpoint cannot be read or written; then none is overwritten.
    """
    if network is not None and directory is not None and not name:
        raise ValueError("Your network needs a name with a directory: add name='my network, 1'.")
    if _smoke_test():
        experiment, directory = replace(experiment, epochs=min(3, experiment.epochs)), None
    place = pick_device(device)
    torch.backends.cudnn.deterministic = True  # or CUDA's sums differ from run to run
    torch.manual_seed(experiment.seed)
    network = network or (lambda: Net(experiment.norm, experiment.groups, experiment.dropout))
    with torch.device("cpu"):  # the same start on all devices
        model = network()
    # Faster on a CPU; on Apple's MPS, convolutions in this format have had faults.
    layout = torch.channels_last if place.type == "cpu" else torch.preserve_format
    model = model.to(place, memory_format=layout)
    for images in data.parts().values():
        predict(model, images[:1])  # says what is wrong, if the model cannot take them
    run = Run(model, History(experiment))
    steps = -(-len(data.train) // experiment.batch_size)  # the last batch may be short
    optimizer, scheduler = make_optimizer(experiment, model, steps * experiment.epochs)
    checkpoint = None
    if directory is not None:
        checkpoint = Checkpoint(directory, run, optimizer, scheduler, data, name)
        run.history.epochs = checkpoint.load()
    data = data.to(place)
    with make_bar(experiment.label, experiment.epochs * steps, len(run.history) * steps) as bar:
        while not run.finished:
            start = time.perf_counter()
            row = train_epoch(run, data.train, optimizer, scheduler, bar) | measure(run, data)
            # The last step can ruin the weights, too.
            check_finite(run, steps, row["train_loss"] + row["test_loss"] + row["l2"])
            run.history.epochs.append(row | {"seconds": time.perf_counter() - start})
            if checkpoint is not None:
                checkpoint.save(run.history.epochs)
            bar.set_postfix_str("epoch {epoch}, test accuracy {test_accuracy:.2%}".format(**row))
    model.eval()
    return run


def fit_together(
    experiments: Sequence[Experiment],
    data: Data,
    directory: str | Path | None = None,
    device: str | None = None,
) -> list[Run]:
    """``fit`` for several experiments at the same time, each in a process with one thread.

    A network this small gains little from a second core, but a second network gains a lot. The
    result is that of ``fit`` on one thread, bit for bit. Stopped, all stop; one that diverges stops
    the others. On an accelerator, or where a process can't start or is killed, one is trained after
    another, on all threads. A script needs ``if __name__ == "__main__":`` around the call.
    """
    if len(set(experiments)) < len(experiments):
        raise ValueError("The same experiment comes twice: give each a seed of its own.")
    if pick_device(device).type == "cpu":
        try:
            return _side_by_side(experiments, data, directory)
        except (OSError, EOFError, ImportError, NotImplementedError, BrokenExecutor) as error:
            print(f"A process could not start, or died ({error}): one experiment after another.")
    return [fit(experiment, data, directory, device) for experiment in experiments]


# --------------------------------------------------------------------------------------- plots

# One colour per norm, the same in every figure of the course. Colour-blind readers can tell them
# apart (Okabe and Ito's palette).
NORM_COLORS = dict(BN="#0072B2", LN="#E69F00", GN="#009E73", IN="#CC79A7", none="#666666")
LINE_STYLES = {"": ":", "L1": "-", "L2": "--", "L1 + L2": "-."}  # by penalty


def plot_curves(histories: Sequence[History], title: str = "") -> plt.Figure:
    """Train and test accuracy and loss over the epochs: norms by colour, penalties by dashes.

    The axes are logarithmic, in the share of mistakes and in the loss: halving either is one step
    up or down. So the first epochs can be read as well as the last ones.
    """
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.6), sharey="row", layout="constrained")
    columns = ("train_accuracy", "test_accuracy", "train_loss", "test_loss")
    for ax, column in zip(axes.flat, columns, strict=True):
        scale, unit = (100, "%") if "accuracy" in column else (1, "nats per image")
        for history in histories:
            label = history.experiment.label
            norm, _, penalty = label.partition(" + ")
            style = {"color": NORM_COLORS[norm], "linestyle": LINE_STYLES[penalty], "marker": "."}
            ax.plot(history["epoch"], [scale * v for v in history[column]], label=label, **style)
        ax.set(title=column.replace("_", " "), xlabel="epoch", ylabel=unit)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)

    def steps_up(accuracy):  # 100% has a place, too
        return -np.log10(np.maximum(100.1 - accuracy, 1e-3))

    accuracy, loss = axes[:, 0]
    accuracy.set_yscale("function", functions=(steps_up, lambda steps: 100.1 - 10.0**-steps))
    accuracy.yaxis.set_major_locator(plt.FixedLocator([0, 50, 80, 90, 95, 98, 99, 99.5, 100]))
    loss.set_yscale("log")
    loss.yaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
    loss.yaxis.set_minor_formatter("")
    for ax in (accuracy, loss):
        ax.yaxis.set_major_formatter("{x:g}")
    axes[0, 1].legend(loc="lower right")
    figure.suptitle(title)
    return figure


def most_confident_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Indices of the misclassified images, the surest wrong answer first."""
    wrong = _wrong(logits, labels).nonzero().flatten()
    sureness = logits.softmax(dim=1).max(dim=1).values
    return wrong[sureness[wrong].argsort(descending=True)]


def shared_and_own_errors(logits: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, dict]:
    """Which images every model gets wrong, and which only one does, by the model's name."""
    wrong = {name: _wrong(z, labels) for name, z in logits.items()}
    count = torch.stack(list(wrong.values())).sum(dim=0)
    own = {name: (w & (count == 1)).nonzero().flatten() for name, w in wrong.items()}
    return (count == len(wrong)).nonzero().flatten(), own


def _wrong(logits: Tensor, labels: Tensor) -> Tensor:
    if len(logits) != len(labels):
        raise ValueError(f"{len(logits)} predictions and {len(labels)} labels: of other images?")
    return logits.argmax(dim=1) != labels


def plot_normalization_axes() -> plt.Figure:
    """What is normalized together: the N x C x HW cubes of BN, LN, IN and GN (in two groups).

    The coloured cells share one mean and one variance; after the figure in arXiv 1803.08494,
    section 3.
    """
    n, groups, c, hw = 5, 2, 6, 5  # H and W are drawn as one
    captions = {
        "BN": "one channel\nof all images",
        "LN": "all channels\nof one image",
        "IN": "one channel\nof one image",
        "GN": "half of the channels\nof one image",
    }
    with plt.rc_context({"axes.labelpad": -12}):
        figure, cubes = plt.subplots(1, 4, figsize=(12, 3.9), subplot_kw={"projection": "3d"})
    for ax, (norm, axes) in zip(cubes, AXES.items(), strict=True):
        together = np.zeros((n, groups, c // groups, hw), dtype=bool)
        # The first set of each: all indices along its axes, 0 along the others.
        together[tuple(slice(None) if d in axes else 0 for d in range(4))] = True
        colors = np.where(together.reshape(n, c, hw), NORM_COLORS[norm], "#f4f4f4")
        ax.voxels(np.ones((n, c, hw)), facecolors=colors, edgecolor="#555555", linewidth=0.5)
        ax.set_title(f"{norm}\n{captions[norm]}", fontsize=11, y=0.98)
        ax.set(xlabel="images N", ylabel="channels C", zlabel="pixels H, W")
        ax.set(xticks=[], yticks=[], zticks=[], box_aspect=(n, c, hw))
        ax.view_init(elev=22, azim=-128)
    figure.suptitle("Coloured: the numbers that share one mean and one variance")
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.03, top=0.78, wspace=0.1)
    return figure


def accuracy_interval(correct: int, total: int) -> tuple[float, float]:
    """95% interval of an accuracy, from the binomial distribution (Wilson's score interval)."""
    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return interval.low, interval.high


# ----------------------------------------------------- what it stands on: you may stop reading here


def _smoke_test() -> bool:
    return os.environ.get("SMOKE_TEST") == "1"


def pick_device(name: str | None = None) -> torch.device:
    """The named device, or else the first of CUDA, Apple's MPS and the CPU that is there."""
    there = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    return torch.device(name or [*there, "cpu"][0])


def make_bar(label: str, total: int, done: int = 0, unit: str = "step") -> tqdm.tqdm:
    """A bar with the time left: a widget in a notebook, text in a terminal."""
    wish = os.environ.get("PROGRESS")  # "text": no widget; "none": no bar
    kind = {"text": tqdm.tqdm, "row": _Row}.get(wish, tqdm.auto.tqdm)
    how = {"mininterval": 0.3, "miniters": 1, "disable": wish == "none"}
    return kind(desc=label, total=total, initial=done, unit=unit, **how)


# Name, torchvision's class, mean and standard deviation, the last part of the fingerprint
SOURCES = {
    "mnist": ("MNIST", "MNIST", MEAN, STD, "3528fddb"),
    "fashion": ("Fashion-MNIST", "FashionMNIST", 0.2860, 0.3530, "c9293d1e"),
}


def _find_or_download(name: str) -> Data:
    title, kind, *known = SOURCES[name]
    variable, folder = f"{name.upper()}_ROOT", REPOSITORY / "data"
    for root in (Path(os.environ.get(variable, folder)).expanduser(), folder):
        if (root / kind / "raw").exists():
            return _read(root / kind / "raw", title, *known)
    print(f"{title} is neither in ${variable} nor in {folder.name}/: downloading it.")
    problem = _download(kind, folder)
    if not problem:
        return _read(folder / kind / "raw", title, *known)
    problem = f"{title} could not be downloaded ({problem}): "
    if name != "mnist":
        raise RuntimeError(f"{problem}set ${variable} to a folder with {kind}/raw in it.")
    print(f"{problem}using scikit-learn's 1,797 scanned digits: less accurate, noisier.")
    return _scanned_digits()


def _read(folder: Path, title: str, mean: float, std: float, checksum: str) -> Data:
    def images(part: str) -> Images:
        x = np.fromfile(folder / f"{part}-images-idx3-ubyte", np.uint8, offset=16)
        y = np.fromfile(folder / f"{part}-labels-idx1-ubyte", np.uint8, offset=8)
        x, y = torch.from_numpy(x).view(-1, 1, 28, 28), torch.from_numpy(y).long()
        return Images(x, y, mean, std)

    try:
        data = Data(title, images("train"), images("t10k"))
        if not data.fingerprint().endswith(checksum):
            raise ValueError("the checksum differs")
    except (OSError, RuntimeError, ValueError) as error:  # missing, a folder, cut short, …
        raise RuntimeError(
            f"{folder} does not have the published files ({error}): move it away to download "
            f"them, or put good ones there."
        ) from error
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


# Runs in a process of its own, which can be killed, and which exits when its parent does.
_DOWNLOAD = """
import os, psutil, socket, sys, threading, torchvision
parent = psutil.Process(int(sys.argv[4]))
threading.Thread(target=lambda: (parent.wait(), os._exit(1)), daemon=True).start()
socket.setdefaulttimeout(15)
kind = getattr(torchvision.datasets, sys.argv[1])
kind.mirrors = [sys.argv[2]]
kind(sys.argv[3], download=True)
"""


def _download(kind: str, folder: Path) -> str:
    """Downloads beside ``folder`` and moves it in once complete. Gives the reason if it fails."""
    from torchvision import datasets

    fresh = _beside(folder / ".download")
    try:
        fresh.mkdir(parents=True)
        if not any(_gives(mirror, kind, fresh) for mirror in getattr(datasets, kind).mirrors):
            return "no mirror has it"
        with contextlib.suppress(OSError):  # another process has just done the same
            os.rename(fresh / kind, folder / kind)
        return ""
    except OSError as error:
        return f"{folder.name}/: {error.strerror}"
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _gives(mirror: str, kind: str, folder: Path) -> bool:
    command = [sys.executable, "-c", _DOWNLOAD, kind, mirror, folder, str(os.getpid())]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:  # torchvision has no limit of its own
        return subprocess.run(command, timeout=300, **quiet).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _beside(path: Path) -> Path:
    """A name beside ``path`` that is this process's own. What killed ones left there is removed."""
    mine = path.with_name(f"{path.name}.{os.getpid()}")
    for left in path.parent.glob(f"{path.name}.*"):
        number = left.suffix[1:]
        if left == mine or (number.isdigit() and not psutil.pid_exists(int(number))):
            with contextlib.suppress(OSError):  # somebody else's
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    return mine


class Checkpoint:
    """A run's state and history, in a file that is whole at any moment.

    Inside it is all that a run must agree with to be continued; a digest of that is in its name.
    """

    def __init__(self, directory, run: Run, optimizer, scheduler, data: Data, network: str | None):
        self.parts = {"model": run.model, "optimizer": optimizer, "scheduler": scheduler}
        layers = str(run.model), next(run.model.parameters()).dtype, network
        scales = [(part.mean, part.std) for part in data.parts().values()]
        self.identity = repr((RECIPE, run.experiment, *layers, data.fingerprint(), scales))
        digest = zlib.crc32(self.identity.encode())
        name = f"{run.experiment.label}-seed{run.experiment.seed}-{digest:08x}.pt".replace(" ", "")
        self.path = Path(directory).expanduser().resolve() / name

    def load(self) -> list[dict]:
        """Brings the parts to where the file left them; gives the history, empty without a file."""
        drive = Path("/content/drive")
        if drive in self.path.parents and not os.path.ismount(drive):
            raise RuntimeError(f"{self.path}: mount your Drive first, or choose another folder.")
        if not self.path.exists():
            self.save([])  # if it cannot be written, this is said now
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            if state["identity"] != self.identity:
                raise ValueError("another run's")
        except OSError as error:
            raise RuntimeError(f"{self.path} could not be read ({error.strerror}).") from error
        except Exception as error:  # torch.load raises a dozen kinds
            raise RuntimeError(
                f"{self.path} is damaged or another run's: move it away to train from the start."
            ) from error
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
            raise RuntimeError(
                f"{self.path} could not be written ({error.strerror}): make room, or choose "
                f"another folder."
            ) from error
        finally:
            with contextlib.suppress(OSError):  # most often, it is no longer there
                beside.unlink()


@contextlib.contextmanager
def process_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """``jobs`` processes with one torch thread each and no bars, to be used in a ``with`` block.

    They end with this process, however it ends, and at once where the block is left by an
    exception, a Ctrl-C included.
    """
    # A fork of this process would inherit torch's locks. Where it can be had, fork one that has
    # done nothing but import: that starts at once, and holds the libraries in memory once. With
    # torchvision comes what torch's optimizers import when they are made, 150 MB a process.
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    imports = "torchvision matplotlib.pyplot scipy.stats sklearn.datasets sklearn.model_selection"
    context.set_forkserver_preload(imports.split())
    how = _smoke_test(), torch.get_default_dtype()
    with ProcessPoolExecutor(jobs, context, _begin, how) as pool:
        # All start with the first call: Python would not notice the death of a later one.
        pool._safe_to_dynamically_spawn_children = False
        try:
            yield pool
        except BaseException:
            for process in list(pool._processes.values()):  # pool.kill_workers(), from Python 3.14
                process.kill()
            raise


def _begin(smoke_test: bool, dtype: torch.dtype) -> None:
    """In a new worker, whose environment may be older than its parent's."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    os.environ |= {"PROGRESS": "none", "SMOKE_TEST": str(int(smoke_test))}
    torch.set_num_threads(1)
    torch.set_default_dtype(dtype)


class _Row(tqdm.tqdm):
    """A bar in a worker. Its parent reads from a file what it would show, and draws it."""

    row = None
    DTYPE = [("n", int), ("total", int), ("text", "U80")]

    def display(self) -> None:
        self.row["n"], self.row["total"], self.row["text"] = self.n, self.total, self.postfix or ""

    close = display


def _side_by_side(experiments: Sequence[Experiment], data: Data, directory) -> list[Run]:
    """``fit_together`` in processes. They map a file of the data, so that it is in memory once."""
    shared = _beside(Path(tempfile.gettempdir()) / "normalization-lesson")
    try:
        shared.mkdir()
        torch.save(data, shared / "data")
        rows = np.memmap(shared / "rows", _Row.DTYPE, "w+", shape=len(experiments))
        with process_pool(len(experiments)) as pool:
            how = shared, directory
            tasks = [pool.submit(_fit_there, i, e, *how) for i, e in enumerate(experiments)]
            _draw(rows, [e.label for e in experiments], tasks)
            return [pickle.loads(task.result()) for task in tasks]
    finally:
        shutil.rmtree(shared, ignore_errors=True)


def _fit_there(i: int, experiment: Experiment, shared: Path, directory) -> bytes:
    os.environ["PROGRESS"], _Row.row = "row", np.memmap(shared / "rows", _Row.DTYPE)[i]
    data = torch.load(shared / "data", mmap=True, weights_only=False)
    return pickle.dumps(fit(experiment, data, directory, "cpu"))  # by value


def _draw(rows: np.ndarray, labels: Sequence[str], tasks: Sequence) -> None:
    """Draws a bar for each run, once all have begun, until all are done or one of them fails."""
    with contextlib.ExitStack() as stack:
        bars = []
        while tasks:
            done, tasks = wait(tasks, timeout=0.5)
            if not bars and rows["total"].all():
                opened = map(make_bar, labels, rows["total"].tolist(), rows["n"].tolist())
                bars = [stack.enter_context(bar) for bar in opened]
            for bar, (n, _, text) in zip(bars, rows.tolist(), strict=False):
                bar.n = n
                bar.set_postfix_str(text)
            for task in done:
                task.result()
