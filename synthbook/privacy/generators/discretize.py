"""Data-independent bins, derived from the public schema alone, in which private code counts or encodes rows.

A category is a bin. A number or date has at most 32 bins between the schema's bounds: of equal width, or, where a
number's bounds are three powers of ten apart, of equal width in log(1 + x), with a bin for 0. Missing values have a bin
of their own. No bound is read off the rows, because it would disclose a row.
"""

from __future__ import annotations

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

MAX_BINS = 32  # of a number or date
_LOG_SCALE_RATIO = 1_000.0  # upper over lower bound from which on bins have equal width in log(1 + x)
Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Discretizer:
    """A column's bins; `bin_edges` (bins + 1,) of a number or date, whole where values are whole."""

    column: Column
    bin_edges: Array | None

    @classmethod
    def from_column(cls, column: Column) -> Discretizer:
        """Choose bins by the schema alone. Raises `SchemaError` for a column without bounds."""
        if column.categories:
            return cls(column, None)
        if column.lower is None or column.upper is None:
            raise SchemaError(f"column {column.name!r}: private code needs a lower and an upper bound that are public")
        low, high = as_numbers(column, pd.Series([column.lower, column.upper], dtype=column.dtype))
        end = high + 1 if column.integer else high  # a whole number k has the bin [k, k + 1)
        if column.kind == "numeric" and low >= 0 and high >= _LOG_SCALE_RATIO * max(low, 1.0):
            edges = np.append(0.0, np.expm1(np.linspace(np.log(2.0), np.log1p(end), MAX_BINS)))  # a bin for [0, 1)
            edges = np.append(low, edges[edges > low])
        else:
            edges = np.linspace(low, end, MAX_BINS + 1)
        edges = np.unique(np.rint(edges)) if column.integer else np.unique(edges)
        return cls(column, edges if len(edges) > 1 else np.array([low, low + 1]))

    @property
    def n_bins(self) -> int:
        """The number of bins, including the one of missing values."""
        n = len(self.column.categories) if self.bin_edges is None else len(self.bin_edges) - 1
        return n + self.column.missing

    def encode(self, values: pd.Series[Any]) -> Codes:
        """The bin (N,) of each value."""
        numbers = as_numbers(self.column, values)
        missing = np.isnan(numbers)
        codes = np.where(missing, 0, numbers)
        if self.bin_edges is not None:
            codes = np.clip(np.searchsorted(self.bin_edges, codes, side="right") - 1, 0, len(self.bin_edges) - 2)
        return np.where(missing, self.n_bins - 1, codes).astype(np.int64)

    def decode(self, codes: Codes, rng: np.random.Generator) -> pd.Series[Any]:
        """Values (N,) in these bins; numbers and dates are uniform in theirs."""
        missing = (codes == self.n_bins - 1) & self.column.missing
        if self.bin_edges is None:
            return from_numbers(self.column, np.where(missing, np.nan, codes))
        low, high = (self.bin_edges[np.minimum(codes + k, len(self.bin_edges) - 2 + k)] for k in (0, 1))
        numbers = low + rng.random(len(codes)) * (high - low)
        numbers = np.floor(numbers) if self.column.integer else numbers
        return from_numbers(self.column, np.where(missing, np.nan, numbers))


@dataclass(frozen=True, eq=False)
class PublicEncoding:
    """Rows as one-hot bins (N, width), as networks see them; nothing is learned from the rows."""

    columns: tuple[Column, ...]

    @cached_property
    def discretizers(self) -> tuple[Discretizer, ...]:
        """The bins of each column."""
        return tuple(Discretizer.from_column(column) for column in self.columns)

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """The positions of each column's bins in a row."""
        sizes = [one.n_bins for one in self.discretizers]
        return tuple(Span(j, sum(sizes[:j]), size, is_alpha=False) for j, size in enumerate(sizes))

    @property
    def width(self) -> int:
        """The length of an encoded row."""
        return self.spans[-1].start + self.spans[-1].width

    def encode(self, frame: pd.DataFrame) -> Array:
        """Encode rows as numbers (N, width)."""
        x: Array = np.zeros((len(frame), self.width))
        for span, discretizer in zip(self.spans, self.discretizers, strict=True):
            x[np.arange(len(frame)), span.start + discretizer.encode(frame[discretizer.column.name])] = 1
        return x

    def decode(self, x: Array, rng: np.random.Generator) -> pd.DataFrame:
        """Decode numbers (N, width) to rows, by the largest number of each column."""
        columns = {}
        for span, discretizer in zip(self.spans, self.discretizers, strict=True):
            codes = x[:, span.start : span.start + span.width].argmax(axis=1)
            columns[discretizer.column.name] = discretizer.decode(codes, rng)
        return pd.DataFrame(columns)
