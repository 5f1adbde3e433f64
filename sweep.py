"""Many runs of the lesson's network: named grids of experiments, each with many seeds.

    python sweep.py list
    python sweep.py run replicate --seeds 10 --jobs 2
    python sweep.py status

Runs go to one process per core with one thread each, which for a network this small gets more done
than one run on all cores. Every finished run is one row of ``results/<grid>.csv``. Started again, a
sweep does what is missing; killed at any moment, it leaves every finished row, once.

Seeds are paired: a seed gives all settings of a grid the same initial weights, where they share
them, and the same batches, where they share the batch size.
"""

import argparse
import ast
import contextlib
import copy
import csv
import functools
import hashlib
import itertools
import json
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import filelock
import joblib
import pandas as pd
import torch
import torch.nn.functional as F
import torchvision
import tqdm
from joblib.externals.loky.process_executor import TerminatedWorkerError
from torch import nn

from s6_model import Net
from utils import (
    REPOSITORY,
    THREE_EXPERIMENTS,
    Data,
    DataError,
    Experiment,
    Images,
    Run,
    evaluate,
    fit,
    load_data,
    normalize,
    predict,
    replacing,
    split_validation,
)

RESULTS = REPOSITORY / "results"


class SweepError(RuntimeError):
    """The sweep cannot go on; the message says why and what to do."""


# --------------------------------------------------------------------------------------- grids


@dataclass(frozen=True)
class Grid:
    """The settings that are compared, by the names that tables and figures call them."""

    question: str
    settings: dict[str, Experiment]  # their seeds are the sweep's
    images: int = 60_000  # trained on, a stratified part where the data set has more
    bn_statistics: bool = False  # also test BN with precise and with batch statistics


def named(experiments: Sequence[Experiment]) -> dict[str, Experiment]:
    return {experiment.label: experiment for experiment in experiments}


def factorial(epochs: int = 10) -> list[Experiment]:
    """Each norm with each penalty, at the strengths of the three experiments."""
    gn_l1, ln_l2, _ = THREE_EXPERIMENTS
    return [
        replace(gn_l1, norm=norm, l1=l1, l2=l2, epochs=epochs)
        for norm in ("none", "BN", "LN", "GN")
        for l2 in (0.0, ln_l2.l2)
        for l1 in (0.0, gn_l1.l1)
    ]


def constant(epochs: int = 10) -> list[Experiment]:
    """The three experiments at a learning rate that does not fall, a fifth of the peak.

    A fifth is near what such networks are trained with where no schedule helps (0.005 for a peak of
    0.025). Every epoch is augmented: a change of the images before the last epochs would look like
    a lack of consistency in them.
    """
    return [
        replace(e, schedule="constant", lr=e.lr / 5, epochs=epochs, plain_epochs=0)
        for e in THREE_EXPERIMENTS
    ]


def source(epochs: int = 10) -> list[Experiment]:
    """The three experiments with L1 as a mean per tensor over every parameter.

    λ1 = 1e-3 and λ2 = 5e-4 are what a published solution of this exercise uses with that form.
    """
    return [
        replace(e, mean_l1=True, l1=1e-3 if e.l1 else 0.0, l2=5e-4 if e.l2 else 0.0, epochs=epochs)
        for e in THREE_EXPERIMENTS
    ]


def batch_sizes(epochs: int = 6) -> dict[str, Experiment]:
    """Each norm at batches of 2 to 128 images, the learning rate in proportion.

    As in arXiv 1803.08494, section 4.1, where it is 0.1·N/32, and with equally many epochs; here
    the reference is the three experiments' rate at their batch size. Batches of 2 take half of the
    grid's time: on 10,000 images, 6 epochs are 30,000 steps, at 128 images 474.
    """
    base = replace(THREE_EXPERIMENTS[0], l1=0.0, l2=0.0, epochs=epochs)
    return {
        f"{norm}, batch {n}": replace(
            base, norm=norm, batch_size=n, lr=base.lr * n / base.batch_size
        )
        for n in (2, 4, 8, 16, 32, 128)
        for norm in ("none", "BN", "LN", "GN")
    }


