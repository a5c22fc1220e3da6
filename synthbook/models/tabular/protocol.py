"""What every generator of tables can do: fit, sample, save, load. The families fill in how.

model = Copula().fit(adult().train, seed=0)
model.sample(1_000, seed=1, where={"income": ">50K"})
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from synthbook.core import checkpoints
from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.core.provenance import Provenance
from synthbook.core.resume import Keep
from synthbook.core.schema import Table, refuse_holdout
from synthbook.models.settings import NotFitted, check_count, configured
from synthbook.models.tabular.layout import Layout

Seed = int | np.random.SeedSequence
Tensors = Mapping[str, Any]
Observer = Callable[[int, int, Mapping[str, float]], None]
CHUNK = 4_000  # rows at a time
PATIENCE = 200  # rows drawn for each that is kept, before giving up


class TooRare(SynthbookError):
    """Rows with the values asked for hardly ever come."""


@dataclass(frozen=True)
class Plain:
    """A family without settings."""


class TableGenerator(ABC):
    """A family's common part; `family` is its name in checkpoints, `settings` the class of its settings.

    After `fit` or `load`: `layout_`, what of the table is modelled.
    """

    family: ClassVar[str]
    settings: ClassVar[type] = Plain
    public_only: ClassVar[bool] = False  # whether what is looked up must stand in the schema

    def __init__(self, **settings: Any):
        self.config: Any = configured(self.settings, settings)

    @abstractmethod
    def _fit(self, frame: pd.DataFrame, seed: np.random.SeedSequence, training: Training) -> None:
        """Learn from the modelled columns, valid and of the schema's types."""

    @abstractmethod
    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        """At most `n` rows of the modelled columns; a family that can has them as `where` asks."""

    @abstractmethod
    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        """What sampling needs, as tensors and plain JSON."""

    @abstractmethod
    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        """Take what `_state` gave."""

    def fit(
        self,
        table: Table,
        *,
        seed: Seed,
        steps: int | None = None,
        keep: Keep | None = None,
        observe: Observer | None = None,
    ) -> Self:
        """Learn from a table; `steps` and `keep` are for families that train in steps, and override their settings.

        The same seed, machine and number of threads give the same model. Raises `HoldoutError`, `InvalidArgument`,
        `SchemaError`, `TrainingDiverged`.
        """
        refuse_holdout(table, f"fitting {type(self).__name__}")
        if not isinstance(table, Table):
            raise InvalidArgument("table", type(table).__name__, "a Table: rows and their schema")
        if len(table) < 2:
            raise InvalidArgument("table", f"{len(table)} rows", "at least 2")
        if steps is not None and not hasattr(self.config, "steps"):
            raise InvalidArgument("steps", steps, f"none: {type(self).__name__} does not train in steps")
        self.layout_ = Layout.of(table, public_only=self.public_only)
        frame = table.frame[[column.name for column in self.layout_.modelled]].reset_index(drop=True)
        self._fit(frame, sequence(seed), Training(steps, keep, observe))
        return self

    def sample(self, n: int, *, seed: Seed, where: Mapping[str, Any] | None = None) -> Table:
        """`n` rows, all with the values of `where`, such as {"income": ">50K"}.

        Raises `NotFitted`, `InvalidArgument`, and `TooRare` where such rows hardly ever come.
        """
        parts = list(self.stream(n, seed=seed, where=where))
        frame = pd.concat(parts, ignore_index=True)
        schema, broken = self.layout_.schema, []
        for rule in self.layout_.rules_at_risk:
            if n_broken := rule.broken(frame):
                warnings.warn(f"{n_broken} rows break the rule {rule.kind}{rule.columns}", stacklevel=2)
                broken.append(rule)
        kept = tuple(rule for rule in schema.rules if rule not in broken)
        return Table(frame, replace(schema, rules=kept))

    def stream(self, n: int, *, seed: Seed, where: Mapping[str, Any] | None = None) -> Iterator[pd.DataFrame]:
        """The rows of `sample` as frames of at most 4,000, in bounded memory."""
        if not hasattr(self, "layout_"):
            raise NotFitted(f"this {type(self).__name__} has seen no data: fit it, or load one that was fitted")
        check_count("n", n)
        return self._stream(int(n), sequence(seed), self.layout_.check_where(where or {}))

    def _stream(self, n: int, root: np.random.SeedSequence, where: Mapping[str, Any]) -> Iterator[pd.DataFrame]:
        kept = drawn = chunk = 0
        while kept < n:
            # where no row is sent back, as many as are wanted
            size = CHUNK if where or self.layout_.rules_of_rows else min(CHUNK, n - kept)
            frame = self.layout_.completed(self._draw(size, child(root, chunk), where), kept + 1)
            frame = frame[self.layout_.keeps_rules(frame) & self.layout_.matches(frame, where)].iloc[: n - kept]
            kept, drawn, chunk = kept + len(frame), drawn + size, chunk + 1
            if drawn > PATIENCE * (kept + CHUNK / 10):
                what = " and ".join(f"{name} = {value}" for name, value in where.items()) or "all rules kept"
                raise TooRare(f"{kept} of {drawn:,} rows that {type(self).__name__} drew had {what}: ask for less")
            if len(frame):
                for column in self.layout_.schema.columns:
                    if column.kind == "id":
                        frame[column.name] = np.arange(kept - len(frame) + 1, kept + 1)
                yield frame.reset_index(drop=True)

    def save(self, folder: Path, origin: Provenance) -> Path:
        """Write `model.json` and `model.safetensors`; the same model gives the same bytes."""
        if not hasattr(self, "layout_"):
            raise NotFitted(f"this {type(self).__name__} has seen no data: there is nothing to save")
        tensors, facts = self._state()
        card = {"config": asdict(self.config), "layout": self.layout_.as_json(), "facts": facts}
        return checkpoints.save(folder, tensors, card, model=self.family, provenance=origin)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises `DataError` for anything else."""
        tensors, card = checkpoints.load(folder, model=cls.family)
        model = cls(**card["config"])
        model.layout_ = Layout.from_json(card["layout"], Path(folder) / checkpoints.CARD)
        model._set_state(tensors, card["facts"])
        return model


@dataclass(frozen=True)
class Training:
    """What `fit` was told about the training itself."""

    steps: int | None
    keep: Keep | None
    observe: Observer | None


def sequence(seed: Seed) -> np.random.SeedSequence:
    return seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)


def child(root: np.random.SeedSequence, k: int) -> np.random.SeedSequence:
    """Child k of a seed: it depends on nothing but the seed and k."""
    return np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, k))
