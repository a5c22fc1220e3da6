"""The base class of generators of tables.

model = Copula().fit(adult().train, seed=0)
model.sample(1_000, seed=1, where={"income": ">50K"})
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synthbook.core.checkpoints import CheckpointConfig
from synthbook.core.errors import InvalidArgument, SchemaError, SynthbookError
from synthbook.core.schema_draft import draft_table
from synthbook.core.storage import Provenance, sha256, write_with_provenance
from synthbook.core.table import Column, Constraint, Schema, Table, refuse_holdout
from synthbook.core.types import Callback, Seed, child_seed, seed_sequence
from synthbook.generators.base import Generator, Progress, Tensors, check_positive_int

# ── What of a table is modeled, and how the rest comes back ──
# Ids are counted anew from 1. Free text is left empty. A column that a rule fixes, as Adult's education fixes
# education-num, is looked up. All other columns are modeled, and rows that break another rule are drawn again.


@dataclass(frozen=True, eq=False)
class TableSpec:
    """`derived`: for each column that another one fixes, that column's name, and which value gives which."""

    schema: Schema
    derived: Mapping[str, tuple[str, Mapping[Any, Any]]]

    @classmethod
    def of(cls, table: Table, *, public_only: bool = False) -> TableSpec:
        """What is modeled of this table; with `public_only`, no row is looked at, and only listed pairs look up.

        Raises `SchemaError` where nothing is left to model.
        """
        schema, derived = table.schema, dict[str, tuple[str, Mapping[Any, Any]]]()
        for rule in schema.rules:
            first, second = (schema[name] for name in rule.columns)
            sources = {source for source, _ in derived.values()}
            known = rule.kind == "pairs" or not public_only
            free = known and first.name not in derived and second.name not in derived and second.name not in sources
            plain = second.kind not in ("id", "text", "datetime")
            missing_alike = second.missing or not first.missing  # where the first is missing, so is the second
            pairs = _pairs(rule, table) if free and first.categories and plain and missing_alike else {}
            if pairs:
                derived[second.name] = (first.name, pairs)
        spec = cls(schema, derived)
        if not spec.modeled:
            raise SchemaError("every column is an id or free text: nothing is left to model")
        return spec

    @cached_property
    def modeled(self) -> tuple[Column, ...]:
        """The columns that a generator learns, in the schema's order."""
        return tuple(c for c in self.schema.columns if c.kind not in ("id", "text") and c.name not in self.derived)

    @cached_property
    def row_rules(self) -> tuple[Constraint, ...]:
        """Rules that a row can break by itself: rows that do are drawn again."""
        return tuple(r for r in self.schema.rules if r.kind != "dependency" and not self._is_looked_up(r))

    @cached_property
    def unenforced_rules(self) -> tuple[Constraint, ...]:
        """Rules that only all rows together keep or break, and that nothing here makes sure of."""
        known = {
            frozenset((name, source))
            for name, (source, pairs) in self.derived.items()
            if len(set(pairs.values())) == len(pairs)  # one to one
        }
        at_risk = (r for r in self.schema.rules if r.kind == "dependency" and not self._is_looked_up(r))
        return tuple(rule for rule in at_risk if frozenset(rule.columns) not in known)

    def _is_looked_up(self, rule: Constraint) -> bool:
        return self.derived.get(rule.columns[1], ("",))[0] == rule.columns[0]

    def completed(self, values: pd.DataFrame, first: int) -> pd.DataFrame:
        """All columns of rows whose modeled ones are given; ids count from `first`."""
        columns: dict[str, Any] = {}
        for column in self.schema.columns:
            if column.name in self.derived:
                source, pairs = self.derived[column.name]
                columns[column.name] = values[source].astype(object).map(pairs)
            elif column.kind == "id":
                columns[column.name] = np.arange(first, first + len(values))
            else:
                columns[column.name] = "" if column.kind == "text" else values[column.name]
        return self.schema.cast(pd.DataFrame(columns, index=values.index))

    def satisfies_rules(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows (N,) keep the rules that a row can break by itself."""
        satisfied = np.ones(len(frame), dtype=bool)
        for rule in self.row_rules:
            rows = frame[list(rule.columns)]
            whole = rows.notna().all(axis=1).to_numpy()
            first, second = (rows.loc[whole, name] for name in rule.columns)
            if rule.kind == "inequality":
                satisfied[whole] &= (first <= second).to_numpy(dtype=bool)
            else:
                allowed = set(rule.pairs)
                satisfied[whole] &= np.array([pair in allowed for pair in zip(first, second, strict=True)], dtype=bool)
        return satisfied

    def matches(self, frame: pd.DataFrame, where: Mapping[str, Any]) -> NDArray[np.bool_]:
        """Which rows (N,) have the values asked for."""
        matching = np.ones(len(frame), dtype=bool)
        for name, value in where.items():
            matching &= (frame[name] == value).to_numpy(dtype=bool, na_value=False)
        return matching

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

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        derived = {name: [source, list(map(list, pairs.items()))] for name, (source, pairs) in self.derived.items()}
        return {"schema": self.schema.to_toml(), "looked_up": derived}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], source: Path) -> TableSpec:
        """What `as_json` gave."""
        derived = {name: (source, dict(pairs)) for name, (source, pairs) in given["looked_up"].items()}
        return cls(Schema.from_text(given["schema"], source=source), derived)


def _pairs(rule: Constraint, table: Table) -> Mapping[Any, Any]:
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
        raise InvalidArgument(f"where {column.name}", given, column.allowed_values) from None
    series: pd.Series[Any] = pd.Series([value])
    if bool(series.isna().any()) or list(column.iter_errors(series)):
        raise InvalidArgument(f"where {column.name}", given, column.allowed_values)
    return value


# ── The base class ──


SAMPLE_BATCH_SIZE = 4_000  # rows at a time
_MAX_DRAWS_PER_ROW = 200  # rows drawn for each that is kept, before giving up


class RejectionSamplingError(SynthbookError):
    """Rejection sampling accepts too few rows."""


class TableGenerator(Generator):
    """The common part of generators of tables; after `fit` or `load`: `table_spec_`, what of the table is modeled.

    A subclass implements `_fit`, `_draw`, `_state` and `_set_state`, which see the modeled columns only.
    """

    data_kind, suffix = "table", ".csv"
    public_only: ClassVar[bool] = False  # whether what is looked up must stand in the schema

    @abstractmethod
    def _fit(
        self,
        frame: pd.DataFrame,
        seed: np.random.SeedSequence,
        *,
        steps: int | None,
        checkpoint: CheckpointConfig | None,
        callback: Callback | None,
    ) -> None:
        """Learn from the modeled columns, valid and of the schema's types."""

    @abstractmethod
    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        """At most `n` rows of the modeled columns; `where` is a hint, as rows that differ are rejected later."""

    @abstractmethod
    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        """What sampling needs, as tensors and plain JSON."""

    @abstractmethod
    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        """Take what `_state` returned."""

    def fit(
        self,
        data: Any,
        *,
        seed: Seed,
        steps: int | None = None,
        checkpoint: CheckpointConfig | None = None,
        callback: Callback | None = None,
    ) -> Self:
        """Learn from a table, or from a pandas frame, whose schema is drafted from its rows with a warning.

        `steps` and `checkpoint` are for families that train in steps; `steps` overrides the configuration's. The same
        seed, machine and number of threads give the same model. Raises `HoldoutError`, `InvalidArgument`,
        `SchemaError`, `TrainingDiverged`.
        """
        refuse_holdout(data, f"fitting {type(self).__name__}")
        if isinstance(data, pd.DataFrame):
            data = draft_table(data)
            warnings.warn(
                'schema drafted from the rows (origin "inferred"): review its bounds, categories and rules',
                stacklevel=2,
            )
        if not isinstance(data, Table):
            raise InvalidArgument("data", type(data).__name__, "a Table (rows and their schema), or a pandas frame")
        if len(data) < 2:
            raise InvalidArgument("data", f"{len(data)} rows", "at least 2")
        if steps is not None and not hasattr(self.config, "steps"):
            raise InvalidArgument("steps", steps, f"none: {type(self).__name__} does not train in steps")
        self.table_spec_ = TableSpec.of(data, public_only=self.public_only)
        frame = data.frame[[column.name for column in self.table_spec_.modeled]].reset_index(drop=True)
        # of pandas' row hashes, as writing CSV takes ten times as long
        hashes = b"" if self.private else pd.util.hash_pandas_object(data.frame, index=False).to_numpy().tobytes()
        self._describe_fit(seed, steps, sha256(hashes))
        self._fit(frame, seed_sequence(seed), steps=steps, checkpoint=checkpoint, callback=callback)
        return self

    def sample(self, n: int, *, seed: Seed, where: Mapping[str, Any] | None = None) -> Table:
        """`n` rows, all with the values of `where`, such as {"income": ">50K"}.

        Raises `NotFittedError`, `InvalidArgument`, and `RejectionSamplingError` where such rows hardly ever come.
        """
        parts = list(self.stream(n, seed=seed, where=where))
        frame = pd.concat(parts, ignore_index=True)
        schema, broken = self.table_spec_.schema, []
        for rule in self.table_spec_.unenforced_rules:
            if n_broken := rule.count_violations(frame):
                warnings.warn(f"{n_broken} rows break the rule {rule.kind}{rule.columns}", stacklevel=2)
                broken.append(rule)
        satisfied = tuple(rule for rule in schema.rules if rule not in broken)
        return Table(frame, replace(schema, rules=satisfied))

    def stream(self, n: int, *, seed: Seed, where: Mapping[str, Any] | None = None) -> Iterator[pd.DataFrame]:
        """The rows of `sample` as frames of at most 4,000, in bounded memory."""
        self._check_fitted()
        check_positive_int("n", n)
        return self._stream(int(n), seed_sequence(seed), self.table_spec_.check_where(where or {}))

    def _stream(self, n: int, root: np.random.SeedSequence, where: Mapping[str, Any]) -> Iterator[pd.DataFrame]:
        accepted = drawn = chunk = 0
        while accepted < n:
            # where no row is sent back, as many as are wanted
            size = SAMPLE_BATCH_SIZE if where or self.table_spec_.row_rules else min(SAMPLE_BATCH_SIZE, n - accepted)
            frame = self.table_spec_.completed(self._draw(size, child_seed(root, chunk), where), accepted + 1)
            frame = frame[self.table_spec_.satisfies_rules(frame) & self.table_spec_.matches(frame, where)].iloc[
                : n - accepted
            ]
            accepted, drawn, chunk = accepted + len(frame), drawn + size, chunk + 1
            if drawn > _MAX_DRAWS_PER_ROW * (accepted + SAMPLE_BATCH_SIZE / 10):
                what = " and ".join(f"{name} = {value}" for name, value in where.items()) or "all rules kept"
                raise RejectionSamplingError(
                    f"{accepted} of {drawn:,} rows that {type(self).__name__} drew had {what}: ask for less"
                )
            if len(frame):
                for column in self.table_spec_.schema.columns:
                    if column.kind == "id":
                        frame[column.name] = np.arange(accepted - len(frame) + 1, accepted + 1)
                yield frame.reset_index(drop=True)

    def _write(
        self, path: Path, n: int, provenance: Provenance, callback: Progress, *, seed: Seed, **options: Any
    ) -> Path:
        frames = self.stream(n, seed=seed, **options)  # refuses bad arguments before the file is opened

        def pieces() -> Iterator[str]:
            done = 0
            for frame in frames:
                yield frame.to_csv(index=False, header=done == 0, lineterminator="\n")
                done += len(frame)
                callback(done, n)

        return write_with_provenance(path, pieces(), provenance)

    def _serialize(self) -> tuple[Tensors, dict[str, Any]]:
        tensors, facts = self._state()
        return tensors, {"layout": self.table_spec_.to_dict(), "facts": facts}

    def _restore(self, tensors: Tensors, card: Mapping[str, Any], source: Path) -> None:
        self.table_spec_ = TableSpec.from_dict(card["layout"], source)
        self._set_state(tensors, card["facts"])

    def _data_summary(self) -> str:
        return f"a table with the columns {', '.join(self.table_spec_.schema.names)}"
