"""Membership inference attacks on synthetic data, in order of strength.

    distance        s(x) = - distance to the nearest synthetic row                         Chen et al., arXiv:1909.03935
    DOMIAS          s(x) = log(r_ref(x) / r_synthetic(x)), r the distance to the k-th      arXiv:2302.12580, by k-NN
    LiRA            s(x) = log N(t; mu_in, sd_in) - log N(t; mu_out, sd_out), with t any of the above, and its mean and
                    deviation over generators that were trained with x and without x         arXiv:2112.03570

Rows are arrays (N, d) of features with one scale for all. The reference of DOMIAS is real rows that are neither
candidates nor training rows: it separates what is common from what was copied. `domias` compares distances, a proxy for
the ratio of densities in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata
from sklearn.neighbors import NearestNeighbors

from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import BLACK, VERMILLION, new_axes
from synthbook.core.types import Array
from synthbook.evaluation.novelty import NoveltyResult, novelty
from synthbook.privacy.mechanisms import check_epsilon_delta, laplace_histogram, multinomial_counts

# ── ROC curves of membership attacks: an average hides the few members that are identified with certainty ──
# (epsilon, delta)-private:  TPR <= min(e^epsilon FPR + delta, 1 - e^-epsilon (1 - delta - FPR))     Kairouz et al.,
# Gaussian, mu:              TPR <= Phi(Phi^-1(FPR) + mu)                                            arXiv:1311.0776


FPR_GRID = np.geomspace(1e-5, 1, 400)  # where bounds are drawn


@dataclass(frozen=True, eq=False)
class AttackScores:
    """An attack's scores of members (M,) and of non-members (N,); a higher score says "member"."""

    members: Array
    nonmembers: Array

    def __post_init__(self) -> None:
        for name in ("members", "nonmembers"):
            scores = np.asarray(getattr(self, name), dtype=float)
            if scores.ndim != 1 or not len(scores) or np.isnan(scores).any():
                raise InvalidArgument(name, f"array of shape {scores.shape}", "at least one score, none of them NaN")
            object.__setattr__(self, name, scores)

    @property
    def auc(self) -> float:
        """The probability that a member scores above a non-member, ties counted half."""
        m, n = len(self.members), len(self.nonmembers)
        ranks = rankdata(np.concatenate([self.members, self.nonmembers]))
        return float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))

    @property
    def auc_null_se(self) -> float:
        """The standard error of the AUC of uninformative scores, that of the Mann-Whitney statistic."""
        m, n = len(self.members), len(self.nonmembers)
        return float(np.sqrt((m + n + 1) / (12 * m * n)))

    def tpr_at_fpr(self, fpr: float) -> float:
        """The true positive rate at the lowest threshold whose false positive rate is at most `fpr`."""
        if not 0 <= fpr <= 1:
            raise InvalidArgument("fpr", fpr, "a rate between 0 and 1")
        allowed = int(np.floor(fpr * len(self.nonmembers) + 1e-9))
        threshold = np.sort(self.nonmembers)[::-1][allowed] if allowed < len(self.nonmembers) else -np.inf
        return float((self.members > threshold).mean())

    def roc_curve(self) -> tuple[Array, Array]:
        """False and true positive rates (K,) at every threshold, from none to all."""
        thresholds = np.unique(np.concatenate([self.members, self.nonmembers]))[::-1]
        rates = [1 - np.searchsorted(np.sort(s), thresholds) / len(s) for s in (self.nonmembers, self.members)]
        fpr, tpr = (np.concatenate([[0.0], rate]) for rate in rates)
        return fpr, tpr


def dp_tpr_bound(fpr: ArrayLike, epsilon: float, delta: float) -> Array:
    """Upper bound (K,) on the TPR of any attack on an (epsilon, delta)-private mechanism at the given FPRs.

    >>> dp_tpr_bound([0.0, 0.5, 1.0], 1.0, 0.0).round(4).tolist()
    [0.0, 0.8161, 1.0]
    """
    f, epsilon = np.asarray(fpr, dtype=float), min(epsilon, 700.0)  # e^700 is near the largest float
    bound = np.minimum(np.exp(epsilon) * f + delta, 1 - np.exp(-epsilon) * (1 - delta - f))
    return np.asarray(np.clip(bound, 0.0, 1.0))


def dp_accuracy_bound(epsilon: float, delta: float = 0.0) -> float:
    """Upper bound on the balanced accuracy of any attack: (e^epsilon + delta) / (1 + e^epsilon).

    >>> [round(dp_accuracy_bound(epsilon), 4) for epsilon in (0.5, 1, 2, 4, 8)]
    [0.6225, 0.7311, 0.8808, 0.982, 0.9997]
    """
    return float((1 + delta * np.exp(-epsilon)) / (1 + np.exp(-epsilon)))


