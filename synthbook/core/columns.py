"""The two things a schema is made of: columns of six kinds, and rules between two columns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd
from pandas.api import types

from synthbook.core.errors import SchemaError

# id: a label of a row or of an entity, never modelled. text: free text, modelled only where a text model is named.
KINDS = ("numeric", "categorical", "ordinal", "datetime", "id", "text")
RULES = ("dependency", "inequality", "pairs")


@dataclass(frozen=True)
class Column:
    """One column: its kind, and the values that are possible before any row was seen.

    `lower` and `upper` are inclusive; a numeric column needs both, a datetime column may have them (without time zone).
    `categories` are strings; an ordinal column lists them from low to high. `missing`: values may be absent.
    """

    name: str
    kind: str
    lower: float | datetime | None = None
    upper: float | datetime | None = None
    integer: bool = False
    categories: tuple[str, ...] = ()
    missing: bool = False
    description: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "categories", tuple(self.categories))
        demand(isinstance(self.name, str) and self.name != "", f"name = {self.name!r}: give a column's name")
        where = f"column {self.name!r}: "
        demand(self.kind in KINDS, f"{where}kind = {self.kind!r}: give one of {', '.join(KINDS)}")
        named = self.kind in ("categorical", "ordinal")
        demand(named == bool(self.categories), f"{where}categorical and ordinal columns list categories, others none")
        demand(all(isinstance(c, str) for c in self.categories), f"{where}categories are strings, as they are spelt")
        demand(len(set(self.categories)) == len(self.categories), f"{where}a category is listed twice")
        demand(type(self.missing) is bool and type(self.integer) is bool, f"{where}missing, integer: true or false")
        demand(self.kind == "numeric" or not self.integer, f"{where}only a numeric column can be integer")
        self._check_bounds(where)

    def _check_bounds(self, where: str) -> None:
        bounds = [bound for bound in (self.lower, self.upper) if bound is not None]
        if self.kind == "numeric":
            demand(len(bounds) == 2 and all(_is_number(b) for b in bounds), f"{where}give a finite lower and upper")
            whole = all(float(b).is_integer() and abs(b) <= 2**53 for b in bounds) if self.integer else True  # type: ignore[arg-type]
            demand(whole, f"{where}an integer column has whole bounds of at most 2**53, which floats hold exactly")
        elif self.kind == "datetime":
            naive = all(isinstance(b, datetime) and b.tzinfo is None for b in bounds)
            demand(naive, f"{where}lower and upper are dates with times, without a time zone")
        else:
            demand(not bounds, f"{where}a column of kind {self.kind} has no bounds")
        demand(len(bounds) < 2 or bounds[0] <= bounds[1], f"{where}lower lies above upper")  # type: ignore[operator]

    @property
    def dtype(self) -> Any:
        """The pandas type this column has in a `Table`; None where it stays as it came (id, text)."""
        if self.kind == "numeric":
            return ("Int64" if self.missing else "int64") if self.integer else "float64"
        if self.categories:
            return pd.CategoricalDtype(list(self.categories), ordered=self.kind == "ordinal")
        return "datetime64[us]" if self.kind == "datetime" else None

    @property
    def allowed(self) -> str:
        """What a value may be, in words."""
        if self.kind == "numeric":
            return f"{'whole ' if self.integer else ''}numbers from {self.lower} to {self.upper}"
        if self.categories:
            more = ", ..." if len(self.categories) > 12 else ""
            return f"one of {len(self.categories)} strings: {', '.join(self.categories[:12])}{more}"
        if self.kind == "datetime":
            return f"dates (datetime64 without time zone) from {self.lower or 'any'} to {self.upper or 'any'}"
        return "strings or whole numbers" if self.kind == "id" else "strings"

    def problems(self, values: pd.Series[Any]) -> Iterator[str]:
        """Sentences, one for each way in which `values` break this column's declaration."""
        where, present = f"column {self.name!r}: ", values.dropna()
        absent = len(values) - len(present)
        if absent and not self.missing:
            yield f"{where}{absent} values are missing, which is not allowed"
        if len(present) and not self._is_of_kind(present):
            yield f"{where}holds {types.infer_dtype(present)} ({values.dtype}); allowed: {self.allowed}"
        elif len(bad := present[~self._inside(present)]):
            shown = ", ".join(f"{value!r} in row {row!r}" for row, value in bad.head(3).to_dict().items())
            yield f"{where}{len(bad)} values are not allowed, such as {shown}; allowed: {self.allowed}"

    def _is_of_kind(self, present: pd.Series[Any]) -> bool:
        if self.kind == "numeric":
            return types.is_integer_dtype(present) or types.is_float_dtype(present)
        if self.kind == "datetime":
            return types.is_datetime64_dtype(present)
        also = {"id": "integer", "text": "string"}.get(self.kind, "categorical")
        return types.infer_dtype(present) in ("string", also)

    def _inside(self, present: pd.Series[Any]) -> pd.Series[bool]:
        inside = present.isin(self.categories) if self.categories else pd.Series(True, index=present.index)
        if self.lower is not None:
            inside &= present >= self.lower
        if self.upper is not None:
            inside &= present <= self.upper
        if self.integer:
            inside &= present % 1 == 0
        return inside.astype(bool)


@dataclass(frozen=True)
class Rule:
    """A rule between two columns; rows in which either is missing keep it.

    "dependency": equal values of the first column mean equal values of the second. "inequality": first <= second.
    "pairs": every row's pair is one of `pairs`.
    """

    kind: str
    columns: tuple[str, str]
    pairs: tuple[tuple[Any, Any], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "pairs", tuple((pair[0], pair[1]) for pair in self.pairs))
        demand(self.kind in RULES, f"rule: kind = {self.kind!r}: give one of {', '.join(RULES)}")
        demand(len(set(self.columns)) == len(self.columns) == 2, f"rule {self.kind}: give two different columns")
        demand((self.kind == "pairs") == bool(self.pairs), f"rule {self.kind}: only a rule of kind pairs lists pairs")

    def broken(self, frame: pd.DataFrame) -> int:
        """How many rows of a frame break the rule; for a dependency, all rows that share an ambiguous first value."""
        rows = frame[list(self.columns)].dropna()
        first, second = rows[self.columns[0]], rows[self.columns[1]]
        if self.kind == "inequality":
            return int((first > second).sum())
        if self.kind == "pairs":
            allowed = set(self.pairs)
            return sum(pair not in allowed for pair in zip(first, second, strict=True))
        seconds_of = second.astype(object).groupby(first.astype(object)).transform("nunique")
        return int((seconds_of > 1).sum())


def demand(holds: bool, message: str) -> None:
    """Raise a `SchemaError` unless the condition holds."""
    if not holds:
        raise SchemaError(message)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
