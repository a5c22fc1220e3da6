"""Scene parameters theta: camera, light, bodies with their meshes, and camera effects.

World: meters, z up, the table's surface at z = 0. Camera: OpenCV's convention, x right, y down, z forward; pixel
centers are integers, so the image spans -0.5 to width - 0.5.
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

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]  # x, y, z, w

# ── Meshes ──


_SEGMENTS, _RINGS = 20, 12  # facets around and along the axis of round shapes


@dataclass(frozen=True, eq=False)
class Mesh:
    """Vertices (V, 3), their texture coordinates (V, 2) and normals (V, 3), and triangles (T, 3)."""

    vertices: Array
    uvs: Array
    normals: Array
    triangles: NDArray[np.int64]

    @cached_property
    def pybullet_kwargs(self) -> dict[str, list[Any]]:
        """The mesh as arguments of `pybullet.createVisualShape`."""
        arrays = {
            "vertices": self.vertices,
            "uvs": self.uvs,
            "normals": self.normals,
            "indices": self.triangles.ravel(),
        }
        return {name: array.tolist() for name, array in arrays.items()}


def _quads(n: int) -> NDArray[np.int64]:
    """Two triangles for each of n groups of four vertices."""
    return np.asarray((4 * np.arange(n)[:, None, None] + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3))


def _cube(atlas: bool) -> Mesh:
    """Six faces, each with the full texture, or with its own sixth of an atlas of two rows of three."""
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
    u, v = np.meshgrid(np.arange(_SEGMENTS + 1) / _SEGMENTS, np.arange(_RINGS + 1) / _RINGS)
    a, b = 2 * np.pi * u.ravel(), np.pi * v.ravel()
    normals = np.column_stack([np.sin(b) * np.cos(a), np.sin(b) * np.sin(a), np.cos(b)])
    i = (np.arange(_RINGS)[:, None] * (_SEGMENTS + 1) + np.arange(_SEGMENTS)).ravel()
    below = i + _SEGMENTS + 1
    triangles = np.concatenate([np.column_stack([i, below, i + 1]), np.column_stack([i + 1, below, below + 1])])
    return Mesh(normals / 2, np.column_stack([u.ravel(), v.ravel()]), normals, triangles)


def _cylinder(top: float) -> Mesh:
    """A cylinder whose upper radius is `top` times the lower one: a cone with 0."""
    a = 2 * np.pi * np.arange(_SEGMENTS + 1) / _SEGMENTS
    ring = np.column_stack([np.cos(a), np.sin(a)]) / 2
    n, flat = _SEGMENTS + 1, np.ones(_SEGMENTS + 1)
    rims = [
        np.column_stack([ring, -flat / 2]),
        np.column_stack([ring * top, flat / 2]),
    ]  # once for sides, once for lids
    outward = np.column_stack([2 * ring, flat * (1 - top) / 2])
    up = np.tile([0.0, 0, 1], (n, 1))
    uv = np.arange(n) / _SEGMENTS
    uvs = [np.column_stack([uv, 0 * flat]), np.column_stack([uv, flat]), ring + 0.5, ring + 0.5]
    i = np.arange(_SEGMENTS)
    triangles = [
        np.column_stack([i, i + 1, i + n]),
        np.column_stack([i + 1, i + n + 1, i + n]),
        2 * n + np.column_stack([0 * i, i + 1, i])[1:],
        3 * n + np.column_stack([0 * i, i, i + 1])[1:],
    ]
    normals = np.concatenate([outward, outward, -up, up])
    return Mesh(np.concatenate(rims + rims), np.concatenate(uvs), normals, np.concatenate(triangles))


def _plane() -> Mesh:
    """A square at z = 0 that faces up, its texture repeated four times each way."""
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

# corners (8, 3) of the unit cube in the order of data/real-cube/labels.json: four at the bottom, the same at the top
CUBE_CORNERS = np.array([[x, y, z] for z in (-1, 1) for x, y in ((1, -1), (-1, -1), (-1, 1), (1, 1))]) / 2

# ── Theta ──


@dataclass(frozen=True)
class Camera:
    """A camera at `eye` (m) with `rotation` from world to camera; intrinsics in pixels, `near` and `far` planes in m.

    `k1` is the radial distortion: a point at radius r (in focal lengths) appears at r (1 + k1 r^2).
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
            raise InvalidArgument("near, far", (self.near, self.far), "0 < near < far, in meters")

    @property
    def K(self) -> Array:
        """Intrinsics (3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    @cached_property
    def R(self) -> Array:
        """Rotation (3, 3) from world to camera; its rows are the camera's right, down and forward axes."""
        return np.asarray(Rotation.from_quat(self.rotation).as_matrix())

    @cached_property
    def t(self) -> Array:
        """Translation (3,): the world point X has camera coordinates R X + t."""
        return np.asarray(-self.R @ np.asarray(self.eye))

    def to_camera(self, points: Array) -> Array:
        """Transform world points (N, 3) into the camera's frame, m."""
        return np.asarray(points @ self.R.T + self.t)

    def project(self, points: Array) -> Array:
        """Project world points (N, 3) to pixels (N, 2), with radial distortion; NaN behind the camera."""
        x, y, z = self.to_camera(points).T
        z = np.where(z > 0, z, np.nan)
        a, b = x / z, y / z
        distortion = 1 + self.k1 * (a**2 + b**2)
        return np.column_stack([self.fx * a * distortion + self.cx, self.fy * b * distortion + self.cy])


