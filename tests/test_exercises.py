"""The exercises: every known mistake is named, every right answer passes, nothing else does."""

import contextlib
import io
import random
import time
import warnings

import nbformat
import numpy as np
import pytest
import torch
from openpyxl import load_workbook
from openpyxl.worksheet.formula import ArrayFormula
from torch import Tensor, nn

from backstage.exercises import checker, guard, learner, words
from backstage.exercises.catalogue import EXERCISES, LESSONS
from backstage.exercises.checker import MISTAKE, NOT_YET, RAISED, RIGHT, STOPPED, WRONG, judge
from backstage.exercises.exercise import Unfit, plain, watch
from backstage.exercises.more_styles import STYLES
from backstage.exercises.workbook_cell import BROKEN, computed, my_copy
from backstage.publish import exercises as build
from backstage.publish import exercises_table as table

pytestmark = pytest.mark.filterwarnings("ignore:.*degrees of freedom", "ignore:.*to a scalar")
each = pytest.mark.parametrize("name", EXERCISES)


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv(learner.FILE, str(tmp_path / "progress.json"))


@pytest.fixture(scope="module")
def solutions():
    return {name: answer for lesson in LESSONS for name, answer in table.solutions(lesson).items()}


# ------------------------------------------------------------------------------- verdicts


@each
def test_every_known_mistake_is_named(name):
    exercise = EXERCISES[name]
    for mistake in exercise.mistakes:
        verdict = judge(exercise, exercise.flawed(mistake))
        assert (verdict.mistake, verdict.kind in (MISTAKE, RAISED)) == (mistake.name, True)
        assert mistake.advice in verdict.text


@each
def test_right_answers_of_any_style_pass(name, solutions):
    exercise = EXERCISES[name]
    for answer in (solutions[name], exercise.recipe(), *STYLES[name]):
        verdict = judge(exercise, answer)
        assert verdict.kind == RIGHT, verdict.text


def test_there_are_enough_of_each():
    assert len(EXERCISES) == 25 and STYLES.keys() == EXERCISES.keys()
    assert all(len(e.mistakes) >= 5 for e in EXERCISES.values())
    assert len(EXERCISES["bn_forward"].mistakes) >= 8 <= len(EXERCISES["batch_norm"].mistakes)
    assert all(len(styles) >= 2 for styles in STYLES.values())  # with the solution and the recipe


def corrupted(value, rng: random.Random):
    """One number of many, somewhere, made a little wrong."""
    if isinstance(value, str):
        return value + "?"
    value = plain(value)
    if not value.numel():
        return value
    flat = value.flatten().clone()
    i = rng.randrange(len(flat))
    flat[i] += rng.choice((-1, 1)) * max(0.003 * abs(flat[i].item()), 0.003)
    return flat.view(value.shape)


@each
def test_what_is_wrong_anywhere_is_refused(name):
    """What was seen of a right answer, with one number in one place changed."""
    exercise, rng = EXERCISES[name], random.Random(name)
    with checker.in_float64():
        right = watch(exercise, exercise.recipe())
        assert checker.first_wrong(exercise, right) is None
        for _ in range(10):
            k = rng.randrange(len(right.seen))
            what = rng.choice(list(right.seen[k]))
            before = right.seen[k][what]
            right.seen[k][what] = corrupted(before, rng)
            assert checker.first_wrong(exercise, right) == (what, k)
            right.seen[k][what] = before


