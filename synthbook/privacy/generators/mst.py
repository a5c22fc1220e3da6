"""Private tables by counting: measure some margins with noise, and draw rows that have them.

    independent   every column's counts at once: one Gaussian mechanism of L2 sensitivity sqrt(columns)
    tree          counts of single columns, then of pairs that make a tree, each chosen by the exponential mechanism for
                  what single columns leave unsaid; McKenna et al. 2021 (MST), arXiv:2108.04978
    target        the tree, and every column with the one that matters most to you: p(x | parent, target) is the table
                  of largest entropy that has all three pairs' counts

Whoever is in the data moves one cell of each table of counts by 1. All that follows the counts, clipping, fitting and
drawing, is post-processing, and free.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Table
from synthbook.generators.tabular.base import Layout, Tensors, Training, child
from synthbook.generators.tabular.encoding import Array
from synthbook.privacy.generators.base import NOISE, PrivateConfig, PrivateTable, Terms
from synthbook.privacy.generators.discretize import Cells, Codes
from synthbook.privacy.mechanisms import choice, gaussian_sigma, zcdp_rho

# ── Noisy counts, and tables that agree with them (McKenna et al. 2021, arXiv:2108.04978) ──
# pair       the table nearest to the noisy counts whose rows and columns have the single columns' shares
# triangle   p(a, b, c) with the pairs' tables (a, b), (a, c), (b, c) and the largest entropy: start with ones, and
#            scale it to each pair in turn (Deming and Stephan 1940)


SWEEPS = 100  # of proportional fitting
FLOOR = 1e-4  # share of independence in a pair's table: no cell that single columns allow is ruled out
CodesOfColumns = NDArray[np.int64]


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


def merging(counts: Array, least: float) -> CodesOfColumns:
    """A new code (cells,) for each cell: those with fewer than `least` noisy counts share the last one."""
    rare = counts < least
    if rare.sum() < 2:
        return np.arange(len(counts))
    codes = np.cumsum(~rare) - 1
    return np.where(rare, (~rare).sum(), codes).astype(np.int64)


def spread(code_of: CodesOfColumns, counts: Array) -> Array:
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


def draw(tables: Array, given: CodesOfColumns, rng: np.random.Generator) -> CodesOfColumns:
    """A cell (N,) from row `given` (N,) of each conditional table (combinations, cells)."""
    below = np.cumsum(tables, axis=1)[given]  # (N, cells)
    found = (rng.random(len(given))[:, None] * below[:, -1:] >= below).sum(axis=1)
    cells: CodesOfColumns = np.minimum(found, tables.shape[1] - 1)
    return cells


# ── Noisy marginals and MST ──


SINGLES, CHOICES = 0.1, 0.2  # shares of the budget; pairs have the rest
RARE = 3.0  # times the noise: cells with less are counted as one
EXPECTED = math.sqrt(2 / math.pi)  # E|z| of a standard normal z


class NoisyMargins(PrivateTable):
    """Every column by itself: what all else must beat."""

    family = "private-margins"

    def _learn(self, frame: pd.DataFrame, seed: np.random.SeedSequence, training: Training) -> Terms:
        rng, k = np.random.default_rng(child(seed, NOISE)), self.config.rows_per_entity
        self._set_cells()
        length = k * math.sqrt(len(self.cells_))  # how far an entity moves all counts together
        sigma = 0.0
        if self.config.epsilon < math.inf:
            sigma = gaussian_sigma(self.config.epsilon, self.config.delta, sensitivity=length)
        counts = [noisy(_counted(codes, cells.n), sigma, rng) for codes, cells in self._coded(frame)]
        self.order_ = tuple(range(len(counts)))
        self.parents_: tuple[tuple[int, ...], ...] = ((),) * len(counts)
        self.tables_ = [shares(one)[None] for one in counts]
        return self._terms("analytic Gaussian mechanism", steps=1, noise=sigma / length, clip=length)

    def _set_cells(self) -> None:
        self.cells_ = tuple(Cells.of(column) for column in self.layout_.modelled)

    def _coded(self, frame: pd.DataFrame) -> list[tuple[Codes, Cells]]:
        return [(cells.codes(frame[cells.column.name]), cells) for cells in self.cells_]

    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        rng, codes = np.random.default_rng(seed), dict[int, Codes]()
        for j in self.order_:
            given = np.zeros(n, dtype=np.int64)
            for parent in self.parents_[j]:
                given = given * self.cells_[parent].n + codes[parent]
            codes[j] = draw(self.tables_[j], given, rng)
        return pd.DataFrame({cells.column.name: cells.values(codes[j], rng) for j, cells in enumerate(self.cells_)})

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        tensors = {f"table/{j}": table for j, table in enumerate(self.tables_)}
        return tensors, {"order": list(self.order_), "parents": [list(above) for above in self.parents_]}

    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        self._set_cells()
        self.order_, self.parents_ = tuple(facts["order"]), tuple(tuple(above) for above in facts["parents"])
        self.tables_ = [tensors[f"table/{j}"].numpy() for j in range(len(self.cells_))]


@dataclass(frozen=True, kw_only=True)
class MstConfig(PrivateConfig):
    """`target`: the column whose ties with all others are measured; without one, the tree's alone."""

    target: str | None = None


