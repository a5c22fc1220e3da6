"""The three families' pictures of clothes in one table: quality, variety and what they cost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from synthbook.datasets import data_folder, fashion_mnist
from synthbook.evaluation.features import image_features
from synthbook.evaluation.frechet import frechet_distance, frechet_infinity
from synthbook.evaluation.prdc import prdc
from synthbook.generators.registry import PRETRAINED_DIR, load

SCORES = "artifacts/models/scores.json"  # of `synthbook dev score-models`
REAL = "real, not in the test set"
MODELS = ("fashion-vae", "fashion-gan", "fashion-ddpm")


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
    for done, name in enumerate((REAL, *MODELS)):
        callback(done, len(MODELS) + 1)
        began = time.perf_counter()
        if name == REAL:
            images = data.train.images[rng.permutation(len(data.train.images))[:n]]
        else:
            images = load(name, device="cpu").sample(n, seed=seed).images
        row: dict[str, Any] = {"name": name, "n": n}
        if name != REAL:
            row["seconds"] = round(time.perf_counter() - began, 1)
            log = json.loads((data_folder() / PRETRAINED_DIR / name / "log.json").read_text())
            row |= {"parameters": log["parameters"], "steps": log["steps"], "sha256": log["sha256"]}
        drawn = image_features(images)
        found = prdc(drawn, real=test)
        row |= {"frechet": frechet_distance(drawn, test), "frechet corrected": frechet_infinity(drawn, test, seed=seed)}
        row |= {key: getattr(found, key) for key in ("precision", "recall", "density", "coverage")}
        rows.append({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    callback(len(MODELS) + 1, len(MODELS) + 1)
    return rows


def read_scores(path: Path | None = None) -> pd.DataFrame:
    """The shipped table (or another of the command), a row for each model by name."""
    document = json.loads((path or data_folder() / SCORES).read_text())
    return pd.DataFrame(document["scores"]).set_index("name")
