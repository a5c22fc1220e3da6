"""Pose of a cube from its eight corners in an image, and the errors of an estimate on real photographs.

The perspective-n-point problem: the direct linear transform gives a first estimate, then nonlinear least squares
minimizes the reprojection error. Hartley and Zisserman, "Multiple View Geometry" (2004), section 7.1.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import ORANGE, subplots
from synthbook.core.storage import Provenance, write_with_provenance
from synthbook.core.table import Holdout
from synthbook.core.types import Array, Photographs
from synthbook.simulation.randomize import CUBE_SIZE
from synthbook.simulation.scene import CUBE_CORNERS

_CornerPredictor = Callable[[NDArray[np.uint8]], Array]  # gray images (N, H, W) to corners (N, 8, 2) px
# corners of the cube after 0, 1, 2, 3 quarter turns about the vertical; the first four are the lower ones
SYMMETRIES = np.array([[(i + k) % 4 + 4 * (i // 4) for i in range(8)] for k in range(4)])
_EDGES = [(i, (i + 1) % 4 + 4 * (i // 4)) for i in range(8)] + [(i, i + 4) for i in range(4)]  # pairs of corners


@dataclass(frozen=True, eq=False)
class Pose:
    """Transform from the body's frame to the camera's, X_camera = R X + t (m), and the RMS reprojection error (px)."""

    R: Array
    t: Array
    reprojection_rmse: float

    def __call__(self, points: ArrayLike) -> Array:
        """Transform points (N, 3) of the body into the camera's frame."""
        return np.asarray(np.asarray(points) @ self.R.T + self.t)


def solve_pnp(points: ArrayLike, pixels: ArrayLike, K: ArrayLike) -> Pose:
    """Estimate the pose that projects `points` (N, 3) m to `pixels` (N, 2) in a camera with intrinsics K (3, 3).

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
    R, t = _direct_linear_transform(x, rays[:, :2])

    def residuals(pose: Array) -> Array:
        projected = (Rotation.from_rotvec(pose[:3]).apply(x) + pose[3:]) @ k.T
        z = np.maximum(projected[:, 2:], 1e-6)
        return np.asarray((projected[:, :2] / z - u).ravel())

    fit = least_squares(residuals, np.concatenate([Rotation.from_matrix(R).as_rotvec(), t]), method="lm")
    R = Rotation.from_rotvec(fit.x[:3]).as_matrix()
    return Pose(R, fit.x[3:], float(np.sqrt(2 * (fit.fun**2).mean())))


def _direct_linear_transform(x: Array, rays: Array) -> tuple[Array, Array]:
    """The 3 x 4 matrix P with rays x P X = 0, then the nearest rotation; returns R (3, 3) and t (3,)."""
    center, scale = x.mean(axis=0), float(np.abs(x - x.mean(axis=0)).max())
    h = np.column_stack([(x - center) / scale, np.ones(len(x))])  # (N, 4)
    zero = np.zeros_like(h)
    rows = np.concatenate([np.hstack([h, zero, -rays[:, :1] * h]), np.hstack([zero, h, -rays[:, 1:] * h])])
    p = np.linalg.svd(rows)[2][-1].reshape(3, 4)
    p = p * np.sign(p[2] @ h.mean(axis=0))  # in front of the camera
    a, s, b = np.linalg.svd(p[:, :3])
    R = a @ np.diag([1, 1, np.linalg.det(a @ b)]) @ b
    return R, p[:, 3] * scale / s.mean() - R @ center


def plot_image(image: NDArray[np.uint8], ax: Axes) -> None:
    """Draw an image (H, W) of gray levels or (H, W, 3), without ticks."""
    ax.imshow(image, cmap="gray", vmin=0, vmax=255)
    ax.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5), xticks=[], yticks=[])
    ax.grid(False)


def plot_corners(corners: ArrayLike, ax: Axes) -> Axes:
    """Draw a cube's eight corners (8, 2) px, in the order of `scene.CUBE_CORNERS`, and its twelve edges."""
    points = np.asarray(corners, dtype=float)
    for a, b in _EDGES:
        ax.plot(*points[[a, b]].T, "-", color=ORANGE, linewidth=1)
    ax.plot(*points.T, "o", color=ORANGE, markersize=3)
    return ax


# ── Errors, and scores on real photographs ──
# The 140 photographs are frames of one video, so neighbors are similar: intervals come from a block bootstrap.


_BLOCK = 14  # frames
_REPLICATES = 2_000
_CROP = (240, 180)  # width and height (px) of a random crop from a photograph of 320 x 240


@dataclass(frozen=True, eq=False)
class PoseErrors:
    """Distances between estimated and true cube: centers (N,) cm, mean over corners (N,) cm, and (N,) px.

    Corners are compared after the best of the four quarter turns about the vertical.
    """

    center: Array
    corner: Array
    pixel: Array


