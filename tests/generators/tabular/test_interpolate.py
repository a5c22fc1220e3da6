"""Rows between rows: of the class asked for, within its range, and no wider."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from synthbook.core.errors import HoldoutError, InvalidArgument, SchemaError
from synthbook.core.table import Column, Schema, Table
from synthbook.datasets import shuttle
from synthbook.generators.tabular import copula as module
from synthbook.generators.tabular.copula import smote
from tests.generators.tabular.test_tables import TABLE
from tests.mutation import mutant


def ring() -> Table:
    """A small class on two far circles, among many other rows."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = np.concatenate([np.cos(angle), 10 + np.cos(angle), np.linspace(-5, 5, 200)])
    y = np.concatenate([np.sin(angle), np.sin(angle), np.full(200, 8.0)])
    frame = pd.DataFrame({"x": x, "y": y, "class": ["rare"] * 80 + ["many"] * 200})
    columns = (
        Column("x", "numeric", -20, 20),
        Column("y", "numeric", -20, 20),
        Column("class", "categorical", categories=("many", "rare", "none")),
    )
    return Table(frame, Schema(columns, "public"))


def test_new_rows_lie_between_near_rows_of_the_class() -> None:
    rows = smote(ring(), 2_000, target="class", value="rare", seed=0).frame
    assert set(rows["class"]) == {"rare"} and len(rows) == 2_000
    from_centre = np.hypot(np.where(rows["x"] > 5, rows["x"] - 10, rows["x"]), rows["y"])
    assert from_centre.max() <= 1 + 1e-9 and from_centre.min() > 0.95  # chords between near points of a circle
    assert from_centre.min() < 0.999
    again = smote(ring(), 2_000, target="class", value="rare", seed=0).frame
    pd.testing.assert_frame_equal(again, rows)
    broken = mutant(module, "a + share * (b - a)", "a + 2 * share * (b - a)")
    wide = broken.smote(ring(), 2_000, target="class", value="rare", seed=0).frame
    assert np.hypot(np.where(wide["x"] > 5, wide["x"] - 10, wide["x"]), wide["y"]).max() > 1.01


def test_whole_numbers_ids_missing_values_and_rules() -> None:
    rows = smote(TABLE, 300, target="size", value="L", seed=1).frame  # a Table: types, bounds and rules hold
    assert rows["id"].tolist() == list(range(1, 301)) and set(rows["price"]) == {9}
    rare = shuttle().train
    value = rare.frame.iloc[:, -1].value_counts().index[-2]
    name = rare.schema.names[-1]
    few = rare.frame[rare.frame[name] == value]
    rows = smote(rare, 500, target=name, value=value, seed=0).frame
    for column in rare.schema.names[:-1]:
        assert rows[column].between(few[column].min(), few[column].max()).all()


def test_classes_that_cannot_be_made_larger_are_refused() -> None:
    with pytest.raises(HoldoutError):
        smote(shuttle().test, 5, target="class", value="1", seed=0)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="0 rows have"):
        smote(ring(), 5, target="class", value="none", seed=0)
    with pytest.raises(InvalidArgument, match="3 strings"):
        smote(ring(), 5, target="class", value="rarest", seed=0)
    with pytest.raises(SchemaError, match="is numeric"):
        smote(ring(), 5, target="x", value="1", seed=0)
    with pytest.raises(InvalidArgument, match="k_neighbors"):
        smote(ring(), 5, target="class", value="rare", seed=0, k_neighbors=0)
