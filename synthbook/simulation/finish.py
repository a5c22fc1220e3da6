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
        """Solve r (1 + k1 r^2) = r_seen for the r of each pixel, to fourth order in k1 r_seen^2."""
        b = ((np.arange(camera.height) - camera.cy) / camera.fy).astype(np.float32)[:, None]
        a = ((np.arange(camera.width) - camera.cx) / camera.fx).astype(np.float32)
        q = np.float32(camera.k1) * (a**2 + b**2)
        # r / r_seen = 1 - q + 3 q^2 - 12 q^3 + 55 q^4 - ...
        scale = 1 - q * (1 - q * (3 - q * (12 - 55 * q)))
        y = b * scale * np.float32(camera.fy) + np.float32(camera.cy)
        x = a * scale * np.float32(camera.fx) + np.float32(camera.cx)
        return cls(np.clip(y, 0, camera.height - 1), np.clip(x, 0, camera.width - 1))

    def nearest(self, *parts: NDArray[Any]) -> list[NDArray[Any]]:
        """Masks and depths (H, W), never mixed."""
        wide = parts[0].shape[1]
        place = np.rint(self.y).astype(np.int32) * wide + np.rint(self.x).astype(np.int32)
        return [part.ravel()[place] for part in parts]

    def mixed(self, picture: Picture) -> Picture:
        """A picture (H, W) or (H, W, 3), each pixel mixed from its four neighbours."""
        high, wide = picture.shape[:2]
        top, left = np.minimum(self.y.astype(np.int32), high - 2), np.minimum(self.x.astype(np.int32), wide - 2)
        fy, fx, place = self.y - top, self.x - left, top * wide + left
        if picture.ndim == 3:
            fy, fx = fy[..., None], fx[..., None]
        flat = picture.reshape(high * wide, *picture.shape[2:]).astype(np.float32)
        a, b, c, d = (flat[place + step] for step in (0, 1, wide, wide + 1))
        above, below = a + (b - a) * fx, c + (d - c) * fx
        return np.asarray(above + (below - above) * fy + np.float32(0.5), dtype=np.uint8)
