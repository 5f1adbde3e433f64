"""The sheet Read me: what each sheet shows, the formulas, the colours, what to try."""

import math

from backstage.workbook.grid import TYPED_INK
from backstage.workbook.inputs import UNDEFINED
from backstage.workbook.sheet import Page

TEXT = (
    ("#", "The sheets"),
    ("Illustration", "Type here. One layer of a network: under each channel BN's mean and "
     "variance, beside each image LN's and GN's; below, the normalized values x̂ and the outputs y "
     "of each norm. A panel explains any one pixel."),
    ("Layer N+1", "A second layer with values of its own and the same norms: each layer has its "
     "own statistics."),
    ("Train and eval", "BN only: its running mean and variance over three training steps, and "
     "what evaluation makes of layer N with them. LN and GN are the same in both modes."),
    ("Gradients", "What each norm passes back: the full gradient, and the one there would be if "
     "μ and σ were constants. The full one is re-centred and re-scaled."),
    ("Charts", "x → x̂ → y of one channel, BN's running statistics, the variance of the gradient."),
    ("#", "The formulas"),
    ("one formula", "x̂ = (x − μ) / √(σ² + ε)        y = γ x̂ + β        "
     "μ = mean of x over S        σ² = mean of (x − μ)² over S"),
    ("the set S", "BN: one channel of all images (16 numbers).   LN: one image, all channels "
     "(16).   GN: one image, one group of channels (16, 8 or 4 for 1, 2 or 4 groups)."),
    ("γ and β", "One of each per channel in all three norms, as in PyTorch's BatchNorm2d and "
     "GroupNorm. LN here is GroupNorm(1, 4)."),
    ("running", "running ← (1 − momentum) · running + momentum · batch; the variance that is "
     "stored is the unbiased one, σ² · 16/15."),
    ("gradient", "h = γ · ∂ℓ/∂y / √(σ² + ε)        ∂ℓ/∂x = h − mean(h) − x̂ · mean(h · x̂), "
     "means over S        ∂ℓ/∂γ = Σ ∂ℓ/∂y · x̂        ∂ℓ/∂β = Σ ∂ℓ/∂y"),
    ("#", "The colours and lines"),
    ("blue, bold", "A number to type over; Tab goes from one to the next. Everything else follows "
     "and is protected, without a password (Review, Unprotect Sheet)."),
    ("tints", "One colour per channel, everywhere. Numbers in a channel's colour belong to it."),
    ("lines", "Around what is averaged together: blue BN, orange LN, green dashes GN. GN's follow "
     "the number of groups, where a program draws such lines."),
    ("red numbers", "What has moved away from the numbers this file was delivered with. “mark "
     "moved” on the sheet Illustration switches it off."),
    ("white on red", "An input that has to be put right. What depends on it shows ?."),
    (UNDEFINED, "A variance of 0 with ε = 0: nothing to divide by. PyTorch gives nan there."),
    ("#", "What to try"),
    ("1", "groups = 1, then 4. Beside GN's statistics appears “= LN”, then “= IN” (instance "
     "norm)."),
    ("2", "Set one pixel of image 1 to 100. Which numbers of image 2 turn red under BN, under LN, "
     "under GN?"),
    ("3", "Type 1000 under “+ channel” for one channel. Which norm's x̂ does not change? Then 10 in "
     "“× image” for one image."),
    ("4", "Make a channel constant, then set ε = 0. Then ε = 1."),
    ("5", "momentum = 1: evaluation forgets all but the last batch. momentum = 0: it never "
     "learns."),
    ("6", "Gradients: set all of ∂ℓ/∂y to 1. h is not 0, but ∂ℓ/∂x of BN is: adding the same to "
     "every pixel of a channel changes nothing."),
    ("#", "Check it"),
    ("PyTorch", "python -m backstage.workbook check normalization_demo.xlsx   compares all with "
     "PyTorch's, your own inputs too. Names such as bn_xhat_1_2 (image 1, channel 2) find the "
     "cells."),
    ("papers", "BN arXiv 1502.03167 · LN 1607.06450 · GN 1803.08494 · IN 1607.08022 · "
     "gradients 1911.07013"),
)  # fmt: skip


def read_me(page: Page) -> None:
    page.cover("Normalization by hand", "Batch, layer and group norm of four small images, in "
               "formulas that recompute. Start with the sheet Illustration.", 2)  # fmt: skip
    row, heading = 4, ""
    for label, text in TEXT:
        if label == "#":
            row, heading = row + (row > 4), text
            page.bar(row, 2, text, 2)
        else:
            link = {"font_color": TYPED_INK} if heading == "The sheets" else {}
            page.put(row, 2, label, bold=True, align="left", indent=1, **link)
            page.put(row, 3, text, align="left", text_wrap=True)
            page.heights[row] = 14 * math.ceil(len(text) / 88) + 4
            if link:
                page.links.append((row, 2, f"internal:'{label}'!A1", label))
        row += 1
    page.finish([1.5, 15, 84], rows=row, portrait=True)
