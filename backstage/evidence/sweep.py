"""Does what is missing of a grid: many runs, side by side, each a line of its file.

Runs go to one process per core with one thread each, which for a network this small gets more done
than one run on all cores; or to the workers of a Dask cluster. Killed at any moment, a sweep leaves
every finished run in the file; started again, it does the rest.

Seeds are paired: a seed gives all settings of a grid the same initial weights, where they share
them, and the same batches, where they share the batch size.
"""

import contextlib
import functools
import json
import os
import platform
import re
import time
from collections.abc import Iterator
from concurrent.futures import Executor, as_completed
from importlib.metadata import version
from pathlib import Path

import torch

from backstage.evidence.grids import Grid, Task, tasks
from backstage.evidence.rows import RESULTS, whole_lines
from utils import RECIPE, Data, load_data, make_bar, process_pool, split_validation


@functools.lru_cache(maxsize=2)  # read once per process, not once per run
def data_of(name: str, images: int) -> Data:
    """The data set, its training images cut down to a stratified part, the same one every time."""
    data = load_data(name)
    if name == "mnist" and data.name != "MNIST":  # a stand-in would be no replication
        raise RuntimeError("This grid needs MNIST: set MNIST_ROOT to the folder of MNIST/raw/.")
    if images >= len(data.train):
        return data
    return Data(data.name, split_validation(data, size=images).val, data.test)


def processor() -> str:
    """As in "AMD EPYC, family 25, model 17": models of the same name may compute differently."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    known = [
        re.search(rf"^{k}\s*: (.*)", text, re.M) for k in ("model name", "cpu family", "model")
    ]
    if not all(known):  # not Linux, or Arm
        return platform.processor() or platform.machine()
    return "{}, family {}, model {}".format(*(found[1] for found in known))


@functools.cache
def versions() -> dict[str, str]:
    """What the last bits of a result can depend on, besides the settings."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),  # whose import takes two seconds
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "processor": processor(),
    }


def make_row(task: Task) -> dict:
    """Does one run; if it fails, its row has the reason, and it is run again next time."""
    torch.set_num_threads(1)
    row, start = task.columns | {"recipe": RECIPE}, time.perf_counter()
    try:
        data = data_of(task.data, task.images)
        row |= {"train_images": len(data.train), "test_images": len(data.test)}
        row |= {"fingerprint": data.fingerprint(), "status": "ok"}
        measured = task.measure(task.setting, task.seed, data)
    except Exception as error:  # whatever it is, it is this run's; the others go on
        measured = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    return row | {"seconds": round(time.perf_counter() - start, 2)} | versions() | measured


def done(path: Path) -> set[tuple[str, int]]:
    """Setting and seed of the finished runs in the file."""
    rows = map(json.loads, whole_lines(path).splitlines()) if path.exists() else ()
    return {(row["setting"], row["seed"]) for row in rows if row["status"] == "ok"}


@contextlib.contextmanager
def workers(jobs: int, scheduler: str | None) -> Iterator[Executor]:
    """Processes of this machine, or the workers of the Dask scheduler at that address."""
    if scheduler is None:
        with process_pool(jobs) as pool:
            yield pool
        return
    from distributed import Client  # here, as nothing else needs it

    with Client(scheduler, set_as_default=False) as client:
        threads = [w["nthreads"] for w in client.scheduler_info(n_workers=-1)["workers"].values()]
        if any(n > 1 for n in threads):  # torch's random numbers belong to the process
            raise RuntimeError("Start the Dask workers with --nthreads 1, so that runs don't mix.")
        yield client.get_executor(pure=False)


def run(
    name: str, grid: Grid, jobs: int = 2, scheduler: str | None = None, folder: Path = RESULTS
) -> None:
    """Runs what is missing of a grid.

    Args:
        name: of the grid, and so of its file.
        grid: its settings and their measure.
        jobs: processes at a time.
        scheduler: address of Dask's, whose workers take the processes' place.
        folder: of the results.

    Raises:
        RuntimeError: where runs were lost with their workers; every finished one is kept.
    """
    path = folder / f"{name}.jsonl"
    there, wanted = done(path), tasks(name, grid)
    missing = [task for task in wanted if (task.name, task.seed) not in there]
    if path.exists():  # without half a last line
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    lost = 0
    with workers(jobs, scheduler) as pool, path.open("ab", buffering=0) as file:  # a row, a write
        futures = [pool.submit(make_row, task) for task in missing]
        with make_bar(name, len(wanted), len(wanted) - len(missing), unit="run") as bar:
            for future in as_completed(futures):
                if future.exception():
                    lost, reason = lost + 1, future.exception()
                    continue
                file.write((json.dumps(future.result()) + "\n").encode())
                bar.update()
    if lost:
        raise RuntimeError(f"{lost} runs were lost with their workers ({reason}).")
