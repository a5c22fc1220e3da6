"""Noisy counts, and tables that agree with them: what a tree of margins is made of. McKenna et al. 2021, 2108.04978.

pair       the table nearest to the noisy counts whose rows and columns have the single columns' shares
triangle   p(a, b, c) with the pairs' tables (a, b), (a, c), (b, c) and the largest entropy: start with ones, and
           scale it to each pair in turn (Deming and Stephan 1940)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synthbook.models.tabular.values import Array

SWEEPS = 100  # of proportional fitting
FLOOR = 1e-4  # share of independence in a pair's table: no cell that single columns allow is ruled out
Codes = NDArray[np.int64]


def noisy(counts: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Counts with Gaussian noise of that size."""
    return counts + sigma * rng.standard_normal(counts.shape)


def shares(counts: Array, total: float | None = None) -> Array:
    """The nearest table of shares: counts (...) projected onto those that are not negative and sum to their total.

    Projection lowers all cells by one number and cuts at 0, so that noise in empty cells does not add up to rows.
    """
    flat = counts.ravel()
    total = max(flat.sum() if total is None else total, 1.0)
    falling = np.sort(flat)[::-1]
    excess = (np.cumsum(falling) - total) / np.arange(1, len(flat) + 1)
    lowered = excess[np.flatnonzero(falling > excess)[-1]]
    kept: Array = np.maximum(counts - lowered, 0.0)
    found: Array = kept / kept.sum()
    return found


def raked(table: Array, rows: Array, columns: Array) -> Array:
    """A table of shares (a, b) scaled until its rows and columns have these shares (a,), (b,)."""
    fitted = (1 - FLOOR) * table + FLOOR * np.outer(rows, columns)
    for _ in range(SWEEPS):
        fitted = fitted * _over(rows, fitted.sum(axis=1))[:, None]
        fitted = fitted * _over(columns, fitted.sum(axis=0))
    return fitted


def triangle(ab: Array, ac: Array, bc: Array) -> Array:
    """p(a, b, c) of largest entropy with these tables of shares, which agree on single columns."""
    p = np.ones((*ab.shape, ac.shape[1])) / (ab.size * ac.shape[1])
    for _ in range(SWEEPS):
        p = p * _over(ab, p.sum(axis=2))[:, :, None]
        p = p * _over(ac, p.sum(axis=1))[:, None, :]
        p = p * _over(bc, p.sum(axis=0))[None, :, :]
    found: Array = p / p.sum()
    return found


def _over(wanted: Array, found: Array) -> Array:
    return np.divide(wanted, found, out=np.zeros_like(found), where=found > 0)


def merging(counts: Array, least: float) -> Codes:
    """A new code (cells,) for each cell: those with fewer than `least` noisy counts share the last one."""
    rare = counts < least
    if rare.sum() < 2:
        return np.arange(len(counts))
    codes = np.cumsum(~rare) - 1
    return np.where(rare, (~rare).sum(), codes).astype(np.int64)


def spread(code_of: Codes, counts: Array) -> Array:
    """(merged, cells): how a merged cell's rows are dealt out again, by what little the noisy counts say."""
    weight = np.maximum(counts, 0.0) + 1e-9
    dealt: Array = np.zeros((code_of.max() + 1, len(code_of)))
    dealt[code_of, np.arange(len(code_of))] = weight
    found: Array = dealt / dealt.sum(axis=1, keepdims=True)
    return found


def conditional(joint: Array) -> Array:
    """p(last | the others) as a table (combinations of the others, last); where nothing is, the last one's shares."""
    flat = joint.reshape(-1, joint.shape[-1])
    alone = flat.sum(axis=0) / flat.sum()
    totals = flat.sum(axis=1, keepdims=True)
    return np.where(totals > 0, flat / np.where(totals > 0, totals, 1), alone)


def draw(tables: Array, given: Codes, rng: np.random.Generator) -> Codes:
    """A cell (N,) from row `given` (N,) of each conditional table (combinations, cells)."""
    below = np.cumsum(tables, axis=1)[given]  # (N, cells)
    found = (rng.random(len(given))[:, None] * below[:, -1:] >= below).sum(axis=1)
    cells: Codes = np.minimum(found, tables.shape[1] - 1)
    return cells