@each
def test_a_slightly_wrong_answer_is_refused(name):
    exercise = EXERCISES[name]

    def off(value):
        if isinstance(value, Tensor):
            return value * 1.01 + 0.01
        if isinstance(value, dict):
            return {key: off(v) for key, v in value.items()}
        if isinstance(value, tuple):
            return tuple(map(off, value))
        return value * 1.01 if isinstance(value, float) else f"{value}?"

    if name == "workbook_cell":
        answer = "=VARP(P8:Q15)*1.01"
    elif name == "batch_norm":

        class Wrong(exercise.recipe()):
            def forward(self, x):
                return off(super().forward(x))

        answer = Wrong
    elif name == "fold_bn":

        def answer(conv, bn):
            folded = exercise.recipe()(conv, bn)
            folded.bias.data = off(folded.bias.data)
            return folded
    else:

        def answer(*given):
            return off(exercise.recipe()(*given))

    with checker.in_float64():
        assert checker.first_wrong(exercise, watch(exercise, answer)) is not None
    if name in ("bn_forward", "prox_l1", "verdict"):  # to say so takes all pairs of mistakes
        verdict = judge(exercise, answer)
        assert verdict.kind in (WRONG, MISTAKE) and "expected" in verdict.text


def test_it_says_by_what_factor_and_gives_the_smallest_example():
    prox = EXERCISES["prox_l1"].recipe()
    assert "3.000 times what it should be" in (
        text := judge(EXERCISES["prox_l1"], lambda *v: 3 * prox(*v)).text
    )
    assert "w = [" in text
    assert "off by +2.000" in judge(EXERCISES["prox_l1"], lambda *v: prox(*v) + 2).text
    norm = EXERCISES["layer_norm"].recipe()
    assert (
        "shape (2, 1), not (2, 1, 1, 2)"
        in judge(EXERCISES["layer_norm"], lambda x, *_: x.mean((2, 3))).text
    )
    assert (
        "the output at [1, 0, 0, 1]"
        in judge(
            EXERCISES["layer_norm"],
            lambda *v: norm(*v) + (norm(*v) == norm(*v).detach()[-1, -1, -1, -1]),
        ).text
    )


FUNCTIONS = [name for name in EXERCISES if name not in ("batch_norm", "workbook_cell", "fold_bn")]


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if not n.startswith(("l1_", "l2_"))])
def test_arguments_are_not_to_be_written_into(name):
    """The right answer, after which one of the arguments is another."""
    exercise = EXERCISES[name]

    def answer(*given):
        found = exercise.recipe()(*given)
        for value in given:
            if isinstance(value, list):
                value.reverse()
            if isinstance(value, Tensor) and not value.is_floating_point():
                value.logical_not_()
            elif isinstance(value, Tensor):
                value.data = value.data + 1
        return found

    if name == "verdict":  # which is given numbers
        assert judge(exercise, answer).kind == RIGHT
        return
    verdict = judge(exercise, answer)
    assert verdict.mistake == checker.WRITES or "It also writes into" in verdict.text


