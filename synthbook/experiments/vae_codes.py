"""What a code of the digits costs and what it keeps: VAEs at several prices, and with codes of several lengths."""

from __future__ import annotations

import torch

from synthbook.datasets import digits
from synthbook.evaluation.features import high_frequency_power
from synthbook.experiments import experiment
from synthbook.generators.vae import VAE, kl_from_standard

PRICES, _LATENTS = (0.1, 0.3, 1, 3, 10), (1, 2, 4, 8, 16)
CASES = (*(f"beta {beta:g}" for beta in PRICES), *(f"latents {q}" for q in _LATENTS))
TRIALS = "artifacts/calibration/vae/trials.json"


def priced(beta: float, *, seed: int) -> dict[str, float]:
    """Rate (nats per picture) and distortion (squared error per pixel) of a VAE of the digits at a price beta."""
    real = digits().train
    model = VAE(latent_dim=8, architecture="mlp", learning_rate=3e-3, beta=beta, decoder_variance=0.5).fit(
        real, seed=seed, steps=1_200
    )
    with torch.no_grad():
        mean, log_variance = model.encode(real.images, real.labels)
        error = (model.decode(mean, real.labels) - real.images).square().mean()
        return {"rate": float(kl_from_standard(mean, log_variance).sum(1).mean()), "distortion": float(error)}


def detail(latent_dim: int, *, seed: int) -> dict[str, float]:
    """Fine detail over that of real digits: of digits redrawn from their codes, and of digits drawn from the prior."""
    real = digits().train
    model = VAE(latent_dim=latent_dim, architecture="mlp", learning_rate=3e-3).fit(real, seed=seed, steps=1_500)
    with torch.no_grad():
        redrawn = model.decode(model.encode(real.images, real.labels)[0], real.labels)
    drawn = model.sample(2_000, seed=seed).images
    return {
        "redrawn": high_frequency_power(redrawn) / high_frequency_power(real.images),
        "drawn": high_frequency_power(drawn) / high_frequency_power(real.images),
    }


@experiment(
    "vae",
    help="Train VAEs of the digits at five values of beta and five latent sizes.",
    data_source="models of section 3, trained anew for each row",
    cases=CASES,
)
def trial(case: str, *, seed: int) -> dict[str, float | str]:
    """A case of `synthbook dev experiment vae`: "beta 3" or "latents 4"."""
    torch.set_num_threads(1)
    what, value = case.split()
    found = priced(float(value), seed=seed) if what == "beta" else detail(int(value), seed=seed)
    return {"case": case, "seed": seed, **{name: round(number, 5) for name, number in found.items()}}
