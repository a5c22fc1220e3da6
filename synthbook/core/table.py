"""What a table may hold, the table itself, and real data that no generator may learn from.

A schema is read from a `schema.toml` that a person reviewed. Its bounds and categories are public knowledge, never
taken from the rows they describe: a bound that is the maximum of the data gives away the row that has it.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from synthbook.core.errors import HoldoutError, InvalidArgument, SchemaError
from synthbook.core.storage import atomic_write

# id: a label of a row or of an entity, never modelled. text: free text, modelled only where a text model is named.
KINDS = ("numeric", "categorical", "ordinal", "datetime", "id", "text")
_CONSTRAINT_KINDS = ("dependency", "inequality", "pairs")


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
        require(isinstance(self.name, str) and self.name != "", f"name = {self.name!r}: give a column's name")
        where = f"column {self.name!r}: "
        require(self.kind in KINDS, f"{where}kind = {self.kind!r}: give one of {', '.join(KINDS)}")
        named = self.kind in ("categorical", "ordinal")
        require(named == bool(self.categories), f"{where}categorical and ordinal columns list categories, others none")
        require(all(isinstance(c, str) for c in self.categories), f"{where}categories are strings, as they are spelt")
        require(len(set(self.categories)) == len(self.categories), f"{where}a category is listed twice")
        require(type(self.missing) is bool and type(self.integer) is bool, f"{where}missing, integer: true or false")
        require(self.kind == "numeric" or not self.integer, f"{where}only a numeric column can be integer")
        self._check_bounds(where)

    def _check_bounds(self, where: str) -> None:
        bounds = [bound for bound in (self.lower, self.upper) if bound is not None]
        if self.kind == "numeric":
            require(len(bounds) == 2 and all(_is_number(b) for b in bounds), f"{where}give a finite lower and upper")
            whole = all(float(b).is_integer() and abs(b) <= 2**53 for b in bounds) if self.integer else True  # type: ignore[arg-type]
            require(whole, f"{where}an integer column has whole bounds of at most 2**53, which floats hold exactly")
        elif self.kind == "datetime":
            naive = all(isinstance(b, datetime) and b.tzinfo is None for b in bounds)
            require(naive, f"{where}lower and upper are dates with times, without a time zone")
        else:
            require(not bounds, f"{where}a column of kind {self.kind} has no bounds")
        require(len(bounds) < 2 or bounds[0] <= bounds[1], f"{where}lower lies above upper")  # type: ignore[operator]

    @property
    def dtype(self) -> Any:
        """The pandas type this column has in a `Table`; None where it stays as it came (id, text)."""
        if self.kind == "numeric":
            return ("Int64" if self.missing else "int64") if self.integer else "float64"
        if self.categories:
            return pd.CategoricalDtype(list(self.categories), ordered=self.kind == "ordinal")
        return "datetime64[us]" if self.kind == "datetime" else None

    @property
    def allowed_values(self) -> str:
        """A description of the allowed values."""
        if self.kind == "numeric":
            return f"{'whole ' if self.integer else ''}numbers from {self.lower} to {self.upper}"
        if self.categories:
            more = ", ..." if len(self.categories) > 12 else ""
            return f"one of {len(self.categories)} strings: {', '.join(self.categories[:12])}{more}"
        if self.kind == "datetime":
            return f"dates (datetime64 without time zone) from {self.lower or 'any'} to {self.upper or 'any'}"
        return "strings or whole numbers" if self.kind == "id" else "strings"

    def iter_errors(self, values: pd.Series[Any]) -> Iterator[str]:
        """One message for each way in which `values` violate this column's declaration."""
        where, present = f"column {self.name!r}: ", values.dropna()
        absent = len(values) - len(present)
        if absent and not self.missing:
            yield f"{where}{absent} values are missing, which is not allowed"
        if len(present) and not self._is_of_kind(present):
            yield f"{where}holds {types.infer_dtype(present)} ({values.dtype}); allowed: {self.allowed_values}"
        elif len(bad := present[~self._inside(present)]):
            shown = ", ".join(f"{value!r} in row {row!r}" for row, value in bad.head(3).to_dict().items())
            yield f"{where}{len(bad)} values are not allowed, such as {shown}; allowed: {self.allowed_values}"

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
class Constraint:
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
        require(
            self.kind in _CONSTRAINT_KINDS, f"rule: kind = {self.kind!r}: give one of {', '.join(_CONSTRAINT_KINDS)}"
        )
        require(len(set(self.columns)) == len(self.columns) == 2, f"rule {self.kind}: give two different columns")
        require((self.kind == "pairs") == bool(self.pairs), f"rule {self.kind}: only a rule of kind pairs lists pairs")

    def count_violations(self, frame: pd.DataFrame) -> int:
        """The number of rows that violate the rule; for a dependency, all rows with an ambiguous first value."""
        rows = frame[list(self.columns)].dropna()
        first, second = rows[self.columns[0]], rows[self.columns[1]]
        if self.kind == "inequality":
            return int((first > second).sum())
        if self.kind == "pairs":
            allowed = set(self.pairs)
            return sum(pair not in allowed for pair in zip(first, second, strict=True))
        seconds_of = second.astype(object).groupby(first.astype(object)).transform("nunique")
        return int((seconds_of > 1).sum())


