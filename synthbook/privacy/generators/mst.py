"""Private tables by counting: measure marginals with noise, and sample rows that have them.

    independent   one-way marginals of all columns at once: a Gaussian mechanism of L2 sensitivity sqrt(columns)
    MST           one-way marginals, then two-way marginals along a spanning tree whose edges the exponential mechanism
                  selects by their distance from independence; McKenna et al. 2021, arXiv:2108.04978
    with target   MST, and every column's two-way marginal with the target: p(x | parent, target) is the table of
                  largest entropy that has all three two-way marginals

A record changes one count of each marginal by 1. What follows the measurements is post-processing, and spends nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array, child_seed
from synthbook.generators.base import Tensors
from synthbook.generators.tabular.base import TableSpec
from synthbook.privacy.generators.base import NOISE_STREAM, PrivacyConfig, PrivacyGuarantee, PrivateTableGenerator
from synthbook.privacy.generators.discretize import Codes, Discretizer
from synthbook.privacy.mechanisms import exponential_mechanism, gaussian_sigma, zcdp_rho

# ── From noisy counts to consistent tables of probabilities ──

_IPF_ITERATIONS = 100
INDEPENDENCE_WEIGHT = 1e-4  # of independence in a two-way marginal: it rules out no pair that one-way marginals allow


def measure(counts: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Counts with Gaussian noise of standard deviation sigma."""
    return counts + sigma * rng.standard_normal(counts.shape)


def project_to_simplex(counts: Array, total: float | None = None) -> Array:
    """Probabilities (...) from the Euclidean projection of counts (...) onto nonnegative ones with the same total.

    The projection subtracts one number from all counts and clips at 0, so that noise in empty cells adds no rows.
    """
    flat = counts.ravel()
    total = max(flat.sum() if total is None else total, 1.0)
    falling = np.sort(flat)[::-1]
    excess = (np.cumsum(falling) - total) / np.arange(1, len(flat) + 1)
    threshold = excess[np.flatnonzero(falling > excess)[-1]]
    projected: Array = np.maximum(counts - threshold, 0.0)
    return np.asarray(projected / projected.sum())


def ipf(table: Array, rows: Array, columns: Array) -> Array:
    """Iterative proportional fitting: scale probabilities (a, b) until their marginals are `rows` and `columns`."""
    fitted = (1 - INDEPENDENCE_WEIGHT) * table + INDEPENDENCE_WEIGHT * np.outer(rows, columns)
    for _ in range(_IPF_ITERATIONS):
        fitted = fitted * _ratio(rows, fitted.sum(axis=1))[:, None]
        fitted = fitted * _ratio(columns, fitted.sum(axis=0))
    return fitted


def ipf_three_way(ab: Array, ac: Array, bc: Array) -> Array:
    """p(a, b, c) of largest entropy with these two-way marginals, by IPF from a uniform table (Deming, Stephan 1940).

    The marginals must agree on single columns.
    """
    p = np.ones((*ab.shape, ac.shape[1])) / (ab.size * ac.shape[1])
    for _ in range(_IPF_ITERATIONS):
        p = p * _ratio(ab, p.sum(axis=2))[:, :, None]
        p = p * _ratio(ac, p.sum(axis=1))[:, None, :]
        p = p * _ratio(bc, p.sum(axis=0))[None, :, :]
    return np.asarray(p / p.sum())


def _ratio(goal: Array, current: Array) -> Array:
    return np.divide(goal, current, out=np.zeros_like(current), where=current > 0)


def compress_domain(counts: Array, threshold: float) -> Codes:
    """A new code (bins,) for each bin: those with noisy counts below the threshold share the last one."""
    rare = counts < threshold
    if rare.sum() < 2:
        return np.arange(len(counts))
    codes = np.cumsum(~rare) - 1
    return np.where(rare, (~rare).sum(), codes).astype(np.int64)


def undo_compress(code_of: Codes, counts: Array) -> Array:
    """p(bin | code) (codes, bins): how rows of a compressed code spread over its bins, by their noisy counts."""
    weights = np.maximum(counts, 0.0) + 1e-9
    expansion: Array = np.zeros((code_of.max() + 1, len(code_of)))
    expansion[code_of, np.arange(len(code_of))] = weights
    return np.asarray(expansion / expansion.sum(axis=1, keepdims=True))


def conditional_table(joint: Array) -> Array:
    """p(last | others) (combinations of the others, last); the marginal of the last where a combination has none."""
    flat = joint.reshape(-1, joint.shape[-1])
    marginal = flat.sum(axis=0) / flat.sum()
    totals = flat.sum(axis=1, keepdims=True)
    return np.where(totals > 0, flat / np.where(totals > 0, totals, 1), marginal)


def sample_conditional(tables: Array, given: Codes, rng: np.random.Generator) -> Codes:
    """Sample a bin (N,) from row `given` (N,) of each conditional table (combinations, bins)."""
    cumulative = np.cumsum(tables, axis=1)[given]  # (N, bins)
    bins = (rng.random(len(given))[:, None] * cumulative[:, -1:] >= cumulative).sum(axis=1)
    return np.asarray(np.minimum(bins, tables.shape[1] - 1))


