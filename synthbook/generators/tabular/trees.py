"""One column after the other, each drawn given those before it: the autoregressive model of tables, with trees.

    p(x_1, ..., x_d) = prod_j p(x_j | x_1, ..., x_{j-1})

A tree groups the training rows by the columns before; a new row falls into a leaf, and takes the value of one of the
training rows there. Reiter (2005), Journal of Official Statistics 21, 441; it is the default of synthpop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Column
from synthbook.core.types import Array, Callback, child_seed
from synthbook.generators.base import Tensors
from synthbook.generators.tabular.base import TableGenerator
from synthbook.generators.tabular.encoding import (
    EDGE,
    Marginal,
    as_numbers,
    from_numbers,
    marginals_state,
    restore_marginals,
)

_MISSING_SENTINEL = -1e12  # what a tree sees of a missing number


@dataclass(frozen=True, eq=False)
class _TreeNodes:
    """Trees as arrays (nodes,): a row goes left where its `feature` is at most the `threshold`."""

    feature: NDArray[np.int64]  # -1 in a leaf
    threshold: Array
    left: NDArray[np.int64]
    right: NDArray[np.int64]

    def apply(self, x: Array, root: int = 0) -> NDArray[np.int64]:
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


# ── CART: one tree for each column ──


@dataclass(frozen=True)
class CARTConfig:
    """`min_samples_leaf`: training rows in a leaf, at least; small values memorize, large ones oversmooth."""

    min_samples_leaf: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.min_samples_leaf, int) or self.min_samples_leaf < 1:
            raise InvalidArgument("min_samples_leaf", self.min_samples_leaf, "a whole number of at least 1")


@dataclass(frozen=True, eq=False)
class Tree(_TreeNodes):
    """A fitted tree (nodes,) and the values (N,) of the rows in its leaves, leaf after leaf."""

    start: NDArray[np.int64]  # where a leaf's values begin, and how many there are
    count: NDArray[np.int64]
    values: Array

    @classmethod
    def fit(cls, x: Array, y: Array, column: Column, leaf: int, seed: int) -> Tree:
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
        leaf = self.apply(x)
        drawn: Array = self.values[self.start[leaf] + (rng.random(len(x)) * self.count[leaf]).astype(np.int64)]
        return drawn


class CART(TableGenerator):
    """Sequential trees in the schema's order of columns."""

    family, config_class = "table-cart", CARTConfig

    def _fit(
        self, frame: pd.DataFrame, seed: np.random.SeedSequence, *, callback: Callback | None = None, **training: Any
    ) -> None:
        columns = self.table_spec_.modeled
        values = [as_numbers(column, frame[column.name]) for column in columns]
        self.trees_ = []
        seen = np.zeros((len(frame), 1))  # the first column has nothing to go by
        for j, (column, y) in enumerate(zip(columns, values, strict=True)):
            number = int(child_seed(seed, j).generate_state(1)[0]) % 2**31
            self.trees_.append(Tree.fit(seen, y, column, self.config.min_samples_leaf, number))
            seen = np.concatenate([seen, _features(column, y)], axis=1)
            if callback is not None:
                callback(j + 1, len(columns), {"leaves": float((self.trees_[-1].feature < 0).sum())})

    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        rng, drawn, seen = np.random.default_rng(seed), {}, np.zeros((n, 1))
        for column, tree in zip(self.table_spec_.modeled, self.trees_, strict=True):
            y = tree.draw(seen, rng)
            drawn[column.name] = from_numbers(column, y)
            seen = np.concatenate([seen, _features(column, y)], axis=1)
        return pd.DataFrame(drawn)

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        return {f"{j}/{name}": value for j, tree in enumerate(self.trees_) for name, value in vars(tree).items()}, {}

    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        names = list(Tree.__dataclass_fields__)
        self.trees_ = [
            Tree(*(tensors[f"{j}/{name}"].numpy() for name in names)) for j in range(len(self.table_spec_.modeled))
        ]


