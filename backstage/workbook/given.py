"""What a learner types into the workbook: the numbers it is delivered with, and what is allowed.

Everything is 4 images x 4 channels x 2 x 2 pixels. The images differ in brightness and contrast,
and so do the channels, so that the norms differ visibly. The first pixel's sets have whole means
and roots: μ, σ² = 3, 4 under BN, 5, 16 under LN and 4, 9 under GN, so x̂ = 2, 0.5 and 1.
"""

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

LIMIT = 1e9  # larger inputs are refused, so that no square overflows
TINY = 1e-12  # ε is 0 or at least this


class InputError(ValueError):
    """Something a person can put right; the message is one sentence for them."""


def pixels(rows: str) -> Tensor:
    """Four images, the upper row of every channel and then the lower -> (N, C, H, W)."""
    numbers = torch.tensor([float(number) for number in rows.split()], dtype=torch.float64)
    return numbers.view(4, 2, 4, 2).transpose(1, 2).contiguous()


X = pixels("""
     7   1   7   3  11   7   5   1      1   3   9   1  13   9   3  -1
     6   4  11  11  14  12   7   4      5   5   9  13  19  19  12   9
     1   2   2   2   5   4  -3  -3      0   1   4   4   1   2  -2  -4
     4   2   4   0  11   6   0   1      4   2   2  -2  17  10   5  -2
""")
NEXT_X = pixels("""
     2  -1   1   0   4   2  -1  -4      0   3  -2   1   3   7   2  -1
     5   3   2   4   8   6   1   0      4   8   6   4  12  10   3   4
     0   1   0  -1   2   1  -2  -1      1  -2   1   0   1   0  -1  -4
    -3   3  -4   2   0   9  -8   2      6   2   5  -3   8  -1   4  -6
""")
STEP2_X = pixels("""
     5   3   8   4   9  12   1   3      4   2   6  10  14  11   4   0
     2   1   3   5   7   4  -2   1      3   6   4   2   8   9   2  -1
     8   6  12   9  15  18   6   8      5   7  10  13  20  17   9   5
     0   2   1   4   6   3  -4  -1      1   1   3   0   2   5  -3  -2
""")
STEP3_X = pixels("""
     3   0   2   5   8  10  -2   2      1   4   6   3  12   9   3   1
     7   5  10   7  13  16   8   4      6   9  12  11  18  14   5   7
     2   2   1   3   4   2  -1  -3      0   1   4   2   3   6  -2   0
     5  -1   8  -2  15   5   6  -4      3   4   0   6   7  12   1   3
""")
DY = pixels("""
     1   0   2  -1   0   1  -2   1      0   2   1   0  -1   0   1   0
    -1   1   0   2   1  -2   0   1      1   0  -1   1   0   1   2  -1
     0  -1   1   0   2   1   1   0      2   1   0  -2  -1   0   0   1
     1   0  -1   1   0   2   1  -1     -2   1   1   0   1  -1   0   2
""")


def tensor(*values: float) -> Tensor:
    return field(default_factory=lambda: torch.tensor(values, dtype=torch.float64))


@dataclass(frozen=True)
class Inputs:
    """The cells that a learner types into, in float64.

    No γ is 1, no β is 0 and momentum is not PyTorch's 0.1, so that a formula which forgets one
    of them shows a wrong value.
    """

    x: Tensor = field(default_factory=X.clone)  # (N, C, H, W), layer N as typed
    add: Tensor = tensor(0, 0, 0, 0)  # (C,), added to every pixel of a channel
    multiply: Tensor = tensor(1, 1, 1, 1)  # (N,), multiplies every pixel of an image
    next_x: Tensor = field(default_factory=NEXT_X.clone)  # (N, C, H, W), layer N+1
    step2_x: Tensor = field(default_factory=STEP2_X.clone)  # training step 2; step 1 is layer N
    step3_x: Tensor = field(default_factory=STEP3_X.clone)
    dy: Tensor = field(default_factory=DY.clone)  # the loss's gradient by y of layer N
    gamma: Tensor = tensor(2, 1.5, 0.5, 3)  # (C,)
    beta: Tensor = tensor(1, -1, 2, 0.5)  # (C,)
    eps: float = 1e-5  # PyTorch's default for the three norms
    groups: int = 2
    momentum: float = 0.2  # as in PyTorch: the weight of the *new* statistic
    explain_norm: str = "BN"  # the pixel that the sheet explains
    explain_image: int = 1
    explain_channel: int = 1
    explain_pixel: str = "upper left"

    @property
    def used_x(self) -> Tensor:
        """Layer N as the norms see it: typed values, multiplied and added to, (N, C, H, W)."""
        return self.multiply.view(4, 1, 1, 1) * self.x + self.add.view(1, 4, 1, 1)

    def values(self) -> dict[str, Tensor | float | str]:
        """Every input by its name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


LISTS = {  # inputs that are chosen from a list
    "groups": (1, 2, 4),
    "explain_norm": ("BN", "LN", "GN"),
    "explain_image": (1, 2, 3, 4),
    "explain_channel": (1, 2, 3, 4),
    "explain_pixel": ("upper left", "upper right", "lower left", "lower right"),
}
RANGES = {"eps": (0, LIMIT), "momentum": (0, 1)}  # all other inputs: -LIMIT to LIMIT


def allowed(name: str) -> str:
    """What an input has to be, in words: "a number from 0 to 1", "1, 2 or 4"."""
    if name in LISTS:
        *first, last = map(str, LISTS[name])
        return f"{', '.join(first)} or {last}"
    if name == "eps":
        return f"0, or a number from {TINY:G} to {LIMIT:,.0f}"
    low, high = (f"{limit:,.0f}" for limit in RANGES.get(name, (-LIMIT, LIMIT)))
    return f"a number from {low} to {high}"
