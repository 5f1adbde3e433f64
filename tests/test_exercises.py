"""The exercises: every known mistake is named, every right answer passes, nothing else does."""

import pytest
from exercise_styles import STYLES

from backstage.exercises import check, diagnosis, texts
from backstage.exercises.diagnosis import Flaw, answer
from backstage.exercises.learner import judge

pytestmark = pytest.mark.filterwarnings("ignore:.*degrees of freedom", "ignore:.*to a scalar")
TASKS = texts.tasks()
each = pytest.mark.parametrize("name", TASKS)


# ------------------------------------------------------------------------------- verdicts


@each
def test_every_known_mistake_is_named_however_it_is_written(name):
    for mistake in TASKS[name].mistakes:
        for edits in mistake.spellings:
            wrong = answer(name, Flaw(mistake, edits))
            assert wrong is not None, (mistake.name, edits)
            verdict = judge(name, wrong)
            assert verdict.mistakes == (mistake.name,), (edits, verdict.text)
            assert mistake.advice in verdict.text


@each
def test_right_answers_of_any_style_pass(name):
    for right in (answer(name), *STYLES[name]):
        verdict = judge(name, right)
        assert verdict.kind == "right", verdict.text


@each
def test_stubs_are_met_kindly_and_the_course_goes_on(name, capsys):
    scope = dict(diagnosis.SCOPE, check=check)
    exec(TASKS[name].stub, scope)
    said = capsys.readouterr().out
    assert said.startswith(f"… {name}: not yet") and "The course's goes on" in said
    goes_on = scope[TASKS[name].defined]
    assert judge(name, goes_on).kind == "right"
    check(name, goes_on)  # as when the cell is run again
    assert "not yet" in capsys.readouterr().out
