"""How wide should randomization be? Two cues to the same thing, one of them spoilt by a nuisance, settle it exactly.

The thing is s. The first cue shows s + noise of variance sigma^2; the second s + theta, without noise. Training draws
theta ~ N(0, kappa^2), and reality has theta ~ N(m, tau^2). A model that minimises its error in training weighs the cues
by w_1 = kappa^2 / (sigma^2 + kappa^2) and w_2 = 1 - w_1. Claim C2.2-2, derived there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array, Seed


@dataclass(frozen=True)
class CueModel:
    """Noise of the first cue (standard deviation), and the nuisance of the second one in reality: mean and sd."""

    sigma: float = 0.5
    mean: float = 0.3
    tau: float = 0.4

    def __post_init__(self) -> None:
        if not (self.sigma > 0 and self.tau >= 0 and np.isfinite([self.sigma, self.mean, self.tau]).all()):
            raise InvalidArgument("cues", self, "a finite sigma above 0, a finite mean, a tau of at least 0")

    def weight(self, kappa: ArrayLike) -> Array:
        """What the spoilt cue is worth to a model trained at width kappa: w_2."""
        k2 = _widths(kappa) ** 2
        return np.asarray(self.sigma**2 / (self.sigma**2 + k2))

    def sim_mse(self, kappa: ArrayLike) -> Array:
        """Mean squared error in training: sigma^2 kappa^2 / (sigma^2 + kappa^2); it only rises."""
        w = self.weight(kappa)
        return np.asarray((1 - w) ** 2 * self.sigma**2 + w**2 * _widths(kappa) ** 2)

    def real_mse(self, kappa: ArrayLike) -> Array:
        """Mean squared error in reality: w_1^2 sigma^2 + w_2^2 (m^2 + tau^2); it falls, then rises again."""
        w = self.weight(kappa)
        return np.asarray((1 - w) ** 2 * self.sigma**2 + w**2 * (self.mean**2 + self.tau**2))

    @property
    def optimal_width(self) -> float:
        """The width with the least error in reality: kappa^2 = m^2 + tau^2."""
        return float(np.hypot(self.mean, self.tau))

    def simulated(self, kappa: ArrayLike, n: int, *, seed: Seed) -> Array:
        """The error in reality (len(kappa),) of linear models fitted to `n` simulated rows, tested on `n` real ones."""
        if n < 10:
            raise InvalidArgument("n", n, "a whole number of at least 10")
        rng = np.random.default_rng(seed)
        found = []
        for width in np.atleast_1d(_widths(kappa)):
            s = 20 * rng.standard_normal((2, n))  # nothing to gain from knowing where s lies
            first = s + self.sigma * rng.standard_normal((2, n))
            nuisance = np.stack([width * rng.standard_normal(n), self.mean + self.tau * rng.standard_normal(n)])
            cues = np.stack([first, s + nuisance], axis=-1)  # (simulated or real, n, 2)
            weights = np.linalg.lstsq(cues[0], s[0])[0]
            found.append(np.mean((cues[1] @ weights - s[1]) ** 2))
        return np.array(found)


def _widths(kappa: ArrayLike) -> Array:
    k = np.asarray(kappa, dtype=float)
    if not (np.isfinite(k).all() and (k >= 0).all()):
        raise InvalidArgument("kappa", kappa, "widths of at least 0")
    return k
