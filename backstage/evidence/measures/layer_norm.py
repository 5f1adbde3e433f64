"""Layer normalization taken apart, on MNIST as its paper trains it.

1911.07013 asks what in LN helps: scaling its output (γ and β), normalizing on the way forward, or
the derivatives of μ and σ on the way back. Its MNIST column (test accuracy, %): no norm 99.14,
LN 99.13, LN-simple 99.09, DetachNorm 99.10, AdaNorm 99.35.

Where this departs from the paper, which trains on all of MNIST for 20 epochs: 10,000 images, for
the sake of many seeds, and fewer steps; a norm over (C, H, W), γ and β per channel, as the lesson's
LN; σ is the biased one with ε inside the root, as torch's. The authors' code has AdaNorm for
translation only, so its C is chosen on the validation images here.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backstage.evidence.measures.runs import endless, part, step, with_validation
from s6_model import Affine
from utils import Data, Images, evaluate, normalize


@dataclass(frozen=True)
class Setting:
    norm: str = "LN"  # one of VARIANTS
    scale: float = 1.0  # C, AdaNorm's only
    images: int = 10_000  # a stratified sixth of MNIST
    validation: int = 5_000  # of the others; chooses C
    epochs: int = (
        3  # 939 steps, some 12 seconds: a run of the paper's length takes 6 minutes or more
    )
    batch_size: int = 32  # the paper's
    lr: float = 1e-3  # Adam's, the paper's


VARIANTS = ("none", "LN", "LN-simple", "μ detached", "σ detached", "DetachNorm", "AdaNorm")
SCALES = (1.0, 2.0)  # C


def settings() -> dict[str, Setting]:
    """Each variant; AdaNorm with each C."""
    found = {norm: Setting(norm) for norm in VARIANTS if norm != "AdaNorm"}
    return found | {f"AdaNorm, C = {c:g}": Setting("AdaNorm", c) for c in SCALES}


def standardize(
    x: Tensor, detach_mean: bool = False, detach_std: bool = False, eps: float = 1e-5
) -> Tensor:
    """y = (x − μ) / σ over all dimensions but the first.

    A detached μ or σ is a constant on the way back: no gradient flows through it.
    """
    dims = tuple(range(1, x.ndim))
    variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    std = (variance + eps).sqrt()
    return (x - (mean.detach() if detach_mean else mean)) / (std.detach() if detach_std else std)


class Standardize(nn.Module):
    """``standardize`` as a layer: what all variants but "none" share on the way forward."""

    def __init__(self, detach_mean: bool, detach_std: bool):
        super().__init__()
        self.detach_mean, self.detach_std = detach_mean, detach_std

    def forward(self, x: Tensor) -> Tensor:
        if self.detach_mean or self.detach_std:
            return standardize(x, self.detach_mean, self.detach_std)
        return F.group_norm(x, num_groups=1)  # the same, and faster


class AdaScale(nn.Module):
    """z = C·(1 − k·y)⊙y, the factor in brackets a constant on the way back (section 4.2)."""

    k = 0.1

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def forward(self, y: Tensor) -> Tensor:
        return self.scale * (1 - self.k * y).detach() * y


def make_variant(norm: str, channels: int, scale: float = 1.0) -> nn.Module:
    """The layer for activations of shape (N, channels, H, W)."""
    if norm not in VARIANTS:
        raise ValueError(f"Unknown variant {norm!r}: use one of {', '.join(VARIANTS)}.")
    if norm == "none":
        return nn.Identity()
    layer = Standardize(norm in ("μ detached", "DetachNorm"), norm in ("σ detached", "DetachNorm"))
    after = {"LN": Affine(channels), "AdaNorm": AdaScale(scale)}.get(norm, nn.Identity())
    return nn.Sequential(layer, after)


def three_layer_cnn(norm: str, scale: float = 1.0) -> nn.Sequential:
    """The paper's network for MNIST: (N, 1, 28, 28) -> (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 20, kernel_size=5),  # (N, 20, 24, 24)
        make_variant(norm, 20, scale),
        nn.ReLU(),
        nn.MaxPool2d(2),  # (N, 20, 12, 12)
        nn.Conv2d(20, 50, kernel_size=5),  # (N, 50, 8, 8)
        make_variant(norm, 50, scale),
        nn.ReLU(),
        nn.MaxPool2d(2),  # (N, 50, 4, 4)
        nn.Flatten(),
        nn.Linear(50 * 4 * 4, 10),
    )


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """Test and validation accuracy in 0..1 after training, and ρ² of each norm layer (see there).

    ``rho2`` is empty without a norm.
    """
    data = with_validation(data, setting.validation)
    images = part(data.train, setting.images)
    torch.manual_seed(seed)
    model = three_layer_cnn(setting.norm, setting.scale).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=setting.lr, fused=True)
    supply = endless(images, setting.batch_size, seed)
    for _ in range(setting.epochs * -(-len(images) // setting.batch_size)):
        step(model, optimizer, *next(supply))
    return {
        "test_accuracy": evaluate(model, data.test)[1],
        "val_accuracy": evaluate(model, data.val)[1],
        "rho2": rho_squared(model, part(data.test, 500)),
    }


def rho_squared(model: nn.Module, images: Images) -> list[float]:
    """ρ² of each norm layer, the mean over images; ρ is the correlation of y and g = ∂ℓ/∂y.

    By the theorem (section 3.2), σ's derivative takes the share ρ² of the gradient's variance away
    and nothing more: near 0, detaching σ can change little.
    """
    outputs = []

    def keep(_layer, _inputs, y: Tensor):
        outputs.append(y)

    layers = [layer for layer in model.modules() if isinstance(layer, Standardize)]
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    loss = F.cross_entropy(model(normalize(images.x.float() / 255)), images.y, reduction="sum")
    for hook in hooks:
        hook.remove()
    gradients = torch.autograd.grad(loss, outputs) if outputs else ()
    return [
        correlation(y, g).square().mean().item() for y, g in zip(outputs, gradients, strict=True)
    ]


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of a[i] and b[i], for each i: (N, …), (N, …) -> (N,)."""
    a, b = (v.detach().double().flatten(1) for v in (a, b))
    a, b = (v - v.mean(dim=1, keepdim=True) for v in (a, b))
    return F.cosine_similarity(a, b, dim=1)
