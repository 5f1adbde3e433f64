"""One small CNN whose normalization is a switch, and the L1 and L2 losses.

The norms differ in one thing only: the set of elements that share a mean and a variance. For an
activation of shape (N, C, H, W) they average

    BN    each channel over N, H, W                             arXiv 1502.03167, section 3.2
    LN    each image over C, H, W                               arXiv 1607.06450
    GN    each image and group of channels over C/groups, H, W  arXiv 1803.08494, section 3.1
    IN    each image and channel over H, W                      arXiv 1607.08022
    none  nothing

Each is followed by a learned scale and shift per channel. So all have the same number of
parameters and, from the same seed, the same initial weights.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

NORMS = ("BN", "LN", "GN", "none")  # what the course compares; IN is there to complete the picture

# The dimensions of x.view(N, groups, C / groups, H, W) that each norm averages over: all that they
# differ in. (PyTorch's layers know their own; this table is for pictures of them.)
AXES = {"BN": (0, 3, 4), "LN": (1, 2, 3, 4), "IN": (3, 4), "GN": (2, 3, 4)}


class Affine(nn.Module):
    """y = γ·x + β per channel: a norm layer that does not normalize."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return torch.addcmul(self.bias.view(1, -1, 1, 1), self.weight.view(1, -1, 1, 1), x)


def make_norm(norm: str | Callable[[int], nn.Module], channels: int, groups: int = 4) -> nn.Module:
    """The normalization layer for activations of shape (N, channels, H, W).

    LN is ``GroupNorm(1, C)``: its statistics are those of ``nn.LayerNorm([C, H, W])``, but it
    learns one γ and one β per channel, as BN and GN do. That LayerNorm would learn one of each per
    element (C·H·W of them). The GN paper (arXiv 1803.08494, section 3.1) names this case, one
    group, as the link between GN and LN. With as many groups as channels, GN is IN.

    Args:
        norm: "BN", "LN", "GN", "IN" or "none", or a callable ``channels -> nn.Module``.
        channels: C.
        groups: the number of groups in GN; the other norms ignore it.

    Raises:
        ValueError: for an unknown name, or groups that do not divide the channels.
        TypeError: for a callable that returns something other than a module.
    """
    if callable(norm):
        layer = norm(channels)
        if not isinstance(layer, nn.Module):
            raise TypeError(
                f"norm({channels}) returned a {type(layer).__name__}: return an nn.Module."
            )
        return layer
    if norm == "BN":
        return nn.BatchNorm2d(channels)
    if norm == "LN":
        return nn.GroupNorm(1, channels)
    if norm == "IN":
        return nn.GroupNorm(channels, channels)
    if norm == "GN":
        if not isinstance(groups, int) or groups < 1 or channels % groups:
            raise ValueError(f"GN cannot split {channels} channels into {groups!r} equal groups.")
        return nn.GroupNorm(groups, channels)
    if norm == "none":
        return Affine(channels)
    raise ValueError(f"Unknown norm {norm!r}: use BN, LN, GN, IN or none, or a callable.")


