"""Fréchet distance between feature samples, with its finite-sample bias.

FID is this distance on the features of one particular network. A result here names its features and both sample sizes,
because it depends on all three: two samples of one distribution are never at distance 0.

Heusel et al., arXiv:1706.08500 (the distance); Chong and Forsyth, arXiv:1911.07023 (extrapolation in 1/N).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array, Seed, check_arrays

_FRACTIONS = (1.0, 1 / 2, 1 / 3, 1 / 4)


@dataclass(frozen=True)
class FrechetResult:
    """A Fréchet distance, its bias, and what it depends on.

    `value` is the squared distance between the fitted Gaussians; `bias` its mean for two samples of one Gaussian of
    these sizes; `corrected` their difference; `extrapolated` the estimate for infinite samples, NaN if the samples are
    too small. The last two scatter around 0 for equal distributions; far below 0 the samples share rows.
    """

    value: float
    bias: float
    corrected: float
    extrapolated: float
    n: int
    m: int
    d: int
    features: str

    def __str__(self) -> str:
        more = f"{self.bias:.4g} expected by chance, {self.extrapolated:.4g} extrapolated to infinite samples"
        return f"Fréchet distance on {self.features}, N = {self.n}, M = {self.m}: {self.value:.4g} ({more})"


def frechet(x: ArrayLike, y: ArrayLike, *, features: str, seed: Seed) -> FrechetResult:
    """Compare samples (N, d) and (M, d) of the features called `features`; `seed` splits them to extrapolate.

    Warns if a sample has d rows or fewer, where its covariance is singular. Raises `InvalidArgument`.
    """
    if not isinstance(features, str) or not features.strip():
        raise InvalidArgument("features", features, "the name of the features: the distance depends on it")
    a, b = check_arrays(least=2, x=x, y=y)
    (n, d), m = a.shape, len(b)
    if min(n, m) <= d:
        warnings.warn(f"{min(n, m)} rows give a singular covariance of {d} features: use more rows", stacklevel=2)
    value = frechet_distance(a, b)
    pooled = ((n - 1) * covariance(a) + (m - 1) * covariance(b)) / (n + m - 2)
    bias = finite_sample_bias(pooled, n, m)
    divisible = min(n, m) * min(_FRACTIONS) >= 2
    extrapolated = frechet_infinity(a, b, seed=seed) if divisible else float("nan")
    return FrechetResult(value, bias, value - bias, extrapolated, n, m, d, features)


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Squared Fréchet distance between Gaussians fitted to samples (N, d) and (M, d), at least 2 rows each."""
    a, b = check_arrays(least=2, x=x, y=y)
    return frechet_from_moments(a.mean(axis=0), covariance(a), b.mean(axis=0), covariance(b))


def covariance(x: Array) -> Array:
    """Unbiased covariance (d, d) of rows (N, d), as in FID."""
    return np.atleast_2d(np.cov(x, rowvar=False, ddof=1))


def frechet_from_moments(mu1: ArrayLike, sigma1: ArrayLike, mu2: ArrayLike, sigma2: ArrayLike) -> float:
    """|mu1 - mu2|^2 + Tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2) for means (d,) and covariances (d, d).

    The trace of the root is the sum of the singular values of S1^1/2 S2^1/2, which is stable where a covariance is
    singular; the root of the product S1 S2 is not. Raises `InvalidArgument`.
    """
    m1, m2 = _vector("mu1", mu1), _vector("mu2", mu2)
    s1, s2 = _covariance("sigma1", sigma1, len(m1)), _covariance("sigma2", sigma2, len(m1))
    if m1.shape != m2.shape:
        raise InvalidArgument("mu2", f"array of {len(m2)} numbers", f"the {len(m1)} numbers of mu1")
    singular_values = np.linalg.svd(_root(s1) @ _root(s2), compute_uv=False)
    shift = m1 - m2
    squared = shift @ shift + np.trace(s1) + np.trace(s2) - 2 * singular_values.sum()
    return max(0.0, float(squared))  # rounding can leave -1e-16


