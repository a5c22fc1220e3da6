"""Mode coverage on two-dimensional Gaussian mixtures of known density.

`GRID` has 25 modes at {-4, -2, 0, 2, 4}^2, `RING` 8 on the unit circle, variance 0.05 on each axis: the mixtures of
arXiv:1907.00503, as far as its published log-densities of real points tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import BLUE, VERMILLION, new_axes
from synthbook.core.types import Array, Seed

_NODES = 40  # of the quadrature, on each axis
_COLLAPSE_MARGIN = 0.1  # nats


@dataclass(frozen=True, eq=False)
class GaussianMixture2D:
    """A uniform mixture of K Gaussians in the plane: `centers` (K, 2), one isotropic `variance`.

    A mode counts as captured if it gets at least `min_fraction` of its share of the samples, by nearest center.
    """

    name: str
    centers: Array
    variance: float
    min_fraction: float

    def sample(self, n: int, *, seed: Seed) -> Array:
        """Points (n, 2)."""
        rng = np.random.default_rng(seed)
        return np.asarray(
            self.centers[rng.integers(len(self.centers), size=n)] + np.sqrt(self.variance) * rng.standard_normal((n, 2))
        )

    def log_density(self, x: ArrayLike) -> Array:
        """ln p of points (N, 2), in nats."""
        squared = cdist(_points(x), self.centers, "sqeuclidean")  # (N, K)
        peak = np.log(2 * np.pi * self.variance * len(self.centers))
        return np.asarray(logsumexp(-squared / (2 * self.variance), axis=1) - peak)

    @property
    def optimum(self) -> float:
        """Expected log-density of the mixture under itself, in nats, by Gauss-Hermite quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        steps = np.sqrt(self.variance) * np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
        weight = np.outer(weights, weights).ravel() / (2 * np.pi)
        return float(np.mean([weight @ self.log_density(center + steps) for center in self.centers]))

    @property
    def within(self) -> float:
        """Probability that a point lies within 3 standard deviations of its own center."""
        return float(1 - np.exp(-4.5))

    def score(self, samples: ArrayLike) -> ModeScore:
        """Score the mode coverage of generated points (N, 2). Raises `InvalidArgument`."""
        x = _points(samples)
        distance = cdist(x, self.centers)
        n, k = distance.shape
        counts = np.bincount(distance.argmin(1), minlength=k)
        share = counts / n
        kl = float((share[share > 0] * np.log(k * share[share > 0])).sum())
        return ModeScore(
            modes=int((counts >= self.min_fraction * n / k).sum()),
            of=k,
            kl=kl,
            kl_by_chance=(k - 1) / (2 * n),
            high_quality=float((distance.min(1) <= 3 * np.sqrt(self.variance)).mean()),
            counts=counts,
        )

    def collapse(self, samples: ArrayLike, real_test: ArrayLike, *, seed: int = 0) -> CollapseScore:
        """Both log-densities of arXiv:1907.00503: of samples under the truth, of real points under the samples.

        The second refits a mixture of K Gaussians to the samples and evaluates `real_test` (N, 2) under it. Raises
        `InvalidArgument`.
        """
        from sklearn.mixture import GaussianMixture

        x, test = _points(samples), _points(real_test)
        if len(x) < 2 * len(self.centers):
            raise InvalidArgument("samples", f"{len(x)} points", f"at least {2 * len(self.centers)}, two for each mode")
        # starts at the true centers, so that a good sample is not penalized for a poor fit
        refit = GaussianMixture(len(self.centers), means_init=self.centers, random_state=seed).fit(x)
        error = float(self.log_density(test).std() / np.sqrt(len(x)))
        return CollapseScore(
            float(self.log_density(x).mean()), float(refit.score_samples(test).mean()), self.optimum, error
        )


@dataclass(frozen=True, eq=False)
class ModeScore:
    """Mode coverage: `modes` captured `of` K, `kl` of the mode histogram from uniform (nats), `counts` (K,).

    `kl_by_chance` is the mean KL of independent draws from the truth, (K - 1) / 2n; `high_quality` the fraction of
    points within 3 standard deviations of a center.
    """

    modes: int
    of: int
    kl: float
    kl_by_chance: float
    high_quality: float
    counts: NDArray[np.int64]

    @property
    def imbalance(self) -> float:
        """`kl` over its expectation for independent draws from the truth: about 1 for a perfect generator."""
        return self.kl / self.kl_by_chance

    def __str__(self) -> str:
        return (
            f"{self.modes} of {self.of} modes, {self.high_quality:.0%} near a mode, "
            f"imbalance {self.imbalance:,.3g} times chance"
        )


@dataclass(frozen=True)
class CollapseScore:
    """Mean log-densities in nats: `l_syn` of samples under the truth, `l_test` of real points under the samples."""

    l_syn: float
    l_test: float
    optimum: float
    error: float  # standard error of l_syn for a sample of the truth

    @property
    def collapsed(self) -> bool:
        """Whether samples are denser than the truth and explain real points badly; `l_syn` alone rewards collapse."""
        return self.l_syn > self.optimum + 4 * self.error and self.l_test < self.optimum - _COLLAPSE_MARGIN

    def __str__(self) -> str:
        verdict = ": collapsed" if self.collapsed else ""
        return f"L_syn {self.l_syn:.2f}, L_test {self.l_test:.2f}, truth {self.optimum:.2f} nats{verdict}"


_AXIS = np.array([-4.0, -2.0, 0.0, 2.0, 4.0])
_ANGLE = 2 * np.pi * np.arange(8) / 8
GRID = GaussianMixture2D("grid", np.stack(np.meshgrid(_AXIS, _AXIS), axis=-1).reshape(-1, 2), 0.05, min_fraction=0.2)
RING = GaussianMixture2D("ring", np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], axis=-1), 0.05, min_fraction=0.3)


def plot_points(samples: ArrayLike, mixture: GaussianMixture2D, *, shown: int = 2_000, ax: Axes | None = None) -> Axes:
    """Draw generated points (N, 2), at most `shown`, with circles of 3 standard deviations around the true centers."""
    ax = new_axes(ax, width=4, height=4)
    x, reach = _points(samples)[:shown], 3 * np.sqrt(mixture.variance)
    ax.plot(*x.T, ".", color=BLUE, markersize=2, alpha=0.5)
    angle = np.linspace(0, 2 * np.pi, 40)
    circle = reach * np.stack([np.cos(angle), np.sin(angle)])
    for center in mixture.centers:
        ax.plot(*(center[:, None] + circle), "-", color=VERMILLION, linewidth=0.8)
    limit = np.abs(mixture.centers).max() + 2.5 * reach
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    return ax


def _points(x: ArrayLike) -> Array:
    points = np.asarray(x, dtype=float)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0 or not np.isfinite(points).all():
        raise InvalidArgument("points", f"array of shape {points.shape}", "finite points (N, 2), at least one")
    return points
