"""Fidelity and diversity of a synthetic table: marginals, pairwise dependence, and reference values of all metrics.

IDs and free text are not compared. A missing value is a category of its own in a categorical column; in other columns
the fraction of missing values is reported beside the distance.
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
from scipy.stats import norm, rankdata, t, wasserstein_distance

from synthbook.core.errors import InvalidArgument, SchemaError
from synthbook.core.plots import BLACK, BLUE, VERMILLION, new_axes
from synthbook.core.table import Codes, Column, Holdout, Table
from synthbook.core.types import Array
from synthbook.evaluation.features import TableEncoder, column_to_float
from synthbook.evaluation.frechet import frechet_distance
from synthbook.evaluation.inference import Z_BAND
from synthbook.evaluation.prdc import prdc


def check_tables(**tables: object) -> list[Column]:
    """Return the columns to compare, all but IDs and text; all tables must have rows and the same columns.

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
        raise SchemaError("no comparable columns: all are IDs or free text")
    return columns


def _codes(table: Table, column: Column) -> Codes:
    """Index of each category; one more for a missing value."""
    codes = table[column.name].cat.codes.to_numpy(dtype=np.int64)
    return np.where(codes < 0, len(column.categories), codes)


def marginal_distances(synthetic: Table, *, real: Table) -> pd.DataFrame:
    """Distance of each marginal from the real one: columns `column`, `kind`, `measure`, `distance`, `missing`.

    Categorical: total variation, with missing values as a category. Numeric, ordinal and dates: Wasserstein distance of
    the values present over the real standard deviation; infinite, with a warning, if the real column is constant and
    the synthetic one differs, or if only one has values. `missing`: synthetic minus real fraction of missing values.
    Raises `InvalidArgument`, `SchemaError`.
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
    distance, sd = float(wasserstein_distance(x, y)), float(x.std())
    if distance > 0 and sd <= 1e-12 * np.abs(x).max():
        warnings.warn(f"column {name!r} is constant in the real table; the distance is infinite", stacklevel=3)
        return float("inf")
    return distance / sd if distance > 0 else 0.0


@dataclass(frozen=True)
class Dependence:
    """Association of every pair of `columns`: `real`, `synthetic` and `error` = |real - synthetic|, each (p, p).

    Two numbers: Spearman's rank correlation, from -1 to 1. Number and category: correlation ratio of the ranks, 0 to 1.
    Two categories: Cramer's V, 0 to 1. The last two are bias-corrected.
    """

    columns: tuple[str, ...]
    real: Array
    synthetic: Array
    error: Array

    @property
    def mean_error(self) -> float:
        """Mean error over all pairs of columns; NaN for a single column."""
        pairs = np.triu_indices(len(self.columns), k=1)
        return float(self.error[pairs].mean()) if len(pairs[0]) else float("nan")

    @property
    def worst(self) -> tuple[str, str, float]:
        """The pair of columns with the largest error, and that error."""
        upper = np.triu(self.error, k=1)
        i, j = np.unravel_index(int(upper.argmax()), upper.shape)
        return self.columns[i], self.columns[j], float(self.error[i, j])

    def __str__(self) -> str:
        first, second, error = self.worst
        return f"mean error of association {self.mean_error:.3f}; worst pair {first} and {second}, {error:.3f}"


def dependence(synthetic: Table, *, real: Table) -> Dependence:
    """Pairwise associations of both tables, and the error of the synthetic ones.

    A pair with a constant column has association 0, with a warning. Rows with missing numbers are dropped from the
    pairs concerned; missing categories are a category. Needs two rows. Raises `InvalidArgument`, `SchemaError`.
    """
    columns = check_tables(real=real, synthetic=synthetic)
    for name, table in (("real", real), ("synthetic", synthetic)):
        if len(table) < 2:
            raise InvalidArgument(name, "a table with 1 row", "at least 2 rows, for there to be an association")
    r, s = (_associations(table, columns, name) for table, name in ((real, "real"), (synthetic, "synthetic")))
    return Dependence(tuple(column.name for column in columns), r, s, np.abs(r - s))


def _associations(table: Table, columns: list[Column], name: str) -> Array:
    categorical = [column.kind == "categorical" for column in columns]
    values = [
        _codes(table, column) if is_categorical else column_to_float(column, table[column.name])
        for column, is_categorical in zip(columns, categorical, strict=True)
    ]
    constant = [c.name for c, v in zip(columns, values, strict=True) if len(np.unique(v[v == v])) < 2]
    if constant:
        warnings.warn(f"{name} columns that do not vary have association 0: {', '.join(constant)}", stacklevel=3)
    matrix = np.eye(len(columns))
    for i, j in combinations(range(len(columns)), 2):
        a, b = (i, j) if categorical[j] else (j, i)  # of a mixed pair, the number comes first
        matrix[i, j] = matrix[j, i] = _MEASURES[categorical[a], categorical[b]](values[a], values[b])
    return matrix


def _spearman(x: Array, y: Array) -> float:
    present = ~(np.isnan(x) | np.isnan(y))
    if present.sum() < 2:
        return 0.0
    a, b = (rankdata(v[present]) for v in (x, y))
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
    """Draw a heat map of the error of each pair; white is 0."""
    size = 2.5 + 0.32 * len(dep.columns)
    ax = new_axes(ax, width=size + 1, height=size)
    image = ax.imshow(dep.error, cmap="Greys", vmin=0, vmax=max(float(dep.error.max()), 0.1))
    ticks = np.arange(len(dep.columns))
    ax.set_xticks(ticks, dep.columns, rotation=90)
    ax.set_yticks(ticks, dep.columns)
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label="|real - synthetic association|", shrink=0.8)
    return ax


def plot_marginal_distances(distances: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the distance of each column, the largest at the top: Wasserstein as circles, total variation as squares.

    An infinite distance is drawn as a cross at the right edge.
    """
    ax = new_axes(ax, height=1.2 + 0.3 * len(distances))
    ordered = distances.sort_values("distance", kind="stable").reset_index(drop=True)
    finite = np.isfinite(ordered["distance"])
    edge = 1.1 * max(float(ordered["distance"][finite].max()) if finite.any() else 0.0, 0.1)
    for measure, color, marker in (("Wasserstein / real sd", BLUE, "o"), ("total variation", VERMILLION, "s")):
        rows = ordered[finite & (ordered["measure"] == measure)]
        ax.plot(rows["distance"], rows.index, marker, color=color, markersize=6, label=measure)
    if not finite.all():
        ax.plot(
            [edge] * int((~finite).sum()), ordered.index[~finite], "x", color=BLACK, label="infinite", clip_on=False
        )
    ax.set_yticks(range(len(ordered)), ordered["column"])
    ax.set(xlabel="distance from the real column", xlim=(0, edge))
    ax.legend(frameon=False)
    return ax


