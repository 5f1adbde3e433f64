"""Data, training and plotting for the notebooks; ``s6_model`` has the network.

Three parts in this order: **data** (MNIST as tensors, split and augmented), **training** (``fit``
trains an ``Experiment`` and returns a ``Run``), **plotting** (figures from histories and arrays).
What lies below, such as downloads, checkpoints and processes, is in ``machinery``.
"""

import contextlib
import math
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator
from pydantic import Field
from scipy.stats import binomtest
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from backstage.machinery import mnist
from backstage.machinery.checkpoint import Checkpoint
from backstage.machinery.device import pick_device
from backstage.machinery.parallel import side_by_side
from backstage.machinery.progress import Steps, deferred_interrupt, steps
from backstage.machinery.settings import settings
from s6_model import AXES, Net, l1_loss, l1_mean_loss, l2_loss

REPOSITORY = Path(__file__).resolve().parent

# ---------------------------------------------------------------------------------------- data

MEAN, STD = 0.1307, 0.3081  # of the pixels of MNIST's training set, scaled to [0, 1]


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
        """Identifies the data, so that no checkpoint is continued on other data."""
        checksum, sizes = 0, []
        for part in (self.train, self.val, self.test):
            sizes.append(0 if part is None else len(part))
            for tensor in () if part is None else (part.x, part.y):
                checksum = zlib.crc32(tensor.cpu().contiguous().numpy(), checksum)
        return f"{self.name}, {' + '.join(map(str, sizes))} images, {checksum:08x}"


def load_data(name: str = "mnist") -> Data:
    """Real MNIST (60,000 + 10,000 images), or a small stand-in where there is none.

    MNIST is looked for in ``$MNIST_ROOT``, then in the repository's ``data/``, then downloaded to
    ``data/``. If none of these works, scikit-learn's 1,797 scanned digits take its place, and a
    line says so.

    Args:
        name: ``"mnist"``, or ``"digits"`` for the stand-in itself.

    Raises:
        ValueError: for another name.
        DataError: where a file of MNIST is not the published one; it is left as it is.
    """
    if name not in ("mnist", "digits"):
        raise ValueError(f"Unknown data set {name!r}: use 'mnist' or 'digits'.")
    root = mnist.find_or_download(REPOSITORY / "data") if name == "mnist" else None
    parts = mnist.read(root) if root else mnist.stand_in()
    name = "MNIST" if root else "scikit-learn digits"
    return Data(name, *(Images(x.unsqueeze(1), y) for x, y in parts))


def split_validation(data: Data, size: int = 5_000, seed: int = 0) -> Data:
    """Takes ``size`` images of the training set, stratified by digit, for choosing settings on."""
    labels = data.train.y.cpu().numpy()
    classes = len(np.unique(labels))
    if not classes <= size <= len(labels) - classes:
        raise ValueError(
            f"size = {size}: both parts need images of all {classes} digits, so use a whole number "
            f"from {classes} to {len(labels) - classes}."
        )
    train, val = train_test_split(
        np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed
    )
    return Data(data.name, data.train[train], data.test, data.train[val])


def normalize(x: Tensor) -> Tensor:
    """(N, 1, H, W) floats in [0, 1] -> the same with MNIST's mean 0 and standard deviation 1."""
    if not x.is_floating_point():
        raise TypeError(f"normalize takes floats from 0 to 1, not {x.dtype}: use x.float() / 255.")
    return (x - MEAN) / STD


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
        return (2 * torch.rand(len(x), generator=generator) - 1) * limit

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


def _pixel_centres(height: int, width: int) -> Tensor:
    """x, y and 1 of each pixel, (3, H*W), x and y from -1 to 1 over the image."""
    y, x = ((2 * torch.arange(size) + 1) / size - 1 for size in (height, width))
    return torch.stack([x.repeat(height), y.repeat_interleave(width), torch.ones(height * width)])


# ------------------------------------------------------------------------------------ training

# Raise it whenever the same Experiment would give another result: the stored ones are stale then.
# (A test trains a few short runs and tells you.)
RECIPE = 1

Count = Annotated[int, Field(ge=1)]
Strength = Annotated[float, Field(ge=0)]