def _count_pairs(a: Codes, b: Codes, n_a: int, n_b: int) -> Array:
    return np.bincount(a * n_b + b, minlength=n_a * n_b).reshape(n_a, n_b).astype(float)


# ── The generators ──

_ONE_WAY_SHARE, _SELECTION_SHARE = 0.1, 0.2  # of the budget; two-way marginals have the rest
_COMPRESS_THRESHOLD = 3.0  # times the noise: bins with less are counted as one
_MEAN_ABS_NORMAL = math.sqrt(2 / math.pi)  # E|z| of a standard normal z


class IndependentMarginals(PrivateTableGenerator):
    """Independent one-way marginals, the baseline."""

    family = "private-margins"

    def _learn(self, frame: pd.DataFrame, seed: np.random.SeedSequence, **training: Any) -> PrivacyGuarantee:
        config, rng = self.config, np.random.default_rng(child_seed(seed, NOISE_STREAM))
        self._set_discretizers()
        sensitivity = config.max_rows_per_entity * math.sqrt(len(self.discretizers_))  # L2, of all counts together
        sigma = 0.0
        if config.epsilon < math.inf:
            sigma = gaussian_sigma(config.epsilon, config.delta, sensitivity=sensitivity)
        _, counts = self._measure_one_way(frame, sigma, rng)
        self.order_ = tuple(range(len(counts)))
        self.parents_: tuple[tuple[int, ...], ...] = ((),) * len(counts)
        self.conditionals_ = [project_to_simplex(one)[None] for one in counts]
        return self._guarantee(
            "analytic Gaussian mechanism", steps=1, noise_multiplier=sigma / sensitivity, sensitivity=sensitivity
        )

    def _set_discretizers(self) -> None:
        self.discretizers_ = tuple(Discretizer.from_column(column) for column in self.table_spec_.modeled)

    def _measure_one_way(
        self, frame: pd.DataFrame, sigma: float, rng: np.random.Generator
    ) -> tuple[list[Codes], list[Array]]:
        """The bins (N,) of each column's values, and each column's noisy counts (bins,)."""
        codes = [one.encode(frame[one.column.name]) for one in self.discretizers_]
        exact = [np.bincount(c, minlength=one.n_bins) for c, one in zip(codes, self.discretizers_, strict=True)]
        return codes, [measure(counts.astype(float), sigma, rng) for counts in exact]

    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        rng, codes = np.random.default_rng(seed), dict[int, Codes]()
        for j in self.order_:
            given = np.zeros(n, dtype=np.int64)
            for parent in self.parents_[j]:
                given = given * self.discretizers_[parent].n_bins + codes[parent]
            codes[j] = sample_conditional(self.conditionals_[j], given, rng)
        return pd.DataFrame({one.column.name: one.decode(codes[j], rng) for j, one in enumerate(self.discretizers_)})

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        tensors = {f"table/{j}": table for j, table in enumerate(self.conditionals_)}
        return tensors, {"order": list(self.order_), "parents": [list(parents) for parents in self.parents_]}

    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        self._set_discretizers()
        self.order_, self.parents_ = tuple(facts["order"]), tuple(tuple(parents) for parents in facts["parents"])
        self.conditionals_ = [tensors[f"table/{j}"].numpy() for j in range(len(self.discretizers_))]


@dataclass(frozen=True, kw_only=True)
class MstConfig(PrivacyConfig):
    """`target`: a column whose two-way marginals with all other columns are measured, too."""

    target: str | None = None


@dataclass(frozen=True)
class MstNoise:
    """The noise of one-way and of two-way marginals, and the epsilon of each selected edge."""

    one_way_sigma: float
    two_way_sigma: float
    selection_epsilon: float

    @classmethod
    def allocate(cls, config: MstConfig, *, one_way: int, two_way: int, selections: int) -> MstNoise:
        """Divide the budget: rho = k^2 / (2 sigma^2) for each marginal, epsilon^2 / 8 for each selection."""
        if config.epsilon == math.inf:
            return cls(0.0, 0.0, math.inf)
        rho, k = zcdp_rho(config.epsilon, config.delta), config.max_rows_per_entity
        selection_share = _SELECTION_SHARE if selections else 0.0
        one_way_sigma = k * math.sqrt(one_way / (2 * rho * _ONE_WAY_SHARE))
        two_way_sigma = k * math.sqrt(max(two_way, 1) / (2 * rho * (1 - _ONE_WAY_SHARE - selection_share)))
        epsilon = math.sqrt(8 * rho * _SELECTION_SHARE / selections) if selections else math.inf
        return cls(one_way_sigma, two_way_sigma, epsilon)


