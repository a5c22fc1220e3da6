"""Bands and intervals: where a measure lies when nothing is wrong, and what happens to intervals from synthetic rows.

A mean estimated from n_s synthetic rows, drawn from a generator fitted to n_r real rows, carries both errors:
variance sigma^2 (1/n_s + 1/n_r). Whoever counts synthetic rows as real ones sees the first term only.
Derived here; Decruyenaere et al., arXiv:2312.07837 (2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from synthbook.core.errors import InvalidArgument
from synthbook.evaluation.arrays import Seed

Array = NDArray[np.float64]

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
