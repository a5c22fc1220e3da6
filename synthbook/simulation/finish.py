"""From a rendered picture to a photograph: lens, sensor, file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from synthbook.simulation.scene import Camera, Finish

Picture = NDArray[np.uint8]  # (H, W, 3) or, in grey, (H, W)
MOST_GAIN = 6.0  # a camera does not turn night into day


def finished(picture: Picture, finish: Finish, rng: np.random.Generator) -> Picture:
    """The picture (H, W, 3) or (H, W) after blur, automatic exposure, vignetting and noise."""
    image = Image.fromarray(picture)
    if finish.blur > 0:
        image = image.filter(ImageFilter.GaussianBlur(finish.blur))
    blurred = np.asarray(image)
    # I' = 255 gain (I / 255)^gamma, the gain such that the mean becomes the exposure
    curve = (np.arange(256, dtype=np.float32) / 255) ** np.float32(finish.gamma)
    share = np.bincount(blurred.ravel(), minlength=256) / blurred.size
    gain = min(finish.exposure / max(float(share @ curve), 1e-3), MOST_GAIN)
    x = (255 * np.float32(gain) * curve)[blurred]
    if finish.vignetting > 0:
        dark = 1 - np.float32(finish.vignetting) * _radius2(*x.shape[:2])
        x *= dark if x.ndim == 2 else dark[..., None]
    if finish.noise > 0:
        x += np.float32(finish.noise) * rng.standard_normal(x.shape, dtype=np.float32)
    return np.asarray(np.clip(x + 0.5, 0, 255), dtype=np.uint8)


def jpeg(picture: Picture, quality: int) -> bytes:
    """The picture as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


@lru_cache(maxsize=8)
def _radius2(high: int, wide: int) -> NDArray[np.float32]:
    """Squared distance from the middle, 1 in the corners."""
    y, x = np.meshgrid(np.linspace(-1, 1, high), np.linspace(-1, 1, wide), indexing="ij")
    return ((x**2 + y**2) / 2).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Lens:
    """Where each pixel of a lens with distortion looks in a picture rendered without: rows and columns (H, W)."""

    y: NDArray[np.float32]
    x: NDArray[np.float32]

    @classmethod
    def of(cls, camera: Camera) -> Lens:
        """Solve r (1 + k1 r^2) = r_seen for the r of each pixel, by three Newton steps."""
        b = (np.arange(camera.height, dtype=np.float32)[:, None] - camera.cy) / camera.fy
        a = (np.arange(camera.width, dtype=np.float32) - camera.cx) / camera.fx
        seen = np.hypot(a, b)
        r = seen.copy()
        for _ in range(3):
            r -= (r + camera.k1 * r**3 - seen) / (1 + 3 * camera.k1 * r**2)
        scale = r / np.maximum(seen, 1e-9)
        y, x = b * scale * camera.fy + camera.cy, a * scale * camera.fx + camera.cx
        return cls(np.clip(y, 0, camera.height - 1), np.clip(x, 0, camera.width - 1))

    def nearest(self, values: NDArray[Any]) -> NDArray[Any]:
        """Masks and depths (H, W), never mixed."""
        return values[np.rint(self.y).astype(np.intp), np.rint(self.x).astype(np.intp)]

    def mixed(self, picture: Picture) -> Picture:
        """A picture (H, W) or (H, W, 3), each pixel mixed from its four neighbours."""
        top, left = self.y.astype(np.intp), self.x.astype(np.intp)
        bottom, right = np.minimum(top + 1, picture.shape[0] - 1), np.minimum(left + 1, picture.shape[1] - 1)
        fy, fx = self.y - top, self.x - left
        if picture.ndim == 3:
            fy, fx = fy[..., None], fx[..., None]
        above = picture[top, left] * (1 - fx) + picture[top, right] * fx
        below = picture[bottom, left] * (1 - fx) + picture[bottom, right] * fx
        return np.asarray(above * (1 - fy) + below * fy + 0.5, dtype=np.uint8)
