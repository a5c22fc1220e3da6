"""Cells that were fixed before any row was seen: what private code may count in, or write a row with.

A category is a cell. A number or date has at most 32 cells between the schema's bounds: of equal width, or, where a
number's bounds are three powers of ten apart, of equal width in log(1 + x), with a cell for 0. A missing value is a
cell of its own. Nothing is read off the rows: a bound that a row sets tells of that row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synthbook.core.errors import SchemaError
from synthbook.core.table import Column
from synthbook.core.types import Array
from synthbook.generators.tabular.encoding import Span, as_numbers, from_numbers

MOST = 32  # cells of a number
_WIDE = 1_000.0  # upper over lower bound from which on cells are equal in log(1 + x)
Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Discretizer:
    """A column's cells; `edges` (cells + 1,) of a number or date, whole where values are whole."""

    column: Column
    edges: Array | None

    @classmethod
    def from_column(cls, column: Column) -> Discretizer:
        """By the schema alone. Raises `SchemaError` for a date without bounds."""
        if column.categories:
            return cls(column, None)
        if column.lower is None or column.upper is None:
            raise SchemaError(f"column {column.name!r}: private code needs a lower and an upper bound that are public")
        low, high = as_numbers(column, pd.Series([column.lower, column.upper], dtype=column.dtype))
        end = high + 1 if column.integer else high  # a whole number k has the cell [k, k + 1)
        if column.kind == "numeric" and low >= 0 and high >= _WIDE * max(low, 1.0):
            edges = np.append(0.0, np.expm1(np.linspace(np.log(2.0), np.log1p(end), MOST)))  # a cell for [0, 1)
            edges = np.append(low, edges[edges > low])
        else:
            edges = np.linspace(low, end, MOST + 1)
        edges = np.unique(np.rint(edges)) if column.integer else np.unique(edges)
        return cls(column, edges if len(edges) > 1 else np.array([low, low + 1]))

    @property
    def n(self) -> int:
        """How many, the one of missing values included."""
        return (len(self.column.categories) if self.edges is None else len(self.edges) - 1) + self.column.missing

    def codes(self, rows: pd.Series[Any]) -> Codes:
        """The cell (N,) of each value."""
        numbers = as_numbers(self.column, rows)
        absent = np.isnan(numbers)
        found = np.where(absent, 0, numbers)
        if self.edges is not None:
            found = np.clip(np.searchsorted(self.edges, found, side="right") - 1, 0, len(self.edges) - 2)
        return np.where(absent, self.n - 1, found).astype(np.int64)

    def values(self, codes: Codes, rng: np.random.Generator) -> pd.Series[Any]:
        """Values in these cells: of a number any in the cell, all as likely."""
        absent = (codes == self.n - 1) & self.column.missing
        if self.edges is None:
            return from_numbers(self.column, np.where(absent, np.nan, codes))
        low, high = (self.edges[np.minimum(codes + k, len(self.edges) - 2 + k)] for k in (0, 1))
        numbers = low + rng.random(len(codes)) * (high - low)
        return from_numbers(
            self.column, np.where(absent, np.nan, np.floor(numbers) if self.column.integer else numbers)
        )


@dataclass(frozen=True, eq=False)
class PublicEncoding:
    """Rows as ones at their cells (N, width), as networks see them; it has nothing to learn and nothing to keep."""

    columns: tuple[Column, ...]

    @cached_property
    def cells(self) -> tuple[Discretizer, ...]:
        """Of each column."""
        return tuple(Discretizer.from_column(column) for column in self.columns)

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """Where each column's cells lie."""
        starts = np.cumsum([0, *(cells.n for cells in self.cells)])
        return tuple(Span(j, int(starts[j]), cells.n, is_alpha=False) for j, cells in enumerate(self.cells))

    @property
    def width(self) -> int:
        """Numbers for a row."""
        return self.spans[-1].start + self.spans[-1].width

    def encode(self, frame: pd.DataFrame) -> Array:
        """Rows as numbers (N, width)."""
        x: Array = np.zeros((len(frame), self.width))
        for span, cells in zip(self.spans, self.cells, strict=True):
            x[np.arange(len(frame)), span.start + cells.codes(frame[cells.column.name])] = 1
        return x

    def decode(self, x: Array, rng: np.random.Generator) -> pd.DataFrame:
        """Numbers (N, width) as rows; of each column the largest counts."""
        found: Mapping[str, Any] = {
            cells.column.name: cells.values(x[:, s.start : s.start + s.width].argmax(axis=1), rng)
            for s, cells in zip(self.spans, self.cells, strict=True)
        }
        return pd.DataFrame(found)
