"""Bands and intervals: where a measure lies when nothing is wrong, and what happens to intervals from synthetic rows.

A mean estimated from n_s synthetic rows, drawn from a generator fitted to n_r real rows, carries both errors:
variance sigma^2 (1/n_s + 1/n_r). Whoever counts synthetic rows as real ones sees the first term only.
Derived here; Decruyenaere et al., arXiv:2312.07837 (2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array, Seed

Z_BAND = 3.3  # standard errors on either side of a null value: 99.9 % of honest results lie inside


def naive_coverage(ratio: ArrayLike, *, level: float = 0.95) -> Array:
    """How often an interval that takes synthetic rows for real ones holds the true mean; `ratio` = n_s / n_r.

    Exact for a Gaussian of known variance. Raises `InvalidArgument`.

    >>> naive_coverage([1, 10, 100]).round(3).tolist()
    [0.834, 0.445, 0.155]
    """
    r, z = np.asarray(ratio, dtype=float), _z(level)
    if not (np.isfinite(r).all() and (r >= 0).all()):
        raise InvalidArgument("ratio", ratio, "finite numbers of at least 0, synthetic rows over real rows")
    # 2 Phi(z / sqrt(1 + n_s/n_r)) - 1
    return np.asarray(2 * norm.cdf(z / np.sqrt(1 + r)) - 1)


@dataclass(frozen=True)
class Coverage:
    """Shares of intervals that hold the true mean: synthetic rows counted as real ones, and corrected for that."""

    naive: float
    corrected: float
    replicates: int

    def __str__(self) -> str:
        return f"{self.naive:.1%} of naive and {self.corrected:.1%} of corrected intervals hold the truth"


def mean_interval_coverage(
    n_real: int, n_synthetic: int, replicates: int, *, seed: Seed, level: float = 0.95
) -> Coverage:
    """Fit a Gaussian to `n_real` rows, draw `n_synthetic` rows from it, and make an interval for the mean from those.

    Simulated through sufficient statistics: two numbers for each sample, whatever its size. The corrected interval
    multiplies the variance by 1 + n_s/n_r. Intervals use the normal quantile, so take `n_real` of 100 or more for the
    figures of `naive_coverage`. Raises `InvalidArgument`.
    """
    for name, value, least in (("n_real", n_real, 2), ("n_synthetic", n_synthetic, 2), ("replicates", replicates, 1)):
        if not isinstance(value, int | np.integer) or value < least:
            raise InvalidArgument(name, value, f"a whole number of at least {least}")
    z, rng = _z(level), np.random.default_rng(seed)
    fitted_mean, fitted_variance = _mean_and_variance(0.0, 1.0, n_real, replicates, rng)
    mean, variance = _mean_and_variance(fitted_mean, fitted_variance, n_synthetic, replicates, rng)
    half = z * np.sqrt(variance / n_synthetic)
    # the generator's own error: variance x (1 + n_s/n_r)
    wider = half * np.sqrt(1 + n_synthetic / n_real)
    return Coverage(float((np.abs(mean) <= half).mean()), float((np.abs(mean) <= wider).mean()), replicates)


def _mean_and_variance(
    mean: float | Array, variance: float | Array, n: int, replicates: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Mean and unbiased variance of n Gaussian rows, (replicates,) each."""
    means = mean + np.sqrt(variance / n) * rng.standard_normal(replicates)
    return np.asarray(means), np.asarray(variance * rng.chisquare(n - 1, replicates) / (n - 1))


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise InvalidArgument("level", level, "a number between 0 and 1, such as 0.95")
    return float(norm.ppf((1 + level) / 2))


@dataclass(frozen=True)
class ExcessRisk:
    """Excess risk of each replicate, (replicates,): trained on the real rows, and on the synthetic ones."""

    real: Array
    synthetic: Array

    @property
    def gap(self) -> Array:
        """What training on synthetic instead of real rows cost, (replicates,)."""
        return np.asarray(self.synthetic - self.real)