def _features(column: Column, y: Array) -> Array:
    """What later trees see of a column (N, features): a number or a rank, or one column for each nominal category."""
    if column.kind == "categorical" and len(column.categories) > 2:
        return np.asarray(y[:, None] == np.arange(len(column.categories)), dtype=float)
    return np.asarray(np.where(np.isnan(y), _MISSING_SENTINEL, y)[:, None])


# ── Boosted trees ──
#     p(x_j = k | x_1, ..., x_{j-1}) = softmax_k( b_k + sum_m f_mk(x_1, ..., x_{j-1}) )          Friedman (2001), eq. 31
#
# A number is cut into cells first, and drawn evenly within its cell's levels. What a row gets is then no training row's
# value but a vote of all, so that the model can be sharp without copying. The trees are scikit-learn's.


_Codes = NDArray[np.int64]
_MOST_CATEGORIES = 255  # that scikit-learn's trees divide as sets


@dataclass(frozen=True)
class BoostedTreesConfig:
    """`n_rounds` of boosting for a column of two classes, fewer for more; `n_bins` of a number; the rest as in
    scikit-learn.
    """

    n_rounds: int = 45
    learning_rate: float = 0.2
    max_leaf_nodes: int = 15
    min_samples_leaf: int = 20
    l2_regularization: float = 1.0
    n_bins: int = 20

    def __post_init__(self) -> None:
        if (
            min(self.n_rounds, self.min_samples_leaf, self.n_bins) < 1
            or self.learning_rate <= 0
            or self.max_leaf_nodes < 2
            or self.l2_regularization < 0
        ):
            raise InvalidArgument("settings", asdict(self), "positive numbers, and at least 2 leaves")


