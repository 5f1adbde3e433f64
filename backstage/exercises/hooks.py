"""Gradients watched with hooks, in a small model that other exercises use too."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from backstage.exercises.cases import Draw
from backstage.exercises.exercise import Exercise, Mistake, Unfit, finished


class SmallNet(nn.Module):
    """Four layers, two inside a block; the names are those of ``named_modules``."""

    def __init__(self, channels: int = 2):
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3)
        self.block = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.Flatten()
        )
        self.head = nn.Linear(channels * 4, 3)

    def forward(self, x):
        return self.head(self.block(self.conv(x)))


def small_model(seed: int, channels: int = 2) -> SmallNet:
    """Its parameters are drawn, none of them 0: there |w| has no derivative to agree on."""
    model, draw = SmallNet(channels), Draw(seed)
    for parameter in model.parameters():
        values = draw.normal(*parameter.shape, mean=0.2, std=0.5)
        parameter.data.copy_(torch.where(values == 0, 0.1, values))
    return model.double()


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers with weights."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if any(True for _ in layer.parameters(recurse=False))
    }


def hooks_recipe(
    measure: Callable = lambda g: g.norm(),
    watched: Callable = lambda layer, inputs, outputs: outputs[0],
    which: Callable = layers,
    cleans: bool = True,
    clears: Callable = lambda model: model.zero_grad(),
    prepare: Callable = lambda model: None,
    finish: Callable = lambda model: None,
    cost: Callable = F.cross_entropy,
):
    def gradient_norms(model, x, y):
        found, hooks = {}, []
        prepare(model)
        for name, layer in which(model).items():
            hooks.append(layer.register_full_backward_hook(
                lambda layer, inputs, outputs, name=name: found.update(
                    {name: measure(watched(layer, inputs, outputs))})))  # fmt: skip
        cost(model(x), y).backward()
        for hook in hooks if cleans else ():
            hook.remove()
        clears(model)
        finish(model)
        return found

    return gradient_norms


def hooks_oracle(model, x, y):
    """Without hooks for gradients: the layers' outputs, and torch.autograd.grad."""
    outputs = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, out, name=name: outputs.update({name: out}))
        for name, layer in layers(model).items()
    ]
    loss = F.cross_entropy(model(x), y)
    for hook in hooks:
        hook.remove()
    gradients = torch.autograd.grad(loss, list(outputs.values()))
    return {name: g.norm() for name, g in zip(outputs, gradients, strict=True)}


def hooks_cases() -> list[dict]:
    shapes = ((2, 1, 4, 4), (5, 1, 4, 4))
    return [
        {"model": small_model(k, 2 + k).train(not k), "x": Draw(k).normal(*shape),
         "y": torch.arange(shape[0]) % 3}
        for k, shape in enumerate(shapes)
    ]  # fmt: skip


def hooks_show(answer, model, x, y):
    x.requires_grad_()  # or torch warns that the first layer's hook sees no gradient of its input
    found = finished(answer(model, x, y))
    if not isinstance(found, dict):
        raise Unfit("return a dict from a layer's name to a number.")
    yield "the names", ", ".join(sorted(map(str, found))) or "nothing"
    for name in layers(model):
        if name in found:
            yield f"the norm for {name}", found[name]
    yield "hooks left on the model", hooks_on(model)
    left = [p.grad is not None and bool(p.grad.any()) for p in model.parameters()]
    yield "gradients left on the parameters", str(any(left))
    yield "the mode afterwards", mode_of(model)


def hooks_on(model: nn.Module) -> int:
    """Those of every kind that ``register_…_hook`` knows for a forward or backward pass."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def mode_of(model: nn.Module) -> str:
    """The mode of all its layers together."""
    modes = {module.training for module in model.modules()}
    names = {True: "training", False: "evaluation"}
    return names[modes.pop()] if len(modes) == 1 else "training for some layers alone"


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if not list(m.children())}


def without_norms(model: nn.Module) -> dict[str, nn.Module]:
    return {k: m for k, m in layers(model).items() if not isinstance(m, nn.BatchNorm2d)}


HOOK_MISTAKES = (
    Mistake(
        "layers without parameters hooked too",
        "ReLU and Flatten are not asked for: only layers that have parameters of their own.",
        {"which": leaves},
    ),
    Mistake(
        "only the layers at the top hooked",
        "named_children() stops at a block; named_modules() goes into it.",
        {"which": lambda m: {k: v for k, v in m.named_children() if not list(v.children())}},
    ),
    Mistake(
        "batch norm left out",
        "γ and β are parameters too: go by whether a layer has any, not by its class.",
        {"which": without_norms},
    ),
    Mistake(
        "the gradient of the layer's input",
        "A full backward hook gets (layer, grad_input, grad_output): take the last.",
        {"watched": lambda layer, inputs, outputs: inputs[0]},
    ),
    Mistake(
        "the squared norm",
        "The norm is the root of the sum of squares.",
        {"measure": lambda g: g.square().sum()},
    ),
    Mistake(
        "the sum of the absolute values",
        "The norm is the root of the sum of squares.",
        {"measure": lambda g: g.abs().sum()},
    ),
    Mistake(
        "a mean over the elements",
        "The norm is the root of the *sum* of squares.",
        {"measure": lambda g: g.square().mean().sqrt()},
    ),
    Mistake(
        "hooks that stay on the model",
        "Keep what register_… returns, and remove() it; or each call would add one more.",
        {"cleans": False},
    ),
    Mistake(
        "gradients left on the parameters",
        "The next training step would add them to its own: zero_grad() when done.",
        {"clears": lambda model: None},
    ),
    Mistake(
        "a pass in a mode of its own choice",
        "Measure the model as it is: its mode is the caller's to set.",
        {"prepare": lambda model: model.train()},
    ),
    Mistake(
        "a mode that is changed afterwards",
        "Measure the model as it is: its mode is the caller's to set.",
        {"finish": lambda model: model.eval()},
    ),
    Mistake(
        "the loss summed over the images",
        "The cross-entropy is the mean over the batch, as F.cross_entropy gives it by default.",
        {"cost": lambda logits, y: F.cross_entropy(logits, y, reduction="sum")},
    ),
)

EXERCISES = (
    Exercise("gradient_norms", hooks_oracle, hooks_recipe, HOOK_MISTAKES, hooks_cases, hooks_show),
)
