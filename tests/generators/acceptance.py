"""The exact claims of section 3 as functions of the code: they hold for the package and fail for its mutants."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from scipy import stats

Code = ModuleType | SimpleNamespace


def forward_ends_in_noise(schedule: Code) -> bool:
    """C3.3-1: alpha_bar_1000, with the betas of T = 1,000 for 100 steps, and at both ends of the table."""
    long, short = schedule.NoiseSchedule.linear(1_000), schedule.NoiseSchedule.linear(100, rescale=False)
    ends = long.T == 1_000 and long.alpha_bar[0] == 1 and np.isclose(long.alpha_bar[1], 1 - 1e-4, rtol=1e-12)
    return bool(ends and abs(long.alpha_bar[-1] / 4.0358e-5 - 1) < 1e-4 and abs(short.alpha_bar[-1] - 0.3636) < 0.001)


def one_shot_equals_the_chain(samplers: Code, schedule: Code, n: int = 4_000) -> bool:
    """C3.3-1: moments of x_t at t = 1, 250, 500, 1000, and the same distribution as step by step."""
    table = schedule.NoiseSchedule.linear(1_000)
    rng = torch.Generator().manual_seed(0)
    x0 = torch.full((n, 1), 1.5, dtype=torch.float64)
    chain, good = x0.clone(), True
    for t in range(1, 1_001):
        beta = table.beta[t]
        chain = (1 - beta) ** 0.5 * chain + beta**0.5 * torch.randn(n, 1, generator=rng, dtype=torch.float64)
        if t in (1, 250, 500, 1_000):
            a = table.alpha_bar[t]
            eps = torch.randn(n, 1, generator=rng, dtype=torch.float64)
            x = samplers.q_sample(x0, torch.full((n,), t), eps, table)
            good &= abs(float(x.mean()) - 1.5 * a**0.5) < 4 * ((1 - a) / n) ** 0.5
            good &= abs(float(x.var()) / (1 - a) - 1) < 4 * (2 / n) ** 0.5
            good &= stats.ks_2samp(x.ravel().numpy(), chain.ravel().numpy()).pvalue > 0.001
    return bool(good)


def noise_floor_is_reached(exact: Code, samplers: Code, schedule: Code, n: int = 20_000) -> bool:
    """C3.3-2: the exact predictor's loss is the floor at t = 1, 100, 400, 1000, and 0.2755 on average for N(0, 1)."""
    table = schedule.NoiseSchedule.linear(1_000)
    values = np.array([4.0, 1.0, 0.1])
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    covariance = turn @ torch.diag(torch.from_numpy(values)) @ turn.T
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    predict = exact.GaussianNoisePredictor(mean, covariance, table)
    rng = torch.Generator().manual_seed(2)
    good = abs(exact.optimal_loss(np.ones(1), table).mean() / 0.2755 - 1) < 0.001
    for t in (1, 100, 400, 1_000):
        z, eps = torch.randn(2, n, 3, generator=rng, dtype=torch.float64)
        x0 = mean + (z * torch.from_numpy(values).sqrt()) @ turn.T
        steps = torch.full((n,), t)
        lost = (eps - predict(samplers.q_sample(x0, steps, eps, table), steps)).square().sum(1)
        good &= abs(float(lost.mean()) - exact.optimal_loss(values, table)[t - 1]) < 4 * float(lost.std()) / n**0.5
    return bool(good)


TABLE = {  # claim C3.3-4: steps -> variance kept for variances 1 and 0.01, with beta and beta_tilde
    1000: (0.9999, 0.9911, 1.0154, 0.9276),
    100: (0.9990, 0.9208, 1.1778, 0.6414),
    50: (0.9980, 0.8536, 1.4344, 0.4939),
    20: (0.9950, 0.6866, 2.8312, 0.3289),
    10: (0.9900, 0.4610, 5.8442, 0.2722),
}
CASES = [(1.0, "beta"), (1.0, "beta_tilde"), (0.01, "beta"), (0.01, "beta_tilde")]


