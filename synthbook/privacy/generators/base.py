"""Privacy guarantees, and the base classes of private generators.

An (epsilon, delta) means nothing without its neighboring relation, its privacy unit and its accountant; they are stored
beside everything that is released. The unit is one record, or one entity where the schema names a column for it; then
each entity contributes a bounded number of rows.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from synthbook.core.checkpoints import CheckpointConfig
from synthbook.core.errors import DataError, InvalidArgument, SchemaError, SynthbookError
from synthbook.core.storage import Provenance
from synthbook.core.table import Holdout, Schema, Table, bound_contributions, n_units, refuse_holdout, unit_codes
from synthbook.core.types import Callback, Seed, child_seed, seed_sequence
from synthbook.generators.base import Generator, check_positive_int
from synthbook.generators.tabular.base import TableGenerator, TableSpec
from synthbook.privacy.accounting import ADD_OR_REMOVE_ONE
from synthbook.privacy.attacks.release_audit import ReleaseAudit, audit
from synthbook.privacy.generators.discretize import Discretizer
from synthbook.privacy.ledger import PrivacyLedger
from synthbook.privacy.mechanisms import check_delta, check_epsilon_delta

SEEDED_NOISE = "teaching: the noise comes from a seed, and anyone who knows the seed can subtract it"
DPSGD = "pld: Poisson samples, privacy losses convolved"
SYSTEM_ENTROPY = "seeded by the operating system's entropy, and not kept"
_FLOATING_POINT = "no protection against attacks on floating-point noise is claimed"
_BOUNDING_STREAM, NOISE_STREAM = 2**31 + 2, 2**31 + 3  # children of a fit's seed


class ReleaseRefused(SynthbookError):
    """A model or its data must not be released: its noise can be reproduced, or its guarantee is incomplete."""


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """The guarantee to keep: `epsilon` (infinite for no privacy), `delta`, and a bound on the rows of an entity.

    With `release`, the noise comes from the operating system's entropy instead of a seed.
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
            raise InvalidArgument("epsilon", self.epsilon, "a finite one: a release needs a privacy guarantee")

    @property
    def noise_source(self) -> str:
        """Where the noise comes from, as the guarantee states it."""
        return SYSTEM_ENTROPY if self.release else SEEDED_NOISE


@dataclass(frozen=True, kw_only=True)
class PrivacyGuarantee:
    """A generator's guarantee in full, as it is stored beside models and samples.

    `steps` T, `sample_rate` q and `noise_multiplier` sigma, relative to `clip` C, the L2 sensitivity; `noise` is the
    noise source, `audit` the lower bound on epsilon that an audit showed, or None.
    """

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
    floating_point: str = _FLOATING_POINT
    audit: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def with_audit(self, epsilon: float) -> PrivacyGuarantee:
        """The guarantee with an audit's lower bound on epsilon. Raises `ReleaseRefused` if it exceeds the guarantee."""
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
        """The provenance with this guarantee, without the seed if the noise must be secret.

        Raises `ReleaseRefused` for an infinite epsilon, and for a release whose audit is missing.
        """
        if self.epsilon == math.inf:
            raise ReleaseRefused("a model with epsilon = inf has no privacy guarantee, and cannot be saved")
        if self.noise != SYSTEM_ENTROPY:
            return replace(provenance, privacy=self.to_dict())
        self.check_release()
        return replace(provenance, privacy=self.to_dict(), seed=None)

    def check_release(self) -> None:
        """Raise `ReleaseRefused` unless the noise is secret and the lower bound of an audit is stated."""
        if self.noise != SYSTEM_ENTROPY:
            raise ReleaseRefused(f"{self.noise}; fit with release=True and seed=None")
        if self.audit is None:
            raise ReleaseRefused("an audit's lower bound on epsilon is missing: run audit_generator first")


def check_public(schema: Schema, what: str) -> None:
    """Raise `SchemaError` unless bounds and categories are public."""
    if schema.origin != "public":
        raise SchemaError(
            f"{what}: origin = {schema.origin!r}, so its bounds and categories were read off the rows, and would give"
            ' them away. Review each, replace what only the rows could tell, and write origin = "public"'
        )


# ── The base classes ──


