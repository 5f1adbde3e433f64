"""LN's backward pass: the theorem of 1911.07013 (section 3.2), checked on random draws.

y = (x − μ)/σ over H features, and g = ∂ℓ/∂y has mean ḡ and variance D_g over them. The theorem says
what the derivatives of μ and σ do to ∂ℓ/∂x: μ's brings its mean to 0, σ's makes its variance
smaller. It says "smaller or equal"; with ε = 0 the share is exact, 1 − ρ², where ρ is the
correlation of y and g:

                      mean of ∂ℓ/∂x     variance of ∂ℓ/∂x
    both detached     ḡ/σ               D_g/σ²
    σ detached        0                 D_g/σ²
    μ detached        ḡ/σ               (1 − ρ²)·D_g/σ²
    LN-simple         0                 (1 − ρ²)·D_g/σ²
"""

from dataclasses import dataclass

import torch

from backstage.evidence.measures.layer_norm import correlation, standardize
from utils import Data


@dataclass(frozen=True)
class Setting:
    detach_mean: bool = False
    detach_std: bool = False
    draws: int = 1_000
    features: int = 32  # H: few, so that ρ² takes on many values


def settings() -> dict[str, Setting]:
    """The four ways to detach."""
    return {
        "LN-simple": Setting(),
        "μ detached": Setting(detach_mean=True),
        "σ detached": Setting(detach_std=True),
        "both detached": Setting(detach_mean=True, detach_std=True),
    }


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """The largest error of the theorem over the draws; it uses no images.

    ``mean_error`` is in units of the gradient's root mean square, ``variance_error`` a share of
    D_g/σ². ``rho2`` and ``variance_ratio``, σ²/D_g times the variance of ∂ℓ/∂x, are the first 100
    draws' own, for a figure.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.double)

    shape, one_each = (setting.draws, setting.features), (setting.draws, 1)
    x = draw(*one_each) + draw(*one_each).exp() * draw(*shape)  # of any mean and scale
    x.requires_grad_()
    y = standardize(x, setting.detach_mean, setting.detach_std, eps=0)
    # Part of g goes along y, or ρ² would be near 0 in every draw.
    g = draw(*one_each) + draw(*one_each) * y.detach() + draw(*shape)
    (gradient,) = torch.autograd.grad(y, x, g)

    rho2 = correlation(y, g).square()
    std, variance = x.std(1, correction=0), g.var(1, correction=0)
    mean = g.mean(1) / std if setting.detach_mean else 0
    share = torch.ones_like(rho2) if setting.detach_std else 1 - rho2
    ratio = gradient.var(1, correction=0) * std**2 / variance
    size = g.square().mean(1).sqrt() / std
    return {
        "mean_error": ((gradient.mean(1) - mean).abs() / size).max().item(),
        "variance_error": (ratio - share).abs().max().item(),
        "rho2": rho2[:100].tolist(),
        "variance_ratio": ratio[:100].tolist(),
    }
