"""All exercises by name, and which lesson each belongs to, in the order of the course."""

from exercises import backward, batch_norm, measuring, norms, penalties, workbook_cell
from exercises.checker import Exercise

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
    "Session6_1": ("l1_loss", "l2_loss", "train_step", "evaluate", "mcnemar"),
    "Session6_2_why_it_works": ("gradient_norms", "effective_rate"),
    "Session6_3_batch_size": ("ghost_batch_norm", "precise_statistics"),
    "Session6_4_penalties": ("prox_l1", "fold_bn"),
    "Session6_5_does_it_replicate": ("paired_interval", "verdict", "holm"),
}

_MODULES = (norms, batch_norm, backward, penalties, measuring, workbook_cell)
_ALL = {exercise.name: exercise for module in _MODULES for exercise in module.EXERCISES}
EXERCISES: dict[str, Exercise] = {name: _ALL[name] for names in LESSONS.values() for name in names}