GRIDS = {
    "replicate": Grid(
        "Does GN + L1 supersede BN + L1 + L2 and LN + L2, and is it the norm or the penalty?",
        named(factorial()),
    ),
    "constant": Grid(
        "Is GN + L1 consistent in its last epochs where the learning rate does not fall?",
        named(constant()),
    ),
    "source": Grid(
        "Does the ranking hang on how L1 is written?",
        named(source()),
    ),
    "batch_size": Grid(
        "Which norms bear small batches?",
        batch_sizes(),
        images=10_000,
        bn_statistics=True,
    ),
}


@dataclass(frozen=True)
class Task:
    """One run of a grid, and so one row of its table."""

    grid: str
    setting: str
    experiment: Experiment
    data: str
    images: int
    bn_statistics: bool

    @property
    def slot(self) -> tuple[str, str]:
        """What a table holds at most one row of."""
        return self.setting, str(self.experiment.seed)

    def identity(self) -> dict[str, str]:
        """The part of the row that is known beforehand, as it stands in the table."""
        roots = ("fit", "bn_statistics") if self.bn_statistics else ("fit",)
        known = {"grid": self.grid, "setting": self.setting, **asdict(self.experiment)}
        known |= {"data": self.data, "images": self.images, "code": code_hash(*roots)}
        return {column: str(value) for column, value in known.items()}


def task(name: str, setting: str, seed: int, data: str = "mnist") -> Task:
    """One run of a known grid."""
    grid = GRIDS[name]
    experiment = replace(grid.settings[setting], seed=seed)
    return Task(name, setting, experiment, data, grid.images, grid.bn_statistics)


def tasks(name: str, seeds: int = 10, data: str = "mnist") -> list[Task]:
    """All runs of a grid, seed by seed: an interrupted sweep leaves its first seeds complete.

    Raises:
        SweepError: for an unknown grid or less than one seed.
    """
    if name not in GRIDS:
        raise SweepError(f"There is no grid {name!r}: use one of {', '.join(GRIDS)}.")
    if seeds < 1:
        raise SweepError(f"{seeds} seeds: use a whole number from 1 up.")
    return [task(name, s, seed, data) for seed in range(seeds) for s in GRIDS[name].settings]


# ------------------------------------------------------------------------- what makes a row stale

# Reached from fit, but without a say in its figures.
UNCOUNTED = {"Checkpoint", "_progress", "_last_test", "keep_freed_memory"}


class _Bare(ast.NodeTransformer):
    """Leaves out what no figure depends on: docstrings, annotations, messages."""

    def visit_FunctionDef(self, node):
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node):
        return ast.arg(node.arg)

    def visit_AnnAssign(self, node):
        return ast.Assign([node.target], self.visit(node.value)) if node.value else None

    def visit_Raise(self, node):
        return ast.Raise()

    def visit_Expr(self, node):
        printed = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "print"
        return None if printed or isinstance(node.value, ast.Constant) else self.generic_visit(node)


