"""A ledger of queries to private data that refuses to overspend.

Epsilons and deltas compose by addition: always valid, never tight. A run of DP-SGD is one entry, with the epsilon of
its accountant. Tuning runs, and scores on private rows that are published, are queries too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from synthbook.core.errors import DataError, InvalidArgument, SynthbookError
from synthbook.core.storage import atomic_write
from synthbook.privacy.mechanisms import check_epsilon_delta

_ROUNDING = 1e-12  # allowed in sums of decimals


class BudgetExceeded(SynthbookError):
    """A query would exceed the remaining privacy budget."""


@dataclass(frozen=True)
class LedgerEntry:
    """One query: its purpose, epsilon and delta, and details such as accountant, noise multiplier and steps."""

    purpose: str
    epsilon: float
    delta: float
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class PrivacyLedger:
    """A total budget (epsilon, delta) for one `unit` such as "one person", stored at `path` if one is given.

    An entry is written before its query is granted, so a run that is killed has paid. Raises `DataError` for a file
    that is no ledger, `InvalidArgument` for one with another total.
    """

    epsilon: float
    delta: float
    unit: str
    path: Path | None = None
    entries: list[LedgerEntry] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_epsilon_delta(self.epsilon, self.delta)
        if self.path is not None and self.path.exists():
            self._read(self.path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a ledger, with the total that stands in it. Raises `DataError` where there is none."""
        document = _parse(Path(path))
        try:
            return cls(document["epsilon"], document["delta"], document["unit"], path=Path(path))
        except (TypeError, InvalidArgument) as error:
            raise _no_ledger(path, error) from None

    @property
    def remaining(self) -> tuple[float, float]:
        """Epsilon and delta that may still be spent."""
        spent = [sum(getattr(entry, name) for entry in self.entries) for name in ("epsilon", "delta")]
        return max(self.epsilon - spent[0], 0.0), max(self.delta - spent[1], 0.0)

    def create(self) -> Self:
        """Write the ledger as it is, before anything is spent."""
        return self._write(self.entries)

    def spend(self, purpose: str, epsilon: float, delta: float = 0.0, **details: Any) -> Self:
        """Add an entry before its query runs. Raises `BudgetExceeded`, and `InvalidArgument` for an invalid entry."""
        if not 0 < epsilon < float("inf") or not 0 <= delta < 1 or not purpose:
            given = (purpose, epsilon, delta)
            raise InvalidArgument("spend", given, "a purpose, an epsilon above 0, a delta of at least 0 and below 1")
        remaining = self.remaining
        if epsilon > remaining[0] * (1 + _ROUNDING) + _ROUNDING or delta > remaining[1] * (1 + _ROUNDING):
            raise BudgetExceeded(
                f"{purpose} needs epsilon {epsilon:g}, delta {delta:g}; of {self.epsilon:g} and {self.delta:g} for"
                f" {self.unit}, {remaining[0]:g} and {remaining[1]:g} remain"
            )
        return self._write([*self.entries, LedgerEntry(purpose, epsilon, delta, details)])

    def _write(self, entries: list[LedgerEntry]) -> Self:
        if self.path is not None:
            total = {"epsilon": self.epsilon, "delta": self.delta, "unit": self.unit}
            document = total | {"composition": "basic", "entries": [asdict(entry) for entry in entries]}
            atomic_write(self.path, json.dumps(document, indent=1) + "\n")
        self.entries = entries
        return self

    def _read(self, path: Path) -> None:
        document = _parse(path)
        try:
            entries = [LedgerEntry(**entry) for entry in document["entries"]]
            valid = all(entry.epsilon > 0 and entry.delta >= 0 for entry in entries)
        except TypeError as error:
            raise _no_ledger(path, error) from None
        if not valid:
            raise DataError(f"{path} has an entry that spends nothing or less: it was edited by hand")
        total, given = (document["epsilon"], document["delta"], document["unit"]), (self.epsilon, self.delta, self.unit)
        if total != given:
            raise InvalidArgument("epsilon, delta, unit", given, f"those of the ledger {path}, {total}")
        self.entries = entries


def _parse(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {name: document[name] for name in ("epsilon", "delta", "unit", "entries")}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _no_ledger(path, error) from None


def _no_ledger(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is no ledger of a privacy budget ({type(error).__name__}: {error})")
