"""The last word has a camera: errors on 140 real photographs that no training and no choice ever saw.

They are frames of one video, so neighbours are nearly the same picture: intervals come from resampling blocks of
frames. The best constant answer stands beside the network's, and each photograph is also shown through random windows,
which move the cube about.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument
from synthbook.core.storage import atomic_write
from synthbook.core.table import Holdout
from synthbook.core.types import Array, Photographs
from synthbook.simulation.localizer import PoseErrors, pose_errors

Finder = Callable[[NDArray[np.uint8]], Array]  # grey pictures (N, H, W) to corners (N, 8, 2) px
BLOCK = 14  # frames
REPLICATES = 2_000
WINDOW = (240, 180)  # pixels, of a photograph of 320 x 240


@dataclass(frozen=True)
class PoseScore:
    """Mean error in cm with a 95 % block-bootstrap interval: of the cube's centre, and of its corners."""

    what: str
    centre: float
    centre_low: float
    centre_high: float
    corner: float
    corner_low: float
    corner_high: float
    pixel: float
    n: int

    def __str__(self) -> str:
        centre = f"centre {self.centre:.2f} cm ({self.centre_low:.2f} to {self.centre_high:.2f})"
        corner = f"corners {self.corner:.2f} cm ({self.corner_low:.2f} to {self.corner_high:.2f})"
        return f"{self.what}: {centre}, {corner}, {self.pixel:.1f} px, {self.n} photographs"


def bootstrap_score(what: str, found: PoseErrors, *, seed: int = 0, block: int = BLOCK) -> PoseScore:
    """Means and intervals of errors on frames in their order; blocks of `block` neighbours are drawn together."""
    n = len(found.centre)
    if n < 2 * block:
        raise InvalidArgument("block", block, f"at most half of the {n} frames")
    blocks = np.array_split(np.arange(n), n // block)
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(blocks), size=(REPLICATES, len(blocks)))

    def interval(values: Array) -> tuple[float, float, float]:
        sums, sizes = np.array([values[b].sum() for b in blocks]), np.array([len(b) for b in blocks])
        low, high = np.quantile(sums[picks].sum(1) / sizes[picks].sum(1), (0.025, 0.975))
        return float(values.mean()), float(low), float(high)

    (a, b, c), (d, e, f) = interval(found.centre), interval(found.corner)
    return PoseScore(what, a, b, c, d, e, f, float(found.pixel.mean()), n)


def photo_errors(find: Finder, photographs: Holdout[Photographs]) -> PoseErrors:
    """The network's errors on the photographs as they are."""
    real = _opened(photographs)
    return pose_errors(find(real.images), real.corners, points_of(real), real.K, side=real.cube_side)


def random_crop_errors(find: Finder, photographs: Holdout[Photographs], *, seed: int) -> PoseErrors:
    """The same through a random window of each photograph that holds the whole cube."""
    real, rng = _opened(photographs), np.random.default_rng(seed)
    (wide, high), (tall, broad) = WINDOW, real.images.shape[1:]
    views, pixels, lenses = [], [], []
    for image, truth in zip(real.images, real.corners, strict=True):
        low = np.maximum(np.ceil(truth.max(axis=0)) - [wide, high] + 1, 0)
        top = np.minimum(np.floor(truth.min(axis=0)), [broad - wide, tall - high])
        left, above = (int(rng.integers(int(a), max(int(b), int(a)) + 1)) for a, b in zip(low, top, strict=True))
        views.append(image[above : above + high, left : left + wide])
        pixels.append(truth - [left, above])
        lenses.append(real.K - np.array([[0, 0, left], [0, 0, above], [0, 0, 0]]))
    return pose_errors(find(np.stack(views)), np.stack(pixels), points_of(real), np.stack(lenses), side=real.cube_side)


def constant_baseline_errors(photographs: Holdout[Photographs]) -> PoseErrors:
    """The baseline that looks at nothing: always the mean position of the cube in these very photographs."""
    real = _opened(photographs)
    points = points_of(real)
    found = np.broadcast_to(points.mean(axis=0), points.shape)
    centre = np.linalg.norm(found.mean(1) - points.mean(1), axis=-1)
    corner = np.linalg.norm(found - points, axis=-1).mean(-1)
    pixel = np.linalg.norm(real.corners.mean(axis=0) - real.corners, axis=-1).mean(-1)
    return PoseErrors(100 * centre, 100 * corner, pixel)


def points_of(real: Photographs) -> Array:
    """The true corners (N, 8, 3) in the camera's frame, metres."""
    from scipy.spatial.transform import Rotation

    turns = Rotation.from_rotvec(real.rvec).as_matrix()  # (N, 3, 3)
    return np.asarray(np.einsum("nij,kj->nki", turns, real.cube_corners) + real.tvec[:, None])


def append_to_log(path: Path, date: str, commit: str, model: str, scores: list[PoseScore]) -> Path:
    """Add one line to the log of every look at the photographs: who looked often enough has chosen by them."""
    line = {"date": date, "commit": commit, "model": model, "scores": [asdict(one) for one in scores]}
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    return atomic_write(path, before + json.dumps(line) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """All looks so far, the first one first."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _opened(photographs: Holdout[Photographs]) -> Photographs:
    if not isinstance(photographs, Holdout) or not isinstance(photographs.data, Photographs):
        raise InvalidArgument("photographs", type(photographs).__name__, "the Holdout that real_cube() returns")
    return photographs.data
