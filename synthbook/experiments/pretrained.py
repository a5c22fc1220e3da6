"""The shipped models: recipes, training with a log and samples on the way, and scores of the image models."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from synthbook.core import checkpoints
from synthbook.core.checkpoints import CheckpointConfig
from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import save_image_grid
from synthbook.core.storage import Provenance, file_lock, sha256_file, write_with_provenance
from synthbook.core.types import Callback
from synthbook.datasets import austen, data_folder, fashion_mnist, read_manifest
from synthbook.evaluation.features import image_features
from synthbook.evaluation.frechet import frechet_distance, frechet_infinity
from synthbook.evaluation.prdc import prdc
from synthbook.generators.diffusion import Diffusion
from synthbook.generators.gan import GAN
from synthbook.generators.neural import NeuralGenerator
from synthbook.generators.registry import PRETRAINED_DIR, load
from synthbook.generators.text.transformer import Transformer
from synthbook.generators.vae import VAE

TRAINING_LOG, _STATE, _LOOKS = "log.json", "state", "looks"


@dataclass(frozen=True)
class TrainingRecipe:
    """A family with its settings, what it learns from, and how many steps the full and the quick profile take.

    `data()` is the real train part, made of the data `files` and named `source`. `on_eval(model, stem, provenance)`
    writes samples of a model in training to `stem` with a suffix of its own.
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

    The training state is in `out/state` until the run is done; samples of each evaluation go into `out/looks`.
    """
    steps = {"full": recipe.full, "quick": recipe.quick}[profile]
    if (out / TRAINING_LOG).exists():  # written last
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
        write_with_provenance(out / TRAINING_LOG, json.dumps(log, indent=1) + "\n", provenance)
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


# ── Scores of the image models: fidelity, diversity and cost ──


SCORES = "artifacts/models/scores.json"  # of `synthbook dev score-models`
REAL_IMAGES = "real, not in the test set"
IMAGE_MODELS = ("fashion-vae", "fashion-gan", "fashion-ddpm")


def score_models(
    *, n: int = 10_000, seed: int = 0, callback: Callable[[int, int], None] = lambda done, total: None
) -> list[dict[str, Any]]:
    """A row for real training images and one for each shipped model: `n` of its images against `n` of the test set.

    Fréchet distance on the Fashion CNN as measured and extrapolated to unlimited samples, precision, recall, density
    and coverage (k = 5); seconds for `n` images on one thread.
    """
    torch.set_num_threads(1)
    data, rng = fashion_mnist(), np.random.default_rng(seed)
    test = image_features(data.test.data.images[rng.permutation(len(data.test.data.images))[:n]])
    rows = []
    for done, name in enumerate((REAL_IMAGES, *IMAGE_MODELS)):
        callback(done, len(IMAGE_MODELS) + 1)
        began = time.perf_counter()
        if name == REAL_IMAGES:
            images = data.train.images[rng.permutation(len(data.train.images))[:n]]
        else:
            images = load(name, device="cpu").sample(n, seed=seed).images
        row: dict[str, Any] = {"name": name, "n": n}
        if name != REAL_IMAGES:
            row["seconds"] = round(time.perf_counter() - began, 1)
            log = json.loads((data_folder() / PRETRAINED_DIR / name / "log.json").read_text())
            row |= {"parameters": log["parameters"], "steps": log["steps"], "sha256": log["sha256"]}
        drawn = image_features(images)
        scores = prdc(drawn, real=test)
        row |= {"frechet": frechet_distance(drawn, test), "frechet corrected": frechet_infinity(drawn, test, seed=seed)}
        row |= {key: getattr(scores, key) for key in ("precision", "recall", "density", "coverage")}
        rows.append({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    callback(len(IMAGE_MODELS) + 1, len(IMAGE_MODELS) + 1)
    return rows


def read_scores(path: Path | None = None) -> pd.DataFrame:
    """Read the shipped scores, or those in another file of the command: a row for each model, by name."""
    document = json.loads((path or data_folder() / SCORES).read_text())
    return pd.DataFrame(document["scores"]).set_index("name")
