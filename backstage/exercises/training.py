"""Penalties, a training step, evaluation, and what a network's weights do."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from backstage.exercises import inputs
from backstage.exercises.inputs import Draw, as_trained_on, finished, gradients, small_model
from backstage.exercises.judging import Trial, unchanged


def loss_shows(answer, model) -> Iterator[tuple[str, object]]:
    before = [p.detach().clone() for p in model.parameters()]
    loss = finished(answer(model))
    yield "the loss", loss
    named = dict(model.named_parameters())
    for name, found in zip(named, gradients(loss, *named.values()), strict=True):
        yield f"the gradient of {name}", found
    yield "whether the weights stayed as they were", unchanged(before, list(model.parameters()))
    yield "gradients left on them", sum(p.grad is not None for p in model.parameters())


def models() -> list[dict]:
    found = [{"model": small_model(k, channels)} for k, channels in enumerate((2, 3, 2))]
    return [*found[:2], as_trained_on(found[2])]


def prox_cases() -> list[dict]:
    shapes, rates, strengths = ((3,), (2, 3), (2, 3, 2, 2)), (0.2, 0.5, 0.1), (1.0, 0.5, 3.0)
    cases = [
        {"w": Draw(k).normal(*shape, mean=0.0, std=0.5), "grad": Draw(9).normal(*shape),
         "lr": rates[k], "l1": strengths[k]}
        for k, shape in enumerate(shapes)
    ]  # fmt: skip
    return [*cases, as_trained_on(cases[2])]


def turn_cases() -> list[dict]:
    shapes, rates = ((2, 1, 1, 2), (3, 2, 2, 2), (4, 4, 3, 3)), (0.1, 0.5, 1.0)
    cases = [{"weight": Draw(k).normal(*shape), "lr": rates[k]} for k, shape in enumerate(shapes)]
    return [*cases, as_trained_on(cases[2])]


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
    yield "the weights after it", flat(p for p in model.parameters() if p.ndim >= 2)
    yield "γ, β and the biases after it", flat(p for p in model.parameters() if p.ndim < 2)
    answer(model, optimizer, x.flip(0), y, l1, l2)
    yield "the weights after two steps", flat(p for p in model.parameters() if p.ndim >= 2)
    yield "what is in training afterwards", modes(model)
    yield "whether the loss is a plain number", not isinstance(first, Tensor)


def flat(values: Iterable[Tensor]) -> Tensor:
    return torch.cat([value.detach().flatten() for value in values])


def modes(model: nn.Module) -> str:
    found = [name or "the model" for name, module in model.named_modules() if module.training]
    return ", ".join(found) or "nothing"


def step_cases() -> list[dict]:
    cases = [
        {"model": small_model(k).eval(), "x": Draw(k).normal(n, 1, 4, 4), "y": torch.arange(n) % 3,
         "l1": 0.3, "l2": 0.5}
        for k, n in enumerate((2, 5, 4))
    ]  # fmt: skip
    return [*cases[:2], as_trained_on(cases[2])]


def evaluate_shows(answer, model, batches, grads_on) -> Iterator[tuple[str, object]]:
    graded = []
    # on a layer, as model.forward(x) passes by the model's own hooks
    model.head.register_forward_hook(lambda _, __, out: graded.append(out.requires_grad))
    with torch.set_grad_enabled(grads_on):
        yield from inputs.parts(answer(model, batches), "the loss", "the accuracy")
        yield "whether gradients are on afterwards", torch.is_grad_enabled()
    yield "the running statistics afterwards", flat([*model.buffers()][:2])
    yield "whether gradients are recorded", any(graded)
    yield "what is in training afterwards", modes(model)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    yield "which parameters are frozen afterwards", ", ".join(frozen) or "none"


def evaluate_cases() -> list[dict]:
    cases = []
    for k, sizes in enumerate(((4, 1), (3, 3, 2), (5, 2))):
        batches = [(Draw(9 + n + k).normal(n, 1, 4, 4), (torch.arange(n) + k) % 3) for n in sizes]
        cases.append({"model": small_model(k), "batches": batches, "grads_on": k != 2})
    cases[1]["model"].block[0].eval()  # a frozen norm
    cases[1]["model"].conv.weight.requires_grad_(False)
    cases[2]["model"].eval()
    return [*cases[:2], as_trained_on(cases[2])]


def fold_shows(answer, conv, bn, x) -> Iterator[tuple[str, object]]:
    before = state(conv), state(bn)
    folded = finished(answer(conv, bn))
    if not isinstance(folded, nn.Conv2d):
        kind = type(folded).__name__
        raise inputs.Unfit(f"return one nn.Conv2d, not a {kind}: the norm becomes its numbers.")
    # by Conv2d's own forward: one that calls the two old layers folds nothing
    yield "the folded convolution's output", nn.Conv2d.forward(folded.double(), x)
    yield "whether the convolution stayed as it was", unchanged(before[0], state(conv))
    yield "whether the norm stayed as it was", unchanged(before[1], state(bn))
    yield "the parameters", ", ".join(sorted(name for name, _ in folded.named_parameters()))


def state(layer: nn.Module) -> list:
    """All that a layer holds, to compare it later."""
    saved = [value.clone() for value in layer.state_dict().values()]
    return [*saved, layer.training, *(p.requires_grad for p in layer.parameters())]


def fold_cases() -> list[dict]:
    convs = [
        (nn.Conv2d(1, 1, 1, bias=False), (1, 2)),
        (nn.Conv2d(2, 3, 2), (3, 3)),
        (nn.Conv2d(3, 3, 3, padding=1, stride=2), (4, 5)),
        (nn.Conv2d(2, 3, 2, padding=1, dilation=(1, 2)), (4, 3)),
        (nn.Conv2d(4, 2, 2, groups=2), (3, 2)),
    ]
    cases = []
    for k, (conv, size) in enumerate(convs):
        draw, channels = Draw(k), conv.out_channels
        bn = nn.BatchNorm2d(channels, eps=(0.5, 0.1, 1.0, 0.2, 0.3)[k]).double().eval()
        for p in (*conv.parameters(), bn.weight, bn.bias, bn.running_mean):
            p.data = draw.normal(*p.shape, mean=0.5, std=1.0)
        bn.running_var = draw.positive(channels)
        x = draw.normal(2, conv.in_channels, *size)
        cases.append({"conv": conv.eval(), "bn": bn, "x": x})
    return cases


TRIALS = {
    "l1_loss": Trial(models, loss_shows),
    "l2_loss": Trial(models, loss_shows),
    "prox_l1": Trial(prox_cases, inputs.returned("the new weights")),
    "effective_rate": Trial(turn_cases, inputs.returned("the rates")),
    "train_step": Trial(step_cases, steps_show),
    "evaluate": Trial(evaluate_cases, evaluate_shows),
    "fold_bn": Trial(fold_cases, fold_shows),
}
