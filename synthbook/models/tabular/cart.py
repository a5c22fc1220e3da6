"""One column after the other, each drawn given those before it: the autoregressive model of tables, with trees.

    p(x_1, ..., x_d) = prod_j p(x_j | x_1, ..., x_{j-1})

A tree groups the training rows by the columns before; a new row falls into a leaf, and takes the value of one of the
training rows there. Reiter (2005), Journal of Official Statistics 21, 441; it is the default of synthpop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from synthbook.core.columns import Column
from synthbook.core.errors import InvalidArgument
from synthbook.models.tabular.protocol import TableGenerator, Tensors, Training, child
from synthbook.models.tabular.trees import ABSENT, Nodes
from synthbook.models.tabular.values import Array, as_numbers, from_numbers


@dataclass(frozen=True)
class CartConfig:
    """`leaf`: training rows in a leaf, at least; with few of them the tree copies, with many it blurs."""

    leaf: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.leaf, int) or self.leaf < 1:
            raise InvalidArgument("leaf", self.leaf, "a whole number of at least 1")


@dataclass(frozen=True, eq=False)
class Tree(Nodes):
    """A fitted tree (nodes,) and the values (N,) of the rows in its leaves, leaf after leaf."""

    start: NDArray[np.int64]  # where a leaf's values begin, and how many there are
    count: NDArray[np.int64]
    values: Array

    @classmethod
    def grown(cls, x: Array, y: Array, column: Column, leaf: int, seed: int) -> Tree:
        """A tree for y (N,), NaN where missing, given x (N, features)."""
        options = {"min_samples_leaf": min(leaf, len(y)), "random_state": seed}
        if column.categories:
            fitted = DecisionTreeClassifier(**options).fit(x, np.where(np.isnan(y), -1, y).astype(np.int64))
        else:
            typical = np.median(y[~np.isnan(y)]) if (~np.isnan(y)).any() else 0.0
            fitted = DecisionTreeRegressor(**options).fit(x, np.where(np.isnan(y), typical, y))
        nodes, inside = fitted.tree_, fitted.apply(x)
        count = np.bincount(inside, minlength=nodes.node_count)
        feature = np.where(nodes.children_left < 0, -1, nodes.feature)
        return cls(
            feature.astype(np.int64),
            np.asarray(nodes.threshold, dtype=float),
            np.asarray(nodes.children_left, dtype=np.int64),
            np.asarray(nodes.children_right, dtype=np.int64),
            np.asarray(np.cumsum(count) - count, dtype=np.int64),
            np.asarray(count, dtype=np.int64),
            y[np.argsort(inside, kind="stable")],
        )

    def draw(self, x: Array, rng: np.random.Generator) -> Array:
        """A value (N,) for each row: that of a training row of its leaf."""
        leaf = self.leaf_of(x)
        drawn: Array = self.values[self.start[leaf] + (rng.random(len(x)) * self.count[leaf]).astype(np.int64)]
        return drawn


class Cart(TableGenerator):
    """Sequential trees in the schema's order of columns."""

    family, settings = "table-cart", CartConfig

    def _fit(self, frame: pd.DataFrame, seed: np.random.SeedSequence, training: Training) -> None:
        columns = self.layout_.modelled
        values = [as_numbers(column, frame[column.name]) for column in columns]
        self.trees_ = []
        seen = np.zeros((len(frame), 1))  # the first column has nothing to go by
        for j, (column, y) in enumerate(zip(columns, values, strict=True)):
            number = int(child(seed, j).generate_state(1)[0]) % 2**31
            self.trees_.append(Tree.grown(seen, y, column, self.config.leaf, number))
            seen = np.concatenate([seen, _features(column, y)], axis=1)
            if training.observe is not None:
                training.observe(j + 1, len(columns), {"leaves": float((self.trees_[-1].feature < 0).sum())})

    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        rng, drawn, seen = np.random.default_rng(seed), {}, np.zeros((n, 1))
        for column, tree in zip(self.layout_.modelled, self.trees_, strict=True):
            y = tree.draw(seen, rng)
            drawn[column.name] = from_numbers(column, y)
            seen = np.concatenate([seen, _features(column, y)], axis=1)
        return pd.DataFrame(drawn)

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        return {f"{j}/{name}": value for j, tree in enumerate(self.trees_) for name, value in vars(tree).items()}, {}

    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        names = list(Tree.__dataclass_fields__)
        self.trees_ = [
            Tree(*(tensors[f"{j}/{name}"].numpy() for name in names)) for j in range(len(self.layout_.modelled))
        ]


def _features(column: Column, y: Array) -> Array:
    """What later trees see of a column (N, features): a number or a rank, or one column for each nominal category."""
    if column.kind == "categorical" and len(column.categories) > 2:
        return np.asarray(y[:, None] == np.arange(len(column.categories)), dtype=float)
    return np.asarray(np.where(np.isnan(y), ABSENT, y)[:, None])
