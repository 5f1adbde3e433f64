"""A training step with the penalty in it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import s6_model
from backstage.exercises.cases import Draw
from backstage.exercises.exercise import Exercise, Mistake, finished
from backstage.exercises.hooks import mode_of, small_model
from backstage.exercises.penalties import at_the_top, weights


def penalty(model, l1, l2):
    return l1 * s6_model.l1_loss(model) + l2 * s6_model.l2_loss(model)


def step_recipe(
    pull: Callable = penalty,
    clear: Callable = lambda optimizer: optimizer.zero_grad(),
    move: Callable = lambda optimizer: optimizer.step(),
    reported: Callable = lambda loss, whole: loss.item(),
    prepare: Callable = lambda model: model.train(),
    before_step: Callable = lambda optimizer: None,
    extra: Callable = lambda model, x: None,
    leave: Callable = lambda model, optimizer: None,
):
    def train_step(model, optimizer, x, y, l1, l2):
        prepare(model)
        extra(model, x)
        clear(optimizer)
        loss = F.cross_entropy(model(x), y)
        whole = loss + pull(model, l1, l2)
        whole.backward()
        before_step(optimizer)
        move(optimizer)
        leave(model, optimizer)
        return reported(loss, whole)

    return train_step


def step_oracle(model, optimizer, x, y, l1, l2):
    """By the gradients themselves, with L2 as the optimizer's own weight decay."""
    model.train()
    weighted = [p for p in model.parameters() if p.ndim >= 2]
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    for p, g in zip(model.parameters(), torch.autograd.grad(loss, model.parameters()), strict=True):
        is_weight = any(p is w for w in weighted)
        p.grad = g + is_weight * (l1 * p.detach().sign() + l2 * p.detach())
    optimizer.step()
    return loss.item()


def steps_show(answer, model, x, y, l1, l2):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    taken = []
    optimizer.register_step_post_hook(lambda *_: taken.append(1))
    for p in model.parameters():
        p.grad = torch.full_like(p, 0.2)  # left by somebody else
    first = finished(answer(model, optimizer, x, y, l1, l2))
    yield "the loss of the first step", first
    yield "how often the optimizer stepped", len(taken)
    yield "the running statistics after it", flat([*model.buffers()][:2])
    yield "the weights after it", flat(weights(model))
    yield "γ, β and the biases after it", flat([p for p in model.parameters() if p.ndim < 2])
    answer(model, optimizer, x.flip(0), y, l1, l2)
    yield "the weights after two steps", flat(weights(model))
    alive = isinstance(first, Tensor) and first.requires_grad
    yield "whether the loss keeps its graph", "yes" if alive else "no"
    yield "the mode afterwards", mode_of(model)


def flat(parameters: list[Tensor]) -> Tensor:
    return torch.cat([p.detach().flatten() for p in parameters])


def step_cases() -> list[dict]:
    return [
        {"model": small_model(k).eval(), "x": Draw(k).normal(n, 1, 4, 4), "y": torch.arange(n) % 3,
         "l1": 0.3, "l2": 0.5}
        for k, n in enumerate((2, 5))
    ]  # fmt: skip


def everywhere(model, l1, l2):
    return sum(l1 * p.abs().sum() + l2 * 0.5 * p.square().sum() for p in model.parameters())


def at_the_top_alone(model, l1, l2):
    return sum(l1 * p.abs().sum() + l2 * 0.5 * p.square().sum() for p in at_the_top(model))


STEP_MISTAKES = (
    Mistake(
        "a step that was never taken",
        "After backward() the optimizer still has to step().",
        {"move": lambda optimizer: None},
    ),
    Mistake(
        "a step in evaluation mode",
        "Call model.train() first: batch norm is to use this batch's statistics.",
        {"prepare": lambda model: model.eval()},
    ),
    Mistake(
        "the penalty in the loss that is reported",
        "Return the data loss alone: otherwise losses cannot be compared across λ.",
        {"reported": lambda loss, whole: whole.item()},
    ),
    Mistake(
        "no gradient from the penalties",
        "backward() has to start from the data loss plus both penalties, as tensors: through "
        "item() or detach() no gradient flows.",
        {"pull": lambda model, l1, l2: 0.0},
    ),
    Mistake(
        "L1 alone",
        "The L2 penalty, l2 times ½Σw², is missing.",
        {"pull": lambda model, l1, l2: l1 * s6_model.l1_loss(model)},
    ),
    Mistake(
        "L2 alone",
        "The L1 penalty, l1 times Σ|w|, is missing.",
        {"pull": lambda model, l1, l2: l2 * s6_model.l2_loss(model)},
    ),
    Mistake("λ1 and λ2 swapped", "`l1` goes with Σ|w| and `l2` with ½Σw².",
            {"pull": lambda model, l1, l2: penalty(model, l2, l1)}),
    Mistake(
        "½ missing in L2",
        "The penalty is l2 times ½Σw².",
        {"pull": lambda model, l1, l2: penalty(model, l1, 2 * l2)},
    ),
    Mistake(
        "a penalty on the biases and on γ and β too",
        "The weights are what it should have been; but those of one dimension were to be left "
        "alone.",
        {"pull": everywhere},
    ),
    Mistake(
        "gradients that add up from step to step",
        "backward() adds to what is there: zero_grad() before it.",
        {"clear": lambda optimizer: None},
    ),
    Mistake(
        "gradients cleared between backward() and step()",
        "The step then has nothing to go by: clear them before backward().",
        {"clear": lambda optimizer: None, "before_step": lambda optimizer: optimizer.zero_grad()},
    ),
    Mistake(
        "gradients cleared only after the step",
        "Others may have left some on the parameters before the first: zero_grad() before "
        "backward().",
        {
            "clear": lambda optimizer: None,
            "leave": lambda model, optimizer: optimizer.zero_grad(),
        },
    ),
    Mistake(
        "a second forward pass in training mode",
        "Each one moves batch norm's running statistics: use the logits of the first.",
        {"extra": lambda model, x: model(x)},
    ),
    Mistake(
        "a model that is left in evaluation mode",
        "Training goes on after this step: leave the model in training mode.",
        {"leave": lambda model, optimizer: model.eval()},
    ),
    Mistake(
        "the penalty of the layers inside blocks left out",
        "model.children() stops at a block: parameters() and modules() go into it.",
        {"pull": at_the_top_alone},
    ),
    Mistake(
        "a loss that keeps its graph",
        "Whoever collects such losses fills the memory: return a number, by item().",
        {"reported": lambda loss, whole: loss},
    ),
)  # fmt: skip

EXERCISES = (
    Exercise("train_step", step_oracle, step_recipe, STEP_MISTAKES, step_cases, steps_show),
)
