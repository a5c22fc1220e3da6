"""Textures by name, such as "stripes-17": the same 64 x 64 image on every machine.

Procedural textures are generated from their number; "photo-..." and "pybullet-..." are crops of scikit-image's
photographs and of the textures that come with PyBullet.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import zoom

from synthbook.core.errors import InvalidArgument

_RgbImage = NDArray[np.uint8]  # (H, W, 3)
_SIZE = 64  # pixels
PROCEDURAL = ("flat", "gradient", "checker", "stripes", "dots", "noise", "patches", "strokes")
_PHOTOGRAPHS = ("astronaut", "brick", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "rocket")
PYBULLET = ("checker_blue", "jenga/jenga", "table/table", "tray/tray")
FAMILIES = (*PROCEDURAL, *(f"photo-{name}" for name in _PHOTOGRAPHS), *(f"pybullet-{name}" for name in PYBULLET))
_CACHE_SIZE = 1_000  # textures in memory, 12 KiB each


@lru_cache(maxsize=_CACHE_SIZE)
def texture(name: str) -> _RgbImage:
    """The texture (64, 64, 3) with this name, a family, a dash and a number. Raises `InvalidArgument`."""
    family, _, number = name.rpartition("-")
    if family not in FAMILIES or not number.isdigit():
        raise InvalidArgument("texture", name, f"a family and a number, such as stripes-17; families: {FAMILIES}")
    rng = np.random.default_rng([FAMILIES.index(family), int(number)])
    kind, _, source = family.partition("-")
    if source:
        image = _random_crop(_source(kind, source), rng)
    else:
        brightness = _pattern(family, rng)[..., None]
        low, high = rng.uniform(0, 255, (2, 3))  # two random colors
        image = np.asarray(low + (high - low) * brightness, dtype=np.uint8)
    image.flags.writeable = False
    return image


def _pattern(family: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Brightness (64, 64) in [0, 1] of a procedural texture."""
    if family == "flat":
        return 0.1 * rng.random((_SIZE, _SIZE))
    if family == "checker":
        y, x = np.mgrid[:_SIZE, :_SIZE] // rng.integers(4, 24)
        return np.asarray((x + y) % 2, dtype=float)
    if family == "noise":
        octaves = [_smooth(rng, cells) / (k + 1) for k, cells in enumerate((3, 7, 15, 31))]
        return _rescale(np.sum(octaves, axis=0))
    if family == "patches":
        return (_smooth(rng, int(rng.integers(2, 9))) > 0.5).astype(float)
    if family == "strokes":  # rectangles of random brightness on a uniform ground, as in print
        brightness = np.zeros((_SIZE, _SIZE))
        for _ in range(rng.integers(3, 25)):
            (top, left), (height, width) = rng.integers(0, _SIZE, 2), rng.integers(1, 24, 2)
            brightness[top : top + height, left : left + width] = rng.random()
        return brightness
    y, x = np.mgrid[:_SIZE, :_SIZE] / _SIZE
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if family == "gradient":
        return _rescale(u)
    if family == "stripes":
        return np.asarray((u * rng.uniform(2, 12)) % 1 < rng.uniform(0.2, 0.8), dtype=float)
    n = rng.uniform(2, 8)  # dots
    return np.asarray(np.hypot((u * n) % 1 - 0.5, (v * n) % 1 - 0.5) < rng.uniform(0.15, 0.45), dtype=float)


def _smooth(rng: np.random.Generator, cells: int) -> NDArray[np.float64]:
    """Smooth values (64, 64) in [0, 1] that vary over 1/cells of the image."""
    field = zoom(rng.random((cells + 1, cells + 1)), _SIZE / (cells + 1), order=3)
    return np.asarray(np.clip(field, 0, 1))


def _rescale(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((values - values.min()) / (values.max() - values.min()))


@lru_cache(maxsize=8)
def _source(kind: str, name: str) -> _RgbImage:
    if kind == "photo":
        from skimage import data

        folder = Path(data.__file__).parent
    else:
        import pybullet_data

        folder = Path(pybullet_data.getDataPath())
    path = next(p for p in (folder / f"{name}{ending}" for ending in (".png", ".jpg")) if p.exists())
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _random_crop(image: _RgbImage, rng: np.random.Generator) -> _RgbImage:
    height, width = image.shape[:2]
    side = int(min(height, width) * rng.uniform(0.3, 1))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    crop = Image.fromarray(image[top : top + side, left : left + side])
    return np.array(crop.resize((_SIZE, _SIZE), Image.Resampling.BOX))


def atlas(names: tuple[str, ...]) -> _RgbImage:
    """One texture as it is, or six in two rows of three for the faces of a cube."""
    images = [texture(name) for name in names]
    if len(images) == 1:
        return images[0]
    return np.concatenate([np.concatenate(images[:3], axis=1), np.concatenate(images[3:], axis=1)])


def encode_tga(image: _RgbImage) -> bytes:
    """The image as an uncompressed TGA file, the format that PyBullet reads fastest."""
    height, width = image.shape[:2]
    size = bytes([width % 256, width // 256, height % 256, height // 256])
    return bytes([0, 0, 2, *[0] * 9]) + size + bytes([24, 0x20]) + image[..., ::-1].tobytes()
