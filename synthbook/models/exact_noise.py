"""Noise predictors that need no training, because the data's distribution is known.

For the least squared error, the predicted noise follows from the mean of the data given what is seen of them:

    eps*(x, t) = (x - sqrt(alpha_bar_t) E[x_0 | x_t = x]) / sqrt(1 - alpha_bar_t)

With them, what a sampler gets wrong is told apart from what a network has not learnt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthbook.core.errors import InvalidArgument
from synthbook.models.samplers import alpha_bar_at
from synthbook.models.schedule import Schedule

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GaussianNoise:
    """The exact predictor for data N(mean, covariance), `mean` (d,) and `covariance` (d, d)."""

    mean: Tensor
    covariance: Tensor
    schedule: Schedule

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise (N, d) in x (N, d) at steps t (N,)."""
        values, vectors = torch.linalg.eigh(self.covariance)
        a = alpha_bar_at(self.schedule, t, x)
        centred = (x - a.sqrt() * self.mean) @ vectors
        # sqrt(1 - a) (a Sigma + (1 - a) I)^-1 (x - sqrt(a) mean), in the basis of Sigma
        eps: Tensor = ((1 - a).sqrt() / (a * values + 1 - a) * centred) @ vectors.T
        return eps


@dataclass(frozen=True, eq=False)
class MixtureNoise:
    """The exact predictor for a mixture of K equal Gaussians, `centres` (K, ...) and one `variance` for every axis.

    With variance 0 the centres are all the data there are: this is what minimises the training loss of C3.3-5 exactly.
    """

    centres: Tensor
    variance: float
    schedule: Schedule

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise (N, ...) in x (N, ...) at steps t (N,)."""
        a = alpha_bar_at(self.schedule, t, x).view(-1, 1)
        seen, centres = x.flatten(1), self.centres.flatten(1)
        power = a * self.variance + 1 - a  # variance of x_t within a component, (N, 1)
        # |x - sqrt(a) m|^2, where terms that do not depend on the component cancel in the softmax
        distance = a * (centres**2).sum(1) - 2 * a.sqrt() * (seen @ centres.T)
        w = torch.softmax(-distance / (2 * power), dim=1)  # (N, K), w_i = p(component i | x)
        near = w @ centres
        # E[x_0 | x] = sum_i w_i (m_i + sqrt(a) variance / power (x - sqrt(a) m_i))
        x0 = near + a.sqrt() * self.variance / power * (seen - a.sqrt() * near)
        return ((seen - a.sqrt() * x0) / (1 - a).sqrt()).view_as(x)


def loss_floor(eigenvalues: Array, schedule: Schedule) -> Array:
    """The least possible mean of |eps - prediction|^2 (T,) at steps 1, ..., T, for Gaussian data.

    Sum over i of alpha_bar lambda_i / (alpha_bar lambda_i + 1 - alpha_bar), with `eigenvalues` of the covariance: the
    part of the noise that cannot be told from the data. It tends to 1 per dimension as t goes to 0.
    """
    a, values = schedule.alpha_bar[1:, None], np.asarray(eigenvalues, dtype=float)
    if values.ndim != 1 or not (values >= 0).all():
        raise InvalidArgument("eigenvalues", eigenvalues, "variances (d,) of at least 0")
    return np.asarray((a * values / (a * values + 1 - a)).sum(1))


def sampled_variance(variance: float, schedule: Schedule, *, noise: str = "beta") -> float:
    """The variance that ancestral sampling ends with for data N(0, variance), relative to it, with the exact predictor.

    v_{t-1} = c_t^2 v_t + sigma_t^2, c_t = (1 - beta_t / (alpha_bar_t variance + 1 - alpha_bar_t)) / sqrt(1 - beta_t).
    """
    beta, a, sigma2 = schedule.beta, schedule.alpha_bar, getattr(schedule, noise)
    v = 1.0
    for t in range(schedule.T, 0, -1):
        c = (1 - beta[t] / (a[t] * variance + 1 - a[t])) / np.sqrt(1 - beta[t])
        v = c**2 * v + (sigma2[t] if t > 1 else 0)
    return float(v / variance)
