"""Unit shapes as triangles, within +-0.5 along each axis: few enough that a scene is built in a millisecond."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
AROUND, DOWN = 20, 12  # facets of a sphere


@dataclass(frozen=True, eq=False)
class Shape:
    """Vertices (V, 3), the texture's coordinates there (V, 2), normals (V, 3), and triangles (T, 3)."""

    vertices: Array
    uvs: Array
    normals: Array
    triangles: NDArray[np.int64]

    @cached_property
    def lists(self) -> dict[str, list[Any]]:
        """The same as lists, under PyBullet's names."""
        vertices, uvs, normals = (part.tolist() for part in (self.vertices, self.uvs, self.normals))
        return {"vertices": vertices, "uvs": uvs, "normals": normals, "indices": self.triangles.ravel().tolist()}


def _quads(n: int) -> NDArray[np.int64]:
    """Two triangles for each of n groups of four vertices."""
    return np.asarray((4 * np.arange(n)[:, None, None] + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3))


def _cube(atlas: bool) -> Shape:
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
    return Shape(np.concatenate(vertices), np.concatenate(uvs), np.concatenate(normals), _quads(6))


def _sphere() -> Shape:
    across, down = np.meshgrid(np.arange(AROUND + 1) / AROUND, np.arange(DOWN + 1) / DOWN)
    a, b = 2 * np.pi * across.ravel(), np.pi * down.ravel()
    normals = np.column_stack([np.sin(b) * np.cos(a), np.sin(b) * np.sin(a), np.cos(b)])
    i = (np.arange(DOWN)[:, None] * (AROUND + 1) + np.arange(AROUND)).ravel()
    below = i + AROUND + 1
    triangles = np.concatenate([np.column_stack([i, below, i + 1]), np.column_stack([i + 1, below, below + 1])])
    return Shape(normals / 2, np.column_stack([across.ravel(), down.ravel()]), normals, triangles)


def _cylinder(top: float) -> Shape:
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
    return Shape(np.concatenate(side + lids), np.concatenate(uvs), normals, np.concatenate(triangles))


def _plane() -> Shape:
    """A square at z = 0 that faces up, its texture repeated."""
    corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    return Shape(np.pad(corner, ((0, 0), (0, 1))), (corner + 0.5) * 4, np.tile([0.0, 0, 1], (4, 1)), _quads(1))


SHAPES = {
    "cube": _cube(atlas=False),
    "cube of six": _cube(atlas=True),
    "sphere": _sphere(),
    "cylinder": _cylinder(top=1),
    "cone": _cylinder(top=0),
    "plane": _plane(),
}

# the corners of the unit cube in the order of data/real-cube/labels.json: four below, the same four above
CORNERS = np.array([[1, -1], [-1, -1], [-1, 1], [1, 1]]) / 2
CORNERS = np.concatenate([np.column_stack([CORNERS, [z] * 4]) for z in (-0.5, 0.5)])  # (8, 3)