class Net(nn.Module):
    """A CNN for small grey images: (N, 1, H, W) -> (N, 10) logits, H and W at least 16.

    Most of a CNN's arithmetic usually happens in its first layers, at full resolution. So the first
    convolution has a stride, and there are only a few channels before the max-pool. It has no
    padding either, since MNIST's digits already have an empty margin. After the last block, a pixel
    sees 36 x 36 pixels of the image; for one in the middle, that is all of a 28 x 28 image.

    Args:
        norm: see ``make_norm``.
        groups: the number of groups in GN.
        dropout: the probability of dropping a feature before the head.
    """

    CHANNELS = (8, 12, 16)

    def __init__(
        self,
        norm: str | Callable[[int], nn.Module] = "BN",
        groups: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__()

        def block(c_in: int, c_out: int, **conv) -> list[nn.Module]:
            # No bias: BN would subtract it out again, and the norm's β already is one.
            return [
                nn.Conv2d(c_in, c_out, bias=False, **conv),
                make_norm(norm, c_out, groups),
                nn.ReLU(inplace=True),
            ]

        few, more, most = self.CHANNELS
        self.features = nn.Sequential(  # (N, 1, 28, 28)
            *block(1, few, kernel_size=6, stride=2),  # (N, 8, 12, 12)
            *block(few, more, kernel_size=3, padding=1),  # (N, 12, 12, 12)
            nn.MaxPool2d(2),  # (N, 12, 6, 6)
            *block(more, most, kernel_size=3, padding=1),  # (N, 16, 6, 6)
            *block(most, most, kernel_size=3, padding=1),  # (N, 16, 6, 6)
            *block(most, most, kernel_size=3),  # (N, 16, 4, 4)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)  # (N, 16, 1, 1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(most, 10)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 1 or min(x.shape[2:]) < 16:
            raise ValueError(
                f"Net takes images of shape (N, 1, H, W) with H and W at least 16, not "
                f"{tuple(x.shape)}."
            )
        if not x.is_floating_point():
            raise TypeError(
                f"Net takes floating-point images, not {x.dtype}: normalize them first."
            )
        return self.head(self.dropout(self.pool(self.features(x)).flatten(1)))


def penalized(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that L1 and L2 act on: the weights, which have two or more dimensions.

    Scales, shifts and biases are left alone. They are few, and shrinking a scale towards 0 switches
    its channel off rather than making the function simpler. (But the scales of an ``nn.LayerNorm``
    over C, H and W have three dimensions, and count as weights.) Frozen weights are not penalized
    either, as no penalty can move them.
    """
    return [p for p in model.parameters() if p.ndim >= 2 and p.requires_grad]


def l1_loss(model: nn.Module) -> Tensor:
    """Σ|w| over the weights: a scalar on the model's device. A sum, not a mean."""
    return _flat(model).abs().sum()


def l1_mean_loss(model: nn.Module) -> Tensor:
    """The mean of |p| for each parameter tensor, added up: L1 as it is often written.

    It pulls a weight in a small tensor harder than one in a large tensor, and it pulls scales,
    shifts and biases too. The course uses it only to show the difference.
    """
    return sum(p.abs().mean() for p in model.parameters())


def l2_loss(model: nn.Module) -> Tensor:
    """½Σw² over the weights: a scalar on the model's device. A sum, not a mean.

    With the ½, its gradient is w. So λ times this loss does to the weights what ``weight_decay=λ``
    does in ``torch.optim.SGD`` and ``torch.optim.Adam``, which add λ·w to the gradient. AdamW does
    not: it shrinks the weight itself, past Adam's rescaling (arXiv 1711.05101).
    """
    return 0.5 * _flat(model).square().sum()


def _flat(model: nn.Module) -> Tensor:
    """The penalized weights in one row: a single sum is faster than a sum for each."""
    if weights := penalized(model):
        return torch.cat([p.flatten() for p in weights])
    return next(model.parameters(), torch.zeros(())).new_zeros(1)  # nothing to penalize


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each module is in the mode that it was in, a frozen BN too."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def summary(model: Net, size: tuple[int, int] = (28, 28)) -> str:
    """A table of the layers: output shape for one image, receptive field in pixels, parameters.

    Args:
        model: a ``Net``; left as it is.
        size: H and W of the image.
    """
    x = model.head.weight.new_zeros(1, 1, *size)
    field, jump = 1, 1  # jump: input pixels between neighbouring outputs of this layer
    lines = [f"{'layer':<18} {'output shape':<18} {'receptive field':>15} {'parameters':>10}"]
    with eval_mode(model):  # or BN's running statistics would move
        for layer in [*model.features, model.pool, nn.Flatten(), model.dropout, model.head]:
            x = layer(x)
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                kernel, stride = (
                    v[0] if isinstance(v, tuple) else v for v in (layer.kernel_size, layer.stride)
                )
                field, jump = field + (kernel - 1) * jump, jump * stride
            if isinstance(layer, nn.AdaptiveAvgPool2d):
                field = "all"
            count = sum(p.numel() for p in layer.parameters())
            lines.append(
                f"{type(layer).__name__:<18} {tuple(x.shape)!s:<18} {field!s:>15} {count:>10,}"
            )
    total = sum(p.numel() for p in model.parameters())
    return "\n".join([*lines, f"{'total':<18} {'':<18} {'':>15} {total:>10,}"])
