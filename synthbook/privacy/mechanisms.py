"""Noise that hides one person: how much of it a budget asks for, and what a given noise spends.

    (epsilon, delta):  P(M(D) in S) <= e^epsilon P(M(D') in S) + delta      for all S and all neighbours D, D'
    Gaussian:  delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu),   mu = sensitivity / sigma
    Laplace:   scale = sensitivity / epsilon,   delta = 0
    choice:    P(i) ~ e^(epsilon score_i / (2 sensitivity)),   epsilon^2 / 8-zCDP    Cesar and Rogers, arXiv:2004.07223
    zCDP:      Renyi divergence at most rho a at every order a; Gaussian noise has rho = mu^2 / 2; rhos add up

Balle and Wang, arXiv:1805.06530, theorem 8, which is exact; the classical sigma, sqrt(2 ln(1.25/delta)) / epsilon, is
proved for epsilon < 1 only, and false for large ones. No floating-point protection is claimed: a real release needs
noise that is drawn exactly (Mironov 2012).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_ndtr

from synthbook.core.errors import InvalidArgument

LARGEST = 1e6  # epsilon or sigma that is looked for


def check_epsilon_delta(epsilon: float, delta: float) -> None:
    """Raise `InvalidArgument` unless epsilon > 0 and 0 < delta < 1, both finite."""
    if not 0 < epsilon < math.inf:
        raise InvalidArgument("epsilon", epsilon, "a finite number above 0")
    if not 0 < delta < 1:
        raise InvalidArgument("delta", delta, "a probability above 0 and below 1, far below 1 / (number of people)")


def check_sigma(sigma: float, sensitivity: float = 1.0) -> None:
    """Raise `InvalidArgument` unless both are finite and above 0."""
    if not 0 < sigma < math.inf or not 0 < sensitivity < math.inf:
        raise InvalidArgument("sigma, sensitivity", (sigma, sensitivity), "finite numbers above 0")


def gaussian_delta(epsilon: float, sigma: float, *, sensitivity: float = 1.0) -> float:
    """The delta that Gaussian noise of size sigma leaves at an epsilon of at least 0.

    >>> round(gaussian_delta(1.0, 3.7306), 8)
    1e-05
    """
    check_sigma(sigma, sensitivity)
    mu = sensitivity / sigma
    first, second = log_ndtr(mu / 2 - epsilon / mu), epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    return float(max(np.exp(first) - np.exp(second), 0.0))


def gaussian_epsilon(sigma: float, delta: float, *, sensitivity: float = 1.0) -> float:
    """The epsilon that Gaussian noise of size sigma spends at a delta; 0 where delta alone covers it.

    >>> round(gaussian_epsilon(1.0, 1e-5), 4)
    4.3772
    """
    check_epsilon_delta(1.0, delta)
    if gaussian_delta(0.0, sigma, sensitivity=sensitivity) <= delta:
        return 0.0
    return float(brentq(lambda e: gaussian_delta(e, sigma, sensitivity=sensitivity) - delta, 0.0, LARGEST, xtol=1e-12))


def gaussian_sigma(epsilon: float, delta: float, *, sensitivity: float = 1.0) -> float:
    """The least Gaussian noise that keeps (epsilon, delta).

    >>> round(gaussian_sigma(1.0, 1e-5), 4)
    3.7306
    """
    check_epsilon_delta(epsilon, delta)
    check_sigma(1.0, sensitivity)
    found = brentq(
        lambda log: gaussian_delta(epsilon, math.exp(log)) - delta, math.log(1e-3), math.log(LARGEST), xtol=1e-13
    )
    return float(math.exp(found)) * sensitivity


def classical_sigma(epsilon: float, delta: float, *, sensitivity: float = 1.0) -> float:
    """sqrt(2 ln(1.25 / delta)) sensitivity / epsilon; kept to show where it fails.

    >>> gaussian_delta(10.0, classical_sigma(10.0, 1e-5)) > 1e-5
    True
    """
    check_epsilon_delta(epsilon, delta)
    return math.sqrt(2 * math.log(1.25 / delta)) * sensitivity / epsilon


def laplace_mechanism(
    values: NDArray[np.float64], epsilon: float, rng: np.random.Generator, *, sensitivity: float = 1.0
) -> NDArray[np.float64]:
    """Values with Laplace noise; `sensitivity` is the L1 distance that one person moves all of them together."""
    check_epsilon_delta(epsilon, 0.5)
    check_sigma(1.0, sensitivity)
    return values + rng.laplace(0.0, sensitivity / epsilon, values.shape)


def gaussian_mechanism(
    values: NDArray[np.float64], epsilon: float, delta: float, rng: np.random.Generator, *, sensitivity: float = 1.0
) -> NDArray[np.float64]:
    """Values with Gaussian noise; `sensitivity` is the L2 distance that one person moves all of them together."""
    return values + rng.normal(0.0, gaussian_sigma(epsilon, delta, sensitivity=sensitivity), values.shape)


# ── many measurements: zero-concentrated differential privacy ────────────────────────────────────────────────────────


def zcdp_epsilon(rho: float, delta: float) -> float:
    """The epsilon of what together is rho-zCDP (Bun and Steinke 2016), by the conversion of arXiv:2004.00010.

    >>> round(zcdp_epsilon(0.5 / 3.7306**2, 1e-5), 2)  # Gaussian noise that is exactly (1, 1e-5)-private
    1.09
    """
    check_epsilon_delta(1.0, delta)
    if not rho > 0:
        raise InvalidArgument("rho", rho, "a number above 0")

    def spent(log: float) -> float:
        a = 1 + math.exp(log)  # the order
        return rho * a + math.log1p(-1 / a) - (math.log(delta) + math.log(a)) / (a - 1)

    return max(float(minimize_scalar(spent, bounds=(-12.0, 12.0), method="bounded").fun), 0.0)


def zcdp_rho(epsilon: float, delta: float) -> float:
    """The largest rho that keeps (epsilon, delta)."""
    check_epsilon_delta(epsilon, delta)
    found = brentq(lambda log: zcdp_epsilon(math.exp(log), delta) - epsilon, -40.0, 20.0, xtol=1e-12)
    return math.exp(found) * (1 - 1e-9)


def exponential_mechanism(
    scores: NDArray[np.float64], epsilon: float, rng: np.random.Generator, *, sensitivity: float = 1.0
) -> int:
    """The place of a high score, by the exponential mechanism (McSherry and Talwar 2007).

    `sensitivity` is how far one person moves any score; epsilon may be infinite, for the highest.
    """
    if not len(scores) or not np.isfinite(scores).all():
        raise InvalidArgument("scores", scores, "at least one finite number")
    if epsilon == math.inf:
        return int(np.argmax(scores))
    check_epsilon_delta(epsilon, 0.5)
    # the largest of logits + Gumbel noise is a draw from their softmax
    return int(np.argmax(epsilon * scores / (2 * sensitivity) + rng.gumbel(size=len(scores))))
