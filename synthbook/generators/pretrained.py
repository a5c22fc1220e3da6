"""Training of the pretrained models: recipes, one command, a log, and samples during training."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthbook.core import checkpoints
from synthbook.core.checkpoints import CheckpointConfig
from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import save_image_grid
from synthbook.core.storage import Provenance, file_lock, sha256_file, write_with_provenance
from synthbook.core.types import Callback
from synthbook.datasets import austen, data_folder, fashion_mnist, read_manifest
from synthbook.generators.diffusion import Diffusion
from synthbook.generators.gan import GAN
from synthbook.generators.neural import NeuralGenerator
from synthbook.generators.text.transformer import Transformer
from synthbook.generators.vae import VAE

LOG, _STATE, _LOOKS = "log.json", "state", "looks"


@dataclass(frozen=True)
class TrainingRecipe:
    """A family with its settings, what it learns from, and how many steps the full and the quick profile take.

    `data()` is the real training part, made of the data `files` and named `source`. `on_eval(model, stem, provenance)`
    samples from the model during training and writes the samples to `stem` with a suffix of its own.
    """

    family: type[Any]
    settings: Mapping[str, Any]
    full: int
    quick: int
    data: Callable[[], Any]
    source: str
    files: tuple[str, ...]
    on_eval: Callable[[Any, Path, Provenance], Path]


def train_pretrained(
    name: str,
    recipe: TrainingRecipe,
    out: Path,
    *,
    profile: str = "full",
    seed: int = 0,
    resume: bool = False,
    callback: Callback | None = None,
) -> dict[str, Any]:
    """Train the model `name` of a recipe; write checkpoint and log into `out`, and return the log.

    What a run needs to go on is kept in `out/state` until it is done; looks at its samples go into `out/looks`.
    """
    steps = {"full": recipe.full, "quick": recipe.quick}[profile]
    if (out / LOG).exists():  # written last
        raise InvalidArgument("out", str(out), "a folder without a finished model: nothing is overwritten")
    out.mkdir(parents=True, exist_ok=True)
    with file_lock(out / ".lock", f"{out} is being written"):
        began, model, data = time.perf_counter(), recipe.family(**recipe.settings), recipe.data()
        command = f"synthbook dev train {name} --profile {profile} --seed {seed}"
        listed = read_manifest(data_folder())
        parents = {file: str(listed[file]["sha256"]) for file in recipe.files}
        provenance = Provenance(recipe.source, command, parents, 1, 1.0, seed)
        model.fit(
            data,
            seed=seed,
            steps=steps,
            checkpoint=CheckpointConfig(out / _STATE, every_n_steps=500, resume=resume),
            callback=callback,
            on_eval=lambda step: recipe.on_eval(model, out / _LOOKS / f"step-{step:06d}", provenance),
        )
        model.save(out, provenance)
        tensors, _ = checkpoints.load(out)
        log = {
            "command": command,
            "profile": profile,
            "seed": seed,
            "steps": steps,
            "settings": dict(recipe.settings),
            "parameters": sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point()),
            "threads": torch.get_num_threads(),
            "resumed": resume,
            "minutes since the last start": round((time.perf_counter() - began) / 60, 1),
            "sha256": sha256_file(out / checkpoints.WEIGHTS_NAME),
            "history": [{key: round(value, 4) for key, value in row.items()} for row in model.history_],
        }
        write_with_provenance(out / LOG, json.dumps(log, indent=1) + "\n", provenance)
        shutil.rmtree(out / _STATE)
    return log


# ── Fashion-MNIST ──


_SOURCE = "the train part of Fashion-MNIST"
_FILES = ("fashion-mnist/train-images-idx3-ubyte.gz", "fashion-mnist/train-labels-idx1-ubyte.gz")


def _look_at_images(model: NeuralGenerator, stem: Path, provenance: Provenance) -> Path:
    drawn = model.sample(40, seed=0, labels=np.tile(np.arange(10), 4))
    return save_image_grid(drawn.images, stem.with_suffix(".png"), provenance)


def _recipe(family: type[NeuralGenerator], settings: Mapping[str, Any], full: int, quick: int) -> TrainingRecipe:
    return TrainingRecipe(
        family, settings, full, quick, lambda: fashion_mnist().train, _SOURCE, _FILES, _look_at_images
    )


_VAE_SETTINGS = {"latent_dim": 16, "beta": 8.0, "width": 32, "learning_rate": 2e-3}
_GAN_SETTINGS = {
    "latent_dim": 64,
    "width": 32,
    "batch_size": 64,
    "penalty": "r1",
    "penalty_weight": 1.0,
    "learning_rate": 1e-3,
    "adam_beta1": 0.0,
    "ema_decay": 0.999,
}
IMAGE_RECIPES: dict[str, TrainingRecipe] = {
    "fashion-vae": _recipe(VAE, _VAE_SETTINGS, full=20_000, quick=300),
    "fashion-gan": _recipe(GAN, _GAN_SETTINGS, full=24_000, quick=300),
    "fashion-ddpm": _recipe(Diffusion, {"width": 32, "learning_rate": 3e-3}, full=15_000, quick=200),
}


# ── Austen's novels ──


SAMPLE_LENGTH = 600  # characters


RECIPES: Mapping[str, TrainingRecipe] = IMAGE_RECIPES | {
    "austen-transformer": TrainingRecipe(
        Transformer,
        {"n_layers": 4, "d_model": 128, "context_length": 128, "batch_size": 24, "learning_rate": 2e-3},
        full=4_000,
        quick=100,
        data=lambda: austen().train,
        source="the first nine tenths of each of Austen's novels",
        files=("austen/austen_six_novels.txt.gz",),
        on_eval=lambda model, stem, provenance: model.write(
            stem.with_suffix(".txt"), SAMPLE_LENGTH, seed=0, provenance=provenance
        ),
    )
}