def require(holds: bool, message: str) -> None:
    """Raise a `SchemaError` unless the condition holds."""
    if not holds:
        raise SchemaError(message)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# ── Schema, Table, Holdout ──


__all__ = ["Column", "Constraint", "Holdout", "Schema", "Table", "refuse_holdout"]

_ORIGINS = ("public", "inferred")
T = TypeVar("T")


@dataclass(frozen=True)
class Schema:
    """Columns in order, rules between them, and who said so.

    `origin` is "public" (a person reviewed it and vouches that nothing in it comes from the rows) or "inferred"
    (drafted from the rows; private code refuses it). `entity` names the column that identifies a person or thing with
    several rows, the unit of privacy and of every split; None when each row is its own.
    """

    columns: tuple[Column, ...]
    origin: str
    rules: tuple[Constraint, ...] = ()
    entity: str | None = None

    def __post_init__(self) -> None:
        require(self.origin in _ORIGINS, f"origin = {self.origin!r}: give one of {', '.join(_ORIGINS)}")
        require(len(self.columns) > 0, "a schema has at least one column")
        require(len(set(self.names)) == len(self.names), "two columns have the same name")
        require(self.entity is None or self.entity in self.names, f"entity = {self.entity!r}: give one of {self.names}")
        for rule in self.rules:
            self._check_rule(rule)

    def _check_rule(self, rule: Constraint) -> None:
        kinds = [self[name].kind for name in rule.columns]
        comparable = kinds in (["numeric"] * 2, ["datetime"] * 2)
        require(rule.kind != "inequality" or comparable, f"rule inequality: {rule.columns} cannot be compared")
        for name, values in zip(rule.columns, zip(*rule.pairs, strict=True), strict=False):
            for problem in self[name].iter_errors(pd.Series(values)):
                raise SchemaError(f"rule pairs: {problem}")

    @property
    def names(self) -> list[str]:
        """The columns' names, in order."""
        return [column.name for column in self.columns]

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise SchemaError(f"column {name!r} is not in the schema; its columns are {', '.join(self.names)}")

    def drop_column(self, name: str) -> Schema:
        """The schema without one column and the rules that name it."""
        columns = tuple(column for column in self.columns if column.name != self[name].name)
        rules = tuple(rule for rule in self.rules if name not in rule.columns)
        return Schema(columns, self.origin, rules, None if self.entity == name else self.entity)

    def validate(self, frame: pd.DataFrame) -> None:
        """Raise a `SchemaError` that lists everything in which the frame and this schema disagree."""
        iter_errors = [f"column {name!r} is missing" for name in self.names if name not in frame.columns]
        iter_errors += [f"column {name!r} is not in the schema" for name in frame.columns if name not in self.names]
        iter_errors += [f"column {name!r} occurs twice" for name in frame.columns[frame.columns.duplicated()]]
        if not iter_errors:
            iter_errors = [problem for column in self.columns for problem in column.iter_errors(frame[column.name])]
        if not iter_errors:
            count_violations = {rule: rule.count_violations(frame) for rule in self.rules}
            iter_errors = [f"{n} rows break the rule {r.kind}{r.columns}" for r, n in count_violations.items() if n]
        if iter_errors:
            raise SchemaError("the table does not fit its schema:\n- " + "\n- ".join(iter_errors))

    def cast(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A copy of a valid frame with the schema's column order and pandas types; the index is kept."""
        wanted = {column.name: column.dtype for column in self.columns if column.dtype is not None}
        return frame[self.names].astype(wanted).copy()

    @classmethod
    def from_toml(cls, path: Path) -> Schema:
        """Read and check a `schema.toml`; a `SchemaError` names the file and what is wrong in it."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SchemaError(f"{path} cannot be read as a schema: {error}") from error
        return cls.from_text(text, source=path)

    @classmethod
    def from_text(cls, text: str, *, source: Path) -> Schema:
        """The schema in TOML text; `source` is the file that errors name."""
        try:
            parts = tomllib.loads(text)
            columns = tuple(Column(**row) for row in parts.pop("column", ()))
            return cls(columns=columns, rules=tuple(Constraint(**row) for row in parts.pop("rule", ())), **parts)
        except (ValueError, TypeError, LookupError) as error:  # a SchemaError is a ValueError
            raise SchemaError(f"{source} is not a schema: {error}") from error

    def to_toml(self, path: Path | None = None) -> str:
        """TOML text that `from_text` reads back to an equal schema; it is also written to `path` if one is given."""
        lines = [f"origin = {_toml(self.origin)}"] + ([f"entity = {_toml(self.entity)}"] if self.entity else [])
        for header, rows in (("column", self.columns), ("rule", self.rules)):
            for row in rows:
                filled = {
                    k: v for k, v in asdict(row).items() if v is not None and v is not False and v not in ("", ())
                }
                lines += ["", f"[[{header}]]"] + [f"{key} = {_toml(value)}" for key, value in filled.items()]
        text = "\n".join(lines) + "\n"
        if path is not None:
            atomic_write(path, text)
        return text


def _toml(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one control JSON leaves bare
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else repr(value)


class Table:
    """A frame that fits its schema, and the schema; neither can be changed.

    The frame is checked, copied and cast to the schema's types at construction, and every look at it is a copy: what a
    reader does to `table.frame` never reaches the table. The index is kept; loaders put the row numbers of the source
    there. Raises `SchemaError` when the frame does not fit.
    """

    __slots__ = ("_frame", "_schema")

    def __init__(self, frame: pd.DataFrame, schema: Schema):
        schema.validate(frame)
        self._frame, self._schema = schema.cast(frame), schema

    @property
    def frame(self) -> pd.DataFrame:
        """A copy of all rows."""
        return self._frame.copy()

    @property
    def schema(self) -> Schema:
        """The schema that the rows fit."""
        return self._schema

    def __getitem__(self, name: str) -> pd.Series[Any]:
        """A copy of one column."""
        return self._frame[self._schema[name].name].copy()

    def drop_column(self, name: str) -> Table:
        """The table without one column."""
        return Table(self._frame.drop(columns=name), self._schema.drop_column(name))

    def __len__(self) -> int:
        return len(self._frame)

    def __repr__(self) -> str:
        return f"Table({len(self):,} rows x {len(self._schema.columns)} columns, {self._schema.origin} schema)"


@dataclass(frozen=True)
class Holdout(Generic[T]):
    """Real data kept for testing: `data` may be looked at and scored against, and every `fit` refuses the wrapper."""

    data: T

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]  # every payload of this package has a length


def refuse_holdout(data: object, for_what: str) -> None:
    """Raise a `HoldoutError` if `data` is a `Holdout`, or a list, tuple or split that contains one.

    Every `fit` calls this first. `for_what` ends the sentence "it cannot be used for ...", for instance
    "fitting a Gaussian copula".
    """
    inside = data if isinstance(data, list | tuple) else vars(data).values() if hasattr(data, "__dict__") else ()
    if isinstance(data, Holdout) or any(isinstance(item, Holdout) for item in inside):
        raise HoldoutError(f"this is real data kept for testing; it cannot be used for {for_what}: give the train part")


def check_holdout(data: object) -> None:
    """Raise `InvalidArgument` unless `data` is a `Holdout`; whatever scores against held-out rows calls this first."""
    if not isinstance(data, Holdout):
        kind = type(data).__name__
        raise InvalidArgument("holdout", kind, "a Holdout: real rows that no generator has learned from")


def sample_rows(table: Table, n: int, rng: np.random.Generator) -> Table:
    """`n` random rows of a table in their original order; the table itself where it has no more."""
    if len(table) <= n:
        return table
    return Table(table.frame.iloc[np.sort(rng.choice(len(table), n, replace=False))], table.schema)


# ── The privacy unit: one row, or all rows that share an entity ID ──
# Splits, intervals, contribution bounds and attack scores are all taken by unit: one person's rows on both sides of a
# split, or counted as independent, would make scores optimistic and intervals too narrow.


Codes = NDArray[np.int64]


def unit_codes(table: Table) -> Codes:
    """The index (N,) of each row's privacy unit, numbered from 0 in order of first appearance.

    Raises `SchemaError` if the entity column has missing values.
    """
    entity = table.schema.entity
    if entity is None:
        return np.arange(len(table))
    codes = np.asarray(pd.factorize(table[entity])[0], dtype=np.int64)
    if absent := int((codes < 0).sum()):
        raise SchemaError(f"column {entity!r} says who is one, and {absent} rows do not say whose they are")
    return codes


def n_units(table: Table) -> int:
    """The number of privacy units in a table."""
    return int(unit_codes(table).max(initial=-1)) + 1


def bound_contributions(table: Table, rows: int, rng: np.random.Generator) -> Codes:
    """Sorted indices of at most `rows` random rows per entity (contribution bounding); all rows without an entity."""
    if table.schema.entity is None:
        return np.arange(len(table))
    shuffled = rng.permutation(len(table))
    code: pd.Series[Any] = pd.Series(unit_codes(table)[shuffled])
    return np.sort(shuffled[(code.groupby(code).cumcount() < rows).to_numpy()])


def equalize_rows_per_unit(tables: list[Table], rng: np.random.Generator) -> list[Table]:
    """The tables with k random rows of each unit, so that the maximum scores of units are comparable.

    k is the smallest median of rows per unit among the tables; units with fewer rows are left out.
    """
    k = int(min(np.median(np.bincount(unit_codes(table))) for table in tables))
    equalized = []
    for table in tables:
        codes = unit_codes(table)
        table = Table(table.frame[np.bincount(codes)[codes] >= k], table.schema)
        equalized.append(Table(table.frame.iloc[bound_contributions(table, k, rng)], table.schema))
    return equalized


def sample_units(table: Table, n: int, rng: np.random.Generator) -> Table:
    """All rows of `n` random units, or the table itself if it has no more than `n`."""
    codes, total = unit_codes(table), n_units(table)
    if total <= n:
        return table
    return Table(table.frame.iloc[np.isin(codes, rng.choice(total, n, replace=False))], table.schema)


def split_units(table: Table, rng: np.random.Generator) -> tuple[Table, Table]:
    """Two tables, each with a random half of the units."""
    codes = unit_codes(table)
    first = rng.permutation(codes.max() + 1)[codes] < (codes.max() + 1) // 2
    return Table(table.frame[first], table.schema), Table(table.frame[~first], table.schema)


def max_score_per_unit(table: Table, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The maximum score (units,) over each unit's rows."""
    highest = np.full(n_units(table), -np.inf)
    np.maximum.at(highest, unit_codes(table), scores)
    return highest
