"""Self-consistency: sample several answers and take the majority; it amplifies the most likely answer, even if wrong.

    majority of k independent answers      sum over j > k/2 of C(k, j) p^j (1 - p)^(k - j)             k odd
    all k agree, m possible answers        p^k / (p^k + (m - 1) ((1 - p) / (m - 1))^k)                 precision

p is the share of right answers; wrong ones are spread evenly over m - 1. Where a share rho of the problems has one
wrong answer that all paths share, no number of paths lifts the accuracy above 1 - rho. (Self-consistency:
arXiv:2203.11171.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import comb
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument

_Answer = TypeVar("_Answer", bound=Hashable)


def majority_vote(answers: Sequence[_Answer]) -> tuple[_Answer, float]:
    """The most frequent answer, the earliest of equals, and its share.

    >>> majority_vote(["4", "5", "4"])
    ('4', 0.6666666666666666)
    """
    if not answers:
        raise InvalidArgument("answers", answers, "at least one answer")
    answer, often = Counter(answers).most_common(1)[0]
    return answer, often / len(answers)


def majority_votes(given: NDArray[np.int64], answers: int) -> NDArray[np.int64]:
    """The majority (N,) of k answers (N, k), each one of 0, ..., answers - 1; of equals the lowest."""
    counts = np.stack([(given == answer).sum(axis=1) for answer in range(answers)], axis=1)
    winners: NDArray[np.int64] = counts.argmax(axis=1)
    return winners


def consensus(answers: Sequence[_Answer], *, threshold: float = 1.0) -> _Answer | None:
    """The answer that at least a share `threshold` of the samples agree on, else None; 1 requires unanimity."""
    if not 0.5 < threshold <= 1:
        raise InvalidArgument("threshold", threshold, "a share above one half and at most 1")
    answer, share = majority_vote(answers)
    return answer if share >= threshold else None


def majority_accuracy(p: float, k: int) -> float:
    """P(the majority of k independent answers is right) where wrong ones agree; k odd.

    >>> round(majority_accuracy(0.6, 5), 4), round(majority_accuracy(0.4, 5), 4)
    (0.6826, 0.3174)
    """
    if k < 1 or k % 2 == 0:
        raise InvalidArgument("k", k, "an odd number of answers")
    return sum(comb(k, j) * p**j * (1 - p) ** (k - j) for j in range(k // 2 + 1, k + 1))


def unanimity(p: float, k: int, m: int) -> tuple[float, float]:
    """Precision and yield of keeping what k answers among m possible ones agree on.

    >>> [round(share, 4) for share in unanimity(0.6, k=3, m=10)]
    [0.9964, 0.2168]
    """
    if k < 1 or m < 2:
        raise InvalidArgument("k, m", (k, m), "at least 1 answer and 2 possible ones")
    right, wrong = p**k, (m - 1) * ((1 - p) / (m - 1)) ** k
    return right / (right + wrong), right + wrong


# ── Bayes' rule for answers ──
#     P(correct | kept) = p a / (p a + (1 - p) b),    yield = p a + (1 - p) b
#
# p is the share of right answers before, a the share of right ones that are kept, b that of wrong ones. The odds of
# being right grow a / b times. No filter is better than its b.


@dataclass(frozen=True)
class FilterScore:
    """A filter scored against the truth on `n` answers, a share `base_rate` of them correct."""

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
