"""The mechanisms of differential privacy: how much noise a budget needs, and what a given noise spends.

    (epsilon, delta):  P(M(D) in S) <= e^epsilon P(M(D') in S) + delta      for all S and all neighboring D, D'
    Gaussian:     delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu),   mu = sensitivity / sigma
    Laplace:      scale = sensitivity / epsilon,   delta = 0
    exponential:  P(i) ~ e^(epsilon score_i / (2 sensitivity)),   epsilon^2 / 8-zCDP  Cesar and Rogers, arXiv:2004.07223
    zCDP:         Renyi divergence at most rho a at every order a; Gaussian noise has rho = mu^2 / 2; rhos add up

The Gaussian formula is exact (Balle and Wang, arXiv:1805.06530, theorem 8). The classical sigma,
sqrt(2 ln(1.25/delta)) / epsilon, is proved for epsilon < 1 only, and false for large ones. No protection against
attacks on floating-point noise is claimed: a real release needs noise that is sampled exactly (Mironov 2012).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_ndtr

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array

_MAX_SEARCHED = 1e6  # upper end of the search for epsilon or sigma


def check_epsilon_delta(epsilon: float, delta: float) -> None:
    """Raise `InvalidArgument` unless epsilon > 0 and 0 < delta < 1, both finite."""
    if not 0 < epsilon < math.inf:
        raise InvalidArgument("epsilon", epsilon, "a finite number above 0")
    if not 0 < delta < 1:
        raise InvalidArgument("delta", delta, "a probability above 0 and below 1, far below 1 / (number of people)")


def check_delta(delta: float, n_units: int) -> None:
    """Raise `InvalidArgument` unless delta < 1 / n_units: a larger one permits publishing a unit's record."""
    if n_units < 2 or delta >= 1 / n_units:
        raise InvalidArgument("delta", delta, f"far below 1 / {n_units:,}, one over the number of units, of at least 2")


def _check_sigma(sigma: float, sensitivity: float = 1.0) -> None:
    """Raise `InvalidArgument` unless both are finite and above 0."""
    if not 0 < sigma < math.inf or not 0 < sensitivity < math.inf:
        raise InvalidArgument("sigma, sensitivity", (sigma, sensitivity), "finite numbers above 0")


def gaussian_delta(epsilon: float, sigma: float, *, sensitivity: float = 1.0) -> float:
    """The delta of the Gaussian mechanism with standard deviation sigma, at an epsilon of at least 0.

    >>> round(gaussian_delta(1.0, 3.7306), 8)
    1e-05
    """
    _check_sigma(sigma, sensitivity)
    mu = sensitivity / sigma
    first, second = log_ndtr(mu / 2 - epsilon / mu), epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    return float(max(np.exp(first) - np.exp(second), 0.0))


def gaussian_epsilon(sigma: float, delta: float, *, sensitivity: float = 1.0) -> float:
    """The epsilon of the Gaussian mechanism with standard deviation sigma; 0 if delta alone covers its privacy loss.

    >>> round(gaussian_epsilon(1.0, 1e-5), 4)
    4.3772
    """
    check_epsilon_delta(1.0, delta)
    if gaussian_delta(0.0, sigma, sensitivity=sensitivity) <= delta:
        return 0.0
    return float(
        brentq(lambda e: gaussian_delta(e, sigma, sensitivity=sensitivity) - delta, 0.0, _MAX_SEARCHED, xtol=1e-12)
    )


def gaussian_sigma(epsilon: float, delta: float, *, sensitivity: float = 1.0) -> float:
    """The smallest standard deviation of Gaussian noise that is (epsilon, delta)-private.

    >>> round(gaussian_sigma(1.0, 1e-5), 4)
    3.7306
    """
    check_epsilon_delta(epsilon, delta)
    _check_sigma(1.0, sensitivity)
    log_sigma = brentq(
        lambda log: gaussian_delta(epsilon, math.exp(log)) - delta, math.log(1e-3), math.log(_MAX_SEARCHED), xtol=1e-13
    )
    return float(math.exp(log_sigma)) * sensitivity


