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
from math import comb
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument

T = TypeVar("T", bound=Hashable)


def majority_vote(answers: Sequence[T]) -> tuple[T, float]:
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


def consensus(answers: Sequence[T], *, threshold: float = 1.0) -> T | None:
    """The answer that at least a share `least` of the paths reach, else None; 1 asks for unanimity."""
    if not 0.5 < threshold <= 1:
        raise InvalidArgument("least", threshold, "a share above one half and at most 1")
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
