"""The SIR model of epidemics: stochastic simulation, mean-field equations, and the final size.

Each of n people is susceptible, infected or recovered, with homogeneous mixing (Kermack and McKendrick, 1927). The
attack rate z of a major outbreak, the fraction that is ever infected, solves z = 1 - exp(-R0 z).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp
from scipy.special import lambertw

from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import BLACK, BLUE, new_axes
from synthbook.core.types import Array, Seed

STEP = 0.1  # infectious periods
_MAJOR = 0.1  # attack rate of a major outbreak; smaller ones died out by chance


@dataclass(frozen=True, eq=False)
class Epidemic:
    """Fractions of people over time: `times` (T,) in infectious periods; susceptible, infected, recovered (runs, T)."""

    times: Array
    susceptible: Array
    infected: Array
    recovered: Array

    @property
    def attack_rate(self) -> Array:
        """Fraction of people who were ever infected (runs,)."""
        return 1 - self.susceptible[:, -1]

    @property
    def major(self) -> NDArray[np.bool_]:
        """Whether each run (runs,) was a major outbreak."""
        return self.attack_rate > _MAJOR


def simulate(n: int, r0: float, runs: int, *, seed: Seed, initial_infected: int = 1) -> Epidemic:
    """Simulate epidemics among `n` people, `initial_infected` of them infected at time 0, until nobody is infected.

    In each step of 0.1 infectious periods a susceptible person is infected with probability 1 - exp(-b I/n), and an
    infected one recovers with probability 1 - exp(-0.1); b is such that an infected person infects r0 others on average
    while everyone else is susceptible. Raises `InvalidArgument`.
    """
    for name, value, least in (("n", n, 2), ("runs", runs, 1), ("initial_infected", initial_infected, 1)):
        if not isinstance(value, int | np.integer) or value < least:
            raise InvalidArgument(name, value, f"an integer of at least {least}")
    if initial_infected >= n:
        raise InvalidArgument("initial_infected", initial_infected, f"fewer than n = {n} people")
    _check_r0(r0)
    rng = np.random.default_rng(seed)
    recovery = -np.expm1(-STEP)
    infected = np.zeros((runs, n), dtype=bool)
    infected[:, :initial_infected] = True
    susceptible = ~infected
    history = [(susceptible.sum(1), infected.sum(1))]
    while infected.any():
        prevalence = infected.mean(1, keepdims=True)  # (runs, 1)
        # the mean length of an infection is 1 / recovery steps: r0 = b / recovery
        infection = -np.expm1(-r0 * recovery * prevalence)
        u = rng.random((runs, n), dtype=np.float32)
        new = susceptible & (u < infection)
        infected = (infected & (u >= recovery)) | new
        susceptible &= ~new
        history.append((susceptible.sum(1), infected.sum(1)))
    s: Array = np.stack([counts for counts, _ in history], axis=1) / n
    i: Array = np.stack([counts for _, counts in history], axis=1) / n
    times = np.arange(s.shape[1], dtype=np.float64) * STEP
    return Epidemic(times, s, i, 1 - s - i)


def mean_field(r0: float, times: ArrayLike, *, initial_infected: float) -> Epidemic:
    """Solve the mean-field equations ds/dt = -R0 s i, di/dt = R0 s i - i, the limit of infinitely many people.

    `initial_infected` is a fraction. Raises `InvalidArgument`.
    """
    _check_r0(r0)
    if not 0 < initial_infected < 1:
        raise InvalidArgument("initial_infected", initial_infected, "a fraction between 0 and 1")
    at = np.asarray(times, dtype=float)
    if at.ndim != 1 or len(at) < 2 or at[0] < 0 or (np.diff(at) <= 0).any():
        raise InvalidArgument("times", times, "two or more increasing times of at least 0")

    def derivative(_: float, state: Array) -> list[float]:
        s, i = state
        return [-r0 * s * i, r0 * s * i - i]

    solution = solve_ivp(
        derivative, (0, at[-1]), [1 - initial_infected, initial_infected], t_eval=at, rtol=1e-8, atol=1e-10
    )
    s, i = solution.y
    return Epidemic(at, s[None], i[None], (1 - s - i)[None])


def final_size(r0: float) -> float:
    """Attack rate z > 0 of a major outbreak: z = 1 - exp(-R0 z), and 0 for R0 up to 1.

    >>> round(final_size(2), 4)
    0.7968
    """
    _check_r0(r0)
    # z = 1 + W(-R0 exp(-R0)) / R0
    return float(1 + lambertw(-r0 * np.exp(-r0)).real / r0) if r0 > 1 else 0.0


def _check_r0(r0: float) -> None:
    if not (np.isfinite(r0) and r0 > 0):
        raise InvalidArgument("r0", r0, "a finite number above 0")


def plot_epidemics(epidemic: Epidemic, ax: Axes | None = None, *, expected: Epidemic | None = None) -> Axes:
    """Plot the infected fraction of each run over time, and the solution of the mean-field equations."""
    ax = new_axes(ax)
    for run in epidemic.infected:
        ax.plot(epidemic.times, run, "-", color=BLUE, alpha=0.25, linewidth=1)
    ax.plot([], [], "-", color=BLUE, label="one run each")
    if expected is not None:
        ax.plot(expected.times, expected.infected[0], "--", color=BLACK, label="mean-field equations")
    ax.set(xlabel="time (infectious periods)", ylabel="fraction of people infected")
    ax.legend(frameon=False)
    return ax
