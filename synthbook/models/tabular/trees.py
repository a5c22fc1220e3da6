"""Where trees send a row: what one tree for each column and many of them have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthbook.models.tabular.values import Array

ABSENT = -1e12  # what a tree sees of a missing number


@dataclass(frozen=True, eq=False)
class Nodes:
    """Trees as arrays (nodes,): a row goes left where its `feature` is at most the `threshold`."""

    feature: NDArray[np.int64]  # -1 in a leaf
    threshold: Array
    left: NDArray[np.int64]
    right: NDArray[np.int64]

    def leaf_of(self, x: Array, root: int = 0) -> NDArray[np.int64]:
        """The leaf (N,) into which each row of x (N, features) falls in the tree that begins at a node."""
        at = np.full(len(x), root, dtype=np.int64)
        going = np.flatnonzero(self.feature[at] >= 0)
        while len(going):
            node = at[going]
            at[going] = np.where(self.goes_left(node, x[going, self.feature[node]]), self.left[node], self.right[node])
            going = going[self.feature[at[going]] >= 0]
        return at

    def goes_left(self, node: NDArray[np.int64] | int, value: Array) -> NDArray[np.bool_]:
        """Whether a value (N,) of the feature of a node, or of one node for each, goes left there."""
        return np.asarray(value.astype(np.float32) <= self.threshold[node])  # as scikit-learn compares
