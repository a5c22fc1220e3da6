"""Privacy accounting for the Poisson-subsampled Gaussian mechanism, in three ways.

Each step samples every record with probability q, sums contributions clipped to norm C, and adds Gaussian noise of
scale sigma C. With P = (1 - q) N(0, sigma^2) + q N(1, sigma^2) against Q = N(0, sigma^2), in units of C:

    RDP      R(a) = log E_Q[(P/Q)^a] / (a - 1),  composes by addition                     Mironov, arXiv:1702.07476
             classic:  epsilon = T R(a) + log(1/delta) / (a - 1)
             improved: epsilon = T R(a) + log((a - 1)/a) - (log delta + log a) / (a - 1)  arXiv:2004.00010
    PLD      the distribution of the privacy loss log P/Q, convolved T times by FFT: an upper bound
    PRV      the same idea, as implemented in Opacus                                  Gopi et al., arXiv:2106.02848

Neighboring data sets differ by adding or removing one record, unless REPLACE_ONE is given. The batches must be Poisson
samples: shuffled batches are another mechanism. The accountant of Gaussian DP by the central limit theorem is refused,
because it reports less than is spent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, logsumexp

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array
from synthbook.privacy.mechanisms import check_epsilon_delta

ORDERS = np.concatenate([1 + np.arange(1, 100) / 10, np.arange(11, 64), 2.0 ** np.arange(6, 11)])
_DISCRETIZATION_INTERVAL = 2e-4  # of a privacy loss
_TAIL_MASS = 1e-15  # that may be truncated, and is added to delta
_MAX_GRID_POINTS = 2**24
_CACHE_SIZE = 256  # results: the calibration of noise needs the same ones again
ADD_OR_REMOVE_ONE, REPLACE_ONE = "add or remove one record", "replace one record"


@dataclass(frozen=True)
class SubsampledGaussian:
    """`steps` steps on Poisson samples at `sample_rate`; `noise_multiplier` is the noise over the clipping norm."""

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.noise_multiplier < math.inf:
            raise InvalidArgument("noise-multiplier", self.noise_multiplier, "a finite number above 0")
        if not 0 < self.sample_rate <= 1:
            raise InvalidArgument("sample-rate", self.sample_rate, "a probability above 0 and at most 1")
        if not isinstance(self.steps, int) or self.steps < 1:
            raise InvalidArgument("steps", self.steps, "a whole number of at least 1")


# ── Renyi differential privacy ──


def rdp(mechanism: SubsampledGaussian, orders: Array = ORDERS) -> Array:
    """R(a) of one step at each order a > 1, by quadrature: E_Q[(1 - q + q e^((2z - 1) / (2 sigma^2)))^a]."""
    return np.array(_rdp(mechanism, tuple(orders.tolist())))


@lru_cache(maxsize=_CACHE_SIZE)
def _rdp(mechanism: SubsampledGaussian, orders: tuple[float, ...]) -> tuple[float, ...]:
    sigma, q = mechanism.noise_multiplier, mechanism.sample_rate
    if q == 1:
        return tuple(a / (2 * sigma**2) for a in orders)
    log_moments = []
    for a in orders:
        z = np.linspace(-14 * sigma, a + 14 * sigma, 20_001)  # the integrand has its mass around 0 and around a
        log_ratio = np.logaddexp(math.log1p(-q), math.log(q) + (2 * z - 1) / (2 * sigma**2))
        log_density = -(z**2) / (2 * sigma**2) - math.log(sigma * math.sqrt(2 * math.pi))
        log_moments.append(float(logsumexp(a * log_ratio + log_density)) + math.log(z[1] - z[0]))
    return tuple(max(log_moment, 0.0) / (a - 1) for log_moment, a in zip(log_moments, orders, strict=True))


def rdp_epsilon(
    mechanism: SubsampledGaussian, delta: float, *, classic_conversion: bool = False, orders: Array = ORDERS
) -> float:
    """The smallest epsilon over the orders, by the improved conversion or the classic one (see the module)."""
    check_epsilon_delta(1.0, delta)
    composed = mechanism.steps * rdp(mechanism, orders)
    if classic_conversion:
        return float((composed + math.log(1 / delta) / (orders - 1)).min())
    improved = composed + np.log((orders - 1) / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    return float(max(improved.min(), 0.0))


# ── Privacy loss distributions ──


def pld_epsilon(
    mechanism: SubsampledGaussian,
    delta: float,
    *,
    neighboring_relation: str = ADD_OR_REMOVE_ONE,
    discretization_interval: float = _DISCRETIZATION_INTERVAL,
) -> float:
    """The epsilon of the composed privacy loss distribution: the larger one of adding and of removing a record."""
    check_epsilon_delta(1.0, delta)
    if neighboring_relation not in (ADD_OR_REMOVE_ONE, REPLACE_ONE):
        choices = f"{ADD_OR_REMOVE_ONE!r} or {REPLACE_ONE!r}"
        raise InvalidArgument("neighboring_relation", neighboring_relation, choices)
    replace = neighboring_relation == REPLACE_ONE
    directions = (True, False) if not replace and mechanism.sample_rate < 1 else (True,)
    return max(_pld_epsilon(mechanism, delta, remove, replace, discretization_interval) for remove in directions)


@lru_cache(maxsize=_CACHE_SIZE)
def _pld_epsilon(mechanism: SubsampledGaussian, delta: float, remove: bool, replace: bool, interval: float) -> float:
    low, mass = _loss_distribution(mechanism, remove, replace, interval)
    n_points, first = _truncation(low, mass, mechanism.steps, interval)
    padded = np.zeros(n_points)
    np.add.at(padded, np.arange(len(mass)) % n_points, mass)
    composed = np.fft.irfft(np.fft.rfft(padded) ** mechanism.steps, n_points)
    start = mechanism.steps * low  # the loss, in grid intervals, at index 0 after wrapping
    shifted: Array = np.roll(np.maximum(composed, 0.0), (start - first) % n_points)
    losses = np.arange(first, first + n_points, dtype=np.float64) * interval
    infinite = 1 - (1 - max(1 - mass.sum(), 0.0)) ** mechanism.steps + _TAIL_MASS * 2
    return _smallest_epsilon(losses, shifted, delta - infinite)


def _loss_distribution(
    mechanism: SubsampledGaussian, remove: bool, replace: bool, interval: float
) -> tuple[int, Array]:
    """The distribution of one step's privacy loss log P/Q under P on the grid: its first index and the masses.

    Mass between two grid points is divided between them such that its probability under P and under Q is preserved,
    which never makes delta smaller (Doroshenko et al., arXiv:2207.04380). What lies above the grid counts as infinite.
    """
    q, sigma = mechanism.sample_rate, mechanism.noise_multiplier
    z = np.linspace(-12 * sigma - 1, 12 * sigma + 1, 400_001)
    mixture, base, mirrored = ((1 - q, 0.0), (q, 1.0)), ((1.0, 0.0),), ((1 - q, 0.0), (q, -1.0))
    # the loss increases with z in each case; adding a record is mirrored
    p_of, q_of = (mixture, mirrored) if replace else (mixture, base) if remove else (base, mirrored)
    loss = _log_density(z, p_of, sigma) - _log_density(z, q_of, sigma)
    low, high = math.floor(loss[0] / interval), math.ceil(loss[-1] / interval)
    points = np.arange(low, high + 1) * interval
    edges = np.interp(points, loss, z)
    p, other = (np.diff(sum(w * np.exp(log_ndtr((edges - c) / sigma)) for w, c in density)) for density in (p_of, q_of))
    upper = np.clip((p * np.exp(-points[:-1]) - other) / (np.exp(-points[:-1]) - np.exp(-points[1:])), 0.0, p)
    mass = np.append(p - upper, 0.0)
    mass[1:] += upper
    mass[0] += sum(w * math.exp(log_ndtr((edges[0] - c) / sigma)) for w, c in p_of)
    return low, mass


def _log_density(z: Array, mixture: tuple[tuple[float, float], ...], sigma: float) -> Array:
    """The log density of a Gaussian mixture of (weight, mean) pairs, up to a constant."""
    terms = [math.log(w) - (z - c) ** 2 / (2 * sigma**2) for w, c in mixture if w > 0]
    return np.asarray(logsumexp(terms, axis=0))


def _truncation(low: int, mass: Array, steps: int, interval: float) -> tuple[int, int]:
    """The number of grid points for the sum of `steps` losses, up to `_TAIL_MASS` on either side, and the first index.

    Chernoff: P(sum >= x) <= E[e^(t l)]^T e^(-t x), for the best of some t. log E[e^(t l)] is convex, so the bound x(t)
    on either side decreases and then increases.
    """
    losses, logs = (low + np.arange(len(mass))) * interval, np.log(np.maximum(mass, 1e-320))
    ts = np.geomspace(0.02, 200, 80)

    def bound(t: float, side: int) -> float:
        exponents = (side * t) * losses + logs
        largest = exponents.max()
        return float((steps * (largest + math.log(np.exp(exponents - largest).sum())) - math.log(_TAIL_MASS)) / t)

    def best(side: int) -> float:
        left, right = 0, len(ts) - 1
        while left < right:
            middle = (left + right) // 2
            if bound(ts[middle], side) <= bound(ts[middle + 1], side):
                right = middle
            else:
                left = middle + 1
        return bound(ts[left], side)

    highest, lowest = best(1), -best(-1)
    n_points = 2 ** math.ceil(math.log2(max((highest - lowest) / interval, len(mass), 2)))
    if n_points > _MAX_GRID_POINTS:
        accepted = f"at least {interval * n_points / _MAX_GRID_POINTS:.1g}: a finer grid needs too much memory"
        raise InvalidArgument("discretization_interval", interval, accepted)
    return n_points, math.floor(lowest / interval)


def _smallest_epsilon(losses: Array, mass: Array, delta: float) -> float:
    """The smallest epsilon with sum over losses > epsilon of (1 - e^(epsilon - loss)) mass <= delta."""
    if delta <= 0:
        raise InvalidArgument("delta", delta, "more than the mass that the grid truncates")
    positive = losses > 0
    losses, mass = losses[positive], mass[positive]
    above, weighted = np.cumsum(mass[::-1])[::-1], np.cumsum((mass * np.exp(-losses))[::-1])[::-1]
    if not len(losses) or above[0] - weighted[0] <= delta:
        return 0.0
    # delta at the grid's losses decreases; between two of them only e^epsilon changes
    deltas = np.append(above[1:] - np.exp(losses[:-1]) * weighted[1:], 0.0)
    k = int(np.argmax(deltas <= delta))
    return float(math.log((above[k] - delta) / weighted[k])) if weighted[k] > 0 else float(losses[k])


# ── All accountants ──


@lru_cache(maxsize=_CACHE_SIZE)
def prv_epsilon(mechanism: SubsampledGaussian, delta: float) -> float:
    """The epsilon by the PRV accountant of Opacus."""
    from opacus.accountants import PRVAccountant

    check_epsilon_delta(1.0, delta)
    accountant = PRVAccountant()
    accountant.history = [(mechanism.noise_multiplier, mechanism.sample_rate, mechanism.steps)]
    return float(accountant.get_epsilon(delta=delta))


_Accountant = Callable[[SubsampledGaussian, float], float]  # a mechanism and delta to epsilon
ACCOUNTANTS: dict[str, tuple[str, _Accountant]] = {  # by name, with the neighboring relation
    "rdp": (ADD_OR_REMOVE_ONE, rdp_epsilon),
    "prv": (ADD_OR_REMOVE_ONE, prv_epsilon),
    "pld": (ADD_OR_REMOVE_ONE, pld_epsilon),
    "pld-replace": (
        REPLACE_ONE,
        lambda mechanism, delta: pld_epsilon(mechanism, delta, neighboring_relation=REPLACE_ONE),
    ),
}


def get_accountant(name: str) -> _Accountant:
    """An accountant by name. Raises `InvalidArgument` for an unknown one, and for "gdp", which reports too little."""
    if name == "gdp":
        raise InvalidArgument(
            "accountant", name, "rdp, prv or pld: the central limit theorem reports less than is spent"
        )
    if name not in ACCOUNTANTS:
        raise InvalidArgument("accountant", name, f"one of {', '.join(ACCOUNTANTS)}")
    return ACCOUNTANTS[name][1]


def calibrate_noise(epsilon: float, delta: float, *, sample_rate: float, steps: int, accountant: str = "pld") -> float:
    """The smallest noise multiplier that spends at most epsilon, to four digits, rounded up; 0 if epsilon is infinite.

    Raises `InvalidArgument` where no noise multiplier up to 10,000 is enough.
    """
    check_epsilon_delta(1.0 if epsilon == math.inf else epsilon, delta)
    if epsilon == math.inf:
        return 0.0
    epsilon_of = get_accountant(accountant)

    def excess(sigma: float) -> float:
        return epsilon_of(SubsampledGaussian(sigma, sample_rate, steps), delta) - epsilon

    low, high = 0.3, 1.0
    while excess(high) > 0:
        low, high = high, 2 * high
        if high > 1e4:
            raise InvalidArgument("epsilon", epsilon, "a larger one: no noise multiplier up to 10,000 is enough")
    if excess(low) <= 0:
        return low
    return math.ceil(float(brentq(excess, low, high, xtol=1e-5)) * 1e4 + 1) / 1e4