def _shape(node):
    """A syntax tree as nested lists; unlike ``ast.dump``, the same in every version of Python."""
    if isinstance(node, list):
        return [_shape(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return [type(node).__name__, *((name, _shape(value)) for name, value in fields)]


def _definitions(files: Sequence[Path]) -> dict[str, ast.AST]:
    """Functions, classes and constants of the files, by name."""
    found = {}
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            targets = getattr(node, "targets", [])
            names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            names += [node.name] if hasattr(node, "name") else []
            found |= dict.fromkeys(names, _Bare().visit(node))
    return found


# The code as it was when this process read it, whatever becomes of the files meanwhile.
_CODE = _definitions([REPOSITORY / name for name in ("s6_model.py", "utils.py", "sweep.py")])


def fingerprint(definitions: dict[str, ast.AST], roots: Sequence[str]) -> str:
    """Names the roots' code and all that they use, by their names, directly or not."""
    found, todo = {}, list(roots)
    while todo:
        name = todo.pop()
        if name in definitions and name not in found and name not in UNCOUNTED:
            found[name] = _shape(definitions[name])
            todo += [n.id for n in ast.walk(definitions[name]) if isinstance(n, ast.Name)]
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:12]


@functools.cache
def code_hash(*roots: str) -> str:
    """Names the code behind a row's figures; settings are compared one by one instead.

    Comments, docstrings, annotations, error messages, plotting and checkpoints do not count.
    """
    return fingerprint(_CODE, roots)


# ------------------------------------------------------------------------------------- one run


def _bn_layers(model: Net) -> list[nn.BatchNorm2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]


@torch.no_grad()
def with_precise_statistics(model: Net, images: Images, batch_size: int = 1_000) -> Net:
    """A copy of the model whose BN layers have the population's mean and variance.

    σ²_pop = E[μ_B² + σ_B²] − E[μ_B]² (arXiv 2105.07576, section 3), the images neither augmented
    nor in small batches, so that a layer's input comes from nearly precise statistics too.
    """
    model = copy.deepcopy(model).eval()
    moments = {layer: torch.zeros(2, layer.num_features).double() for layer in _bn_layers(model)}

    def record(layer, inputs):
        x = inputs[0].double()
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        moments[layer] += len(x) / len(images) * torch.stack([mean, variance + mean**2])

    hooks = [layer.train().register_forward_pre_hook(record) for layer in moments]
    for x in images.x.split(batch_size):
        model(normalize(x))
    for hook in hooks:
        hook.remove()
    for layer, (mean, square) in moments.items():
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(square - mean**2)
    return model.eval()


@torch.no_grad()
def evaluate_by_batch(
    model: Net, images: Images, batch_size: int, seed: int = 0
) -> tuple[float, float]:
    """Loss in nats and accuracy in 0..1 where BN uses the statistics of each test batch.

    The batches are drawn at random, as in training: neighbours in MNIST share their writer.
    """
    model = copy.deepcopy(model).eval()  # in training mode, BN would overwrite its running averages
    for layer in _bn_layers(model):
        layer.train()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    logits = torch.cat([model(normalize(images.x[i])) for i in order.split(batch_size)])
    accuracy = (logits.argmax(dim=1) == images.y[order]).double().mean().item()
    return F.cross_entropy(logits, images.y[order]).item(), accuracy


def bn_statistics(run: Run, data: Data) -> dict[str, float]:
    """Test loss and accuracy under precise and batch statistics; the running ones are fit's."""
    experiment = run.experiment
    precise = evaluate(with_precise_statistics(run.model, data.train), data.test)
    batch = evaluate_by_batch(run.model, data.test, experiment.batch_size, experiment.seed)
    return {
        "precise_test_loss": precise[0],
        "precise_test_accuracy": precise[1],
        "batch_test_loss": batch[0],
        "batch_test_accuracy": batch[1],
    }


VERSIONS = ("python", "torch", "torchvision", "cpu")


def versions() -> dict[str, str]:
    """What, besides the settings, the last bits of a figure can depend on."""
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    found = (platform.python_version(), torch.__version__, torchvision.__version__, cpu)
    return dict(zip(VERSIONS, found, strict=True))


@functools.lru_cache(maxsize=2)  # read once per process, not once per run
def sweep_data(name: str, images: int) -> Data:
    """The data set, its training images cut down to a stratified part, the same one every time.

    Raises:
        DataError: where MNIST is asked for and cannot be had; a stand-in would be no replication.
    """
    data = load_data(name)
    if name == "mnist" and data.name != "MNIST":
        raise DataError("This grid needs MNIST: set MNIST_ROOT to the folder that has MNIST/raw/.")
    if images >= len(data.train):
        return data
    part = split_validation(data, size=images).val
    return Data(data.name, part, data.test)


@contextlib.contextmanager
def one_quiet_thread() -> Iterator[None]:
    """One thread of torch's, no progress bar; both as before at the end."""
    threads, progress = torch.get_num_threads(), os.environ.get("PROGRESS")
    torch.set_num_threads(1)
    os.environ["PROGRESS"] = "none"
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        del os.environ["PROGRESS"]
        os.environ |= {} if progress is None else {"PROGRESS": progress}


def figures(run: Run, data: Data, test_bn: bool) -> dict:
    """What a finished run measured, for its row."""
    last = run.history.epochs[-1]
    columns = ("test_accuracy", "test_loss", "train_accuracy", "train_loss")
    found = {column: last[column] for column in columns}
    found |= {"final_l1": last["l1"], "final_l2": last["l2"]}
    wrong = predict(run.model, data.test).argmax(dim=1) != data.test.y
    found["wrong"] = json.dumps(wrong.nonzero().flatten().tolist())
    return found | (bn_statistics(run, data) if test_bn else {})


def per_epoch(run_history) -> str:
    """Each of the history's columns as a list; the validation's are left out, there is none."""
    columns = run_history.epochs[0] if len(run_history) else {}
    kept = [c for c in columns if c != "seconds" and not c.startswith("val_")]
    return json.dumps({column: run_history[column] for column in kept})


# torch's generator is shared by a process's threads, of which a Dask worker may have several.
_ONE_RUN_AT_A_TIME = threading.Lock()


def train(one: Task) -> dict[str, str]:
    """One run as a row of the table; where it fails, the row has the reason."""
    row = {**one.identity(), **versions(), "status": "ok"}
    with _ONE_RUN_AT_A_TIME, one_quiet_thread():
        start = time.perf_counter()
        try:
            data = sweep_data(one.data, one.images)
            row |= {"train_images": len(data.train), "test_images": len(data.test)}
            row["fingerprint"] = data.fingerprint()
            with contextlib.redirect_stdout(None):
                run = fit(one.experiment, data, device="cpu")
            if not run.finished:  # fit has taken the interrupt for itself
                raise KeyboardInterrupt
            row |= figures(run, data, one.bn_statistics and one.experiment.norm == "BN")
            row["history"] = per_epoch(run.history)
        except Exception as error:  # whatever it is, it is this run's; the others go on
            row |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
            if hasattr(error, "history"):
                row["history"] = per_epoch(error.history)
        row["seconds"] = round(time.perf_counter() - start, 2)
    return {column: str(value) for column, value in row.items()}


# ----------------------------------------------------------------------------------- the table

FIGURES = (
    *("test_accuracy", "test_loss", "train_accuracy", "train_loss", "final_l1", "final_l2"),
    *("precise_test_accuracy", "precise_test_loss", "batch_test_accuracy", "batch_test_loss"),
    *("wrong", "history"),
)
IDENTITY = ("grid", "setting", *asdict(Experiment()), "data", "images", "code")
# Lists last: they are long.
COLUMNS = (
    *IDENTITY,
    *("train_images", "test_images", "fingerprint", "status", "reason", "seconds", *VERSIONS),
    *FIGURES,
)

TEXT = (
    *("grid", "setting", "norm", "schedule", "data", "code"),
    *("fingerprint", "status", "reason", *VERSIONS),
)
NUMBERS = tuple(column for column in COLUMNS if column not in TEXT)  # truth values and lists too

Rows = dict[tuple[str, str], dict[str, str]]  # by slot


def _value(text: str) -> bool | int | float | list | dict:
    """A cell as what it was, floats to the last bit, which not every pandas reads a CSV to."""
    if text in ("", "True", "False"):
        return {"True": True, "False": False}.get(text, float("nan"))
    if text[0] in "[{":
        return json.loads(text)
    return int(text) if text.isdecimal() else float(text)


def read_rows(path: Path, name: str) -> Rows:
    """The table as it stands in the file; empty where there is none.

    Raises:
        SweepError: where the file is not a table of this grid or is damaged. It is left as it is.
    """
    if not path.exists():
        return {}
    rows = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if not {"grid", "setting", "seed"} <= set(reader.fieldnames or []):
                raise ValueError("its header is another")
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError("a row is too long or too short")
                if row["grid"] != name or row["status"] not in ("ok", "failed"):
                    raise ValueError("a row is not one of this grid's")
                for column in NUMBERS:
                    _value(row.get(column, ""))
                slot = row["setting"], str(int(row["seed"]))
                if slot in rows:
                    raise ValueError(f"two rows for {slot[0]}, seed {slot[1]}")
                rows[slot] = row
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise SweepError(
            f"{_shown(path)} is damaged or no table of the grid {name!r} ({error}): move it away, "
            f"or bring back the version before."
        ) from error
    return rows


def write_rows(path: Path, rows: Rows) -> None:
    """The table as a file, which at any moment is whole."""
    columns = dict.fromkeys(itertools.chain(COLUMNS, *rows.values()))
    try:
        with replacing(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows.values())
    except OSError as error:
        raise SweepError(
            f"{_shown(path)} could not be written ({error.strerror}): make room and start again; "
            f"the rows before are in it still."
        ) from error


def _shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)


