"""The README's figures on speed and memory, measured side by side in one run.

    MNIST_ROOT=... python -m backstage.publish.speed

The usual way is what solutions of this assignment commonly do: per-sample PIL transforms in a
``DataLoader``, and a network that works at full resolution in its first layers. An epoch of it is
measured in turn with one of the lesson's, so that a machine that slows down does so for both. The
peak memory (Linux) is the proportional set size of all of ``make lesson``'s processes, which counts
a page that n share as 1/n for each.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from statistics import median

import psutil
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

import utils
from s6_model import l1_loss, make_norm

REPEATS = 3


def usual_net(norm: str) -> nn.Sequential:
    """8,880 parameters: (N, 1, 28, 28) -> (N, 10)."""

    def block(c_in: int, c_out: int, padding: int = 0) -> list[nn.Module]:
        convolution = nn.Conv2d(c_in, c_out, 3, padding=padding, bias=False)
        return [convolution, make_norm(norm, c_out), nn.ReLU(), nn.Dropout(0.04)]

    wide = [*block(1, 8), *block(8, 16), nn.Conv2d(16, 8, 1, bias=False)]  # 24 x 24
    small = [nn.MaxPool2d(2), *block(8, 12), *block(12, 16), *block(16, 16)]  # 6 x 6
    head = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 10, 1, bias=False), nn.Flatten()]
    return nn.Sequential(*wide, *small, *block(16, 16, padding=1), *head)


def usual_epoch(experiment: utils.Experiment) -> float:
    """Seconds of one epoch of training and testing the usual way."""
    root = os.environ.get("MNIST_ROOT", utils.REPOSITORY / "data")
    tensor = [transforms.ToTensor(), transforms.Normalize((utils.MEAN,), (utils.STD,))]
    jitter = transforms.ColorJitter(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.1)
    turned = [transforms.RandomRotation((-7.0, 7.0), fill=0), jitter, *tensor]
    train = DataLoader(MNIST(root, True, transforms.Compose(turned)), 64, shuffle=True)
    test = DataLoader(MNIST(root, False, transforms.Compose(tensor)), 64)
    model = usual_net(experiment.norm).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.8, weight_decay=experiment.l2)
    start = time.perf_counter()
    for x, y in train:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y) + experiment.l1 * l1_loss(model)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        sum((model(x).argmax(dim=1) == y).sum().item() for x, y in test)
    return time.perf_counter() - start


def lesson_epoch(experiment: utils.Experiment, data: utils.Data) -> float:
    """Seconds of the lesson's second epoch: the first pays for what is set up once."""
    return utils.fit(replace(experiment, epochs=2, plain_epochs=0), data).history["seconds"][1]


def held(process: psutil.Process) -> int:
    """Bytes of the process and of all that it started."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):  # one of them has just ended
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_full_info().pss
    return total


def peak_memory() -> float:
    """In GB, of the lesson's notebook and all that it starts."""
    peak, run = 0, [sys.executable, "-m", "backstage.publish.run_notebook"]
    with tempfile.TemporaryDirectory() as folder:
        command = [*run, "--out", folder, "notebooks/Session6_1.ipynb"]
        how = {"cwd": utils.REPOSITORY, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        how["env"] = os.environ | {"CHECKPOINTS": f"{folder}/checkpoints"}
        lesson = subprocess.Popen(command, **how)
        while lesson.poll() is None:
            peak = max(peak, held(psutil.Process(lesson.pid)))
            time.sleep(0.5)
    if lesson.returncode:
        raise SystemExit("The lesson stopped with an error.")
    return peak / 1e9


def main() -> None:
    data, three = utils.load_data(), utils.THREE_EXPERIMENTS
    pairs = [
        (sum(map(usual_epoch, three)), sum(lesson_epoch(e, data) for e in three))
        for _ in range(REPEATS)
    ]
    ratios = ", ".join(f"{usual / lesson:.1f}" for usual, lesson in pairs)
    print(f"An epoch of all three, the usual way / the lesson's: {ratios} ({REPEATS} runs)")
    start = time.perf_counter()
    utils.fit_together(three, data)
    took = time.perf_counter() - start
    usual = three[0].epochs * median(usual for usual, _ in pairs)
    print(f"{three[0].epochs} epochs of all three: {usual / took:.1f} times as fast, {took:.0f} s")
    print(f"Peak memory of make lesson: {peak_memory():.2f} GB")


if __name__ == "__main__":
    main()
