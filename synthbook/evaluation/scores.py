"""How well a classifier's probabilities fit the labels of test rows, and how far chance moves that.

All scores take a weight for each row, so that a bootstrap replicate is nothing but a row of weights: how often each
test row was drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synthbook.evaluation.arrays import Array, Seed

SCORES = ("auc", "f1", "brier", "accuracy")
Codes = NDArray[np.int64]


def bootstrap_weights(labels: Codes, replicates: int, *, seed: Seed, units: Codes | None = None) -> Array:
    """(1 + replicates, n): a row of ones, then how often each row is drawn when each class is drawn anew by itself.

    `units` (n,) number the entity of each row: entities are drawn then, with all their rows, whatever their classes.
    """
    rng = np.random.default_rng(seed)
    weights = np.ones((1 + replicates, len(labels)))
    if units is not None:
        total = int(units.max()) + 1
        weights[1:] = rng.multinomial(total, np.full(total, 1 / total), size=replicates)[:, units]
        return weights
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        drawn = rng.integers(len(rows), size=(replicates, len(rows)))
        shifted = drawn + np.arange(replicates)[:, None] * len(rows)
        weights[1:, rows] = np.bincount(shifted.ravel(), minlength=shifted.size).reshape(shifted.shape)
    return weights


def scores(labels: Codes, probabilities: Array, weights: Array) -> dict[str, Array]:
    """Each of `SCORES`, (replicates,), of class codes (n,), probabilities (n, classes) and weights (replicates, n).

    Two classes: AUC and F1 of the second one. More: means over the classes that occur among the labels, each against
    the rest (AUC) or by itself (F1). Brier: mean squared error of the probabilities, summed over classes and halved,
    which for two classes is (p - y)^2. AUC is NaN where a single class occurs.
    """
    classes = probabilities.shape[1]
    judged = [1] if classes == 2 else list(np.unique(labels))
    predicted = probabilities.argmax(axis=1)
    total = weights.sum(axis=1)
    squared = ((probabilities - np.eye(classes)[labels]) ** 2).sum(axis=1) / 2
    return {
        "auc": np.mean([_auc(labels == c, probabilities[:, c], weights) for c in judged], axis=0),
        "f1": np.mean([_f1(labels == c, predicted == c, weights) for c in judged], axis=0),
        "brier": weights @ squared / total,
        "accuracy": weights @ (predicted == labels) / total,
    }


def _auc(positive: NDArray[np.bool_], score: Array, weights: Array) -> Array:
    """Chance that a positive row scores higher than a negative one, ties counted half."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # first row of each group of equal scores
    up = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)  # (replicates, groups)
    down = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    below = np.cumsum(down, axis=1) - down
    pairs = up.sum(axis=1) * down.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray((up * (below + down / 2)).sum(axis=1) / pairs)


def _f1(actual: NDArray[np.bool_], predicted: NDArray[np.bool_], weights: Array) -> Array:
    """2 TP / (2 TP + FP + FN), and 0 where the class neither occurs nor is predicted."""
    hit = weights @ (actual & predicted)
    missed = weights @ (actual ^ predicted)
    return np.asarray(2 * hit / np.maximum(2 * hit + missed, 1e-300))
