"""The style that all figures share: Okabe-Ito colors, each with a line style of its own."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from synthbook.core.storage import Provenance, write_with_provenance

if TYPE_CHECKING:
    from torch import Tensor

# Okabe and Ito, "Color Universal Design" (2008), without yellow, which is too light for lines on white
BLUE, VERMILLION, GREEN, ORANGE, BLACK = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#000000"
GUESS_COLOR, _SKY = "#CC79A7", "#56B4E9"

_COLORS = cycler(color=[BLUE, VERMILLION, GREEN, ORANGE, _SKY, BLACK])
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
    """The axes given, or the axes of a new figure (inches) in the book's style."""
    return ax if ax is not None else subplots(1, 1, width=width, height=height)[1][0]


def subplots(nrows: int, ncols: int, *, width: float, height: float, **share: Any) -> tuple[Figure, list[Axes]]:
    """A figure (inches) in the book's style and its axes, row by row."""
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(nrows, ncols, figsize=(width, height), layout="constrained", squeeze=False, **share)
    return figure, list(axes.ravel())


# ── Images ──


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Images (N, C, H, W) in [-1, 1] as uint8 (N, H, W), or (N, H, W, C) in color."""
    pixels = np.asarray((images.cpu() + 1) * 127.5).round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def plot_images(images: Tensor, *, n_cols: int = 10, ax: Axes | None = None) -> Axes:
    """Images (N, C, H, W) in [-1, 1], gray or in color, in rows of `n_cols` with white lines between them."""
    tiles = to_uint8(images)
    tiles = tiles[..., None] if tiles.ndim == 3 else tiles
    tiles = np.pad(tiles, ((0, -len(images) % n_cols), (1, 1), (1, 1), (0, 0)), constant_values=255)
    n, height, width, channels = tiles.shape
    grid = tiles.reshape(n // n_cols, n_cols, height, width, channels).swapaxes(1, 2)
    grid = grid.reshape(n // n_cols * height, n_cols * width, channels)
    ax = new_axes(ax, width=0.6 * n_cols, height=0.6 * (n // n_cols))
    ax.imshow(grid[..., 0] if channels == 1 else grid, cmap="gray", vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return ax


def save_image_grid(images: Tensor, path: Path, provenance: Provenance) -> Path:
    """Write the grid of `plot_images` as PNG with a provenance sidecar."""
    return write_with_provenance(path, to_png(plot_images(images).figure), provenance)


def to_png(figure: Any) -> bytes:
    """A figure as the bytes of a PNG file; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()
