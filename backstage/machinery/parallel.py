"""One function over many tasks: on processes of this machine, or on a Dask cluster."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from backstage.machinery.progress import SECONDS, Here, deferred_interrupt, make_bar

WANTED = "wanted"  # a file that is there as long as the workers are needed


class WorkerLost(RuntimeError):
    """A worker process ended before its task did; the message says what to do."""


def side_by_side(
    function: Callable, tasks: Sequence, jobs: int, dask: str | None = None
) -> Iterator[tuple[int, Any]]:
    """Yields (position of the task, ``function(task)``) as each finishes.

    Each worker has one thread, which for small networks gets more done than one run on all cores.
    A script must call this under ``if __name__ == "__main__":``, as the workers may import it.

    The first Ctrl-C asks the tasks at work to stop (``machinery.progress.steps`` does) and drops
    the others; what these return is still yielded, then KeyboardInterrupt is raised. A second
    Ctrl-C breaks off. No worker outlives this process by more than a second or two.

    Args:
        function, tasks: pickled on their way to the workers, so to be found by name there.
        jobs: how many at a time.
        dask: address of a scheduler, whose workers take the place of this machine's processes.

    Raises:
        WorkerLost: when a worker is killed and nothing has finished since the last start. Otherwise
            the unfinished tasks are begun again.
        RuntimeError: when the cluster cannot be used.
        Exception: what the function raises; the other tasks are stopped.
    """
    left = dict(enumerate(tasks))
    with deferred_interrupt() as asked:
        while left:
            before = len(left)
            attempt = contextlib.closing(_attempt(function, left, jobs, dask, asked))
            with contextlib.suppress(BrokenProcessPool), attempt as results:
                for position, result in results:
                    del left[position]
                    yield position, result
            if asked():
                raise KeyboardInterrupt
            if len(left) == before:
                raise WorkerLost(
                    "A worker process was lost before it finished anything. Either it was killed, "
                    "most likely for want of memory: run fewer at a time. Or it could not start, "
                    'for the reason printed above: a script needs if __name__ == "__main__": '
                    "around this call."
                )


def _attempt(function, tasks: dict, jobs: int, dask: str | None, asked) -> Iterator:
    """``side_by_side`` until every task is finished, a worker is lost or somebody asks to stop."""
    bars = {}
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [bar.close() for bar in bars.values()])
        folder = Path(tempfile.mkdtemp())
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        (folder / WANTED).touch()
        jobs = min(jobs, len(tasks))
        executor = stack.enter_context(_on_dask(dask) if dask else _on_processes(jobs, folder))
        stack.callback((folder / WANTED).unlink)
        with _interrupts_later():
            futures = {
                executor.submit(_run, function, task, folder / f"{position}"): position
                for position, task in tasks.items()
            }
            # Python's pool watches over a new worker only from the next submission on.
            executor.submit(os.getpid)
        while futures:
            done, _ = wait(futures, timeout=SECONDS, return_when=FIRST_COMPLETED)
            _show(folder, bars)
            if asked() and not (folder / "stop").exists():
                (folder / "stop").touch()
                futures = {f: i for f, i in futures.items() if not f.cancel()}
            for future in done & futures.keys():
                position = futures.pop(future)
                if not (asked() and isinstance(future.exception(), KeyboardInterrupt)):
                    yield position, future.result()


@contextlib.contextmanager
def _interrupts_later() -> Iterator[None]:
    """Processes started inside never see Ctrl-C; this one sees it at the end of the block."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(function: Callable, task, file: Path):
    """What a worker does; one at a time, for torch's random numbers are shared by all threads."""
    with _ONE_AT_A_TIME:
        torch.set_num_threads(1)
        Here.file = file
        return function(task)


_ONE_AT_A_TIME = threading.Lock()  # a Dask worker may have several threads


def _on_processes(jobs: int, folder: Path) -> Executor:
    # A fork of this process would inherit torch's locks. Where it can be had, fork one that has
    # done nothing but import: that starts at once, and holds the libraries in memory once.
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        preload = ["torchvision", "sklearn", "scipy.stats", "matplotlib.pyplot"]
        context.set_forkserver_preload(preload)
    return ProcessPoolExecutor(jobs, context, _begin, (folder,))


def _begin(folder: Path) -> None:
    """In a new worker: leaves Ctrl-C to the parent, and ends when that does or wants it no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch():
        while parent.is_alive() and (folder / WANTED).exists():
            time.sleep(SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _on_dask(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError as error:
        raise RuntimeError("Dask is missing: pip install distributed, and start again.") from error
    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"No Dask scheduler answers at {address}: start it first.") from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise RuntimeError(f"The cluster at {address} has no workers: start some first.")
        yield client.get_executor(pure=False)


def _show(folder: Path, bars: dict) -> None:
    """Brings the bars to where the workers' files are."""
    for file in sorted(folder.glob("[0-9]*")):
        with contextlib.suppress(OSError, ValueError):
            state = json.loads(file.read_text(encoding="utf-8"))
            if file not in bars:
                bars[file] = make_bar(state["label"], state["total"], state["done"])
            if bars[file].n != state["n"]:
                bars[file].n = state["n"]
                bars[file].set_postfix(state["postfix"])