def pose_errors(corners: Array, pixels: Array, points: Array, K: ArrayLike, *, side: float = CUBE_SIZE) -> PoseErrors:
    """Errors of predicted `corners` (N, 8, 2) px against the true `pixels` and `points` (N, 8, 3) m.

    `points` are in the camera's frame; the intrinsics K are (3, 3), or (N, 3, 3).
    """
    cube = CUBE_CORNERS * side
    intrinsics = np.broadcast_to(np.asarray(K, dtype=float), (len(corners), 3, 3))
    estimates = np.array([solve_pnp(cube, uv, k)(cube) for uv, k in zip(corners, intrinsics, strict=True)])  # (N, 8, 3)
    center = np.linalg.norm(estimates.mean(1) - points.mean(1), axis=-1)
    return PoseErrors(100 * center, 100 * corner_distance(estimates, points), corner_distance(corners, pixels))


def corner_distance(predicted: Array, true: Array) -> Array:
    """Mean distance (N,) of eight corners (N, 8, 2 or 3) from the true ones, after the best quarter turn."""
    return np.asarray(np.linalg.norm(predicted[:, None] - true[:, SYMMETRIES], axis=-1).mean(-1).min(-1))


def photo_errors(predict: _CornerPredictor, photographs: Holdout[Photographs]) -> PoseErrors:
    """Errors on the photographs at their full size."""
    real = _photographs(photographs)
    return pose_errors(predict(real.images), real.corners, real.corner_points, real.K, side=real.cube_side)


def random_crop_errors(predict: _CornerPredictor, photographs: Holdout[Photographs], *, seed: int) -> PoseErrors:
    """Errors on one random crop of each photograph that contains the whole cube."""
    real, rng = _photographs(photographs), np.random.default_rng(seed)
    (width, height), (image_height, image_width) = _CROP, real.images.shape[1:]
    crops, pixels, intrinsics = [], [], []
    for image, truth in zip(real.images, real.corners, strict=True):
        low = np.maximum(np.ceil(truth.max(axis=0)) - [width, height] + 1, 0)
        high = np.minimum(np.floor(truth.min(axis=0)), [image_width - width, image_height - height])
        left, top = (int(rng.integers(int(a), max(int(b), int(a)) + 1)) for a, b in zip(low, high, strict=True))
        crops.append(image[top : top + height, left : left + width])
        pixels.append(truth - [left, top])
        intrinsics.append(real.K - np.array([[0, 0, left], [0, 0, top], [0, 0, 0]]))
    predicted = predict(np.stack(crops))
    return pose_errors(predicted, np.stack(pixels), real.corner_points, np.stack(intrinsics), side=real.cube_side)


def constant_baseline_errors(photographs: Holdout[Photographs]) -> PoseErrors:
    """Errors of the best constant prediction: the cube's mean position over these same photographs."""
    real = _photographs(photographs)
    points, mean = real.corner_points, real.corner_points.mean(axis=0)  # (N, 8, 3), (8, 3)
    center = np.linalg.norm(mean.mean(axis=0) - points.mean(1), axis=-1)
    corner = np.linalg.norm(mean - points, axis=-1).mean(-1)
    pixel = np.linalg.norm(real.corners.mean(axis=0) - real.corners, axis=-1).mean(-1)
    return PoseErrors(100 * center, 100 * corner, pixel)


def _photographs(photographs: Holdout[Photographs]) -> Photographs:
    if not isinstance(photographs, Holdout) or not isinstance(photographs.data, Photographs):
        raise InvalidArgument("photographs", type(photographs).__name__, "the Holdout that real_cube() returns")
    return photographs.data


@dataclass(frozen=True)
class PoseScore:
    """Mean errors in cm with 95 % block-bootstrap intervals, for the cube's center and its corners."""

    name: str
    center: float
    center_low: float
    center_high: float
    corner: float
    corner_low: float
    corner_high: float
    pixel: float
    n: int

    def __str__(self) -> str:
        center = f"center {self.center:.2f} cm ({self.center_low:.2f} to {self.center_high:.2f})"
        corner = f"corners {self.corner:.2f} cm ({self.corner_low:.2f} to {self.corner_high:.2f})"
        return f"{self.name}: {center}, {corner}, {self.pixel:.1f} px, {self.n} photographs"


def bootstrap_score(name: str, errors: PoseErrors, *, seed: int = 0, block: int = _BLOCK) -> PoseScore:
    """Means and intervals of errors on consecutive frames, by resampling blocks of `block` frames."""
    n = len(errors.center)
    if n < 2 * block:
        raise InvalidArgument("block", block, f"at most half of the {n} frames")
    blocks = np.array_split(np.arange(n), n // block)
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(blocks), size=(_REPLICATES, len(blocks)))

    def interval(values: Array) -> tuple[float, float, float]:
        sums, sizes = np.array([values[b].sum() for b in blocks]), np.array([len(b) for b in blocks])
        low, high = np.quantile(sums[draws].sum(1) / sizes[draws].sum(1), (0.025, 0.975))
        return float(values.mean()), float(low), float(high)

    return PoseScore(name, *interval(errors.center), *interval(errors.corner), float(errors.pixel.mean()), n)


