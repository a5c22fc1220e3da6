"""Lower bounds on epsilon from attacks. An audit can refute a guarantee, never certify it.

    (epsilon, delta):   epsilon >= log((TPR - delta) / FPR),    epsilon >= log((1 - FPR - delta) / (1 - TPR))
    Gaussian, mu:       TPR <= Phi(Phi^-1(FPR) + mu),  so  mu >= Phi^-1(TPR) - Phi^-1(FPR) Dong et al., arXiv:1905.02383
    one run:            P(v of r guesses are correct) <= beta + 2 m delta alpha       Steinke et al., arXiv:2305.08846

Rates are replaced by their Clopper-Pearson limits on the conservative side. The threshold of an attack is chosen on a
separate half of the scores: chosen on the scores that are counted, it makes the intervals too narrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array
from synthbook.privacy.mechanisms import gaussian_epsilon


@dataclass(frozen=True)
class AttackCounts:
    """True positives among members and false positives among non-members."""

    true_positives: int
    n_members: int
    false_positives: int
    n_nonmembers: int

    def __post_init__(self) -> None:
        sides = ((self.true_positives, self.n_members), (self.false_positives, self.n_nonmembers))
        if not all(0 <= positives <= n and n for positives, n in sides):
            raise InvalidArgument("counts", sides, "positives among at least 1 member and at least 1 non-member")


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided Clopper-Pearson interval for k successes in n trials.

    >>> [round(limit, 4) for limit in clopper_pearson(0, 100)]
    [0.0, 0.0362]
    """
    return float(_lower_limit(np.array(k), n, confidence)), float(_upper_limit(np.array(k), n, confidence))


def _lower_limit(k: NDArray[np.int64], n: int, confidence: float) -> Array:
    return np.where(k > 0, stats.beta.ppf((1 - confidence) / 2, np.maximum(k, 1), n - k + 1), 0.0)


def _upper_limit(k: NDArray[np.int64], n: int, confidence: float) -> Array:
    return np.where(k < n, stats.beta.ppf((1 + confidence) / 2, k + 1, np.maximum(n - k, 1)), 1.0)


def epsilon_lower_bound(counts: AttackCounts, delta: float, *, confidence: float = 0.95) -> float:
    """A lower confidence bound on epsilon; 0 if the attack shows nothing.

    >>> round(epsilon_lower_bound(AttackCounts(1_000, 1_000, 0, 1_000), 1e-5), 3)
    5.601
    """
    tpr, _ = clopper_pearson(counts.true_positives, counts.n_members, confidence)
    _, fpr = clopper_pearson(counts.false_positives, counts.n_nonmembers, confidence)
    candidates = [0.0]
    if tpr > delta:
        candidates.append(math.log((tpr - delta) / fpr))
    if 1 - fpr > delta:
        candidates.append(math.log((1 - fpr - delta) / (1 - tpr)) if tpr < 1 else math.inf)
    return max(candidates)


def mu_lower_bound(counts: AttackCounts, *, confidence: float = 0.95) -> float:
    """A lower confidence bound on the mu of a Gaussian mechanism; 0 if the attack shows nothing."""
    positives = np.array(counts.true_positives), np.array(counts.false_positives)
    return max(float(_mu(positives[0], counts.n_members, positives[1], counts.n_nonmembers, confidence)), 0.0)


def _mu(
    true_positives: NDArray[np.int64],
    n_members: int,
    false_positives: NDArray[np.int64],
    n_nonmembers: int,
    confidence: float,
) -> Array:
    tpr = _lower_limit(true_positives, n_members, confidence)
    fpr = _upper_limit(false_positives, n_nonmembers, confidence)
    return np.asarray(stats.norm.ppf(tpr) - stats.norm.ppf(fpr))


@dataclass(frozen=True)
class ScoreAudit:
    """Lower bounds: `epsilon` for any mechanism, `mu` and its epsilon for one that is claimed to be Gaussian."""

    counts: AttackCounts
    threshold: float
    epsilon: float
    mu: float
    gaussian_epsilon: float


def audit_scores(
    members: Array, nonmembers: Array, delta: float, *, confidence: float = 0.95, seed: int = 0
) -> ScoreAudit:
    """Lower bounds from attack scores, higher for members: one half sets the threshold, the other gives the counts.

    Raises `InvalidArgument` for fewer than 20 scores on a side.
    """
    if min(len(members), len(nonmembers)) < 20:
        raise InvalidArgument("members, nonmembers", (len(members), len(nonmembers)), "at least 20 scores of each")
    rng = np.random.default_rng(seed)
    (choose_in, count_in), (choose_out, count_out) = (
        (shuffled[: len(shuffled) // 2], shuffled[len(shuffled) // 2 :])
        for shuffled in (rng.permutation(members), rng.permutation(nonmembers))
    )
    thresholds = np.quantile(np.concatenate([choose_in, choose_out]), np.linspace(0.01, 0.99, 99))
    positives_in, positives_out = ((s[:, None] >= thresholds).sum(axis=0) for s in (choose_in, choose_out))
    bounds = _mu(positives_in, len(choose_in), positives_out, len(choose_out), confidence)
    threshold = float(thresholds[bounds.argmax()])
    true_positives, false_positives = (int((scores >= threshold).sum()) for scores in (count_in, count_out))
    counts = AttackCounts(true_positives, len(count_in), false_positives, len(count_out))
    mu = mu_lower_bound(counts, confidence=confidence)
    epsilon = gaussian_epsilon(1 / mu, delta) if mu else 0.0
    return ScoreAudit(counts, threshold, epsilon_lower_bound(counts, delta, confidence=confidence), mu, epsilon)


# ── One run ──


def one_run_p_value(epsilon: float, delta: float, *, n_canaries: int, n_guesses: int, n_correct: int) -> float:
    """Upper bound on the probability of `n_correct` or more correct guesses if the run were (epsilon, delta)-private.

    q = 1 / (1 + e^-epsilon),  beta = P[Bin(r, q) >= v],  alpha = max_i P[v > Bin(r, q) >= v - i] / i
    """
    if not 0 <= n_correct <= n_guesses <= n_canaries or n_guesses < 1:
        given = (n_correct, n_guesses, n_canaries)
        raise InvalidArgument("n_correct, n_guesses, n_canaries", given, "n_correct <= n_guesses <= n_canaries")
    q = 1 / (1 + math.exp(-epsilon))
    beta = float(stats.binom.sf(n_correct - 1, n_guesses, q))
    i = np.arange(1, n_correct + 1)
    below = stats.binom.sf(n_correct - i - 1, n_guesses, q) - beta
    alpha = float((below / i).max()) if n_correct else 0.0
    return min(1.0, beta + 2 * n_canaries * delta * alpha)


def one_run_epsilon(
    delta: float, *, n_canaries: int, n_guesses: int, n_correct: int, confidence: float = 0.95
) -> float:
    """The largest epsilon that one training run with canaries refutes; 0 if it refutes none.

    >>> round(one_run_epsilon(0.0, n_canaries=1_000, n_guesses=1_000, n_correct=731), 3)
    0.881
    """

    def excess(epsilon: float) -> float:
        p = one_run_p_value(epsilon, delta, n_canaries=n_canaries, n_guesses=n_guesses, n_correct=n_correct)
        return p - (1 - confidence)

    return 0.0 if excess(0.0) >= 0 else float(brentq(excess, 0.0, 50.0, xtol=1e-9))