def plot_roc(
    attacks: dict[str, AttackScores],
    ax: Axes | None = None,
    *,
    dp_bound: tuple[float, float] | None = None,
    min_rate: float = 1e-3,
) -> Axes:
    """Plot ROC curves, both axes logarithmic from `min_rate`; `dp_bound`, an (epsilon, delta), adds an upper bound."""
    ax = new_axes(ax, width=6.0, height=4.8)
    for name, attack in attacks.items():
        fpr, tpr = attack.roc_curve()
        ax.step(np.maximum(fpr, min_rate / 10), np.maximum(tpr, min_rate / 10), where="post", label=name)
    ax.plot(FPR_GRID, FPR_GRID, color=BLACK, linewidth=1, linestyle=":", label="guessing")
    if dp_bound is not None:
        bound = dp_tpr_bound(FPR_GRID, *dp_bound)
        label = f"upper bound at ε = {dp_bound[0]:g}"
        ax.plot(FPR_GRID, bound, color=VERMILLION, linewidth=4, alpha=0.5, linestyle="-", label=label)
    ax.set(xscale="log", yscale="log", xlim=(min_rate, 1), ylim=(min_rate, 1.05))
    ax.set(xlabel="false positive rate (non-members)", ylabel="true positive rate (members)")
    ax.legend(loc="lower right")
    return ax


# ── Distances to the nearest rows ──
#     DCR    distance from a synthetic row to the nearest training row; beside it, that of held-out real rows
#     NNDR   that distance over the one to the second nearest: near 0 where a row is close to one person only
#     share  of synthetic rows nearer to training than to held-out rows, ties split: `evaluation.novelty`
#
# None is a verdict on privacy. Rows that are close may be common (claim C5.3-3a); a release that shifts every training
# row by one vector is far from all of them and discloses all of them (C5.3-3c).


NO_VERDICT = "not a privacy verdict"
LOW_PERCENTILE = 5  # reported beside the median


@dataclass(frozen=True)
class Distances:
    """Median and 5th percentile of DCR and NNDR, of synthetic and of held-out rows; and the novelty share."""

    dcr: tuple[float, float]
    dcr_holdout: tuple[float, float]
    nndr: tuple[float, float]
    nndr_holdout: tuple[float, float]
    novelty: NoveltyResult

    def to_dict(self) -> dict[str, Any]:
        """As plain data, with a note that it is no verdict."""
        return asdict(self) | {"note": NO_VERDICT}

    def __str__(self) -> str:
        return (
            f"distance to the nearest training row {self.dcr[0]:.3g} (held-out rows {self.dcr_holdout[0]:.3g}), "
            f"ratio to the second {self.nndr[0]:.3g} ({self.nndr_holdout[0]:.3g}), share nearer to training rows "
            f"{self.novelty.dcr_share:.3f} ({self.novelty.low:.3f} to {self.novelty.high:.3f} by chance): {NO_VERDICT}"
        )


def distances(synthetic: Array, train: Array, holdout: Array, *, seed: int) -> Distances:
    """Distances of synthetic rows (M, d) to training rows (N, d), beside those of held-out rows.

    Raises `InvalidArgument`.
    """
    share = novelty(synthetic, train=train, holdout=holdout, seed=seed)  # checks all three
    ours, theirs = (knn_distances(rows, train, 2) for rows in (synthetic, holdout))
    dcr, dcr_holdout = _summary(ours[:, 0]), _summary(theirs[:, 0])
    return Distances(dcr, dcr_holdout, _summary(_ratio(ours)), _summary(_ratio(theirs)), share)


def _ratio(pairs: Array) -> Array:
    # two training rows at distance 0 are as equal as two at 1: the ratio of equal distances is 1
    return np.asarray(np.maximum(pairs[:, 0], MIN_DISTANCE) / np.maximum(pairs[:, 1], MIN_DISTANCE))


def _summary(values: Array) -> tuple[float, float]:
    return float(np.median(values)), float(np.percentile(values, LOW_PERCENTILE))


# ── Attacks ──


MIN_DISTANCE = 1e-9  # smaller distances count as this one, so that their logarithm is finite
HOLE_NEIGHBORS = 50  # k: neighbors that measure the local density of the synthetic rows
_Fit = Callable[[Array, int], Any]  # rows (N, d) and a seed to synthetic rows, or to a model
_Statistic = Callable[[Array, Any], Array]  # candidates (N, d) and the result of a fit to scores (N,)


def knn_distances(candidates: Array, rows: Array, k: int = 1) -> Array:
    """Distances (N, k) from each candidate (N, d) to its k nearest rows (M, d), in increasing order."""
    return np.asarray(_neighbors(candidates, rows, k)[0])


def nearest_index(candidates: Array, rows: Array) -> NDArray[np.int64]:
    """Index (N,) of the row (M, d) nearest to each candidate (N, d)."""
    return np.asarray(_neighbors(candidates, rows, 1)[1][:, 0], dtype=np.int64)


