"""Runs a learner's code: no longer than some seconds, and shows its errors by its own lines."""

import ctypes
import dis
import linecache
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

OURS = str(Path(__file__).resolve().parent)
STDLIB = sysconfig.get_paths()["stdlib"]
EMPTY = {"RESUME", "NOP", "POP_TOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}  # of a stub


class Stopped(BaseException):
    """Raised within code that takes too long; no Exception, so that ``except Exception`` passes it.

    It goes into the running thread, which needs no signals and so works in Jupyter, everywhere.
    """


def within(seconds: float, function: Callable[[], object]) -> object:
    """What the function returns or raises; Stopped where it takes longer."""
    outcome = []

    def run():
        try:
            outcome.append((function(), None))
        except BaseException as error:  # the caller gets it, whatever it is
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
        while _importing(thread):  # a module half imported would stay broken
            thread.join(0.5)
    finally:  # also where the notebook's stop button was pressed meanwhile
        stop(thread)
    if not outcome:
        raise Stopped
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def _importing(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident)
    while frame is not None and "importlib._bootstrap" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None


def stop(thread: threading.Thread, tries: int = 20) -> None:
    """Ends the thread; one that catches everything, or is inside C code, is left behind."""
    for _ in range(tries):
        if not thread.is_alive():
            return
        ident, error = ctypes.c_ulong(thread.ident), ctypes.py_object(Stopped)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, error)
        thread.join(0.1)


def where(error: BaseException) -> str:
    """The learner's line that an error comes from, as "line 7: `mu = x.mean()`"; "" if unknown."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not (f.filename.startswith(OURS) or _library(f.filename))]
    if not theirs:
        return ""
    line = (theirs[-1].line or linecache.getline(theirs[-1].filename, theirs[-1].lineno)).strip()
    return f"line {theirs[-1].lineno}" + (f": `{line}`" if line else "")


def _library(filename: str) -> bool:
    installed = "site-packages" in filename or "dist-packages" in filename
    return installed or filename.startswith((STDLIB, "<frozen", "<string>"))


def raised_by_learner(error: BaseException) -> bool:
    """Whether the learner's own code has the ``raise``, not a library that it calls."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or _library(last.tb_frame.f_code.co_filename):
        return False
    return last.tb_frame.f_code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def is_written(answer) -> bool:
    """Whether a function, or a class's ``forward``, has more in it than a stub."""
    code = getattr(getattr(answer, "forward", answer), "__code__", None)
    if code is None:
        return False
    return any(i.opname not in EMPTY for i in dis.get_instructions(code))
