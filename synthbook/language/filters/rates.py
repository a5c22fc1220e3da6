"""What any filter does to a share of right answers: Bayes' theorem, and the two rates that decide.

    P(right | kept) = p a / (p a + (1 - p) b),    yield = p a + (1 - p) b

p is the share of right answers before, a the share of right ones that are kept, b that of wrong ones. The odds of being
right grow a / b times. No filter is better than its b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synthbook.core.errors import InvalidArgument


@dataclass(frozen=True)
class Score:
    """A filter against the truth: `n` answers, their share `p` of right ones, the rates `a` and `b`, what is kept."""

    n: int
    p: float
    a: float
    b: float
    precision: float
    kept: float

    @property
    def predicted(self) -> tuple[float, float]:
        """Precision and yield by the formulas, from p, a and b."""
        return precision_and_yield(self.p, self.a, self.b)

    @property
    def odds_gain(self) -> float:
        """How many times the odds of being right grew."""
        return self.a / self.b if self.b else float("inf")


def precision_and_yield(p: float, a: float, b: float) -> tuple[float, float]:
    """P(right | kept) and the share that is kept.

    >>> [round(share, 4) for share in precision_and_yield(0.3, 1.0, 0.05)]
    [0.8955, 0.335]
    """
    if not all(0 <= share <= 1 for share in (p, a, b)):
        raise InvalidArgument("p, a, b", (p, a, b), "shares from 0 to 1")
    kept = p * a + (1 - p) * b
    return (p * a / kept if kept else float("nan")), kept


def score_filter(right: Sequence[bool], kept: Sequence[bool]) -> Score:
    """How a filter did on answers whose truth is known."""
    truth, told = np.asarray(right, dtype=bool), np.asarray(kept, dtype=bool)
    if truth.shape != told.shape or truth.ndim != 1 or not len(truth):
        raise InvalidArgument("kept", told.shape, f"one verdict for each of {truth.shape} answers")
    a, b = (float(told[truth == side].mean()) if (truth == side).any() else 0.0 for side in (True, False))
    precision = float(truth[told].mean()) if told.any() else float("nan")
    return Score(len(truth), float(truth.mean()), a, b, precision, float(told.mean()))
