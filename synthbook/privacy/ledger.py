"""A ledger of every look at private data: what was spent, on what, and what is left; it refuses what is not.

Spends compose by addition, (sum of epsilons, sum of deltas): always valid, never tight. A run of DP-SGD is one entry,
with the epsilon of its accountant. Tuning runs and published scores on private rows are looks, too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from synthbook.core.errors import DataError, InvalidArgument, SynthbookError
from synthbook.core.storage import atomic_write
from synthbook.privacy.mechanisms import check_epsilon_delta

ADDED_TWICE = 1e-12  # rounding of sums of decimals


class BudgetExceeded(SynthbookError):
    """A look at private data would cost more than is left."""


@dataclass(frozen=True)
class LedgerEntry:
    """One look: for what, its price, and what bears the price out, such as accountant, noise, rate and steps."""

    purpose: str
    epsilon: float
    delta: float
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class PrivacyLedger:
    """`epsilon` and `delta` in all, for one `unit` such as "one person"; `path` keeps the ledger, if it is given.

    A spend is written before it is granted, so that a run that is killed has paid. Raises `DataError` for a file that
    is no ledger, `InvalidArgument` for one of another budget.
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
        """The ledger in a file, with what it says it may spend. Raises `DataError` where there is none."""
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(**{name: found[name] for name in ("epsilon", "delta", "unit")}, path=Path(path))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(f"{path} is no ledger of a privacy budget ({error})") from None

    @property
    def remaining(self) -> tuple[float, float]:
        """Epsilon and delta that may still be spent."""
        spent = [sum(getattr(one, name) for one in self.entries) for name in ("epsilon", "delta")]
        return max(self.epsilon - spent[0], 0.0), max(self.delta - spent[1], 0.0)

    def create(self) -> Self:
        """Write the ledger as it is, before anything is spent."""
        if self.path is not None:
            atomic_write(self.path, json.dumps(self._document(self.entries), indent=1) + "\n")
        return self

    def spend(self, purpose: str, epsilon: float, delta: float = 0.0, **details: Any) -> Self:
        """Record an expense before the query runs. Raises `BudgetExceeded`, and `InvalidArgument` for no expense."""
        if not 0 < epsilon < float("inf") or not 0 <= delta < 1 or not purpose:
            given = (purpose, epsilon, delta)
            raise InvalidArgument("spend", given, "a purpose, an epsilon above 0, a delta of at least 0 and below 1")
        remaining = self.remaining
        if epsilon > remaining[0] * (1 + ADDED_TWICE) + ADDED_TWICE or delta > remaining[1] * (1 + ADDED_TWICE):
            raise BudgetExceeded(
                f"{purpose} asks for epsilon {epsilon:g}, delta {delta:g}; of {self.epsilon:g} and {self.delta:g} for"
                f" {self.unit} there are {remaining[0]:g} and {remaining[1]:g} left"
            )
        entries = [*self.entries, LedgerEntry(purpose, epsilon, delta, details)]
        if self.path is not None:
            atomic_write(self.path, json.dumps(self._document(entries), indent=1) + "\n")
        self.entries = entries
        return self

    def _document(self, entries: list[LedgerEntry]) -> dict[str, Any]:
        total = {"epsilon": self.epsilon, "delta": self.delta, "unit": self.unit}
        return total | {"composition": "basic", "entries": [asdict(one) for one in entries]}

    def _read(self, path: Path) -> None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            entries = [LedgerEntry(**one) for one in found["entries"]]
            total = {name: found[name] for name in ("epsilon", "delta", "unit")}
            paid = all(one.epsilon > 0 and one.delta >= 0 for one in entries)
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(f"{path} is no ledger of a privacy budget ({error})") from None
        if not paid:
            raise DataError(f"{path} holds a spend of nothing or less: it was changed by hand")
        asked = {"epsilon": self.epsilon, "delta": self.delta, "unit": self.unit}
        if total != asked:
            raise InvalidArgument("budget", asked, f"the one that {path} was begun with, {total}")
        self.entries = entries
