"""All families on the grid and the ring, each trained for about the same time: who visits which modes?"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from synthbook.core.errors import InvalidArgument
from synthbook.evaluation.mode_coverage import GRID, RING
from synthbook.experiments import experiment
from synthbook.generators.diffusion import Diffusion
from synthbook.generators.gan import GAN
from synthbook.generators.neural import NeuralGenerator
from synthbook.generators.vae import VAE

ROWS = 10_000  # points to learn from, and points drawn
_GAN: Mapping[str, Any] = {"latent_dim": 2, "batch_size": 256}
FAMILIES: Mapping[str, tuple[type[NeuralGenerator], Mapping[str, Any]]] = {  # their steps take about the same time
    "plain GAN": (GAN, {**_GAN, "steps": 4_000}),
    "R1": (GAN, {**_GAN, "steps": 3_000, "penalty": "r1", "penalty_weight": 0.1, "ema_decay": 0.999}),
    "WGAN-GP": (
        GAN,
        {
            **_GAN,
            "steps": 1_200,
            "loss": "wasserstein",
            "penalty": "wgan-gp",
            "penalty_weight": 0.1,
            "n_critic": 3,
            "adam_beta1": 0.0,
            "ema_decay": 0.995,
        },
    ),
    "spectral norm": (GAN, {**_GAN, "steps": 2_400, "spectral_norm": True, "ema_decay": 0.995}),
    "VAE": (VAE, {"steps": 10_000, "latent_dim": 2, "batch_size": 256, "learning_rate": 3e-3}),
    "diffusion": (Diffusion, {"steps": 6_000, "batch_size": 256, "width": 32, "learning_rate": 4e-3}),
}
CASES = tuple(f"{family} on {place}" for place in ("grid", "ring") for family in FAMILIES)
TRIALS = "artifacts/calibration/modes/trials.json"


@experiment(
    "modes",
    help="Train six small models on the grid and on the ring, and count the modes they reach.",
    data_source="models of section 3, trained anew for each row",
    cases=CASES,
    budget={name: settings for name, (_, settings) in FAMILIES.items()},
)
def cover(case: str, *, seed: int) -> dict[str, Any]:
    """What a family ("R1 on grid") makes of the grid or the ring: modes, imbalance, both densities, seconds."""
    name, _, place = case.partition(" on ")
    places = {"grid": GRID, "ring": RING}
    if name not in FAMILIES or place not in places:
        raise InvalidArgument("case", case, f"one of {', '.join(FAMILIES)}, then on grid or on ring")
    torch.set_num_threads(1)
    bumps, (family, settings) = places[place], FAMILIES[name]
    began = time.perf_counter()
    model = family(device="cpu", **settings).fit(bumps.sample(ROWS, seed=1_000 + seed), seed=seed)
    fitted = time.perf_counter()
    drawn = model.sample(ROWS, seed=seed)
    done = time.perf_counter()
    score, density = bumps.score(drawn), bumps.collapse(drawn, bumps.sample(ROWS, seed=2_000 + seed))
    return {
        "case": case,
        "seed": seed,
        "modes": score.modes,
        "imbalance": round(score.imbalance, 3),
        "high_quality": round(score.high_quality, 4),
        "l_syn": round(density.l_syn, 4),
        "l_test": round(density.l_test, 4),
        "collapsed": density.collapsed,
        "training seconds": round(fitted - began, 3),
        "sampling seconds": round(done - fitted, 3),
    }
