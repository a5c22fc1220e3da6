"""Was this row among those that the generator learned from? Three attacks on a release, the weakest first.

    distance        s(x) = - distance to the nearest released row                          Chen et al., arXiv:1909.03935
    density ratio   s(x) = log(r_ref(x) / r_released(x)), r the distance to the k-th       (DOMIAS) arXiv:2302.12580
    shadow models   s(x) = log N(t; mu_in, sd_in) - log N(t; mu_out, sd_out), with t any of the above, and its mean and
                    deviation over generators that learned from x and others that did not    (LiRA) arXiv:2112.03570

Rows are arrays (N, d) of features, scaled alike for all. The reference of the second attack is real rows that are
neither candidates nor were learned from: it tells what is common from what was copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.neighbors import NearestNeighbors

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array
from synthbook.privacy.audit import Scores
from synthbook.privacy.mechanisms import check_epsilon_delta, laplace_histogram, multinomial_counts

LEAST = 1e-9  # a distance below counts as this one, so that its logarithm is finite
Fit = Callable[[Array, int], Any]  # rows (N, d) and a seed to a release, or to a model
Statistic = Callable[[Array, Any], Scores]  # candidates (N, d) and that to scores (N,)


def knn_distances(candidates: Array, rows: Array, k: int = 1) -> Array:
    """Distances (N, k) from each candidate (N, d) to its k nearest rows (M, d), the nearest first."""
    return np.asarray(_neighbours(candidates, rows, k)[0])


def nearest_index(candidates: Array, rows: Array) -> NDArray[np.int64]:
    """The place (N,) of the row (M, d) that is nearest to each candidate (N, d)."""
    return np.asarray(_neighbours(candidates, rows, 1)[1][:, 0], dtype=np.int64)


def _neighbours(candidates: Array, rows: Array, k: int) -> tuple[Array, NDArray[np.int64]]:
    x, y = (np.asarray(given, dtype=float) for given in (candidates, rows))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not 1 <= k <= len(y):
        raise InvalidArgument("candidates, rows", (x.shape, y.shape), f"(N, d) and (M, d), with M of at least k = {k}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InvalidArgument("candidates, rows", "NaN or infinity", "finite numbers")
    distances, places = NearestNeighbors(n_neighbors=k).fit(y).kneighbors(x)
    return distances, places


def nearest_distance_score(candidates: Array, released: Array) -> Scores:
    """Minus the distance (N,) to the nearest released row."""
    return -knn_distances(candidates, released)[:, 0]


def domias(candidates: Array, released: Array, reference: Array, *, k: int = 1) -> Scores:
    """How much denser the release is around each candidate (N,) than the world is, in logarithms of a distance."""
    ours, others = (knn_distances(candidates, rows, k)[:, -1] for rows in (released, reference))
    return np.asarray(np.log(np.maximum(others, LEAST)) - np.log(np.maximum(ours, LEAST)))


def train_shadow_models(
    fit: Fit, pool: Array, statistic: Statistic, *, models: int, seed: int
) -> tuple[Array, NDArray[np.bool_]]:
    """Statistics (models, N) of a pool's rows (N, d) under generators that learned from a random half of it each.

    Also which rows each learned from (models, N). Raises `InvalidArgument` for fewer than 4 models.
    """
    if models < 4 or len(pool) < 4:
        raise InvalidArgument("models, pool", (models, len(pool)), "at least 4 of each")
    rng, inside = np.random.default_rng(seed), np.zeros((models, len(pool)), dtype=bool)
    for pair in range(0, models, 2):  # each row in one model of a pair: as often in as out
        half = rng.permutation(len(pool)) < len(pool) // 2
        inside[pair] = half
        if pair + 1 < models:
            inside[pair + 1] = ~half
    found = [statistic(pool, fit(pool[mine], int(rng.integers(2**31)))) for mine in inside]
    return np.stack(found), inside


def lira(observed: Scores, statistics: Array, inside: NDArray[np.bool_]) -> Scores:
    """LiRA's score (N,) of rows with statistic `observed` (N,), given shadow models' statistics (S, N).

    Means are each row's own, deviations are shared by all, which few shadow models need (arXiv:2112.03570, sec. VI).
    """
    if statistics.shape != inside.shape or observed.shape != statistics.shape[1:]:
        given = (observed.shape, statistics.shape, inside.shape)
        raise InvalidArgument("observed, statistics, inside", given, "(N,), (S, N) and (S, N)")
    if np.isnan(observed).any() or np.isnan(statistics).any():
        raise InvalidArgument("observed, statistics", "NaN", "a number for each row")
    if not (inside.any(axis=0) & (~inside).any(axis=0)).all():
        raise InvalidArgument("inside", "a row that is always in, or never", "rows in some models and out of others")
    ins, outs = (np.where(side, statistics, np.nan) for side in (inside, ~inside))
    mean_in, mean_out = np.nanmean(ins, axis=0), np.nanmean(outs, axis=0)
    sd_in, sd_out = (max(float(np.nanstd(s - m)), LEAST) for s, m in ((ins, mean_in), (outs, mean_out)))
    return np.asarray(norm.logpdf(observed, mean_in, sd_in) - norm.logpdf(observed, mean_out, sd_out))


# ── The attack on a filter by distance ──
#     s(x) = log r_1(x) - log r_k(x),     r_k the distance from x to the k-th nearest released row
#
# Where the release is dense around x (small r_k) and still keeps away from it (large r_1), somebody was cut out. Ganev
# and De Cristofaro, arXiv:2312.05114; claim C5.3-4.


AROUND = 50  # k: neighbours that tell how dense the release is here


def similarity_filter(released: Array, train: Array, radius: float) -> Array:
    """Released rows (M, d) without those nearer than `radius` to a training row (N, d)."""
    if not radius > 0:
        raise InvalidArgument("radius", radius, "a distance above 0")
    return released[knn_distances(released, train)[:, 0] >= radius]


def hole_score(candidates: Array, released: Array, *, k: int = AROUND) -> Scores:
    """How much a release (M, d) keeps away from each candidate (N,), for how dense it is around it."""
    found = knn_distances(candidates, released, k)
    return np.asarray(np.log(np.maximum(found[:, 0], LEAST)) - np.log(np.maximum(found[:, -1], LEAST)))


# ── The attack on a histogram ──


@dataclass(frozen=True)
class MembershipGuesses:
    """Correct guesses of whether the victim was included, over `n_trials` releases with her and as many without."""

    n_correct: int
    n_trials: int

    @property
    def accuracy(self) -> float:
        """The share of correct guesses; 1/2 for a coin."""
        return self.n_correct / (2 * self.n_trials)


def attack_histogram(
    epsilon: float,
    n_rows: int,
    *,
    counts_without_victim: Array,
    victim_cell: int,
    n_trials: int,
    seed: int,
    worst_case: bool = True,
) -> MembershipGuesses:
    """Guess from `n_rows` rows, sampled from a Laplace histogram, whether it counted the victim's record.

    `counts_without_victim` (K,) are the counts of everybody else. In the worst case the attacker knows them and
    compares the share of the victim's cell with its expectation in either case; otherwise she knows only the
    distribution from which they come, and each release counts other people. Raises `InvalidArgument`.
    """
    if epsilon != np.inf:
        check_epsilon_delta(epsilon, 0.5)
    if n_rows < 1 or n_trials < 1 or not 0 <= victim_cell < len(counts_without_victim):
        given = (n_rows, n_trials, victim_cell)
        raise InvalidArgument("n_rows, n_trials, victim_cell", given, "at least 1 each, and one of the cells")
    rng, n_correct, n = np.random.default_rng(seed), 0, counts_without_victim.sum()
    for included in (0, 1):
        known = np.tile(counts_without_victim, (n_trials, 1))
        counts = known if worst_case else multinomial_counts(known, int(n), rng)
        counts = counts.astype(float)
        counts[:, victim_cell] += included
        released = multinomial_counts(laplace_histogram(counts, epsilon, rng), n_rows, rng)
        estimate = released[:, victim_cell] / n_rows * (n + 0.5)
        guess = estimate > counts_without_victim[victim_cell] + 0.5  # halfway between the two expectations
        n_correct += int((guess == bool(included)).sum())
    return MembershipGuesses(n_correct, n_trials)
