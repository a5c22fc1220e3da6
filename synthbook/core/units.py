"""Who is one? A row, or all rows of an entity, such as a patient's visits, where the schema names its column.

Splits, intervals, bounds on contributions and scores of attacks are all taken by unit: rows of one person on both sides
of a split, or counted as strangers, would make every score too kind and every interval too narrow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synthbook.core.errors import SchemaError
from synthbook.core.schema import Table

Codes = NDArray[np.int64]


def unit_codes(table: Table) -> Codes:
    """The number (N,) of the unit that each row belongs to, counted from 0 in the order in which they come.

    Raises `SchemaError` where it is missing: nobody could say whose row it is.
    """
    entity = table.schema.entity
    if entity is None:
        return np.arange(len(table))
    codes = np.asarray(pd.factorize(table[entity])[0], dtype=np.int64)
    if absent := int((codes < 0).sum()):
        raise SchemaError(f"column {entity!r} says who is one, and {absent} rows do not say whose they are")
    return codes


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


def of_equal_rows(tables: list[Table], rng: np.random.Generator) -> list[Table]:
    """The tables with as many rows of each unit, drawn at random, so that units may be compared by their extremes.

    As many as a typical unit of the table with fewer has, its median; units with less than that are left out.
    """
    k = int(min(np.median(np.bincount(unit_codes(table))) for table in tables))
    found = []
    for table in tables:
        codes = unit_codes(table)
        table = Table(table.frame[np.bincount(codes)[codes] >= k], table.schema)
        found.append(Table(table.frame.iloc[at_most(table, k, rng)], table.schema))
    return found


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
