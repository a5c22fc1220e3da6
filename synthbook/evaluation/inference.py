"""Inference from synthetic rows: bands of null values, coverage of intervals, and excess risk of least squares.

A mean estimated from n_s synthetic rows of a generator fitted to n_r real rows has variance sigma^2 (1/n_s + 1/n_r).
Treating synthetic rows as real ones counts the first term only. Derived here; Decruyenaere et al., arXiv:2312.07837
(2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array, Seed

Z_BAND = 3.3  # half-width of every 99.9 % band, in standard errors


def naive_coverage(ratio: ArrayLike, *, level: float = 0.95) -> Array:
    """Coverage of the naive interval for a mean, which treats synthetic rows as real; `ratio` = n_s / n_r.

    2 Phi(z / sqrt(1 + ratio)) - 1, exact for a Gaussian of known variance. Raises `InvalidArgument`.

    >>> naive_coverage([1, 10, 100]).round(3).tolist()
    [0.834, 0.445, 0.155]
    """
    r, z = np.asarray(ratio, dtype=float), _z(level)
    if not (np.isfinite(r).all() and (r >= 0).all()):
        raise InvalidArgument("ratio", ratio, "finite numbers of at least 0, synthetic rows over real rows")
    return np.asarray(2 * norm.cdf(z / np.sqrt(1 + r)) - 1)


@dataclass(frozen=True)
class IntervalCoverage:
    """Fractions of naive and corrected intervals that contain the true mean."""

    naive: float
    corrected: float
    replicates: int

    def __str__(self) -> str:
        return f"{self.naive:.1%} of naive and {self.corrected:.1%} of corrected intervals contain the mean"


def mean_interval_coverage(
    n_real: int, n_synthetic: int, replicates: int, *, seed: Seed, level: float = 0.95
) -> IntervalCoverage:
    """Simulate the coverage of intervals for a mean from synthetic rows of a fitted Gaussian.

    Fits a Gaussian to `n_real` rows and draws `n_synthetic` rows from it, through their sufficient statistics. The
    corrected interval multiplies the variance by 1 + n_s/n_r. Intervals use normal quantiles, so `n_real` should be 100
    or more to compare with `naive_coverage`. Raises `InvalidArgument`.
    """
    for name, value, least in (("n_real", n_real, 2), ("n_synthetic", n_synthetic, 2), ("replicates", replicates, 1)):
        if not isinstance(value, int | np.integer) or value < least:
            raise InvalidArgument(name, value, f"an integer of at least {least}")
    z, rng = _z(level), np.random.default_rng(seed)
    fitted_mean, fitted_variance = _mean_and_variance(0.0, 1.0, n_real, replicates, rng)
    mean, variance = _mean_and_variance(fitted_mean, fitted_variance, n_synthetic, replicates, rng)
    half = z * np.sqrt(variance / n_synthetic)
    # the generator's own error: variance x (1 + n_s/n_r)
    corrected_half = half * np.sqrt(1 + n_synthetic / n_real)
    return IntervalCoverage(
        float((np.abs(mean) <= half).mean()), float((np.abs(mean) <= corrected_half).mean()), replicates
    )


def _mean_and_variance(
    mean: float | Array, variance: float | Array, n: int, replicates: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Sample mean and unbiased variance of n Gaussian rows, (replicates,) each."""
    means = mean + np.sqrt(variance / n) * rng.standard_normal(replicates)
    return np.asarray(means), np.asarray(variance * rng.chisquare(n - 1, replicates) / (n - 1))


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise InvalidArgument("level", level, "a number between 0 and 1, such as 0.95")
    return float(norm.ppf((1 + level) / 2))


@dataclass(frozen=True)
class ExcessRisk:
    """Excess risk of each replicate, (replicates,), after training on real and on synthetic rows."""

    real: Array
    synthetic: Array

    @property
    def gap(self) -> Array:
        """Excess risk of training on synthetic minus real rows, (replicates,)."""
        return np.asarray(self.synthetic - self.real)


