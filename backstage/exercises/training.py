"""Penalties, a training step, evaluation, and what a network's weights do."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

import s6_model
from backstage.exercises.inputs import (
    Draw,
    Trial,
    Unfit,
    as_trained_on,
    finished,
    gradient,
    parts,
    returned,
    small_model,
    yes,
)

# ------------------------------------------------------------------------- the penalties


def weights(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.ndim >= 2]


def loss_shows(answer, model) -> Iterator[tuple[str, object]]:
    before = [p.detach().clone() for p in model.parameters()]
    loss = finished(answer(model))
    yield "the loss", loss
    for name, parameter in model.named_parameters():
        yield f"the gradient of {name}", gradient(loss, parameter)
    yield (
        "whether the weights were changed",
        yes(not all(map(torch.equal, before, model.parameters()))),
    )
    yield (
        "whether gradients were left on them",
        yes(any(p.grad is not None for p in model.parameters())),
    )


def models() -> list[dict]:
    return [{"model": small_model(k, 2 + k)} for k in range(2)] + [
        {"model": small_model(3).float()}
    ]


def prox_cases() -> list[dict]:
    shapes = ((3,), (2, 3), (2, 3, 2, 2))
    cases = [
        {"w": Draw(k).normal(*shape, mean=0.0, std=0.5), "grad": Draw(9).normal(*shape),
         "lr": (0.2, 0.5, 0.1)[k], "l1": (1.0, 0.5, 3.0)[k]}
        for k, shape in enumerate(shapes)
    ]  # fmt: skip
    return [*cases, {name: as_trained_on(value) for name, value in cases[2].items()}]


def soft_threshold(w, grad, lr, l1):
    return F.softshrink(w - lr * grad, lr * l1)


def turn(weight, lr):
    """How far a step turns a scale-invariant w, per unit of the gradient at ‖w‖ = 1.

    With f(w) = f(w/‖w‖), autograd gives the gradient at w, and its length, times lr / ‖w‖, is the
    turn: the gradient's own 1/‖w‖ makes that lr / ‖w‖² (arXiv 1706.05350, section 2).
    """
    w = weight.flatten(1).detach()
    at_w, at_unit = (_pull(start).norm(dim=1) for start in (w, F.normalize(w)))
    return lr * at_w / at_unit / w.norm(dim=1)


def _pull(w: Tensor) -> Tensor:
    w.requires_grad_()
    along = F.normalize(w) @ torch.linspace(1, 2, w.shape[1])
    return torch.autograd.grad(along.sum(), w)[0]


def turn_cases() -> list[dict]:
    shapes = ((2, 1, 1, 2), (3, 2, 2, 2), (4, 4, 3, 3))
    cases = [{"weight": Draw(k).normal(*shape), "lr": (0.1, 0.5, 1.0)[k]}
             for k, shape in enumerate(shapes)]  # fmt: skip
    return [*cases, {name: as_trained_on(value) for name, value in cases[2].items()}]


# ---------------------------------------------------------------------------- a training step


def step(model, optimizer, x, y, l1, l2):
    """By the gradients themselves, with the penalties' written down."""
    model.train()
    loss = F.cross_entropy(model(x), y)
    for p, g in zip(model.parameters(), torch.autograd.grad(loss, model.parameters()), strict=True):
        p.grad = g + (p.ndim >= 2) * (l1 * p.detach().sign() + l2 * p.detach())
    optimizer.step()
    return loss.item()


def steps_show(answer, model, x, y, l1, l2) -> Iterator[tuple[str, object]]:
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
    yield "the mode afterwards", modes(model)
    yield "whether the loss is a plain number", yes(not isinstance(first, Tensor))


def flat(values: list[Tensor]) -> Tensor:
    return torch.cat([value.detach().flatten() for value in values])


def modes(model: nn.Module) -> str:
    """The names of the layers in training; "all" for all of them."""
    found = [name or "the model" for name, m in model.named_modules() if m.training]
    return "all in training" if len(found) == len(list(model.modules())) else (
        ", ".join(found) + " in training" if found else "none in training")  # fmt: skip


def step_cases() -> list[dict]:
    cases = [
        {"model": small_model(k).eval(), "x": Draw(k).normal(n, 1, 4, 4), "y": torch.arange(n) % 3,
         "l1": 0.3, "l2": 0.5}
        for k, n in enumerate((2, 5, 4))
    ]  # fmt: skip
    cases[2] |= {"model": cases[2]["model"].float(), "x": as_trained_on(cases[2]["x"])}
    return cases


# --------------------------------------------------------------------------------- evaluation


