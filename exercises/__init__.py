"""Exercises that know what went wrong.

A learner's answer is run on small inputs and compared with PyTorch's. Where they differ, it is
compared with the known mistakes, each of which is an implementation that is run on the same inputs:
a diagnosis is itself a computation.

    from exercises import check
    check("batch_norm", MyBatchNorm)

``checker`` compares and diagnoses, ``guard`` runs the learner's code, ``learner`` is what a learner calls; it remembers what
is right. The exercises are in ``norms``, ``batch_norm``, ``backward``, ``penalties``, ``measuring``
and ``workbook_cell``, their texts in ``lessons/``, from which ``python -m exercises.build`` writes
the notebooks with stubs and those with solutions.
"""

from exercises.learner import check, check_uncounted, progress

__all__ = ["check", "check_uncounted", "progress"]
