"""What thousands of noisy steps spend together: the Poisson-subsampled Gaussian, accounted in three ways.

Each step takes every record with probability q, sums clipped contributions of length at most C, and adds Gaussian noise
of size sigma C. With P = (1 - q) N(0, sigma^2) + q N(1, sigma^2) against Q = N(0, sigma^2), in units of C:

    Renyi      R(a) = log E_Q[(P/Q)^a] / (a - 1),  composes by addition                     Mironov, arXiv:1702.07476
               old: epsilon = T R(a) + log(1/delta) / (a - 1)
               new: epsilon = T R(a) + log((a - 1)/a) - (log delta + log a) / (a - 1)   arXiv:2004.00010
    PLD        the distribution of log P/Q itself, convolved T times by FFT; tight up to its grid, never below
    PRV        the same idea in Opacus                                                  Gopi et al., arXiv:2106.02848

Neighbours differ in one record added or removed, unless "replace one" is said. The batches must be Poisson samples:
shuffled batches are another mechanism. The accountant by Gaussian DP's central limit theorem is refused: it reports
less than is spent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, logsumexp

from synthbook.core.errors import InvalidArgument
from synthbook.privacy.mechanisms import check_epsilon_delta

ORDERS = np.concatenate([1 + np.arange(1, 100) / 10, np.arange(11, 64), 2.0 ** np.arange(6, 11)])
GRID, TAIL = 2e-4, 1e-15  # step of a privacy loss; mass that may be cut off, and is added to delta
MAX_GRID_POINTS = 2**24
CACHE_SIZE = 256  # results: a calibration of noise asks for the same ones again
ADD_OR_REMOVE_ONE, REPLACE_ONE = "add or remove one record", "replace one record"
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class SubsampledGaussian:
    """`steps` steps with Poisson samples at `rate`, and noise of `noise` times the clipping length."""

    noise: float
    rate: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.noise < math.inf:
            raise InvalidArgument("noise-multiplier", self.noise, "a finite number above 0")
        if not 0 < self.rate <= 1:
            raise InvalidArgument("sample-rate", self.rate, "a probability above 0 and at most 1")
        if not isinstance(self.steps, int) or self.steps < 1:
            raise InvalidArgument("steps", self.steps, "a whole number of at least 1")


# ── Renyi ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def rdp(run: SubsampledGaussian, orders: Numbers = ORDERS) -> Numbers:
    """R(a) of one step at each order a > 1, by quadrature: E_Q[(1 - q + q e^((2z - 1) / (2 sigma^2)))^a]."""
    return np.array(_renyi(run, tuple(orders.tolist())))


@lru_cache(maxsize=CACHE_SIZE)
def _renyi(run: SubsampledGaussian, orders: tuple[float, ...]) -> tuple[float, ...]:
    sigma, q = run.noise, run.rate
    if q == 1:
        return tuple(a / (2 * sigma**2) for a in orders)
    found = []
    for a in orders:
        z = np.linspace(-14 * sigma, a + 14 * sigma, 20_001)  # the integrand has its mass around 0 and around a
        log_ratio = np.logaddexp(math.log1p(-q), math.log(q) + (2 * z - 1) / (2 * sigma**2))
        log_density = -(z**2) / (2 * sigma**2) - math.log(sigma * math.sqrt(2 * math.pi))
        found.append(float(logsumexp(a * log_ratio + log_density)) + math.log(z[1] - z[0]))
    return tuple(max(log_mean, 0.0) / (a - 1) for log_mean, a in zip(found, orders, strict=True))


def rdp_epsilon(run: SubsampledGaussian, delta: float, *, old: bool = False, orders: Numbers = ORDERS) -> float:
    """The least epsilon over the orders, by the new conversion or the old one."""
    check_epsilon_delta(1.0, delta)
    spent = run.steps * rdp(run, orders)
    if old:
        return float((spent + math.log(1 / delta) / (orders - 1)).min())
    new = spent + np.log((orders - 1) / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    return float(max(new.min(), 0.0))


# ── the privacy loss itself ──────────────────────────────────────────────────────────────────────────────────────────


def pld_epsilon(
    run: SubsampledGaussian, delta: float, *, neighbours: str = ADD_OR_REMOVE_ONE, grid: float = GRID
) -> float:
    """The epsilon of the convolved distribution of privacy losses, the worse of its two directions."""
    check_epsilon_delta(1.0, delta)
    if neighbours not in (ADD_OR_REMOVE_ONE, REPLACE_ONE):
        raise InvalidArgument("neighbours", neighbours, f"{ADD_OR_REMOVE_ONE!r} or {REPLACE_ONE!r}")
    directions = (True, False) if neighbours == ADD_OR_REMOVE_ONE and run.rate < 1 else (True,)
    return max(_epsilon(run, delta, removed, neighbours == REPLACE_ONE, grid) for removed in directions)


@lru_cache(maxsize=CACHE_SIZE)
def _epsilon(run: SubsampledGaussian, delta: float, removed: bool, replaced: bool, grid: float) -> float:
    low, mass = _losses(run, removed, replaced, grid)
    cells, first = _window(low, mass, run.steps, grid)
    padded = np.zeros(cells)
    np.add.at(padded, np.arange(len(mass)) % cells, mass)
    composed = np.fft.irfft(np.fft.rfft(padded) ** run.steps, cells)
    start = run.steps * low  # the loss, in steps of the grid, of what wraps to cell 0
    total: Numbers = np.roll(np.maximum(composed, 0.0), (start - first) % cells)
    losses = np.arange(first, first + cells, dtype=np.float64) * grid
    infinite = 1 - (1 - max(1 - mass.sum(), 0.0)) ** run.steps + TAIL * 2
    return _least(losses, total, delta - infinite)


def _losses(run: SubsampledGaussian, removed: bool, replaced: bool, grid: float) -> tuple[int, Numbers]:
    """The distribution of one step's loss log P/Q under P, on the grid: its first cell and the masses.

    What lies between two points of the grid is shared out to both so that its mass under P and under Q stays: no
    smaller delta can come of it (Doroshenko et al., arXiv:2207.04380). The last bit above the grid is infinite.
    """
    q, sigma = run.rate, run.noise
    z = np.linspace(-12 * sigma - 1, 12 * sigma + 1, 400_001)
    mixed, alone, turned = ((1 - q, 0.0), (q, 1.0)), ((1.0, 0.0),), ((1 - q, 0.0), (q, -1.0))
    # in each case the loss rises with z; adding is seen in a mirror
    p_of, q_of = (mixed, turned) if replaced else (mixed, alone) if removed else (alone, turned)
    loss = _log_density(z, p_of, sigma) - _log_density(z, q_of, sigma)
    low, high = math.floor(loss[0] / grid), math.ceil(loss[-1] / grid)
    points = np.arange(low, high + 1) * grid
    edges = np.interp(points, loss, z)
    p, other = (np.diff(sum(w * np.exp(log_ndtr((edges - c) / sigma)) for w, c in which)) for which in (p_of, q_of))
    upper = np.clip((p * np.exp(-points[:-1]) - other) / (np.exp(-points[:-1]) - np.exp(-points[1:])), 0.0, p)
    mass = np.append(p - upper, 0.0)
    mass[1:] += upper
    mass[0] += sum(w * math.exp(log_ndtr((edges[0] - c) / sigma)) for w, c in p_of)
    return low, mass


def _log_density(z: Numbers, mixture: tuple[tuple[float, float], ...], sigma: float) -> Numbers:
    """Up to a constant that all share."""
    parts = [math.log(w) - (z - c) ** 2 / (2 * sigma**2) for w, c in mixture if w > 0]
    return np.asarray(logsumexp(parts, axis=0))


def _window(low: int, mass: Numbers, steps: int, grid: float) -> tuple[int, int]:
    """How many cells the sum of the losses needs, all but a mass of `TAIL` on either side, and its first cell.

    Chernoff: P(sum >= x) <= E[e^(t l)]^T e^(-t x), for the best of some t. log E[e^(t l)] is convex, so that the bound
    x(t) on either side falls and then rises.
    """
    losses, logs = (low + np.arange(len(mass))) * grid, np.log(np.maximum(mass, 1e-320))
    ts = np.geomspace(0.02, 200, 80)

    def bound(t: float, side: int) -> float:
        exponents = (side * t) * losses + logs
        most = exponents.max()
        return float((steps * (most + math.log(np.exp(exponents - most).sum())) - math.log(TAIL)) / t)

    def best(side: int) -> float:
        left, right = 0, len(ts) - 1
        while left < right:
            middle = (left + right) // 2
            if bound(ts[middle], side) <= bound(ts[middle + 1], side):
                right = middle
            else:
                left = middle + 1
        return bound(ts[left], side)

    high, least = best(1), -best(-1)
    cells = 2 ** math.ceil(math.log2(max((high - least) / grid, len(mass), 2)))
    if cells > MAX_GRID_POINTS:
        raise InvalidArgument(
            "grid", grid, f"at least {grid * cells / MAX_GRID_POINTS:.1g}: so many losses need too much room"
        )
    return cells, math.floor(least / grid)


def _least(losses: Numbers, mass: Numbers, delta: float) -> float:
    """The least epsilon with sum over losses > epsilon of (1 - e^(epsilon - loss)) mass <= delta."""
    if delta <= 0:
        raise InvalidArgument("delta", delta, "more than the mass that the grid cuts off")
    there = losses > 0
    losses, mass = losses[there], mass[there]
    above, weighted = np.cumsum(mass[::-1])[::-1], np.cumsum((mass * np.exp(-losses))[::-1])[::-1]
    if not len(losses) or above[0] - weighted[0] <= delta:
        return 0.0
    # delta at the grid's losses falls; between two of them only e^epsilon changes
    at = np.append(above[1:] - np.exp(losses[:-1]) * weighted[1:], 0.0)
    k = int(np.argmax(at <= delta))
    return float(math.log((above[k] - delta) / weighted[k])) if weighted[k] > 0 else float(losses[k])


# ── all of them ──────────────────────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=CACHE_SIZE)
def prv_epsilon(run: SubsampledGaussian, delta: float) -> float:
    """Opacus' numerical accountant, from outside."""
    from opacus.accountants import PRVAccountant

    check_epsilon_delta(1.0, delta)
    accountant = PRVAccountant()
    accountant.history = [(run.noise, run.rate, run.steps)]
    return float(accountant.get_epsilon(delta=delta))


