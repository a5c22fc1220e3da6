"""The sim-to-real gap and domain randomization: train in one domain, test in others, on several seeds.

Images are small and training is short, so that 17 domains can be compared. Number of images, epochs and network are the
same for each; each network is tested on new images of its own domain, on the proxy target and on the real photographs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument
from synthbook.core.jobs import item_seed
from synthbook.core.storage import atomic_write
from synthbook.core.table import Holdout
from synthbook.datasets import real_cube
from synthbook.experiments import experiment
from synthbook.simulation.export import library_versions
from synthbook.simulation.labels import annotate
from synthbook.simulation.localizer import (
    MIN_VISIBLE_PX,
    KeypointDataset,
    full_image_batches,
    predict_corners,
    train_corner_net,
)
from synthbook.simulation.pose import PoseScore, corner_distance
from synthbook.simulation.randomize import FACTORS, PROXY_TARGET, TRAIN_TEXTURES, Domain, TexturePool, sample_params
from synthbook.simulation.render import Renderer
from synthbook.simulation.scene import CUBE_CORNERS

_WIDTH, _HEIGHT = 80, 60  # pixels
# narrowed to one texture each, table and cube should not have the same one
_TABLE_TEXTURES = TexturePool(TRAIN_TEXTURES[5:] + TRAIN_TEXTURES[:5], 1_000)
FULL = replace(Domain().with_situations(occluded=0.08), table_textures=_TABLE_TEXTURES)
N_TEXTURES = (1, 4, 16, 64, 256)


def _train_domains() -> dict[str, Domain]:
    domains = {f"width {kappa:g}": FULL.narrowed(kappa) for kappa in (0, 0.25, 0.5, 1)}
    domains["stand-in"] = PROXY_TARGET
    domains |= {f"without {factor}": FULL.narrowed(0, factor) for factor in FACTORS}
    for n in N_TEXTURES:
        pools = {name: replace(getattr(FULL, name), n_textures=n) for name in ("cube_textures", "table_textures")}
        domains[f"{n} textures"] = replace(FULL, **pools)
    return domains


TRAIN_DOMAINS: Mapping[str, Domain] = _train_domains()


@dataclass(frozen=True)
class TrialConfig:
    """Settings of a trial, the same for every domain: images, epochs, channels of the network, learning rate."""

    n_train: int = 3_000
    epochs: int = 12
    width: int = 16
    n_test: int = 400
    learning_rate: float = 4e-3


def render_dataset(domain: Domain, n: int, *, seed: int, width: int = _WIDTH, height: int = _HEIGHT) -> KeypointDataset:
    """Render `n` images of upright cubes that are visible enough. Raises `InvalidArgument`."""
    if n < 1:
        raise InvalidArgument("n", n, "an integer of at least 1")
    images: list[NDArray[np.uint8]] = []
    corners, points, intrinsics, item = [], [], [], 0
    min_area = MIN_VISIBLE_PX * width * height // (160 * 120)
    with Renderer() as renderer:
        while len(images) < n:
            rng = np.random.default_rng(item_seed(seed, item))
            item += 1
            sample = renderer.render(sample_params(domain, rng, width=width, height=height), rng)
            camera, cube = sample.params.camera, sample.params.bodies[1]
            if sample.params.situation == "tilted" or annotate(sample)[0].area < min_area:
                continue
            images.append(sample.image if sample.image.ndim == 2 else sample.image.mean(-1).astype(np.uint8))
            corners.append(camera.project(cube.to_world(CUBE_CORNERS)))
            points.append(camera.to_camera(cube.to_world(CUBE_CORNERS)))
            intrinsics.append(camera.K)
    return KeypointDataset(np.stack(images), np.array(corners), np.array(points), np.array(intrinsics))


def downsampled_photographs() -> Holdout[KeypointDataset]:
    """The real photographs (140, 60, 80) at the size of the rendered images, with their labels, still held out."""
    real = real_cube().data
    n, height, width = real.images.shape
    factor = width // _WIDTH
    images = real.images.reshape(n, height // factor, factor, width // factor, factor).mean((2, 4)).astype(np.uint8)
    K = real.K / factor
    K[:2, 2] = (real.K[:2, 2] + 0.5) / factor - 0.5
    K[2, 2] = 1
    corners = (real.corners + 0.5) / factor - 0.5
    return Holdout(KeypointDataset(images, corners, real.corner_points, np.broadcast_to(K, (n, 3, 3))))


_CONFIG = TrialConfig()


@experiment(
    "randomization",
    help="Train small networks in 17 simulated domains, and test each in three: own, proxy target, photographs.",
    data_source="rendered scenes; tested on photographs, too",
    results="artifacts/randomization/trials.json",
    cases=tuple(TRAIN_DOMAINS),
    budget={  # under the names of the shipped trials
        "pictures": _CONFIG.n_train,
        "epochs": _CONFIG.epochs,
        "width": _CONFIG.width,
        "tests": _CONFIG.n_test,
        "learning_rate": _CONFIG.learning_rate,
    },
    settings={
        "worlds": {name: asdict(domain) for name, domain in TRAIN_DOMAINS.items()},
        "made by": library_versions(),
    },
)
def randomization_trial(domain: str, *, seed: int, config: TrialConfig = _CONFIG) -> dict[str, Any]:
    """Train in a domain and test in three: median and mean corner error (px) over the images, on one thread."""
    torch.set_num_threads(1)
    train = render_dataset(TRAIN_DOMAINS[domain], config.n_train, seed=1_000 + seed)
    net = train_corner_net(
        train,
        full_image_batches(train),
        seed=seed,
        epochs=config.epochs,
        width=config.width,
        learning_rate=config.learning_rate,
    )
    tests = {
        "own": render_dataset(TRAIN_DOMAINS[domain], config.n_test, seed=2_000 + seed),
        "stand-in": render_dataset(PROXY_TARGET, config.n_test, seed=3_000 + seed),
        "photographs": downsampled_photographs().data,
    }
    result: dict[str, Any] = {"world": domain, "seed": seed}  # the columns of the shipped trials
    for name, data in tests.items():
        errors = corner_distance(predict_corners(net, data.images), data.corners)
        # the mean is dominated by images in which the cube was missed
        result |= {name: round(float(np.median(errors)), 4), f"{name} mean": round(float(errors.mean()), 4)}
    return result


# ── The log of evaluations on the photographs ──
# It only grows: each evaluation is a chance to choose by the test set.


_LOG_KEYS = {"name": "what", "center": "centre", "center_low": "centre_low", "center_high": "centre_high"}


def append_to_log(path: Path, date: str, commit: str, model: str, scores: list[PoseScore]) -> Path:
    """Append one evaluation on the photographs to the log, a file of JSON lines."""
    entries = [{_LOG_KEYS.get(key, key): value for key, value in asdict(score).items()} for score in scores]
    line = {"date": date, "commit": commit, "model": model, "scores": entries}
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    return atomic_write(path, before + json.dumps(line) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read all evaluations, the first one first; "scores" is a list of `PoseScore`."""
    names = {key: name for name, key in _LOG_KEYS.items()}
    log = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for entry in log:
        entry["scores"] = [PoseScore(**{names.get(k, k): v for k, v in score.items()}) for score in entry["scores"]]
    return log
