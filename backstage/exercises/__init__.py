"""Exercises that know what went wrong.

    from backstage.exercises import check
    bn_forward = check("bn_forward", bn_forward)

A learner's answer is run on small inputs and compared with the course's solution, which the tests
compare with PyTorch. Where they differ, it is compared with mistakes, which are changes to the
solution's text, run on the same inputs: a diagnosis is itself a computation.

``lessons/`` has the exercises' texts with the known mistakes, which ``texts`` reads; ``slips``
makes ordinary ones. ``norms``, ``layer``, ``training`` and ``comparing`` say what each is tried on,
``inputs`` is what they draw from. ``judging`` compares, ``diagnosis`` finds the mistake,
``patterns`` what is regular in a wrong value, ``words`` says it, and ``learner`` has what a lesson
calls.
"""

from backstage.exercises.learner import check, progress

__all__ = ["check", "progress"]
