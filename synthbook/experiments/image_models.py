"""Generators of points and images compared: modes reached, the loss and steps of diffusion, the rate of VAEs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from synthbook.core.types import Images
from synthbook.datasets import digits
from synthbook.evaluation.features import high_frequency_power, image_features
from synthbook.evaluation.frechet import frechet_distance
from synthbook.evaluation.mode_coverage import GRID, RING
from synthbook.evaluation.novelty import NoveltyResult, novelty
from synthbook.experiments import experiment
from synthbook.generators.diffusion import Diffusion, NoisePredictor, NoiseSchedule, ancestral, optimal_loss, q_sample
from synthbook.generators.gan import GAN
from synthbook.generators.nets import TimeMLP, init_weights
from synthbook.generators.neural import NeuralGenerator
from synthbook.generators.vae import VAE, kl_from_standard

# ── All families on the grid and the ring, each trained for about the same time: modes reached ──


_N_POINTS = 10_000  # points to learn from, and points drawn
_GAN: Mapping[str, Any] = {"latent_dim": 2, "batch_size": 256}
# their steps take about the same time
POINT_FAMILIES: Mapping[str, tuple[type[NeuralGenerator], Mapping[str, Any]]] = {
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


@experiment(
    "modes",
    help="Train six small models on the grid and on the ring, and count the modes they reach.",
    data_source="models of section 3, trained anew for each row",
    results="artifacts/calibration/modes/trials.json",
    cases=[f"{family} on {place}" for place in ("grid", "ring") for family in POINT_FAMILIES],
    budget={name: settings for name, (_, settings) in POINT_FAMILIES.items()},
)
def modes_trial(case: str, *, seed: int) -> dict[str, Any]:
    """Modes, imbalance, both densities and seconds of a family trained on the grid or the ring ("R1 on grid")."""
    name, place = case.split(" on ")
    torch.set_num_threads(1)
    mixture, (family, settings) = {"grid": GRID, "ring": RING}[place], POINT_FAMILIES[name]
    began = time.perf_counter()
    model = family(device="cpu", **settings).fit(mixture.sample(_N_POINTS, seed=1_000 + seed), seed=seed)
    fitted = time.perf_counter()
    drawn = model.sample(_N_POINTS, seed=seed)
    done = time.perf_counter()
    score, density = mixture.score(drawn), mixture.collapse(drawn, mixture.sample(_N_POINTS, seed=2_000 + seed))
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


# ── Diffusion: the chapter's training loop, its loss over the optimal loss, and the number of sampling steps ──


VARIANCES = torch.tensor([4.0, 0.25])
LOSS_TIMESTEPS = (1, 25, 50, 100, 150, 200, 300, 400, 500, 600, 700, 800, 900, 1_000)
SAMPLING_STEPS = (5, 10, 20, 100)


def train_noise_net(variances: Tensor, schedule: NoiseSchedule, *, seed: int, steps: int = 4_000) -> nn.Module:
    """The chapter's training loop, on points from a Gaussian with these variances (d,)."""
    rng = torch.Generator().manual_seed(seed)
    net = init_weights(TimeMLP(len(variances), hidden=96), rng)
    optimizer = torch.optim.Adam(net.parameters())
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        x0 = variances.sqrt() * torch.randn(512, len(variances), generator=rng)
        t = torch.randint(1, schedule.T + 1, (512,), generator=rng)  # 1 and T included
        eps = torch.randn(512, len(variances), generator=rng)
        loss = (eps - net(q_sample(x0, t, eps, schedule), t)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


@torch.no_grad()
def noise_loss(
    predict_noise: NoisePredictor, t: int, variances: Tensor, schedule: NoiseSchedule, *, seed: int, n: int = 20_000
) -> tuple[float, float]:
    """Mean squared error of the noise at step t on fresh points, and its standard error."""
    rng = torch.Generator().manual_seed(seed)
    x0 = variances.sqrt() * torch.randn(n, len(variances), generator=rng)
    eps = torch.randn(n, len(variances), generator=rng)
    steps = torch.full((n,), t)
    losses = (eps - predict_noise(q_sample(x0, steps, eps, schedule), steps)).square().sum(dim=1)
    return float(losses.mean()), float(losses.std() / n**0.5)


def split_digits() -> tuple[Images, Images]:
    """All of scikit-learn's digits divided at random (they are ordered by writer): 898 to learn from, 898 held out."""
    split = digits()
    images = torch.cat([split.train.images, split.test.data.images])
    labels = torch.cat([split.train.labels, split.test.data.labels])
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(images)))
    halves = order[:898], order[898:1_796]
    seen, unseen = (Images(images[rows], labels[rows], split.train.class_names) for rows in halves)
    return seen, unseen