@settings
class Experiment:
    """Everything a run depends on, besides the data. Vary one with ``dataclasses.replace``."""

    norm: Literal["BN", "LN", "GN", "none"] = "BN"
    groups: Count = 4  # in GN; they must divide the network's channels
    l1: Strength = 0.0  # λ1, times Σ|w|
    l2: Strength = 0.0  # λ2, times ½Σw²
    mean_l1: bool = False  # L1 as it is often written: s6_model.l1_mean_loss
    epochs: Count = 20
    batch_size: Count = 128
    lr: Annotated[float, Field(gt=0)] = 0.025  # Adam's step size, at its peak
    schedule: Literal["one-cycle", "constant"] = "one-cycle"  # up, then down to nothing
    augment: bool = True
    plain_epochs: Annotated[int, Field(ge=0)] = 2  # the last ones, which see the images as they are
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # probability, before the head
    # For the initial weights, the order of the images, augmentation and dropout.
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def __post_init__(self):
        if self.norm == "GN" and any(c % self.groups for c in Net.CHANNELS):
            raise ValueError(
                f"groups = {self.groups}: it should divide the network's channels, "
                f"{', '.join(map(str, Net.CHANNELS))}"
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
    """A trained model and its history. ``finished`` is False if the run was interrupted."""

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
    generator = torch.Generator().manual_seed(seed_of(experiment, epoch))
    order = torch.randperm(len(images), generator=generator).to(images.y.device)
    plain = not experiment.augment or epoch > experiment.epochs - experiment.plain_epochs
    for index in order.split(experiment.batch_size):
        x = images.x[index].float() / 255
        yield normalize(x if plain else augment(x, generator)), images.y[index]


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


def train_epoch(run: Run, images: Images, optimizer, scheduler, progress: Steps) -> dict:
    """One pass over the training images; returns the epoch's running loss and accuracy."""
    model, experiment, epoch = run.model, run.experiment, len(run.history) + 1
    torch.manual_seed(seed_of(experiment, epoch))  # for dropout
    model.train()
    measured, waiting, sizes = [], [], []
    for x, y in batches(images, experiment, epoch):
        logits = model(x)
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
            check_finite(run, measured)
            progress.show(epoch=epoch, loss=f"{measured[-1][1]:.3f}", **_last_test(run))
        progress.update()
    return {
        "epoch": epoch,
        "running_loss": sum(m[1] * size for m, size in zip(measured, sizes, strict=True))
        / len(images),
        "running_accuracy": sum(hits for *_, hits in measured) / len(images),
        "lr": lr,
    }


def check_finite(run: Run, measured: list[list[float]]) -> None:
    """Raises Diverged, with epoch and step, at the first total loss that is infinite or NaN."""
    step = next((i for i, m in enumerate(measured, start=1) if not math.isfinite(m[0])), None)
    if step is None:
        return
    experiment = run.experiment
    cause = (
        f"the penalty (l1 = {experiment.l1:g}, l2 = {experiment.l2:g}) outweighs the data loss"
        if experiment.l1 > 1e-2 or experiment.l2 > 1
        else f"the learning rate (lr = {experiment.lr:g}) is too high"
    )
    raise Diverged(
        f"{experiment.label} diverged in epoch {len(run.history) + 1}, step {step}: its loss is "
        f"{measured[step - 1][0]}. Most likely {cause}; lower it and run again.",
        run.history,
    )


def _last_test(run: Run) -> dict[str, str]:
    return {"test": f"{run.history['test_accuracy'][-1]:.2%}"} if len(run.history) else {}


@torch.no_grad()
def predict(model: nn.Module, images: Images, batch_size: int = 1_000) -> Tensor:
    """The model's logits (N, 10) in eval mode, on the images' device."""
    if not batch_size >= 1:
        raise ValueError(f"batch_size = {batch_size}: use a whole number from 1 up.")
    model.eval()
    return torch.cat([model(normalize(x.float() / 255)) for x in images.x.split(batch_size)])


def evaluate(model: nn.Module, images: Images | None) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in 0..1, in eval mode; NaN where images is None."""
    if images is None:
        return float("nan"), float("nan")
    logits = predict(model, images)
    correct = (logits.argmax(dim=1) == images.y).sum().item()
    return F.cross_entropy(logits, images.y).item(), correct / len(images)


@deferred_interrupt()  # from the first line on: it is honoured after a step
def fit(
    experiment: Experiment,
    data: Data,
    directory: str | Path | None = None,
    device: str | None = None,
    network: Callable[[], nn.Module] | None = None,
) -> Run:
    """Trains one experiment from its seed; continues it where it has a checkpoint.

    An interrupt (the notebook's stop button) ends the training after the current step and returns
    the run so far. On the same kind of processor, the same experiment on the same data gives the
    same weights and history, bit for bit (but for ``seconds``), even if it is interrupted or killed
    in between.

    Args:
        experiment: what to train.
        data: what to train, validate and test on.
        directory: where each epoch is checkpointed; None for not at all.
        device: as in ``pick_device``.
        network: what to train in place of ``Net``; called once the seed is set.

    Raises:
        ValueError: for images that cannot be trained on, or a device that is not there.
        Diverged: when the loss is no longer finite.
        CheckpointError: when a checkpoint is damaged, belongs to something else, or can't be
            written. No file is overwritten then.
    """
    place = pick_device(device)
    check_trainable(experiment, data.train)
    torch.backends.cudnn.deterministic = True  # or CUDA's sums differ from run to run
    torch.manual_seed(experiment.seed)
    model = network() if network else Net(experiment.norm, experiment.groups, experiment.dropout)
    model = model.to(place, memory_format=torch.channels_last)  # faster on a CPU
    run = Run(model, History(experiment))
    per_epoch = -(-len(data.train) // experiment.batch_size)  # the last batch may be short
    optimizer, scheduler = make_optimizer(experiment, model, per_epoch * experiment.epochs)
    checkpoint = None
    if directory is not None:
        checkpoint = checkpoint_in(directory, run, data, optimizer, scheduler)
        run.history.epochs = checkpoint.load()
    data = data.to(place)
    # At most 5,000 of the training images, the same ones after each epoch.
    few = data.train[:: -(-len(data.train) // 5_000)]
    done = len(run.history) * per_epoch
    with contextlib.suppress(KeyboardInterrupt):
        with steps(experiment.label, experiment.epochs * per_epoch, done) as progress:
            while not run.finished:
                start = time.perf_counter()
                row = train_epoch(run, data.train, optimizer, scheduler, progress)
                for name, images in {"train": few, "val": data.val, "test": data.test}.items():
                    row[f"{name}_loss"], row[f"{name}_accuracy"] = evaluate(model, images)
                row["l1"], row["l2"] = l1_loss(model).item(), l2_loss(model).item()
                row["seconds"] = time.perf_counter() - start
                run.history.epochs.append(row)
                if checkpoint is not None:
                    checkpoint.save(run.history.epochs)
    say_if_interrupted(run)
    return run


def checkpoint_in(directory: str | Path, run: Run, data: Data, optimizer, scheduler) -> Checkpoint:
    """The run's checkpoint, which can be continued by the same experiment on the same data only."""
    experiment, model = run.experiment, run.model
    identity = {"experiment": asdict(experiment), "data": data.fingerprint(), "network": str(model)}
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    return Checkpoint(directory, f"{experiment.label}-seed{experiment.seed}", identity, parts)


def check_trainable(experiment: Experiment, images: Images) -> None:
    """Refuses training images that would fail in the first epoch, or the last step of it."""
    if not len(images):
        raise ValueError("There are no training images: give at least one.")
    last = len(images) % experiment.batch_size or experiment.batch_size
    # Net's last block has a single pixel per channel for images below 20 x 20.
    if experiment.norm == "BN" and last == 1 and max(images.x.shape[2:]) < 20:
        raise ValueError(
            f"The last batch of {len(images)} images in batches of {experiment.batch_size} is one "
            f"image, which leaves BN one value per channel to average: change the batch size."
        )


def say_if_interrupted(run: Run) -> None:
    if not run.finished:
        done, todo = len(run.history), run.experiment.epochs
        print(f"{run.experiment.label}: interrupted; its first {done} of {todo} epochs are kept.")


def fit_together(
    experiments: Sequence[Experiment],
    data: Data,
    directory: str | Path | None = None,
    device: str | None = None,
) -> list[Run]:
    """``fit`` for several experiments at the same time, each in a process with one thread.

    A network this small gains little from a second core, but a second network gains a lot. The
    result is that of ``fit`` on one thread, bit for bit. On an accelerator, one experiment is
    trained after another, in this process. A script must call this under
    ``if __name__ == "__main__":``, as the processes may import it.

    An interrupt ends all of them and returns the runs so far; a second one stops at once. On an
    accelerator, runs that have not begun are then left out.

    Args:
        experiments: what to train, each a different one.
        data, directory, device: as in ``fit``.

    Raises:
        ValueError: where an experiment comes twice.
        Diverged, CheckpointError: as ``fit``, at the first of them; the others are stopped.
        WorkerLost: when a process is killed from outside.
    """
    if len(set(experiments)) < len(experiments):
        raise ValueError("The same experiment comes twice: give each a seed of its own.")
    runs = {}
    if pick_device(device).type != "cpu":
        for i, experiment in enumerate(experiments):
            runs[i] = fit(experiment, data, directory, device)
            if not runs[i].finished:
                break
        return list(runs.values())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        shared = Path(folder) / "data"
        torch.save(data, shared)  # the processes map it, so that it is in memory once
        tasks = [(experiment, shared, directory) for experiment in experiments]
        with contextlib.suppress(KeyboardInterrupt):
            runs.update(side_by_side(_fit_shared, tasks, jobs=len(tasks)))
    for run in runs.values():
        say_if_interrupted(run)
    return [runs[i] for i in sorted(runs)]


def _fit_shared(task: tuple[Experiment, Path, str | Path | None]) -> Run:
    experiment, shared, directory = task
    data = torch.load(shared, mmap=True, weights_only=False)
    with contextlib.redirect_stdout(None):  # the parent says what there is to say
        return fit(experiment, data, directory, device="cpu")


# ------------------------------------------------------------------------------------ plotting

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
