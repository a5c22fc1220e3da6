"""What fresh real rows score: the reference that every measure of a synthetic table is read against.

Half of the holdout plays a perfect generator. If synthetic rows came from the same source as real ones, it would not
matter which of the pooled real rows were called training rows and which the generator's; so the pool is divided anew
many times, each division is measured, and the measures give a mean and a band.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from synthbook.core.schema import Table
from synthbook.evaluation.arrays import Array
from synthbook.evaluation.features import TableFeatures
from synthbook.evaluation.frechet import frechet_distance
from synthbook.evaluation.intervals import Z_BAND
from synthbook.evaluation.prdc import prdc
from synthbook.evaluation.tables import dependence, marginals

DIVISIONS = 20
FARTHEST = 10.0  # sds: a column that is constant in the real cut and not in the other would be infinitely far


@dataclass(frozen=True)
class Rows:
    """Some rows as a table and as features (N, d)."""

    table: Table
    features: Array

    def take(self, rows: np.ndarray) -> Rows:
        """The rows at these positions."""
        return Rows(Table(self.table.frame.iloc[rows], self.table.schema), self.features[rows])

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def categories(self) -> set[tuple[str, str]]:
        """The (column, category) pairs that occur."""
        return categories_of(self.table)


def categories_of(table: Table) -> set[tuple[str, str]]:
    """The (column, category) pairs that occur in a table."""
    named = [column.name for column in table.schema.columns if column.categories]
    return {(name, str(value)) for name in named for value in table[name].dropna().unique()}


def rows_of(table: Table, features: TableFeatures, n: int, rng: np.random.Generator) -> Rows:
    """At most `n` rows of a table, picked at random, in their old order."""
    picked = np.sort(rng.permutation(len(table))[:n])
    cut = Table(table.frame.iloc[picked], table.schema)
    return Rows(cut, features(cut))


def measures(real: Rows, synthetic: Rows) -> dict[str, float]:
    """Every measure that needs no model, of synthetic against real rows."""
    score = prdc(real.features, synthetic.features)
    lost = real.categories - synthetic.categories
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # columns that do not vary in this cut; what they measure is still defined
        moved, pairs = marginals(real.table, synthetic.table), dependence(real.table, synthetic.table)
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
class Band:
    """Mean of a measure over divisions of real rows, and where one more of them lies 999 times of 1,000."""

    mean: float
    low: float
    high: float


def bands(real: Rows, fresh: Rows, rng: np.random.Generator, *, divisions: int = DIVISIONS) -> dict[str, Band]:
    """Measure `divisions` random divisions of the pooled real rows into as many "real" and "synthetic" ones."""
    pool = Rows(
        Table(pd.concat([real.table.frame, fresh.table.frame], ignore_index=True), real.table.schema),
        np.concatenate([real.features, fresh.features]),
    )
    found = []
    for _ in range(divisions):
        order = rng.permutation(len(pool))
        found.append(measures(pool.take(order[: len(real)]), pool.take(order[len(real) :])))
    draws = pd.DataFrame(found)  # (divisions, measures)
    # one more draw: mean +- t sd sqrt(1 + 1/B), B - 1 degrees of freedom
    reach = t.isf(norm.sf(Z_BAND), divisions - 1) * draws.std(ddof=1) * np.sqrt(1 + 1 / divisions)
    if real.categories:  # categories come in whole numbers: one more may always be missing
        reach["categories lost"] = max(reach["categories lost"], 1.5 / len(real.categories))
    centre, width = draws.mean().to_dict(), reach.to_dict()
    return {str(name): Band(m, max(m - width[name], 0.0), m + width[name]) for name, m in centre.items()}