@dataclass(frozen=True, eq=False)
class _TreeEnsemble(_TreeNodes):
    """The trees of a column: `value` (nodes,) of each leaf, `roots` (rounds, K), `base` (K,) of the `classes` (K,).

    Of a feature of categories a node has a `bitset` (-1: none): those that go left, as bits of 8 `words` of 32.
    """

    value: Array
    bitset: _Codes
    words: _Codes
    roots: _Codes
    base: Array
    classes: _Codes

    @classmethod
    def fit(cls, x: Array, nominal: list[bool], codes: _Codes, config: BoostedTreesConfig, seed: int) -> _TreeEnsemble:
        """Learnt from x (N, features), of which some are `nominal` codes, and the classes (N,)."""
        classes, counts = np.unique(codes, return_counts=True)
        if len(classes) == 1 or not x.shape[1]:
            return cls.constant(classes, counts)
        x = x.astype(np.float32).astype(float)  # as they are compared
        fitted = HistGradientBoostingClassifier(
            # each round grows a tree for every class: with many classes fewer rounds say as much
            max_iter=max(round(config.n_rounds / np.log2(len(classes))), 1),
            learning_rate=config.learning_rate,
            max_leaf_nodes=config.max_leaf_nodes,
            min_samples_leaf=min(config.min_samples_leaf, len(x)),
            categorical_features=nominal if any(nominal) else None,
            # without it, a class seen once in a leaf gets an unbounded Newton step
            l2_regularization=config.l2_regularization,
            early_stopping=False,
            random_state=seed,
        ).fit(x, codes)
        ensemble = cls._read(fitted._predictors, np.argsort(~np.array(nominal), kind="stable"), classes)
        # what the library begins with is all that it says beyond its trees
        ensemble.base[:] = (np.reshape(fitted.decision_function(x[:1]), (1, -1)) - ensemble.decision_function(x[:1]))[0]
        return ensemble

    @classmethod
    def constant(cls, classes: _Codes, counts: _Codes) -> _TreeEnsemble:
        """No trees: the classes' own shares, whatever came before."""
        nodes: _Codes = np.zeros(0, dtype=np.int64)
        numbers: Array = np.zeros(0)
        base: Array = np.log(counts / counts.sum())
        words, roots = nodes.reshape(0, 8), nodes.reshape(0, 1)
        return cls(nodes, numbers, nodes, nodes, numbers, nodes, words, roots, base, classes)

    @classmethod
    def _read(cls, rounds: list[list[Any]], order: _Codes, classes: _Codes) -> _TreeEnsemble:
        # the library counts features in this `order`: nominal ones first
        trees = [tree for row in rounds for tree in row]
        first = np.cumsum([0, *(len(tree.nodes) for tree in trees)])
        sets = np.cumsum([0, *(len(tree.raw_left_cat_bitsets) for tree in trees)])
        nodes = np.concatenate([tree.nodes for tree in trees])
        inside, sizes = nodes["is_leaf"] == 0, np.diff(first)
        shift, shift_sets = (np.repeat(start[:-1], sizes) for start in (first, sets))
        return cls(
            feature=np.where(inside, order[nodes["feature_idx"].astype(np.int64)], -1),
            threshold=np.where(inside, nodes["num_threshold"], 0.0),
            left=np.where(inside, nodes["left"] + shift, 0).astype(np.int64),
            right=np.where(inside, nodes["right"] + shift, 0).astype(np.int64),
            value=nodes["value"].astype(float),
            bitset=np.where(inside & (nodes["is_categorical"] == 1), nodes["bitset_idx"] + shift_sets, -1),
            words=np.concatenate([tree.raw_left_cat_bitsets for tree in trees]).reshape(-1, 8).astype(np.int64),
            roots=first[:-1].reshape(len(rounds), -1).astype(np.int64),
            base=np.zeros(len(rounds[0])),
            classes=classes,
        )

    def apply(self, x: Array, root: int = 0) -> _Codes:
        """As in one tree, but node after node: these trees are small, and there are many of them."""
        leaf, todo = np.empty(len(x), dtype=np.int64), [(root, np.arange(len(x)))]
        while todo:
            node, rows = todo.pop()
            if self.feature[node] < 0:
                leaf[rows] = node
            elif len(rows):
                left = self.goes_left(node, x[rows, self.feature[node]])
                todo += [(int(self.left[node]), rows[left]), (int(self.right[node]), rows[~left])]
        return leaf

    def goes_left(self, node: _Codes | int, value: Array) -> NDArray[np.bool_]:
        """Numbers as in one tree, the categories of one node by their bit."""
        chosen = self.bitset[node]
        if chosen < 0:
            return super().goes_left(node, value)
        code = value.astype(np.int64)
        return np.asarray((self.words[chosen, code >> 5] >> (code & 31)) & 1, dtype=bool)

    def decision_function(self, x: Array) -> Array:
        """b + sum of the trees' values (N, K), or (N, 1) for two classes: the log odds of the second."""
        total = np.tile(self.base, (len(x), 1))
        for row in self.roots:
            for k, root in enumerate(row):
                total[:, k] += self.value[self.apply(x, int(root))]
        return total

    def predict_proba(self, x: Array) -> Array:
        """p(class | x) (N, K)."""
        scores = self.decision_function(x)
        if scores.shape[1] == 1 and len(self.classes) == 2:
            scores = np.column_stack([np.zeros(len(x)), scores])
        return np.asarray(softmax(scores, axis=1))

    def draw(self, x: Array, rng: np.random.Generator) -> _Codes:
        """A class (N,) for each row."""
        p = self.predict_proba(x).cumsum(axis=1)
        below = p < rng.random((len(x), 1)) * p[:, -1:]
        drawn: _Codes = self.classes[np.minimum(below.sum(axis=1), len(self.classes) - 1)]
        return drawn