@dataclass(frozen=True)
class Light:
    """A distant light: direction, color in [0, 1], coefficients of the reflection model, with shadows or without."""

    direction: Vector  # from the scene to the light
    color: Vector
    distance: float  # m
    ambient: float
    diffuse: float
    specular: float
    shadow: bool


@dataclass(frozen=True)
class Body:
    """An object: its shape, its size along three axes (m), its pose, and its surface.

    `textures` names one texture for the entire surface, or for a cube one for each of its six faces; `color` tints it.
    """

    name: str
    shape: str
    size: Vector
    position: Vector  # of its center
    quaternion: Quaternion
    textures: tuple[str, ...]
    color: Vector

    @cached_property
    def R(self) -> Array:
        """Rotation (3, 3) from the body to the world."""
        return np.asarray(Rotation.from_quat(self.quaternion).as_matrix())

    def to_world(self, points: Array) -> Array:
        """Transform points (N, 3) of the unit shape, within +-0.5, into the world's frame."""
        return np.asarray((points * self.size) @ self.R.T + self.position)


@dataclass(frozen=True)
class CameraEffects:
    """Effects of lens, sensor and compression on the rendered image."""

    blur: float  # standard deviation, pixels
    exposure: float  # mean brightness that automatic gain aims at, 0 to 1
    gamma: float
    vignetting: float  # fraction of light lost in the corners
    noise: float  # standard deviation, gray levels of 255
    jpeg_quality: int  # 1 to 95
    grayscale: bool


@dataclass(frozen=True)
class SceneParams:
    """A scene, theta: all that determines an image. The first body is the table, the second the target."""

    camera: Camera
    light: Light
    bodies: tuple[Body, ...]
    background: str  # a texture's name
    effects: CameraEffects
    situation: str

    def __repr__(self) -> str:
        distance = (
            np.linalg.norm(np.subtract(self.camera.eye, self.bodies[1].position)) if len(self.bodies) > 1 else 0.0
        )
        names = ", ".join(body.name for body in self.bodies)
        return f"SceneParams({self.situation}: {names}; camera {distance:.2f} m away)"

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self, default=shallow_dict)

    @classmethod
    def from_json(cls, text: str) -> SceneParams:
        """Read a scene that `to_json` wrote. Raises `InvalidArgument`, also for shards of earlier versions."""
        try:
            values: dict[str, Any] = json.loads(text)
            if "finish" in values:
                raise InvalidArgument("text", text[:60], 'a scene with "effects", not "finish": render the shard again')
            camera, light, effects = (values.pop(name) for name in ("camera", "light", "effects"))
            bodies = tuple(Body(**_tuples(body)) for body in values.pop("bodies"))
            parts = (Camera(**_tuples(camera)), Light(**_tuples(light)), bodies)
            return cls(*parts, effects=CameraEffects(**effects), **values)
        except InvalidArgument:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidArgument("text", text[:60], f"a scene that to_json wrote ({error})") from None


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def look_at(eye: ArrayLike, target: ArrayLike, roll: float = 0.0, pixel: ArrayLike = (0, 0)) -> Quaternion:
    """Rotation of a camera at `eye` that shows `target` at `pixel`, level except for `roll` (rad).

    `pixel` is given as ((u - cx) / fx, (v - cy) / fy): (0, 0) is the principal point. Raises `InvalidArgument`.
    """
    forward = np.subtract(target, eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-9:
        raise InvalidArgument("eye, target", (eye, target), "two points, not one straight above the other")
    forward, right = forward / np.linalg.norm(forward), right / np.linalg.norm(right)
    level = Rotation.from_matrix(np.stack([right, np.cross(forward, right), forward]))
    ray = np.array([*np.asarray(pixel, dtype=float), 1.0])
    axis = np.cross([0, 0, 1], ray)  # of length tan(angle)
    tangent = np.linalg.norm(axis)
    offset = Rotation.from_rotvec(axis * (np.arctan(tangent) / tangent if tangent > 0 else 0.0))
    return quaternion(offset * Rotation.from_euler("z", roll) * level)


def quaternion(rotation: Rotation) -> Quaternion:
    """The rotation as four numbers: x, y, z, w."""
    x, y, z, w = (float(q) for q in rotation.as_quat())
    return x, y, z, w


def shallow_dict(instance: Any) -> dict[str, Any]:
    """A dataclass's fields by name, without the deep copies of `dataclasses.asdict`, which are slow."""
    return {field.name: getattr(instance, field.name) for field in fields(instance)}


def view_matrix(camera: Camera) -> list[float]:
    """World to OpenGL's camera (x right, y up, z backward), in column-major order as PyBullet expects."""
    view = np.eye(4)
    view[:3, :3], view[:3, 3] = camera.R, camera.t
    view[1:3] *= -1
    return [float(v) for v in view.T.ravel()]


def projection_matrix(camera: Camera) -> list[float]:
    """The intrinsics as an OpenGL projection: ndc_x = 2 u / W - 1, ndc_y = 1 - 2 (v + 1) / H.

    The center of pixel u should lie at ndc_x = 2 (u + 0.5) / W - 1. TinyRenderer puts it half a pixel to the right and
    counts rows from below, which moves the image half a pixel up; both offsets are corrected here.
    """
    w, h, n, f = camera.width, camera.height, camera.near, camera.far
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[0, 2] = 2 * camera.fx / w, 1 - 2 * camera.cx / w
    matrix[1, 1], matrix[1, 2] = 2 * camera.fy / h, 2 * (camera.cy + 1) / h - 1
    matrix[2, 2], matrix[2, 3], matrix[3, 2] = -(f + n) / (f - n), -2 * f * n / (f - n), -1
    return [float(v) for v in matrix.T.ravel()]
