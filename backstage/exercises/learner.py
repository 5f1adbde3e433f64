"""What a learner calls, and which exercises are right so far, kept in a small file of their own."""

import itertools
import json
import os
import textwrap
from pathlib import Path

from filelock import FileLock

from backstage.exercises import checker
from backstage.files import replacing

FILE = "EXERCISES_PROGRESS"  # names another file, in tests and where notebooks are made


def place() -> Path:
    """The learner's file: git ignores it."""
    ours = Path(__file__).resolve().parents[2] / "notebooks" / "exercises" / "progress.json"
    return Path(os.environ.get(FILE) or ours)


def solved() -> set[str]:
    """The names of the exercises that were right when they were last checked."""
    try:
        found = json.loads(place().read_text(encoding="utf-8"))
        return {name for name in found if isinstance(name, str)}
    except (OSError, ValueError, TypeError):
        return set()  # none yet, or a file that somebody edited


def record(name: str, kind: str) -> None:
    """Keeps an outcome: a mistake takes a right answer back, "not yet" does not."""
    path = place()
    with FileLock(path.with_name(f".{path.name}.lock")):
        names = solved()
        if kind == checker.RIGHT:
            names.add(name)
        elif kind != checker.NOT_YET:
            names.discard(name)
        with replacing(path, "w", encoding="utf-8") as file:
            json.dump(sorted(names), file)


def _judged(name: str, answer) -> checker.Verdict:
    from backstage.exercises.catalogue import EXERCISES  # here, as it takes a moment

    if name not in EXERCISES:
        raise ValueError(f"There is no exercise {name!r}: use one of {', '.join(EXERCISES)}.")
    return checker.judge(EXERCISES[name], answer)


def shown(text: str) -> str:
    """The text in lines that fit into a notebook."""
    lines = [textwrap.wrap(line.lstrip(), 96, subsequent_indent="  ", break_long_words=False,
                           initial_indent=" " * (len(line) - len(line.lstrip())))
             for line in text.splitlines()]  # fmt: skip
    return "\n".join(itertools.chain(*lines))


def check(name: str, answer) -> None:
    """Says whether the answer to an exercise is right, and otherwise what is wrong with it."""
    verdict = _judged(name, answer)
    print(shown(verdict.text))
    try:
        record(name, verdict.kind)
    except OSError as error:
        print(f"(Your progress could not be kept: {error.strerror or error}.)")


def check_uncounted(name: str, answer) -> None:
    """As `check`, for solutions: to read one is not to find it."""
    print(shown(_judged(name, answer).text))


def progress() -> None:
    """Prints how many exercises are right, over all and by lesson, in one line."""
    from backstage.exercises.catalogue import EXERCISES, LESSONS

    right = solved()
    parts = [
        f"{lesson.split('_')[1]}: {len(right & set(names))}/{len(names)}"
        for lesson, names in LESSONS.items()
    ]
    print(f"{len(right & set(EXERCISES))} of {len(EXERCISES)} right ({', '.join(parts)})")