class BoostedTrees(TableGenerator):
    """Boosted trees in the schema's order of columns."""

    family, config_class = "table-boosted", BoostedTreesConfig

    def _fit(
        self, frame: pd.DataFrame, seed: np.random.SeedSequence, *, callback: Callback | None = None, **training: Any
    ) -> None:
        columns = self.table_spec_.modeled
        self.marginals_ = [Marginal.of(column, frame[column.name]) for column in columns]
        self.ensembles_: list[_TreeEnsemble] = []
        seen, nominal = np.zeros((len(frame), 0)), [_is_nominal(column) for column in columns]
        for j, margin in enumerate(self.marginals_):
            rng = np.random.default_rng(child_seed(seed, j))
            codes = self._codes(margin, frame[margin.column.name], rng)
            self.ensembles_.append(_TreeEnsemble.fit(seen, nominal[:j], codes, self.config, int(rng.integers(2**31))))
            seen = np.column_stack([seen, self._feature(j, frame[margin.column.name])])
            if callback is not None:
                callback(j + 1, len(columns), {"classes": float(len(self.ensembles_[-1].classes))})

    def _feature(self, j: int, rows: pd.Series[Any]) -> Array:
        """What later trees see of column j (N,): a number, or the place of a category among those that occur."""
        column = self.marginals_[j].column
        numbers = as_numbers(column, rows)
        if _is_nominal(column):
            codes = np.nan_to_num(numbers, nan=len(column.categories))
            return np.asarray(np.searchsorted(self.ensembles_[j].classes, codes), dtype=float)
        return np.asarray(np.where(np.isnan(numbers), _MISSING_SENTINEL, numbers))

    def _codes(self, margin: Marginal, rows: pd.Series[Any], rng: np.random.Generator) -> _Codes:
        """The cell (N,) of each number, the code of each category; a missing category is one more."""
        column = margin.column
        if column.categories:
            return np.nan_to_num(as_numbers(column, rows), nan=len(column.categories)).astype(np.int64)
        edges = bin_edges(margin, self.config.n_bins)
        return np.clip(
            np.searchsorted(edges, margin.distributional_transform(rows, rng), "right") - 1, 0, len(edges) - 2
        )

    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        rng, drawn, seen = np.random.default_rng(seed), {}, np.zeros((n, 0))
        for j, (margin, ensemble) in enumerate(zip(self.marginals_, self.ensembles_, strict=True)):
            column, codes = margin.column, ensemble.draw(seen, rng)
            if column.categories:
                numbers = np.where(codes == len(column.categories), np.nan, codes)
            else:
                edges = bin_edges(margin, self.config.n_bins)
                u = edges[codes] + (edges[codes + 1] - edges[codes]) * rng.random(n)
                numbers = margin.quantile(np.clip(u, EDGE, 1 - EDGE))
            drawn[column.name] = from_numbers(column, numbers)
            seen = np.column_stack([seen, self._feature(j, drawn[column.name])])
        return pd.DataFrame(drawn)

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        arrays, facts = marginals_state(self.marginals_)
        trees = {f"{j}/{name}": value for j, part in enumerate(self.ensembles_) for name, value in vars(part).items()}
        return {**arrays, **trees}, {"margins": facts}

    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        columns, names = self.table_spec_.modeled, list(_TreeEnsemble.__dataclass_fields__)
        self.marginals_ = restore_marginals(columns, tensors, facts["margins"])
        self.ensembles_ = [
            _TreeEnsemble(*(tensors[f"{j}/{name}"].numpy() for name in names)) for j in range(len(columns))
        ]


def _is_nominal(column: Column) -> bool:
    """Whether trees divide a column's categories as sets; with more than fit into their bits, they go by order."""
    return column.kind == "categorical" and 2 < len(column.categories) < _MOST_CATEGORIES


def bin_edges(margin: Marginal, n_bins: int) -> Array:
    """Edges of bins of a number's levels: one bin for missing values, one per frequent value, `n_bins` for the rest.

    A value is frequent with a share of at least 1 / (2 `n_bins`).
    """
    flat = np.diff(margin.values) == 0
    low, high = margin.levels[:-1][flat], margin.levels[1:][flat]
    frequent = high - low >= 1 / (2 * n_bins)
    ends = np.unique(np.concatenate([[0.0, margin.missing, 1.0], low[frequent], high[frequent]]))
    whole = np.array([b <= margin.missing or (frequent & (low <= a) & (high >= b)).any() for a, b in pairwise(ends)])
    width = np.diff(ends)
    pieces = np.where(whole, 1, np.ceil(width * n_bins / max(width[~whole].sum(), EDGE)))
    edges = np.concatenate([np.linspace(a, b, int(n) + 1) for (a, b), n in zip(pairwise(ends), pieces, strict=True)])
    for a, b in zip(low, high, strict=True):  # no cut through a value: its halves would be mixed with its neighbors
        inside = (edges > a) & (edges < b)
        edges[inside] = np.where(edges[inside] - a < b - edges[inside], a, b)
    return np.unique(edges)
