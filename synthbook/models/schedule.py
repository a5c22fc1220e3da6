"""How diffusion doses its noise: step 0 is the data, step T is noise, alpha_bar[t] the share of signal power at t.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps,  eps ~ N(0, 1)         Ho et al., arXiv:2006.11239, eq. 4

Steps are counted as in that paper: tables have T + 1 entries, alpha_bar[0] = 1, and beta[t] leads from step t - 1 to t.
So a training step draws t from 1, ..., T, both included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument

Array = NDArray[np.float64]
LARGEST_BETA = 0.999


@dataclass(frozen=True, eq=False)
class Schedule:
    """`alpha_bar` (T + 1,), falling from 1; `times` (T + 1,), what a network calls these steps.

    The two differ only for a schedule that was thinned out by `respaced`.
    """

    alpha_bar: Array
    times: NDArray[np.int64]

    def __post_init__(self) -> None:
        falls = self.alpha_bar.ndim == 1 and len(self.alpha_bar) > 1 and (np.diff(self.alpha_bar) < 0).all()
        if not (falls and self.alpha_bar[0] == 1 and self.alpha_bar[-1] > 0):
            raise InvalidArgument("alpha_bar", self.alpha_bar, "shares of signal power that fall from 1, all above 0")

    @property
    def T(self) -> int:
        """The number of steps."""
        return len(self.alpha_bar) - 1

    @property
    def beta(self) -> Array:
        """Noise power added from step t - 1 to t (T + 1,): 1 - alpha_bar_t / alpha_bar_{t-1}; beta[0] = 0."""
        return np.append(0.0, 1 - self.alpha_bar[1:] / self.alpha_bar[:-1])

    @property
    def beta_tilde(self) -> Array:
        """Variance of x_{t-1} given x_t and x_0 (T + 1,): (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) beta_t, eq. 7."""
        return np.append(0.0, (1 - self.alpha_bar[:-1]) / (1 - self.alpha_bar[1:])) * self.beta

    @classmethod
    def from_beta(cls, beta: Array) -> Schedule:
        """The schedule with these betas (T,), from the first step on: alpha_bar_t is the product of 1 - beta."""
        return cls(np.append(1.0, np.cumprod(1 - beta)), np.arange(len(beta) + 1))

    @classmethod
    def linear(cls, T: int = 1_000, *, first: float = 1e-4, last: float = 0.02, rescale: bool = True) -> Schedule:
        """Betas on a straight line, as in the paper's section 4.

        The two ends were chosen for T = 1,000: with fewer steps they leave signal in x_T, so they are multiplied by
        1000 / T (and kept below 0.999) unless `rescale` is off.
        """
        _check_steps(T)
        beta = np.linspace(first, last, T) * (1_000 / T if rescale else 1)
        return cls.from_beta(beta.clip(max=LARGEST_BETA))

    @classmethod
    def cosine(cls, T: int = 1_000, *, offset: float = 0.008) -> Schedule:
        """alpha_bar_t = f(t) / f(0), f(t) = cos^2(pi/2 (t/T + s) / (1 + s)): Nichol, Dhariwal, arXiv:2102.09672."""
        _check_steps(T)
        f = np.cos(np.pi / 2 * (np.arange(T + 1) / T + offset) / (1 + offset)) ** 2
        return cls.from_beta((1 - f[1:] / f[:-1]).clip(max=LARGEST_BETA))

    def respaced(self, steps: int) -> Schedule:
        """A schedule through `steps` of this one's steps, evenly spread, the last one included: fewer network calls."""
        if not 1 <= steps <= self.T:
            raise InvalidArgument("steps", steps, f"from 1 to {self.T}, the steps of the schedule")
        kept = np.linspace(0, self.T, steps + 1).round().astype(np.int64)
        return Schedule(self.alpha_bar[kept], self.times[kept])


def _check_steps(T: int) -> None:
    if not isinstance(T, int | np.integer) or T < 1:
        raise InvalidArgument("T", T, "a whole number of steps, at least 1")


SCHEDULES: Mapping[str, Callable[[int], Schedule]] = {"linear": Schedule.linear, "cosine": Schedule.cosine}