class PrivateGenerator(Generator):
    """The common part of private generators; after `fit` or `load`: `guarantee_`, the guarantee in full.

    A subclass derives from it and from the generator that it makes private, in this order.
    """

    config_class = PrivacyConfig
    private = True
    guarantee_: PrivacyGuarantee

    @abstractmethod
    def _count_units(self, data: Any) -> int:
        """The number of privacy units. Raises for data that cannot be learned from privately."""

    def _check(self, data: Any, n_units: int, steps: int) -> None:
        """Refuse settings that do not fit the data, before the ledger is charged; `steps` is 0 without training."""

    @abstractmethod
    def _fit_private(self, data: Any, seed: np.random.SeedSequence, **training: Any) -> None:
        """Learn privately, and set `guarantee_`."""

    def fit(
        self,
        data: Any,
        *,
        seed: Seed | None,
        steps: int | None = None,
        checkpoint: CheckpointConfig | None = None,
        callback: Callback | None = None,
        ledger: PrivacyLedger | None = None,
        on_eval: Callable[[int], None] | None = None,
    ) -> Self:
        """Learn from data, as all generators do, after charging epsilon and delta to `ledger`.

        A model for release takes its noise from the operating system: `seed` and `checkpoint` must be None. Raises
        before any data is used: `BudgetExceeded`,
        `HoldoutError`, `InvalidArgument`, and `SchemaError` for a schema that was inferred from the rows.
        """
        config, n = self.config, self._count_units(data)
        if config.release and not (seed is None and checkpoint is None):
            accepted = "None for release: anyone who knows the seed can subtract the noise"
            raise InvalidArgument("seed, checkpoint", (seed, checkpoint), accepted)
        if not config.release and seed is None:
            raise InvalidArgument("seed", seed, "a seed, or release=True, for which the system gives one")
        if steps is not None and not hasattr(config, "steps"):
            raise InvalidArgument("steps", steps, f"none: {type(self).__name__} does not train in steps")
        if on_eval is not None and self.data_kind != "images":
            raise InvalidArgument("on_eval", on_eval, "None: generators of tables are not evaluated while they train")
        total = getattr(config, "steps", None) if steps is None else check_positive_int("steps", steps)
        self._check(data, n, total or 0)
        if ledger is not None:
            settings = asdict(config) | {"steps": total}
            details = {k: v for k, v in settings.items() if k not in ("epsilon", "delta") and v is not None}
            ledger.spend(f"fitting {type(self).__name__}", config.epsilon, config.delta, **details)
        root = np.random.SeedSequence() if seed is None else seed_sequence(seed)
        training: dict[str, Any] = {"on_eval": on_eval} if on_eval else {}
        self._fit_private(data, root, steps=total, checkpoint=checkpoint, callback=callback, **training)
        self._describe_fit(seed, steps, "")
        return self

    def _attach_guarantee(self, provenance: Provenance) -> Provenance:
        return self.guarantee_.attach_to(provenance)

    @classmethod
    def load(cls, folder: str | Path, **settings: Any) -> Self:
        """Read what `save` wrote. Raises `DataError` for anything else."""
        model = super().load(folder, **settings)
        model.guarantee_ = PrivacyGuarantee.from_provenance(model.provenance_)
        return model


class PrivateTableGenerator(PrivateGenerator, TableGenerator):
    """A private generator of tables: every bound, bin and category comes from the public schema, none from the rows."""

    public_only = True

    @abstractmethod
    def _learn(self, frame: pd.DataFrame, seed: np.random.SeedSequence, **training: Any) -> PrivacyGuarantee:
        """Learn privately from rows with bounded contributions, and return the guarantee."""

    def _count_units(self, data: Any) -> int:
        what = f"fitting {type(self).__name__}"
        refuse_holdout(data, what)
        if not isinstance(data, Table):
            raise InvalidArgument("table", type(data).__name__, "a Table: rows and their schema")
        check_public(data.schema, what)
        if self.config.max_rows_per_entity > 1 and data.schema.entity is None:
            raise InvalidArgument(
                "max_rows_per_entity", self.config.max_rows_per_entity, "1: the schema names no entity"
            )
        if len(data) < 2:
            raise InvalidArgument("table", f"{len(data)} rows", "at least 2")
        n = n_units(data)
        check_delta(self.config.delta, n)
        for column in TableSpec.of(data, public_only=True).modeled:
            Discretizer.from_column(column)  # refuses what has no public bounds
        return n

    def _fit_private(self, data: Any, seed: np.random.SeedSequence, **training: Any) -> None:
        rng = np.random.default_rng(child_seed(seed, _BOUNDING_STREAM))
        rows = bound_contributions(data, self.config.max_rows_per_entity, rng)
        bounded = Table(data.frame.iloc[rows], data.schema)
        self._unit_of = unit_codes(bounded)  # (N,)
        try:
            TableGenerator.fit(self, bounded, seed=seed, **training)
        finally:
            del self._unit_of

    def _fit(self, frame: pd.DataFrame, seed: np.random.SeedSequence, **training: Any) -> None:
        self.guarantee_ = self._learn(frame, seed, **training)

    def _guarantee(
        self, accountant: str, *, steps: int, sample_rate: float = 1.0, noise_multiplier: float, sensitivity: float
    ) -> PrivacyGuarantee:
        config, entity = self.config, self.table_spec_.schema.entity
        return PrivacyGuarantee(
            epsilon=config.epsilon,
            delta=config.delta,
            neighbours=ADD_OR_REMOVE_ONE if entity is None else f"add or remove one {entity}",
            unit="one record" if entity is None else f"one {entity}, with at most {config.max_rows_per_entity} rows",
            accountant=accountant,
            steps=steps,
            sample_rate=sample_rate,
            noise_multiplier=noise_multiplier,
            clip=sensitivity,
            noise=config.noise_source,
        )


def audit_generator(
    model: PrivateTableGenerator, train: Table, holdout: Holdout[Table], *, seed: int = 0
) -> ReleaseAudit:
    """Audit as many samples of a fitted model as `train` has rows, and state the result in the model's `guarantee_`.

    Raises `ReleaseRefused` if the lower bound on epsilon exceeds the guarantee.
    """
    samples, claim = model.sample(len(train), seed=seed), model.guarantee_
    result = audit(samples, train=train, holdout=holdout, delta=claim.delta, claimed_epsilon=claim.epsilon, seed=seed)
    model.guarantee_ = claim.with_audit(result.epsilon_lower_bound)
    return result
