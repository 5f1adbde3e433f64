"""The exercises: every known mistake is named, every right answer passes, nothing else does."""

import random
from dataclasses import replace

import exercise_cells as cells
import pytest
import torch
from exercise_oracles import ORACLES
from exercise_styles import STYLES
from torch import Tensor, nn

from backstage.exercises import check, diagnosis, learner, patterns, progress, texts
from backstage.exercises.diagnosis import SCOPE, TRIALS, answer
from backstage.exercises.judging import WRITTEN, Seen, differences, on_our_own
from backstage.exercises.learner import judge

pytestmark = pytest.mark.filterwarnings("ignore:.*degrees of freedom", "ignore:.*to a scalar")
TASKS = texts.tasks()
each = pytest.mark.parametrize("name", TASKS)


def written(name: str, text: str):
    """An answer as a learner's cell has it, after the functions that it may call."""
    before = "\n\n".join(task.solution for task in texts.needed(TASKS[name])[:-1])
    scope = dict(SCOPE)
    exec(before, scope)
    exec(compile(text, "<ipython-input-1>", "exec"), scope)
    return scope[TASKS[name].defined]


def test_there_are_nineteen_and_four_are_core():
    assert TASKS.keys() == TRIALS.keys() == STYLES.keys() == ORACLES.keys() and len(TASKS) == 19
    core = {name for name, task in TASKS.items() if task.core}
    assert core == {"bn_forward", "batch_norm", "group_norm", "train_step"}


@each
def test_every_known_mistake_is_named_however_it_is_written(name):
    for mistake in TASKS[name].mistakes:
        for edits in mistake.spellings:
            wrong = answer(name, replace(mistake, spellings=(edits,)))
            assert wrong is not None, f"{mistake.name}: the solution's text has no {edits}"
            verdict = judge(name, wrong)
            assert verdict.mistakes == (mistake.name,), (edits, verdict.text)
            assert mistake.advice in verdict.text


@each
def test_right_answers_of_any_style_pass(name):
    for right in (answer(name), ORACLES[name], *STYLES[name]):
        verdict = judge(name, right)
        assert verdict.kind == "right", verdict.text


@each
def test_what_is_wrong_anywhere_is_refused(name):
    """What was seen of a right answer, with one number in one place changed a little."""
    rng, trial = random.Random(name), TRIALS[name]
    with on_our_own():
        right = trial.shown(answer(name))
        assert not differences(right, diagnosis.expected(name))
        for _ in range(10):
            values = rng.choice(right).values
            what = rng.choice(list(values))
            before = values[what]
            values[what] = corrupted(before, rng)
            assert list(differences(right, diagnosis.expected(name))) == [what]
            values[what] = before


def corrupted(value, rng: random.Random):
    if isinstance(value, str):
        return value + "?"
    flat = value.flatten().clone()
    i = rng.randrange(len(flat))
    flat[i] += rng.choice((-1, 1)) * max(0.003 * abs(flat[i].item()), 0.003)
    return flat.view(value.shape)


@pytest.mark.parametrize("name", [n for n in TASKS if "Module" not in TASKS[n].solution])
def test_arguments_are_not_to_be_written_into(name):
    if any(isinstance(value, nn.Module) for value in TRIALS[name].cases[0].values()):
        return  # a model, which may be trained; what may not change of it is looked at by name

    def spoiling(*given):
        found = answer(name)(*given)
        for value in given:
            if isinstance(value, list):
                value.reverse()
            if isinstance(value, Tensor):
                value.data = value.data.logical_not() if value.dtype == torch.bool else value + 1
        return found

    verdict = judge(name, spoiling)
    assert verdict.mistakes == (WRITTEN,) or "changed: work on new tensors" in verdict.text


# ------------------------------------------------------------------------ two at once, or unknown

PAIRS = [
    ("batch_norm", "the unbiased variance used to normalize", "the biased variance stored"),
    ("batch_norm", "the momentum reversed", "the mode ignored"),
    ("bn_forward", "ε outside the root", "γ and β swapped"),
    ("bn_forward", "the unbiased variance used to normalize", "β left out"),
    ("group_norm", "groups of every G-th channel", "the unbiased variance used to normalize"),
    ("bn_backward", "the way through μ left out", "means for sums in dγ and dβ"),
    ("train_step", "the penalty in the loss that is reported", "½ missing in L2"),
    ("l2_loss", "a penalty on the biases and on γ and β too", "½ missing"),
    ("evaluate", "a mean over the batches", "an accuracy in percent"),
]


@pytest.mark.parametrize("name, first, second", PAIRS)
def test_two_mistakes_at_once_are_both_named(name, first, second):
    known = {flaw.name: flaw for flaw in reversed(diagnosis.flaws(name))}
    verdict = judge(name, answer(name, known[first], known[second]))
    assert set(verdict.mistakes) == {first, second}


def affine(text: str):
    """Batch norm with another last line."""
    lines = TASKS["bn_forward"].solution.splitlines()
    return written("bn_forward", "\n".join([*lines[:-1], f"    {text}"]))


def test_values_exchanged_and_dimensions_left_over_are_seen_in_any_exercise():
    def exchanged(*given):
        dx, dgamma, dbeta = answer("bn_backward")(*given)
        return dx, dbeta, dgamma

    def left_over(*given):
        return tuple(v.view(1, -1, 1, 1) for v in answer("running_statistics")(*given))

    assert judge("bn_backward", exchanged).mistakes == ("dgamma and dbeta exchanged",)
    assert judge("running_statistics", left_over).mistakes == (
        "right, but for dimensions of 1 left over, as by keepdim=True",
    )


