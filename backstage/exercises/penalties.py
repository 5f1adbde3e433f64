"""Penalties on the weights, and what they do to a step."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import s6_model
from backstage.exercises.cases import Draw, gradient, returned
from backstage.exercises.exercise import Exercise, Mistake, finished
from backstage.exercises.hooks import small_model

# ------------------------------------------------------------------------- the penalties


def weights(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.ndim >= 2]


def loss_recipe(
    size: Callable,
    factor: float = 1.0,
    which: Callable = weights,
    reduced: Callable = torch.sum,
    total: Callable = lambda value: value,
    taken: Callable = lambda p: p,
):
    def loss(model):
        return total(factor * sum(reduced(size(taken(p))) for p in which(model)))

    return loss


def l1_recipe(size=torch.abs, **steps):
    return loss_recipe(size, **steps)


def l2_recipe(size=torch.square, factor=0.5, **steps):
    return loss_recipe(size, factor, **steps)


def at_the_top(model: nn.Module) -> list[Tensor]:
    """The weights of the model's own children, without what is inside a block."""
    own = [p for child in model.children() for p in child.parameters(recurse=False)]
    return [p for p in own if p.ndim >= 2]


def loss_shows(answer, model):
    before = [p.detach().clone() for p in model.parameters()]
    loss = finished(answer(model))
    yield "the loss", loss
    for name, parameter in model.named_parameters():
        yield f"the gradient of {name}", gradient(loss, parameter)
    kept = all(map(torch.equal, before, model.parameters()))
    yield "whether the weights were changed", "no" if kept else "yes"
    graded = any(p.grad is not None for p in model.parameters())
    yield "whether gradients were left on them", "yes" if graded else "no"


def models() -> list[dict]:
    return [{"model": small_model(k, 2 + k)} for k in range(2)]


EVERY_PARAMETER = Mistake(
    "a penalty on the biases and on γ and β too",
    "It is meant for the weights of convolutions and linear layers: what has 2 or more dimensions.",
    {"which": lambda model: list(model.parameters())},
)
BY_NAME = Mistake(
    "a penalty on everything that is called weight",
    "A norm's γ is called weight as well: go by the number of dimensions.",
    {"which": lambda m: [p for n, p in m.named_parameters() if n.endswith("weight")]},
)
WHICH = (
    EVERY_PARAMETER,
    BY_NAME,
    Mistake(
        "the linear layers left out",
        "Their weights, of 2 dimensions, are penalized as those of convolutions are.",
        {"which": lambda model: [p for p in model.parameters() if p.ndim == 4]},
    ),
    Mistake(
        "the layers inside blocks left out",
        "model.children() stops at a block: parameters() and modules() go into it.",
        {"which": at_the_top},
    ),
    Mistake(
        "the mean of each tensor for its sum",
        "A mean pulls at a weight in a small tensor harder than at one in a large tensor.",
        {"reduced": torch.mean},
    ),
)
NO_GRADIENT = Mistake(
    "a value without gradient",
    "The number is right, but no gradient flows: not through .data, detach() or item().",
    {"taken": lambda p: p.detach()},
)
L1_MISTAKES = (
    *WHICH,
    Mistake(
        "the weights added up with their signs",
        "Positive and negative weights cancel: take the absolute value first.",
        {"size": lambda p: p},
    ),
    Mistake("squares for absolute values", "That is L2, without its ½.", {"size": torch.square}),
    NO_GRADIENT,
)
L2_MISTAKES = (
    *WHICH,
    Mistake(
        "½ missing",
        "With the ½ the gradient is w, so that λ is what SGD calls weight_decay.",
        {"factor": 1.0},
    ),
    Mistake(
        "the norm for the squared norm",
        "L2 as a penalty is ½ times the sum of squares, without a root.",
        {"factor": 1.0, "total": torch.sqrt},
    ),
    Mistake("absolute values for squares", "That is half of L1.", {"size": torch.abs}),
    NO_GRADIENT,
)

# -------------------------------------------------------------------------- proximal steps


def prox_recipe(
    moved: Callable = lambda w, grad, lr: w - lr * grad,
    threshold: Callable = lambda lr, l1: lr * l1,
    shrunk: Callable = lambda w, t: w.sign() * (w.abs() - t).clamp(min=0),
):
    def prox_l1(w, grad, lr, l1):
        return shrunk(moved(w, grad, lr), threshold(lr, l1))

    return prox_l1


def prox_cases() -> list[dict]:
    shapes = ((3,), (2, 3), (2, 3, 2, 2))
    return [
        {"w": Draw(k).normal(*shape, mean=0.0, std=0.5), "grad": Draw(9).normal(*shape),
         "lr": (0.2, 0.5, 0.1)[k], "l1": (1.0, 0.5, 3.0)[k]}
        for k, shape in enumerate(shapes)
    ]  # fmt: skip


