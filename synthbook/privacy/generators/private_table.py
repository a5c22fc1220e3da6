"""What every private generator of tables does before and after it learns: refuse, pay, bound, and say what it promises.

Nothing of the rows sets a bound, a bin, a category or a pair that is looked up: all that comes from the schema.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from synthbook.core import checkpoints
from synthbook.core.errors import InvalidArgument
from synthbook.core.provenance import Provenance
from synthbook.core.resume import Keep
from synthbook.core.schema import Table
from synthbook.core.units import at_most, unit_codes
from synthbook.models.settings import check_count
from synthbook.models.tabular.layout import Layout
from synthbook.models.tabular.protocol import Observer, Seed, TableGenerator, Training, child, sequence
from synthbook.privacy.accounting import ADD_REMOVE
from synthbook.privacy.budget import Budget
from synthbook.privacy.generators.bins import Cells
from synthbook.privacy.generators.terms import (
    SYSTEM,
    TEACHING,
    PrivateConfig,
    Terms,
    check_private,
    check_seed,
    unit_of,
)

BOUNDING, NOISE = 2**31 + 2, 2**31 + 3  # children of a fit's seed


class PrivateTable(TableGenerator):
    """After `fit` or `load`: `terms_`, the promise in full."""

    settings = PrivateConfig
    public_only = True

    @abstractmethod
    def _learn(self, frame: pd.DataFrame, seed: np.random.SeedSequence, training: Training) -> Terms:
        """Learn privately from rows of which no entity has too many; what was promised."""

    def fit(
        self,
        table: Table,
        *,
        seed: Seed | None,
        steps: int | None = None,
        keep: Keep | None = None,
        observe: Observer | None = None,
        budget: Budget | None = None,
    ) -> Self:
        """Learn from a table, as all generators do, once `budget` has paid for it.

        A model for release draws its noise from the system: its seed is None, and nothing of its training is kept.
        Raises before any row is used: `Exhausted`, `HoldoutError`, `InvalidArgument`, `SchemaError` for a schema that
        was inferred from the rows.
        """
        what = f"fitting {type(self).__name__}"
        n = check_private(table, self.config, what)
        check_seed(self.config, seed, keep)
        self._check_steps(steps)
        for column in Layout.of(table, public_only=True).modelled:
            Cells.of(column)  # refuses what has no public bounds
        self._check(table, n, steps)
        if budget is not None:
            budget.spend(what, self.config.epsilon, self.config.delta, **self._told())
        root = np.random.SeedSequence() if seed is None else sequence(seed)
        rows = at_most(table, self.config.rows_per_entity, np.random.default_rng(child(root, BOUNDING)))
        bounded = Table(table.frame.iloc[rows], table.schema)
        self._unit_of = unit_codes(bounded)  # (N,)
        try:
            return super().fit(bounded, seed=root, steps=steps, keep=keep, observe=observe)
        finally:
            del self._unit_of

    def _check_steps(self, steps: int | None) -> None:
        if steps is not None and not hasattr(self.config, "steps"):
            raise InvalidArgument("steps", steps, f"none: {type(self).__name__} does not train in steps")
        if steps is not None:
            check_count("steps", steps)

    def _check(self, table: Table, n: int, steps: int | None) -> None:
        """Refuse settings that do not fit this table, before anything is paid."""

    def _told(self) -> dict[str, Any]:
        told = asdict(self.config)
        return {name: value for name, value in told.items() if name not in ("epsilon", "delta") and value is not None}

    def _fit(self, frame: pd.DataFrame, seed: np.random.SeedSequence, training: Training) -> None:
        self.terms_ = self._learn(frame, seed, training)

    def _terms(self, accountant: str, *, steps: int, rate: float = 1.0, noise: float, clip: float) -> Terms:
        config, entity = self.config, self.layout_.schema.entity
        return Terms(
            epsilon=config.epsilon,
            delta=config.delta,
            neighbours=ADD_REMOVE if entity is None else f"add or remove one {entity}",
            unit=unit_of(self.layout_.schema, config.rows_per_entity),
            accountant=accountant,
            steps=steps,
            sample_rate=rate,
            noise_multiplier=noise,
            clip=clip,
            noise=SYSTEM if config.release else TEACHING,
        )

    def save(self, folder: Path, origin: Provenance) -> Path:
        """Write `model.json`, which states the promise, and `model.safetensors`.

        Raises `NotForRelease` for a model with `release` whose `terms_` say nothing of an audit.
        """
        return super().save(folder, self.terms_.beside(origin) if hasattr(self, "terms_") else origin)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises `DataError` for anything else."""
        model = super().load(folder)
        model.terms_ = Terms.of(checkpoints.provenance(folder))
        return model