@contextlib.contextmanager
def only_writer(folder: Path, name: str) -> Iterator[Path]:
    """The path of the grid's table, which no other sweep writes to meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        lock = filelock.FileLock(folder / f".{name}.lock")  # let go by the system, even on kill -9
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise SweepError(
            f"Another sweep of {name!r} is running: wait for it, or stop it."
        ) from error
    except OSError as error:
        raise SweepError(
            f"Results cannot be written to {_shown(folder)} ({error.strerror}): choose another "
            f"folder with --results."
        ) from error
    with lock:
        yield folder / f"{name}.csv"


def why_stale(row: dict[str, str], data: str = "mnist") -> str:
    """How the row was made otherwise than it would be today; empty where it was not."""
    grid = GRIDS.get(row["grid"])
    if grid is None or row["setting"] not in grid.settings:
        return "no longer in the grid"
    today = task(row["grid"], row["setting"], int(row["seed"]), data).identity()
    changed = [
        "other training code" if column == "code" else f"{column} {row.get(column)}, not {value}"
        for column, value in today.items()
        if row.get(column) != value
    ]
    return ", ".join(changed)


def missing(rows: Rows, wanted: Sequence[Task], retry_failed: bool = False) -> list[Task]:
    """The tasks without a row that counts."""

    def counts(row: dict[str, str] | None, data: str) -> bool:
        if row is None or why_stale(row, data):
            return False
        return row["status"] == "ok" or not retry_failed

    return [t for t in wanted if not counts(rows.get(t.slot), t.data)]


# ------------------------------------------------------------------------------------- running


def begin_worker(the_sweep: int) -> None:
    """Leaves Ctrl-C to the sweep, and ends when the sweep does, though that be killed.

    (Windows does not tell a process that the one which started it is gone.)

    Args:
        the_sweep: its process, which may be gone by the time that the worker begins.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.tqdm.set_lock(threading.RLock())  # its own is shared by processes, and leaks at a kill

    def watch():
        while os.getppid() == the_sweep:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def on_processes(jobs: int) -> contextlib.AbstractContextManager:
    """joblib's runs go to so many processes of this machine; one job stays in this process."""
    return joblib.parallel_config(
        "loky",
        n_jobs=jobs,
        inner_max_num_threads=1,
        initializer=begin_worker,
        initargs=(os.getpid(),),
    )


