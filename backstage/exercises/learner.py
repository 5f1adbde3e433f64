"""What a lesson calls: `check` says what it found and gives back the function that goes on."""

import textwrap
from dataclasses import dataclass

from backstage.exercises import diagnosis, patterns, texts
from backstage.exercises.inputs import NotYet, Unfit
from backstage.exercises.judging import ERROR, WRITTEN, Seen, differences, labels, on_our_own
from backstage.exercises.words import described, example, raised

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
    if verdict.kind != "not yet":
        _solved[name] = verdict.kind == "right"
    mark = {"right": "✓", "not yet": "…"}.get(verdict.kind, "✗")
    whose = "Yours" if verdict.kind == "right" else "The course's"
    goes_on = f"{whose} goes on as {texts.tasks()[name].defined}."
    _print(f"{mark} {name}: {verdict.text}\n{goes_on}")
    return answer if verdict.kind == "right" else ours


def progress() -> None:
    """Prints which exercises are right so far, in this kernel, and which are still to mend."""
    right = [name for name, is_right in _solved.items() if is_right]
    wrong = [name for name, is_right in _solved.items() if not is_right]
    text = f"{len(right)} right" + f": {', '.join(right)}" * bool(right)
    _print(text + f". Still to mend: {', '.join(wrong)}" * bool(wrong) + ".")


def _print(text: str) -> None:
    for line in text.splitlines():
        print(textwrap.fill(line, 96, subsequent_indent="  ", break_long_words=False))


def judge(name: str, answer) -> Verdict:
    """Whether the answer is right, and otherwise what is wrong with it."""
    with on_our_own():
        unwritten = answer is None or answer is Ellipsis
        found = [Seen(error=NotYet())] if unwritten else diagnosis.TRIALS[name].shown(answer)
        differ = differences(found, diagnosis.expected(name))
        if not differ:
            return Verdict("right", f"right. {texts.tasks()[name].once_right}")
        if isinstance(found[-1].error, NotYet):
            return _not_yet(name, found, differ)
        return _wrong(name, found, differ)


def _not_yet(name: str, found: list[Seen], differ: dict[str, int]) -> Verdict:
    done = labels(found[:1])
    if done and list(differ) == [ERROR]:
        return Verdict("not yet", f"not yet. Right so far: {', '.join(done)}.")
    said = "Nothing came back: is it still to write, or is a `return` missing?"
    hints = f"The hints are under “{texts.tasks()[name].title}” in {texts.tasks()[name].lesson}."
    return Verdict("not yet", f"not yet. {said} {hints}")


def _wrong(name: str, found: list[Seen], differ: dict[str, int]) -> Verdict:
    what, k = next(iter(differ.items()))
    wanted, error, cases = diagnosis.expected(name), found[-1].error, diagnosis.TRIALS[name].cases
    if what == ERROR and isinstance(error, Unfit):
        return Verdict("wrong", f"{error}\n  It was called with {described(cases[k])}.")
    if what == WRITTEN:
        text = f"what comes back is right, but {found[k].values[WRITTEN]}. It is the caller's: work"
        return Verdict("mistake", f"{text} on new tensors, not in place (+=, mul_ …).", (what,))
    seen = raised(error, cases[k]) if what == ERROR else example(found, wanted, what, k, cases[k])
    right = [label for label in labels(found) if label not in differ]
    more = f" and {len(right) - 4} more" * (len(right) > 4)
    right = f" Right already: {', '.join(right[:4])}{more}." if right and error is None else ""
    if WRITTEN in differ:
        right += f" And {found[differ[WRITTEN]].values[WRITTEN]}: work on new tensors."
    looks = diagnosis.diagnose(name, found)
    if looks is None:
        if what == ERROR:
            return Verdict("raised", f"not right yet.{right}\n  {seen}")
        said = patterns.pattern(found, wanted, what, cases)
        text = f"not right yet: {what} – {said or 'wrong, but in no way that is known here'}."
        return Verdict("wrong", f"{text}{right}\n  {seen}", (said,) if said else ())
    text = "this looks like " + " And like ".join(f"{m.name}. {m.advice}" for m in looks.mistakes)
    if looks.more:
        text += " Something else is wrong as well; mend this first."
    if looks.more or WRITTEN in differ:
        text += right
    return Verdict("mistake", f"{text}\n  {seen}", tuple(m.name for m in looks.mistakes))
