"""What an attack proves: a lower bound on epsilon. It never certifies; a weak attack proves little of a weak promise.

    (epsilon, delta):   epsilon >= log((TPR - delta) / FPR),    epsilon >= log((1 - FPR - delta) / (1 - TPR))
    Gaussian, mu:       TPR <= Phi(Phi^-1(FPR) + mu),  so  mu >= Phi^-1(TPR) - Phi^-1(FPR) Dong et al., arXiv:1905.02383
    one run:            P(v of r guesses are right) <= beta + 2 m delta alpha         Steinke et al., arXiv:2305.08846

Rates stand for their Clopper-Pearson limits, the unfavourable ones. The threshold of an attack is chosen on trials of
its own: chosen on those that are counted, it makes the limits too narrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

from synthbook.core.errors import InvalidArgument
from synthbook.privacy.mechanisms import gaussian_epsilon

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class AttackCounts:
    """An attack's hits among members, and its false alarms among others."""

    hits: int
    members: int
    alarms: int
    others: int

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.members or not 0 <= self.alarms <= self.others or not self.members * self.others:
            given = (self.hits, self.members, self.alarms, self.others)
            raise InvalidArgument("counts", given, "hits among at least 1 member, alarms among at least 1 other")


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Limits of a probability by k successes in n trials, each of which holds with half of what is left.

    >>> [round(limit, 4) for limit in clopper_pearson(0, 100)]
    [0.0, 0.0362]
    """
    return float(_lowest(np.array(k), n, confidence)), float(_highest(np.array(k), n, confidence))


def _lowest(k: NDArray[np.int64], n: int, confidence: float) -> Scores:
    return np.where(k > 0, stats.beta.ppf((1 - confidence) / 2, np.maximum(k, 1), n - k + 1), 0.0)


def _highest(k: NDArray[np.int64], n: int, confidence: float) -> Scores:
    return np.where(k < n, stats.beta.ppf((1 + confidence) / 2, k + 1, np.maximum(n - k, 1)), 1.0)


def epsilon_lower_bound(counts: AttackCounts, delta: float, *, confidence: float = 0.95) -> float:
    """The epsilon that is at least spent; 0 where the attack proves nothing.

    >>> round(epsilon_bound(Counts(1_000, 1_000, 0, 1_000), 1e-5), 3)
    5.601
    """
    (hit, _), (_, alarm) = _limits(counts, confidence)
    candidates = [0.0]
    if hit > delta:
        candidates.append(math.log((hit - delta) / alarm))
    if 1 - alarm > delta:
        candidates.append(math.log((1 - alarm - delta) / (1 - hit)) if hit < 1 else math.inf)
    return max(candidates)


def mu_lower_bound(counts: AttackCounts, *, confidence: float = 0.95) -> float:
    """The mu of a Gaussian mechanism that is at least there; 0 where the attack proves nothing."""
    hits, alarms = np.array(counts.hits), np.array(counts.alarms)
    return max(float(_mu(hits, counts.members, alarms, counts.others, confidence)), 0.0)


def _mu(hits: NDArray[np.int64], members: int, alarms: NDArray[np.int64], others: int, confidence: float) -> Scores:
    low, high = _lowest(hits, members, confidence), _highest(alarms, others, confidence)
    return np.asarray(stats.norm.ppf(low) - stats.norm.ppf(high))


def _limits(counts: AttackCounts, confidence: float) -> tuple[tuple[float, float], tuple[float, float]]:
    return (
        clopper_pearson(counts.hits, counts.members, confidence),
        clopper_pearson(counts.alarms, counts.others, confidence),
    )


@dataclass(frozen=True)
class ScoreAudit:
    """What was proved: `epsilon` for any mechanism, `mu` and its epsilon for one that claims to be Gaussian."""

    counts: AttackCounts
    threshold: float
    epsilon: float
    mu: float
    gaussian_epsilon: float


def audit_scores(
    members: Scores, others: Scores, delta: float, *, confidence: float = 0.95, seed: int = 0
) -> ScoreAudit:
    """Bounds by an attack's scores, higher for members: the threshold from one half of them, the counts from the other.

    Raises `InvalidArgument` for fewer than 20 scores on a side.
    """
    if min(len(members), len(others)) < 20:
        raise InvalidArgument("members, others", (len(members), len(others)), "at least 20 scores of each")
    rng = np.random.default_rng(seed)
    (choose_in, count_in), (choose_out, count_out) = (_halves(scores, rng) for scores in (members, others))
    thresholds = np.quantile(np.concatenate([choose_in, choose_out]), np.linspace(0.01, 0.99, 99))
    hits, alarms = ((scores[:, None] >= thresholds).sum(axis=0) for scores in (choose_in, choose_out))
    threshold = thresholds[_mu(hits, len(choose_in), alarms, len(choose_out), confidence).argmax()]
    counts = _counted(count_in, count_out, float(threshold))
    mu = mu_lower_bound(counts, confidence=confidence)
    spent = gaussian_epsilon(1 / mu, delta) if mu else 0.0
    return ScoreAudit(counts, float(threshold), epsilon_lower_bound(counts, delta, confidence=confidence), mu, spent)


def _halves(scores: Scores, rng: np.random.Generator) -> tuple[Scores, Scores]:
    mixed = rng.permutation(scores)
    return mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]


def _counted(members: Scores, others: Scores, threshold: float) -> AttackCounts:
    return AttackCounts(int((members >= threshold).sum()), len(members), int((others >= threshold).sum()), len(others))


# ── one run ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def one_run_p_value(epsilon: float, delta: float, *, canaries: int, guesses: int, right: int) -> float:
    """P(so many right guesses or more) at most, if the run were (epsilon, delta)-private.

    q = 1 / (1 + e^-epsilon),  beta = P[Bin(r, q) >= v],  alpha = max_i P[v > Bin(r, q) >= v - i] / i
    """
    if not 0 <= right <= guesses <= canaries or guesses < 1:
        raise InvalidArgument("right, guesses, canaries", (right, guesses, canaries), "right <= guesses <= canaries")
    q = 1 / (1 + math.exp(-epsilon))
    beta = float(stats.binom.sf(right - 1, guesses, q))
    i = np.arange(1, right + 1)
    below = stats.binom.sf(right - i - 1, guesses, q) - beta
    alpha = float((below / i).max()) if right else 0.0
    return min(1.0, beta + 2 * canaries * delta * alpha)


def one_run_epsilon(delta: float, *, canaries: int, guesses: int, right: int, confidence: float = 0.95) -> float:
    """The largest epsilon that a single run with planted canaries refutes; 0 where it refutes none.

    >>> round(one_run_epsilon(0.0, canaries=1_000, guesses=1_000, right=731), 3)
    0.881
    """

    def excess(epsilon: float) -> float:
        found = one_run_p_value(epsilon, delta, canaries=canaries, guesses=guesses, right=right)
        return found - (1 - confidence)

    return 0.0 if excess(0.0) >= 0 else float(brentq(excess, 0.0, 50.0, xtol=1e-9))
