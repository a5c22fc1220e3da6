"""New minority rows between old ones: SMOTE (Chawla et al. 2002, Journal of Artificial Intelligence Research 16, 321).

    x = x_i + u (x_j - x_i),  u ~ U(0, 1),  x_j one of the k nearest rows of the same class

Categories come from either of the two rows, at random. Every new row lies between two real ones: the class is made
larger, not wider.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Table, refuse_holdout
from synthbook.core.types import Seed
from synthbook.evaluation.features import fit_table_encoder
from synthbook.evaluation.utility import check_target
from synthbook.generators.base import check_positive_int
from synthbook.generators.tabular.base import TableSpec
from synthbook.generators.tabular.encoding import as_numbers, from_numbers


def smote(table: Table, n: int, *, target: str, value: str, seed: Seed, neighbours: int = 5) -> Table:
    """`n` new rows with `value` in the column `target`; nearness is that of the table's standardised features.

    A missing value stays missing where the first row has it so, or the second. Raises `HoldoutError`,
    `InvalidArgument` when fewer than two rows have the value, `SchemaError`.
    """
    refuse_holdout(table, "interpolating rows")
    column = check_target(table.schema, target)
    if value not in column.categories:
        raise InvalidArgument("value", value, column.allowed_values)
    for name, number in (("n", n), ("neighbours", neighbours)):
        check_positive_int(name, number)
    frame = table.frame
    few = frame[frame[target] == value].reset_index(drop=True)
    if len(few) < 2:
        raise InvalidArgument("value", f"{value!r}, which {len(few)} rows have", "a value that at least 2 rows have")
    rng, layout = np.random.default_rng(seed), TableSpec.of(table)
    x = fit_table_encoder(table)(Table(few, table.schema))
    near = NearestNeighbors(n_neighbors=min(neighbours + 1, len(few))).fit(x).kneighbors(x, return_distance=False)
    first = rng.integers(len(few), size=n)
    other = near[first, rng.integers(1, near.shape[1], size=n)]
    second = np.where(other == first, near[first, 0], other)  # a row with a twin may not be its own nearest
    share = rng.random(n)
    columns = {}
    for modeled in layout.modeled:
        numbers = as_numbers(modeled, few[modeled.name])
        a, b = numbers[first], numbers[second]
        mixed = np.where(rng.random(n) < 0.5, a, b) if modeled.categories else a + share * (b - a)
        columns[modeled.name] = from_numbers(modeled, mixed)
    rows = layout.completed(pd.DataFrame(columns), 1)
    broken = np.flatnonzero(~layout.satisfies_rules(rows))
    rows.iloc[broken] = layout.completed(few.iloc[first[broken]], 1)  # a rule between the two: the first row itself
    for identity in (c.name for c in table.schema.columns if c.kind == "id"):
        rows[identity] = np.arange(1, n + 1)
    return Table(rows, table.schema)
