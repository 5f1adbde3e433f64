"""A progress bar over training steps, and an interrupt that waits for the end of a step."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tqdm.auto
import tqdm.std

SECONDS = 0.3  # between two looks at a bar


class Here:
    """What this process knows about its bars, and about an interrupt."""

    file: Path | None = None  # in a worker: where its bar is left for the parent
    quiet = False
    asked: Callable[[], bool] | None = None  # in a ``deferred_interrupt``: its flag


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C only sets a flag, which the function it yields reads.

    Raised wherever it falls, an interrupt can leave a half-written file, or gradients switched off
    for the rest of the process; in a destructor Python even drops it. The second Ctrl-C does break
    off at once. One of these inside another shares the outer one's flag.
    """
    if Here.asked is not None and threading.current_thread() is threading.main_thread():
        yield Here.asked
        return
    asked, before = threading.Event(), signal.getsignal(signal.SIGINT)

    def note(*_):
        signal.signal(signal.SIGINT, before)
        asked.set()

    in_main = threading.current_thread() is threading.main_thread()
    if not (in_main and callable(before)):  # no interrupt arrives here, or it is to be ignored
        yield asked.is_set
        return
    signal.signal(signal.SIGINT, note)
    Here.asked = asked.is_set
    try:
        yield asked.is_set
    finally:
        Here.asked = None
        signal.signal(signal.SIGINT, before)


class Steps:
    """Counts steps on a bar, until somebody asks to stop."""

    def __init__(self, bar, asked: Callable[[], bool]):
        self.bar, self.asked = bar, asked

    def update(self) -> None:
        """One step further. Raises KeyboardInterrupt where somebody has asked to stop."""
        self.bar.update()
        if self.asked():
            raise KeyboardInterrupt

    def show(self, **values) -> None:
        """Writes the values behind the bar."""
        self.bar.set_postfix(values)


class FileBar:
    """Stands in a worker process for the bar that its parent shows, which reads this file.

    A file survives what a queue or a lock shared by processes does not: that one of them is killed.
    """

    def __init__(self, file: Path, **bar):
        self.file, self.state, self.written = file, bar | {"postfix": {}}, 0.0

    def __enter__(self) -> "FileBar":
        self.write()
        return self

    def __exit__(self, *_) -> None:
        self.write()

    def update(self) -> None:
        self.state["n"] += 1
        if time.monotonic() - self.written > SECONDS:
            self.write()

    def set_postfix(self, values: dict) -> None:
        self.state["postfix"] = values

    def write(self) -> None:
        beside = self.file.with_suffix(".partial")
        with contextlib.suppress(OSError):  # the parent is gone or, on Windows, reading just now
            beside.write_text(json.dumps(self.state), encoding="utf-8")
            os.replace(beside, self.file)
        self.written = time.monotonic()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, no bar is shown."""
    before, Here.quiet = (Here.quiet, os.environ.get("PROGRESS")), True
    os.environ["PROGRESS"] = "none"  # for utils.make_bar
    try:
        yield
    finally:
        Here.quiet, wish = before
        os.environ.pop("PROGRESS")
        if wish is not None:
            os.environ["PROGRESS"] = wish


def make_bar(label: str, total: int, done: int = 0, unit: str = "step") -> tqdm.std.tqdm:
    """A bar with the time left: a widget in a notebook, text in a terminal.

    ``PROGRESS=text`` asks for text in a notebook too, for those who execute it without a browser.
    """
    kind = tqdm.std.tqdm if os.environ.get("PROGRESS") == "text" else tqdm.auto.tqdm
    off = {"disable": True} if Here.quiet else {}  # else TQDM_DISABLE decides
    return kind(desc=label, total=total, initial=done, unit=unit, mininterval=SECONDS, **off)


@contextlib.contextmanager
def steps(label: str, total: int, done: int = 0) -> Iterator[Steps]:
    """Counts a run's steps on a bar; inside, an interrupt is honoured between two steps.

    Args:
        label: of the bar.
        total: number of steps.
        done: how many an earlier process has done.
    """
    if Here.file is None:
        with deferred_interrupt() as asked, make_bar(label, total, done) as bar:
            yield Steps(bar, asked)
        return
    asked = (Here.file.parent / "stop").exists
    if Here.quiet:
        yield Steps(tqdm.std.tqdm(disable=True), asked)
        return
    with FileBar(Here.file, label=label, total=total, done=done, n=done) as bar:
        yield Steps(bar, asked)