PROX_MISTAKES = (
    Mistake(
        "a step along the subgradient",
        "Subtracting lr·l1·sign(w) jumps over 0; the proximal step stops there.",
        {"shrunk": lambda w, t: w - t * w.sign()},
    ),
    Mistake(
        "hard thresholding",
        "Small weights become 0, but the others shrink too, each by lr·l1.",
        {"shrunk": lambda w, t: torch.where(w.abs() > t, w, torch.zeros_like(w))},
    ),
    Mistake(
        "the sign lost",
        "Weights below 0 shrink towards 0 as well, and stay negative.",
        {"shrunk": lambda w, t: (w.abs() - t).clamp(min=0)},
    ),
    Mistake(
        "weights below 0 set to 0",
        "Soft thresholding works on |w| and puts the sign back.",
        {"shrunk": lambda w, t: (w - t).clamp(min=0)},
    ),
    Mistake(
        "a threshold of l1",
        "It is lr·l1: the step's length counts for the penalty as well.",
        {"threshold": lambda lr, l1: l1},
    ),
    Mistake(
        "no gradient step",
        "First the data's gradient, then the shrinking.",
        {"moved": lambda w, grad, lr: w},
    ),
    Mistake(
        "a gradient step upwards",
        "Against the gradient: w - lr·grad.",
        {"moved": lambda w, grad, lr: w + lr * grad},
    ),
)

# ----------------------------------------------------------------- the effective rate


def rate_recipe(
    size: Callable = lambda w: w.flatten(1).square().sum(1),
    rate: Callable = lambda lr, size: lr / size,
):
    return lambda weight, lr: rate(lr, size(weight))


def rate_oracle(weight, lr):
    """How far a step turns a scale-invariant w, per unit of the gradient at ‖w‖ = 1.

    With f(w) = f(w/‖w‖), autograd gives the gradient at w, and its length, times lr / ‖w‖, is the
    turn: the gradient's own 1/‖w‖ makes that lr / ‖w‖² (arXiv 1706.05350, section 2).
    """
    w = weight.flatten(1).detach().requires_grad_()
    direction = torch.linspace(1, 2, w.shape[1])
    with torch.enable_grad():
        at_w = gradient_of(w, direction).norm(dim=1)
        at_unit = gradient_of(F.normalize(w.detach()).requires_grad_(), direction).norm(dim=1)
    return lr * at_w / at_unit / w.detach().norm(dim=1)


def gradient_of(w: Tensor, direction: Tensor) -> Tensor:
    return torch.autograd.grad((F.normalize(w) @ direction).sum(), w)[0]


def rate_cases() -> list[dict]:
    shapes = ((1, 1, 1, 2), (3, 2, 2, 2), (4, 4, 3, 3))
    return [
        {"weight": Draw(k).normal(*shape), "lr": (0.1, 0.5, 1.0)[k]}
        for k, shape in enumerate(shapes)
    ]


RATE_MISTAKES = (
    Mistake(
        "the whole tensor's norm",
        "Each output channel has a norm of its own after it: one number per filter.",
        {"size": lambda w: w.square().sum()},
    ),
    Mistake(
        "one norm for each input channel",
        "A filter is weight[i], with all its input channels.",
        {"size": lambda w: w.transpose(0, 1).flatten(1).square().sum(1)},
    ),
    Mistake(
        "the norm for its square",
        "One ‖w‖ comes from the gradient, which shrinks as w grows, another from the turn itself.",
        {"size": lambda w: w.flatten(1).norm(dim=1)},
    ),
    Mistake(
        "the mean of the squares",
        "‖w‖² is the sum of the squares.",
        {"size": lambda w: w.flatten(1).square().mean(1)},
    ),
    Mistake(
        "a product in place of a quotient",
        "The larger the weights, the less a step turns them.",
        {"rate": lambda lr, size: lr * size},
    ),
)

EXERCISES = (
    Exercise("l1_loss", s6_model.l1_loss, l1_recipe, L1_MISTAKES, models, loss_shows),
    Exercise("l2_loss", s6_model.l2_loss, l2_recipe, L2_MISTAKES, models, loss_shows),
    Exercise("prox_l1", lambda w, grad, lr, l1: F.softshrink(w - lr * grad, lr * l1), prox_recipe,
             PROX_MISTAKES, prox_cases, returned("the new weights")),
    Exercise("effective_rate", rate_oracle, rate_recipe, RATE_MISTAKES, rate_cases,
             returned("the rates")),
)  # fmt: skip
