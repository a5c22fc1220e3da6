"""A rendered run to train on, photographs to locate a cube in, and a predictor without a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthbook.core.jobs import ShardPlan, run_shards
from synthbook.core.storage import Provenance
from synthbook.datasets import real_cube
from synthbook.simulation import localizer
from synthbook.simulation.export import RenderShard
from synthbook.simulation.localizer import KeypointDataset, load_keypoint_dataset
from synthbook.simulation.randomize import DOMAINS

PROVENANCE = Provenance("a test", "pytest")
BUSY = DOMAINS["cube"].with_situations(occluded=0.4, at_the_edge=0.3, tilted=0.1)
SMALL = ["--width", "48", "--height", "32", "--shard-size", "10", "--seed", "7"]  # options of `synthbook render`


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 150 images: do not write to it."""
    folder = tmp_path_factory.mktemp("renders") / "run"
    plan = ShardPlan(150, seed=4, shard_size=50)
    run_shards(RenderShard(DOMAINS["cube-narrow"], 320, 240), plan, folder, provenance=PROVENANCE)
    return folder


@pytest.fixture(scope="session")
def renders(run: Path) -> KeypointDataset:
    return load_keypoint_dataset(run)


class FixedPredictor:
    """Predicts corners at fixed fractions of the image's size."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        height, width = images.shape[1:]
        bottom = [[0.4, 0.7], [0.3, 0.6], [0.45, 0.5], [0.6, 0.6]]
        fractions = np.array([*bottom, *([u, v - 0.2] for u, v in bottom)])
        return np.repeat((fractions * [width, height] - 0.5)[None], len(images), axis=0)


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photo.jpg and K.json in the current folder, and the shipped localizer replaced by a `FixedPredictor`."""
    monkeypatch.setattr(localizer, "load_pretrained", FixedPredictor)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(real_cube().data.images[0]).resize((640, 480)).save("photo.jpg")
    Path("K.json").write_text(json.dumps({"K": (real_cube().data.K * [[2], [2], [1]]).tolist()}))
    return tmp_path / "photo.jpg"
