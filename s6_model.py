"""One small CNN whose normalization is a switch, and the L1 and L2 losses.

The four settings of the switch differ in one thing only, the set of elements that share a mean and
a variance. For an activation of shape (N, C, H, W) those are

    BN    one mean and variance per channel, over (N, H, W)          arXiv 1502.03167, section 3.2
    LN    one per image, over (C, H, W)                              arXiv 1607.06450
    GN    one per image and group of C/groups channels, over (C/groups, H, W)   arXiv 1803.08494
    none  nothing is normalized

and each is followed by the same learned gain and shift per channel, so all have equally many
parameters and, from the same seed, the same initial weights.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Affine(nn.Module):
    """y = γ·x + β per channel: what is left of a norm layer when it does not normalize."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return torch.addcmul(self.bias.view(1, -1, 1, 1), self.weight.view(1, -1, 1, 1), x)


NORMS = ("BN", "LN", "GN", "none")


def make_norm(norm: str | Callable[[int], nn.Module], channels: int, groups: int = 4) -> nn.Module:
    """The normalization layer for activations of shape (N, channels, H, W).

    LN is ``GroupNorm(1, C)``: its statistics are those of ``nn.LayerNorm([C, H, W])``, but its
    affine has one γ and β per channel, as in BN and GN, where that LayerNorm learns one per
    element (C·H·W of each). The GN paper (arXiv 1803.08494, section 3.1) names this case, one
    group, as the relation between GN and LN.

    Args:
        norm: one of ``NORMS``, or a callable ``channels -> nn.Module``.
        channels: C.
        groups: the number of groups of GN; the other norms ignore it.

    Raises:
        ValueError: for an unknown name, or groups that do not divide the channels.
    """
    if callable(norm):
        return norm(channels)
    if norm == "BN":
        return nn.BatchNorm2d(channels)
    if norm == "LN":
        return nn.GroupNorm(1, channels)
    if norm == "GN":
        if groups < 1 or channels % groups:
            raise ValueError(f"GN cannot split {channels} channels into {groups} equal groups.")
        return nn.GroupNorm(groups, channels)
    if norm == "none":
        return Affine(channels)
    raise ValueError(f"Unknown norm {norm!r}: use one of {', '.join(NORMS)}, or a callable.")


class Net(nn.Module):
    """A CNN for small grey images: (N, 1, H, W) -> (N, 10) logits, H and W at least 16.

    The first convolution strides at once, and few channels go before the max-pool: at full
    resolution a network of this kind spends most of its arithmetic before it has seen anything.
    It is not padded either, for MNIST's digits have an empty margin of their own. The last block's
    pixels see 36 x 36 pixels each, so at 28 x 28 the middle ones see everything.

    Args:
        norm: see ``make_norm``.
        groups: the number of groups of GN.
        dropout: the probability of dropping a feature before the head.
    """

    def __init__(
        self,
        norm: str | Callable[[int], nn.Module] = "BN",
        groups: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__()

        def block(c_in: int, c_out: int, **conv) -> list[nn.Module]:
            # No bias: the norm's β is one already, and BN would subtract the bias out again.
            return [
                nn.Conv2d(c_in, c_out, bias=False, **conv),
                make_norm(norm, c_out, groups),
                nn.ReLU(inplace=True),
            ]

        self.features = nn.Sequential(  # (N, 1, 28, 28)
            *block(1, 8, kernel_size=6, stride=2),  # (N, 8, 12, 12)
            *block(8, 12, kernel_size=3, padding=1),  # (N, 12, 12, 12)
            nn.MaxPool2d(2),  # (N, 12, 6, 6)
            *block(12, 16, kernel_size=3, padding=1),  # (N, 16, 6, 6)
            *block(16, 16, kernel_size=3, padding=1),  # (N, 16, 6, 6)
            *block(16, 16, kernel_size=3),  # (N, 16, 4, 4)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)  # (N, 16, 1, 1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(16, 10)

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


def penalized(model: nn.Module, everything: bool = False) -> list[nn.Parameter]:
    """The parameters that L1 and L2 act on: those with two or more dimensions.

    Gains, shifts and biases are left alone: they are few, and shrinking a gain towards 0 switches
    its channel off rather than making the function simpler. ``everything=True`` takes them too,
    for showing just that.
    """
    return [p for p in model.parameters() if everything or p.ndim >= 2]


def l1_loss(model: nn.Module, everything: bool = False, reduction: str = "sum") -> Tensor:
    """Σ|w| over ``penalized(model)``: a scalar on the model's device.

    ``reduction="mean"`` adds up each tensor's mean instead, as many solutions of this exercise do:
    a weight of a small tensor is then pulled harder than one of a large tensor.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"Unknown reduction {reduction!r}: use 'sum' or 'mean'.")
    if reduction == "mean":
        return sum(p.abs().mean() for p in penalized(model, everything))
    return _flat(penalized(model, everything)).abs().sum()


def l2_loss(model: nn.Module, everything: bool = False) -> Tensor:
    """½Σw² over ``penalized(model)``: a scalar on the model's device. A sum, not a mean.

    The ½ makes the gradient of λ·l2_loss equal to λw, so that under plain SGD λ is what the
    optimizer calls ``weight_decay``. Under Adam the two differ (arXiv 1711.05101).
    """
    return 0.5 * _flat(penalized(model, everything)).square().sum()


def _flat(parameters: list[nn.Parameter]) -> Tensor:
    """All of them in one row: one sum over that is faster than one sum over each."""
    return torch.cat([p.flatten() for p in parameters])


def summary(model: nn.Module, size: tuple[int, int] = (28, 28)) -> str:
    """A table of the model's layers: output shape, receptive field in pixels, parameters.

    Args:
        model: a ``Net``.
        size: H and W of the images; the shapes are those of one image, N = 1.
    """
    rows, field, jump = [], 1, 1  # jump: input pixels between neighbours of the present layer

    def record(layer: nn.Module, _inputs, output: Tensor):
        nonlocal field, jump
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel, stride = (
                v[0] if isinstance(v, tuple) else v for v in (layer.kernel_size, layer.stride)
            )
            field, jump = field + (kernel - 1) * jump, jump * stride
        sees = "all" if isinstance(layer, nn.AdaptiveAvgPool2d | nn.Linear | nn.Dropout) else field
        count = sum(p.numel() for p in layer.parameters())
        rows.append((type(layer).__name__, tuple(output.shape), sees, count))

    leaves = [m for m in model.modules() if not list(m.children())]
    hooks = [leaf.register_forward_hook(record) for leaf in leaves]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 1, *size, device=next(model.parameters()).device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    lines = [f"{'layer':<18} {'output shape':<18} {'receptive field':>15} {'parameters':>10}"]
    lines += [f"{name:<18} {shape!s:<18} {sees!s:>15} {n:>10,}" for name, shape, sees, n in rows]
    total = sum(p.numel() for p in model.parameters())
    return "\n".join([*lines, f"{'total':<18} {'':<18} {'':>15} {total:>10,}"])
