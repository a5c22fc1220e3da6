"""Fit a model, sample from it, fit the next model to the samples: the loop behind model collapse.

Generation t = 0 is reality and t = 1 the model fitted to n real rows; every later model sees only n rows drawn from
the model before it. Two engines run the Gaussian loop. The literal one draws all n numbers and fits them. The other
draws the two statistics that the fit depends on, from their exact distributions, and so needs two random numbers
where the first needs n. They must agree, and the tests see to it.

Shumailov et al., Nature 631:755 (2024); formulas in `synthbook.collapse.theory`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array, Seed


@dataclass(frozen=True)
class GaussianFits:
    """Fitted means and variances, each (generations + 1, replicates); row 0 is reality, row t the t-th model."""

    mean: Array
    variance: Array

    def squared_wasserstein(self) -> Array:
        """Squared 2-Wasserstein distance of every model to reality: (mu_t - mu_0)^2 + (s_t - sigma_0)^2."""
        shift = self.mean - self.mean[0]
        spread = np.sqrt(self.variance) - np.sqrt(self.variance[0])
        return np.asarray(shift**2 + spread**2)


def refit_gaussian(
    n: int,
    generations: int,
    replicates: int,
    *,
    seed: Seed,
    mean: float = 0.0,
    variance: float = 1.0,
    ddof: int = 0,
    tau: float = 1.0,
) -> GaussianFits:
    """Refit a Gaussian to n draws from itself, through its sufficient statistics.

    `ddof` is numpy's: 0 divides by n (maximum likelihood), 1 by n - 1 (unbiased). `tau` multiplies the variance that
    every fitted model samples with; below 1 it is a sampler that prefers the likely. Real data is never altered.
    Variances underflow to 0 where they fall below 1e-308. Raises `InvalidArgument`.
    """
    rng, fits = _start(n, generations, replicates, seed, mean, variance, ddof, tau)
    for t in range(generations):
        s2 = fits.variance[t] * (tau if t > 0 else 1.0)  # (replicates,)
        # mu_{t+1} = mu_t + s_t z / sqrt(n)
        fits.mean[t + 1] = fits.mean[t] + np.sqrt(s2 / n) * rng.standard_normal(replicates)
        # s2_{t+1} = s2_t chi2_{n-1} / (n - ddof)
        fits.variance[t + 1] = s2 * rng.chisquare(n - 1, replicates) / (n - ddof)
    return fits


def refit_gaussian_literally(
    n: int,
    generations: int,
    replicates: int,
    *,
    seed: Seed,
    mean: float = 0.0,
    variance: float = 1.0,
    ddof: int = 0,
    tau: float = 1.0,
) -> GaussianFits:
    """The same loop with nothing left out: draw n numbers from each model and fit the next one to them."""
    rng, fits = _start(n, generations, replicates, seed, mean, variance, ddof, tau)
    for t in range(generations):
        s = np.sqrt(fits.variance[t] * (tau if t > 0 else 1.0))
        x = fits.mean[t][:, None] + s[:, None] * rng.standard_normal((replicates, n))  # (replicates, n)
        fits.mean[t + 1] = x.mean(axis=1)
        fits.variance[t + 1] = x.var(axis=1, ddof=ddof)
    return fits


@dataclass(frozen=True)
class GaussianFitsND:
    """Fits in d dimensions: `mean` (generations + 1, replicates, d) and the lower-triangular `factor`
    (generations + 1, replicates, d, d), whose product with its own transpose is the covariance."""

    mean: Array
    factor: Array

    @property
    def covariance(self) -> Array:
        """Covariance matrices, (generations + 1, replicates, d, d)."""
        return self.factor @ np.swapaxes(self.factor, -1, -2)

    @property
    def log_det(self) -> Array:
        """Log-determinants of the covariances, (generations + 1, replicates)."""
        diagonal = np.diagonal(self.factor, axis1=-2, axis2=-1)
        return np.asarray(2 * np.log(np.abs(diagonal)).sum(axis=-1))


def refit_gaussian_nd(
    n: int, generations: int, replicates: int, *, seed: Seed, covariance: ArrayLike, ddof: int = 0
) -> GaussianFitsND:
    """Refit a d-dimensional Gaussian of mean 0 through its sufficient statistics.

    The scatter of n draws is Wishart; Bartlett's decomposition writes it as A A' with A lower triangular, so the next
    factor is L A / sqrt(k) and no matrix is ever factorised. Raises `InvalidArgument` when n <= d: such a fit is
    singular at once.
    """
    rng, mean, factor = _start_nd(n, generations, replicates, seed, covariance, ddof)
    d = mean.shape[-1]
    for t in range(generations):
        z = rng.standard_normal((replicates, d, 1))
        mean[t + 1] = mean[t] + (factor[t] @ z)[..., 0] / np.sqrt(n)
        a = np.tril(rng.standard_normal((replicates, d, d)), k=-1)
        a[:, range(d), range(d)] = np.sqrt(rng.chisquare(n - 1 - np.arange(d), (replicates, d)))
        # L_{t+1} = L_t A / sqrt(n - ddof)
        factor[t + 1] = factor[t] @ a / np.sqrt(n - ddof)
    return GaussianFitsND(mean, factor)


def refit_gaussian_nd_literally(
    n: int, generations: int, replicates: int, *, seed: Seed, covariance: ArrayLike, ddof: int = 0
) -> GaussianFitsND:
    """The same in d dimensions with nothing left out: draw n rows, take their mean and covariance."""
    rng, mean, factor = _start_nd(n, generations, replicates, seed, covariance, ddof)
    for t in range(generations):
        z = rng.standard_normal((replicates, n, mean.shape[-1]))
        x = mean[t][:, None, :] + z @ np.swapaxes(factor[t], -1, -2)  # (replicates, n, d)
        mean[t + 1] = x.mean(axis=1)
        centred = x - mean[t + 1][:, None, :]
        factor[t + 1] = np.linalg.cholesky(np.swapaxes(centred, -1, -2) @ centred / (n - ddof))
    return GaussianFitsND(mean, factor)


def refit_kernel_density(
    n: int, generations: int, replicates: int, *, seed: Seed, bandwidth: float | str = "scott"
) -> Array:
    """Refit a Gaussian kernel density to n draws from itself, starting from N(0, 1).

    `bandwidth` is a fixed width, or "scott" for s n^(-1/5) computed anew in each generation. Returns the variance
    (dividing by n) of each generation's rows, (generations + 1, replicates); row 0 is reality's. A kernel density has
    no small set of sufficient statistics, so the rows themselves are carried.
    """
    check_sizes(n, generations, replicates)
    if not (bandwidth == "scott" or (isinstance(bandwidth, int | float) and bandwidth > 0)):
        raise InvalidArgument("bandwidth", bandwidth, 'a number above 0 or "scott"')
    rng = np.random.default_rng(seed)
    variance = np.ones((generations + 1, replicates))
    x = rng.standard_normal((replicates, n))  # real rows, (replicates, n)
    for t in range(1, generations + 1):
        variance[t] = x.var(axis=1)
        h = np.sqrt(variance[t])[:, None] * n**-0.2 if bandwidth == "scott" else float(bandwidth)
        # a draw from a kernel density is a row picked at random plus kernel noise
        picked = np.take_along_axis(x, rng.integers(n, size=x.shape), axis=1)
        x = picked + h * rng.standard_normal(x.shape)
    return variance


def refit_with_infinite_data(weights: ArrayLike, means: ArrayLike, variance: float, generations: int) -> Array:
    """Fit one Gaussian to a mixture with common `variance`, then to itself, with infinite data each time.

    Only the model's lack of expressivity is left. Expectations are Gauss-Hermite sums, exact for polynomials.
    Returns (generations + 1, 2) with the mean and variance of each generation; row 0 holds the mixture's own.
    """
    w, m = np.asarray(weights, dtype=float), np.asarray(means, dtype=float)
    if w.shape != m.shape or w.ndim != 1 or (w < 0).any() or not np.isclose(w.sum(), 1):
        raise InvalidArgument("weights", weights, "one non-negative weight for each mean, with sum 1")
    nodes, mass = np.polynomial.hermite_e.hermegauss(16)
    mass = mass / mass.sum()
    x = m[:, None] + np.sqrt(variance) * nodes  # (components, nodes)
    p = w[:, None] * mass
    moments = np.empty((generations + 1, 2))
    moments[0] = _moments(x, p)
    for t in range(1, generations + 1):
        moments[t] = _moments(x, p)
        x, p = moments[t, 0] + np.sqrt(moments[t, 1]) * nodes, mass
    return moments


def _moments(x: Array, p: Array) -> tuple[float, float]:
    mean = float((p * x).sum())
    return mean, float((p * (x - mean) ** 2).sum())


def _start(
    n: int, generations: int, replicates: int, seed: Seed, mean: float, variance: float, ddof: int, tau: float
) -> tuple[np.random.Generator, GaussianFits]:
    check_sizes(n, generations, replicates, ddof)
    for name, value in (("variance", variance), ("tau", tau)):
        if not (np.isfinite(value) and value > 0):
            raise InvalidArgument(name, value, "a finite number above 0")
    fits = GaussianFits(np.empty((generations + 1, replicates)), np.empty((generations + 1, replicates)))
    fits.mean[0], fits.variance[0] = mean, variance
    return np.random.default_rng(seed), fits


def _start_nd(
    n: int, generations: int, replicates: int, seed: Seed, covariance: ArrayLike, ddof: int
) -> tuple[np.random.Generator, Array, Array]:
    sigma = np.asarray(covariance, dtype=float)
    if sigma.ndim != 2 or sigma.shape[0] != sigma.shape[1] or not np.allclose(sigma, sigma.T):
        raise InvalidArgument("covariance", covariance, "a symmetric matrix (d, d)")
    d = len(sigma)
    check_sizes(n, generations, replicates, ddof)
    if n <= d:
        raise InvalidArgument("n", n, f"more rows than dimensions, at least {d + 1}: with fewer the fit is singular")
    mean = np.zeros((generations + 1, replicates, d))
    factor = np.empty((generations + 1, replicates, d, d))
    try:
        factor[0] = np.linalg.cholesky(sigma)
    except np.linalg.LinAlgError:
        raise InvalidArgument("covariance", covariance, "a positive definite matrix") from None
    return np.random.default_rng(seed), mean, factor


def check_sizes(n: int, generations: int, replicates: int, ddof: int = 0) -> None:
    for name, value, least in (("n", n, 2), ("generations", generations, 1), ("replicates", replicates, 1)):
        if not isinstance(value, int | np.integer) or value < least:
            raise InvalidArgument(name, value, f"a whole number of at least {least}")
    if ddof not in (0, 1):
        raise InvalidArgument("ddof", ddof, "0 (divide by n) or 1 (divide by n - 1)")
