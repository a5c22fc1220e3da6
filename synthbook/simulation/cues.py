"""The optimal width of randomization in closed form: a linear model with two cues, one with a nuisance parameter.

The target is s. Cue 1 is s + noise of variance sigma^2, cue 2 is s + theta. In simulation theta ~ N(0, kappa^2), in
reality theta ~ N(m, tau^2). Minimizing the error in simulation gives the cues the weights
w_1 = kappa^2 / (sigma^2 + kappa^2) and w_2 = 1 - w_1. Derived in claim C2.2-2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array, Seed


@dataclass(frozen=True)
class CueModel:
    """Noise `sigma` of cue 1, and the nuisance of cue 2 in reality: mean `mean`, standard deviation `tau`."""

    sigma: float = 0.5
    mean: float = 0.3
    tau: float = 0.4

    def __post_init__(self) -> None:
        if not (self.sigma > 0 and self.tau >= 0 and np.isfinite([self.sigma, self.mean, self.tau]).all()):
            raise InvalidArgument(
                "sigma, mean, tau",
                (self.sigma, self.mean, self.tau),
                "a finite sigma above 0, a finite mean, a tau of at least 0",
            )

    def weight(self, kappa: ArrayLike) -> Array:
        """Weight w_2 of cue 2 in the model trained at width kappa."""
        k2 = _widths(kappa) ** 2
        return np.asarray(self.sigma**2 / (self.sigma**2 + k2))

    def sim_mse(self, kappa: ArrayLike) -> Array:
        """Mean squared error in simulation: sigma^2 kappa^2 / (sigma^2 + kappa^2), which increases with kappa."""
        w = self.weight(kappa)
        return np.asarray((1 - w) ** 2 * self.sigma**2 + w**2 * _widths(kappa) ** 2)

    def real_mse(self, kappa: ArrayLike) -> Array:
        """Mean squared error in reality: w_1^2 sigma^2 + w_2^2 (m^2 + tau^2), which falls, then rises."""
        w = self.weight(kappa)
        return np.asarray((1 - w) ** 2 * self.sigma**2 + w**2 * (self.mean**2 + self.tau**2))

    @property
    def optimal_width(self) -> float:
        """The width that minimizes the error in reality: kappa^2 = m^2 + tau^2."""
        return float(np.hypot(self.mean, self.tau))

    def simulated(self, kappa: ArrayLike, n: int, *, seed: Seed) -> Array:
        """Errors in reality (len(kappa),) of linear models fitted to `n` simulated rows and tested on `n` real ones."""
        if n < 10:
            raise InvalidArgument("n", n, "an integer of at least 10")
        rng = np.random.default_rng(seed)
        errors = []
        for width in np.atleast_1d(_widths(kappa)):
            s = 20 * rng.standard_normal((2, n))  # a prior on s this wide carries no information
            first = s + self.sigma * rng.standard_normal((2, n))
            nuisance = np.stack([width * rng.standard_normal(n), self.mean + self.tau * rng.standard_normal(n)])
            cues = np.stack([first, s + nuisance], axis=-1)  # (simulated or real, n, 2)
            weights = np.linalg.lstsq(cues[0], s[0])[0]
            errors.append(np.mean((cues[1] @ weights - s[1]) ** 2))
        return np.array(errors)


def _widths(kappa: ArrayLike) -> Array:
    k = np.asarray(kappa, dtype=float)
    if not (np.isfinite(k).all() and (k >= 0).all()):
        raise InvalidArgument("kappa", kappa, "widths of at least 0")
    return k
