"""The smallest private generator: noisy counts, and rows drawn from them; and the best attack on what it releases.

    count_c + Laplace(1 / epsilon)        total error of K cells  K / epsilon,   over n records  K / (n epsilon)

Whoever is added moves one count by 1, so that is the sensitivity. Clipping at 0 is free, and no cell becomes worse by
it: the truth is not negative. Rows drawn from the counts, however many, tell no more than the counts do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array
from synthbook.privacy.mechanisms import check_epsilon_delta, laplace_mechanism


def laplace_histogram(counts: Array, epsilon: float, rng: np.random.Generator) -> Array:
    """Counts (..., K) with Laplace noise, at least 0; an infinite epsilon adds none."""
    return np.maximum(counts if epsilon == np.inf else laplace_mechanism(counts, epsilon, rng), 0.0)


def multinomial_counts(counts: Array, rows: int, rng: np.random.Generator) -> Array:
    """How many of so many rows fall into each cell (..., K), drawn with the shares of the counts."""
    return np.asarray(rng.multinomial(rows, counts / counts.sum(axis=-1, keepdims=True)), dtype=float)


@dataclass(frozen=True)
class MembershipGuesses:
    """Right guesses of whether the victim was in, over `trials` releases with her and as many without."""

    right: int
    trials: int

    @property
    def accuracy(self) -> float:
        """The share of right guesses; without an attack it is 1/2."""
        return self.right / (2 * self.trials)


def attack_histogram(
    epsilon: float, rows: int, *, others: Array, victim: int, trials: int, seed: int, worst_case: bool = True
) -> MembershipGuesses:
    """Guess from `rows` released rows whether the victim's record, in cell `victim`, was among the counted ones.

    `others` (K,) are everybody else's counts. In the worst case the attacker knows them and compares the share of her
    cell with what it would be in either case; else only their shares in the world, so that each release counts other
    people. Raises `InvalidArgument`.
    """
    if epsilon != np.inf:
        check_epsilon_delta(epsilon, 0.5)
    if rows < 1 or trials < 1 or not 0 <= victim < len(others):
        raise InvalidArgument("rows, trials, victim", (rows, trials, victim), "at least 1 each, and one of the cells")
    rng, right, n = np.random.default_rng(seed), 0, others.sum()
    for inside in (0, 1):
        known = np.tile(others, (trials, 1))
        counts = known if worst_case else multinomial_counts(known, int(n), rng)
        counts = counts.astype(float)
        counts[:, victim] += inside
        seen = multinomial_counts(laplace_histogram(counts, epsilon, rng), rows, rng)
        estimate = seen[:, victim] / rows * (n + 0.5)
        said = estimate > others[victim] + 0.5  # halfway between what it is without her and with her
        right += int((said == bool(inside)).sum())
    return MembershipGuesses(right, trials)
