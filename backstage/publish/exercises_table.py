"""Prints what the exercises know and how that was tried.

Each known mistake is judged as a learner's answer would be, and so is each right answer in another
style: the notebook's solution, the recipe, and those of ``styles`` and ``more_styles``.
"""

from backstage.exercises import checker
from backstage.exercises.catalogue import EXERCISES, LESSONS
from backstage.exercises.exercise import Exercise
from backstage.exercises.more_styles import STYLES
from backstage.publish.exercises import read


def solutions(lesson: str) -> dict[str, object]:
    """The notebook's own answers, by the exercise's name."""
    text, scope, found = read(lesson), {}, {}
    exec(text.imports, scope)
    scope["check"] = lambda name, answer: None
    for task in text.tasks:
        exec(task.solution, scope)
        found[task.name] = scope.get(task.check.rpartition(", ")[2].rstrip(")"), None)
        if found[task.name] is None:
            found[task.name] = scope["FORMULA"]
    return found


def outcomes(exercise: Exercise, solution) -> dict[str, tuple[int, int]]:
    """How many of how many mistakes were named, and styles accepted."""
    named = [checker.judge(exercise, exercise.flawed(m)).mistake == m.name
             for m in exercise.mistakes]  # fmt: skip
    styles = (solution, exercise.recipe(), *STYLES[exercise.name])
    right = [checker.judge(exercise, style).kind == checker.RIGHT for style in styles]
    return {"mistakes": (sum(named), len(named)), "styles": (sum(right), len(right))}


def lines():
    yield f"{'exercise':<20}{'lesson':<32}{'mistakes named':>16}{'styles accepted':>18}"
    total = {"mistakes": [0, 0], "styles": [0, 0]}
    for lesson, names in LESSONS.items():
        answers = solutions(lesson)
        for name in names:
            found = outcomes(EXERCISES[name], answers[name])
            shown = {key: f"{good} of {all_}" for key, (good, all_) in found.items()}
            yield f"{name:<20}{lesson:<32}{shown['mistakes']:>16}{shown['styles']:>18}"
            for key, counts in found.items():
                total[key] = [t + c for t, c in zip(total[key], counts, strict=True)]
    shown = {key: f"{good} of {all_}" for key, (good, all_) in total.items()}
    yield f"{len(EXERCISES):<52}{shown['mistakes']:>16}{shown['styles']:>18}"


if __name__ == "__main__":
    for line in lines():
        print(line, flush=True)
