"""What generators accept, checked before any work is done, and what a model remembers of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from synthbook.core.errors import InvalidArgument
from synthbook.core.payloads import Images
from synthbook.core.schema import refuse_holdout

Data = Images | NDArray[np.float64] | Tensor


@dataclass(frozen=True)
class Learnt:
    """What a model knows of its data beside its weights: shape of a row, classes and their shares, centre and scale."""

    shape: tuple[int, ...]
    class_names: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    centre: tuple[float, ...] = ()  # of points
    scale: float = 1.0

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Learnt:
        """What `dataclasses.asdict` wrote."""
        known: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in fields.items()}
        return cls(**known)

    @property
    def classes(self) -> int:
        """The number of classes; 0 for points."""
        return len(self.class_names)

    @property
    def is_image(self) -> bool:
        """Whether a row is an image (C, H, W)."""
        return len(self.shape) == 3

    def labels(self, n: int, wanted: ArrayLike | Tensor | None, rng: np.random.Generator) -> Tensor | None:
        """The classes (n,) of the samples to draw: those wanted, or drawn with the shares of the training data."""
        if not self.classes:
            if wanted is not None:
                raise InvalidArgument(
                    "labels", wanted, "nothing: this model was fitted to points, which have no classes"
                )
            return None
        if wanted is None:
            return torch.from_numpy(rng.choice(self.classes, size=n, p=self.shares))
        labels = torch.as_tensor(wanted)
        good = labels.shape == (n,) and not labels.is_floating_point() and labels.dtype != torch.bool
        if not (good and bool(((labels >= 0) & (labels < self.classes)).all())):
            raise InvalidArgument("labels", wanted, f"{n} whole numbers from 0 to {self.classes - 1}")
        return labels.long()

    def restored(self, x: Tensor, labels: Tensor | None) -> Images | NDArray[np.float64]:
        """Samples (n, ...) on the scale of the data."""
        if labels is not None:
            return Images(x.clamp(-1, 1), labels, self.class_names)
        return np.asarray(self.scale * x.double().numpy() + np.array(self.centre))


def learnt(data: Data) -> tuple[Tensor, Tensor | None, Learnt]:
    """Rows (N, ...) float32 as models see them, their labels (N,) or None, and what is to be remembered.

    Raises `HoldoutError` for test data, `InvalidArgument` for what cannot be learnt: another shape, values out of
    range, a class without an image.
    """
    refuse_holdout(data, "fitting a generator")
    if isinstance(data, Images):
        x = checked_images(data.images)
        counts = _counts(data.labels, len(x), data.class_names)
        return x, data.labels.long(), Learnt(tuple(x.shape[1:]), data.class_names, tuple((counts / len(x)).tolist()))
    points = np.asarray(data, dtype=np.float64)
    if points.ndim != 2 or min(points.shape) < 1:
        raise InvalidArgument(
            "data", f"array of shape {points.shape}", "points (N, d), or Images of shape (N, C, H, W)"
        )
    if not np.isfinite(points).all():
        raise InvalidArgument("data", "points with NaN or infinities", "finite numbers")
    centre = points.mean(0)
    scale = float(np.sqrt(((points - centre) ** 2).mean())) or 1.0  # one for all axes: directions keep their meaning
    x = torch.from_numpy((points - centre) / scale).float()
    return x, None, Learnt(x.shape[1:], centre=tuple(centre.tolist()), scale=scale)


def checked_images(images: Tensor) -> Tensor:
    """The images (N, C, H, W), float32 in [-1, 1], sides that are multiples of 4; raises `InvalidArgument`."""
    shape = tuple(images.shape)
    if len(shape) != 4 or min(shape) < 1:
        raise InvalidArgument("images", f"tensor of shape {shape}", "shape (N, C, H, W): use unsqueeze(1) on grey ones")
    if shape[2] != shape[3] or shape[2] % 4:
        raise InvalidArgument(
            "images", f"{shape[2]} x {shape[3]} pixels", "square ones, with a side that 4 divides: pad them"
        )
    low, high = (float(bound) for bound in images.aminmax())
    if not (low >= -1 and high <= 1):  # also where either is NaN
        found = "NaN" if np.isnan(low + high) else f"values from {low:.4g} to {high:.4g}"
        raise InvalidArgument("images", f"tensor with {found}", "values in [-1, 1]: pixels / 127.5 - 1")
    return images.float()


def _counts(labels: Tensor, n: int, names: tuple[str, ...]) -> NDArray[np.int64]:
    found = np.asarray(labels)
    if found.shape != (n,) or not len(names) or found.min() < 0 or found.max() >= len(names):
        raise InvalidArgument(
            "labels", f"array of shape {found.shape}", f"{n} whole numbers from 0 to {len(names) - 1}"
        )
    counts = np.bincount(found, minlength=len(names))
    if missing := [name for name, count in zip(names, counts, strict=True) if count == 0]:
        raise InvalidArgument(
            "labels", f"no image of {', '.join(missing)}", "images of every class, or fewer class_names"
        )
    return counts