class KeepsGraph(nn.BatchNorm2d):
    """In place or not: what is kept depends on all batches so far."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        old, self.running_var = self.running_mean, self.running_var.lerp(x.var((0, 2, 3)), 0.1)
        self.running_mean = old.lerp(x.mean((0, 2, 3)), self.momentum)
        self.running_var = self.running_var.detach()
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, True, 0, self.eps)


def test_one_buffer_with_a_graph_is_enough():
    watched = watch(EXERCISES["batch_norm"], KeepsGraph)
    assert watched.seen[0]["whether the running statistics keep a graph"] == "yes"
    watched = watch(EXERCISES["batch_norm"], nn.BatchNorm2d)
    assert watched.seen[0]["whether the running statistics keep a graph"] == "no"


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_pre_hook"])
def test_hooks_of_every_kind_are_counted(kind):
    def answer(model, x, y):
        getattr(model.block, f"register_{kind}")(lambda *_: None)
        return EXERCISES["gradient_norms"].recipe()(model, x, y)

    text = judge(EXERCISES["gradient_norms"], answer).text
    assert "hooks left on the model: expected 0, found 1" in text


def test_two_layers_in_a_row_are_no_folded_one():
    class Both(nn.Conv2d):
        def forward(self, x):
            return self.bn(self.conv(x))

    def hidden(conv, bn):
        both = Both(conv.in_channels, conv.out_channels, conv.kernel_size)
        both.conv, both.bn = conv, bn
        return both

    verdict = judge(EXERCISES["fold_bn"], lambda conv, bn: nn.Sequential(conv, bn))
    assert verdict.kind == WRONG and "return one nn.Conv2d, not a Sequential" in verdict.text
    assert judge(EXERCISES["fold_bn"], hidden).kind != RIGHT


def test_gradients_recorded_past_the_models_own_hooks_are_seen():
    def answer(model, batches):
        quiet = EXERCISES["evaluate"].recipe()
        was = model.training
        model.eval().forward(batches[0][0])
        model.train(was)
        return quiet(model, batches)

    assert judge(EXERCISES["evaluate"], answer).mistake == "gradients recorded"


def test_sentences_are_grammar_and_show_where_numbers_differ():
    assert words.listed(["the names"]) == "the names are"
    assert words.listed(["the loss"]) == "the loss is" != words.listed(["the loss", "dx"])
    assert words.differs("the weights after it") == "differ" and words.differs("dx") == "differs"
    assert words.sentence("the loss is right") == "The loss is right"
    assert words.sentence("dx differs") == "dx differs"
    assert words.apart(0.04001, 0.04019) == ("0.0400", "0.0402")
    assert words.apart(3.0, 0.0) == ("3", "0")
    text = judge(EXERCISES["evaluate"], lambda *_: (1.5, 0.5)).text
    assert "batches of 4 and 1 images" in text and "tensor" not in text
    text = judge(EXERCISES["verdict"], lambda *_: "Supported").text
    assert "expected 'supported', found 'Supported'" in text


def test_lists_of_anything_become_numbers_without_a_warning():
    numbers, graph = np.array([1.0, 2.0]), torch.ones(2, requires_grad=True) * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plain([numbers, graph, [3.0, 4]]).tolist() == [[1, 2], [2, 2], [3, 4]]
        assert plain(iter([graph.sum(), 1])).tolist() == [4, 1]
    assert plain(np.array("a text")) == "a text"


def test_a_regularity_is_said_of_all_cases_or_of_one():
    norm = EXERCISES["bn_forward"].recipe()
    text = judge(EXERCISES["bn_forward"], lambda x, *v: norm(x, *v) * len(x)).text
    assert "is 2.000 times what it should be, in this case" in text
    text = judge(EXERCISES["bn_forward"], lambda x, *v: norm(x.detach(), *v)).text
    assert "is 0, everywhere: no gradient flows to x" in text


# ---------------------------------------------------------------------- two mistakes at once


PAIRS = [
    ("batch_norm", "the unbiased variance used to normalize", "the biased variance stored"),
    ("batch_norm", "the momentum reversed", "the mode ignored"),
    ("bn_forward", "ε outside the root", "γ and β swapped"),
    ("group_norm", "groups of every G-th channel", "the unbiased variance used to normalize"),
    ("bn_backward", "the way through μ left out", "means for sums in dγ and dβ"),
    ("train_step", "the penalty in the loss that is reported", "½ missing in L2"),
    ("l2_loss", "a penalty on the biases and on γ and β too", "½ missing"),
    ("evaluate", "a mean over the batches", "an accuracy in percent"),
]


@pytest.mark.parametrize("name, first, second", PAIRS)
def test_of_two_mistakes_one_is_named_and_then_the_other(name, first, second):
    exercise = EXERCISES[name]
    known = {mistake.name: mistake for mistake in exercise.mistakes}
    a, b = known[first], known[second]
    verdict = judge(exercise, exercise.flawed(a, b))
    assert verdict.mistake == first
    assert judge(exercise, exercise.flawed(b)).mistake == second  # when the first is mended


@pytest.mark.parametrize("name", [name for name, e in EXERCISES.items() if any(e.pairs())])
def test_two_mistakes_drawn_at_random_are_never_right(name):
    exercise = EXERCISES[name]
    a, b = random.Random(0).choice(list(exercise.pairs()))
    verdict = judge(exercise, exercise.flawed(a, b))
    assert verdict.kind in (MISTAKE, RAISED)
    assert verdict.mistake in (a.name, b.name)


# -------------------------------------------------------- unfinished, failing, never ending


@each
def test_stubs_are_met_kindly(name, tmp_path):
    ((lesson, task),) = [
        (lesson, task)
        for lesson in LESSONS
        for task in build.read(lesson).tasks
        if task.name == name
    ]
    scope = {"check": lambda _, answer: scope.update(answer=answer), "my_copy": None}
    exec(build.read(lesson).imports, scope)
    scope["check"] = lambda _, answer: scope.update(answer=answer)
    code = build.stub(task.solution).replace("repair.xlsx", str(tmp_path / "repair.xlsx"))
    exec(code + task.check, scope)
    verdict = judge(EXERCISES[name], scope["answer"])
    assert verdict.kind == NOT_YET and "not yet" in verdict.text
    assert "✗" not in verdict.text


def not_implemented(*_):
    raise NotImplementedError


def only_described(*_):
    """Nothing yet."""


@pytest.mark.parametrize("answer", [None, ..., only_described, lambda *_: ..., not_implemented])
def test_other_unfinished_answers_too(answer):
    for name in ("bn_forward", "bn_backward", "evaluate", "index_sets"):
        assert judge(EXERCISES[name], answer).kind == NOT_YET


def test_a_return_that_is_missing_is_no_stub():
    def means(x, groups):
        found = EXERCISES["index_sets"].recipe()(x, groups)
        print(end=str(found)[:0])

    def verdict(low, high):
        if low > 0:
            return "supported"

    for name, answer in (("index_sets", means), ("verdict", verdict)):
        verdict = judge(EXERCISES[name], answer)
        assert verdict.kind == WRONG and "is a `return` missing?" in verdict.text


class Misspelt(nn.BatchNorm2d):
    forward = nn.Module.forward

    def foward(self, x):
        return x


@pytest.mark.parametrize("name, answer", [
    ("mcnemar", lambda a, b: float((a - b).sum())),
    ("train_step", lambda model, optimizer, x, y, *_: nn.functional.cross_entropy(y, model(x))),
    ("batch_norm", Misspelt),
])  # fmt: skip
def test_what_torch_has_not_implemented_is_an_error(name, answer):
    verdict = judge(EXERCISES[name], answer)
    assert verdict.kind == RAISED and "NotImplementedError" in verdict.text


def test_what_is_done_is_said_of_a_part():
    def means(x, groups):
        return EXERCISES["index_sets"].recipe()(x, groups) | {"IN": ...}

    text = judge(EXERCISES["index_sets"], means).text
    assert "not yet" in text and "BN's means and LN's means are right" in text


def test_an_error_is_shown_with_its_line_and_what_was_tried():
    def failing(x, gamma, beta, eps):
        return x.mean(nonsense=gamma)  # the line to be shown

    verdict = judge(EXERCISES["bn_forward"], failing)
    assert verdict.kind == RAISED
    assert "TypeError" in verdict.text and "x.mean(nonsense=gamma)" in verdict.text
    assert "eps = 0.5" in verdict.text


def test_an_error_that_a_known_mistake_makes_is_explained():
    def broadcast(x, gamma, beta, eps):
        var, mu = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        return gamma * ((x - mu) / (var + eps).sqrt()) + beta

    verdict = judge(EXERCISES["bn_forward"], broadcast)
    assert verdict.kind == RAISED and "give them the shape (C, 1, 1)" in verdict.text


@pytest.mark.parametrize("swapped", [False, True])
def test_a_lost_dimension_and_a_wrong_one_are_told_apart_though_they_raise_the_same(swapped):
    def forward(x, gamma, beta, eps):
        var, mu = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=swapped)
        xhat = (x - mu) / (var + eps).sqrt()
        gamma, beta = (gamma, beta) if swapped else (gamma.view(-1, 1, 1), beta.view(-1, 1, 1))
        return xhat * gamma + beta

    verdict = judge(EXERCISES["bn_forward"], forward)
    lost, along = "means and variances that lost their", "γ and β along the wrong"
    assert verdict.kind == RAISED and (along if swapped else lost) in verdict.mistake


def test_answers_of_the_wrong_kind_get_a_sentence():
    assert "the class itself" in judge(EXERCISES["batch_norm"], nn.BatchNorm2d(3)).text
    assert "return 3 values" in judge(EXERCISES["bn_backward"], lambda *_: torch.ones(2)).text
    assert "dict" in judge(EXERCISES["index_sets"], lambda *_: [1]).text
    assert "SystemExit" in judge(EXERCISES["holm"], lambda p: exit(3)).text


def forever(*_):
    while True:
        pass


def stubborn(*_):
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def asleep(*_):
    time.sleep(90)  # in C code, where nothing can be raised: it is left behind


@pytest.mark.parametrize("answer", [forever, stubborn, asleep])
def test_loops_are_stopped(answer):
    start = time.monotonic()
    verdict = judge(EXERCISES["verdict"], answer, seconds=0.3)
    assert verdict.kind == STOPPED and "stopped after 0.3 seconds" in verdict.text
    assert time.monotonic() - start < 60
    assert judge(EXERCISES["verdict"], EXERCISES["verdict"].recipe()).kind == RIGHT


def test_the_line_of_a_loop_is_shown():
    text = judge(EXERCISES["verdict"], forever, seconds=0.3).text
    assert "`pass`" in text or "`while True:`" in text


def test_what_is_quick_enough_comes_back_with_its_errors():
    assert guard.within(5, lambda: 3) == 3
    with pytest.raises(KeyError):
        guard.within(5, lambda: {}["missing"])


def test_the_surroundings_stay_as_they_were():
    torch.manual_seed(3)
    before = torch.get_default_dtype(), torch.get_rng_state()
    judge(EXERCISES["batch_norm"], nn.BatchNorm2d)
    assert torch.get_default_dtype() == before[0] and torch.equal(torch.get_rng_state(), before[1])
    judge(EXERCISES["evaluate"], lambda *_: (1.5, 0.5))  # tries mistakes that switch gradients off
    assert torch.is_grad_enabled()


# ------------------------------------------------------------------------------- workbook


def test_a_copy_to_mend_is_written_once_and_kept(tmp_path):
    path, exercise = tmp_path / "repair.xlsx", EXERCISES["workbook_cell"]
    assert judge(exercise, my_copy(path, ...)).kind == NOT_YET
    assert judge(exercise, my_copy(path, "=VARP(P8:Q15)")).kind == RIGHT
    assert judge(exercise, my_copy(path)).kind == RIGHT
    assert judge(exercise, my_copy(path, BROKEN)).kind == NOT_YET
    path.write_text("no workbook")
    assert "cannot be read" in judge(exercise, path).text
    assert "no file" in judge(exercise, tmp_path / "missing.xlsx").text


PIXELS = np.arange(64.0).reshape(8, 8)
FORMULAS = [  # what LibreOffice shows for them too
    ("=-2^2", 4), ("=2^3^2", 64), ("=2^-1", 0.5), ("=50%^2", 0.25), ("=1-2-3", -4), ("=8/4/2", 1),
    ("=--P8", 2), ("=Q16+1", 1), ("=SUM(P8:Q9,p10:q10)", 63), ("=COUNT(P8:Q16)", 17),
    ("=COUNT($P$16:Q16)", 1), ("=ROUND(2.345,2)", 2.35), ("=ROUND(-2.5,0)", -3),
    ("=SUMPRODUCT(P8:P9*2)", 24), ("=IF(1=0,1/0,7)", 7), ("=ROWS(N8:U15)*COLUMNS(N8:U15)", 64),
    ("{=SUM((P8:P9-P8)^2)}", 64),
]  # fmt: skip


@pytest.mark.parametrize("formula, value", FORMULAS)
def test_formulas_are_computed_as_in_a_spreadsheet(formula, value):
    assert computed(formula, PIXELS) == pytest.approx(value)


def test_an_array_formula_in_the_file_is_computed_as_one(tmp_path):
    path = my_copy(tmp_path / "repair.xlsx", formula := "=SUM((P8:Q15-P16)^2)/16")
    assert "#VALUE!" in judge(EXERCISES["workbook_cell"], path).text
    book = load_workbook(path)
    book["Illustration"]["P17"] = ArrayFormula("P17", formula)
    book.save(array := tmp_path / "array.xlsx")
    assert judge(EXERCISES["workbook_cell"], array).kind == RIGHT


@pytest.mark.parametrize("formula, shown", [
    ("=SUM((P8:Q15-P16)^2)", "#VALUE!"), ("=P8:P15*2", "#VALUE!"), ("=P8:P15", "#VALUE!"),
    ("=SUMXMY2(P8:Q15,P16)", "#N/A"), ("=SUMPRODUCT(P8:Q15,P8:P15)", "#VALUE!"),
    ("=1/0", "#DIV/0!"), ("=VAR(P8)", "#DIV/0!"), ("=SQRT(-1)", "#NUM!"), ('=P8+"a"', "#VALUE!"),
])  # fmt: skip
def test_errors_of_a_spreadsheet_are_said(formula, shown):
    with pytest.raises(Unfit, match=shown):
        computed(formula, PIXELS)


@pytest.mark.parametrize("formula", ["=FOO(P8)", "=2+(", "=A1", '=IF("a",Charts!A1,2)', "=P8 P9"])
def test_formulas_that_it_cannot_compute_get_a_sentence(formula):
    assert judge(EXERCISES["workbook_cell"], formula).kind == WRONG


# ------------------------------------------------------------------- progress and notebooks


def test_progress_is_kept_taken_back_and_survives_damage(capsys):
    right = EXERCISES["verdict"].recipe()
    learner.check("verdict", right)
    learner.check("verdict", None)  # "not yet" takes nothing back
    learner.progress()
    assert "1 of 25 right" in capsys.readouterr().out
    learner.check_uncounted("prox_l1", EXERCISES["prox_l1"].recipe())
    learner.check("verdict", lambda low, high: "supported")
    learner.progress()
    assert "0 of 25 right" in capsys.readouterr().out
    learner.place().write_text("[broken")
    learner.check("verdict", right)
    assert learner.solved() == {"verdict"}
    with pytest.raises(ValueError, match="There is no exercise 'nonsense'"):
        learner.check("nonsense", None)


def sources(notebook):
    return [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells]


@pytest.mark.parametrize("kind", build.KINDS)
@pytest.mark.parametrize("lesson", LESSONS)
def test_the_committed_notebooks_are_what_is_built_and_say_what_they_say(
    lesson, kind, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    committed = nbformat.read(build.path_of(lesson, kind), as_version=4)
    assert sources(committed) == sources(build.notebook(build.read(lesson), kind))
    scope = {}
    cells = [cell for cell in committed.cells if cell.cell_type == "code"]
    for cell in cells[1:]:  # after the set-up
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(cell.source, scope)
        assert said.getvalue() == "".join(o.text for o in cell.outputs)
    texts = ["".join(o.text for o in cell.outputs) for cell in cells]
    marks = [line[0] for text in texts for line in text.splitlines() if line[0] != " "]
    count = len(LESSONS[lesson])
    assert marks == (["✓"] * count if kind == "solutions" else ["…"] * count + ["0"])


def test_the_table_counts_what_was_tried(solutions):
    found = table.outcomes(EXERCISES["prox_l1"], solutions["prox_l1"])
    assert found == {"mistakes": (7, 7), "styles": (4, 4)}