def test_slips_that_nobody_listed_are_named_by_the_change_that_makes_them():
    def added(x, mean, *rest):
        return answer("bn_eval")(x, -mean, *rest)

    assert judge("bn_eval", added).mistakes == ("`x + mu` in place of `x - mu`",)


def test_what_is_unknown_is_told_by_what_is_regular_and_by_the_half_that_is_right():
    factor = judge("prox_l1", lambda *given: 3 * answer("prox_l1")(*given)).text
    assert "3.000 times what it should be" in factor and "w = [" in factor
    shift = judge("prox_l1", lambda *given: answer("prox_l1")(*given) + 2).text
    assert "off by +2.000" in shift
    channel = affine("return xhat + torch.arange(1, len(gamma) + 1).view(-1, 1, 1)")
    assert "in each channel alike: off by +6.000 in one" in judge("bn_forward", channel).text

    def without_the_last(x, *rest):
        return torch.cat([answer("ghost_batch_norm")(x, *rest)[:-1], 0 * x[-1:]])

    last = judge("ghost_batch_norm", without_the_last).text
    assert "right, but for the last images, which are 0" in last
    half = affine("return gamma[:, None, None] * xhat.exp() + beta[:, None, None]")
    assert "Right already: the gradient of β, how γ and β are" in judge("bn_forward", half).text
    shape = judge("layer_norm", lambda x, *_: x.mean((2, 3))).text
    assert "the shape is (2, 1), and should be (2, 1, 1, 2)" in shape


def test_a_factor_that_is_a_number_of_something_is_named():
    cases = [{"x": torch.ones(n, 3), "k": 2.0} for n in (2, 3, 5)]
    wanted = [Seen({"v": torch.tensor([1.0, 4.0])}) for _ in cases]
    found = [Seen({"v": len(case["x"]) * torch.tensor([1.0, 4.0])}) for case in cases]
    assert patterns.pattern(found, wanted, "v", cases) == "what it should be times x.shape[0]"


def test_an_error_is_shown_with_its_line_and_what_was_tried():
    text = "def bn_forward(x, gamma, beta, eps):\n    return x.mean(nonsense=gamma)"
    verdict = judge("bn_forward", written("bn_forward", text))
    assert verdict.kind == "raised" and "TypeError" in verdict.text
    assert "in line 2" in verdict.text and "eps = 0.5" in verdict.text


def test_two_layers_in_a_row_are_no_folded_one():
    verdict = judge("fold_bn", lambda conv, bn: nn.Sequential(conv, bn))
    assert verdict.kind == "wrong" and "return one nn.Conv2d, not a Sequential" in verdict.text


@pytest.mark.parametrize("unfinished", [None, ..., lambda *_: None, lambda *_: ...])
def test_what_is_unfinished_is_no_mistake(unfinished):
    for name in ("bn_forward", "bn_backward", "evaluate", "index_sets"):
        verdict = judge(name, unfinished)
        assert verdict.kind == "not yet" and "is a `return` missing?" in verdict.text
    part = judge("index_sets", lambda *given: answer("index_sets")(*given) | {"IN": ...}).text
    assert "Right so far: BN's means, LN's means." in part


# ------------------------------------------------------------------------------ in a lesson


@each
def test_stubs_are_met_kindly_and_the_course_goes_on(name, capsys):
    scope = dict(SCOPE, check=check)
    exec(cells.stub_cell(TASKS[name]), scope)
    said = capsys.readouterr().out
    assert said.startswith(f"… {name}: not yet") and "The course's goes on" in said
    goes_on = scope[TASKS[name].defined]
    assert judge(name, goes_on).kind == "right"
    assert check(name, goes_on) is goes_on  # as when the cell is run again
    assert "not yet" in capsys.readouterr().out


def test_the_learners_own_goes_on_once_it_is_right(capsys, monkeypatch):
    monkeypatch.setattr(learner, "_solved", {})
    own, wrong = STYLES["prox_l1"][0], lambda w, *_: w
    assert check("prox_l1", wrong) is answer("prox_l1")
    progress()
    assert "0 right. Still to mend: prox_l1." in capsys.readouterr().out
    assert check("prox_l1", own) is own
    assert "✓ prox_l1: right. Weights within lr·l1" in (said := capsys.readouterr().out)
    assert "Yours goes on as prox_l1." in said
    progress()
    assert "1 right: prox_l1." in capsys.readouterr().out
    with pytest.raises(ValueError, match="There is no exercise 'nonsense'"):
        check("nonsense", None)


def test_nothing_is_left_otherwise_than_it_was():
    def loud(*given):
        torch.set_default_dtype(torch.float16)
        torch.set_grad_enabled(False)
        return answer("prox_l1")(*given) + torch.rand(())

    before = torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state()
    assert judge("prox_l1", loud).kind != "right"
    assert torch.is_grad_enabled()
    after = torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state()
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])


def test_an_accelerator_is_neither_seeded_nor_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", pytest.fail)
    try:
        torch.set_default_device("meta")  # whatever is made there has no numbers in it
        assert judge("prox_l1", written("prox_l1", TASKS["prox_l1"].solution)).kind == "right"
    finally:
        torch.set_default_device(None)


def test_a_teacher_adds_a_mistake_as_a_line_of_text(tmp_path, monkeypatch):
    lesson = (texts.FOLDER / "Session6_4_penalties.md").read_text(encoding="utf-8")
    added = "\n- **half a step**: The whole\n  of it.\n  `lr * grad` → `0.5 * lr * grad`\n"
    (tmp_path / "added.md").write_text(lesson.rstrip() + added, encoding="utf-8")
    monkeypatch.setattr(texts, "FOLDER", tmp_path)
    (task,) = texts.read("added")
    assert task.mistakes[-1] == texts.Mistake(
        "half a step", "The whole of it.", ((("lr * grad", "0.5 * lr * grad"),),)
    )
