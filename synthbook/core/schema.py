"""What a table may hold, the table itself, and real data that no generator may learn from.

A schema is read from a `schema.toml` that a person reviewed. Its bounds and categories are public knowledge, never
taken from the rows they describe: a bound that is the maximum of the data gives away the row that has it.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd

from synthbook.core.columns import Column, Rule, demand
from synthbook.core.errors import HoldoutError, SchemaError
from synthbook.core.files import atomic_write

__all__ = ["Column", "Holdout", "Rule", "Schema", "Table", "refuse_holdout"]

ORIGINS = ("public", "inferred")
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
    rules: tuple[Rule, ...] = ()
    entity: str | None = None

    def __post_init__(self) -> None:
        demand(self.origin in ORIGINS, f"origin = {self.origin!r}: give one of {', '.join(ORIGINS)}")
        demand(len(self.columns) > 0, "a schema has at least one column")
        demand(len(set(self.names)) == len(self.names), "two columns have the same name")
        demand(self.entity is None or self.entity in self.names, f"entity = {self.entity!r}: give one of {self.names}")
        for rule in self.rules:
            self._check_rule(rule)

    def _check_rule(self, rule: Rule) -> None:
        kinds = [self[name].kind for name in rule.columns]
        comparable = kinds in (["numeric"] * 2, ["datetime"] * 2)
        demand(rule.kind != "inequality" or comparable, f"rule inequality: {rule.columns} cannot be compared")
        for name, values in zip(rule.columns, zip(*rule.pairs, strict=True), strict=False):
            for problem in self[name].problems(pd.Series(values)):
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

    def without(self, name: str) -> Schema:
        """The same without one column, and without the rules that name it."""
        kept = tuple(column for column in self.columns if column.name != self[name].name)
        rules = tuple(rule for rule in self.rules if name not in rule.columns)
        return Schema(kept, self.origin, rules, None if self.entity == name else self.entity)

    def validate(self, frame: pd.DataFrame) -> None:
        """Raise a `SchemaError` that lists everything in which the frame and this schema disagree."""
        problems = [f"column {name!r} is missing" for name in self.names if name not in frame.columns]
        problems += [f"column {name!r} is not in the schema" for name in frame.columns if name not in self.names]
        problems += [f"column {name!r} occurs twice" for name in frame.columns[frame.columns.duplicated()]]
        if not problems:
            problems = [problem for column in self.columns for problem in column.problems(frame[column.name])]
        if not problems:
            broken = {rule: rule.broken(frame) for rule in self.rules}
            problems = [f"{n} rows break the rule {r.kind}{r.columns}" for r, n in broken.items() if n]
        if problems:
            raise SchemaError("the table does not fit its schema:\n- " + "\n- ".join(problems))

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
            return cls(columns=columns, rules=tuple(Rule(**row) for row in parts.pop("rule", ())), **parts)
        except (ValueError, TypeError, LookupError) as error:  # a SchemaError is a ValueError
            raise SchemaError(f"{source} is not a schema: {error}") from error

    def to_toml(self, path: Path) -> Path:
        """Write `as_toml` into a file."""
        return atomic_write(path, self.as_toml())

    def as_toml(self) -> str:
        """TOML that `from_toml` reads back to an equal schema, without values at their default."""
        lines = [f"origin = {_toml(self.origin)}"] + ([f"entity = {_toml(self.entity)}"] if self.entity else [])
        for header, rows in (("column", self.columns), ("rule", self.rules)):
            for row in rows:
                filled = {key: value for key, value in asdict(row).items() if _is_filled(value)}
                lines += ["", f"[[{header}]]"] + [f"{key} = {_toml(value)}" for key, value in filled.items()]
        return "\n".join(lines) + "\n"


def _is_filled(value: object) -> bool:
    return value is not None and value is not False and value not in ("", ())


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
        """What the columns may hold."""
        return self._schema

    def __getitem__(self, name: str) -> pd.Series[Any]:
        """A copy of one column."""
        return self._frame[self._schema[name].name].copy()

    def without(self, name: str) -> Table:
        """The same without one column."""
        return Table(self._frame.drop(columns=name), self._schema.without(name))

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
