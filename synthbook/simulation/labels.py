"""Labels that nobody drew: they follow from theta, and the mask says what can be seen of each thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.transform import Rotation

from synthbook.core.types import Array
from synthbook.simulation.scene import CUBE_CORNERS, SHAPES, Body, Camera, shallow

if TYPE_CHECKING:
    from synthbook.simulation.render import Sample

TOUCH = 0.004  # m: a corner is seen where the depth beside it is its own but for this


@dataclass(frozen=True)
class Annotation:
    """One thing in a picture: where it is seen, how much of it, and its pose.

    `box`: left, top, width, height of its visible pixels (COCO's convention), None where nothing of it is seen.
    `visibility`: visible pixels over those that it would have alone in an endless picture; `occlusion`: share of its
    pixels inside the picture that other things hide. `corners`: the eight pixels of its bounding box in three
    dimensions, None behind the camera, and whether each can be seen. `rvec`, `tvec`: its pose in the camera's frame,
    rotation vector (rad) and metres.
    """

    name: str
    category: str
    body: int
    area: int
    box: tuple[int, int, int, int] | None
    visibility: float
    occlusion: float
    truncated: bool
    corners: list[list[float] | None]
    corner_visible: list[bool]
    rvec: list[float]
    tvec: list[float]

    def to_dict(self) -> dict[str, Any]:
        """The label as plain data."""
        return shallow(self)


def annotate(sample: Sample) -> list[Annotation]:
    """A label for each thing of a sample but the table, in the order of its bodies."""
    return [_label(sample, k, body) for k, body in enumerate(sample.params.bodies) if body.shape != "plane"]


def _label(sample: Sample, k: int, body: Body) -> Annotation:
    camera, seen = sample.params.camera, sample.mask == k
    inside, whole = _alone(body, camera)
    area, alone = int(seen.sum()), max(inside, float(seen.sum()))  # the outline is right to a pixel or two
    corners = body.to_world(CUBE_CORNERS)
    pixels, z = camera.project(corners), camera.to_camera(corners)[:, 2]
    turn = Rotation.from_quat(camera.rotation) * Rotation.from_quat(body.quaternion)
    return Annotation(
        name=body.name,
        category="target" if body.name == "cube" else body.shape,
        body=k,
        area=area,
        box=mask_to_box(seen),
        visibility=area / max(whole, area, 1.0),
        occlusion=1 - area / alone if alone else 0.0,
        truncated=inside < whole * (1 - 1e-9),
        corners=[pixel.tolist() if np.isfinite(pixel).all() else None for pixel in pixels.round(3)],
        corner_visible=_visible(pixels, z, sample).tolist(),
        rvec=turn.as_rotvec().tolist(),
        tvec=camera.to_camera(np.array([body.position]))[0].tolist(),
    )


def mask_to_box(seen: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Left, top, width and height of the pixels (H, W) that are set; None without any."""
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


def _alone(body: Body, camera: Camera) -> tuple[float, float]:
    """Area in pixels if nothing else were there: inside the picture, and in an endless one.

    Every shape is convex, so its outline is the hull of its projected vertices.
    """
    points = camera.project(body.to_world(SHAPES[body.shape].vertices))
    if np.isnan(points).any():  # partly behind the camera
        return 0.0, 0.0
    try:
        hull = ConvexHull(points)
        outline = points[hull.vertices]
    except QhullError:  # seen edge-on
        return 0.0, 0.0
    low, high = outline.min(axis=0), outline.max(axis=0)
    whole = float(hull.volume)  # in two dimensions that is the area
    if low.min() >= -0.5 and high[0] <= camera.width - 0.5 and high[1] <= camera.height - 0.5:
        return whole, whole
    inside = outline
    for axis, end in ((0, camera.width), (1, camera.height)):
        inside = _cut(inside, axis, -0.5, 1)
        inside = _cut(inside, axis, end - 0.5, -1)
    return _area(inside), whole


def _cut(outline: Array, axis: int, at: float, side: int) -> Array:
    """The part of a convex polygon (N, 2) on one side of a line: Sutherland and Hodgman (1974)."""
    kept = []
    for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        da, db = side * (a[axis] - at), side * (b[axis] - at)
        if da >= 0:
            kept.append(a)
        if da * db < 0:
            kept.append(a + (b - a) * da / (da - db))
    return np.array(kept).reshape(-1, 2)


def _area(outline: Array) -> float:
    # A = 1/2 |sum x_i y_i+1 - x_i+1 y_i|
    (x, y), (x2, y2) = outline.T, np.roll(outline, -1, axis=0).T
    return float(abs((x * y2 - x2 * y).sum()) / 2)


def _visible(pixels: Array, z: Array, sample: Sample) -> NDArray[np.bool_]:
    """Whether corners at pixels (8, 2) and depths (8,) lie in the picture with nothing before them.

    The farthest of the four pixels around a corner decides: at an outline some of them show what is behind.
    """
    high, wide = sample.mask.shape
    u, v = np.nan_to_num(pixels.T, nan=-9)
    inside = (u >= -0.5) & (u <= wide - 0.5) & (v >= -0.5) & (v <= high - 0.5)
    columns = np.clip([np.floor(u), np.ceil(u)], 0, wide - 1).astype(np.intp)  # (2, 8)
    rows = np.clip([np.floor(v), np.ceil(v)], 0, high - 1).astype(np.intp)
    around = sample.depth[rows[:, None], columns]  # (2, 2, 8)
    return np.asarray(inside & (around.max(axis=(0, 1)) > z - TOUCH))