def digits_frechet(model: Diffusion, steps: int, seen: Images, unseen: Images, *, seed: int, n: int = 800) -> float:
    """Fréchet distance on the digits CNN of digits drawn by ancestral sampling in so many steps, to held-out ones."""
    labels = seen.labels[:n]
    start = torch.randn(n, *model.data_spec_.shape, generator=torch.Generator().manual_seed(seed))
    rng = torch.Generator().manual_seed(seed + 1)
    drawn = ancestral(model.noise_predictor(labels), start, model.schedule.respaced(steps), rng, clip=1.0)
    x, real = (image_features(images, "digits-cnn") for images in (drawn.clamp(-1, 1), unseen.images))
    return frechet_distance(x, real)


def digits_novelty(drawn: Tensor, seen: Images, unseen: Images) -> NoveltyResult:
    """Novelty of drawn digits (N, 1, 8, 8): are they nearer to training digits than to held-out ones?"""
    x, train, holdout = (images.flatten(1).numpy() for images in (drawn, seen.images, unseen.images))
    return novelty(x, train=train, holdout=holdout, seed=0)


@experiment(
    "diffusion",
    help="Train diffusion models of points and digits: loss, sampling steps, novelty.",
    data_source="models of section 3, trained anew for each row",
    results="artifacts/calibration/diffusion/trials.json",
    cases=("floor", "digits"),
)
def diffusion_trial(case: str, *, seed: int) -> dict[str, Any]:
    """Loss over the optimal loss ("floor"), or novelty and Fréchet distance by sampling steps ("digits")."""
    torch.set_num_threads(1)
    row: dict[str, Any] = {"case": case, "seed": seed}
    if case == "floor":
        schedule = NoiseSchedule.linear(1_000)
        net = train_noise_net(VARIANCES, schedule, seed=seed)
        floor = optimal_loss(VARIANCES.numpy(), schedule)[np.array(LOSS_TIMESTEPS) - 1]
        losses = [noise_loss(net, t, VARIANCES, schedule, seed=100 + seed) for t in LOSS_TIMESTEPS]
        mean, error = np.array(losses).T
        row["mean loss over floor"] = mean.mean() / floor.mean()
        row["standard errors above floor"] = float(((mean - floor) / error).min())
        return row
    seen, unseen = split_digits()
    model = Diffusion(width=32, batch_size=64, learning_rate=3e-3).fit(seen, seed=seed, steps=1_000)
    new = digits_novelty(model.sample(1_000, seed=100 + seed).images, seen, unseen)
    row |= {"share nearer to training": new.dcr_share, "band": new.high}
    for steps in SAMPLING_STEPS:
        row[f"{steps} steps"] = digits_frechet(model, steps, seen, unseen, seed=200 + seed)
    return row


# ── VAEs of the digits: rate and distortion by beta, fine detail by the number of latents ──


BETAS, _LATENTS = (0.1, 0.3, 1, 3, 10), (1, 2, 4, 8, 16)


def rate_distortion(beta: float, *, seed: int) -> dict[str, float]:
    """Rate (nats per picture) and distortion (squared error per pixel) of a VAE of the digits with weight beta."""
    real = digits().train
    model = VAE(latent_dim=8, architecture="mlp", learning_rate=3e-3, beta=beta, decoder_variance=0.5).fit(
        real, seed=seed, steps=1_200
    )
    with torch.no_grad():
        mean, log_variance = model.encode(real.images, real.labels)
        error = (model.decode(mean, real.labels) - real.images).square().mean()
        return {"rate": float(kl_from_standard(mean, log_variance).sum(1).mean()), "distortion": float(error)}


def fine_detail(latent_dim: int, *, seed: int) -> dict[str, float]:
    """High-frequency power over that of real digits: of reconstructed digits, and of digits drawn from the prior."""
    real = digits().train
    model = VAE(latent_dim=latent_dim, architecture="mlp", learning_rate=3e-3).fit(real, seed=seed, steps=1_500)
    with torch.no_grad():
        redrawn = model.decode(model.encode(real.images, real.labels)[0], real.labels)
    images = {"redrawn": redrawn, "drawn": model.sample(2_000, seed=seed).images}
    return {name: high_frequency_power(x) / high_frequency_power(real.images) for name, x in images.items()}


@experiment(
    "vae",
    help="Train VAEs of the digits at five values of beta and five latent sizes.",
    data_source="models of section 3, trained anew for each row",
    results="artifacts/calibration/vae/trials.json",
    cases=(*(f"beta {beta:g}" for beta in BETAS), *(f"latents {q}" for q in _LATENTS)),
)
def vae_trial(case: str, *, seed: int) -> dict[str, Any]:
    """`rate_distortion` for a beta ("beta 3"), or `fine_detail` for a number of latents ("latents 4")."""
    torch.set_num_threads(1)
    name, value = case.split()
    row = rate_distortion(float(value), seed=seed) if name == "beta" else fine_detail(int(value), seed=seed)
    return {"case": case, "seed": seed} | {name: round(value, 5) for name, value in row.items()}
