"""Two tables, column by column and pair by pair.

Marginals: how far each column's values have moved. Dependence: how strongly each pair of columns goes together, in the
real and in the synthetic table. Ids and free text are not compared; a missing value is a category of its own in a
column of categories, and in other columns its share is reported beside the distance.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import norm, rankdata, t, wasserstein_distance

from synthbook.core.errors import InvalidArgument, SchemaError
from synthbook.core.plots import BLACK, BLUE, VERMILLION, new_axes
from synthbook.core.table import Column, Holdout, Table
from synthbook.core.types import Array
from synthbook.evaluation.features import TableEncoder, column_to_float
from synthbook.evaluation.frechet import frechet_distance
from synthbook.evaluation.inference import Z_BAND
from synthbook.evaluation.prdc import prdc

Codes = NDArray[np.int64]


def check_tables(**tables: object) -> list[Column]:
    """The columns to compare, all but ids and text; raise unless the named tables hold rows and the same columns.

    Bounds may differ; names, kinds and categories may not. Raises `InvalidArgument`, `SchemaError`.
    """
    checked: dict[str, Table] = {}
    for name, table in tables.items():
        if not isinstance(table, Table):
            hint = "; of a Holdout, give its data" if isinstance(table, Holdout) else ""
            raise InvalidArgument(name, type(table).__name__, f"a Table{hint}")
        if len(table) == 0:
            raise InvalidArgument(name, "a table without rows", "a table with at least one row")
        checked[name] = table
    (first, one), *others = checked.items()
    for name, other in others:
        if one.schema.names != other.schema.names:
            raise SchemaError(f"{first} has the columns {one.schema.names}, {name} has {other.schema.names}")
        for a, b in zip(one.schema.columns, other.schema.columns, strict=True):
            if (a.kind, a.categories) != (b.kind, b.categories):
                raise SchemaError(f"column {a.name!r}: {first} and {name} declare different kinds or categories")
    columns = [column for column in one.schema.columns if column.kind not in ("id", "text")]
    if not columns:
        raise SchemaError("the tables hold nothing but ids and text, which are not compared")
    return columns


def _codes(table: Table, column: Column) -> Codes:
    """Position of each category; one more for a missing value."""
    codes = table[column.name].cat.codes.to_numpy(dtype=np.int64)
    return np.where(codes < 0, len(column.categories), codes)


def marginal_distances(real: Table, synthetic: Table) -> pd.DataFrame:
    """How far each column has moved: one row for each, with `column`, `kind`, `measure`, `distance`, `missing`.

    Categories: total variation, the share of rows that would have to change, missing values counted as a category.
    Numbers, ordered categories and dates: Wasserstein distance of the values present in units of the real standard
    deviation; infinite, with a warning, where the real column is constant and the synthetic one is not the same, or
    where only one of them has values. `missing`: synthetic share of missing values minus the real one. Raises
    `InvalidArgument`, `SchemaError`.
    """
    rows = []
    for column in check_tables(real=real, synthetic=synthetic):
        if column.kind == "categorical":
            measure, distance = "total variation", _total_variation(*(_codes(t, column) for t in (real, synthetic)))
        else:
            x, y = (column_to_float(column, table[column.name]) for table in (real, synthetic))
            measure, distance = "Wasserstein / real sd", _wasserstein(x, y, column.name)
        missing = float(synthetic[column.name].isna().mean() - real[column.name].isna().mean())
        rows.append((column.name, column.kind, measure, distance, missing))
    return pd.DataFrame(rows, columns=["column", "kind", "measure", "distance", "missing"])


def _total_variation(real: Codes, synthetic: Codes) -> float:
    size = int(max(real.max(), synthetic.max())) + 1
    p, q = (np.bincount(codes, minlength=size) / len(codes) for codes in (real, synthetic))
    # TV = 1/2 sum |p - q|
    return float(np.abs(p - q).sum() / 2)


def _wasserstein(real: Array, synthetic: Array, name: str) -> float:
    x, y = real[~np.isnan(real)], synthetic[~np.isnan(synthetic)]
    if len(x) == 0 and len(y) == 0:
        return 0.0
    if len(x) == 0 or len(y) == 0:
        which = "real" if len(x) == 0 else "synthetic"
        warnings.warn(f"column {name!r}: all {which} values are missing; the distance is infinite", stacklevel=3)
        return float("inf")
    distance, spread = float(wasserstein_distance(x, y)), float(x.std())
    if distance > 0 and spread <= 1e-12 * np.abs(x).max():
        warnings.warn(f"column {name!r} is constant in the real table; the distance is infinite", stacklevel=3)
        return float("inf")
    return distance / spread if distance > 0 else 0.0


@dataclass(frozen=True)
class Dependence:
    """Association of every pair of `columns`: `real`, `synthetic` and `error` = |real - synthetic|, each (p, p).

    Two numbers: Spearman's rank correlation, from -1 to 1. Number and category: correlation ratio of the ranks, 0 to 1.
    Two categories: Cramer's V, 0 to 1. The last two are corrected for what chance adds.
    """

    columns: tuple[str, ...]
    real: Array
    synthetic: Array
    error: Array

    @property
    def mean_error(self) -> float:
        """Mean error over all pairs of different columns; NaN for a single column."""
        pairs = np.triu_indices(len(self.columns), k=1)
        return float(self.error[pairs].mean()) if len(pairs[0]) else float("nan")

    @property
    def worst(self) -> tuple[str, str, float]:
        """The pair whose association is most wrong, and by how much."""
        upper = np.triu(self.error, k=1)
        i, j = np.unravel_index(int(upper.argmax()), upper.shape)
        return self.columns[i], self.columns[j], float(self.error[i, j])

    def __str__(self) -> str:
        first, second, error = self.worst
        return f"mean error of association {self.mean_error:.3f}; worst pair {first} and {second}, {error:.3f}"


def dependence(real: Table, synthetic: Table) -> Dependence:
    """Pairwise associations of both tables and the error of the synthetic ones.

    A pair in which a column does not vary has association 0, with a warning. Missing numbers leave the pairs they
    are in; missing categories are a category. Needs two rows. Raises `InvalidArgument`, `SchemaError`.
    """
    columns = check_tables(real=real, synthetic=synthetic)
    for name, table in (("real", real), ("synthetic", synthetic)):
        if len(table) < 2:
            raise InvalidArgument(name, "a table with 1 row", "at least 2 rows, for there to be an association")
    r, s = (_associations(table, columns, name) for table, name in ((real, "real"), (synthetic, "synthetic")))
    return Dependence(tuple(column.name for column in columns), r, s, np.abs(r - s))


def _associations(table: Table, columns: list[Column], name: str) -> Array:
    named = [column.kind == "categorical" for column in columns]
    values = [
        _codes(table, column) if is_named else column_to_float(column, table[column.name])
        for column, is_named in zip(columns, named, strict=True)
    ]
    flat = [c.name for c, v in zip(columns, values, strict=True) if len(np.unique(v[v == v])) < 2]
    if flat:
        warnings.warn(f"{name} columns that do not vary have association 0: {', '.join(flat)}", stacklevel=3)
    matrix = np.eye(len(columns))
    for i, j in combinations(range(len(columns)), 2):
        a, b = (i, j) if named[j] else (j, i)  # of a mixed pair, the number comes first
        matrix[i, j] = matrix[j, i] = _MEASURES[named[a], named[b]](values[a], values[b])
    return matrix


def _spearman(x: Array, y: Array) -> float:
    both = ~(np.isnan(x) | np.isnan(y))
    if both.sum() < 2:
        return 0.0
    a, b = (rankdata(v[both]) for v in (x, y))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / scale) if scale > 0 else 0.0


def _correlation_ratio(x: Array, codes: Codes) -> float:
    present = ~np.isnan(x)
    n = int(present.sum())
    groups, group = np.unique(codes[present], return_inverse=True)
    if n < 2 or len(groups) in (1, n):
        return 0.0
    ranks = rankdata(x[present])
    ranks -= ranks.mean()
    total = float((ranks**2).sum())
    between = float((np.bincount(group, ranks) ** 2 / np.bincount(group)).sum())
    # epsilon^2 = 1 - (1 - eta^2)(n - 1)/(n - k)
    return float(np.sqrt(max(1 - (1 - between / total) * (n - 1) / (n - len(groups)), 0.0))) if total > 0 else 0.0


def _cramers_v(x: Codes, y: Codes) -> float:
    (a, i), (b, j) = (np.unique(codes, return_inverse=True) for codes in (x, y))
    n, r, k = len(x), len(a), len(b)
    if min(r, k) < 2:
        return 0.0
    p = np.bincount(i * k + j, minlength=r * k).reshape(r, k) / n
    expected = np.outer(p.sum(axis=1), p.sum(axis=0))
    phi2 = float(((p - expected) ** 2 / expected).sum())
    # Bergsma, Journal of the Korean Statistical Society 42:323 (2013)
    phi2 = max(phi2 - (r - 1) * (k - 1) / (n - 1), 0.0)
    smaller = min(r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)) - 1
    return float(min(np.sqrt(phi2 / smaller), 1.0)) if smaller > 0 else 0.0


_MEASURES: dict[tuple[bool, bool], Callable[..., float]] = {
    (False, False): _spearman,
    (False, True): _correlation_ratio,
    (True, True): _cramers_v,
}


def plot_dependence(dep: Dependence, ax: Axes | None = None) -> Axes:
    """Heat map of the error of every pair; white is right."""
    size = 2.5 + 0.32 * len(dep.columns)
    ax = new_axes(ax, width=size + 1, height=size)
    image = ax.imshow(dep.error, cmap="Greys", vmin=0, vmax=max(float(dep.error.max()), 0.1))
    places = np.arange(len(dep.columns))
    ax.set_xticks(places, dep.columns, rotation=90)
    ax.set_yticks(places, dep.columns)
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label="|real - synthetic association|", shrink=0.8)
    return ax


def plot_marginal_distances(distances: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """One mark for each column's distance, the farthest at the top: circles are Wasserstein, squares total variation.

    A distance that is infinite is drawn at the right edge as a cross.
    """
    ax = new_axes(ax, height=1.2 + 0.3 * len(distances))
    ordered = distances.sort_values("distance", kind="stable").reset_index(drop=True)
    finite = np.isfinite(ordered["distance"])
    edge = 1.1 * max(float(ordered["distance"][finite].max()) if finite.any() else 0.0, 0.1)
    for measure, colour, marker in (("Wasserstein / real sd", BLUE, "o"), ("total variation", VERMILLION, "s")):
        rows = ordered[finite & (ordered["measure"] == measure)]
        ax.plot(rows["distance"], rows.index, marker, color=colour, markersize=6, label=measure)
    if not finite.all():
        ax.plot(
            [edge] * int((~finite).sum()), ordered.index[~finite], "x", color=BLACK, label="infinite", clip_on=False
        )
    ax.set_yticks(range(len(ordered)), ordered["column"])
    ax.set(xlabel="distance from the real column", xlim=(0, edge))
    ax.legend(frameon=False)
    return ax


# ── Reference values: what fresh real rows score ──
# Half of the holdout plays a perfect generator. If synthetic rows came from the same source as real ones, it would not
# matter which of the pooled real rows were called training rows and which the generator's; so the pool is divided anew
# many times, each division is measured, and the measures give a mean and a band.


N_PERMUTATIONS = 20
FARTHEST = 10.0  # sds: a column that is constant in the real cut and not in the other would be infinitely far


@dataclass(frozen=True)
class FeatureSubset:
    """Some rows as a table and as features (N, d)."""

    table: Table
    features: Array

    def take(self, rows: np.ndarray) -> FeatureSubset:
        """The rows at these positions."""
        return FeatureSubset(Table(self.table.frame.iloc[rows], self.table.schema), self.features[rows])

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def categories(self) -> set[tuple[str, str]]:
        """The (column, category) pairs that occur."""
        return observed_categories(self.table)


def observed_categories(table: Table) -> set[tuple[str, str]]:
    """The (column, category) pairs that occur in a table."""
    named = [column.name for column in table.schema.columns if column.categories]
    return {(name, str(value)) for name in named for value in table[name].dropna().unique()}


def subsample_rows(table: Table, features: TableEncoder, n: int, rng: np.random.Generator) -> FeatureSubset:
    """At most `n` rows of a table, picked at random, in their old order."""
    picked = np.sort(rng.permutation(len(table))[:n])
    cut = Table(table.frame.iloc[picked], table.schema)
    return FeatureSubset(cut, features(cut))


def fidelity_metrics(real: FeatureSubset, synthetic: FeatureSubset) -> dict[str, float]:
    """Every measure that needs no model, of synthetic against real rows."""
    score = prdc(real.features, synthetic.features)
    lost = real.categories - synthetic.categories
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # columns that do not vary in this cut; what they measure is still defined
        moved, pairs = marginal_distances(real.table, synthetic.table), dependence(real.table, synthetic.table)
        distance = frechet_distance(real.features, synthetic.features)
    found = {
        "precision": score.precision,
        "density": score.density,
        "Fréchet distance": abs(distance),
        "marginal distance": float(moved["distance"].clip(upper=FARTHEST).mean()),
        "dependence error": pairs.mean_error,
        "recall": score.recall,
        "coverage": score.coverage,
        "categories lost": len(lost) / len(real.categories) if real.categories else 0.0,
    }
    return {name: value for name, value in found.items() if not np.isnan(value)}  # one column has no pairs


@dataclass(frozen=True)
class ReferenceBand:
    """Mean of a measure over divisions of real rows, and where one more of them lies 999 times of 1,000."""

    mean: float
    low: float
    high: float


def reference_bands(
    real: FeatureSubset, fresh: FeatureSubset, rng: np.random.Generator, *, n_permutations: int = N_PERMUTATIONS
) -> dict[str, ReferenceBand]:
    """Measure `n_permutations` random divisions of the pooled real rows into as many "real" and "synthetic" ones."""
    pool = FeatureSubset(
        Table(pd.concat([real.table.frame, fresh.table.frame], ignore_index=True), real.table.schema),
        np.concatenate([real.features, fresh.features]),
    )
    found = []
    for _ in range(n_permutations):
        order = rng.permutation(len(pool))
        found.append(fidelity_metrics(pool.take(order[: len(real)]), pool.take(order[len(real) :])))
    draws = pd.DataFrame(found)  # (divisions, measures)
    # one more draw: mean +- t sd sqrt(1 + 1/B), B - 1 degrees of freedom
    reach = t.isf(norm.sf(Z_BAND), n_permutations - 1) * draws.std(ddof=1) * np.sqrt(1 + 1 / n_permutations)
    if real.categories:  # categories come in whole numbers: one more may always be missing
        reach["categories lost"] = max(reach["categories lost"], 1.5 / len(real.categories))
    centre, width = draws.mean().to_dict(), reach.to_dict()
    return {str(name): ReferenceBand(m, max(m - width[name], 0.0), m + width[name]) for name, m in centre.items()}
