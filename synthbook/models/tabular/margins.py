"""One column's distribution as a quantile function, whatever its kind: what the simplest models are made of.

Q(u) is a line through knots (level, value). A value that many rows share, such as capital-gain = 0, or a category, has
an interval of levels for itself, on which Q is flat; the others are joined by straight lines. Missing values take the
lowest levels. So a uniform u gives values with the right shares, and every value has levels to be drawn from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from synthbook.core.columns import Column
from synthbook.models.tabular.values import Array, as_numbers, from_numbers

SPIKE = 0.0005  # share of the rows from which on a number is a value for itself
KNOTS = 1_000  # at most, beside those of spikes
EDGE = 1e-9  # levels stay this far from 0 and 1


@dataclass(frozen=True, eq=False)
class Margin:
    """Knots `levels` and `values` (k,), both rising; below `missing` the value is missing.

    For a column of categories without an order, `order` lists their codes as they lie along the levels.
    """

    column: Column
    levels: Array
    values: Array
    missing: float
    order: tuple[int, ...] = ()

    @classmethod
    def of(cls, column: Column, rows: pd.Series[Any], order: tuple[int, ...] = ()) -> Margin:
        """The distribution of these rows; nominal categories lie in `order`, else in the schema's."""
        numbers = as_numbers(column, rows)
        present = numbers[~np.isnan(numbers)]
        missing = 1 - len(present) / len(numbers)
        if order:
            present = np.argsort(order)[present.astype(np.int64)].astype(float)
        if not len(present):
            return cls(column, np.ones(2), np.zeros(2), 1.0, order)
        values, counts = np.unique(present, return_counts=True)
        above = missing + np.cumsum(counts) / len(numbers)
        below = np.append(missing, above[:-1])  # to the last bit: a gap or an overlap would bend the steps of Q
        flat = ((counts > SPIKE * len(numbers)) & (counts > 1)) | bool(column.categories)
        plain = np.flatnonzero(~flat)
        if len(plain) > KNOTS:  # every so many of them, the first and the last included
            plain = plain[np.unique(np.linspace(0, len(plain) - 1, KNOTS).round().astype(np.int64))]
        knots = np.concatenate([below[flat], above[flat], (below[plain] + above[plain]) / 2])
        heights = np.concatenate([values[flat], values[flat], values[plain]])
        rising = np.lexsort((heights, knots))
        return cls(column, knots[rising], heights[rising], missing, order)

    def quantile(self, u: Array) -> Array:
        """Q(u) (N,) for levels (N,), as numbers; NaN for missing values."""
        found = np.interp(u, self.levels, self.values)
        if self.order:
            found = np.asarray(self.order, dtype=float)[np.rint(found).astype(np.int64)]
        return np.where(u < self.missing, np.nan, found)

    def rows_at(self, u: Array) -> pd.Series[Any]:
        """Q(u) as values of the column."""
        return from_numbers(self.column, self.quantile(u))

    def interval(self, rows: pd.Series[Any]) -> tuple[Array, Array]:
        """The levels (N,) between which each row's value lies; both are the same for a number without a spike."""
        x = as_numbers(self.column, rows)
        absent = np.isnan(x)
        x = np.where(absent, self.values[0], x)
        if self.order:
            x = np.argsort(self.order)[x.astype(np.int64)].astype(float)
        left, right = (np.searchsorted(self.values, x, side) for side in ("left", "right"))
        last = len(self.values) - 1
        after, before = np.clip(left, 1, last), np.clip(left, 1, last) - 1
        gap = self.values[after] - self.values[before]
        share = np.clip((x - self.values[before]) / np.where(gap > 0, gap, 1), 0, 1)
        between = self.levels[before] + share * (self.levels[after] - self.levels[before])
        known = right > left
        low = np.where(known, self.levels[np.minimum(left, last)], between)
        high = np.where(known, self.levels[right - 1], between)
        return np.where(absent, 0, low), np.where(absent, self.missing, high)

    def draw_levels(self, rows: pd.Series[Any], rng: np.random.Generator) -> Array:
        """A level (N,) for each row, uniform between those of its value: the distributional transform."""
        low, high = self.interval(rows)
        return np.clip(low + (high - low) * rng.random(len(low)), EDGE, 1 - EDGE)

    def scores(self, rows: pd.Series[Any]) -> Array:
        """The mean (N,) of a standard normal variable between the levels of each row's value."""
        low, high = self.interval(rows)
        z_low, z_high = ndtri(np.clip(low, EDGE, 1)), ndtri(np.clip(high, 0, 1 - EDGE))
        wide = high - low > 1e-6
        # E[z | a < z < b] = (phi(a) - phi(b)) / (Phi(b) - Phi(a))
        mean = (_density(z_low) - _density(z_high)) / np.where(wide, high - low, 1)
        return np.asarray(np.where(wide, mean, ndtri(np.clip((low + high) / 2, EDGE, 1 - EDGE))))


def margins_state(margins: Sequence[Margin]) -> tuple[dict[str, Array], list[dict[str, Any]]]:
    """Margins as arrays, and as plain JSON what is not in them."""
    arrays = {f"margin/{k}/{name}": getattr(m, name) for k, m in enumerate(margins) for name in ("levels", "values")}
    return arrays, [{"missing": margin.missing, "order": list(margin.order)} for margin in margins]


def restored_margins(columns: Sequence[Column], arrays: Mapping[str, Any], facts: Sequence[Any]) -> list[Margin]:
    """What `margins_state` gave."""
    found = []
    for k, (column, fact) in enumerate(zip(columns, facts, strict=True)):
        levels, values = (arrays[f"margin/{k}/{name}"].numpy() for name in ("levels", "values"))
        found.append(Margin(column, levels, values, fact["missing"], tuple(fact["order"])))
    return found


def _density(z: Array) -> Array:
    return np.asarray(np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))
