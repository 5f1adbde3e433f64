"""Peak memory of the lesson, all of its processes together (Linux).

    MNIST_ROOT=... python benchmarks/memory.py

Executes the lesson as ``make lesson`` does, from the start, and every half second adds up what its
processes hold: the proportional set size, which counts a page that n processes share as 1/n each.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent


def held(process: psutil.Process) -> int:
    """Bytes of the process and all that it started."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += one.memory_full_info().pss
    return total


def main() -> None:
    peak = 0
    # In a process of its own: what is imported here would share its pages with the lesson.
    code = "import utils; raise SystemExit(utils.load_data().name != 'MNIST')"
    if subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode:
        raise SystemExit("This benchmark needs MNIST: set MNIST_ROOT.")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "run_notebook.py", "notebooks/Session6_1.ipynb", "--out", folder]
        environment = {**os.environ, "CHECKPOINTS": str(Path(folder) / "checkpoints")}
        start = time.perf_counter()
        lesson = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        while lesson.poll() is None:
            peak = max(peak, held(psutil.Process(lesson.pid)))
            time.sleep(0.5)
    if lesson.returncode:
        raise SystemExit("The lesson stopped with an error.")
    print(f"peak: {peak / 1e9:.2f} GB; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
