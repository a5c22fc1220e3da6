"""One look for every figure: Okabe-Ito colours, each with a line style and a marker of its own."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008), without yellow, which is too light for lines on white
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
GUESS_COLOR = PURPLE

_COLORS = cycler(color=[BLUE, VERMILLION, GREEN, ORANGE, SKY, BLACK])
_LINES = cycler(linestyle=["-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1))])

STYLE: Any = {
    "axes.prop_cycle": _COLORS + _LINES,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "font.size": 10,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "figure.dpi": 100,
    "savefig.dpi": 100,
}


def new_axes(ax: Axes | None = None, *, width: float = 7.0, height: float = 4.0) -> Axes:
    """The axis given, or the axis of a new figure (inches) in the book's style."""
    return ax if ax is not None else subplots(1, 1, width=width, height=height)[1][0]


def subplots(nrows: int, ncols: int, *, width: float, height: float, **share: Any) -> tuple[Figure, list[Axes]]:
    """A figure (inches) in the book's style and its axes, row by row."""
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(nrows, ncols, figsize=(width, height), layout="constrained", squeeze=False, **share)
    return figure, list(axes.ravel())
