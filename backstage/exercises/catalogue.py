"""All exercises by name, and which lesson each belongs to, in the order of the course."""

from backstage.exercises import (
    backward,
    batch_norm,
    comparing,
    evaluating,
    hooks,
    index_sets,
    inference,
    mcnemar,
    norms,
    penalties,
    running,
    training,
    workbook_cell,
)
from backstage.exercises.exercise import Exercise

LESSONS = {
    "Session6_0_by_hand": (
        "index_sets",
        "bn_forward",
        "running_statistics",
        "bn_eval",
        "batch_norm",
        "layer_norm",
        "instance_norm",
        "group_norm",
        "bn_backward",
        "gn_backward",
        "workbook_cell",
    ),
    "Session6_1": ("l1_loss", "l2_loss", "train_step", "evaluate", "fold_bn", "mcnemar"),
    "Session6_2_why_it_works": ("gradient_norms", "effective_rate"),
    "Session6_3_batch_size": ("ghost_batch_norm", "precise_statistics"),
    "Session6_4_penalties": ("prox_l1",),
    "Session6_5_does_it_replicate": ("paired_interval", "verdict", "holm"),
}

_MODULES = (
    *(index_sets, norms, running, batch_norm, backward, workbook_cell),
    *(penalties, training, evaluating, inference, mcnemar, hooks, comparing),
)
_ALL = {exercise.name: exercise for module in _MODULES for exercise in module.EXERCISES}
EXERCISES: dict[str, Exercise] = {name: _ALL[name] for names in LESSONS.values() for name in names}