def all_at_once(model, batches):
    """All images as one batch, which evaluation allows; the model is a copy."""
    before = [(module, module.training) for module in model.modules()]
    with torch.no_grad():
        logits = model.eval()(torch.cat([x for x, _ in batches]))
    for module, training in before:
        module.training = training
    y = torch.cat([y for _, y in batches])
    return F.cross_entropy(logits, y), (logits.argmax(1) == y).double().mean()


def evaluate_shows(answer, model, batches, grads_on) -> Iterator[tuple[str, object]]:
    graded = []
    # on a layer, as model.forward(x) passes by the model's own hooks
    model.head.register_forward_hook(lambda _, __, out: graded.append(out.requires_grad))
    with torch.set_grad_enabled(grads_on):
        yield from parts(answer(model, batches), "the loss", "the accuracy")
        yield "whether gradients are on afterwards", yes(torch.is_grad_enabled())
    yield "the running statistics afterwards", flat([*model.buffers()][:2])
    yield "whether gradients are recorded", yes(any(graded))
    yield "the mode afterwards", modes(model)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    yield "which parameters are frozen afterwards", ", ".join(frozen) or "none"


def evaluate_cases() -> list[dict]:
    sizes = ((4, 1), (3, 3, 2), (5, 2))
    cases = [
        {"model": small_model(k),
         "batches": [(Draw(9 + n + k).normal(n, 1, 4, 4), (torch.arange(n) + k) % 3) for n in ns],
         "grads_on": k != 2}
        for k, ns in enumerate(sizes)
    ]  # fmt: skip
    cases[1]["model"].block[0].eval()  # a frozen norm
    cases[1]["model"].conv.weight.requires_grad_(False)
    cases[2]["model"].eval().float()
    cases[2]["batches"] = [(as_trained_on(x), y) for x, y in cases[2]["batches"]]
    return cases


# ------------------------------------------------------------------------------------- folding


def fold_shows(answer, conv, bn, x) -> Iterator[tuple[str, object]]:
    before = state(conv), state(bn)
    folded = finished(answer(conv, bn))
    if not isinstance(folded, nn.Conv2d):
        kind = type(folded).__name__
        raise Unfit(f"return one nn.Conv2d, not a {kind}: nothing of the norm is left but numbers.")
    # by Conv2d's own forward: one that calls the two old layers folds nothing
    yield "the folded convolution's output", nn.Conv2d.forward(folded.double(), x)
    for name, layer, old in zip(("convolution", "batch norm"), (conv, bn), before, strict=True):
        after = state(layer)
        yield f"whether the given {name} changed", yes(not all(map(torch.equal, old, after))
                                                       or len(old) != len(after))  # fmt: skip
    yield "the parameters", ", ".join(sorted(name for name, _ in folded.named_parameters()))


def state(layer: nn.Module) -> list[Tensor]:
    """All that a layer holds, to compare it later."""
    flags = [layer.training, *[p.requires_grad for p in layer.parameters()]]
    return [*(value.clone() for value in layer.state_dict().values()), torch.tensor(flags)]


def fold_cases() -> list[dict]:
    convs = [
        nn.Conv2d(1, 1, 1, bias=False),
        nn.Conv2d(2, 3, 2),
        nn.Conv2d(3, 3, 3, padding=1, stride=2),
        nn.Conv2d(2, 3, 2, padding=1, dilation=(1, 2)),
        nn.Conv2d(4, 2, 2, groups=2),
    ]
    cases = []
    for k, conv in enumerate(convs):
        draw, channels = Draw(k), conv.out_channels
        bn = nn.BatchNorm2d(channels, eps=(0.5, 0.1, 1.0, 0.2, 0.3)[k]).double().eval()
        for p in (*conv.parameters(), bn.weight, bn.bias, bn.running_mean):
            p.data = draw.normal(*p.shape, mean=0.5, std=1.0)
        bn.running_var = draw.positive(channels)
        x = draw.normal(2, conv.in_channels, *((1, 2), (3, 3), (4, 5), (4, 3), (3, 2))[k])
        cases.append({"conv": conv.eval(), "bn": bn, "x": x})
    return cases


TRIALS = {
    "l1_loss": Trial(s6_model.l1_loss, models, loss_shows),
    "l2_loss": Trial(s6_model.l2_loss, models, loss_shows),
    "prox_l1": Trial(soft_threshold, prox_cases, returned("the new weights")),
    "effective_rate": Trial(turn, turn_cases, returned("the rates")),
    "train_step": Trial(step, step_cases, steps_show),
    "evaluate": Trial(all_at_once, evaluate_cases, evaluate_shows),
    "fold_bn": Trial(fuse_conv_bn_eval, fold_cases, fold_shows),
}