def finite_sample_bias(sigma: ArrayLike, n: int, m: int) -> float:
    """Mean distance between n and m draws from one Gaussian, to leading order in 1/n and 1/m.

    (1/n + 1/m) [sum_i l_i + sum_ij l_i l_j (1 + delta_ij) / (2 (l_i + l_j))] with the eigenvalues l of `sigma`;
    (1/n + 1/m) d (d + 5) / 4 for unit covariance. Within 5 % from 20 rows per dimension; heavier tails than Gaussian
    score more. Derived here. Raises `InvalidArgument`.
    """
    matrix = np.asarray(sigma, dtype=float)
    s = _covariance("sigma", matrix, len(matrix) if matrix.ndim else 0)
    if min(n, m) < 1:
        raise InvalidArgument("n", min(n, m), "row counts of at least 1")
    eigenvalues = np.maximum(np.linalg.eigvalsh(s), 0)
    products, sums = np.outer(eigenvalues, eigenvalues), np.add.outer(eigenvalues, eigenvalues)
    terms = np.divide(products, 2 * sums, out=np.zeros_like(sums), where=sums > 0)
    return float((1 / n + 1 / m) * (eigenvalues.sum() + terms.sum() + np.trace(terms)))


def frechet_infinity(x: ArrayLike, y: ArrayLike, *, seed: Seed, fractions: Sequence[float] = _FRACTIONS) -> float:
    """Extrapolate the distance to infinite samples: the intercept at 1/N = 0 of a line through smaller samples.

    A fraction 1/b of both samples is measured on b pairs of disjoint parts; their mean has weight 1/b. The result may
    be negative. FID-infinity, Chong and Forsyth. Raises `InvalidArgument`.
    """
    a, b = check_arrays(least=2, x=x, y=y)
    f = np.asarray(fractions, dtype=float)
    if f.ndim != 1 or len(np.unique(f)) < 2 or not ((f > 0) & (f <= 1)).all():
        raise InvalidArgument("fractions", fractions, "two or more different fractions above 0, at most 1")
    if min(len(a), len(b)) * f.min() < 2:
        raise InvalidArgument("fractions", fractions, f"fractions that leave 2 of {min(len(a), len(b))} rows")
    rng = np.random.default_rng(seed)
    a, b = rng.permutation(a), rng.permutation(b)
    distances = []
    for fraction in f:
        n, m, parts = (int(size + 1e-9) for size in (fraction * len(a), fraction * len(b), 1 / fraction))
        pairs = ((a[i * n : (i + 1) * n], b[i * m : (i + 1) * m]) for i in range(parts))
        distances.append(np.mean([frechet_distance(x, y) for x, y in pairs]))
    # d2(N) = d2(infinity) + slope / N, and 1/N is proportional to 1/fraction
    _, at_infinity = np.polyfit(1 / f, distances, 1, w=f)
    return float(at_infinity)


def _root(sigma: Array) -> Array:
    values, vectors = np.linalg.eigh(sigma)
    rounding = len(values) * np.finfo(float).eps * values[-1]  # below it an eigenvalue is a rounded 0
    return np.asarray((vectors * np.sqrt(np.where(values > rounding, values, 0))) @ vectors.T)


def _vector(name: str, mean: ArrayLike) -> Array:
    v = np.atleast_1d(np.asarray(mean, dtype=float))
    if v.ndim != 1 or not np.isfinite(v).all():
        raise InvalidArgument(name, mean, "a vector of finite numbers")
    return v


def _covariance(name: str, sigma: ArrayLike, d: int) -> Array:
    s = np.atleast_2d(np.asarray(sigma, dtype=float))
    if s.shape != (max(d, 1), max(d, 1)) or not np.isfinite(s).all() or not np.allclose(s, s.T):
        raise InvalidArgument(name, f"array of shape {s.shape}", f"a finite symmetric matrix of shape {(d, d)}")
    scale = float(np.abs(s).max())
    if np.linalg.eigvalsh(s).min() < -1e-8 * scale:
        raise InvalidArgument(name, "matrix with a negative eigenvalue", "a covariance: no eigenvalue below 0")
    return s
