"""Whose privacy? A record's, or an entity's, such as a patient with many visits, where the schema names its column.

Splits, counts, bounds on contributions and scores of attacks are all taken by unit: rows of one person on both sides of
a split, or counted as strangers, would make every audit too kind or too harsh.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synthbook.core.schema import Schema, Table

Codes = NDArray[np.int64]


def unit_of(schema: Schema, rows: int) -> str:
    """The unit of privacy in words."""
    return "one record" if schema.entity is None else f"one {schema.entity}, with at most {rows} rows"


def unit_codes(table: Table) -> Codes:
    """The number (N,) of the unit that each row belongs to, counted from 0 in the order in which they come."""
    entity = table.schema.entity
    return np.arange(len(table)) if entity is None else np.asarray(pd.factorize(table[entity])[0], dtype=np.int64)


def units(table: Table) -> int:
    """How many units there are."""
    return int(unit_codes(table).max(initial=-1)) + 1


def at_most(table: Table, rows: int, rng: np.random.Generator) -> Codes:
    """Places of the rows that are used: of each entity at most so many, drawn at random; all where there is none."""
    if table.schema.entity is None:
        return np.arange(len(table))
    shuffled = rng.permutation(len(table))
    code: pd.Series[Any] = pd.Series(unit_codes(table)[shuffled])
    return np.sort(shuffled[(code.groupby(code).cumcount() < rows).to_numpy()])


def some_units(table: Table, n: int, rng: np.random.Generator) -> Table:
    """All rows of `n` units, drawn at random; the table itself where it has no more."""
    codes, total = unit_codes(table), units(table)
    if total <= n:
        return table
    return Table(table.frame.iloc[np.isin(codes, rng.choice(total, n, replace=False))], table.schema)


def halves(table: Table, rng: np.random.Generator) -> tuple[Table, Table]:
    """Two tables, each with half of the units."""
    codes = unit_codes(table)
    first = rng.permutation(codes.max() + 1)[codes] < (codes.max() + 1) // 2
    return Table(table.frame[first], table.schema), Table(table.frame[~first], table.schema)


def most_suspicious(table: Table, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The highest score of each unit's rows."""
    found = np.full(units(table), -np.inf)
    np.maximum.at(found, unit_codes(table), scores)
    return found
