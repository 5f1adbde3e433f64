"""Sliders for a notebook, where there is somebody to move them."""

import os
from collections.abc import Callable

from ipywidgets import Dropdown, FloatSlider, interact

NOBODY = {"PROGRESS": ("text", "none"), "SMOKE_TEST": ("1",)}  # how a program runs a notebook


def sliders(draw: Callable, **controls) -> None:
    """Calls ``draw`` again whenever a slider is let go; once, where a program runs the notebook.

    Args:
        draw: takes a keyword for each control, and draws a figure.
        controls: (low, high, start) for a slider; a list to choose from, its first to start with.
    """
    start = {k: c[0] if isinstance(c, list) else c[2] for k, c in controls.items()}
    if any(os.environ.get(name) in values for name, values in NOBODY.items()):
        draw(**start)
        return
    widgets = {k: Dropdown(options=c) if isinstance(c, list)
               else FloatSlider(c[2], min=c[0], max=c[1], continuous_update=False)
               for k, c in controls.items()}  # fmt: skip
    interact(draw, **widgets)
