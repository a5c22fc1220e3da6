"""The three families on Fashion-MNIST: how the shipped models were made, and the files that samples go into."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from synthbook.core.data import fashion_mnist
from synthbook.core.payloads import Images
from synthbook.core.plots import new_axis
from synthbook.core.provenance import Provenance, write_described
from synthbook.models.diffusion import Diffusion
from synthbook.models.gan import GAN
from synthbook.models.making import Recipe
from synthbook.models.protocol import Generator
from synthbook.models.vae import VAE

SOURCE = "the train part of Fashion-MNIST"
FILES = ("fashion-mnist/train-images-idx3-ubyte.gz", "fashion-mnist/train-labels-idx1-ubyte.gz")


def _look(model: Generator, stem: Path, origin: Provenance) -> Path:
    drawn = model.sample(40, seed=0, labels=np.tile(np.arange(10), 4))
    return write_sheet(drawn, stem.with_suffix(".png"), origin)


def _recipe(family: type[Generator], settings: Mapping[str, Any], full: int, quick: int) -> Recipe:
    return Recipe(family, settings, full, quick, lambda: fashion_mnist().train, SOURCE, FILES, _look)


VAE_SETTINGS = {"latents": 16, "beta": 8.0, "width": 32, "learning_rate": 2e-3}
GAN_SETTINGS = {
    "latents": 64,
    "width": 32,
    "batch": 64,
    "penalty": "r1",
    "penalty_weight": 1.0,
    "learning_rate": 1e-3,
    "momentum": 0.0,
    "average": 0.999,
}
RECIPES: Mapping[str, Recipe] = {
    "fashion-vae": _recipe(VAE, VAE_SETTINGS, full=20_000, quick=300),
    "fashion-gan": _recipe(GAN, GAN_SETTINGS, full=24_000, quick=300),
    "fashion-ddpm": _recipe(Diffusion, {"width": 32, "learning_rate": 3e-3}, full=15_000, quick=200),
}


def write_samples(images: Images, path: Path, origin: Provenance) -> Path:
    """Samples as NPZ with `images` uint8 (N, H, W) or (N, H, W, C), and `labels` int64 (N,)."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=as_bytes(images.images), labels=images.labels.numpy())
    return write_described(path, buffer.getvalue(), origin)


def as_bytes(images: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images (N, C, H, W) in [-1, 1] as uint8 (N, H, W), or (N, H, W, C) in colour."""
    channels_last = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return channels_last[..., 0] if channels_last.shape[-1] == 1 else channels_last


def write_sheet(images: Images, path: Path, origin: Provenance) -> Path:
    """A contact sheet as PNG."""
    ax = plot_images(images.images)
    buffer = io.BytesIO()
    figure = cast(Figure, ax.figure)
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return write_described(path, buffer.getvalue(), origin)


def plot_images(images: torch.Tensor, *, across: int = 10, ax: Axes | None = None) -> Axes:
    """Images (N, 1, H, W) in [-1, 1] in rows of `across`, white between them."""
    tiles = np.pad(as_bytes(images), ((0, -len(images) % across), (1, 1), (1, 1)), constant_values=255)
    n, high, wide = tiles.shape
    sheet = tiles.reshape(n // across, across, high, wide).swapaxes(1, 2).reshape(n // across * high, across * wide)
    ax = new_axis(ax, width=0.6 * across, height=0.6 * (n // across))
    ax.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return ax
