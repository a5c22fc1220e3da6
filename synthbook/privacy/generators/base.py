"""What a private generator promises, and what must stand beside everything that is released with its help.

A promise of (epsilon, delta) says nothing without its neighbours, its unit, and how it was accounted. The unit is one
record, or one entity where the schema names a column for it: then each counts with at most so many rows.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from synthbook.core.checkpoints import CheckpointConfig
from synthbook.core.errors import DataError, InvalidArgument, SchemaError, SynthbookError
from synthbook.core.storage import Provenance
from synthbook.core.table import Schema, Table, bound_contributions, n_units, refuse_holdout, unit_codes
from synthbook.core.types import Callback, Seed, child_seed, seed_sequence
from synthbook.generators.base import check_positive_int
from synthbook.generators.tabular.base import TableGenerator, TableSpec
from synthbook.privacy.accounting import ADD_OR_REMOVE_ONE
from synthbook.privacy.generators.discretize import Discretizer
from synthbook.privacy.ledger import PrivacyLedger
from synthbook.privacy.mechanisms import check_delta, check_epsilon_delta

SEEDED_NOISE = "teaching: the noise comes from a seed, and anyone who knows the seed can subtract it"
DPSGD = "pld: Poisson samples, privacy losses convolved"
SYSTEM_ENTROPY = "seeded by the operating system's entropy, and not kept"
_FLOATING = "no protection against attacks on floating-point noise is claimed"


class ReleaseRefused(SynthbookError):
    """Something was made for teaching, or says too little about its privacy, and would be released."""


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """The promise: `epsilon` (infinite for a control without privacy), `delta`, and at most so many rows of an entity.

    With `release`, nothing is drawn from a seed.
    """

    epsilon: float
    delta: float
    max_rows_per_entity: int = 1
    release: bool = False

    def __post_init__(self) -> None:
        check_epsilon_delta(1.0 if self.epsilon == math.inf else self.epsilon, self.delta)
        if not isinstance(self.max_rows_per_entity, int) or self.max_rows_per_entity < 1:
            raise InvalidArgument("max_rows_per_entity", self.max_rows_per_entity, "a whole number of at least 1")
        if self.release and self.epsilon == math.inf:
            raise InvalidArgument("epsilon", self.epsilon, "a finite one: what is released promises something")


@dataclass(frozen=True, kw_only=True)
class PrivacyGuarantee:
    """A generator's promise in full. `steps` T, `sample_rate` q, `noise_multiplier` sigma over `clip` C; `audit`, the
    epsilon that an attack has proved at least, where one was run."""

    epsilon: float
    delta: float
    neighbours: str = ADD_OR_REMOVE_ONE
    unit: str
    accountant: str
    steps: int
    sample_rate: float
    noise_multiplier: float
    clip: float
    noise: str
    floating_point: str = _FLOATING
    audit: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def with_audit(self, epsilon: float) -> PrivacyGuarantee:
        """The same with what an attack has proved. Raises `ReleaseRefused` where that is more than was promised."""
        if epsilon > self.epsilon:
            raise ReleaseRefused(f"an attack has proved epsilon {epsilon:.3g}, and {self.epsilon:.3g} was promised")
        return replace(self, audit=epsilon)

    @classmethod
    def from_provenance(cls, provenance: Provenance) -> PrivacyGuarantee:
        """The guarantee in the provenance of a file or a model. Raises `DataError` for none or another format."""
        if provenance.privacy is None:
            raise DataError("no privacy guarantee is stated: this comes from another kind of model")
        try:
            return cls(**provenance.privacy)
        except TypeError as error:
            raise DataError(f"the privacy guarantee has another format ({error}): fit the model again") from None

    def attach_to(self, provenance: Provenance) -> Provenance:
        """The provenance with this promise, and without a seed where nobody may know it; see `check_release`."""
        if self.epsilon == math.inf:
            raise ReleaseRefused("a control without privacy promises nothing, and is not kept")
        if self.noise != SYSTEM_ENTROPY:
            return replace(provenance, privacy=self.to_dict())
        self.check_release()
        return replace(provenance, privacy=self.to_dict(), seed=None)

    def check_release(self) -> None:
        """Raise `ReleaseRefused` unless the noise is nobody's to know and an audit's bound is stated."""
        if self.noise != SYSTEM_ENTROPY:
            raise ReleaseRefused(f"{self.noise}; fit with release=True and seed=None")
        if self.audit is None:
            raise ReleaseRefused("an audit's lower bound on epsilon is missing: run one, and say what it proved")


def _check_private(table: Table, config: PrivacyConfig, what: str) -> int:
    """The number of units, once a table may be learnt from privately; nothing of its rows has been used by then.

    Raises `HoldoutError`, `InvalidArgument`, and `SchemaError` for a schema that was drafted from the rows.
    """
    refuse_holdout(table, what)
    if not isinstance(table, Table):
        raise InvalidArgument("table", type(table).__name__, "a Table: rows and their schema")
    check_public(table.schema, what)
    if config.max_rows_per_entity > 1 and table.schema.entity is None:
        raise InvalidArgument("max_rows_per_entity", config.max_rows_per_entity, "1: the schema names no entity")
    if len(table) < 2:
        raise InvalidArgument("table", f"{len(table)} rows", "at least 2")
    check_delta(config.delta, n_units(table))
    return n_units(table)


def check_seed(config: PrivacyConfig, seed: object, checkpoint: object) -> None:
    """Raise `InvalidArgument` for a release whose noise somebody could draw again, and for teaching without a seed."""
    if config.release and not (seed is None and checkpoint is None):
        raise InvalidArgument(
            "seed, checkpoint", (seed, checkpoint), "None for release: who knows the seed takes the noise off"
        )
    if not config.release and seed is None:
        raise InvalidArgument("seed", seed, "a seed, or release=True, for which the system gives one")


def check_public(schema: Schema, what: str) -> None:
    """Raise `SchemaError` unless bounds and categories are public."""
    if schema.origin != "public":
        raise SchemaError(
            f"{what}: origin = {schema.origin!r}, so its bounds and categories were read off the rows, and would give"
            ' them away. Review each, replace what only the rows could tell, and write origin = "public"'
        )


def unit_of(schema: Schema, rows: int) -> str:
    """The unit of privacy in words."""
    return "one record" if schema.entity is None else f"one {schema.entity}, with at most {rows} rows"


# ── The base class ──
# Nothing of the rows sets a bound, a bin, a category or a pair that is looked up: all that comes from the schema.


_BOUNDING, NOISE = 2**31 + 2, 2**31 + 3  # children of a fit's seed


class PrivateTableGenerator(TableGenerator):
    """After `fit` or `load`: `guarantee_`, the promise in full."""

    config_class = PrivacyConfig
    public_only = private = True

    @abstractmethod
    def _learn(self, frame: pd.DataFrame, seed: np.random.SeedSequence, **training: Any) -> PrivacyGuarantee:
        """Learn privately from rows of which no entity has too many; what was promised."""

    def fit(
        self,
        data: Table,
        *,
        seed: Seed | None,
        steps: int | None = None,
        checkpoint: CheckpointConfig | None = None,
        callback: Callback | None = None,
        budget: PrivacyLedger | None = None,
    ) -> Self:
        """Learn from a table, as all generators do, once `budget` has paid for it.

        A model for release draws its noise from the system: its seed is None, and nothing of its training is kept.
        Raises before any row is used: `BudgetExceeded`, `HoldoutError`, `InvalidArgument`, `SchemaError` for a schema
        that was inferred from the rows.
        """
        what = f"fitting {type(self).__name__}"
        n = _check_private(data, self.config, what)
        check_seed(self.config, seed, checkpoint)
        self._check_steps(steps)
        for column in TableSpec.of(data, public_only=True).modeled:
            Discretizer.from_column(column)  # refuses what has no public bounds
        self._check(data, n, steps)
        if budget is not None:
            budget.spend(what, self.config.epsilon, self.config.delta, **self._told())
        root = np.random.SeedSequence() if seed is None else seed_sequence(seed)
        rows = bound_contributions(
            data, self.config.max_rows_per_entity, np.random.default_rng(child_seed(root, _BOUNDING))
        )
        bounded = Table(data.frame.iloc[rows], data.schema)
        self._unit_of = unit_codes(bounded)  # (N,)
        try:
            super().fit(bounded, seed=root, steps=steps, checkpoint=checkpoint, callback=callback)
        finally:
            del self._unit_of
        self._describe_fit(seed, steps, "")
        return self

    def _check_steps(self, steps: int | None) -> None:
        if steps is not None and not hasattr(self.config, "steps"):
            raise InvalidArgument("steps", steps, f"none: {type(self).__name__} does not train in steps")
        if steps is not None:
            check_positive_int("steps", steps)

    def _check(self, table: Table, n: int, steps: int | None) -> None:
        """Refuse settings that do not fit this table, before anything is paid."""

    def _told(self) -> dict[str, Any]:
        told = asdict(self.config)
        return {name: value for name, value in told.items() if name not in ("epsilon", "delta") and value is not None}

    def _fit(self, frame: pd.DataFrame, seed: np.random.SeedSequence, **training: Any) -> None:
        self.guarantee_ = self._learn(frame, seed, **training)

    def _guarantee(
        self, accountant: str, *, steps: int, rate: float = 1.0, noise: float, clip: float
    ) -> PrivacyGuarantee:
        config, entity = self.config, self.table_spec_.schema.entity
        return PrivacyGuarantee(
            epsilon=config.epsilon,
            delta=config.delta,
            neighbours=ADD_OR_REMOVE_ONE if entity is None else f"add or remove one {entity}",
            unit=unit_of(self.table_spec_.schema, config.max_rows_per_entity),
            accountant=accountant,
            steps=steps,
            sample_rate=rate,
            noise_multiplier=noise,
            clip=clip,
            noise=SYSTEM_ENTROPY if config.release else SEEDED_NOISE,
        )

    def _attach_guarantee(self, provenance: Provenance) -> Provenance:
        return self.guarantee_.attach_to(provenance)

    @classmethod
    def load(cls, folder: str | Path, **settings: Any) -> Self:
        """Read what `save` wrote. Raises `DataError` for anything else."""
        model = super().load(folder, **settings)
        model.guarantee_ = PrivacyGuarantee.from_provenance(model.provenance_)
        return model
