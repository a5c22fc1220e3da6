"""Independent marginals, the Gaussian copula, the smoothed bootstrap, and SMOTE.

    u_j = Phi(z_j),  x_j = Q_j(u_j),  z ~ N(0, R)                           Nelsen (2006), An Introduction to Copulas

With R = 1 the columns are independent: the floor that every other model has to beat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri
from sklearn.neighbors import NearestNeighbors

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Table, refuse_holdout
from synthbook.core.types import Array, Seed
from synthbook.evaluation.features import fit_table_encoder
from synthbook.evaluation.utility import check_target
from synthbook.generators.base import Tensors, check_positive_int
from synthbook.generators.tabular.base import TableGenerator, TableSpec
from synthbook.generators.tabular.encoding import Marginal, as_numbers, from_numbers, marginals_state, restore_marginals

_LARGEST = 0.98  # correlation of two columns' normal scores, after the correction


class Marginals(TableGenerator):
    """Every column drawn from its own marginal distribution, independently of the others."""

    family = "table-marginals"

    def _fit(self, frame: pd.DataFrame, seed: np.random.SeedSequence, **training: Any) -> None:
        self.marginals_ = [Marginal.of(column, frame[column.name]) for column in self.table_spec_.modeled]

    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        u = self._levels(n, np.random.default_rng(seed))
        return pd.DataFrame(
            {m.column.name: from_numbers(m.column, m.quantile(u[:, j])) for j, m in enumerate(self.marginals_)}
        )

    def _levels(self, n: int, rng: np.random.Generator) -> Array:
        """Levels (n, columns), each uniform."""
        return rng.random((n, len(self.marginals_)))

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        arrays, facts = marginals_state(self.marginals_)
        return arrays, {"margins": facts}

    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        self.marginals_ = restore_marginals(self.table_spec_.modeled, tensors, facts["margins"])


class Copula(Marginals):
    """A Gaussian copula with mixed marginals: numbers, point masses, categories and missing values.

    Nominal categories have no order; they are sorted so that the other columns differ most along it.
    """

    family = "table-copula"

    def _fit(self, frame: pd.DataFrame, seed: np.random.SeedSequence, **training: Any) -> None:
        super()._fit(frame, seed, **training)
        orders = _nominal_orders(self.marginals_, frame)
        self.marginals_ = [
            Marginal.of(m.column, frame[m.column.name], orders.get(m.column.name, ())) for m in self.marginals_
        ]
        self.corr_factor_ = _root(
            latent_correlation(np.stack([m.normal_scores(frame[m.column.name]) for m in self.marginals_], axis=1))
        )

    def _levels(self, n: int, rng: np.random.Generator) -> Array:
        return np.asarray(ndtr(rng.standard_normal((n, len(self.corr_factor_))) @ self.corr_factor_.T))

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        tensors, facts = super()._state()
        return {**tensors, "root": self.corr_factor_}, facts

    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        super()._set_state(tensors, facts)
        self.corr_factor_ = tensors["root"].numpy()


def latent_correlation(scores: Array) -> Array:
    """The correlation (d, d) of the normal variables behind scores (N, d).

    A score s = E[z | its value] has variance v < 1 where values are few, and cov(s_i, s_j) = rho v_i v_j to first order
    in rho: exactly so where one of the two is continuous (Olsson, Drasgow and Dorans 1982, Psychometrika 47, 337).
    """
    spread = scores.var(axis=0)
    varied = spread > 1e-6
    around = (scores - scores.mean(axis=0)) / np.where(varied, spread, 1)
    correlation = np.clip(around.T @ around / len(scores), -_LARGEST, _LARGEST) * np.outer(varied, varied)
    np.fill_diagonal(correlation, 1)
    return np.asarray(correlation)


def _root(correlation: Array) -> Array:
    """A with A A^T the nearest correlation matrix that has no negative eigenvalue (scaled back to a unit diagonal)."""
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.clip(values, 1e-9, None))
    return np.asarray(root / np.linalg.norm(root, axis=1, keepdims=True))


def _nominal_orders(margins: list[Marginal], frame: pd.DataFrame) -> dict[str, tuple[int, ...]]:
    """For each nominal column an order of its categories: that in which the other columns' means differ most."""
    scores = np.stack([margin.normal_scores(frame[margin.column.name]) for margin in margins], axis=1)
    orders: dict[str, tuple[int, ...]] = {}
    for _ in range(2):  # the second time with all columns ordered
        for j, margin in enumerate(margins):
            column = margin.column
            if column.kind != "categorical":
                continue
            others = np.delete(scores, j, axis=1)
            if not others.shape[1]:
                continue
            around = others - others.mean(axis=0)
            codes = as_numbers(column, frame[column.name])
            present, k = ~np.isnan(codes), len(column.categories)
            inside = np.zeros((k, len(codes)))
            inside[codes[present].astype(np.int64), np.flatnonzero(present)] = 1
            counts = inside.sum(axis=1)
            means = inside @ around / np.maximum(counts, 1)[:, None]  # (k, d - 1)
            # the direction between the categories' means: the first principal component of what the column explains
            _, _, axes = np.linalg.svd(means * np.sqrt(counts)[:, None], full_matrices=False)
            orders[column.name] = tuple(int(code) for code in np.argsort(means @ axes[0], kind="stable"))
            scores[:, j] = Marginal.of(column, frame[column.name], orders[column.name]).normal_scores(
                frame[column.name]
            )
    return orders


