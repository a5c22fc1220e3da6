"""Values as numbers and back; quantile functions give every value its share, whatever the column's kind."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from synthbook.core.table import Column
from synthbook.datasets import adult
from synthbook.generators.tabular import copula, encoding
from synthbook.generators.tabular.copula import latent_correlation
from synthbook.generators.tabular.encoding import Marginal, as_numbers, from_numbers
from tests.mutation import mutant

COLUMNS = {
    "whole": (Column("whole", "numeric", -5, 2**40, integer=True), [-5, 0, 7, 2**40]),
    "whole with holes": (Column("w", "numeric", 0, 9, integer=True, missing=True), [3, None, 9]),
    "number": (Column("x", "numeric", -1, 1, missing=True), [0.25, None, -1.0, 1 / 3]),
    "category": (Column("c", "categorical", categories=("b", "a", "c"), missing=True), ["a", None, "b"]),
    "rank": (Column("r", "ordinal", categories=("low", "high")), ["high", "low"]),
    "date": (Column("d", "datetime", missing=True), [datetime(1969, 7, 20, 20, 17, 40, 123456), None]),
}


def series(column: Column, values: list[object]) -> pd.Series:
    return pd.Series(values).astype(column.dtype)


@pytest.mark.parametrize("name", COLUMNS)
def test_values_come_back_as_they_were(name: str) -> None:
    column, values = COLUMNS[name]
    rows = series(column, values)
    pd.testing.assert_series_equal(from_numbers(column, as_numbers(column, rows)), rows, check_names=False)


def test_numbers_become_whole_and_stay_within_the_bounds_of_the_schema() -> None:
    column = Column("w", "numeric", 0, 9, integer=True)
    assert from_numbers(column, np.array([-3.0, 2.6, 40.0])).tolist() == [0, 3, 9]
    day = Column("d", "datetime", datetime(2000, 1, 1), datetime(2000, 1, 2))
    assert from_numbers(day, np.array([0.0, 1e18])).tolist() == [day.lower, day.upper]


@pytest.mark.slow
def test_every_value_of_adult_has_its_share() -> None:
    frame, rng = adult().train.frame, np.random.default_rng(0)
    for column in adult().train.schema.columns:
        margin = Marginal.of(column, frame[column.name])
        u = margin.distributional_transform(frame[column.name], rng)
        assert kstest(u, "uniform").pvalue > 1e-4, column.name
        back, true = margin.quantile(u), as_numbers(column, frame[column.name])
        np.testing.assert_array_equal(np.isnan(back), np.isnan(true))
        spike = pd.Series(true).map(pd.Series(true).value_counts(normalize=True)).to_numpy() > encoding.MIN_ATOM_SHARE
        if column.categories:
            np.testing.assert_array_equal(back, true)
        else:
            np.testing.assert_allclose(back[spike], true[spike], atol=1e-6)
            assert np.nanmax(np.abs(back - true)) < 0.02 * (column.upper - column.lower)  # type: ignore[operator]
        drawn = from_numbers(column, margin.quantile(rng.random(100_000)))
        for value, share in frame[column.name].value_counts(normalize=True, dropna=False).head(3).items():
            found = drawn.isna().mean() if pd.isna(value) else (drawn == value).mean()
            assert abs(found - share) < 4 * np.sqrt(share / 100_000) + 0.001, (column.name, value)


@pytest.mark.slow
def test_levels_with_a_gap_between_them_bend_the_steps() -> None:
    column = adult().train.schema["native-country"]
    rows = adult().train["native-country"]
    order = tuple(np.random.default_rng(1).permutation(len(column.categories)).tolist())
    u = np.random.default_rng(0).random(50_000)

    def us(module: object) -> float:
        margin = module.Marginal.of(column, rows, order)  # type: ignore[attr-defined]
        return float((from_numbers(column, margin.quantile(u)) == "United-States").mean())

    assert us(encoding) == pytest.approx((rows == "United-States").mean(), abs=0.005)
    broken = mutant(encoding, "np.append(missing, above[:-1])", "above - 1.001 * counts / len(numbers)")
    assert us(broken) < 0.8


@pytest.mark.parametrize("values", [[None] * 4, [3.0] * 4, [3.0, None, None, None]])
def test_columns_with_nothing_to_learn(values: list[float | None]) -> None:
    column = Column("x", "numeric", 0, 9, missing=True)
    rows = series(column, values)
    margin, rng = Marginal.of(column, rows), np.random.default_rng(0)
    drawn = from_numbers(column, margin.quantile(rng.random(1_000)))
    assert drawn.isna().mean() == pytest.approx(rows.isna().mean(), abs=0.05) and drawn.dropna().eq(3).all()
    assert (
        np.isfinite(margin.normal_scores(rows)).all() and np.isfinite(margin.distributional_transform(rows, rng)).all()
    )


def test_the_latent_correlation_is_found_behind_steps() -> None:
    rng, rho = np.random.default_rng(0), 0.6
    z = rng.multivariate_normal([0, 0, 0], [[1, rho, 0.3], [rho, 1, 0], [0.3, 0, 1]], size=100_000)
    columns = [
        (Column("x", "numeric", -9, 9), pd.Series(z[:, 0])),
        (Column("k", "numeric", 0, 9, integer=True), pd.Series(np.digitize(z[:, 1], [-0.5, 1]))),
        (Column("r", "ordinal", categories=("a", "b")), series(Column("r", "ordinal", categories=("a", "b")), ["a"])),
    ]
    columns[2] = (columns[2][0], pd.Series(np.where(z[:, 2] > 0.3, "b", "a")).astype(columns[2][0].dtype))
    scores = np.stack([Marginal.of(column, rows).normal_scores(rows) for column, rows in columns], axis=1)
    found = latent_correlation(scores)
    assert found[0, 1] == pytest.approx(rho, abs=0.01) and found[0, 2] == pytest.approx(0.3, abs=0.01)
    assert abs(np.corrcoef(scores.T)[0, 1] - rho) > 0.05  # what the scores alone would say
    broken = mutant(copula, "np.where(varied, spread, 1)", "np.where(varied, np.sqrt(spread), 1)")
    assert abs(broken.latent_correlation(scores)[0, 1] - rho) > 0.05
