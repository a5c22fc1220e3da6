"""Precision, recall, density and coverage: how real synthetic rows look, and how much of reality they reach.

Each row gets a ball that ends at its k-th nearest neighbour among the rows of its own set. A row counts as inside
only when it is strictly nearer than that, so a row with k twins or more has an empty ball. Rows are compared in blocks:
memory never grows with the product of the two sample sizes.

Kynkäänniemi et al., arXiv:1904.06991 (precision, recall); Naeem et al., arXiv:2002.09797 (density, coverage).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array, checked

TIE = 1e-9  # squared distances that differ by less, relatively, are equal: rounding alone can part them


@dataclass(frozen=True)
class PRDC:
    """Four scores with what they depend on. Without `k` and both numbers of rows none of them means anything."""

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


def prdc(real: ArrayLike, synthetic: ArrayLike, *, k: int = 5, memory_mib: float = 16) -> PRDC:
    """Score `synthetic` (M, d) against `real` (N, d) by the balls around each row's k nearest neighbours.

    precision: share of synthetic rows inside any real ball;  recall: share of real rows inside any synthetic ball;
    density: balls around real rows that a synthetic row lies in, mean over synthetic rows, over k;
    coverage: share of real balls with a synthetic row inside.
    A block of distances takes `memory_mib` MiB. Raises `InvalidArgument` for NaN, infinities, other columns, or a set
    of k rows or fewer.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InvalidArgument("k", k, "a whole number of at least 1")
    if not memory_mib > 0:
        raise InvalidArgument("memory_mib", memory_mib, "a number of MiB above 0")
    x, y = _scaled(*checked(least=k + 1, real=real, synthetic=synthetic))
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
    """E[coverage] of m rows from the very distribution of n real ones: 1 - prod_j (n - j) / (n + m - j), j = 1 ... k.

    It holds in every dimension for every continuous distribution. Expected density is 1; precision has no such value.
    """
    if not (k >= 1 and n > k and m >= 1):
        raise InvalidArgument("k", k, f"a whole number from 1 to n - 1 = {n - 1}, with m >= 1 rows")
    j = np.arange(1, k + 1)
    return float(1 - np.prod((n - j) / (n + m - j)))


def copied_coverage(n: int, copies: int, k: int = 5) -> float:
    """E[coverage] of `copies` distinct ones of n real rows, at random: 1 - C(n - k, copies) / C(n, copies)."""
    if not (k >= 1 and n > k and 0 <= copies <= n):
        raise InvalidArgument("copies", copies, f"a number from 0 to n = {n}, with 1 <= k < n")
    # C(n - k, copies) / C(n, copies) = C(n - copies, k) / C(n, k)
    j = np.arange(k)
    return float(1 - np.prod((n - copies - j) / (n - j)))


class _Balls:
    """A ball around every row of `centres` (N, d), up to its k-th nearest neighbour.

    Squared distances come from one matrix product, |x - y|^2 = |x|^2 - 2 x.y + |y|^2, whose rounding error stays below
    `error`. Where the radius is so small that this could matter, differences are taken one by one: twins are at 0.
    """

    def __init__(self, centres: Array, k: int, cells: int):
        self.centres, self.cells = centres, cells
        self.origin = centres.mean(axis=0)
        n, d = centres.shape
        norm = ((centres - self.origin) ** 2).sum(axis=1)  # (N,)
        error = 8 * (d + 8) * np.finfo(float).eps
        self.radius2 = np.concatenate([_kth(block, k) for _, block in self._products(centres)])
        self.close = self.radius2 * TIE < 8 * error * (norm + self.radius2)
        for rows in _blocks(np.flatnonzero(self.close), cells // n):
            self.radius2[rows] = _kth(cdist(centres[rows], centres, "sqeuclidean"), k)

    def contain(self, points: Array) -> Iterator[np.ndarray]:
        """Yield, block by block of `points` (M, d), whether each lies in each ball: bool (block, N)."""
        limit = self.radius2 * (1 - TIE / 2)
        exact = np.flatnonzero(self.close & (self.radius2 > 0))  # an empty ball holds nothing, however it is measured
        for rows, block in self._products(points):
            inside = block < np.where(self.close, -np.inf, limit)
            if len(exact):
                inside[:, exact] = cdist(points[rows], self.centres[exact], "sqeuclidean") < limit[exact]
            yield inside

    def _products(self, points: Array) -> Iterator[tuple[np.ndarray, Array]]:
        n = len(self.centres)
        y = self.centres - self.origin
        right = np.vstack([-2 * y.T, np.ones(n), (y**2).sum(axis=1)])  # (d + 2, N)
        size = min(max(1, self.cells // n), len(points))
        out = np.empty((size, n))
        for rows in _blocks(np.arange(len(points)), size):
            x = points[rows] - self.origin
            left = np.column_stack([x, (x**2).sum(axis=1), np.ones(len(x))])  # (block, d + 2)
            yield rows, np.matmul(left, right, out=out[: len(x)])


def _kth(squared: Array, k: int) -> Array:
    """The k-th smallest of each row besides the row's distance to itself, which is 0 and so the smallest."""
    squared.partition(k, axis=1)
    return np.maximum(squared[:, k], 0)


def _blocks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    size = max(1, size)
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _scaled(x: Array, y: Array) -> tuple[Array, Array]:
    """Both arrays divided by one power of two, which changes no comparison and keeps squares from overflowing."""
    _, exponent = np.frexp(max(np.abs(x).max(), np.abs(y).max()))
    return np.ldexp(x, -exponent), np.ldexp(y, -exponent)
