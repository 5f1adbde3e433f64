"""After training: folding batch norm away, precise statistics."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from backstage.exercises.cases import SHAPES, Draw, returned
from backstage.exercises.exercise import Exercise, Mistake, Unfit, finished, unchanged

# --------------------------------------------------------------------------------- folding


def fold_recipe(
    scale: Callable = lambda bn: bn.weight / (bn.running_var + bn.eps).sqrt(),
    shift: Callable = lambda bn, k, bias: bn.bias + (bias - bn.running_mean) * k,
    spread: Callable = lambda k: k.view(-1, 1, 1, 1),
    target: Callable = copy.deepcopy,
):
    @torch.no_grad()
    def fold_bn(conv, bn):
        folded, k = target(conv), scale(bn)
        bias = torch.zeros_like(k) if conv.bias is None else conv.bias.clone()
        folded.weight = nn.Parameter(conv.weight * spread(k))
        folded.bias = nn.Parameter(shift(bn, k, bias))
        return folded

    return fold_bn


def without_its_settings(conv: nn.Conv2d) -> nn.Conv2d:
    return nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size)


def with_stride_and_padding(conv: nn.Conv2d) -> nn.Conv2d:
    sizes = conv.kernel_size, conv.stride, conv.padding
    return nn.Conv2d(conv.in_channels, conv.out_channels, *sizes)


def changing(bn: nn.BatchNorm2d) -> Tensor:
    """The scale, computed in place."""
    return bn.weight.data.div_((bn.running_var + bn.eps).sqrt())


def fold_shows(answer, conv, bn, x):
    before = state(conv), state(bn)
    folded = finished(answer(conv, bn))
    if not isinstance(folded, nn.Conv2d):
        kind = type(folded).__name__
        raise Unfit(f"return one nn.Conv2d, not a {kind}: nothing of the norm is left but numbers.")
    # by Conv2d's own forward: one that calls the two old layers folds nothing
    yield "the folded convolution's output", nn.Conv2d.forward(folded.double(), x)
    for name, layer, old in zip(("convolution", "batch norm"), (conv, bn), before, strict=True):
        yield f"whether the given {name} changed", "no" if unchanged(old, state(layer)) else "yes"
    yield "the parameters", ", ".join(sorted(name for name, _ in folded.named_parameters()))


def state(layer: nn.Module) -> list:
    """All that a layer holds, to compare it later."""
    saved = [value.clone() for value in layer.state_dict().values()]
    return [*saved, layer.training, *[p.requires_grad for p in layer.parameters()]]


def fold_cases() -> list[dict]:
    convs = [
        nn.Conv2d(1, 1, 1, bias=False),
        nn.Conv2d(2, 3, 2),
        nn.Conv2d(3, 3, 3, padding=1, stride=2),
        nn.Conv2d(2, 3, 2, padding=1, dilation=(1, 2), padding_mode="circular"),
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


FOLD_MISTAKES = (
    Mistake(
        "the convolution's own bias forgotten",
        "The convolution may have one already, and it goes through the norm too.",
        {"shift": lambda bn, k, bias: bn.bias - bn.running_mean * k},
    ),
    Mistake(
        "a bias that is not scaled",
        "The convolution's bias goes through the norm as its weights do: multiply it by γ/σ.",
        {"shift": lambda bn, k, bias: bn.bias + bias - bn.running_mean * k},
    ),
    Mistake(
        "a running mean that is not scaled",
        "What is subtracted before the scaling is scaled as well.",
        {"shift": lambda bn, k, bias: bn.bias + bias * k - bn.running_mean},
    ),
    Mistake(
        "the running mean forgotten",
        "What the norm subtracts has to go into the new bias.",
        {"shift": lambda bn, k, bias: bn.bias + bias * k},
    ),
    Mistake(
        "β forgotten",
        "What the norm adds has to go into the new bias.",
        {"shift": lambda bn, k, bias: (bias - bn.running_mean) * k},
    ),
    Mistake(
        "a root forgotten",
        "The norm divides by √(running_var + ε), not by the variance.",
        {"scale": lambda bn: bn.weight / (bn.running_var + bn.eps)},
    ),
    Mistake(
        "ε forgotten",
        "The norm divides by √(running_var + ε), and bn.eps is not always small.",
        {"scale": lambda bn: bn.weight / bn.running_var.sqrt()},
    ),
    Mistake(
        "γ forgotten",
        "The norm does not only divide, it also multiplies, and so must the new weights.",
        {"scale": lambda bn: 1 / (bn.running_var + bn.eps).sqrt()},
    ),
    Mistake(
        "input channels scaled in place of output channels",
        "The weight has shape (out, in, kH, kW), and the norm acts on what comes out.",
        {"spread": lambda k: k.view(1, -1, 1, 1)},
    ),
    Mistake(
        "stride and padding lost",
        "The new convolution has to keep the old one's stride, padding and the rest.",
        {"target": without_its_settings},
    ),
    Mistake(
        "the given convolution changed",
        "Work on a copy: folded into it twice, the norm would act twice.",
        {"target": lambda conv: conv},
    ),
    Mistake(
        "groups, dilation and padding_mode lost",
        "A convolution has more settings than stride and padding: copy.deepcopy keeps them all.",
        {"target": with_stride_and_padding},
    ),
    Mistake(
        "the given batch norm changed",
        "It belongs to the caller: compute with new tensors, not in place (/=, += or div_).",
        {"scale": changing},
    ),
)

# ---------------------------------------------------------------------- precise statistics


def channels(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (C, values)."""
    return x.transpose(0, 1).flatten(1)


