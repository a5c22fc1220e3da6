"""Recursive refitting: fit a model, sample from it, fit the next model to the samples.

Generation t = 0 is the real distribution and t = 1 the model fitted to n real rows; every later model is fitted to n
rows drawn from its predecessor. The Gaussian loop has two implementations. `..._by_sampling` draws all n numbers. The
default draws the sufficient statistics of the fit from their exact distributions: two random numbers instead of n.
Each is the other's oracle.

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
    """Fitted means and variances, each (generations + 1, replicates); row 0 is the real distribution."""

    mean: Array
    variance: Array

    def squared_wasserstein(self) -> Array:
        """Squared 2-Wasserstein distance of each model from the real one, (mu_t - mu_0)^2 + (s_t - sigma_0)^2."""
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
    temperature: float = 1.0,
) -> GaussianFits:
    """Refit a Gaussian recursively to n draws from itself, through its sufficient statistics.

    `ddof` as in numpy: 0 divides by n (maximum likelihood), 1 by n - 1 (unbiased). `temperature` T multiplies the
    variance that each fitted model samples with (the density to the power 1/T); below 1, samples concentrate near the
    mode. Real data are not tempered. Variances below 1e-308 underflow to 0. Raises `InvalidArgument`.
    """
    rng, fits = _start(n, generations, replicates, seed, mean, variance, ddof, temperature)
    for t in range(generations):
        s2 = fits.variance[t] * (temperature if t > 0 else 1.0)  # (replicates,)
        # mu_{t+1} = mu_t + s_t z / sqrt(n)
        fits.mean[t + 1] = fits.mean[t] + np.sqrt(s2 / n) * rng.standard_normal(replicates)
        # s2_{t+1} = s2_t chi2_{n-1} / (n - ddof)
        fits.variance[t + 1] = s2 * rng.chisquare(n - 1, replicates) / (n - ddof)
    return fits


def refit_gaussian_by_sampling(
    n: int,
    generations: int,
    replicates: int,
    *,
    seed: Seed,
    mean: float = 0.0,
    variance: float = 1.0,
    ddof: int = 0,
    temperature: float = 1.0,
) -> GaussianFits:
    """Compute `refit_gaussian` by drawing all n numbers from each model; slow, for checking."""
    rng, fits = _start(n, generations, replicates, seed, mean, variance, ddof, temperature)
    for t in range(generations):
        s = np.sqrt(fits.variance[t] * (temperature if t > 0 else 1.0))
        x = fits.mean[t][:, None] + s[:, None] * rng.standard_normal((replicates, n))  # (replicates, n)
        fits.mean[t + 1] = x.mean(axis=1)
        fits.variance[t + 1] = x.var(axis=1, ddof=ddof)
    return fits


@dataclass(frozen=True)
class GaussianFitsND:
    """Fits in d dimensions: `mean` (generations + 1, replicates, d) and the lower-triangular `scale_tril`
    (generations + 1, replicates, d, d), whose product with its own transpose is the covariance."""

    mean: Array
    scale_tril: Array

    @property
    def covariance(self) -> Array:
        """Covariance matrices, (generations + 1, replicates, d, d)."""
        return self.scale_tril @ np.swapaxes(self.scale_tril, -1, -2)

    @property
    def log_det(self) -> Array:
        """Log-determinants of the covariances, (generations + 1, replicates)."""
        diagonal = np.diagonal(self.scale_tril, axis1=-2, axis2=-1)
        return np.asarray(2 * np.log(np.abs(diagonal)).sum(axis=-1))


def refit_gaussian_nd(
    n: int, generations: int, replicates: int, *, seed: Seed, covariance: ArrayLike, ddof: int = 0
) -> GaussianFitsND:
    """Refit a d-dimensional Gaussian of mean 0 recursively, through its sufficient statistics.

    The scatter matrix of n draws is Wishart, A A' with A lower triangular (Bartlett), so the next Cholesky factor is
    L A / sqrt(n - ddof) and no matrix is factorized. Raises `InvalidArgument` if n <= d, where the fit is singular.
    """
    rng, mean, scale_tril = _start_nd(n, generations, replicates, seed, covariance, ddof)
    d = mean.shape[-1]
    for t in range(generations):
        z = rng.standard_normal((replicates, d, 1))
        mean[t + 1] = mean[t] + (scale_tril[t] @ z)[..., 0] / np.sqrt(n)
        a = np.tril(rng.standard_normal((replicates, d, d)), k=-1)
        a[:, range(d), range(d)] = np.sqrt(rng.chisquare(n - 1 - np.arange(d), (replicates, d)))
        # L_{t+1} = L_t A / sqrt(n - ddof)
        scale_tril[t + 1] = scale_tril[t] @ a / np.sqrt(n - ddof)
    return GaussianFitsND(mean, scale_tril)


def refit_gaussian_nd_by_sampling(
    n: int, generations: int, replicates: int, *, seed: Seed, covariance: ArrayLike, ddof: int = 0
) -> GaussianFitsND:
    """Compute `refit_gaussian_nd` by drawing all n rows; slow, for checking."""
    rng, mean, scale_tril = _start_nd(n, generations, replicates, seed, covariance, ddof)
    for t in range(generations):
        z = rng.standard_normal((replicates, n, mean.shape[-1]))
        x = mean[t][:, None, :] + z @ np.swapaxes(scale_tril[t], -1, -2)  # (replicates, n, d)
        mean[t + 1] = x.mean(axis=1)
        centered = x - mean[t + 1][:, None, :]
        scale_tril[t + 1] = np.linalg.cholesky(np.swapaxes(centered, -1, -2) @ centered / (n - ddof))
    return GaussianFitsND(mean, scale_tril)


def refit_kernel_density(
    n: int, generations: int, replicates: int, *, seed: Seed, bandwidth: float | str = "scott"
) -> Array:
    """Refit a Gaussian kernel density estimate recursively to n draws from itself, starting from N(0, 1).

    `bandwidth` is a fixed width, or "scott" for s n^(-1/5) in each generation. Returns the variance (ddof 0) of each
    generation's rows, (generations + 1, replicates); row 0 is the real one. A kernel density has no sufficient
    statistics of fixed size, so the rows themselves are simulated. Raises `InvalidArgument`.
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
        # a draw from a kernel density is a random row plus kernel noise
        picked = np.take_along_axis(x, rng.integers(n, size=x.shape), axis=1)
        x = picked + h * rng.standard_normal(x.shape)
    return variance


