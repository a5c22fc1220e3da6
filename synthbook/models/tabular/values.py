"""A column's values as numbers, and back: what stands between a table and everything that computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synthbook.core.columns import Column

Array = NDArray[np.float64]


def as_numbers(column: Column, values: pd.Series[Any]) -> Array:
    """Values (N,) as numbers, NaN where missing: categories by their place in the schema, dates in microseconds."""
    if column.categories:
        codes = np.asarray(pd.Categorical(values, categories=list(column.categories)).codes, dtype=float)
        return np.where(codes < 0, np.nan, codes)
    if column.kind == "datetime":
        stamps = values.astype("datetime64[us]")
        return np.where(stamps.isna(), np.nan, stamps.astype("int64").to_numpy(dtype=float))
    return values.to_numpy(dtype=float, na_value=np.nan)


def from_numbers(column: Column, numbers: Array) -> pd.Series[Any]:
    """Numbers (N,) as values of the column: whole where they must be, within the schema's bounds, NaN as missing."""
    absent = np.isnan(numbers)
    filled = np.where(absent, 0.0, numbers)
    if column.categories:
        codes = np.where(absent, -1, np.clip(np.rint(filled), 0, len(column.categories) - 1)).astype(np.int64)
        return pd.Series(pd.Categorical.from_codes(codes, dtype=column.dtype))
    if column.kind == "datetime":
        stamps: Any = pd.Series(np.rint(filled).astype(np.int64)).astype("datetime64[us]")
        bounded_stamps: pd.Series[Any] = stamps.clip(column.lower, column.upper).mask(absent)
        return bounded_stamps
    bounded = np.clip(np.rint(filled) if column.integer else filled, column.lower, column.upper)  # type: ignore[arg-type]
    return pd.Series(bounded).mask(absent).astype(column.dtype)