def precise_recipe(
    mean: Callable = lambda batches: channels(torch.cat(batches)).mean(1),
    var: Callable = lambda batches: channels(torch.cat(batches)).var(1),
):
    return lambda batches: (mean(batches), var(batches))


def precise_oracle(batches):
    """What BatchNorm2d stores of one batch of all images, at momentum 1."""
    bn = nn.BatchNorm2d(batches[0].shape[1], momentum=1.0).double()
    bn(torch.cat(batches))
    return bn.running_mean, bn.running_var


def averaged_over(batches: list[Tensor], statistic: Callable, weighted: bool = False) -> Tensor:
    """The statistic of each batch, averaged, by the number of images if weighted."""
    sizes = torch.tensor([float(len(b)) if weighted else 1.0 for b in batches]).double()
    values = torch.stack([statistic(channels(b)) for b in batches])
    return (values * sizes[:, None]).sum(0) / sizes.sum()


def moving(batches: list[Tensor], statistic: Callable, start: float) -> Tensor:
    value = torch.full((batches[0].shape[1],), start).double()
    for batch in batches:
        value = 0.9 * value + 0.1 * statistic(channels(batch))
    return value


def row_means(x: Tensor) -> Tensor:
    return x.mean(1)


def row_variances(x: Tensor) -> Tensor:
    return x.var(1)


PRECISE_MISTAKES = (
    Mistake(
        "a mean over the batches",
        "The last batch is smaller: weight each mean by its number of images.",
        {"mean": lambda batches: averaged_over(batches, row_means)},
    ),
    Mistake(
        "a running average",
        "It still remembers where it started; every image is to count the same.",
        {
            "mean": lambda batches: moving(batches, row_means, 0.0),
            "var": lambda batches: moving(batches, row_variances, 1.0),
        },
    ),
    Mistake(
        "the batches' variances averaged",
        "The means of the batches vary too, and that spread is missing: go back to E[x²] - E[x]².",
        {"var": lambda batches: averaged_over(batches, row_variances)},
    ),
    Mistake(
        "the batches' variances averaged, weighted by size",
        "The means of the batches vary too, and that spread is missing: go back to E[x²] - E[x]².",
        {"var": lambda batches: averaged_over(batches, row_variances, weighted=True)},
    ),
    Mistake(
        "the biased variance",
        "Batch norm stores the variance divided by n - 1, where n counts all values of a channel.",
        {"var": lambda batches: channels(torch.cat(batches)).var(1, correction=0)},
    ),
    Mistake(
        "the standard deviation",
        "running_var is a variance.",
        {"var": lambda batches: channels(torch.cat(batches)).std(1)},
    ),
)


def precise_cases() -> list[dict]:
    cases = [{"batches": [torch.tensor([[[[1.0]]], [[[3.0]]]]), torch.tensor([[[[8.0]]]])]}]
    for k, (_, *rest) in enumerate(SHAPES[1:]):
        draws = [Draw(10 * k + i) for i in range(3)]
        sizes = (4, 4, 1 + k)
        pieces = zip(draws, sizes, strict=True)
        cases.append({"batches": [d.normal(n, *rest, mean=1.0 + n) for d, n in pieces]})
    return cases


EXERCISES = (
    Exercise("fold_bn", fuse_conv_bn_eval, fold_recipe, FOLD_MISTAKES, fold_cases, fold_shows),
    Exercise("precise_statistics", precise_oracle, precise_recipe, PRECISE_MISTAKES, precise_cases,
             returned("the mean", "the variance")),
)  # fmt: skip
