"""What of a table is modelled, and how the rest comes back.

Ids are counted anew from 1. Free text is left empty. A column that a rule fixes, as Adult's education fixes
education-num, is looked up. All other columns are modelled, and rows that break another rule are drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synthbook.core.columns import Column, Rule
from synthbook.core.errors import InvalidArgument, SchemaError
from synthbook.core.schema import Schema, Table


@dataclass(frozen=True, eq=False)
class Layout:
    """`looked_up`: for each column that another one fixes, that column's name, and which value gives which."""

    schema: Schema
    looked_up: Mapping[str, tuple[str, Mapping[Any, Any]]]

    @classmethod
    def of(cls, table: Table, *, public_only: bool = False) -> Layout:
        """What is modelled of this table; with `public_only`, no row is looked at, and only listed pairs look up.

        Raises `SchemaError` where nothing is left to model.
        """
        schema, found = table.schema, dict[str, tuple[str, Mapping[Any, Any]]]()
        for rule in schema.rules:
            first, second = (schema[name] for name in rule.columns)
            sources = {source for source, _ in found.values()}
            known = rule.kind == "pairs" or not public_only
            free = known and first.name not in found and second.name not in found and second.name not in sources
            pairs = _pairs(rule, table) if free and first.categories and _can_be_looked_up(first, second) else {}
            if pairs:
                found[second.name] = (first.name, pairs)
        layout = cls(schema, found)
        if not layout.modelled:
            raise SchemaError("every column is an id or free text: nothing is left to model")
        return layout

    @cached_property
    def modelled(self) -> tuple[Column, ...]:
        """The columns that a generator learns, in the schema's order."""
        return tuple(c for c in self.schema.columns if c.kind not in ("id", "text") and c.name not in self.looked_up)

    @cached_property
    def rules_of_rows(self) -> tuple[Rule, ...]:
        """Rules that a row can break by itself: rows that do are drawn again."""
        return tuple(r for r in self.schema.rules if r.kind != "dependency" and not self._is_looked_up(r))

    @cached_property
    def rules_at_risk(self) -> tuple[Rule, ...]:
        """Rules that only all rows together keep or break, and that nothing here makes sure of."""
        known = {frozenset((name, source)) for name, (source, pairs) in self.looked_up.items() if _one_to_one(pairs)}
        at_risk = (r for r in self.schema.rules if r.kind == "dependency" and not self._is_looked_up(r))
        return tuple(rule for rule in at_risk if frozenset(rule.columns) not in known)

    def _is_looked_up(self, rule: Rule) -> bool:
        return self.looked_up.get(rule.columns[1], ("",))[0] == rule.columns[0]

    def completed(self, values: pd.DataFrame, first: int) -> pd.DataFrame:
        """All columns of rows whose modelled ones are given; ids count from `first`."""
        columns: dict[str, Any] = {}
        for column in self.schema.columns:
            if column.name in self.looked_up:
                source, pairs = self.looked_up[column.name]
                columns[column.name] = values[source].astype(object).map(pairs)
            elif column.kind == "id":
                columns[column.name] = np.arange(first, first + len(values))
            else:
                columns[column.name] = "" if column.kind == "text" else values[column.name]
        return self.schema.cast(pd.DataFrame(columns, index=values.index))

    def keeps_rules(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows (N,) keep the rules that a row can break by itself."""
        kept = np.ones(len(frame), dtype=bool)
        for rule in self.rules_of_rows:
            rows = frame[list(rule.columns)]
            whole = rows.notna().all(axis=1).to_numpy()
            first, second = (rows.loc[whole, name] for name in rule.columns)
            if rule.kind == "inequality":
                kept[whole] &= (first <= second).to_numpy(dtype=bool)
            else:
                allowed = set(rule.pairs)
                kept[whole] &= np.array([pair in allowed for pair in zip(first, second, strict=True)], dtype=bool)
        return kept

    def matches(self, frame: pd.DataFrame, where: Mapping[str, Any]) -> NDArray[np.bool_]:
        """Which rows (N,) have the values asked for."""
        kept = np.ones(len(frame), dtype=bool)
        for name, value in where.items():
            kept &= (frame[name] == value).to_numpy(dtype=bool, na_value=False)
        return kept

    def check_where(self, where: Mapping[str, Any]) -> dict[str, Any]:
        """The values asked for, numbers and dates read where they are given as text. Raises `InvalidArgument`."""
        checked = {}
        for name, value in where.items():
            if name not in self.schema.names:
                raise InvalidArgument("where", name, f"one of {', '.join(self.schema.names)}")
            column = self.schema[name]
            if column.kind in ("id", "text"):
                raise InvalidArgument("where", name, f"a column that is modelled, not one of kind {column.kind}")
            checked[name] = _value(column, value)
        return checked

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        found = {name: [source, list(map(list, pairs.items()))] for name, (source, pairs) in self.looked_up.items()}
        return {"schema": self.schema.as_toml(), "looked_up": found}

    @classmethod
    def from_json(cls, given: Mapping[str, Any], source: Path) -> Layout:
        """What `as_json` gave."""
        found = {name: (source, dict(pairs)) for name, (source, pairs) in given["looked_up"].items()}
        return cls(Schema.from_text(given["schema"], source=source), found)


def _one_to_one(pairs: Mapping[Any, Any]) -> bool:
    return len(set(pairs.values())) == len(pairs)


def _can_be_looked_up(first: Column, second: Column) -> bool:
    plain = second.kind not in ("id", "text", "datetime")
    return plain and (second.missing or not first.missing)  # where the first is missing, so is the second


def _pairs(rule: Rule, table: Table) -> Mapping[Any, Any]:
    """Which value gives which; nothing where a rule leaves a choice."""
    if rule.kind == "dependency":
        rows = table.frame[list(rule.columns)].dropna().drop_duplicates()
        pairs = [(a, b if isinstance(b, str) else float(b)) for a, b in rows.itertuples(index=False)]
    else:
        pairs = list(rule.pairs)
    return dict(pairs) if len(dict(pairs)) == len(pairs) else {}


def _value(column: Column, given: Any) -> Any:
    try:
        value = given
        if isinstance(given, str) and column.kind == "numeric":
            value = float(given)
        elif column.kind == "datetime":
            value = pd.Timestamp(given)
    except ValueError:
        raise InvalidArgument(f"where {column.name}", given, column.allowed) from None
    series: pd.Series[Any] = pd.Series([value])
    if bool(series.isna().any()) or list(column.problems(series)):
        raise InvalidArgument(f"where {column.name}", given, column.allowed)
    return value
