"""What a norm costs: milliseconds per training step, all norms side by side.

Timed in turns, a few steps of each norm and again from the first, so that whatever slows the
machine down meanwhile slows them all; and in this process's CPU seconds, on one thread. Which norm
is dearest depends on the machine and on how its library does each: what lasts is the rough ratio.
"""

import time
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from backstage.evidence.measures.faster import make_network
from backstage.evidence.measures.runs import endless, step
from s6_model import NORMS
from utils import Data


@dataclass(frozen=True)
class Setting:
    network: str = "CNN"  # the lesson's network, or "ReLU MLP"
    batch_size: int = 128
    turns: int = 15  # the median of so many is kept
    steps: int = 10  # per norm in each turn: some 50 ms, long for the clock


def settings() -> dict[str, Setting]:
    """The lesson's network at three batch sizes, and the MLP of ``faster.py`` at its own."""
    found = {f"CNN, batch {n}": Setting("CNN", n) for n in (8, 32, 128)}
    return found | {"ReLU MLP, batch 60": Setting("ReLU MLP", 60)}


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """``ms_per_step`` and its ratio to that without a norm, both by norm."""
    batch = next(endless(data.train, setting.batch_size, seed))
    models = {}
    for norm in NORMS:
        if setting.network != "CNN" and norm == "GN":  # an MLP's units have no order to group
            continue
        torch.manual_seed(seed)
        models[norm] = make_network(setting.network, norm)
    ms = milliseconds_per_step(models, batch, setting.turns, setting.steps)
    return {"ms_per_step": ms, "ratio": {norm: ms[norm] / ms["none"] for norm in ms}}


def milliseconds_per_step(
    models: dict[str, nn.Module], batch: tuple[Tensor, Tensor], turns: int = 15, steps: int = 10
) -> dict[str, float]:
    """The median over the turns, by the models' names; they are trained a little by it."""
    optimizers = {k: torch.optim.SGD(m.parameters(), 1e-3, fused=True) for k, m in models.items()}
    timed = {name: [] for name in models}
    for _ in range(turns + 1):
        for name, model in models.items():
            start = time.process_time()
            for _ in range(steps):
                step(model, optimizers[name], *batch)
            timed[name].append((time.process_time() - start) / steps)
    # The first turn is left out: it also allocates memory and chooses kernels.
    return {name: 1_000 * median(seconds[1:]) for name, seconds in timed.items()}