def _neighbors(candidates: Array, rows: Array, k: int) -> tuple[Array, NDArray[np.int64]]:
    x, y = (np.asarray(array, dtype=float) for array in (candidates, rows))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not 1 <= k <= len(y):
        raise InvalidArgument("candidates, rows", (x.shape, y.shape), f"(N, d) and (M, d), with M of at least k = {k}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InvalidArgument("candidates, rows", "NaN or infinity", "finite numbers")
    distances, indices = NearestNeighbors(n_neighbors=k).fit(y).kneighbors(x)
    return distances, indices


def _log_distances(candidates: Array, rows: Array, k: int) -> Array:
    return np.asarray(np.log(np.maximum(knn_distances(candidates, rows, k), MIN_DISTANCE)))


def nearest_distance_score(candidates: Array, synthetic: Array) -> Array:
    """Minus the distance (N,) to the nearest synthetic row: high for members."""
    return -knn_distances(candidates, synthetic)[:, 0]


def domias(candidates: Array, synthetic: Array, reference: Array, *, k: int = 1) -> Array:
    """DOMIAS scores (N,) by k nearest neighbors: log distance to the reference minus log distance to synthetic rows."""
    log_synthetic, log_reference = (_log_distances(candidates, rows, k)[:, -1] for rows in (synthetic, reference))
    return np.asarray(log_reference - log_synthetic)


# ── LiRA ──


def train_shadow_models(
    fit: _Fit, pool: Array, statistic: _Statistic, *, n_models: int, seed: int
) -> tuple[Array, NDArray[np.bool_]]:
    """Statistics (n_models, N) of a pool's rows (N, d) under generators trained on random halves of it.

    Also which rows each was trained on (n_models, N). Raises `InvalidArgument` for fewer than 4 models.
    """
    if n_models < 4 or len(pool) < 4:
        raise InvalidArgument("n_models, pool", (n_models, len(pool)), "at least 4 of each")
    rng, in_mask = np.random.default_rng(seed), np.zeros((n_models, len(pool)), dtype=bool)
    for pair in range(0, n_models, 2):  # each row in one model of a pair: as often in as out
        half = rng.permutation(len(pool)) < len(pool) // 2
        in_mask[pair] = half
        if pair + 1 < n_models:
            in_mask[pair + 1] = ~half
    statistics = [statistic(pool, fit(pool[rows], int(rng.integers(2**31)))) for rows in in_mask]
    return np.stack(statistics), in_mask


def lira(observed: Array, statistics: Array, in_mask: NDArray[np.bool_]) -> Array:
    """Likelihood ratio scores (N,) of rows with statistic `observed` (N,), given shadow models' statistics (S, N).

    Means are per row, deviations are shared by all rows, which needs few shadow models (arXiv:2112.03570, sec. VI).
    """
    if statistics.shape != in_mask.shape or observed.shape != statistics.shape[1:]:
        shapes = (observed.shape, statistics.shape, in_mask.shape)
        raise InvalidArgument("observed, statistics, in_mask", shapes, "(N,), (S, N) and (S, N)")
    if np.isnan(observed).any() or np.isnan(statistics).any():
        raise InvalidArgument("observed, statistics", "NaN", "a number for each row")
    if not (in_mask.any(axis=0) & (~in_mask).any(axis=0)).all():
        raise InvalidArgument("in_mask", "a row that is always in, or never", "rows in some models and out of others")
    ins, outs = (np.where(side, statistics, np.nan) for side in (in_mask, ~in_mask))
    mean_in, mean_out = np.nanmean(ins, axis=0), np.nanmean(outs, axis=0)
    sd_in, sd_out = (max(float(np.nanstd(s - m)), MIN_DISTANCE) for s, m in ((ins, mean_in), (outs, mean_out)))
    return np.asarray(norm.logpdf(observed, mean_in, sd_in) - norm.logpdf(observed, mean_out, sd_out))


# ── The attack on a similarity filter (Ganev and De Cristofaro, arXiv:2312.05114; claim C5.3-4) ──
#     s(x) = log r_1(x) - log r_k(x),     r_k the distance from x to the k-th nearest synthetic row
#
# Where synthetic rows are dense around x (small r_k) but none is close to it (large r_1), a training row was filtered.


def similarity_filter(synthetic: Array, train: Array, radius: float) -> Array:
    """Synthetic rows (M, d) without those nearer than `radius` to a training row (N, d)."""
    if not radius > 0:
        raise InvalidArgument("radius", radius, "a distance above 0")
    return synthetic[knn_distances(synthetic, train)[:, 0] >= radius]


def hole_score(candidates: Array, synthetic: Array, *, k: int = HOLE_NEIGHBORS) -> Array:
    """Array (N,) of holes: the distance to the nearest synthetic row (M, d), relative to their local density."""
    logs = _log_distances(candidates, synthetic, k)
    return np.asarray(logs[:, 0] - logs[:, -1])


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
