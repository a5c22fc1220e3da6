"""Exact annotations of a rendered image: visible pixels from the mask, corners and pose from theta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.transform import Rotation

from synthbook.core.types import Array
from synthbook.simulation.scene import CUBE_CORNERS, SHAPES, Body, Camera, shallow_dict

if TYPE_CHECKING:
    from synthbook.simulation.render import Sample

_DEPTH_TOLERANCE = 0.004  # m: a corner is visible if the depth buffer around it reaches its depth but for this


@dataclass(frozen=True)
class Annotation:
    """One object in an image: its visible pixels, its corners and its pose.

    `bbox`: left, top, width, height of its visible pixels (COCO's convention), None if there are none. `visibility`:
    visible pixels over those of the object alone in an unbounded image. `occlusion`: share of its pixels inside the
    image that other objects hide. `truncated`: whether the image's border cuts it. `corners`: the eight corners of its
    3D bounding box in pixels, None behind the camera; `corner_visible`: whether each is in sight. `rvec` (rotation
    vector, rad) and `tvec` (m): its pose in the camera's frame. `instance_id` is its value in the mask.
    """

    name: str
    category: str
    instance_id: int
    area: int
    bbox: tuple[int, int, int, int] | None
    visibility: float
    occlusion: float
    truncated: bool
    corners: list[list[float] | None]
    corner_visible: list[bool]
    rvec: list[float]
    tvec: list[float]

    def to_dict(self) -> dict[str, Any]:
        """The annotation as plain data."""
        return shallow_dict(self)


def annotate(sample: Sample) -> list[Annotation]:
    """Annotate every object of a sample except the table, in the order of its bodies."""
    return [_annotate_body(sample, k, body) for k, body in enumerate(sample.params.bodies) if body.shape != "plane"]


def _annotate_body(sample: Sample, k: int, body: Body) -> Annotation:
    camera, mask = sample.params.camera, sample.mask == k
    inside, total = _projected_area(body, camera)
    area, alone = int(mask.sum()), max(inside, float(mask.sum()))  # the outline is right to a pixel or two
    corners = body.to_world(CUBE_CORNERS)
    pixels, z = camera.project(corners), camera.to_camera(corners)[:, 2]
    rotation = Rotation.from_quat(camera.rotation) * Rotation.from_quat(body.quaternion)
    return Annotation(
        name=body.name,
        category="target" if body.name == "cube" else body.shape,
        instance_id=k,
        area=area,
        bbox=mask_to_box(mask),
        visibility=area / max(total, area, 1.0),
        occlusion=1 - area / alone if alone else 0.0,
        truncated=inside < total * (1 - 1e-9),
        corners=[pixel.tolist() if np.isfinite(pixel).all() else None for pixel in pixels.round(3)],
        corner_visible=_visible(pixels, z, sample).tolist(),
        rvec=rotation.as_rotvec().tolist(),
        tvec=camera.to_camera(np.array([body.position]))[0].tolist(),
    )


def mask_to_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Left, top, width and height of the set pixels of a mask (H, W); None without any."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


def _projected_area(body: Body, camera: Camera) -> tuple[float, float]:
    """Area (px) of the body alone: inside the image, and in an unbounded one.

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
    total = float(hull.volume)  # in two dimensions that is the area
    if low.min() >= -0.5 and high[0] <= camera.width - 0.5 and high[1] <= camera.height - 0.5:
        return total, total
    inside = outline
    for axis, end in ((0, camera.width), (1, camera.height)):
        inside = _clip_polygon(inside, axis, -0.5, 1)
        inside = _clip_polygon(inside, axis, end - 0.5, -1)
    # A = 1/2 |sum x_i y_i+1 - x_i+1 y_i|
    (x, y), (x2, y2) = inside.T, np.roll(inside, -1, axis=0).T
    return float(abs((x * y2 - x2 * y).sum()) / 2), total


def _clip_polygon(outline: Array, axis: int, at: float, side: int) -> Array:
    """The part of a convex polygon (N, 2) on one side of a line: Sutherland and Hodgman (1974)."""
    vertices = []
    for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        da, db = side * (a[axis] - at), side * (b[axis] - at)
        if da >= 0:
            vertices.append(a)
        if da * db < 0:
            vertices.append(a + (b - a) * da / (da - db))
    return np.array(vertices).reshape(-1, 2)


def _visible(pixels: Array, z: Array, sample: Sample) -> NDArray[np.bool_]:
    """Whether corners at pixels (8, 2) and depths (8,) lie in the image with nothing in front of them.

    The farthest of the four pixels around a corner decides: at an outline some of them show the background.
    """
    height, width = sample.mask.shape
    u, v = np.nan_to_num(pixels.T, nan=-9)
    inside = (u >= -0.5) & (u <= width - 0.5) & (v >= -0.5) & (v <= height - 0.5)
    columns = np.clip([np.floor(u), np.ceil(u)], 0, width - 1).astype(np.intp)  # (2, 8)
    rows = np.clip([np.floor(v), np.ceil(v)], 0, height - 1).astype(np.intp)
    depths = sample.depth[rows[:, None], columns]  # (2, 2, 8)
    return np.asarray(inside & (depths.max(axis=(0, 1)) > z - _DEPTH_TOLERANCE))
