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
from synthbook.privacy.mechanisms import check_budget

ADDED_TWICE = 1e-12  # rounding of sums of decimals


class Exhausted(SynthbookError):
    """A look at private data would cost more than is left."""


@dataclass(frozen=True)
class Spend:
    """One look: for what, its price, and what bears the price out, such as accountant, noise, rate and steps."""

    purpose: str
    epsilon: float
    delta: float
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class Budget:
    """`epsilon` and `delta` in all, for one `unit` such as "one person"; `path` keeps the ledger, if it is given.

    A spend is written before it is granted, so that a run that is killed has paid. Raises `DataError` for a file that
    is no ledger, `InvalidArgument` for one of another budget.
    """

    epsilon: float
    delta: float
    unit: str
    path: Path | None = None
    spends: list[Spend] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_budget(self.epsilon, self.delta)
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
    def left(self) -> tuple[float, float]:
        """Epsilon and delta that may still be spent."""
        spent = [sum(getattr(one, name) for one in self.spends) for name in ("epsilon", "delta")]
        return max(self.epsilon - spent[0], 0.0), max(self.delta - spent[1], 0.0)

    def begin(self) -> Self:
        """Write the ledger as it is, before anything is spent."""
        if self.path is not None:
            atomic_write(self.path, json.dumps(self._document(self.spends), indent=1) + "\n")
        return self

    def spend(self, purpose: str, epsilon: float, delta: float = 0.0, **about: Any) -> Self:
        """Pay for a look before it is taken. Raises `Exhausted` where less is left, `InvalidArgument` for no price."""
        if not 0 < epsilon < float("inf") or not 0 <= delta < 1 or not purpose:
            given = (purpose, epsilon, delta)
            raise InvalidArgument("spend", given, "a purpose, an epsilon above 0, a delta of at least 0 and below 1")
        left = self.left
        if epsilon > left[0] * (1 + ADDED_TWICE) + ADDED_TWICE or delta > left[1] * (1 + ADDED_TWICE):
            raise Exhausted(
                f"{purpose} asks for epsilon {epsilon:g}, delta {delta:g}; of {self.epsilon:g} and {self.delta:g} for"
                f" {self.unit} there are {left[0]:g} and {left[1]:g} left"
            )
        entries = [*self.spends, Spend(purpose, epsilon, delta, about)]
        if self.path is not None:
            atomic_write(self.path, json.dumps(self._document(entries), indent=1) + "\n")
        self.spends = entries
        return self

    def _document(self, spends: list[Spend]) -> dict[str, Any]:
        total = {"epsilon": self.epsilon, "delta": self.delta, "unit": self.unit}
        return total | {"composition": "basic", "spends": [asdict(one) for one in spends]}

    def _read(self, path: Path) -> None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            spends = [Spend(**one) for one in found["spends"]]
            total = {name: found[name] for name in ("epsilon", "delta", "unit")}
            paid = all(one.epsilon > 0 and one.delta >= 0 for one in spends)
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(f"{path} is no ledger of a privacy budget ({error})") from None
        if not paid:
            raise DataError(f"{path} holds a spend of nothing or less: it was changed by hand")
        asked = {"epsilon": self.epsilon, "delta": self.delta, "unit": self.unit}
        if total != asked:
            raise InvalidArgument("budget", asked, f"the one that {path} was begun with, {total}")
        self.spends = spends
