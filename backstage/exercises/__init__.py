"""Exercises that know what went wrong.

A learner's answer is run on small inputs and compared with PyTorch's. Where they differ, it is
compared with the known mistakes, each of which is an implementation that is run on the same inputs:
a diagnosis is itself a computation.

    from backstage.exercises import check
    check("batch_norm", MyBatchNorm)

``exercise`` says what an exercise is, ``checker`` compares and diagnoses, ``words`` says what it
found, ``guard`` runs the learner's code, ``learner`` has what they call and remembers what is
right. The other modules have the exercises, by topic, with ``layer`` and ``spreadsheet`` to observe
two of them; ``catalogue`` lists them by lesson. Their texts are in ``lessons/``, from which
``python -m backstage.publish.exercises`` writes the notebooks with stubs and those with solutions.
"""

from backstage.exercises.learner import check, check_uncounted, progress

__all__ = ["check", "check_uncounted", "progress"]