ACCOUNTANTS: dict[str, tuple[str, Callable[[SubsampledGaussian, float], float]]] = {
    "rdp": (ADD_OR_REMOVE_ONE, rdp_epsilon),
    "prv": (ADD_OR_REMOVE_ONE, prv_epsilon),
    "pld": (ADD_OR_REMOVE_ONE, pld_epsilon),
    "pld-replace": (REPLACE_ONE, lambda run, delta: pld_epsilon(run, delta, neighbours=REPLACE_ONE)),
}


def accountant(name: str) -> Callable[[SubsampledGaussian, float], float]:
    """An accountant by name. Raises `InvalidArgument` for another, and for Gaussian DP's, which reports too little."""
    if name == "gdp":
        raise InvalidArgument(
            "accountant", name, "rdp, prv or pld: the central limit theorem reports less than is spent"
        )
    if name not in ACCOUNTANTS:
        raise InvalidArgument("accountant", name, f"one of {', '.join(ACCOUNTANTS)}")
    return ACCOUNTANTS[name][1]


def calibrate_noise(epsilon: float, delta: float, *, rate: float, steps: int, by: str = "pld") -> float:
    """The least noise multiplier with which a run spends at most epsilon, to four digits, rounded up."""
    check_epsilon_delta(epsilon, delta)
    spends = accountant(by)
    low, high = 0.3, 1.0
    while spends(SubsampledGaussian(high, rate, steps), delta) > epsilon:
        low, high = high, 2 * high
        if high > 1e4:
            raise InvalidArgument("target", epsilon, "a larger one: no noise up to 10,000 is enough")
    if spends(SubsampledGaussian(low, rate, steps), delta) <= epsilon:
        return low
    found = float(
        brentq(lambda sigma: spends(SubsampledGaussian(sigma, rate, steps), delta) - epsilon, low, high, xtol=1e-5)
    )
    return math.ceil(found * 1e4 + 1) / 1e4
