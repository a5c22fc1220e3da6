"""Data types beside tables (images, texts, photographs, splits), and checks of arrays of features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Holdout

if TYPE_CHECKING:
    import torch


T = TypeVar("T")


@dataclass(frozen=True)
class Split(Generic[T]):
    """A data set in two fixed parts: `train` to learn from, `test` to judge by."""

    train: T
    test: Holdout[T]


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images: `images` float32 (N, C, H, W) in [-1, 1], `labels` int64 (N,), the names of the classes."""

    images: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: slice | NDArray[np.int64]) -> Images:
        """Some of them."""
        return Images(self.images[rows], self.labels[rows], self.class_names)

    def __repr__(self) -> str:
        return f"Images({tuple(self.images.shape)}, {len(self.class_names)} classes)"


@dataclass(frozen=True)
class Texts:
    """Texts, and for each what it is: a class such as "spam", or the title of the novel it comes from."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return f"Texts({len(self):,} texts, {len(set(self.labels))} labels)"


@dataclass(frozen=True, eq=False)
class Photographs:
    """Photographs of one cube with its pose; N photographs, pixels with the origin at the top left.

    The pose takes a point of the cube's frame to the camera's: `R(rvec) @ point + tvec`, z pointing away from the
    camera (OpenCV's convention); `K` projects it to pixels.
    """

    images: NDArray[np.uint8]  # (N, H, W) grey levels
    corners: NDArray[np.float64]  # (N, 8, 2) px, hidden corners included
    visible: NDArray[np.bool_]  # (N, 8) whether the corner faces the camera
    boxes: NDArray[np.float64]  # (N, 4) px: left, top, right, bottom
    rvec: NDArray[np.float64]  # (N, 3) rotation vector, radians
    tvec: NDArray[np.float64]  # (N, 3) m
    K: NDArray[np.float64]  # (3, 3) px
    cube_corners: NDArray[np.float64]  # (8, 3) m, in the cube's frame
    cube_side: float  # m

    @property
    def corner_points(self) -> NDArray[np.float64]:
        """The true corners (N, 8, 3) in the camera's frame, m."""
        from scipy.spatial.transform import Rotation

        rotations = Rotation.from_rotvec(self.rvec).as_matrix()  # (N, 3, 3)
        return np.asarray(np.einsum("nij,kj->nki", rotations, self.cube_corners) + self.tvec[:, None])

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Photographs({len(self)} of {self.images.shape[1:]}, cube of {self.cube_side} m)"


# ── Checks of arrays of features (N, d) ──


Array = NDArray[np.float64]
Seed = int | np.random.SeedSequence
Callback = Callable[[int, int, Mapping[str, float]], None]  # (step, steps, losses by name), after every step


def seed_sequence(seed: Seed) -> np.random.SeedSequence:
    """The seed as a sequence, from which children can be derived."""
    return seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)


def child_seed(seed: Seed, k: int) -> np.random.SeedSequence:
    """Child `k` of a seed, a function of the seed and k alone (unlike `SeedSequence.spawn`, which counts its calls)."""
    root = seed_sequence(seed)
    return np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, k))


def check_arrays(least: int = 1, **named: ArrayLike) -> list[Array]:
    """The named arrays as float64 (N, d), each with at least `least` rows, finite, and all with the same columns.

    Raises `InvalidArgument` that names the array, its shape and what is accepted.
    """
    arrays: list[Array] = []
    for name, values in named.items():
        try:
            x = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise InvalidArgument(name, type(values).__name__, "numbers, one row of features for each record") from None
        if x.ndim != 2 or x.shape[1] == 0:
            raise InvalidArgument(name, f"array of shape {x.shape}", "an array (rows, features)")
        if len(x) < least:
            raise InvalidArgument(name, f"array with {len(x)} rows", f"at least {least} rows")
        if not np.isfinite(x).all():
            bad = int((~np.isfinite(x).all(axis=1)).sum())
            raise InvalidArgument(name, f"array with NaN or infinity in {bad} rows", "finite numbers")
        if arrays and x.shape[1] != arrays[0].shape[1]:
            first = next(iter(named))
            raise InvalidArgument(
                name, f"array with {x.shape[1]} features", f"the {arrays[0].shape[1]} features of {first}"
            )
        arrays.append(x)
    return arrays


def subsample(x: Array, n: int, rng: np.random.Generator) -> Array:
    """`n` different rows in their old order, or all rows when there are no more than `n`."""
    return x if len(x) <= n else x[np.sort(rng.choice(len(x), n, replace=False))]
