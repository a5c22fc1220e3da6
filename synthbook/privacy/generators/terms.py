"""What a private generator promises, and what must stand beside everything that is released with its help.

A promise of (epsilon, delta) says nothing without its neighbours, its unit, and how it was accounted. The unit is one
record, or one entity where the schema names a column for it: then each counts with at most so many rows.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from synthbook.core.errors import DataError, InvalidArgument, SchemaError, SynthbookError
from synthbook.core.provenance import Provenance
from synthbook.core.schema import Schema, Table, refuse_holdout
from synthbook.core.units import units
from synthbook.privacy.accounting import ADD_REMOVE, noise_for
from synthbook.privacy.mechanisms import check_budget

TEACHING = "teaching: the noise comes from a seed, and who knows the seed can take it off again"
DPSGD = "pld: Poisson samples, privacy losses convolved"
SYSTEM = "seeded by the operating system's entropy, and not kept"
FLOATING = "no protection against attacks on floating-point noise is claimed"


class NotForRelease(SynthbookError):
    """Something was made for teaching, or says too little about its privacy, and would be released."""


@dataclass(frozen=True, kw_only=True)
class PrivateConfig:
    """The promise: `epsilon` (infinite for a control without privacy), `delta`, and at most so many rows of an entity.

    With `release`, nothing is drawn from a seed.
    """

    epsilon: float
    delta: float
    rows_per_entity: int = 1
    release: bool = False

    def __post_init__(self) -> None:
        check_budget(1.0 if self.epsilon == math.inf else self.epsilon, self.delta)
        if not isinstance(self.rows_per_entity, int) or self.rows_per_entity < 1:
            raise InvalidArgument("rows_per_entity", self.rows_per_entity, "a whole number of at least 1")
        if self.release and self.epsilon == math.inf:
            raise InvalidArgument("epsilon", self.epsilon, "a finite one: what is released promises something")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """A generator's promise in full. `steps` T, `sample_rate` q, `noise_multiplier` sigma over `clip` C; `audit`, the
    epsilon that an attack has proved at least, where one was run."""

    epsilon: float
    delta: float
    neighbours: str = ADD_REMOVE
    unit: str
    accountant: str
    steps: int
    sample_rate: float
    noise_multiplier: float
    clip: float
    noise: str
    floating_point: str = FLOATING
    audit: float | None = None

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def audited(self, epsilon: float) -> Terms:
        """The same with what an attack has proved. Raises `NotForRelease` where that is more than was promised."""
        if epsilon > self.epsilon:
            raise NotForRelease(f"an attack has proved epsilon {epsilon:.3g}, and {self.epsilon:.3g} was promised")
        return replace(self, audit=epsilon)

    @classmethod
    def of(cls, origin: Provenance) -> Terms:
        """What a file's or a model's provenance says. Raises `DataError` where it says nothing."""
        if origin.privacy is None:
            raise DataError("nothing is promised of privacy: this comes from another kind of model")
        return cls(**origin.privacy)

    def beside(self, origin: Provenance) -> Provenance:
        """The provenance with this promise, and without a seed where nobody may know it; see `check_release`."""
        if self.epsilon == math.inf:
            raise NotForRelease("a control without privacy promises nothing, and is not kept")
        if self.noise != SYSTEM:
            return replace(origin, privacy=self.as_json())
        self.check_release()
        return replace(origin, privacy=self.as_json(), seed=None)

    def check_release(self) -> None:
        """Raise `NotForRelease` unless the noise is nobody's to know and an audit's bound is stated."""
        if self.noise != SYSTEM:
            raise NotForRelease(f"{self.noise}; fit with release=True and seed=None")
        if self.audit is None:
            raise NotForRelease("an audit's lower bound on epsilon is missing: run one, and say what it proved")


def check_private(table: Table, config: PrivateConfig, what: str) -> int:
    """The number of units, once a table may be learnt from privately; nothing of its rows has been used by then.

    Raises `HoldoutError`, `InvalidArgument`, and `SchemaError` for a schema that was drafted from the rows.
    """
    refuse_holdout(table, what)
    if not isinstance(table, Table):
        raise InvalidArgument("table", type(table).__name__, "a Table: rows and their schema")
    check_public(table.schema, what)
    if config.rows_per_entity > 1 and table.schema.entity is None:
        raise InvalidArgument("rows_per_entity", config.rows_per_entity, "1: the schema names no entity")
    if len(table) < 2:
        raise InvalidArgument("table", f"{len(table)} rows", "at least 2")
    check_delta(config.delta, units(table))
    return units(table)


def check_delta(delta: float, n: int) -> None:
    """Raise `InvalidArgument` for a delta that would let one of so many units be published whole."""
    if n < 2 or delta >= 1 / n:
        raise InvalidArgument("delta", delta, f"far below 1 / {n:,}, one over the number of units, of at least 2")


def check_seed(config: PrivateConfig, seed: object, keep: object) -> None:
    """Raise `InvalidArgument` for a release whose noise somebody could draw again, and for teaching without a seed."""
    if config.release and not (seed is None and keep is None):
        raise InvalidArgument("seed, keep", (seed, keep), "None for release: who knows the seed takes the noise off")
    if not config.release and seed is None:
        raise InvalidArgument("seed", seed, "a seed, or release=True, for which the system gives one")


def noise_multiplier(config: PrivateConfig, rate: float, steps: int) -> float:
    """The least noise of DP-SGD that keeps the promise; 0 where none is made."""
    if config.epsilon == math.inf:
        return 0.0
    return noise_for(config.epsilon, config.delta, rate=rate, steps=steps, by="pld")


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
