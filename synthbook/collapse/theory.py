"""What the refitting loop does in expectation, in closed form.

Notation: n rows per generation, t = 1 the fit to real data, reality has variance 1 unless given. `ddof` is 0 for
maximum likelihood and 1 for the unbiased variance. All functions accept arrays of t.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, gammaln, polygamma
from scipy.stats import binom

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array


def mean_variance(n: int, t: ArrayLike, *, ddof: int = 0) -> Array:
    """E[s2_t] = ((n - 1) / (n - ddof))^t: it falls for maximum likelihood and stays put for the unbiased fit."""
    return np.asarray(((n - 1) / (n - ddof)) ** np.asarray(t, dtype=float))


def log_variance_drift(n: int, *, ddof: int = 0) -> float:
    """Mean change of ln s2 per generation, psi((n - 1)/2) - ln((n - ddof)/2): below 0 for both estimators."""
    return float(digamma((n - 1) / 2) - np.log((n - ddof) / 2))


def log_variance_spread(n: int) -> float:
    """Variance of the change of ln s2 per generation, psi'((n - 1)/2), for both estimators."""
    return float(polygamma(1, (n - 1) / 2))


def half_life_of_the_mean(n: int) -> float:
    """Generations until the mean variance is halved (maximum likelihood), ln 2 / -ln(1 - 1/n)."""
    return float(-np.log(2) / np.log1p(-1 / n))


def half_life_of_a_typical_run(n: int, *, ddof: int = 0) -> float:
    """Generations until the typical run's variance is halved, ln 2 / -drift; about half that of the mean for ddof 0."""
    return float(-np.log(2) / log_variance_drift(n, ddof=ddof))


def log_det_drift(n: int, d: int, *, ddof: int = 0) -> float:
    """Mean change of ln det of a d-dimensional fit per generation."""
    return float(digamma((n - np.arange(1, d + 1)) / 2).sum() + d * np.log(2) - d * np.log(n - ddof))


def c4(n: int) -> float:
    """E[s] / sigma for the unbiased s2 of n draws, sqrt(2/(n - 1)) Gamma(n/2) / Gamma((n - 1)/2)."""
    return float(np.sqrt(2 / (n - 1)) * np.exp(gammaln(n / 2) - gammaln((n - 1) / 2)))


def mean_drift(n: int, t: ArrayLike, *, ddof: int = 0) -> Array:
    """E[(mu_t - mu_0)^2]: t/n for the unbiased fit, 1 - (1 - 1/n)^t for maximum likelihood."""
    t = np.asarray(t, dtype=float)
    return np.asarray(t / n if ddof else 1 - mean_variance(n, t))


def squared_wasserstein(n: int, t: ArrayLike, *, ddof: int = 0) -> Array:
    """E[W2^2 to reality] = E[(mu_t - mu_0)^2] + E[s2_t] + 1 - 2 E[s_t], with E[s_t] = (c4 sqrt((n-1)/(n-ddof)))^t."""
    mean_s = (c4(n) * np.sqrt((n - 1) / (n - ddof))) ** np.asarray(t, dtype=float)
    return np.asarray(mean_drift(n, t, ddof=ddof) + mean_variance(n, t, ddof=ddof) + 1 - 2 * mean_s)


def kernel_density_variance(n: int, generations: int, *, bandwidth: float | str = "scott") -> Array:
    """E[v_t] for t = 0 ... generations: v_1 = 1 - 1/n, then v_{t+1} = (1 - 1/n)(v_t + h^2).

    With Scott's rule h^2 = v_t n^(-2/5), and the variance grows without limit; with a fixed h it tends to (n - 1) h^2.
    """
    v = np.ones(generations + 1)
    v[1:2] = 1 - 1 / n
    for t in range(1, generations):
        h2 = v[t] * n**-0.4 if bandwidth == "scott" else float(bandwidth) ** 2
        v[t + 1] = (1 - 1 / n) * (v[t] + h2)
    return v


def mean_heterogeneity(start: float, n: int, t: ArrayLike) -> Array:
    """E[H_t] = H_0 (1 - 1/n)^t for category frequencies refitted by counting."""
    return np.asarray(start * mean_variance(n, t))


def survival(p: ArrayLike, n: int, generations: int, *, states: int | None = None) -> Array:
    """Chance that a category of frequency p is still present at t = 1 ... generations, exactly.

    `p` is a number or (types,); the result is (generations,) or (generations, types). The count of one category is a
    Markov chain: from i to Binomial(n, i/n). Its transition matrix is cut at `states` counts (default: n, no cut);
    mass that leaves at the top counts as surviving, and `InvalidArgument` is raised if that could matter beyond 1e-6.
    """
    top = n if states is None else min(states, n)
    counts = np.arange(top + 1)
    step = binom.pmf(counts[None, :], n, counts[:, None] / n)  # (from, to)
    start = binom.pmf(counts[None, :], n, np.atleast_1d(np.asarray(p, dtype=float))[:, None])  # (types, to)
    lost = np.empty((generations, len(start)))
    for t in range(generations):
        lost[t] = start[:, 0]
        start = start @ step
    left = 1 - start.sum(axis=1)  # left at the top at some time, an upper limit of the error
    if (left > 1e-6).any():
        raise InvalidArgument("states", states, f"more states: {left.max():.2g} of the mass left the matrix at the top")
    return 1 - (lost if np.ndim(p) else lost[:, 0])


def survival_of_a_branch(copies: ArrayLike, t: int) -> Array:
    """The branching approximation of `survival` for t far below n: 1 - exp(-copies (1 - q_{t-1})).

    `copies` is n p, the expected count; q_0 = 0 and q_{s+1} = exp(q_s - 1). For large t it is near copies 2/t.
    """
    q = 0.0
    for _ in range(t - 1):
        q = float(np.exp(q - 1))
    return np.asarray(1 - np.exp(-np.asarray(copies, dtype=float) * (1 - q)))