# ── Reference values ──
# Half of the holdout stands in for a perfect generator. For rows of one source, the labels "train" and "synthetic" are
# exchangeable; so the pooled real rows are split at random many times; the metrics of the splits give mean and band.


_N_PERMUTATIONS = 20
_MAX_DISTANCE = 10.0  # standard deviations; a column constant in one subset only would be infinitely far


@dataclass(frozen=True)
class FeatureSubset:
    """A subset of rows as a table and as features (N, d)."""

    table: Table
    features: Array

    def take(self, rows: np.ndarray) -> FeatureSubset:
        """Rows at these positions."""
        return FeatureSubset(Table(self.table.frame.iloc[rows], self.table.schema), self.features[rows])

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def categories(self) -> set[tuple[str, str]]:
        """Observed (column, category) pairs."""
        return observed_categories(self.table)


def observed_categories(table: Table) -> set[tuple[str, str]]:
    """The (column, category) pairs that occur in a table."""
    names = [column.name for column in table.schema.columns if column.categories]
    return {(name, str(value)) for name in names for value in table[name].dropna().unique()}


def subsample_rows(table: Table, encode: TableEncoder, n: int, rng: np.random.Generator) -> FeatureSubset:
    """At most `n` random rows of a table and their features, in their original order."""
    rows = np.sort(rng.permutation(len(table))[:n])
    subset = Table(table.frame.iloc[rows], table.schema)
    return FeatureSubset(subset, encode(subset))


def fidelity_metrics(synthetic: FeatureSubset, *, real: FeatureSubset) -> dict[str, float]:
    """All metrics that need no fitted model, of synthetic against real rows."""
    scores = prdc(synthetic.features, real=real.features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant columns of a subset, whose metrics are still defined
        distances = marginal_distances(synthetic.table, real=real.table)
        pairs = dependence(synthetic.table, real=real.table)
        frechet = frechet_distance(real.features, synthetic.features)
    metrics = {
        "precision": scores.precision,
        "density": scores.density,
        "Fréchet distance": abs(frechet),
        "marginal distance": float(distances["distance"].clip(upper=_MAX_DISTANCE).mean()),
        "dependence error": pairs.mean_error,
        "recall": scores.recall,
        "coverage": scores.coverage,
        "categories lost": len(real.categories - synthetic.categories) / len(real.categories)
        if real.categories
        else 0.0,
    }
    return {name: value for name, value in metrics.items() if not np.isnan(value)}  # one column has no pairs


@dataclass(frozen=True)
class ReferenceBand:
    """Mean of a metric over permutations of real rows, and the 99.9 % prediction interval of one more."""

    mean: float
    low: float
    high: float


def reference_bands(
    real: FeatureSubset, fresh: FeatureSubset, rng: np.random.Generator, *, n_permutations: int = _N_PERMUTATIONS
) -> dict[str, ReferenceBand]:
    """Reference values of all metrics from `n_permutations` random splits of the pooled real rows."""
    pool = FeatureSubset(
        Table(pd.concat([real.table.frame, fresh.table.frame], ignore_index=True), real.table.schema),
        np.concatenate([real.features, fresh.features]),
    )
    metrics = []
    for _ in range(n_permutations):
        order = rng.permutation(len(pool))
        metrics.append(fidelity_metrics(pool.take(order[len(real) :]), real=pool.take(order[: len(real)])))
    draws = pd.DataFrame(metrics)  # (permutations, metrics)
    # one more draw: mean +- t sd sqrt(1 + 1/B), B - 1 degrees of freedom
    width = t.isf(norm.sf(Z_BAND), n_permutations - 1) * draws.std(ddof=1) * np.sqrt(1 + 1 / n_permutations)
    if real.categories:  # counts are integers: one category more may be missing
        width["categories lost"] = max(width["categories lost"], 1.5 / len(real.categories))
    mean, half = draws.mean().to_dict(), width.to_dict()
    return {str(name): ReferenceBand(m, max(m - half[name], 0.0), m + half[name]) for name, m in mean.items()}
