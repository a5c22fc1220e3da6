"""The three families on Fashion-MNIST: how the shipped models were made, and the files that samples go into."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from synthbook.core import checkpoints
from synthbook.core.data import fashion_mnist
from synthbook.core.errors import InvalidArgument
from synthbook.core.files import sha256_file
from synthbook.core.lock import locked
from synthbook.core.manifest import data_folder, read_manifest
from synthbook.core.payloads import Images
from synthbook.core.plots import new_axis
from synthbook.core.provenance import Provenance, write_described
from synthbook.core.resume import Keep
from synthbook.models.diffusion import Diffusion
from synthbook.models.gan import GAN
from synthbook.models.protocol import Generator
from synthbook.models.training import Observer
from synthbook.models.vae import VAE

LOG, STATE = "log.json", "state"
FILES = ("fashion-mnist/train-images-idx3-ubyte.gz", "fashion-mnist/train-labels-idx1-ubyte.gz")


@dataclass(frozen=True)
class Recipe:
    """A family with its settings, and how many steps the full and the quick profile take."""

    family: type[Generator]
    settings: Mapping[str, Any]
    full: int
    quick: int


RECIPES: Mapping[str, Recipe] = {
    "fashion-vae": Recipe(
        VAE, {"latents": 16, "beta": 8.0, "width": 32, "learning_rate": 2e-3}, full=20_000, quick=300
    ),
    "fashion-gan": Recipe(
        GAN,
        {
            "latents": 64,
            "width": 32,
            "batch": 64,
            "penalty": "r1",
            "penalty_weight": 1.0,
            "learning_rate": 1e-3,
            "momentum": 0.0,
            "average": 0.999,
        },
        full=24_000,
        quick=300,
    ),
    "fashion-ddpm": Recipe(Diffusion, {"width": 32, "learning_rate": 3e-3}, full=15_000, quick=200),
}


def make(
    name: str,
    out: Path,
    *,
    profile: str = "full",
    seed: int = 0,
    resume: bool = False,
    observe: Observer | None = None,
) -> dict[str, Any]:
    """Train a model of `RECIPES` on the real train part; write checkpoint and log into `out`, and return the log.

    What a run needs to go on is kept in `out/state` until it is done; looks at its samples go into `out/looks`.
    """
    recipe = RECIPES[name]
    steps = {"full": recipe.full, "quick": recipe.quick}[profile]
    if (out / LOG).exists():  # written last
        raise InvalidArgument("out", str(out), "a folder without a finished model: nothing is overwritten")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / ".lock", f"{out} is being written"):
        began, model, images = time.perf_counter(), recipe.family(**recipe.settings), fashion_mnist().train
        command = f"synthbook train {name} --profile {profile} --seed {seed}"
        listed = read_manifest(data_folder())
        parents = {file: str(listed[file]["sha256"]) for file in FILES}
        origin = Provenance("the train part of Fashion-MNIST", command, parents, 1, 1.0, seed)

        def look(step: int) -> None:
            drawn = model.sample(40, seed=0, labels=np.tile(np.arange(10), 4))
            write_sheet(drawn, out / "looks" / f"step-{step:06d}.png", origin)

        keep = Keep(out / STATE, every=500, resume=resume)
        model.fit(images, seed=seed, steps=steps, keep=keep, observe=observe, look=look)
        model.save(out, origin)
        log = {
            "command": command,
            "profile": profile,
            "seed": seed,
            "steps": steps,
            "settings": dict(recipe.settings),
            "parameters": sum(p.numel() for module in model._kept().values() for p in module.parameters()),
            "threads": torch.get_num_threads(),
            "resumed": resume,
            "minutes since the last start": round((time.perf_counter() - began) / 60, 1),
            "sha256": sha256_file(out / checkpoints.TENSORS),
            "history": [{key: round(value, 4) for key, value in row.items()} for row in model.history_],
        }
        write_described(out / LOG, json.dumps(log, indent=1) + "\n", origin)
        shutil.rmtree(out / STATE)
    return log


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