def excess_risk(
    n_real: int, n_synthetic: float | None, d: int, *, noise_variance: float = 1.0, lost: float = 0.0
) -> float:
    """Expected excess risk of least squares: on real rows (`n_synthetic` None), or on synthetic ones.

    `n_synthetic` may be infinite. `lost` is the coefficient of the last feature, which a misspecified generator leaves
    out. Raises `InvalidArgument`.

    >>> round(excess_risk(40, None, 5), 4), round(excess_risk(40, 60, 5), 4)
    (0.1471, 0.2397)
    """
    _check(n_real, n_synthetic, d, noise_variance, lost)
    # real rows: sigma^2 d / (n_r - d - 1)
    if n_synthetic is None:
        return noise_variance * d / (n_real - d - 1)
    learned = d if lost == 0 else d - 1
    spread = noise_variance + lost**2  # the generator takes what it leaves out for noise
    # synthetic rows: lost^2 + s^2 d_g / (n_r - d_g - 1) + s^2 d / (n_s - d - 1)
    return lost**2 + spread * learned / (n_real - learned - 1) + spread * d / (n_synthetic - d - 1)


def tstr_regression(
    n_real: int,
    n_synthetic: int,
    d: int,
    replicates: int,
    *,
    seed: Seed,
    noise_variance: float = 1.0,
    lost: float = 0.0,
) -> ExcessRisk:
    """Fit a generator to real rows, a student to its rows, and both to judge: simulated through sufficient statistics.

    The generator samples with the unbiased estimate of the noise variance. `lost` as in `excess_risk`. Costs the same
    for any number of rows. Raises `InvalidArgument`.
    """
    _check(n_real, n_synthetic, d, noise_variance, lost)
    if not isinstance(replicates, int | np.integer) or replicates < 1:
        raise InvalidArgument("replicates", replicates, "a whole number of at least 1")
    rng = np.random.default_rng(seed)
    noise = np.full(replicates, noise_variance)
    real = _error_of_fit(noise, n_real, d, replicates, rng)  # (replicates, d)
    teacher, learned, spread = real, d, noise
    if lost != 0:
        # without the last feature the generator fits a smaller model with more noise
        learned, spread = d - 1, noise + lost**2
        kept = _error_of_fit(spread, n_real, learned, replicates, rng)
        teacher = np.column_stack([kept, np.full(replicates, -lost)])
    # s^2 = sigma^2 chi2_{n-d} / (n - d)
    fitted_noise = spread * rng.chisquare(n_real - learned, replicates) / (n_real - learned)
    student = teacher + _error_of_fit(fitted_noise, n_synthetic, d, replicates, rng)
    # E(y - x'b)^2 - sigma^2 = |b - beta|^2 for features of unit covariance
    return ExcessRisk((real**2).sum(axis=1), (student**2).sum(axis=1))


def _error_of_fit(variance: Array, n: int, d: int, replicates: int, rng: np.random.Generator) -> Array:
    """beta_hat - beta for n new rows with this noise variance, (replicates, d): Gaussian with covariance s^2 (X'X)^-1.

    X'X is Wishart and equals A A' with A lower triangular (Bartlett).
    """
    a = np.tril(rng.standard_normal((replicates, d, d)), k=-1)
    a[:, range(d), range(d)] = np.sqrt(rng.chisquare(n - np.arange(d), (replicates, d)))
    z = rng.standard_normal((replicates, d, 1))
    return np.asarray(np.sqrt(variance)[:, None] * np.linalg.solve(np.swapaxes(a, -1, -2), z)[..., 0])


def _check(n_real: int, n_synthetic: float | None, d: int, noise_variance: float, lost: float) -> None:
    if not isinstance(d, int | np.integer) or d < (1 if lost == 0 else 2):
        raise InvalidArgument("d", d, "a whole number of at least 1, and 2 where one feature is left out")
    for name, n in (("n_real", n_real), ("n_synthetic", n_synthetic)):
        if n is not None and not n > d + 1:
            raise InvalidArgument(name, n, f"at least {d + 2} rows: with fewer the expected error is infinite")
    if not (np.isfinite(noise_variance) and noise_variance > 0):
        raise InvalidArgument("noise_variance", noise_variance, "a finite number above 0")
    if not np.isfinite(lost):
        raise InvalidArgument("lost", lost, "a finite coefficient")