def expected_excess_risk(
    n_real: int, n_synthetic: float | None, d: int, *, noise_variance: float = 1.0, omitted_coef: float = 0.0
) -> float:
    """Expected excess risk of least squares trained on real (`n_synthetic` None) or on synthetic rows.

    `n_synthetic` may be infinite. `omitted_coef` b is the coefficient of the last feature, if a misspecified generator
    omits it: it fits g = d - 1 features with noise s^2 = sigma^2 + b^2. Raises `InvalidArgument`.

        real: sigma^2 d / (n_r - d - 1);  synthetic: b^2 + s^2 g / (n_r - g - 1) + s^2 d / (n_s - d - 1)

    >>> round(expected_excess_risk(40, None, 5), 4), round(expected_excess_risk(40, 60, 5), 4)
    (0.1471, 0.2397)
    """
    _check_regression(n_real, n_synthetic, d, noise_variance, omitted_coef)
    if n_synthetic is None:
        return noise_variance * d / (n_real - d - 1)
    d_fit = d if omitted_coef == 0 else d - 1
    variance = noise_variance + omitted_coef**2
    return omitted_coef**2 + variance * d_fit / (n_real - d_fit - 1) + variance * d / (n_synthetic - d - 1)


def simulate_tstr_regression(
    n_real: int,
    n_synthetic: int,
    d: int,
    replicates: int,
    *,
    seed: Seed,
    noise_variance: float = 1.0,
    omitted_coef: float = 0.0,
) -> ExcessRisk:
    """Simulate least squares trained on real rows and on rows of a generator fitted to the same real rows.

    Works through sufficient statistics, so the cost does not depend on the numbers of rows. The generator samples with
    the unbiased noise variance; `omitted_coef` as in `expected_excess_risk`. Raises `InvalidArgument`.
    """
    _check_regression(n_real, n_synthetic, d, noise_variance, omitted_coef)
    if not isinstance(replicates, int | np.integer) or replicates < 1:
        raise InvalidArgument("replicates", replicates, "an integer of at least 1")
    rng = np.random.default_rng(seed)
    noise = np.full(replicates, noise_variance)
    real = _error_of_fit(noise, n_real, d, replicates, rng)  # (replicates, d)
    generator, d_fit, variance = real, d, noise
    if omitted_coef != 0:
        # without the last feature the generator fits a smaller model with more noise
        d_fit, variance = d - 1, noise + omitted_coef**2
        error = _error_of_fit(variance, n_real, d_fit, replicates, rng)
        generator = np.column_stack([error, np.full(replicates, -omitted_coef)])
    # s^2 = sigma^2 chi2_{n-d} / (n - d)
    fitted_noise = variance * rng.chisquare(n_real - d_fit, replicates) / (n_real - d_fit)
    student = generator + _error_of_fit(fitted_noise, n_synthetic, d, replicates, rng)
    # E(y - x'b)^2 - sigma^2 = |b - beta|^2 for features of unit covariance
    return ExcessRisk((real**2).sum(axis=1), (student**2).sum(axis=1))


def _error_of_fit(variance: Array, n: int, d: int, replicates: int, rng: np.random.Generator) -> Array:
    """beta_hat - beta for n new rows with this noise variance, (replicates, d): Gaussian, covariance s^2 (X'X)^-1.

    X'X is Wishart and equals A A' with A lower triangular (Bartlett).
    """
    a = np.tril(rng.standard_normal((replicates, d, d)), k=-1)
    a[:, range(d), range(d)] = np.sqrt(rng.chisquare(n - np.arange(d), (replicates, d)))
    z = rng.standard_normal((replicates, d, 1))
    return np.asarray(np.sqrt(variance)[:, None] * np.linalg.solve(np.swapaxes(a, -1, -2), z)[..., 0])


def _check_regression(
    n_real: int, n_synthetic: float | None, d: int, noise_variance: float, omitted_coef: float
) -> None:
    if not isinstance(d, int | np.integer) or d < (1 if omitted_coef == 0 else 2):
        raise InvalidArgument("d", d, "an integer of at least 1, or 2 if a feature is omitted")
    for name, n in (("n_real", n_real), ("n_synthetic", n_synthetic)):
        if n is not None and not n > d + 1:
            raise InvalidArgument(name, n, f"at least {d + 2} rows: with fewer the expected error is infinite")
    if not (np.isfinite(noise_variance) and noise_variance > 0):
        raise InvalidArgument("noise_variance", noise_variance, "a finite number above 0")
    if not np.isfinite(omitted_coef):
        raise InvalidArgument("omitted_coef", omitted_coef, "a finite coefficient")