@contextlib.contextmanager
def on_dask(address: str) -> Iterator[None]:
    """joblib's runs go to an existing Dask cluster, whose workers have this repository's code."""
    try:
        from distributed import Client
    except ImportError as error:
        raise SweepError("--dask needs Dask: pip install distributed, and start again.") from error
    try:
        client = Client(address, timeout="10s", set_as_default=True)
    except (OSError, ValueError) as error:
        raise SweepError(f"No Dask scheduler answers at {address}: start it first.") from error
    with client:
        try:
            theirs = client.run(code_hash, "fit", "bn_statistics")
            # It unpacks what it hands on; where it can't, joblib would wait for ever.
            client.run_on_scheduler(code_hash, "fit", "bn_statistics")
        except Exception as error:  # what a worker answers that does not know the name "sweep"
            raise SweepError(
                f"The scheduler or the workers at {address} cannot import this repository "
                f"({error}): start all of them with its folder in PYTHONPATH."
            ) from error
        if not theirs:
            raise SweepError(f"The cluster at {address} has no workers: start some first.")
        if set(theirs.values()) != {code_hash("fit", "bn_statistics")}:
            raise SweepError(f"The workers at {address} have other training code: update them.")
        with joblib.parallel_config("dask", n_jobs=-1):
            yield


def results_of(todo: Sequence[Task], jobs: int, dask: str | None) -> Iterator[dict[str, str]]:
    """The tasks' rows, each as soon as it is finished."""
    with on_dask(dask) if dask else on_processes(jobs):
        # One task at a time: joblib would hand in short ones together, and a kill lose them all.
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
        with contextlib.closing(parallel(joblib.delayed(train)(one) for one in todo)) as rows:
            yield from rows