@dataclass(frozen=True)
class Noise:
    """The noise of counts of single columns and of pairs, and the epsilon of each choice."""

    single: float
    paired: float
    choosing: float

    @classmethod
    def of(cls, config: MstConfig, *, singles: int, pairs: int, choices: int) -> Noise:
        """rho = k^2 / (2 sigma^2) for each table of counts, epsilon^2 / 8 for each choice; together they spend it."""
        if config.epsilon == math.inf:
            return cls(0.0, 0.0, math.inf)
        rho, k = zcdp_rho(config.epsilon, config.delta), config.rows_per_entity
        choosing = CHOICES if choices else 0.0
        single = k * math.sqrt(singles / (2 * rho * SINGLES))
        paired = k * math.sqrt(max(pairs, 1) / (2 * rho * (1 - SINGLES - choosing)))
        return cls(single, paired, math.sqrt(8 * rho * CHOICES / choices) if choices else math.inf)


class Mst(NoisyMargins):
    """A tree of measured pairs; with a `target`, triangles with it. After `fit`: `pairs_`, names of those measured."""

    family, settings = "mst", MstConfig

    def _check(self, table: Table, n: int, steps: int | None) -> None:
        names = [column.name for column in Layout.of(table, public_only=True).modelled]
        if self.config.target not in (None, *names):
            raise InvalidArgument("target", self.config.target, f"one of {', '.join(names)}")

    def _learn(self, frame: pd.DataFrame, seed: np.random.SeedSequence, training: Training) -> Terms:
        rng = np.random.default_rng(child(seed, NOISE))
        self._set_cells()
        names = [cells.column.name for cells in self.cells_]
        hub = names.index(self.config.target) if self.config.target in names else None
        leaves = [j for j in range(len(names)) if j != hub]
        spokes = [] if hub is None else [(j, hub) for j in leaves]
        choices = max(len(leaves) - 1, 0)
        noise = Noise.of(self.config, singles=len(names), pairs=choices + len(spokes), choices=choices)

        coded = self._coded(frame)
        counts = [noisy(_counted(codes, cells.n), noise.single, rng) for codes, cells in coded]
        merged = [merging(one, RARE * noise.single) for one in counts]
        short = [code_of[codes] for code_of, (codes, _) in zip(merged, coded, strict=True)]
        single = [shares(np.bincount(code_of, one).astype(float)) for code_of, one in zip(merged, counts, strict=True)]
        total = max(float(np.mean([one.sum() for one in counts])), 1.0)

        edges = self._tree(leaves, short, single, total, noise, rng)
        pairs = {}
        for a, b in [*edges, *spokes]:
            measured = noisy(_counted_pair(short[a], short[b], single[a], single[b]), noise.paired, rng)
            pairs[a, b] = raked(shares(measured, total), single[a], single[b])
            pairs[b, a] = pairs[a, b].T
        dealt = [spread(code_of, one) for code_of, one in zip(merged, counts, strict=True)]
        self._arrange(hub, leaves, edges, pairs, single, dealt)
        self.pairs_ = [(names[a], names[b]) for a, b in [*edges, *spokes]]
        looks = len(names) + len(edges) + len(spokes) + choices
        k = self.config.rows_per_entity
        said = (
            f"zCDP: {len(counts)} counts of columns (noise {noise.single:.4g}), {choices} choices (epsilon"
            f" {noise.choosing:.4g}), {len(edges + spokes)} counts of pairs (noise {noise.paired:.4g})"
        )
        return self._terms(said, steps=looks, noise=noise.paired / k, clip=k)

    def _tree(
        self,
        leaves: list[int],
        short: list[Codes],
        single: list[Array],
        total: float,
        noise: Noise,
        rng: np.random.Generator,
    ) -> list[tuple[int, int]]:
        """Edges that join all leaves: each time one of those between what is joined and what is not.

        A pair's score is the L1 distance of its counts from independence, less what noise alone would add: who is in
        the data moves it by at most as many rows as it has.
        """
        score = {}
        for a, b in combinations(leaves, 2):
            counts = _counted_pair(short[a], short[b], single[a], single[b])
            unsaid = np.abs(counts - total * np.outer(single[a], single[b])).sum()
            score[a, b] = float(unsaid - EXPECTED * noise.paired * counts.size)
        joined, edges = {leaves[0]} if leaves else set(), list[tuple[int, int]]()
        while len(joined) < len(leaves):
            open_ = [(a, b) for a, b in score if (a in joined) != (b in joined)]
            scores = np.array([score[pair] for pair in open_])
            picked = choice(scores, noise.choosing, rng, sensitivity=self.config.rows_per_entity)
            a, b = open_[picked]
            edges.append((a, b) if a in joined else (b, a))
            joined |= {a, b}
        return edges

    def _arrange(
        self,
        hub: int | None,
        leaves: list[int],
        edges: list[tuple[int, int]],
        pairs: Mapping[tuple[int, int], Array],
        single: list[Array],
        dealt: list[Array],
    ) -> None:
        """What is drawn first, on what each column hangs, and its table of p(column | those), in all its cells."""
        parent = {b: a for a, b in edges}
        first = [] if hub is None else [hub]
        self.order_ = (*first, *leaves[:1], *(b for _, b in edges))
        parents, tables = dict[int, tuple[int, ...]](), dict[int, Array]()
        for j in self.order_:
            above = tuple(p for p in (parent.get(j), hub if j != hub else None) if p is not None)
            if len(above) == 2:
                joint = triangle(pairs[above], pairs[above[0], j], pairs[above[1], j])
                joint = np.einsum("abc,ax,by,cz->xyz", joint, dealt[above[0]], dealt[above[1]], dealt[j], optimize=True)
            elif above:
                joint = dealt[above[0]].T @ pairs[above[0], j] @ dealt[j]
            else:
                joint = single[j] @ dealt[j]
            parents[j], tables[j] = above, conditional(joint)
        self.parents_ = tuple(parents[j] for j in range(len(parents)))
        self.tables_ = [tables[j] for j in range(len(tables))]


def _counted(codes: Codes, cells: int) -> Array:
    return np.bincount(codes, minlength=cells).astype(float)


def _counted_pair(a: Codes, b: Codes, of_a: Array, of_b: Array) -> Array:
    flat = np.bincount(a * len(of_b) + b, minlength=len(of_a) * len(of_b))
    return flat.reshape(len(of_a), len(of_b)).astype(float)
