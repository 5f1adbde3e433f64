"""Fashion-MNIST: the course's comparisons where there is more room for a difference than at 99.4%.

Its files have MNIST's form (1708.07747); its pixels are scaled by its own mean and standard
deviation. The strengths of the penalties, and whether to augment, are chosen on its own validation
images, as for MNIST: the grid ``fashion_tune``. What augmentation does is made for handwriting: it
turns, slants, stretches and shifts.
"""

from dataclasses import replace

from backstage.evidence.measures import ghost, runs
from backstage.evidence.measures.ghost import GhostExperiment
from s6_model import NORMS
from utils import THREE_EXPERIMENTS, Data, Experiment

GN_L1, LN_L2, _ = THREE_EXPERIMENTS
EPOCHS = 10
L1, L2, AUGMENT = 1e-5, 1e-4, False  # chosen from ``candidates``


def candidates() -> dict[str, Experiment]:
    """GN + L1 and LN + L2 at each strength, at the middle one with augmentation too."""
    runs = [replace(GN_L1, l1=l1, augment=False) for l1 in (1e-6, 1e-5, 1e-4)]
    runs += [replace(LN_L2, l2=l2, augment=False) for l2 in (1e-5, 1e-4, 1e-3)]
    runs += [GN_L1, LN_L2]
    return {
        f"{e.label}, {e.l1 + e.l2:g}, {'augmented' if e.augment else 'plain'}": replace(
            e, epochs=EPOCHS
        )
        for e in runs
    }


def experiments() -> dict[str, Experiment]:
    """The three experiments and the four norms without a penalty, at the strengths chosen."""
    runs = [replace(e, l1=L1 if e.l1 else 0.0, l2=L2 if e.l2 else 0.0) for e in THREE_EXPERIMENTS]
    runs += [replace(GN_L1, norm=norm, l1=0.0) for norm in NORMS]
    return {e.label: replace(e, epochs=EPOCHS, augment=AUGMENT) for e in runs}


def ghosts() -> dict[str, Experiment]:
    """BN over 2 and over 32 of 32 images, and GN; else as the grid ``ghost`` on MNIST."""
    base = replace(GN_L1, l1=0.0, epochs=6, batch_size=32, lr=GN_L1.lr * 32 / GN_L1.batch_size)
    fields = vars(replace(base, norm="BN"))
    found = {f"BN {n} in 32": GhostExperiment(**fields, norm_batch=n) for n in (2, 32)}
    return found | {"GN, batch 32": base}


def measure_ghost(experiment: Experiment, seed: int, data: Data) -> dict:
    """``ghost.measure`` or, for GN, ``final_epoch``."""
    is_ghost = isinstance(experiment, GhostExperiment)
    return (ghost.measure if is_ghost else runs.final_epoch)(experiment, seed, data)
