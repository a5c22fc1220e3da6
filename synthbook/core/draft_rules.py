"""Rules between two columns that hold in every row of a frame, and would not by chance.

With few rows, or with a column that has hardly any variety, many rules hold that mean nothing. So a rule is proposed
only where it would almost surely be broken if the second column were shuffled.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from synthbook.core.columns import Column, Rule

CHANCE = 1e-6  # that a shuffled table proposes any rule, by one rule's bound times the number of pairs
HEAD = 1_000  # rows that are looked at before all are
Codes = NDArray[np.int64]


def find_rules(frame: pd.DataFrame, columns: list[Column]) -> list[tuple[Rule, str]]:
    """Dependencies and inequalities that hold in all rows, each with a sentence on its support.

    Rows in which either value is missing say nothing. Two columns that are always equal get dependencies only.
    """
    kept = [column for column in columns if column.kind != "text"]
    codes = {column.name: pd.factorize(frame[column.name])[0].astype(np.int64) for column in kept}
    limit = np.log(CHANCE / max(1, len(kept) * (len(kept) - 1)))
    found = [*_dependencies(kept, codes, limit), *_inequalities(frame, kept, limit)]
    # the schema's own judgement is the last word
    return [(rule, said) for rule, said in found if not rule.broken(frame)]


def _dependencies(columns: list[Column], codes: dict[str, Codes], limit: float) -> Iterator[tuple[Rule, str]]:
    for first, second in permutations(columns, 2):
        measured = first.kind == "numeric" and not first.integer
        if measured or second.kind == "id":
            continue
        both = (codes[first.name] >= 0) & (codes[second.name] >= 0)
        a, b = codes[first.name][both], codes[second.name][both]
        sizes = np.bincount(a)
        sizes = sizes[sizes > 0]
        if not len(a) or not _determines(a, b):
            continue
        if _log_chance_of_dependency(sizes, np.bincount(b) / len(b)) < limit:
            said = f"each of {len(sizes):,} values of the first comes with one value of the second, in {len(a):,} rows"
            yield Rule("dependency", (first.name, second.name)), said


def _determines(a: Codes, b: Codes) -> bool:
    pairs = a * (b.max() + 1) + b
    return all(len(np.unique(pairs[:rows])) == len(np.unique(a[:rows])) for rows in (HEAD, len(a)))


def _log_chance_of_dependency(sizes: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    """log Π_g Σ_v p_v^(n_g): all rows of each group g share a value v when values are drawn independently."""
    different, times = np.unique(sizes, return_counts=True)
    with np.errstate(divide="ignore", under="ignore"):
        logs = [count * np.log((p**size).sum()) for size, count in zip(different, times, strict=True)]
    return float(sum(logs))


def _inequalities(frame: pd.DataFrame, columns: list[Column], limit: float) -> Iterator[tuple[Rule, str]]:
    ordered = {
        column.name: _ordered(frame[column.name]) for column in columns if column.kind in ("numeric", "datetime")
    }
    for first, second in permutations([column for column in columns if column.name in ordered], 2):
        a, b = ordered[first.name], ordered[second.name]  # a comparison with NaN is False
        if first.kind != second.kind or (a[:HEAD] > b[:HEAD]).any() or (a > b).any():
            continue
        both = ~(np.isnan(a) | np.isnan(b))
        a, b = a[both], b[both]
        if (a == b).all():
            continue
        # log Π_i F_a(b_i): every row keeps the rule when the first column is drawn independently
        below = np.searchsorted(np.sort(a), b, side="right") / len(a)
        if np.log(below).sum() < limit:
            yield (
                Rule("inequality", (first.name, second.name)),
                f"holds in {len(a):,} rows, strictly in {(a < b).sum():,}",
            )


def _ordered(values: pd.Series[Any]) -> NDArray[np.float64]:
    """Numbers, or dates in microseconds since 1970, which float64 holds exactly between the years 1684 and 2255."""
    if types.is_datetime64_dtype(values):
        values = values.astype("datetime64[us]").astype("int64").where(values.notna())
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))
