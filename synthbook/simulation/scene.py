"""What stands in front of the camera: theta, every number and name that a rendered image follows from.

World: metres, z up, the table's surface at z = 0. Camera: OpenCV's convention, x right, y down, z forward; pixels have
their centre at whole numbers, so the image spans -0.5 to width - 0.5.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array

AROUND, DOWN = 20, 12  # facets of a sphere


@dataclass(frozen=True, eq=False)
class Mesh:
    """Vertices (V, 3), the texture's coordinates there (V, 2), normals (V, 3), and triangles (T, 3)."""

    vertices: Array
    uvs: Array
    normals: Array
    triangles: NDArray[np.int64]

    @cached_property
    def pybullet_kwargs(self) -> dict[str, list[Any]]:
        """The same as lists, under PyBullet's names."""
        vertices, uvs, normals = (part.tolist() for part in (self.vertices, self.uvs, self.normals))
        return {"vertices": vertices, "uvs": uvs, "normals": normals, "indices": self.triangles.ravel().tolist()}


def _quads(n: int) -> NDArray[np.int64]:
    """Two triangles for each of n groups of four vertices."""
    return np.asarray((4 * np.arange(n)[:, None, None] + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3))


def _cube(atlas: bool) -> Mesh:
    """Six faces, each with the whole texture, or with its own sixth of an atlas of two rows of three."""
    corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    vertices, uvs, normals = [], [], []
    for k in range(6):
        normal = np.roll([1.0, 0, 0], k % 3) * (1 if k < 3 else -1)
        first = np.roll(normal, 1)
        second = np.cross(normal, first)
        vertices.append(normal / 2 + corner[:, :1] * first + corner[:, 1:] * second)
        normals.append(np.tile(normal, (4, 1)))
        cell = np.array([k % 3, k // 3]) if atlas else np.zeros(2)
        uvs.append((corner + 0.5 + cell) / ((3, 2) if atlas else 1))
    return Mesh(np.concatenate(vertices), np.concatenate(uvs), np.concatenate(normals), _quads(6))


def _sphere() -> Mesh:
    across, down = np.meshgrid(np.arange(AROUND + 1) / AROUND, np.arange(DOWN + 1) / DOWN)
    a, b = 2 * np.pi * across.ravel(), np.pi * down.ravel()
    normals = np.column_stack([np.sin(b) * np.cos(a), np.sin(b) * np.sin(a), np.cos(b)])
    i = (np.arange(DOWN)[:, None] * (AROUND + 1) + np.arange(AROUND)).ravel()
    below = i + AROUND + 1
    triangles = np.concatenate([np.column_stack([i, below, i + 1]), np.column_stack([i + 1, below, below + 1])])
    return Mesh(normals / 2, np.column_stack([across.ravel(), down.ravel()]), normals, triangles)


def _cylinder(top: float) -> Mesh:
    """A cylinder; with `top` 0 a cone."""
    a = 2 * np.pi * np.arange(AROUND + 1) / AROUND
    ring = np.column_stack([np.cos(a), np.sin(a)]) / 2
    n, flat = AROUND + 1, np.ones(AROUND + 1)
    side = [np.column_stack([ring, -flat / 2]), np.column_stack([ring * top, flat / 2])]
    lids = [np.column_stack([ring, -flat / 2]), np.column_stack([ring * top, flat / 2])]
    outward = np.column_stack([2 * ring, flat * (1 - top) / 2])
    up = np.tile([0.0, 0, 1], (n, 1))
    uv = np.arange(n) / AROUND
    uvs = [np.column_stack([uv, 0 * flat]), np.column_stack([uv, flat]), ring + 0.5, ring + 0.5]
    i = np.arange(AROUND)
    triangles = [
        np.column_stack([i, i + 1, i + n]),
        np.column_stack([i + 1, i + n + 1, i + n]),
        2 * n + np.column_stack([0 * i, i + 1, i])[1:],
        3 * n + np.column_stack([0 * i, i, i + 1])[1:],
    ]
    normals = np.concatenate([outward, outward, -up, up])
    return Mesh(np.concatenate(side + lids), np.concatenate(uvs), normals, np.concatenate(triangles))


def _plane() -> Mesh:
    """A square at z = 0 that faces up, its texture repeated."""
    corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    return Mesh(np.pad(corner, ((0, 0), (0, 1))), (corner + 0.5) * 4, np.tile([0.0, 0, 1], (4, 1)), _quads(1))


SHAPES = {
    "cube": _cube(atlas=False),
    "cube of six": _cube(atlas=True),
    "sphere": _sphere(),
    "cylinder": _cylinder(top=1),
    "cone": _cylinder(top=0),
    "plane": _plane(),
}

# the corners of the unit cube in the order of data/real-cube/labels.json: four below, the same four above
CUBE_CORNERS = np.array([[1, -1], [-1, -1], [-1, 1], [1, 1]]) / 2
CUBE_CORNERS = np.concatenate([np.column_stack([CUBE_CORNERS, [z] * 4]) for z in (-0.5, 0.5)])  # (8, 3)
Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]  # x, y, z, w
UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Camera:
    """A camera at `eye` (m), `rotation` from world to camera; intrinsics in pixels.

    `k1` is radial distortion: a point at radius r (in focal lengths) is seen at r (1 + k1 r^2).
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    eye: Vector
    rotation: Quaternion
    k1: float = 0.0
    near: float = 0.05
    far: float = 5.0

    def __post_init__(self) -> None:
        for name in ("width", "height", "fx", "fy"):
            if not getattr(self, name) > 0:
                raise InvalidArgument(name, getattr(self, name), "a number above 0")
        if not 0 < self.near < self.far:
            raise InvalidArgument("near, far", (self.near, self.far), "0 < near < far, in metres")

    @property
    def K(self) -> Array:
        """Intrinsics (3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    @cached_property
    def R(self) -> Array:
        """Rotation (3, 3) from world to camera; its rows are the camera's right, down and forward."""
        return np.asarray(Rotation.from_quat(self.rotation).as_matrix())

    @cached_property
    def t(self) -> Array:
        """Translation (3,): a world point X lies at R X + t of the camera."""
        return np.asarray(-self.R @ np.asarray(self.eye))

    def to_camera(self, points: Array) -> Array:
        """World points (N, 3) in the camera's frame (N, 3), m."""
        return np.asarray(points @ self.R.T + self.t)

    def project(self, points: Array) -> Array:
        """World points (N, 3) in pixels (N, 2), lens included; NaN behind the camera."""
        x, y, z = self.to_camera(points).T
        z = np.where(z > 0, z, np.nan)
        a, b = x / z, y / z
        bend = 1 + self.k1 * (a**2 + b**2)
        return np.column_stack([self.fx * a * bend + self.cx, self.fy * b * bend + self.cy])


@dataclass(frozen=True)
class Light:
    """A distant lamp: where it stands, its colour in [0, 1], and how much of it reaches surfaces in which way."""

    direction: Vector  # from the scene to the lamp
    colour: Vector
    distance: float  # m
    ambient: float
    diffuse: float
    specular: float
    shadow: bool


@dataclass(frozen=True)
class Body:
    """A thing: its shape's size along three axes (m), where it is, and how its surface looks.

    `textures` names one texture for the whole surface, or for a cube one for each of its six faces; `colour` tints it.
    """

    name: str
    shape: str
    size: Vector
    position: Vector  # of its centre
    quaternion: Quaternion
    textures: tuple[str, ...]
    colour: Vector

    @cached_property
    def R(self) -> Array:
        """Rotation (3, 3) from the body to the world."""
        return np.asarray(Rotation.from_quat(self.quaternion).as_matrix())

    def to_world(self, points: Array) -> Array:
        """Points (N, 3) of the unit shape, within +-0.5, in the world."""
        return np.asarray((points * self.size) @ self.R.T + self.position)


@dataclass(frozen=True)
class CameraEffects:
    """What lens, sensor and file do to the picture after it was rendered."""

    blur: float  # standard deviation, pixels
    exposure: float  # mean brightness that the camera turns its gain for, 0 to 1
    gamma: float
    vignetting: float  # share of light lost in the corners
    noise: float  # standard deviation, grey levels of 255
    jpeg: int  # quality, 1 to 95
    grey: bool


@dataclass(frozen=True)
class SceneParams:
    """theta: everything that an image follows from. The first body is the table, the second the one to find."""

    camera: Camera
    light: Light
    bodies: tuple[Body, ...]
    background: str  # a texture's name
    finish: CameraEffects
    situation: str

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self, default=shallow)

    @classmethod
    def from_dict(cls, text: str) -> SceneParams:
        """The scene that `to_json` wrote."""
        try:
            parts: dict[str, Any] = json.loads(text)
            camera, light, finish = (parts.pop(name) for name in ("camera", "light", "finish"))
            bodies = tuple(Body(**_tuples(body)) for body in parts.pop("bodies"))
            made = (Camera(**_tuples(camera)), Light(**_tuples(light)), bodies)
            return cls(*made, finish=CameraEffects(**finish), **parts)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidArgument("text", text[:60], f"a scene that to_json wrote ({error})") from None


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def look_at(eye: ArrayLike, target: ArrayLike, roll: float = 0.0, pixel: ArrayLike = (0, 0)) -> Quaternion:
    """The rotation of a camera at `eye` that shows `target` at `pixel`, level but for `roll` (rad).

    `pixel` is given as ((u - cx) / fx, (v - cy) / fy): (0, 0) is where the optical axis meets the picture.
    """
    forward = np.subtract(target, eye)
    right = np.cross(forward, UP)
    if np.linalg.norm(right) < 1e-9:
        raise InvalidArgument("eye, target", (eye, target), "two points, not one straight above the other")
    forward, right = forward / np.linalg.norm(forward), right / np.linalg.norm(right)
    level = Rotation.from_matrix(np.stack([right, np.cross(forward, right), forward]))
    ray = np.array([*np.asarray(pixel, dtype=float), 1.0])
    axis = np.cross([0, 0, 1], ray)  # as long as tan(angle)
    tangent = np.linalg.norm(axis)
    aside = Rotation.from_rotvec(axis * (np.arctan(tangent) / tangent if tangent > 0 else 0.0))
    return quaternion(aside * Rotation.from_euler("z", roll) * level)


def quaternion(turn: Rotation) -> Quaternion:
    """The rotation as four plain numbers: x, y, z, w."""
    x, y, z, w = (float(q) for q in turn.as_quat())
    return x, y, z, w


def shallow(part: Any) -> dict[str, Any]:
    """A dataclass's fields by name; `asdict` would copy every number in it, which takes longer than drawing them."""
    return {field.name: getattr(part, field.name) for field in fields(part)}


def view_matrix(camera: Camera) -> list[float]:
    """World to OpenGL's camera (x right, y up, z backward), column by column as PyBullet wants it."""
    view = np.eye(4)
    view[:3, :3], view[:3, 3] = camera.R, camera.t
    view[1:3] *= -1
    return [float(v) for v in view.T.ravel()]


def projection_matrix(camera: Camera) -> list[float]:
    """The intrinsics as an OpenGL projection: ndc_x = 2 u / W - 1, ndc_y = 1 - 2 (v + 1) / H.

    The centre of pixel u should lie at ndc_x = 2 (u + 0.5) / W - 1. TinyRenderer puts it half a pixel to the right, and
    counts rows from below, which moves the picture half a pixel up; both are made up for here.
    """
    w, h, n, f = camera.width, camera.height, camera.near, camera.far
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[0, 2] = 2 * camera.fx / w, 1 - 2 * camera.cx / w
    matrix[1, 1], matrix[1, 2] = 2 * camera.fy / h, 2 * (camera.cy + 1) / h - 1
    matrix[2, 2], matrix[2, 3], matrix[3, 2] = -(f + n) / (f - n), -2 * f * n / (f - n), -1
    return [float(v) for v in matrix.T.ravel()]
