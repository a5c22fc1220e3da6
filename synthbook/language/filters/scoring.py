"""What any filter does to a share of right answers: Bayes' theorem, and the two rates that decide.

    P(correct | kept) = p a / (p a + (1 - p) b),    yield = p a + (1 - p) b

p is the share of right answers before, a the share of right ones that are kept, b that of wrong ones. The odds of being
right grow a / b times. No filter is better than its b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synthbook.core.errors import InvalidArgument


@dataclass(frozen=True)
class FilterScore:
    """A filter against the truth: `n` answers, their share `p` of right ones, the rates `a` and `b`, what is kept."""

    n: int
    base_rate: float
    tpr: float
    fpr: float
    precision: float
    yield_rate: float

    @property
    def predicted(self) -> tuple[float, float]:
        """Precision and yield by the formulas, from p, a and b."""
        return precision_and_yield(self.base_rate, self.tpr, self.fpr)

    @property
    def likelihood_ratio(self) -> float:
        """Positive likelihood ratio, TPR / FPR."""
        return self.tpr / self.fpr if self.fpr else float("inf")


def precision_and_yield(base_rate: float, tpr: float, fpr: float) -> tuple[float, float]:
    """Precision and yield of a filter by Bayes' theorem.

    >>> [round(rate, 4) for rate in precision_and_yield(0.3, 1.0, 0.05)]
    [0.8955, 0.335]
    """
    if not all(0 <= rate <= 1 for rate in (base_rate, tpr, fpr)):
        raise InvalidArgument("base_rate, tpr, fpr", (base_rate, tpr, fpr), "rates from 0 to 1")
    yield_rate = base_rate * tpr + (1 - base_rate) * fpr
    return (base_rate * tpr / yield_rate if yield_rate else float("nan")), yield_rate


def score_filter(correct: Sequence[bool], accepted: Sequence[bool]) -> FilterScore:
    """Score a filter on answers whose correctness is known."""
    truth, verdicts = np.asarray(correct, dtype=bool), np.asarray(accepted, dtype=bool)
    if truth.shape != verdicts.shape or truth.ndim != 1 or not len(truth):
        raise InvalidArgument("accepted", verdicts.shape, f"one verdict for each of {truth.shape} answers")
    tpr, fpr = (float(verdicts[truth == side].mean()) if (truth == side).any() else 0.0 for side in (True, False))
    precision = float(truth[verdicts].mean()) if verdicts.any() else float("nan")
    return FilterScore(len(truth), float(truth.mean()), tpr, fpr, precision, float(verdicts.mean()))
