"""Is it new? Synthetic rows should be no nearer to the rows a generator learned from than to rows it never saw.

Real, varied and useful can all be had by copying the training table. Only a holdout of the same kind tells a copy
from a likeness: each synthetic row looks for its nearest real row among training and held-out rows mixed, and an
honest generator finds a training row half of the time.

The band around 0.5 is not binomial: synthetic rows that share a nearest real row all fall to the same side. If nothing
was memorised, it does not matter which of the real rows were the training rows; so the band comes from drawing that
division anew, many times. A share inside its band is no proof of privacy: see claim C5.3-3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.stats import rankdata

from synthbook.core.types import Array, Seed, check_arrays, subsample
from synthbook.evaluation.inference import Z_BAND

N_PERMUTATIONS = 400  # random divisions into training and held-out rows; they give the standard deviation to 4 %
ROUNDING = 1e-12  # squared distances that differ by less, relative to the rows' own squared length, are ties
BLOCK = 4_000_000  # distances held in memory at once, 8 bytes each


@dataclass(frozen=True)
class NoveltyResult:
    """Nearness to training rows, measured against as many held-out rows.

    `share` of synthetic rows nearer to a training row than to a held-out one, ties counted half; `sd` its standard
    deviation when nothing was memorised, and [low, high] the 99.9 % band. `copies`: synthetic rows that repeat a
    training row exactly; `copies_expected`: as often as held-out rows do; `copies_by_chance`, `copies_limit`: how many
    chance gives to the training side, and the most that it explains, given how many synthetic rows repeat a training
    or held-out row. So about 11 different rows must be copied before their number alone tells. `membership_auc`: how
    well the distance to the nearest synthetic row tells training rows from held-out ones, 0.5 when not at all, at most
    `auc_high` by chance. `n_train` rows of each were used; `subsampled` names the one that was cut to that size, or "".
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
        """Whether any of the three measures lies above what chance explains."""
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


def novelty(synthetic: ArrayLike, train: ArrayLike, holdout: ArrayLike, *, seed: Seed) -> NoveltyResult:
    """Are synthetic rows (M, d) nearer to the training rows (N, d) than to held-out rows, and do they repeat them?

    The larger of train and holdout is cut to the size of the smaller, and the result says so. Distances are Euclidean
    in the features given. Needs two training and two held-out rows. Raises `InvalidArgument`.
    """
    (s,) = check_arrays(1, synthetic=synthetic)
    t, h, _ = check_arrays(2, train=train, holdout=holdout, synthetic=np.repeat(s, 2, axis=0)[:2])
    rng, n = np.random.default_rng(seed), min(len(t), len(h))
    subsampled = "train" if len(t) > n else "holdout" if len(h) > n else ""
    t, h = subsample(t, n, rng), subsample(h, n, rng)
    s, pool = _scaled(s, np.concatenate([t, h]))
    places, place_of = np.unique(pool, axis=0, return_inverse=True)  # different real rows; (2n,) where each one is
    visitors, visits = np.unique(s, axis=0, return_counts=True)
    # column 0 is the division as it was, the others are drawn anew
    is_train = np.repeat([True, False], n)
    divisions = np.column_stack([is_train] + [rng.permutation(is_train) for _ in range(N_PERMUTATIONS)])
    has_train, has_holdout = (_any_by_place(side, place_of, len(places)) for side in (divisions, ~divisions))
    (nearest, squared), twins = _compare(visitors, places), _twins(visitors, places)
    shares = visits @ ((nearest @ has_train > 0) + 1.0 - (nearest @ has_holdout > 0)) / 2 / len(s)
    copies = visits @ (twins @ has_train)
    expected = len(s) * float((has_train & has_holdout)[place_of[n:], 0].mean())
    sd = float(np.sqrt(((shares[1:] - 0.5) ** 2).mean()))
    return NoveltyResult(
        dcr_share=float(shares[0]),
        sd=sd,
        low=max(0.5 - Z_BAND * sd, 0.0),
        high=min(0.5 + Z_BAND * sd, 1.0),
        n_copies=int(copies[0]),
        expected_copies=expected,
        null_copies=float(copies[1:].mean()),
        max_copies=float(copies[1:].mean() + Z_BAND * copies[1:].std()),
        membership_auc=_membership_auc(squared[place_of], n),
        # standard deviation of the Mann-Whitney statistic of two samples of n
        membership_auc_high=0.5 + Z_BAND * float(np.sqrt((2 * n + 1) / (12 * n * n))),
        n_synthetic=len(s),
        n_train=n,
        subsampled=subsampled,
    )


def _scaled(synthetic: Array, pool: Array) -> tuple[Array, Array]:
    """Both shifted and divided by one number, so that distances keep their order and rounding has a known size."""
    centre = np.median(pool, axis=0)  # far rows do not move it, so rounding stays small where most rows are
    synthetic, pool = synthetic - centre, pool - centre
    farthest = float(max(np.abs(synthetic).max(), np.abs(pool).max())) or 1.0
    return synthetic / farthest, pool / farthest


def _any_by_place(division: NDArray[np.bool_], place_of: NDArray[np.intp], places: int) -> NDArray[np.bool_]:
    """(2n, divisions) by real row into (places, divisions): does any row at this place lie on this side?"""
    rows = csr_array((np.ones(len(place_of)), (place_of, np.arange(len(place_of)))), shape=(places, len(place_of)))
    return np.asarray(rows @ division.astype(np.float32) > 0)


def _compare(visitors: Array, places: Array) -> tuple[csr_array, Array]:
    """Who is nearest to whom: (visitors, places) with a 1 where a place is nearest to a visitor, all that tie; and
    the squared distance (places,) from each place to its nearest visitor."""
    x2, y2 = (visitors**2).sum(axis=1), (places**2).sum(axis=1)
    nearest_visitor = np.full(len(places), np.inf)
    rows, columns = [], []
    for start in range(0, len(visitors), max(BLOCK // len(places), 1)):
        block = slice(start, start + max(BLOCK // len(places), 1))
        # |x - y|^2 = |x|^2 + |y|^2 - 2 x'y
        squared = (-2 * visitors[block]) @ places.T
        squared += y2
        squared += x2[block, None]
        np.minimum(nearest_visitor, squared.min(axis=0), out=nearest_visitor)
        smallest = squared.min(axis=1)
        row, column = np.nonzero(squared <= (smallest + ROUNDING * (2 * x2[block] + np.abs(smallest)))[:, None])
        rows.append(row + start)
        columns.append(column)
    row, column = np.concatenate(rows), np.concatenate(columns)
    nearest = csr_array((np.ones(len(row), np.float32), (row, column)), (len(visitors), len(places)))
    return nearest, np.where(nearest_visitor <= 2 * ROUNDING * y2, 0, nearest_visitor)


def _twins(visitors: Array, places: Array) -> csr_array:
    """(visitors, places) with a 1 where both are the same row; each holds no row twice."""
    _, number = np.unique(np.concatenate([visitors, places]), axis=0, return_inverse=True)
    row_of = np.full(number.max() + 1, -1)
    row_of[number[: len(visitors)]] = np.arange(len(visitors))
    rows = row_of[number[len(visitors) :]]  # for each place the visitor that equals it, or -1
    columns = np.flatnonzero(rows >= 0)
    return csr_array((np.ones(len(columns), np.float32), (rows[columns], columns)), (len(visitors), len(places)))


def _membership_auc(squared: Array, n: int) -> float:
    """How often one of the first n distances (2n,) is smaller than one of the others, ties counted half."""
    ranks = rankdata(-squared.astype(np.float32))  # equal but for rounding is equal
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * n))
