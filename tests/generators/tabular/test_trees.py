"""Boosted trees as a generator: the library's own probabilities, cells that cut no value, columns with holes."""

from __future__ import annotations

import contextlib
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Column, Schema, Table
from synthbook.datasets import adult
from synthbook.generators.tabular import trees
from synthbook.generators.tabular.encoding import Marginal
from synthbook.generators.tabular.trees import BoostedTrees, bin_edges
from tests.mutation import mutant

ROWS = Table(adult().train.frame.head(3_000), adult().train.schema)


def disagreement(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> float:
    """The largest difference between our sums over the trees and scikit-learn's own probabilities, over all columns."""
    fitted: list[tuple[Any, Any]] = []

    class Watched(HistGradientBoostingClassifier):  # type: ignore[misc]
        def fit(self, x: Any, y: Any) -> Any:
            fitted.append((self, x))
            return super().fit(x, y)

    monkeypatch.setattr(module, "HistGradientBoostingClassifier", Watched)
    model = module.BoostedTrees(n_rounds=10).fit(ROWS, seed=0)
    assert len(fitted) == len(model.ensembles_) - 1  # nothing comes before the first column
    pairs = zip(model.ensembles_[1:], fitted, strict=True)
    return max(float(np.abs(ensemble.predict_proba(x) - peer.predict_proba(x)).max()) for ensemble, (peer, x) in pairs)


@pytest.mark.slow
def test_probabilities_are_those_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert disagreement(trees, monkeypatch) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('np.argsort(~np.array(nominal), kind="stable")', "np.arange(len(nominal))"),  # features in another order
        ("code >> 5] >> (code & 31)", "code >> 5] >> (code & 7)"),
        ('nodes["right"] + shift', 'nodes["right"]'),
    ],
)
def test_mutants_disagree(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    with contextlib.suppress(IndexError):  # it may read a node that is not there
        assert disagreement(mutant(trees, old, new), monkeypatch) > 1e-3


def test_cells_cut_no_value_in_two_and_frequent_values_are_alone() -> None:
    for name in ("capital-gain", "age", "hours-per-week"):
        column = ROWS.schema[name]
        margin = Marginal.of(column, ROWS.frame[name])
        edges = bin_edges(margin, 20)
        assert edges[0] == 0 and edges[-1] == 1 and (np.diff(edges) > 0).all() and len(edges) < 45
        low, high = margin.cdf_interval(ROWS.frame[name])
        wide = high > low
        inside = (edges[:, None] > low[wide] + 1e-12) & (edges[:, None] < high[wide] - 1e-12)
        assert not inside.any()
        share = ROWS.frame[name].value_counts(normalize=True)
        for value in share[share > 0.05].index:
            first = int(np.flatnonzero(ROWS.frame[name] == value)[0])
            assert np.isin([low[first], high[first]], edges).all()


def test_a_column_with_holes_and_one_with_many_categories() -> None:
    rng, n = np.random.default_rng(0), 1_500
    names = tuple(f"c{k}" for k in range(400))
    frame = pd.DataFrame(
        {
            "many": pd.Categorical.from_codes(rng.integers(400, size=n), categories=list(names)),
            "number": pd.Series(rng.normal(size=n)).mask(rng.random(n) < 0.3),
            "gone": pd.Series(np.full(n, np.nan)),
        }
    )
    columns = (
        Column("many", "categorical", categories=names),
        Column("number", "numeric", -10, 10, missing=True),
        Column("gone", "numeric", -10, 10, missing=True),
    )
    schema = Schema(columns, "public")
    made = BoostedTrees(n_rounds=4).fit(Table(schema.cast(frame), schema), seed=0).sample(n, seed=1).frame
    assert made["number"].isna().mean() == pytest.approx(0.3, abs=0.05) and made["gone"].isna().all()
    assert made["number"].std() == pytest.approx(1, abs=0.15) and made["many"].nunique() > 300


def test_settings_are_checked() -> None:
    for wrong in (
        {"n_rounds": 0},
        {"max_leaf_nodes": 1},
        {"learning_rate": 0.0},
        {"n_bins": 0},
        {"min_samples_leaf": 0},
    ):
        with pytest.raises(InvalidArgument, match="settings"):
            BoostedTrees(**wrong)
