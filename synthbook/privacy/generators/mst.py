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
from synthbook.core.types import Array, child_seed
from synthbook.generators.base import Tensors
from synthbook.generators.tabular.base import TableSpec
from synthbook.privacy.generators.base import NOISE, PrivacyConfig, PrivacyGuarantee, PrivateTableGenerator
from synthbook.privacy.generators.discretize import Codes, Discretizer
from synthbook.privacy.mechanisms import exponential_mechanism, gaussian_sigma, zcdp_rho

# ── Noisy counts, and tables that agree with them (McKenna et al. 2021, arXiv:2108.04978) ──
# pair       the table nearest to the noisy counts whose rows and columns have the single columns' shares
# triangle   p(a, b, c) with the pairs' tables (a, b), (a, c), (b, c) and the largest entropy: start with ones, and
#            scale it to each pair in turn (Deming and Stephan 1940)


_IPF_ITERATIONS = 100  # of proportional fitting
INDEPENDENCE_WEIGHT = 1e-4  # share of independence in a pair's table: no cell that single columns allow is ruled out
_CodesOfColumns = NDArray[np.int64]


def measure(counts: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Counts with Gaussian noise of that size."""
    return counts + sigma * rng.standard_normal(counts.shape)


def project_to_simplex(counts: Array, total: float | None = None) -> Array:
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


def ipf(table: Array, rows: Array, columns: Array) -> Array:
    """A table of shares (a, b) scaled until its rows and columns have these shares (a,), (b,)."""
    fitted = (1 - INDEPENDENCE_WEIGHT) * table + INDEPENDENCE_WEIGHT * np.outer(rows, columns)
    for _ in range(_IPF_ITERATIONS):
        fitted = fitted * _over(rows, fitted.sum(axis=1))[:, None]
        fitted = fitted * _over(columns, fitted.sum(axis=0))
    return fitted


def ipf_three_way(ab: Array, ac: Array, bc: Array) -> Array:
    """p(a, b, c) of largest entropy with these tables of shares, which agree on single columns."""
    p = np.ones((*ab.shape, ac.shape[1])) / (ab.size * ac.shape[1])
    for _ in range(_IPF_ITERATIONS):
        p = p * _over(ab, p.sum(axis=2))[:, :, None]
        p = p * _over(ac, p.sum(axis=1))[:, None, :]
        p = p * _over(bc, p.sum(axis=0))[None, :, :]
    found: Array = p / p.sum()
    return found


def _over(wanted: Array, found: Array) -> Array:
    return np.divide(wanted, found, out=np.zeros_like(found), where=found > 0)


def compress_domain(counts: Array, least: float) -> _CodesOfColumns:
    """A new code (cells,) for each cell: those with fewer than `least` noisy counts share the last one."""
    rare = counts < least
    if rare.sum() < 2:
        return np.arange(len(counts))
    codes = np.cumsum(~rare) - 1
    return np.where(rare, (~rare).sum(), codes).astype(np.int64)


def undo_compress(code_of: _CodesOfColumns, counts: Array) -> Array:
    """(merged, cells): how a merged cell's rows are dealt out again, by what little the noisy counts say."""
    weight = np.maximum(counts, 0.0) + 1e-9
    dealt: Array = np.zeros((code_of.max() + 1, len(code_of)))
    dealt[code_of, np.arange(len(code_of))] = weight
    found: Array = dealt / dealt.sum(axis=1, keepdims=True)
    return found


def conditional_table(joint: Array) -> Array:
    """p(last | the others) as a table (combinations of the others, last); where nothing is, the last one's shares."""
    flat = joint.reshape(-1, joint.shape[-1])
    alone = flat.sum(axis=0) / flat.sum()
    totals = flat.sum(axis=1, keepdims=True)
    return np.where(totals > 0, flat / np.where(totals > 0, totals, 1), alone)


def sample_conditional(tables: Array, given: _CodesOfColumns, rng: np.random.Generator) -> _CodesOfColumns:
    """A cell (N,) from row `given` (N,) of each conditional table (combinations, cells)."""
    below = np.cumsum(tables, axis=1)[given]  # (N, cells)
    found = (rng.random(len(given))[:, None] * below[:, -1:] >= below).sum(axis=1)
    cells: _CodesOfColumns = np.minimum(found, tables.shape[1] - 1)
    return cells


# ── Noisy marginals and MST ──


_ONE_WAY_SHARE, _SELECTION_SHARE = 0.1, 0.2  # shares of the budget; pairs have the rest
_COMPRESS_THRESHOLD = 3.0  # times the noise: cells with less are counted as one
_MEAN_ABS_NORMAL = math.sqrt(2 / math.pi)  # E|z| of a standard normal z


class IndependentMarginals(PrivateTableGenerator):
    """Every column by itself: what all else must beat."""

    family = "private-margins"

    def _learn(self, frame: pd.DataFrame, seed: np.random.SeedSequence, **training: Any) -> PrivacyGuarantee:
        rng, k = np.random.default_rng(child_seed(seed, NOISE)), self.config.max_rows_per_entity
        self._set_cells()
        length = k * math.sqrt(len(self.discretizers_))  # how far an entity moves all counts together
        sigma = 0.0
        if self.config.epsilon < math.inf:
            sigma = gaussian_sigma(self.config.epsilon, self.config.delta, sensitivity=length)
        counts = [measure(_counted(codes, cells.n), sigma, rng) for codes, cells in self._coded(frame)]
        self.order_ = tuple(range(len(counts)))
        self.parents_: tuple[tuple[int, ...], ...] = ((),) * len(counts)
        self.conditionals_ = [project_to_simplex(one)[None] for one in counts]
        return self._guarantee("analytic Gaussian mechanism", steps=1, noise=sigma / length, clip=length)

    def _set_cells(self) -> None:
        self.discretizers_ = tuple(Discretizer.from_column(column) for column in self.table_spec_.modeled)

    def _coded(self, frame: pd.DataFrame) -> list[tuple[Codes, Discretizer]]:
        return [(cells.codes(frame[cells.column.name]), cells) for cells in self.discretizers_]

    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        rng, codes = np.random.default_rng(seed), dict[int, Codes]()
        for j in self.order_:
            given = np.zeros(n, dtype=np.int64)
            for parent in self.parents_[j]:
                given = given * self.discretizers_[parent].n + codes[parent]
            codes[j] = sample_conditional(self.conditionals_[j], given, rng)
        return pd.DataFrame(
            {cells.column.name: cells.values(codes[j], rng) for j, cells in enumerate(self.discretizers_)}
        )

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        tensors = {f"table/{j}": table for j, table in enumerate(self.conditionals_)}
        return tensors, {"order": list(self.order_), "parents": [list(above) for above in self.parents_]}

    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        self._set_cells()
        self.order_, self.parents_ = tuple(facts["order"]), tuple(tuple(above) for above in facts["parents"])
        self.conditionals_ = [tensors[f"table/{j}"].numpy() for j in range(len(self.discretizers_))]


@dataclass(frozen=True, kw_only=True)
class MstConfig(PrivacyConfig):
    """`target`: the column whose ties with all others are measured; without one, the tree's alone."""

    target: str | None = None


@dataclass(frozen=True)
class MstNoise:
    """The noise of counts of single columns and of pairs, and the epsilon of each choice."""

    single: float
    paired: float
    choosing: float

    @classmethod
    def allocate(cls, config: MstConfig, *, singles: int, pairs: int, choices: int) -> MstNoise:
        """rho = k^2 / (2 sigma^2) for each table of counts, epsilon^2 / 8 for each choice; together they spend it."""
        if config.epsilon == math.inf:
            return cls(0.0, 0.0, math.inf)
        rho, k = zcdp_rho(config.epsilon, config.delta), config.max_rows_per_entity
        choosing = _SELECTION_SHARE if choices else 0.0
        single = k * math.sqrt(singles / (2 * rho * _ONE_WAY_SHARE))
        paired = k * math.sqrt(max(pairs, 1) / (2 * rho * (1 - _ONE_WAY_SHARE - choosing)))
        return cls(single, paired, math.sqrt(8 * rho * _SELECTION_SHARE / choices) if choices else math.inf)


class Mst(IndependentMarginals):
    """A tree of measured pairs; with a `target`, triangles with it. After `fit`: `pairs_`, names of those measured."""

    family, config_class = "mst", MstConfig

    def _check(self, table: Table, n: int, steps: int | None) -> None:
        names = [column.name for column in TableSpec.of(table, public_only=True).modeled]
        if self.config.target not in (None, *names):
            raise InvalidArgument("target", self.config.target, f"one of {', '.join(names)}")

    def _learn(self, frame: pd.DataFrame, seed: np.random.SeedSequence, **training: Any) -> PrivacyGuarantee:
        rng = np.random.default_rng(child_seed(seed, NOISE))
        self._set_cells()
        names = [cells.column.name for cells in self.discretizers_]
        hub = names.index(self.config.target) if self.config.target in names else None
        leaves = [j for j in range(len(names)) if j != hub]
        spokes = [] if hub is None else [(j, hub) for j in leaves]
        choices = max(len(leaves) - 1, 0)
        noise = MstNoise.allocate(self.config, singles=len(names), pairs=choices + len(spokes), choices=choices)

        coded = self._coded(frame)
        counts = [measure(_counted(codes, cells.n), noise.single, rng) for codes, cells in coded]
        merged = [compress_domain(one, _COMPRESS_THRESHOLD * noise.single) for one in counts]
        short = [code_of[codes] for code_of, (codes, _) in zip(merged, coded, strict=True)]
        single = [
            project_to_simplex(np.bincount(code_of, one).astype(float))
            for code_of, one in zip(merged, counts, strict=True)
        ]
        total = max(float(np.mean([one.sum() for one in counts])), 1.0)

        edges = self._tree(leaves, short, single, total, noise, rng)
        pairs = {}
        for a, b in [*edges, *spokes]:
            measured = measure(_counted_pair(short[a], short[b], single[a], single[b]), noise.paired, rng)
            pairs[a, b] = ipf(project_to_simplex(measured, total), single[a], single[b])
            pairs[b, a] = pairs[a, b].T
        dealt = [undo_compress(code_of, one) for code_of, one in zip(merged, counts, strict=True)]
        self._arrange(hub, leaves, edges, pairs, single, dealt)
        self.pairs_ = [(names[a], names[b]) for a, b in [*edges, *spokes]]
        looks = len(names) + len(edges) + len(spokes) + choices
        k = self.config.max_rows_per_entity
        said = (
            f"zCDP: {len(counts)} counts of columns (noise {noise.single:.4g}), {choices} choices (epsilon"
            f" {noise.choosing:.4g}), {len(edges + spokes)} counts of pairs (noise {noise.paired:.4g})"
        )
        return self._guarantee(said, steps=looks, noise=noise.paired / k, clip=k)

    def _tree(
        self,
        leaves: list[int],
        short: list[Codes],
        single: list[Array],
        total: float,
        noise: MstNoise,
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
            score[a, b] = float(unsaid - _MEAN_ABS_NORMAL * noise.paired * counts.size)
        joined, edges = {leaves[0]} if leaves else set(), list[tuple[int, int]]()
        while len(joined) < len(leaves):
            open_ = [(a, b) for a, b in score if (a in joined) != (b in joined)]
            scores = np.array([score[pair] for pair in open_])
            picked = exponential_mechanism(scores, noise.choosing, rng, sensitivity=self.config.max_rows_per_entity)
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
                joint = ipf_three_way(pairs[above], pairs[above[0], j], pairs[above[1], j])
                joint = np.einsum("abc,ax,by,cz->xyz", joint, dealt[above[0]], dealt[above[1]], dealt[j], optimize=True)
            elif above:
                joint = dealt[above[0]].T @ pairs[above[0], j] @ dealt[j]
            else:
                joint = single[j] @ dealt[j]
            parents[j], tables[j] = above, conditional_table(joint)
        self.parents_ = tuple(parents[j] for j in range(len(parents)))
        self.conditionals_ = [tables[j] for j in range(len(tables))]


def _counted(codes: Codes, cells: int) -> Array:
    return np.bincount(codes, minlength=cells).astype(float)


def _counted_pair(a: Codes, b: Codes, of_a: Array, of_b: Array) -> Array:
    flat = np.bincount(a * len(of_b) + b, minlength=len(of_a) * len(of_b))
    return flat.reshape(len(of_a), len(of_b)).astype(float)