# ── The smoothed bootstrap ──
#     z' = (z + h eps) / sqrt(1 + h^2)
#
# on each number's normal score, so that the variance stays; a category is now and then drawn anew. The model is its
# training rows: whoever has the file has them.


@dataclass(frozen=True)
class SmoothedBootstrapConfig:
    """`bandwidth` h of the numbers, and the probability that a category is drawn anew from its column's marginal."""

    bandwidth: float = 0.1
    resample_prob: float = 0.05

    def __post_init__(self) -> None:
        if not (self.bandwidth >= 0 and 0 <= self.resample_prob <= 1):
            raise InvalidArgument(
                "bandwidth, resample_prob", (self.bandwidth, self.resample_prob), "h >= 0 and a share from 0 to 1"
            )


class SmoothedBootstrap(Marginals):
    """Training rows, shaken; with bandwidth and resample_prob 0 it copies them."""

    family, config_class = "table-bootstrap", SmoothedBootstrapConfig

    def _fit(self, frame: pd.DataFrame, seed: np.random.SeedSequence, **training: Any) -> None:
        super()._fit(frame, seed, **training)
        self.rows_ = np.stack([as_numbers(column, frame[column.name]) for column in self.table_spec_.modeled], axis=1)

    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        rng, h = np.random.default_rng(seed), self.config.bandwidth
        rows = self.rows_[rng.integers(len(self.rows_), size=n)]
        columns = {}
        for j, margin in enumerate(self.marginals_):
            column, shaken = margin.column, rows[:, j]
            if column.categories:
                shaken = np.where(rng.random(n) < self.config.resample_prob, margin.quantile(rng.random(n)), shaken)
            elif h > 0:
                z = ndtri(margin.distributional_transform(from_numbers(column, shaken), rng))
                shaken = margin.quantile(ndtr((z + h * rng.standard_normal(n)) / np.sqrt(1 + h**2)))
            columns[column.name] = from_numbers(column, shaken)
        return pd.DataFrame(columns)

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        tensors, facts = super()._state()
        return {**tensors, "rows": self.rows_}, facts

    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        super()._set_state(tensors, facts)
        self.rows_ = tensors["rows"].numpy()


# ── SMOTE: interpolation between neighbors ──
#     x = x_i + u (x_j - x_i),  u ~ U(0, 1),  x_j one of the k nearest rows of the same class
#
# Categories come from either of the two rows, at random. Every new row lies between two real ones: the class is made
# larger, not wider.


def smote(table: Table, n: int, *, target: str, value: str, seed: Seed, k_neighbors: int = 5) -> Table:
    """Draw `n` new rows with `value` in the column `target`; nearness is that of the table's standardized features.

    A missing value stays missing where the first row has it so, or the second. Raises `HoldoutError`,
    `InvalidArgument` when fewer than two rows have the value, `SchemaError`.
    """
    refuse_holdout(table, "interpolating rows")
    column = check_target(table.schema, target)
    if value not in column.categories:
        raise InvalidArgument("value", value, column.allowed_values)
    for name, number in (("n", n), ("k_neighbors", k_neighbors)):
        check_positive_int(name, number)
    frame = table.frame
    few = frame[frame[target] == value].reset_index(drop=True)
    if len(few) < 2:
        raise InvalidArgument("value", f"{value!r}, which {len(few)} rows have", "a value that at least 2 rows have")
    rng, layout = np.random.default_rng(seed), TableSpec.of(table)
    x = fit_table_encoder(table)(Table(few, table.schema))
    near = NearestNeighbors(n_neighbors=min(k_neighbors + 1, len(few))).fit(x).kneighbors(x, return_distance=False)
    first = rng.integers(len(few), size=n)
    other = near[first, rng.integers(1, near.shape[1], size=n)]
    second = np.where(other == first, near[first, 0], other)  # a row with a twin may not be its own nearest
    share = rng.random(n)
    columns = {}
    for modeled in layout.modeled:
        numbers = as_numbers(modeled, few[modeled.name])
        a, b = numbers[first], numbers[second]
        values = np.where(rng.random(n) < 0.5, a, b) if modeled.categories else a + share * (b - a)
        columns[modeled.name] = from_numbers(modeled, values)
    rows = layout.completed(pd.DataFrame(columns), 1)
    broken = np.flatnonzero(~layout.satisfies_rules(rows))
    rows.iloc[broken] = layout.completed(few.iloc[first[broken]], 1)  # a rule between the two: the first row itself
    for identity in (c.name for c in table.schema.columns if c.kind == "id"):
        rows[identity] = np.arange(1, n + 1)
    return Table(rows, table.schema)
