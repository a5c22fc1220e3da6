"""Find the cube in any photograph."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from PIL import Image, UnidentifiedImageError

from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import new_axes
from synthbook.core.storage import Provenance, write_with_provenance
from synthbook.core.types import Array
from synthbook.simulation.export import plot_corners
from synthbook.simulation.localizer import Localizer, resized, solve_poses
from synthbook.simulation.pose import Pose
from synthbook.simulation.randomize import CUBE_SIZE

MAX_PIXELS = 50_000_000  # pixels of a photograph


@dataclass(frozen=True, eq=False)
class Detection:
    """A cube in a photograph: its corners (8, 2) px in the order of data/real-cube/labels.json, the box around them
    (left, top, right, bottom), and where intrinsics were given its pose and the distance to its centre in metres."""

    corners: Array
    box: tuple[float, float, float, float]
    pose: Pose | None

    def __str__(self) -> str:
        corners = " ".join(f"({u:.0f}, {v:.0f})" for u, v in self.corners)
        where = ""
        if self.pose is not None:
            x, y, z = 100 * self.pose.t
            where = f"; centre {x:.1f} cm right, {y:.1f} down, {z:.1f} ahead"
        return "box {:.0f}, {:.0f} to {:.0f}, {:.0f}".format(*self.box) + f"; corners {corners}{where}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the pose as rotation matrix and translation in metres, for a cube of 8.4 cm."""
        document: dict[str, Any] = {"corners": self.corners.round(2).tolist(), "box": [round(v, 2) for v in self.box]}
        if self.pose is not None:
            found = {"R": self.pose.R.round(6).tolist(), "t_m": self.pose.t.round(5).tolist(), "edge_m": CUBE_SIZE}
            document["pose"] = found | {"residual_px": round(self.pose.reprojection_rmse, 3)}
        return document


def locate(find: Localizer, image: NDArray[np.uint8], K: ArrayLike | None = None) -> Detection:
    """The cube in a grey picture (H, W) of any size; its pose needs the camera's intrinsics K (3, 3) in pixels.

    The network always answers: it was trained on pictures that show a cube. Raises `InvalidArgument`.
    """
    if image.ndim != 2 or min(image.shape) < 32 or image.dtype != np.uint8:
        raise InvalidArgument("image", f"{image.dtype} {image.shape}", "grey levels (H, W), uint8, 32 pixels or more")
    small, factor = resized(image)
    corners = (find(small[None])[0] + 0.5) / factor - 0.5
    pose = None if K is None else solve_poses(corners[None], K)[0]
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return Detection(corners, (float(left), float(top), float(right), float(bottom)), pose)


def read_photograph(path: Path) -> NDArray[np.uint8]:
    """A photograph as grey levels (H, W), turned upright as its EXIF data say. Raises `InvalidArgument`."""
    from PIL import ImageOps

    try:
        with Image.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                raise InvalidArgument(
                    "photo", f"{path}: {file.width} x {file.height}", f"at most {MAX_PIXELS:,} pixels"
                )
            return np.asarray(ImageOps.exif_transpose(file).convert("L"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InvalidArgument("photo", str(path), f"a picture that can be read ({error})") from None


def read_intrinsics(path: Path) -> Array:
    """K (3, 3) from JSON: the matrix itself, or an object with the key "K". Raises `InvalidArgument`."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        k = np.array(document["K"] if isinstance(document, dict) else document, dtype=float)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgument(
            "intrinsics", str(path), f'JSON such as {{"K": [[f, 0, cx], [0, f, cy], [0, 0, 1]]}} ({error})'
        ) from None
    if k.shape != (3, 3) or not np.isfinite(k).all() or k[0, 0] <= 0 or k[1, 1] <= 0 or (k[2] != [0, 0, 1]).any():
        raise InvalidArgument("intrinsics", k.tolist(), "[[fx, skew, cx], [0, fy, cy], [0, 0, 1]] with fx, fy above 0")
    return k


def plot_detection(image: NDArray[np.uint8], found: Detection, ax: Axes | None = None) -> Axes:
    """The photograph with the corners and edges that were found."""
    ax = new_axes(ax, width=6, height=4.5)
    ax.imshow(image, cmap="gray", vmin=0, vmax=255)
    plot_corners(found.corners, ax)
    ax.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5), xticks=[], yticks=[])
    ax.grid(False)
    return ax


def save_detection_plot(image: NDArray[np.uint8], found: Detection, path: Path) -> Path:
    """Write `plot_detection` as a PNG file."""
    ax = plot_detection(image, found)
    buffer = io.BytesIO()
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return write_with_provenance(
        path, buffer.getvalue(), Provenance("a photograph and what was found in it", "synthbook locate")
    )