def run_sweep(
    name: str,
    seeds: int = 10,
    jobs: int = 2,
    dask: str | None = None,
    retry_failed: bool = False,
    folder: Path = RESULTS,
    data: str = "mnist",
) -> None:
    """Runs what is missing of a grid, stale rows included, which stay until the new one is there.

    Args:
        name: of the grid.
        seeds: 0 to seeds - 1.
        jobs: processes at a time.
        dask: address of a scheduler, whose workers take the processes' place.
        retry_failed: also run what failed before.
        folder: of the table, ``<name>.csv``.
        data: ``"mnist"``, or ``"digits"`` for trying out.

    Raises:
        SweepError: when it cannot start or go on; the table keeps every finished row.
        DataError: when MNIST cannot be had.
    """
    wanted = tasks(name, seeds, data)
    if jobs < 1:
        raise SweepError(f"{jobs} jobs: use a whole number from 1 up.")
    with only_writer(folder, name) as path:
        rows = read_rows(path, name)
        todo = missing(rows, wanted, retry_failed)
        if todo:
            sweep_data(data, GRIDS[name].images)  # fails, or downloads, once and before the runs
        off = os.environ.get("PROGRESS") == "none"
        there = len(wanted) - len(todo)  # which says nothing about the time left
        with tqdm.tqdm(total=len(wanted), initial=there, unit="run", desc=name, disable=off) as bar:
            while todo:
                left = {one.slot for one in todo}
                try:
                    with contextlib.closing(results_of(todo, jobs, dask)) as finished:
                        for row in finished:
                            slot = row["setting"], row["seed"]
                            rows.pop(slot, None)
                            rows[slot] = row
                            write_rows(path, rows)
                            left.remove(slot)
                            bar.update()
                except TerminatedWorkerError as error:
                    if len(left) == len(todo):
                        raise SweepError(
                            "A worker process was killed before it finished a run, most likely for "
                            "want of memory: start again with fewer --jobs."
                        ) from error
                    bar.write(f"A worker process was killed; going on with {len(left)} runs.")
                todo = [one for one in todo if one.slot in left]


# ------------------------------------------------------------------------------- for the notebooks


def frame(rows: Sequence[dict[str, str]]) -> pd.DataFrame:
    """Rows as pandas has them; ``wrong`` is a list, ``history`` a dict of lists."""
    cells = [{c: row.get(c, "") for c in COLUMNS} for row in rows]
    return pd.DataFrame(
        [{c: _value(v) if c in NUMBERS else v for c, v in r.items()} for r in cells]
    )


def load_results(name: str, folder: Path = RESULTS, data: str = "mnist") -> pd.DataFrame:
    """A grid's finished rows, in the order of its settings and seeds.

    ``load_results("replicate").pivot(index="seed", columns="setting", values="test_accuracy")`` has
    the paired runs side by side. A sentence says where failed or stale rows are left out.

    Raises:
        SweepError: for an unknown grid, a missing or damaged table, or one without such rows.
    """
    if name not in GRIDS:
        raise SweepError(f"There is no grid {name!r}: use one of {', '.join(GRIDS)}.")
    path = folder / f"{name}.csv"
    rows = read_rows(path, name)
    kept = [r for r in rows.values() if r["status"] == "ok" and not why_stale(r, data)]
    if not kept:
        raise SweepError(f"{_shown(path)} has no rows: python sweep.py run {name} makes them.")
    if len(kept) < len(rows):
        print(f"{len(rows) - len(kept)} failed or stale rows of {_shown(path)} are left out.")
    order = {setting: i for i, setting in enumerate(GRIDS[name].settings)}
    return frame(sorted(kept, key=lambda row: (order[row["setting"]], int(row["seed"]))))


def rerun(
    name: str, setting: str, seed: int = 0, folder: Path = RESULTS, data: str = "mnist"
) -> tuple[pd.Series, pd.Series]:
    """One row as it is stored and as it comes out here and now.

    Raises:
        SweepError: as ``load_results``, and where there is no such row.
    """
    table = load_results(name, folder, data)
    found = table[(table["setting"] == setting) & (table["seed"] == seed)]
    if found.empty:
        raise SweepError(f"The grid {name!r} has no row for {setting!r} with seed {seed}.")
    return found.iloc[0], frame([train(task(name, setting, seed, data))]).iloc[0]


