"""The sheet Read me: what each sheet shows, the formulas, the colours, what to try."""

from backstage.workbook.page import Page
from backstage.workbook.table import CHARTS, GRADIENTS, MAIN, NEXT, RUNNING

TEXT = """
# The sheets
Illustration | Type here. Two layers of a network side by side. Under each channel stand BN's mean \
and variance, beside each image LN's and GN's; below, layer N's normalized values x̂ and outputs y. \
A panel explains any one pixel.
Layer N+1 | x̂ and y of the second layer. Each layer has its own statistics.
Train and eval | BN only: its running mean and variance over three training steps, and what \
evaluation makes of layer N with them. LN and GN are the same in both modes.
Gradients | What each norm passes back: the full gradient, and what it would be if μ and σ were \
constants.
Charts | x → x̂ → y of one channel, BN's running statistics, the gradient's variance.
# The formulas
one formula | x̂ = (x − μ) / √(σ² + ε)     y = γ x̂ + β     μ and σ² are the mean and the variance \
of x over a set
the set | BN: one channel of all images (16 numbers).  LN: one image, all channels (16).  GN: one \
image, one group of channels (16, 8 or 4 for 1, 2 or 4 groups).
γ and β | One of each per channel in all three norms, as in PyTorch's BatchNorm2d and GroupNorm. \
LN here is GroupNorm(1, 4).
running | running = (1 − momentum) · running + momentum · batch. The variance that is stored is \
the unbiased one, ÷ 15.
gradient | h = γ · ∂L/∂y / √(σ² + ε)     ∂L/∂x = h − mean(h) − x̂ · mean(h · x̂)     ∂L/∂γ = \
Σ ∂L/∂y · x̂     ∂L/∂β = Σ ∂L/∂y
# The colours
blue, bold | A number to type over. All else follows and is protected, without a password.
shades | Numbers that are normalized together share a shade: columns of blue under BN, rows of \
orange under LN, boxes of green under GN. GN's boxes follow groups.
grey | An input is missing or wrong. The red line at the top says which.
#DIV/0! | A variance of 0 with ε = 0: there is nothing to divide by. PyTorch gives nan.
# What to try (on the sheet Illustration)
1 | groups = 1, then 4. Whose numbers does GN have with 1 group?
2 | Type 100 into C8, a pixel of image 1. Which numbers of image 2 change, under which norm?
3 | Type 1000 beside “+ channel”. Which norm's x̂ stays? Back to 0; 10 below “× image”: whose now?
4 | Make a channel constant, and set ε = 0. What does each norm make of it? And with ε = 1?
5 | Train and eval: momentum = 1, then 0. What does evaluation know of the batches?
6 | Gradients: set all of ∂L/∂y to 1. h is not 0, but BN's ∂L/∂x is. Why?
# Check it
PyTorch | python -m backstage.workbook check normalization_demo.xlsx     compares all numbers with \
PyTorch's, for your inputs too. Names find the cells: bn_xhat_1_2 is image 1, channel 2.
papers | BN arXiv 1502.03167 · LN 1607.06450 · GN 1803.08494 · IN 1607.08022 · gradients 1911.07013
"""


def read_me(page: Page) -> None:
    """Text only."""
    page.put("B1", "Normalization by hand", bold=True, font_size=18, align="left")
    page.note("B2", "Batch, layer and group norm of four small images. Start with Illustration.")
    for row, line in enumerate(TEXT.strip().split("\n"), start=4):
        label, _, text = line.partition(" | ")
        if line.startswith("# "):
            page.bar(f"B{row}", line.removeprefix("# "), 2)
            continue
        style = {"bold": True, "align": "left", "valign": "top"}
        page.put(f"B{row}", label, **style)
        if label in (MAIN, NEXT, RUNNING, GRADIENTS, CHARTS):
            look = page.look(**style, underline=1)
            page.sheet.write_url(f"B{row}", f"internal:'{label}'!A1", look, label)
        page.put(f"C{row}", text, align="left", valign="top", text_wrap=True)
        page.sheet.set_row_pixels(row - 1, 20 * (1 + len(text) // 118) + 4)
    page.finish({"A:A": 12, "B:B": 130, "C:C": 900}, last_row=row)
