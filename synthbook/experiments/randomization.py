"""Train in one world, test in others: what a narrow simulator costs, and what randomizing it brings back.

Small pictures and short training, so that many worlds can be compared: the same number of pictures and epochs for each,
tested on fresh pictures of the same world, on the stand-in for reality, and on the photographs, all at the same size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument
from synthbook.core.jobs import item_seed
from synthbook.core.table import Holdout
from synthbook.datasets import real_cube
from synthbook.experiments import experiment
from synthbook.simulation.export import library_versions
from synthbook.simulation.labels import annotate
from synthbook.simulation.localizer import (
    MIN_VISIBLE_PX,
    CornerNet,
    KeypointDataset,
    corner_distance,
    full_image_batches,
    predict_corners,
    train_corner_net,
)
from synthbook.simulation.photographs import points_of
from synthbook.simulation.randomize import FACTORS, PROXY_TARGET, TRAIN_TEXTURES, Domain, TexturePool, sample_params
from synthbook.simulation.render import Renderer
from synthbook.simulation.scene import CUBE_CORNERS

WIDE, HIGH = 80, 60  # pixels
# narrowed to one texture each, table and cube should not have the same one
TABLES = TexturePool(TRAIN_TEXTURES[5:] + TRAIN_TEXTURES[:5], 1_000)
FULL = replace(Domain().with_situations(occluded=0.08), table_textures=TABLES)
TEXTURES = (1, 4, 16, 64, 256)
TRIALS = "artifacts/randomization/trials.json"


def _worlds() -> dict[str, Domain]:
    worlds = {f"width {kappa:g}": FULL.narrowed(kappa) for kappa in (0, 0.25, 0.5, 1)}
    worlds["stand-in"] = PROXY_TARGET
    worlds |= {f"without {factor}": FULL.narrowed(0, factor) for factor in FACTORS}
    for n in TEXTURES:
        pools = {name: replace(getattr(FULL, name), unique=n) for name in ("cube_textures", "table_textures")}
        worlds[f"{n} textures"] = replace(FULL, **pools)
    return worlds


TRAIN_DOMAINS: Mapping[str, Domain] = _worlds()


@dataclass(frozen=True)
class TrialConfig:
    """The same for every world."""

    pictures: int = 3_000
    epochs: int = 12
    width: int = 16
    tests: int = 400
    learning_rate: float = 4e-3


def pictures(domain: Domain, n: int, *, seed: int, width: int = WIDE, height: int = HIGH) -> KeypointDataset:
    """`n` pictures of upright cubes of which enough is seen to be found."""
    if n < 1:
        raise InvalidArgument("n", n, "a whole number of at least 1")
    images: list[NDArray[np.uint8]] = []
    corners, points, lenses, item = [], [], [], 0
    least = MIN_VISIBLE_PX * width * height // (160 * 120)
    with Renderer() as renderer:
        while len(images) < n:
            rng = np.random.default_rng(item_seed(seed, item))
            item += 1
            sample = renderer.render(sample_params(domain, rng, width=width, height=height), rng)
            lens, cube = sample.params.camera, sample.params.bodies[1]
            if sample.params.situation == "tilted" or annotate(sample)[0].area < least:
                continue
            images.append(sample.image if sample.image.ndim == 2 else sample.image.mean(-1).astype(np.uint8))
            corners.append(lens.project(cube.to_world(CUBE_CORNERS)))
            points.append(lens.to_camera(cube.to_world(CUBE_CORNERS)))
            lenses.append(lens.K)
    return KeypointDataset(np.stack(images), np.array(corners), np.array(points), np.array(lenses))


def downsampled_photographs() -> Holdout[KeypointDataset]:
    """The real photographs at the same size (140, 60, 80), with their labels, still held out."""
    real = real_cube().data
    n, high, wide = real.images.shape
    factor = wide // WIDE
    images = real.images.reshape(n, high // factor, factor, wide // factor, factor).mean((2, 4)).astype(np.uint8)
    lens = real.K / factor
    lens[:2, 2] = (real.K[:2, 2] + 0.5) / factor - 0.5
    lens[2, 2] = 1
    corners = (real.corners + 0.5) / factor - 0.5
    return Holdout(KeypointDataset(images, corners, points_of(real), np.broadcast_to(lens, (n, 3, 3))))


def pixel_errors(net: CornerNet, renders: KeypointDataset) -> NDArray[np.float64]:
    """Mean distance (N,) in pixels of the eight corners, after the best quarter turn."""
    return corner_distance(predict_corners(net, renders.images), renders.corners)


BUDGET = TrialConfig()


@experiment(
    "randomization",
    help="Train small networks in 17 simulated worlds, and test each in three: own, stand-in, photographs.",
    data_source="rendered scenes; tested on photographs, too",
    cases=tuple(TRAIN_DOMAINS),
    budget=asdict(BUDGET),
    settings={
        "worlds": {name: asdict(domain) for name, domain in TRAIN_DOMAINS.items()},
        "made by": library_versions(),
    },
)
def trial(world: str, *, seed: int, budget: TrialConfig = BUDGET) -> dict[str, Any]:
    """Train in a world and test in three: median (and mean) error over pictures in pixels, one thread."""
    if world not in TRAIN_DOMAINS:
        raise InvalidArgument("world", world, f"one of {', '.join(TRAIN_DOMAINS)}")
    torch.set_num_threads(1)
    domain = TRAIN_DOMAINS[world]
    seen = pictures(domain, budget.pictures, seed=1_000 + seed)
    net = train_corner_net(
        seen,
        full_image_batches(seen),
        seed=seed,
        epochs=budget.epochs,
        width=budget.width,
        learning_rate=budget.learning_rate,
    )
    tests = {
        "own": Holdout(pictures(domain, budget.tests, seed=2_000 + seed)),
        "stand-in": Holdout(pictures(PROXY_TARGET, budget.tests, seed=3_000 + seed)),
        "photographs": downsampled_photographs(),
    }
    found: dict[str, Any] = {"world": world, "seed": seed}
    for name, held in tests.items():
        away = pixel_errors(net, held.data)
        # the mean is ruled by the pictures in which the cube was missed altogether
        found |= {name: round(float(np.median(away)), 4), f"{name} mean": round(float(away.mean()), 4)}
    return found
