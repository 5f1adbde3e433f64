"""What a learner types into the workbook, what is allowed there, and the names of the cells.

Everything is 4 images x 4 channels x 2 x 2 pixels. A *quantity* is an array: (4, 4, 2, 2) for
pixels, (4,) for one number per channel or per image, (4, 4) for one per image and channel. Its
cells carry names: `bn_xhat_{n}_{c}` for the quantity `bn_xhat`, with n and c from 1 to 4.
"""

from dataclasses import dataclass, field, fields

import numpy as np

LIMIT = 1e9  # inputs beyond this are refused, so that no square overflows
TINY = 1e-60  # σ² + ε up to this counts as 0: nothing to divide by
UNDEFINED = "0/0"  # what the sheet shows where PyTorch gives nan


class InputError(ValueError):
    """Something a person can put right; the message is one sentence for them."""


def _pixels(rows: str) -> np.ndarray:
    """Eight lines of eight numbers, laid out as in the sheet -> (N, C, H, W)."""
    grid = np.array([line.split() for line in rows.strip().splitlines()], dtype=np.float64)
    return grid.reshape(4, 2, 4, 2).transpose(0, 2, 1, 3)


X = _pixels("""
     1  3   0 -2   2  2  -1  0
    -2  0   1  2  -3  1   3  1
     2  1  -1 -1   0  3   3 -2
     0 -3   2  0   1 -1   0  1
     3  2  -3  1  -2  0   1  3
     1 -1   0 -2   2 -3   2 -1
    -1  0   3  2   1  0  -3 -2
     2 -2  -1  1   3  2   0 -1
""")
NEXT_X = _pixels("""
     0  2   3  1  -1 -2   2  0
     1 -1   2  3   0 -3   1 -2
    -2  3   1  0   2 -1  -3  1
     0  1  -2  2   1  0   3 -1
     2 -3   0  3  -2  1   0  2
     3  1  -1  2   0 -1  -2  3
     1  0   2 -2   3  1  -1  0
    -3  2   1  3  -1  2   0 -2
""")
STEP2_X = _pixels("""
     3  1   2  0  -1  1   0 -3
     2  3   1 -1   0 -2  -2  1
     0  2   3  2   1  0  -1 -2
     1  3  -2  1  -3  2   0 -3
     2 -1   0  3   1 -2  -3  1
     3  0   1  2   0  1  -1  0
     1  2  -1  3  -2  0   2 -2
    -2  3   2  0   3 -1  -1 -3
""")
STEP3_X = _pixels("""
    -1  0   2  1   0 -3   3  2
     1 -3  -2  0   2  1   1  3
     0 -2   1  3  -1  0   2 -1
    -1  2   0 -2   1 -2   0  3
     1 -1   3  0  -3  2   1  2
    -2  0  -1  2   0 -1   3  0
    -3  1   0  1   2 -2   2  1
     0 -1   2 -3   1  0  -2  3
""")
DY = _pixels("""
     1  0   2 -1   0  1  -2  1
     0  2   1  0  -1  0   1  0
    -1  1   0  2   1 -2   0  1
     1  0  -1  1   0  1   2 -1
     0 -1   1  0   2  1   1  0
     2  1   0 -2  -1  0   0  1
     1  0  -1  1   0  2   1 -1
    -2  1   1  0   1 -1   0  2
""")


def _array(values):
    return field(default_factory=lambda: np.array(values, np.float64))


@dataclass(frozen=True)
class Inputs:
    """The cells that a learner types into.

    No γ is 1, no β is 0 and momentum is not PyTorch's 0.1, so that a formula which forgets one
    of them, or has the number typed in, shows a wrong value.
    """

    x: np.ndarray = _array(X)  # (N, C, H, W), layer N as typed
    add: np.ndarray = _array([0, 0, 0, 0])  # (C,), a knob: added to every pixel of a channel
    multiply: np.ndarray = _array([1, 1, 1, 1])  # (N,), a knob: multiplies every pixel of an image
    next_x: np.ndarray = _array(NEXT_X)  # (N, C, H, W), layer N+1
    step2_x: np.ndarray = _array(STEP2_X)  # the batch of training step 2; step 1 is layer N
    step3_x: np.ndarray = _array(STEP3_X)
    dy: np.ndarray = _array(DY)  # the loss's gradient by y of layer N
    gamma: np.ndarray = _array([1.25, 2, 0.5, 1.5])  # (C,)
    beta: np.ndarray = _array([0.25, 1, -1, 0.5])  # (C,)
    eps: float = 1e-5  # PyTorch's default for the three norms
    groups: int = 2
    momentum: float = 0.15  # in PyTorch's sense: the weight of the *new* statistic
    explain_norm: str = "BN"  # the pixel that the sheet explains
    explain_image: int = 1
    explain_channel: int = 1
    explain_pixel: str = "upper left"

    @property
    def used_x(self) -> np.ndarray:
        """Layer N as the norms see it: the typed values with the knobs applied, (N, C, H, W)."""
        return self.multiply.reshape(4, 1, 1, 1) * self.x + self.add.reshape(1, 4, 1, 1)

    def quantities(self) -> dict[str, np.ndarray]:
        """Every input as an array, keyed by quantity; single cells are 0-d."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}


LISTS = {  # inputs that are chosen from a list; the sheet, its warnings and `check` all use this
    "groups": (1, 2, 4),
    "explain_norm": ("BN", "LN", "GN"),
    "explain_image": (1, 2, 3, 4),
    "explain_channel": (1, 2, 3, 4),
    "explain_pixel": ("upper left", "upper right", "lower left", "lower right"),
    "show_moved": ("on", "off"),
}
RANGES = {"eps": (0, LIMIT), "momentum": (0, 1)}  # all other inputs: -LIMIT to LIMIT


def allowed(quantity: str) -> str:
    """What an input has to be, in words: "a number from 0 to 1", "1, 2 or 4"."""
    if quantity in LISTS:
        *first, last = map(str, LISTS[quantity])
        return f"{', '.join(first)} or {last}"
    low, high = (f"{limit:,.0f}" for limit in RANGES.get(quantity, (-LIMIT, LIMIT)))
    return f"a number from {low} to {high}"


def names(quantity: str, array: np.ndarray) -> list[tuple[str, tuple[int, ...]]]:
    """The names of a quantity's cells, each with its index: ("bn_y_1_2", (0, 1)) is 2 x 2."""
    lead = array.shape[:2] if array.ndim == 4 else array.shape
    return [("_".join([quantity, *(str(i + 1) for i in at)]), at) for at in np.ndindex(lead)]


def plain(value):
    """3.0 -> 3, 0.5 -> 0.5: a number as a person would type it; text stays."""
    value = np.asarray(value).item()
    return int(value) if isinstance(value, float) and value.is_integer() else value
