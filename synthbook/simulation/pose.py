"""Where is the cube? Its pose from eight pixels: the perspective-n-point problem.

A first guess solves linear equations (the direct linear transform); then the squared distance in pixels is minimised
over rotation and translation. Hartley and Zisserman, "Multiple View Geometry" (2004), section 7.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array


@dataclass(frozen=True, eq=False)
class Pose:
    """From the body's frame to the camera's: X_camera = R X + t, metres; `residual`: rms distance in pixels."""

    R: Array
    t: Array
    reprojection_rmse: float

    def __call__(self, points: ArrayLike) -> Array:
        """Points (N, 3) of the body in the camera's frame."""
        return np.asarray(np.asarray(points) @ self.R.T + self.t)


def solve_pnp(points: ArrayLike, pixels: ArrayLike, K: ArrayLike) -> Pose:
    """The pose that shows `points` (N, 3) m at `pixels` (N, 2) of a camera with intrinsics K (3, 3).

    Needs six points that do not lie in one plane. Raises `InvalidArgument`.
    """
    x, u, k = (np.asarray(values, dtype=float) for values in (points, pixels, K))
    if x.ndim != 2 or x.shape[1] != 3 or u.shape != (len(x), 2) or k.shape != (3, 3):
        raise InvalidArgument("points, pixels, K", (x.shape, u.shape, k.shape), "shapes (N, 3), (N, 2) and (3, 3)")
    if not all(np.isfinite(values).all() for values in (x, u, k)):
        raise InvalidArgument("points, pixels, K", "arrays with NaN or infinity", "finite numbers")
    if len(x) < 6 or np.linalg.matrix_rank(x - x.mean(axis=0), tol=1e-9) < 3:
        raise InvalidArgument("points", f"{len(x)} points", "six or more that do not lie in one plane")
    if abs(np.linalg.det(k)) < 1e-9:
        raise InvalidArgument("K", k.tolist(), "intrinsics with focal lengths above 0")
    rays = np.column_stack([u, np.ones(len(u))]) @ np.linalg.inv(k).T  # (N, 3), z = 1
    first = _linear(x, rays[:, :2])

    def misses(pose: Array) -> Array:
        seen = Rotation.from_rotvec(pose[:3]).apply(x) + pose[3:]
        shown = seen @ k.T
        z = np.maximum(shown[:, 2:], 1e-6)
        return np.asarray((shown[:, :2] / z - u).ravel())

    found = least_squares(misses, np.concatenate([Rotation.from_matrix(first[0]).as_rotvec(), first[1]]), method="lm")
    R = Rotation.from_rotvec(found.x[:3]).as_matrix()
    return Pose(R, found.x[3:], float(np.sqrt(2 * (found.fun**2).mean())))


def _linear(x: Array, rays: Array) -> tuple[Array, Array]:
    """Direct linear transform: the 3 x 4 matrix P with rays x P X = 0, then the nearest rotation."""
    centre, scale = x.mean(axis=0), float(np.abs(x - x.mean(axis=0)).max())
    h = np.column_stack([(x - centre) / scale, np.ones(len(x))])  # (N, 4)
    zero = np.zeros_like(h)
    rows = np.concatenate([np.hstack([h, zero, -rays[:, :1] * h]), np.hstack([zero, h, -rays[:, 1:] * h])])
    p = np.linalg.svd(rows)[2][-1].reshape(3, 4)
    p = p * np.sign(p[2] @ h.mean(axis=0))  # in front of the camera
    a, s, b = np.linalg.svd(p[:, :3])
    R = a @ np.diag([1, 1, np.linalg.det(a @ b)]) @ b
    t = p[:, 3] * scale / s.mean() - R @ centre
    return R, t
