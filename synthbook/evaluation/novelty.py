"""Novelty: are synthetic rows nearer to the training rows than to held-out rows?

Fidelity, diversity and utility can all be had by copying the training table; a holdout from the same distribution
reveals it. We find each synthetic row's nearest neighbor in the pooled real rows; without memorization it is a training
row half of the time.

The band around 0.5 is not binomial: synthetic rows that share a nearest neighbor are not independent, they count on one
side. Without memorization the labels "training" and "held-out" are exchangeable, so the band comes from permuting them.
A share inside its band is no proof of privacy: see claim C5.3-3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.stats import mannwhitneyu

from synthbook.core.types import Array, Seed, check_arrays, subsample
from synthbook.evaluation.inference import Z_BAND

_N_PERMUTATIONS = 400  # they give the standard deviation to 4 %
_ROUNDING = 1e-12  # squared distances that differ by less, relative to the squared norms, are ties
BLOCK = 4_000_000  # distances held in memory at once, 8 bytes each


@dataclass(frozen=True)
class NoveltyResult:
    """Nearness of synthetic rows to training rows, compared with as many held-out rows.

    `dcr_share`: fraction of synthetic rows nearer to a training row than to a held-out one, ties counted half, with its
    standard deviation `sd` and 99.9 % band [low, high] under the permutation null. `n_copies`: synthetic rows that
    repeat a training row; `expected_copies`: as often as held-out rows do; `null_copies`, `max_copies`: mean and upper
    end under the null, given how many synthetic rows repeat any real row (so the count alone detects about 11 different
    copied rows). `membership_auc`: AUC of the distance to the nearest synthetic row as a score for training against
    held-out rows, at most `membership_auc_high` by chance. `n_train` rows of each were used; `subsampled` names the one
    that was cut to that size, or "".
    """

    dcr_share: float
    sd: float
    low: float
    high: float
    n_copies: int
    expected_copies: float
    null_copies: float
    max_copies: float
    membership_auc: float
    membership_auc_high: float
    n_synthetic: int
    n_train: int
    subsampled: str

    @property
    def suspicious(self) -> bool:
        """Whether any of the three metrics lies above what chance explains."""
        return (
            self.dcr_share > self.high
            or self.n_copies > self.max_copies
            or self.membership_auc > self.membership_auc_high
        )

    def __str__(self) -> str:
        cut = f" ({self.subsampled} cut to that size)" if self.subsampled else ""
        return (
            f"DCR share {self.dcr_share:.3f} of {self.n_synthetic} rows ({self.low:.3f} to {self.high:.3f} "
            f"by chance), {self.n_copies} exact copies ({self.expected_copies:.1f} expected), membership AUC "
            f"{self.membership_auc:.3f}, against {self.n_train} training and {self.n_train} held-out rows{cut}: "
            + ("suspicious" if self.suspicious else "nothing suspicious")
        )


def novelty(synthetic: ArrayLike, *, train: ArrayLike, holdout: ArrayLike, seed: Seed) -> NoveltyResult:
    """Compare the distances of synthetic rows (M, d) to training rows (N, d) and to held-out rows.

    The larger of train and holdout is subsampled to the size of the smaller. Distances are Euclidean. Needs two
    training and two held-out rows. Raises `InvalidArgument`.
    """
    (s,) = check_arrays(1, synthetic=synthetic)
    t, h, _ = check_arrays(2, train=train, holdout=holdout, synthetic=np.repeat(s, 2, axis=0)[:2])
    rng, n = np.random.default_rng(seed), min(len(t), len(h))
    subsampled = "train" if len(t) > n else "holdout" if len(h) > n else ""
    t, h = subsample(t, n, rng), subsample(h, n, rng)
    s, pool = _center_and_scale(s, np.concatenate([t, h]))
    real_rows, index = np.unique(pool, axis=0, return_inverse=True)  # distinct rows; (2n,) the row of each
    synthetic_rows, counts = np.unique(s, axis=0, return_counts=True)
    # column 0 is the actual labeling, the others are permutations
    is_train = np.repeat([True, False], n)
    labels = np.column_stack([is_train] + [rng.permutation(is_train) for _ in range(_N_PERMUTATIONS)])
    members = csr_array((np.ones(2 * n), (index, np.arange(2 * n))), shape=(len(real_rows), 2 * n))
    # (distinct rows, permutations): does a row occur in training, in the holdout?
    in_train, in_holdout = (members @ side.astype(np.float32) > 0 for side in (labels, ~labels))
    (nearest, squared), equal = _nearest(synthetic_rows, real_rows), _equal(synthetic_rows, real_rows)
    shares = counts @ ((nearest @ in_train > 0) + 1.0 - (nearest @ in_holdout > 0)) / 2 / len(s)
    copies = counts @ (equal @ in_train)
    expected = len(s) * float((in_train & in_holdout)[index[n:], 0].mean())
    sd = float(np.sqrt(((shares[1:] - 0.5) ** 2).mean()))
    # (2n,), rounded to float32, so that distances that differ by rounding are ties
    score = -squared[index].astype(np.float32).astype(np.float64)
    u = mannwhitneyu(score[:n], score[n:], method="asymptotic").statistic
    return NoveltyResult(
        dcr_share=float(shares[0]),
        sd=sd,
        low=max(0.5 - Z_BAND * sd, 0.0),
        high=min(0.5 + Z_BAND * sd, 1.0),
        n_copies=int(copies[0]),
        expected_copies=expected,
        null_copies=float(copies[1:].mean()),
        max_copies=float(copies[1:].mean() + Z_BAND * copies[1:].std()),
        membership_auc=float(u / (n * n)),
        # standard deviation of the Mann-Whitney statistic of two samples of n
        membership_auc_high=0.5 + Z_BAND * float(np.sqrt((2 * n + 1) / (12 * n * n))),
        n_synthetic=len(s),
        n_train=n,
        subsampled=subsampled,
    )


def _center_and_scale(synthetic: Array, pool: Array) -> tuple[Array, Array]:
    """Both arrays shifted and divided by one number: distances keep their order, and rounding a known size."""
    center = np.median(pool, axis=0)  # robust to outliers, so rounding stays small where most rows are
    synthetic, pool = synthetic - center, pool - center
    farthest = float(max(np.abs(synthetic).max(), np.abs(pool).max())) or 1.0
    return synthetic / farthest, pool / farthest


def _nearest(x: Array, y: Array) -> tuple[csr_array, Array]:
    """(M, N) with a 1 where a row of y (N, d) is nearest to one of x (M, d), ties included, and for each row of y the
    squared distance (N,) to its nearest row of x."""
    x2, y2 = (x**2).sum(axis=1), (y**2).sum(axis=1)
    to_nearest = np.full(len(y), np.inf)
    size = max(BLOCK // len(y), 1)
    rows, columns = [], []
    for start in range(0, len(x), size):
        block = slice(start, start + size)
        # |x - y|^2 = |x|^2 + |y|^2 - 2 x'y
        squared = (-2 * x[block]) @ y.T
        squared += y2
        squared += x2[block, None]
        np.minimum(to_nearest, squared.min(axis=0), out=to_nearest)
        smallest = squared.min(axis=1)
        row, column = np.nonzero(squared <= (smallest + _ROUNDING * (2 * x2[block] + np.abs(smallest)))[:, None])
        rows.append(row + start)
        columns.append(column)
    row, column = np.concatenate(rows), np.concatenate(columns)
    nearest = csr_array((np.ones(len(row), np.float32), (row, column)), (len(x), len(y)))
    return nearest, np.where(to_nearest <= 2 * _ROUNDING * y2, 0, to_nearest)


def _equal(x: Array, y: Array) -> csr_array:
    """(M, N) with a 1 where a row of x (M, d) equals one of y (N, d); neither has duplicates."""
    _, code = np.unique(np.concatenate([x, y]), axis=0, return_inverse=True)
    row_of = np.full(code.max() + 1, -1)
    row_of[code[: len(x)]] = np.arange(len(x))
    rows = row_of[code[len(x) :]]  # (N,) the row of x, or -1
    columns = np.flatnonzero(rows >= 0)
    return csr_array((np.ones(len(columns), np.float32), (rows[columns], columns)), (len(x), len(y)))