def ancestral_variances(exact: Code, samplers: Code, schedule: Code, n: int = 8_000) -> bool:
    """C3.3-4: sampled and computed variance for 100 to 10 steps, with the exact predictor."""
    good = True
    for steps in (100, 50, 20, 10):
        table = schedule.NoiseSchedule.linear(steps)
        for (variance, noise), kept in zip(CASES, TABLE[steps], strict=True):
            predict = exact.MixtureNoisePredictor(torch.zeros(1, 1, dtype=torch.float64), variance, table)
            rng = torch.Generator().manual_seed(steps)
            start = torch.randn(n, 1, generator=rng, dtype=torch.float64)
            x = samplers.ancestral(predict, start, table, rng, variance_type=noise)
            good &= abs(float(x.var()) / variance / kept - 1) < 4 * (2 / n) ** 0.5
            good &= abs(exact.ancestral_variance_ratio(variance, table, variance_type=noise) - kept) < 1e-4
    return bool(good)


def dirac_game(dirac: Code) -> bool:
    """C3.2-2 and C3.2-3 (a): who runs away, who circles, who settles."""
    near = dirac.simulate(dirac.DIRAC_GANS["plain"], h=0.1, steps=1_000, start=(1e-3, 0.0))
    grown = dirac.distance(near)[-1] / 1e-3
    good = abs(grown / (1 + 0.1**2 / 4) ** 500 - 1) < 1e-3 and abs(dirac.rotation(near).mean() / 0.05 - 1) < 0.01
    turns = (
        dirac.distance(dirac.simulate(dirac.DIRAC_GANS["plain"], steps=5_000, start=(1e-3, 0.0), alternating=True))
        / 1e-3
    )
    good &= turns.min() > 0.9 and turns.max() < 1.1
    far = {name: dirac.distance(dirac.simulate(game, steps=5_000))[-1] for name, game in dirac.DIRAC_GANS.items()}
    good &= abs(far["plain"] - 3.63) < 0.01 and far["WGAN-GP"] > 0.5 and far["WGAN, clipped"] > 0.5
    return bool(good and far["R1"] < 1e-6)


def linear_vae_in_theory(ppca: Code) -> bool:
    """C3.1-1 and C3.1-2 (a): noise, likelihood and variance kept of the example with d = 10, q = 3."""
    model = ppca.PPCA(np.array([4, 2, 1, *np.linspace(0.5, 0.2, 7)]), 3)
    return bool(
        abs(model.noise_variance - 0.35) < 1e-12
        and abs(model.log_likelihood + 11.5547) < 1e-4
        and abs(model.retained_variance - 0.6296) < 1e-4
        and [ppca.active_units(model.eigenvalues, 0.34, beta) for beta in (0.1, 1, 3, 10)] == [10, 7, 2, 1]
    )


def elbo_is_right(vae: Code, n: int = 100_000) -> bool:
    """C3.1-1: the formula for the KL against draws, and the density of a Gaussian against scipy's."""
    rng = torch.Generator().manual_seed(0)
    mean, log_variance = torch.tensor([0.7, -1.0, 0.0]), torch.tensor([-0.5, 0.4, 0.0])
    z = mean + (0.5 * log_variance).exp() * torch.randn(n, 3, generator=rng)
    ratio = stats.norm.logpdf(z, mean, (0.5 * log_variance).exp()) - stats.norm.logpdf(z)
    good = np.abs(ratio.mean(0) - vae.kl_from_standard(mean, log_variance).numpy()) <= 4 * ratio.std(0) / n**0.5 + 1e-7
    x = torch.randn(5, 2, 3, generator=rng, dtype=torch.float64)
    here = vae.gaussian_log_density(x, torch.ones(5, 2, 3, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64))
    there = stats.norm.logpdf(x, 1, 0.3**0.5).sum((1, 2))
    return bool(good.all() and np.allclose(here, there))


def copies_only(exact: Code, samplers: Code, schedule: Code, images: torch.Tensor, n: int = 64) -> float:
    """C3.3-5: the largest distance (RMS per number) from a sample of the exact minimiser to its nearest row."""
    table = schedule.NoiseSchedule.linear(1_000)
    rng = torch.Generator().manual_seed(0)
    predict = exact.MixtureNoisePredictor(images, 0.0, table)
    x = samplers.ddim(predict, torch.randn((n, *images.shape[1:]), generator=rng), table.respaced(50))
    distance = torch.cdist(x.flatten(1), images.flatten(1)) / images[0].numel() ** 0.5
    return float(distance.min(1).values.max())
