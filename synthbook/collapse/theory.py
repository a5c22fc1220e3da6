"""Closed-form expectations of recursive refitting.

Notation: n rows per generation, t = 1 the fit to real data, real variance 1. `ddof` is 0 for maximum likelihood and 1
for the unbiased variance. Functions of t accept arrays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, gammaln, polygamma
from scipy.stats import binom

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array


def mean_variance(n: int, t: ArrayLike, *, ddof: int = 0) -> Array:
    """E[s2_t] = ((n - 1) / (n - ddof))^t: falls for maximum likelihood, constant for the unbiased fit."""
    return np.asarray(((n - 1) / (n - ddof)) ** np.asarray(t, dtype=float))


def log_variance_drift(n: int, *, ddof: int = 0) -> float:
    """Mean change of ln s2 per generation, psi((n - 1)/2) - ln((n - ddof)/2): below 0 for both estimators."""
    return float(digamma((n - 1) / 2) - np.log((n - ddof) / 2))


def log_variance_variance(n: int) -> float:
    """Variance of the change of ln s2 per generation, psi'((n - 1)/2), for both estimators."""
    return float(polygamma(1, (n - 1) / 2))


def half_life_mean(n: int) -> float:
    """Generations until the mean variance has halved (maximum likelihood), ln 2 / -ln(1 - 1/n)."""
    return float(-np.log(2) / np.log1p(-1 / n))


def half_life_typical(n: int, *, ddof: int = 0) -> float:
    """Generations until the median variance has halved, ln 2 / -drift; for ddof 0 about half that of the mean."""
    return float(-np.log(2) / log_variance_drift(n, ddof=ddof))


def log_det_drift(n: int, d: int, *, ddof: int = 0) -> float:
    """Mean change of ln det of a d-dimensional covariance per generation."""
    return float(digamma((n - np.arange(1, d + 1)) / 2).sum() + d * np.log(2) - d * np.log(n - ddof))


def c4(n: int) -> float:
    """E[s] / sigma for the unbiased s2 of n draws, sqrt(2/(n - 1)) Gamma(n/2) / Gamma((n - 1)/2)."""
    return float(np.sqrt(2 / (n - 1)) * np.exp(gammaln(n / 2) - gammaln((n - 1) / 2)))


def mean_drift(n: int, t: ArrayLike, *, ddof: int = 0) -> Array:
    """Mean squared shift, E[(mu_t - mu_0)^2]: t/n for the unbiased fit, 1 - (1 - 1/n)^t for maximum likelihood."""
    t = np.asarray(t, dtype=float)
    return np.asarray(t / n if ddof else 1 - mean_variance(n, t))


def squared_wasserstein(n: int, t: ArrayLike, *, ddof: int = 0) -> Array:
    """Mean squared 2-Wasserstein distance from the real distribution.

    E[(mu_t - mu_0)^2] + E[s2_t] + 1 - 2 E[s_t] with E[s_t] = (c4 sqrt((n-1)/(n-ddof)))^t.
    """
    mean_s = (c4(n) * np.sqrt((n - 1) / (n - ddof))) ** np.asarray(t, dtype=float)
    return np.asarray(mean_drift(n, t, ddof=ddof) + mean_variance(n, t, ddof=ddof) + 1 - 2 * mean_s)


def kernel_density_variance(n: int, generations: int, *, bandwidth: float | str = "scott") -> Array:
    """Mean variance of a kernel density's rows for t = 0 ... generations.

    v_1 = 1 - 1/n and v_{t+1} = (1 - 1/n)(v_t + h^2). With Scott's rule h^2 = v_t n^(-2/5), which grows without limit;
    with a fixed h the variance tends to (n - 1) h^2.
    """
    v = np.ones(generations + 1)
    v[1:2] = 1 - 1 / n
    for t in range(1, generations):
        h2 = v[t] * n**-0.4 if bandwidth == "scott" else float(bandwidth) ** 2
        v[t + 1] = (1 - 1 / n) * (v[t] + h2)
    return v


def mean_heterozygosity(start: float, n: int, t: ArrayLike) -> Array:
    """Mean heterozygosity of refitted category frequencies, E[H_t] = H_0 (1 - 1/n)^t."""
    return np.asarray(start * mean_variance(n, t))


def survival_probability(p: ArrayLike, n: int, generations: int, *, max_count: int | None = None) -> Array:
    """Exact probability that a category of frequency p survives to t = 1 ... generations.

    `p` is a number or (types,); the result is (generations,) or (generations, types). The count of a category is a
    Markov chain, i -> Binomial(n, i/n). Its transition matrix is truncated at `max_count` (default n, exact); mass
    above it counts as surviving. Raises `InvalidArgument` if more than 1e-6 of the mass is truncated.
    """
    top = n if max_count is None else min(max_count, n)
    counts = np.arange(top + 1)
    step = binom.pmf(counts[None, :], n, counts[:, None] / n)  # (from, to)
    start = binom.pmf(counts[None, :], n, np.atleast_1d(np.asarray(p, dtype=float))[:, None])  # (types, to)
    lost = np.empty((generations, len(start)))
    for t in range(generations):
        lost[t] = start[:, 0]
        start = start @ step
    truncated = 1 - start.sum(axis=1)  # an upper bound on the error
    if (truncated > 1e-6).any():
        raise InvalidArgument("max_count", max_count, f"more counts: {truncated.max():.2g} of the mass lies above")
    return 1 - (lost if np.ndim(p) else lost[:, 0])


def branching_survival(expected_count: ArrayLike, t: int) -> Array:
    """Branching-process approximation of `survival_probability` for t far below n.

    1 - exp(-c (1 - q_{t-1})) with c = n p, the `expected_count`, q_0 = 0 and q_{s+1} = exp(q_s - 1); near 2c/t for
    large t.
    """
    q = 0.0
    for _ in range(t - 1):
        q = float(np.exp(q - 1))
    return np.asarray(1 - np.exp(-np.asarray(expected_count, dtype=float) * (1 - q)))
