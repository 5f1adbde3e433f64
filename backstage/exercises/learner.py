"""What a lesson calls: `check` says what it found and gives back the function that goes on."""

from dataclasses import dataclass

from backstage.exercises import diagnosis, texts, words
from backstage.exercises.inputs import NotYet, Unfit
from backstage.exercises.judging import (
    ERROR,
    WRITTEN,
    Shown,
    differences,
    on_our_own,
    shown,
)

_solved: dict[str, bool] = {}  # those tried in this kernel, and whether they were right


@dataclass(frozen=True)
class Verdict:
    """right, mistake, wrong, raised or not yet; what is said, and the known mistakes in it."""

    kind: str
    text: str
    mistakes: tuple[str, ...] = ()


def check(name: str, answer):
    """Says whether an answer is right, and otherwise what is wrong with it.

    Gives back the answer if it is right, and the course's own if not, so that the lesson goes on.
    """
    if name not in texts.tasks():
        raise ValueError(f"There is no exercise {name!r}: use one of {', '.join(texts.tasks())}.")
    ours = diagnosis.answer(name)
    verdict = judge(name, None if answer is ours else answer)
    defined = texts.tasks()[name].defined
    if verdict.kind != "not yet":
        _solved[name] = verdict.kind == "right"
    mark = {"right": "✓", "not yet": "…"}.get(verdict.kind, "✗")
    whose = "Yours" if verdict.kind == "right" else "The course's"
    print(texts.wrapped(f"{mark} {name}: {verdict.text}\n{whose} goes on as {defined}."))
    return answer if verdict.kind == "right" else ours


def progress() -> None:
    """Prints how many exercises are right so far in this kernel, and which are not."""
    right = [name for name, is_right in _solved.items() if is_right]
    wrong = [name for name, is_right in _solved.items() if not is_right]
    lines = [f"{len(right)} right" + f": {', '.join(right)}" * bool(right)]
    lines += [f"still to mend: {', '.join(wrong)}"] * bool(wrong)
    print(texts.wrapped(". ".join(lines) + "."))


def judge(name: str, answer) -> Verdict:
    """Whether the answer is right, and otherwise what is wrong with it."""
    with on_our_own():
        wanted = diagnosis.expected(name)
        found = Shown([{}], NotYet()) if answer in (None, ...) else shown(
            diagnosis.TRIALS[name], answer)  # fmt: skip
        differ = differences(found, wanted)
        if not differ:
            return Verdict("right", f"right. Tried on {len(wanted.cases)} inputs.")
        if isinstance(found.error, NotYet):
            return _not_yet(found, differ)
        return _wrong(name, found, wanted, differ)


def _not_yet(found: Shown, differ: dict[str, int]) -> Verdict:
    done = list(found.cases[0])
    if done and list(differ) == [ERROR]:
        return Verdict("not yet", f"not yet. Right so far: {', '.join(done)}.")
    return Verdict("not yet", "not yet. Nothing came back: is it still to write, or is a `return` "
                              "missing? The hints are above.")  # fmt: skip


def _wrong(name: str, found: Shown, wanted: Shown, differ: dict[str, int]) -> Verdict:
    what, k = next(iter(differ.items()))
    case = diagnosis.TRIALS[name].cases()[k]
    if what == ERROR and isinstance(found.error, Unfit):
        return Verdict("wrong", f"{found.error}\n  It was called with {words.described(case)}.")
    if what == WRITTEN:
        return Verdict("mistake", f"what comes back is right, but {found.cases[k][WRITTEN]}. It "
                       "belongs to the caller: work on new tensors, not in place (+=, mul_ …).",
                       (WRITTEN,))  # fmt: skip
    seen = _raised(found, case) if what == ERROR else words.example(found, wanted, what, k, case)
    looks = diagnosis.diagnose(name, found)
    if looks is None:
        how = "" if what == ERROR else words.pattern(found, wanted, what, k) + ". "
        text = f"not right yet, and no mistake that is known here. {how}{_right(found, differ)}"
        return Verdict("raised" if what == ERROR else "wrong", f"{text.strip()}\n  {seen}")
    said = [f"{m.name}. {m.advice}" for m in looks.mistakes]
    text = "this looks like " + " And like ".join(said)
    if looks.more:
        text += f" Something else is wrong as well; mend this first. {_right(found, differ)}"
    return Verdict("mistake", f"{text.strip()}\n  {seen}", tuple(m.name for m in looks.mistakes))


def _right(found: Shown, differ: dict[str, int]) -> str:
    """The half that is right."""
    right = [what for what in found.labels if what not in differ and what != WRITTEN]
    return f"Right already: {', '.join(right)}." if right and found.error is None else ""


def _raised(found: Shown, case: dict) -> str:
    error = found.error
    said = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    line = words.line_of(error)
    return f"Your code raised {said}\n  " + f"in {line}, " * bool(line) + (
        f"when it was called with {words.described(case)}.")  # fmt: skip