def refit_with_infinite_data(weights: ArrayLike, means: ArrayLike, variance: float, generations: int) -> Array:
    """Fit one Gaussian to a mixture with common `variance`, then recursively to itself, with infinite data.

    Isolates the error of a misspecified model. Expectations are Gauss-Hermite sums, exact for polynomials. Returns
    (generations + 1, 2) with the mean and variance of each generation; row 0 is the mixture. Raises `InvalidArgument`.
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
    n: int, generations: int, replicates: int, seed: Seed, mean: float, variance: float, ddof: int, temperature: float
) -> tuple[np.random.Generator, GaussianFits]:
    check_sizes(n, generations, replicates, ddof)
    for name, value in (("variance", variance), ("temperature", temperature)):
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
    scale_tril = np.empty((generations + 1, replicates, d, d))
    try:
        scale_tril[0] = np.linalg.cholesky(sigma)
    except np.linalg.LinAlgError:
        raise InvalidArgument("covariance", covariance, "a positive definite matrix") from None
    return np.random.default_rng(seed), mean, scale_tril


def check_sizes(n: int, generations: int, replicates: int, ddof: int = 0) -> None:
    """Raise `InvalidArgument` for sizes or a ddof that no refitting loop accepts."""
    for name, value, least in (("n", n, 2), ("generations", generations, 1), ("replicates", replicates, 1)):
        if not isinstance(value, int | np.integer) or value < least:
            raise InvalidArgument(name, value, f"a whole number of at least {least}")
    if ddof not in (0, 1):
        raise InvalidArgument("ddof", ddof, "0 (divide by n) or 1 (divide by n - 1)")
