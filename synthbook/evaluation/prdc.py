"""Precision, recall, density and coverage: fidelity and diversity of synthetic samples.

Each row has a ball that ends at its k-th nearest neighbor within its own set. A row lies inside only if it is strictly
nearer, so the ball of a row with k duplicates is empty. Distances are computed in blocks, so memory does not grow with
the product of the sample sizes.

Kynkäänniemi et al., arXiv:1904.06991 (precision, recall); Naeem et al., arXiv:2002.09797 (density, coverage).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array, check_arrays

TIE = 1e-9  # squared distances that differ by less, relatively, count as equal: rounding can separate ties


@dataclass(frozen=True)
class PRDC:
    """Precision, recall, density and coverage, with `k` and the numbers of rows, on which they depend."""

    precision: float
    recall: float
    density: float
    coverage: float
    k: int
    n_real: int
    n_synthetic: int

    def __str__(self) -> str:
        fidelity = f"precision {self.precision:.3f}, recall {self.recall:.3f}"
        diversity = f"density {self.density:.3f}, coverage {self.coverage:.3f}"
        return f"{fidelity}, {diversity} (k = {self.k}, {self.n_real} real and {self.n_synthetic} synthetic rows)"


def prdc(synthetic: ArrayLike, *, real: ArrayLike, k: int = 5, memory_mib: float = 16) -> PRDC:
    """Score `synthetic` (M, d) against `real` (N, d) by the balls around each row's k nearest neighbors.

    precision: fraction of synthetic rows inside any real ball;
    recall: fraction of real rows inside any synthetic ball;
    density: balls around real rows that a synthetic row lies in, mean over synthetic rows, over k;
    coverage: fraction of real balls with a synthetic row inside.
    A block of distances takes `memory_mib` MiB. Raises `InvalidArgument` for NaN, infinities, other columns, or a set
    of k rows or fewer.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InvalidArgument("k", k, "an integer of at least 1")
    if not memory_mib > 0:
        raise InvalidArgument("memory_mib", memory_mib, "a number of MiB above 0")
    x, y = _scale_by_power_of_two(*check_arrays(least=k + 1, real=real, synthetic=synthetic))
    cells = int(memory_mib * 2**20 / 8)
    balls = _Balls(x, k, cells)
    hits, covered, precise = 0, np.zeros(len(x), dtype=bool), 0
    for inside in balls.contain(y):  # (rows of the block, N)
        hits += int(np.count_nonzero(inside))
        precise += int(np.count_nonzero(inside.any(axis=1)))
        covered |= inside.any(axis=0)
    recalled = sum(int(np.count_nonzero(inside.any(axis=1))) for inside in _Balls(y, k, cells).contain(x))
    return PRDC(
        precision=precise / len(y),
        recall=recalled / len(x),
        density=hits / (k * len(y)),
        coverage=float(covered.mean()),
        k=int(k),
        n_real=len(x),
        n_synthetic=len(y),
    )


def expected_coverage(n: int, m: int, k: int = 5) -> float:
    """Expected coverage of m rows from the distribution of n real ones: 1 - prod_{j=1..k} (n - j) / (n + m - j).

    Holds in every dimension for every continuous distribution. Expected density is 1; precision has no such value.
    Raises `InvalidArgument`.
    """
    if not (k >= 1 and n > k and m >= 1):
        raise InvalidArgument("k", k, f"an integer from 1 to n - 1 = {n - 1}, with m >= 1 rows")
    j = np.arange(1, k + 1)
    return float(1 - np.prod((n - j) / (n + m - j)))


def expected_coverage_of_copies(n: int, copies: int, k: int = 5) -> float:
    """Expected coverage of distinct copies of n real rows: 1 - C(n - k, copies) / C(n, copies).

    `copies` of the real rows are drawn at random without replacement. Raises `InvalidArgument`.
    """
    if not (k >= 1 and n > k and 0 <= copies <= n):
        raise InvalidArgument("copies", copies, f"an integer from 0 to n = {n}, with 1 <= k < n")
    # C(n - k, copies) / C(n, copies) = C(n - copies, k) / C(n, k)
    j = np.arange(k)
    return float(1 - np.prod((n - copies - j) / (n - j)))


class _Balls:
    """A ball around each row of `centers` (N, d), up to its k-th nearest neighbor.

    Squared distances come from one matrix product, |x - y|^2 = |x|^2 - 2 x.y + |y|^2, whose rounding error stays below
    `error`. Where the radius is too small for that, differences are computed directly, so duplicates are at distance 0.
    """

    def __init__(self, centers: Array, k: int, cells: int):
        self.centers, self.cells = centers, cells
        self.origin = centers.mean(axis=0)
        n, d = centers.shape
        norm = ((centers - self.origin) ** 2).sum(axis=1)  # (N,)
        error = 8 * (d + 8) * np.finfo(float).eps
        self.radius2 = np.concatenate([_kth(block, k) for _, block in self._products(centers)])
        self.close = self.radius2 * TIE < 8 * error * (norm + self.radius2)
        for rows in _blocks(np.flatnonzero(self.close), cells // n):
            self.radius2[rows] = _kth(cdist(centers[rows], centers, "sqeuclidean"), k)

    def contain(self, points: Array) -> Iterator[np.ndarray]:
        """Yield for each block of `points` (M, d) whether they lie in each ball: bool (block, N)."""
        limit = self.radius2 * (1 - TIE / 2)
        exact = np.flatnonzero(self.close & (self.radius2 > 0))  # an empty ball contains nothing
        for rows, block in self._products(points):
            inside = block < np.where(self.close, -np.inf, limit)
            if len(exact):
                inside[:, exact] = cdist(points[rows], self.centers[exact], "sqeuclidean") < limit[exact]
            yield inside

    def _products(self, points: Array) -> Iterator[tuple[np.ndarray, Array]]:
        n = len(self.centers)
        y = self.centers - self.origin
        right = np.vstack([-2 * y.T, np.ones(n), (y**2).sum(axis=1)])  # (d + 2, N)
        size = min(max(1, self.cells // n), len(points))
        out = np.empty((size, n))
        for rows in _blocks(np.arange(len(points)), size):
            x = points[rows] - self.origin
            left = np.column_stack([x, (x**2).sum(axis=1), np.ones(len(x))])  # (block, d + 2)
            yield rows, np.matmul(left, right, out=out[: len(x)])


def _kth(squared: Array, k: int) -> Array:
    """k-th smallest of each row besides the distance to itself, which is 0 and the smallest."""
    squared.partition(k, axis=1)
    return np.maximum(squared[:, k], 0)


def _blocks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    size = max(1, size)
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _scale_by_power_of_two(x: Array, y: Array) -> tuple[Array, Array]:
    """Both arrays divided by one power of two, which changes no comparison and avoids overflow of squares."""
    _, exponent = np.frexp(max(np.abs(x).max(), np.abs(y).max()))
    return np.ldexp(x, -exponent), np.ldexp(y, -exponent)
