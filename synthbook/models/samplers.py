"""From noise back to data, one step at a time: ancestral sampling and DDIM, for whatever predicts the noise.

A predictor is any function eps(x, t) of noised data x (N, ...) and step numbers t (N,), 1 to T, that returns the noise
in x: a trained network, or one of the exact ones of `exact_noise`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from synthbook.core.errors import InvalidArgument
from synthbook.models.schedule import Schedule

NoisePredictor = Callable[[Tensor, Tensor], Tensor]
VARIANCES = ("beta", "beta_tilde")


def q_sample(x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
    """Noised data x_t (N, ...) at steps t (N,) from 0 to T: all t steps of the forward process at once."""
    a = alpha_bar_at(schedule, t, x0)
    # x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


def alpha_bar_at(schedule: Schedule, t: Tensor, like: Tensor) -> Tensor:
    """alpha_bar of steps t (N,), shaped (N, 1, ...) to multiply data `like` (N, ...)."""
    table = torch.as_tensor(schedule.alpha_bar, dtype=torch.float64)
    return table[t.cpu()].to(like.device, like.dtype).view(-1, *[1] * (like.ndim - 1))


@torch.no_grad()
def ancestral(
    predict: NoisePredictor,
    noise: Tensor,
    schedule: Schedule,
    rng: torch.Generator,
    *,
    variance: str = "beta",
    clip: float | None = None,
) -> Tensor:
    """Samples (N, ...) from `noise` (N, ...) ~ N(0, 1): Ho et al., arXiv:2006.11239, algorithm 2.

    `variance` is "beta" or "beta_tilde", the two choices of section 3.2; the last step adds none. `clip` keeps every
    guess of the data within [-clip, clip].
    """
    if variance not in VARIANCES:
        raise InvalidArgument("variance", variance, " or ".join(VARIANCES))
    sigma = getattr(schedule, variance) ** 0.5
    x = noise
    for t, eps in _backwards(predict, schedule):
        a, before, beta = schedule.alpha_bar[t], schedule.alpha_bar[t - 1], schedule.beta[t]
        x0, _ = _guess(x, eps(x), a, clip)
        # mean of q(x_{t-1} | x_t, x_0), eq. 7
        x = (before**0.5 * beta * x0 + (1 - beta) ** 0.5 * (1 - before) * x) / (1 - a)
        if t > 1:
            x = x + sigma[t] * _normal(x, rng)
    return x


@torch.no_grad()
def ddim(
    predict: NoisePredictor,
    noise: Tensor,
    schedule: Schedule,
    rng: torch.Generator | None = None,
    *,
    eta: float = 0.0,
    clip: float | None = None,
) -> Tensor:
    """Samples (N, ...) from `noise` (N, ...): Song et al., arXiv:2010.02502, eq. 12; without `eta` no noise is added.

    With eta = 1 it is ancestral sampling with beta_tilde.
    """
    if eta > 0 and rng is None:
        raise InvalidArgument("rng", None, "a generator, where eta adds noise")
    sigma = eta * schedule.beta_tilde**0.5
    x = noise
    for t, eps in _backwards(predict, schedule):
        before = schedule.alpha_bar[t - 1]
        x0, noise_in_x = _guess(x, eps(x), schedule.alpha_bar[t], clip)
        x = before**0.5 * x0 + max(1 - before - sigma[t] ** 2, 0.0) ** 0.5 * noise_in_x
        if rng is not None and sigma[t] > 0:
            x = x + sigma[t] * _normal(x, rng)
    return x


def _backwards(predict: NoisePredictor, schedule: Schedule) -> Iterator[tuple[int, Callable[[Tensor], Tensor]]]:
    """Steps T, ..., 1, each with the predictor told what its network calls that step."""
    for t in range(schedule.T, 0, -1):
        called = int(schedule.times[t])
        yield t, lambda x, called=called: predict(x, torch.full((len(x),), called, device=x.device))  # type: ignore[misc]


def _guess(x: Tensor, eps: Tensor, alpha_bar: float, clip: float | None) -> tuple[Tensor, Tensor]:
    """The data that x would come from if eps were its noise, and that noise."""
    # x_0 = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t)
    x0 = (x - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5
    if clip is None:
        return x0, eps
    x0 = x0.clamp(-clip, clip)
    return x0, (x - alpha_bar**0.5 * x0) / (1 - alpha_bar) ** 0.5


def _normal(like: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=rng, dtype=like.dtype).to(like.device)