class Mst(IndependentMarginals):
    """MST, optionally with a `target`. After `fit`: `pairs_`, the column names of the measured two-way marginals."""

    family, config_class = "mst", MstConfig

    def _check(self, data: Any, n_units: int, steps: int) -> None:
        names = [column.name for column in TableSpec.of(data, public_only=True).modeled]
        if self.config.target not in (None, *names):
            raise InvalidArgument("target", self.config.target, f"one of {', '.join(names)}")

    def _learn(self, frame: pd.DataFrame, seed: np.random.SeedSequence, **training: Any) -> PrivacyGuarantee:
        rng = np.random.default_rng(child_seed(seed, NOISE_STREAM))
        self._set_discretizers()
        names = [one.column.name for one in self.discretizers_]
        target = names.index(self.config.target) if self.config.target in names else None
        columns = [j for j in range(len(names)) if j != target]
        target_pairs = [] if target is None else [(j, target) for j in columns]
        selections = max(len(columns) - 1, 0)
        noise = MstNoise.allocate(
            self.config, one_way=len(names), two_way=selections + len(target_pairs), selections=selections
        )

        codes, counts = self._measure_one_way(frame, noise.one_way_sigma, rng)
        code_of = [compress_domain(one, _COMPRESS_THRESHOLD * noise.one_way_sigma) for one in counts]
        compressed = [new[old] for new, old in zip(code_of, codes, strict=True)]
        marginals = [
            project_to_simplex(np.bincount(new, one).astype(float)) for new, one in zip(code_of, counts, strict=True)
        ]
        expansions = [undo_compress(new, one) for new, one in zip(code_of, counts, strict=True)]
        total = max(float(np.mean([one.sum() for one in counts])), 1.0)

        edges = self._select_tree(columns, compressed, marginals, total, noise, rng)
        two_way = {}
        for a, b in [*edges, *target_pairs]:
            exact = _count_pairs(compressed[a], compressed[b], len(marginals[a]), len(marginals[b]))
            noisy = project_to_simplex(measure(exact, noise.two_way_sigma, rng), total)
            two_way[a, b] = ipf(noisy, marginals[a], marginals[b])
            two_way[b, a] = two_way[a, b].T
        self._set_conditionals(target, columns, edges, marginals, two_way, expansions)
        self.pairs_ = [(names[a], names[b]) for a, b in [*edges, *target_pairs]]
        k, n_pairs = self.config.max_rows_per_entity, len(self.pairs_)
        accountant = (
            f"zCDP: {len(counts)} counts of columns (noise {noise.one_way_sigma:.4g}), {selections} choices (epsilon"
            f" {noise.selection_epsilon:.4g}), {n_pairs} counts of pairs (noise {noise.two_way_sigma:.4g})"
        )
        steps = len(names) + n_pairs + selections
        return self._guarantee(accountant, steps=steps, noise_multiplier=noise.two_way_sigma / k, sensitivity=k)

    def _select_tree(
        self,
        columns: list[int],
        compressed: list[Codes],
        marginals: list[Array],
        total: float,
        noise: MstNoise,
        rng: np.random.Generator,
    ) -> list[tuple[int, int]]:
        """The edges of a spanning tree; each joins a column outside the tree to one inside.

        The score of a pair is the L1 distance of its counts from independence, less what noise alone would add. An
        entity changes it by at most its number of rows.
        """
        score = {}
        for a, b in combinations(columns, 2):
            counts = _count_pairs(compressed[a], compressed[b], len(marginals[a]), len(marginals[b]))
            distance = np.abs(counts - total * np.outer(marginals[a], marginals[b])).sum()
            score[a, b] = float(distance - _MEAN_ABS_NORMAL * noise.two_way_sigma * counts.size)
        joined, edges = {columns[0]} if columns else set(), list[tuple[int, int]]()
        while len(joined) < len(columns):
            candidates = [(a, b) for a, b in score if (a in joined) != (b in joined)]
            scores = np.array([score[pair] for pair in candidates])
            sensitivity = self.config.max_rows_per_entity
            a, b = candidates[exponential_mechanism(scores, noise.selection_epsilon, rng, sensitivity=sensitivity)]
            edges.append((a, b) if a in joined else (b, a))
            joined |= {a, b}
        return edges

    def _set_conditionals(
        self,
        target: int | None,
        columns: list[int],
        edges: list[tuple[int, int]],
        marginals: list[Array],
        two_way: Mapping[tuple[int, int], Array],
        expansions: list[Array],
    ) -> None:
        """The order of sampling, each column's parents, and its p(column | parents), on all bins."""
        parent = {b: a for a, b in edges}
        root = [] if target is None else [target]
        self.order_ = (*root, *columns[:1], *(b for _, b in edges))
        parents_of, tables = dict[int, tuple[int, ...]](), dict[int, Array]()
        for j in self.order_:
            parents = tuple(p for p in (parent.get(j), target if j != target else None) if p is not None)
            if len(parents) == 2:
                a, b = parents
                joint = ipf_three_way(two_way[a, b], two_way[a, j], two_way[b, j])
                joint = np.einsum(
                    "abc,ax,by,cz->xyz", joint, expansions[a], expansions[b], expansions[j], optimize=True
                )
            elif parents:
                joint = expansions[parents[0]].T @ two_way[parents[0], j] @ expansions[j]
            else:
                joint = marginals[j] @ expansions[j]
            parents_of[j], tables[j] = parents, conditional_table(joint)
        self.parents_ = tuple(parents_of[j] for j in range(len(parents_of)))
        self.conditionals_ = [tables[j] for j in range(len(tables))]
