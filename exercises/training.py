"""A training step with the penalty in it, and evaluation done right."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import s6_model
from exercises.cases import Draw
from exercises.exercise import Exercise, Mistake, Unfit, finished
from exercises.hooks import small_model
from exercises.penalties import weights

# ------------------------------------------------------------------------- training steps


def penalty(model, l1, l2):
    return l1 * s6_model.l1_loss(model) + l2 * s6_model.l2_loss(model)


def step_recipe(
    pull: Callable = penalty,
    clear: Callable = lambda optimizer: optimizer.zero_grad(),
    move: Callable = lambda optimizer: optimizer.step(),
    reported: Callable = lambda loss, whole: loss.item(),
    prepare: Callable = lambda model: model.train(),
):
    def train_step(model, optimizer, x, y, l1, l2):
        prepare(model)
        clear(optimizer)
        loss = F.cross_entropy(model(x), y)
        whole = loss + pull(model, l1, l2)
        whole.backward()
        move(optimizer)
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
    first = finished(answer(model, optimizer, x, y, l1, l2))
    yield "the loss of the first step", first
    yield "the weights after it", flat(weights(model))
    yield "γ, β and the biases after it", flat([p for p in model.parameters() if p.ndim < 2])
    answer(model, optimizer, x.flip(0), y, l1, l2)
    yield "the weights after two steps", flat(weights(model))
    alive = isinstance(first, Tensor) and first.requires_grad
    yield "whether the loss keeps its graph", "yes" if alive else "no"


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
        "the penalty left out of the step",
        "backward() has to start from the data loss plus both penalties.",
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
        "a loss that keeps its graph",
        "Whoever collects such losses fills the memory: return a number, by item().",
        {"reported": lambda loss, whole: loss},
    ),
)  # fmt: skip

# ------------------------------------------------------------------------------ evaluation


def mean_of_all(values: list[float], sizes: list[int]) -> float:
    return sum(v * n for v, n in zip(values, sizes, strict=True)) / sum(sizes)


def mean_of_batches(values: list[float], sizes: list[int]) -> float:
    return sum(values) / len(values)


def evaluate_recipe(
    prepare: Callable = lambda model: model.eval(),
    quiet: Callable = torch.no_grad,
    mean: Callable = mean_of_all,
    scale: float = 1.0,
    afterwards: Callable = lambda model, before: model.train(before),
):
    def evaluate(model, batches):
        before, losses, hits, sizes = model.training, [], [], []
        prepare(model)
        with quiet():
            for x, y in batches:
                logits = model(x)
                losses.append(F.cross_entropy(logits, y).item())
                hits.append((logits.argmax(1) == y).double().mean().item())
                sizes.append(len(y))
        afterwards(model, before)
        return mean(losses, sizes), scale * mean(hits, sizes)

    return evaluate


def evaluate_oracle(model, batches):
    """All images as one batch, which evaluation allows."""
    copied = copy.deepcopy(model).eval()
    with torch.no_grad():
        logits = copied(torch.cat([x for x, _ in batches]))
        with_hooks(model, batches)
    y = torch.cat([y for _, y in batches])
    return F.cross_entropy(logits, y), (logits.argmax(1) == y).double().mean()


def with_hooks(model, batches) -> None:
    """One pass for those who watch the model itself."""
    before = model.training
    model.eval()(batches[0][0])
    model.train(before)


def evaluate_shows(answer, model, batches, training):
    model.train(training)
    graded = []
    model.register_forward_pre_hook(lambda *_: graded.append(torch.is_grad_enabled()))
    loss, accuracy = pair(answer(model, batches), "loss", "accuracy")
    yield "the loss", loss
    yield "the accuracy", accuracy
    bn = model.block[0]
    yield "the running mean afterwards", bn.running_mean
    yield "whether gradients are recorded", "yes" if any(graded) else "no"
    yield "the mode afterwards", "training" if model.training else "evaluation"


def pair(value, *names: str):
    if not isinstance(finished(value), tuple | list) or len(value) != len(names):
        raise Unfit(f"return {len(names)} values, {' and '.join(names)}.")
    return value


def evaluate_cases() -> list[dict]:
    sizes = ((4, 1), (3, 3, 2))
    return [
        {"model": small_model(k),
         "batches": [(Draw(9 + n + k).normal(n, 1, 4, 4), (torch.arange(n) + k) % 3) for n in ns],
         "training": not k}
        for k, ns in enumerate(sizes)
    ]  # fmt: skip


class Recorded:
    """No no_grad at all."""

    def __enter__(self):
        return None

    def __exit__(self, *_):
        return None


EVALUATE_MISTAKES = (
    Mistake(
        "eval() forgotten",
        "Batch norm is still in training: an image's logits depend on its batch-mates.",
        {"prepare": lambda model: model.train()},
    ),
    Mistake(
        "a mean over the batches",
        "The last batch is smaller, so weight each batch by its number of images.",
        {"mean": mean_of_batches},
    ),
    Mistake(
        "sums for means",
        "Divide by the number of images in the end.",
        {"mean": lambda v, n: sum(a * b for a, b in zip(v, n, strict=True))},
    ),
    Mistake(
        "the last batch alone",
        "Each batch counts: add them up inside the loop, and return after it.",
        {"mean": lambda values, sizes: values[-1]},
    ),
    Mistake("an accuracy in percent", "It was to lie between 0 and 1.", {"scale": 100.0}),
    Mistake(
        "gradients recorded",
        "Nothing is to be trained here: no_grad() saves time and memory.",
        {"quiet": Recorded},
    ),
    Mistake(
        "a mode that is not restored",
        "The model was in training before: it would go on training in evaluation mode.",
        {"afterwards": lambda model, before: None},
    ),
    Mistake(
        "a model that always trains afterwards",
        "Restore the mode that you found: train(before).",
        {"afterwards": lambda model, before: model.train()},
    ),
)

EXERCISES = (
    Exercise("train_step", step_oracle, step_recipe, STEP_MISTAKES, step_cases, steps_show),
    Exercise("evaluate", evaluate_oracle, evaluate_recipe, EVALUATE_MISTAKES, evaluate_cases,
             evaluate_shows),
)  # fmt: skip