def differences(stored: pd.Series, fresh: pd.Series) -> dict[str, tuple]:
    """The figures in which two rows differ, (stored, fresh) by column; empty where bit-identical.

    Where ``stored[list(VERSIONS)]`` and the fresh ones are equal, they should be.
    """
    return {c: (stored[c], fresh[c]) for c in FIGURES if repr(stored[c]) != repr(fresh[c])}


# ----------------------------------------------------------------------------- the command line


def count(name: str, seeds: int, folder: Path, data: str) -> tuple[Counter, Rows]:
    """How many runs are wanted, there, missing, failed and stale; and the rows."""
    wanted, rows = tasks(name, seeds, data), read_rows(folder / f"{name}.csv", name)
    stale = {slot for slot, row in rows.items() if why_stale(row, data)}
    counts = Counter(r["status"] for slot, r in rows.items() if slot not in stale)
    counts |= {"runs": len(wanted), "stale": len(stale), "missing": len(missing(rows, wanted))}
    return counts, rows


def show_list(seeds: int, folder: Path, data: str) -> None:
    shown = ("runs", "ok", "failed", "stale", "missing")
    print(f"{'grid':<12}" + "".join(f"{column:>9}" for column in shown))
    for name, grid in GRIDS.items():
        counts, _ = count(name, seeds, folder, data)
        print(f"{name:<12}" + "".join(f"{counts[c]:>9}" for c in shown) + f"  {grid.question}")
    print(f"runs and missing are for {seeds} seeds")


def show_status(seeds: int, folder: Path, data: str) -> None:
    for name in GRIDS:
        counts, rows = count(name, seeds, folder, data)
        done = counts["runs"] - counts["missing"]
        hours = sum(float(row["seconds"]) for row in rows.values()) / 3600
        print(f"{name}: {done} of {counts['runs']} runs, {hours:.1f} hours of one core")
        for row in rows.values():
            run = f"  {row['setting']}, seed {row['seed']}"
            if reason := why_stale(row, data):
                print(f"{run} is stale: {reason}")
            elif row["status"] == "failed":
                print(f"{run} failed: {row['reason']}")
        used = {" ".join(row[column] for column in VERSIONS) for row in rows.values()}
        print("".join(f"  made with ({', '.join(VERSIONS)}): {u}\n" for u in sorted(used)), end="")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--seeds", type=int, default=10, help="how many, from 0 up (default: 10)")
    shared.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
    shared.add_argument("--data", choices=("mnist", "digits"), default="mnist")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", parents=[shared], help="the grids and how much of them is there")
    commands.add_parser("status", parents=[shared], help="the same, stale and failed rows by name")
    run = commands.add_parser("run", parents=[shared], help="run what is missing of a grid")
    run.add_argument("name", help=f"one of {', '.join(GRIDS)}")
    run.add_argument("--jobs", type=int, default=joblib.cpu_count(), help="processes at a time")
    run.add_argument("--dask", metavar="ADDRESS", help="of a Dask scheduler, tcp://host:8786")
    run.add_argument("--retry-failed", action="store_true", help="also what failed before")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, also where runs failed and are rows; 2 with a sentence; 130 interrupted."""
    asked = parse(arguments)
    common = {"seeds": asked.seeds, "folder": asked.results, "data": asked.data}
    try:
        if asked.command == "list":
            show_list(**common)
        elif asked.command == "status":
            show_status(**common)
        else:
            run_sweep(
                asked.name,
                jobs=asked.jobs,
                dask=asked.dask,
                retry_failed=asked.retry_failed,
                **common,
            )
            counts, _ = count(asked.name, **common)
            print(f"{asked.name}: {counts['ok']} rows, {counts['failed']} failed.")
    except (SweepError, DataError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted: every finished run is kept; start again to continue.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    # By its own name: what is defined in __main__ would be copied to the workers with every run,
    # and none would find the data that the run before has loaded.
    import sweep

    sys.exit(sweep.main())
