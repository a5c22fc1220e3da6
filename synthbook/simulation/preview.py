"""Look before you train: contact sheets with the labels drawn on them, and how theta really fell."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from PIL import Image

from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import BLUE, ORANGE, VERMILLION, new_axis, new_figure

EDGES = [(i, (i + 1) % 4 + 4 * (i // 4)) for i in range(8)] + [(i, i + 4) for i in range(4)]  # of a cube's corners


def plot_corners(corners: ArrayLike, ax: Axes) -> Axes:
    """A cube's eight corners (8, 2) px in the order of `shapes.CORNERS`, and its twelve edges."""
    points = np.asarray(corners, dtype=float)
    for a, b in EDGES:
        ax.plot(*points[[a, b]].T, "-", color=ORANGE, linewidth=1)
    ax.plot(*points.T, "o", color=ORANGE, markersize=3)
    return ax


def plot_picture(row: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """A row of a shard: the picture, boxes of what is seen, and the target's corners."""
    ax = new_axis(ax, width=4, height=3)
    with Image.open(io.BytesIO(row["image"])) as file:
        picture = np.asarray(file)
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
    for found in json.loads(row["labels"]):
        target = found["category"] == "target"
        if found["box"] is not None:
            left, top, wide, high = found["box"]
            colour, line = (VERMILLION, "-") if target else (BLUE, ":")
            place = (left - 0.5, top - 0.5)
            ax.add_patch(Rectangle(place, wide, high, fill=False, edgecolor=colour, linestyle=line))
        if target and all(found["corners"]):
            plot_corners(found["corners"], ax)
    high, wide = picture.shape[:2]
    ax.set(xlim=(-0.5, wide - 0.5), ylim=(high - 0.5, -0.5), xticks=[], yticks=[])
    ax.grid(False)
    return ax


def plot_sheet(rows: Sequence[Mapping[str, Any]], *, across: int = 6) -> tuple[Figure, list[Axes]]:
    """A contact sheet: one picture for each row, with its labels and its number."""
    if not rows:
        raise InvalidArgument("rows", "none", "at least one row of a shard")
    down = -(-len(rows) // across)
    figure, axes = new_figure(down, min(across, len(rows)), width=2.2 * min(across, len(rows)), height=1.8 * down)
    for ax in axes[len(rows) :]:
        ax.axis("off")
    for ax, row in zip(axes, rows, strict=False):
        plot_picture(row, ax).set_title(f"{row['index']}", fontsize=8)
    return figure, axes


THETA: dict[str, Callable[[Any], Any]] = {
    "distance (m)": lambda t: np.linalg.norm(np.subtract(t["camera"]["eye"], t["bodies"][1]["position"])),
    "elevation of the camera (degrees)": lambda t: np.degrees(np.arcsin(_toward(t)[2])),
    "elevation of the lamp (degrees)": lambda t: np.degrees(np.arcsin(t["light"]["direction"][2])),
    "exposure (share of white)": lambda t: t["finish"]["exposure"],
    "noise (grey levels)": lambda t: t["finish"]["noise"],
    "distractors": lambda t: len(t["bodies"]) - 2,
}


def _toward(theta: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    away = np.subtract(theta["camera"]["eye"], theta["bodies"][1]["position"])
    return np.asarray(away / np.linalg.norm(away))


def plot_theta(rows: Sequence[Mapping[str, Any]]) -> list[Axes]:
    """Histograms of six parts of theta as they were drawn."""
    if not rows:
        raise InvalidArgument("rows", "none", "at least one row of a shard")
    drawn = [json.loads(row["theta"]) for row in rows]
    _, axes = new_figure(2, 3, width=10, height=5)
    for ax, (name, of) in zip(axes, THETA.items(), strict=True):
        values = np.array([of(theta) for theta in drawn], dtype=float)
        bins: Any = np.arange(values.min(), values.max() + 2) - 0.5 if name == "distractors" else 20
        ax.hist(values, bins=bins, color=BLUE)
        ax.set(xlabel=name, ylabel="scenes")
    return axes
