"""Evaluation done right: over all images, and with nothing changed."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F

from backstage.exercises.cases import Draw
from backstage.exercises.exercise import Exercise, Mistake, parts
from backstage.exercises.hooks import mode_of, small_model


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
    y = torch.cat([y for _, y in batches])
    return F.cross_entropy(logits, y), (logits.argmax(1) == y).double().mean()


def evaluate_shows(answer, model, batches, training):
    model.train(training)
    graded = []
    # on a layer, as model.forward(x) passes by the model's own hooks
    model.head.register_forward_hook(lambda _, __, out: graded.append(out.requires_grad))
    yield from parts(answer(model, batches), "the loss", "the accuracy")
    yield "the running statistics afterwards", torch.cat([*model.buffers()][:2])
    yield "whether gradients are recorded", "yes" if any(graded) else "no"
    yield "the mode afterwards", mode_of(model)
    frozen = not all(p.requires_grad for p in model.parameters())
    yield "whether parameters are frozen afterwards", "yes" if frozen else "no"
    enabled = torch.is_grad_enabled()
    yield "whether gradients are switched off afterwards", "no" if enabled else "yes"


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


class SwitchedOff:
    """Gradients off, and never on again."""

    def __enter__(self):
        torch.set_grad_enabled(False)

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
    Mistake(
        "the mode put back for the model alone",
        "model.training is one flag, and each layer has its own: train(before) sets them all.",
        {"afterwards": lambda model, before: setattr(model, "training", before)},
    ),
    Mistake(
        "parameters that stay frozen",
        "After requires_grad_(False) nothing is trained any more: no_grad() needs no such thing.",
        {"prepare": lambda model: model.eval().requires_grad_(False)},
    ),
    Mistake(
        "gradients that stay switched off",
        "set_grad_enabled(False) holds until it is undone: `with torch.no_grad():` undoes itself.",
        {"quiet": SwitchedOff},
    ),
)

EXERCISES = (
    Exercise("evaluate", evaluate_oracle, evaluate_recipe, EVALUATE_MISTAKES, evaluate_cases,
             evaluate_shows),
)  # fmt: skip