def classical_sigma(epsilon: float, delta: float, *, sensitivity: float = 1.0) -> float:
    """sqrt(2 ln(1.25 / delta)) sensitivity / epsilon; provided to show where it fails.

    >>> gaussian_delta(10.0, classical_sigma(10.0, 1e-5)) > 1e-5
    True
    """
    check_epsilon_delta(epsilon, delta)
    return math.sqrt(2 * math.log(1.25 / delta)) * sensitivity / epsilon


def laplace_mechanism(values: Array, epsilon: float, rng: np.random.Generator, *, sensitivity: float = 1.0) -> Array:
    """Add Laplace noise to values; `sensitivity` is the L1 distance by which one person changes them in total."""
    check_epsilon_delta(epsilon, 0.5)
    _check_sigma(1.0, sensitivity)
    return values + rng.laplace(0.0, sensitivity / epsilon, values.shape)


def gaussian_mechanism(
    values: Array, epsilon: float, delta: float, rng: np.random.Generator, *, sensitivity: float = 1.0
) -> Array:
    """Add Gaussian noise to values; `sensitivity` is the L2 distance by which one person changes them in total."""
    return values + rng.normal(0.0, gaussian_sigma(epsilon, delta, sensitivity=sensitivity), values.shape)


def exponential_mechanism(scores: Array, epsilon: float, rng: np.random.Generator, *, sensitivity: float = 1.0) -> int:
    """Sample the index of a high score with the exponential mechanism (McSherry and Talwar 2007).

    `sensitivity` is the most that one person changes any score; an infinite epsilon returns the index of the maximum.
    """
    if not len(scores) or not np.isfinite(scores).all():
        raise InvalidArgument("scores", scores, "at least one finite number")
    if epsilon == math.inf:
        return int(np.argmax(scores))
    check_epsilon_delta(epsilon, 0.5)
    # the argmax of logits + Gumbel noise is a sample from their softmax
    return int(np.argmax(epsilon * scores / (2 * sensitivity) + rng.gumbel(size=len(scores))))


# ── Zero-concentrated differential privacy: many measurements ──


def zcdp_epsilon(rho: float, delta: float) -> float:
    """The epsilon of a rho-zCDP mechanism (Bun and Steinke 2016), by the conversion of arXiv:2004.00010.

    >>> round(zcdp_epsilon(0.5 / 3.7306**2, 1e-5), 2)  # Gaussian noise that is exactly (1, 1e-5)-private
    1.09
    """
    check_epsilon_delta(1.0, delta)
    if not rho > 0:
        raise InvalidArgument("rho", rho, "a number above 0")

    def epsilon_at(log: float) -> float:
        a = 1 + math.exp(log)  # the order
        return rho * a + math.log1p(-1 / a) - (math.log(delta) + math.log(a)) / (a - 1)

    return max(float(minimize_scalar(epsilon_at, bounds=(-12.0, 12.0), method="bounded").fun), 0.0)


def zcdp_rho(epsilon: float, delta: float) -> float:
    """The largest rho for which rho-zCDP implies (epsilon, delta)-DP."""
    check_epsilon_delta(epsilon, delta)
    log_rho = brentq(lambda log: zcdp_epsilon(math.exp(log), delta) - epsilon, -40.0, 20.0, xtol=1e-12)
    return math.exp(log_rho) * (1 - 1e-9)


# ── Histograms: the smallest private generator ──
# count_c + Laplace(1 / epsilon)        total error of K counts  K / epsilon,   over n records  K / (n epsilon)
#
# Adding or removing a record changes one count by 1, the L1 sensitivity. Clipping at 0 is post-processing and worsens
# no count, because true counts are not negative. Rows sampled from the counts reveal no more than the counts do.


def laplace_histogram(counts: Array, epsilon: float, rng: np.random.Generator) -> Array:
    """Counts (..., K) with Laplace noise, clipped at 0; an infinite epsilon adds no noise."""
    return np.maximum(counts if epsilon == np.inf else laplace_mechanism(counts, epsilon, rng), 0.0)


def multinomial_counts(counts: Array, n_rows: int, rng: np.random.Generator) -> Array:
    """Sample how many of `n_rows` rows fall into each cell (..., K), with probabilities proportional to the counts."""
    return np.asarray(rng.multinomial(n_rows, counts / counts.sum(axis=-1, keepdims=True)), dtype=float)
