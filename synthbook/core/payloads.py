"""What the loaders return beside tables: images, texts, labelled photographs, and a set split in two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from synthbook.core.schema import Holdout

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

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Photographs({len(self)} of {self.images.shape[1:]}, cube of {self.cube_side} m)"
