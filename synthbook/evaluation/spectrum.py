"""How much fine detail pictures have: their power by spatial frequency, averaged over directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synthbook.core.errors import InvalidArgument

Array = NDArray[np.float64]


def radial_spectrum(images: ArrayLike) -> tuple[Array, Array]:
    """Frequencies (K,) in cycles per pixel, 0 to 1/2, and the mean power of images (N, C, H, W) or (N, H, W) at each.

    Power is |FFT|^2 / (H W) of each channel after its mean is taken away, averaged over images, channels and all
    directions; frequencies are in steps of 1 / H. The corners of the spectrum, beyond 1/2, are left out.
    """
    x = np.asarray(images, dtype=float)
    if x.ndim not in (3, 4) or x.shape[-1] != x.shape[-2] or x.size == 0 or not np.isfinite(x).all():
        raise InvalidArgument("images", f"array of shape {x.shape}", "finite square images (N, C, H, W) or (N, H, W)")
    x = x.reshape(-1, *x.shape[-2:])
    side = x.shape[-1]
    power = (np.abs(np.fft.fft2(x - x.mean((1, 2), keepdims=True))) ** 2).mean(0) / side**2  # (H, W)
    frequency = np.fft.fftfreq(side)
    ring = np.rint(side * np.hypot(frequency[:, None], frequency)).astype(int).ravel()
    count = np.bincount(ring)[: side // 2 + 1]
    return np.arange(side // 2 + 1) / side, np.bincount(ring, power.ravel())[: side // 2 + 1] / count


def fine_detail(images: ArrayLike) -> float:
    """Total power at and above a quarter of a cycle per pixel, half of the highest frequency an image can hold."""
    frequency, power = radial_spectrum(images)
    return float(power[frequency >= 0.25].sum())