# ── Detection in one photograph ──


_MAX_PIXELS = 50_000_000
IMAGE_SIZE = (320, 240)  # width and height (px) of the images that the localizer is trained on


@dataclass(frozen=True, eq=False)
class Detection:
    """A cube in a photograph: its corners (8, 2) px in the order of data/real-cube/labels.json, the bounding box
    (left, top, right, bottom) px, and its pose (m) if the camera's intrinsics are known."""

    corners: Array
    box: tuple[float, float, float, float]
    pose: Pose | None

    def __repr__(self) -> str:
        return f"Detection({self})"

    def __str__(self) -> str:
        corners = " ".join(f"({u:.0f}, {v:.0f})" for u, v in self.corners)
        position = ""
        if self.pose is not None:
            x, y, z = 100 * self.pose.t
            position = f"; center {x:.1f} cm right, {y:.1f} down, {z:.1f} ahead"
        return "box {:.0f}, {:.0f} to {:.0f}, {:.0f}".format(*self.box) + f"; corners {corners}{position}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the pose as rotation matrix and translation (m), for a cube of 8.4 cm."""
        document: dict[str, Any] = {"corners": self.corners.round(2).tolist(), "box": [round(v, 2) for v in self.box]}
        if self.pose is not None:
            pose = {"R": self.pose.R.round(6).tolist(), "t_m": self.pose.t.round(5).tolist(), "edge_m": CUBE_SIZE}
            document["pose"] = pose | {"reprojection_rmse_px": round(self.pose.reprojection_rmse, 3)}
        return document


def locate(localizer: _CornerPredictor, image: NDArray[np.uint8], K: ArrayLike | None = None) -> Detection:
    """Locate the cube in a gray image (H, W) of any size, and its pose if intrinsics K (3, 3) px are given.

    The networks return a cube for every image, also where there is none. Raises `InvalidArgument`.
    """
    if image.ndim != 2 or min(image.shape) < 32 or image.dtype != np.uint8:
        raise InvalidArgument("image", f"{image.dtype} {image.shape}", "gray levels (H, W), uint8, 32 pixels or more")
    height, width = image.shape
    scale = min(IMAGE_SIZE[0] / width, IMAGE_SIZE[1] / height)
    size = tuple(max(2 * round(side * scale / 2), 32) for side in (width, height))
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    # pixel u of the image lies at (u + 0.5) * scale - 0.5 of the resized one
    corners = (localizer(resized[None])[0] + 0.5) / scale - 0.5
    pose = None if K is None else solve_pnp(CUBE_CORNERS * CUBE_SIZE, corners, K)
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return Detection(corners, (float(left), float(top), float(right), float(bottom)), pose)


def read_photograph(path: Path) -> NDArray[np.uint8]:
    """Read a photograph as gray levels (H, W), rotated upright as its EXIF data say. Raises `InvalidArgument`."""
    try:
        with Image.open(path) as file:
            if file.width * file.height > _MAX_PIXELS:
                raise InvalidArgument(
                    "photo", f"{path}: {file.width} x {file.height}", f"at most {_MAX_PIXELS:,} pixels"
                )
            return np.asarray(ImageOps.exif_transpose(file).convert("L"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InvalidArgument("photo", str(path), f"an image file that can be read ({error})") from None


def read_intrinsics(path: Path) -> Array:
    """Read K (3, 3) from JSON: the matrix itself, or an object with the key "K". Raises `InvalidArgument`."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        k = np.array(document["K"] if isinstance(document, dict) else document, dtype=float)
    except (OSError, ValueError, KeyError, TypeError) as error:
        accepted = f'JSON such as {{"K": [[f, 0, cx], [0, f, cy], [0, 0, 1]]}} ({error})'
        raise InvalidArgument("intrinsics", str(path), accepted) from None
    if k.shape != (3, 3) or not np.isfinite(k).all() or k[0, 0] <= 0 or k[1, 1] <= 0 or (k[2] != [0, 0, 1]).any():
        raise InvalidArgument("intrinsics", k.tolist(), "[[fx, skew, cx], [0, fy, cy], [0, 0, 1]] with fx, fy above 0")
    return k


def save_detection_plot(image: NDArray[np.uint8], detection: Detection, path: Path) -> Path:
    """Write the photograph, with the detected corners and edges drawn over it, as a PNG file."""
    figure, (ax,) = subplots(1, 1, width=6, height=4.5)
    plot_image(image, ax)
    plot_corners(detection.corners, ax)
    return save_figure(figure, path, Provenance("a photograph and the cube detected in it", "synthbook locate"))


def save_figure(figure: Figure, path: Path, provenance: Provenance) -> Path:
    """Write a figure as a PNG file with its provenance, and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return write_with_provenance(path, buffer.getvalue(), provenance)
