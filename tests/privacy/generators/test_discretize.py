"""Bins of the schema: the same for any rows, against a loop, and against a scaler that is fitted to the rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from synthbook.core.errors import SchemaError
from synthbook.core.table import Column
from synthbook.generators.tabular.encoding import DataTransformer
from synthbook.privacy.generators import discretize
from synthbook.privacy.generators.discretize import MAX_BINS, Discretizer, PublicEncoding
from tests.mutation import mutant

DAY = datetime(2024, 1, 1)
COLUMNS = (
    Column("colour", "categorical", categories=("red", "green", "blue")),
    Column("grade", "ordinal", categories=("low", "high"), missing=True),
    Column("rooms", "numeric", 0, 5, integer=True),
    Column("age", "numeric", 17, 90, integer=True, missing=True),
    Column("share", "numeric", -1.5, 2.5),
    Column("rate", "numeric", 0, 1, missing=True),
    Column("gain", "numeric", 0, 99_999, integer=True),
    Column("wealth", "numeric", 0.0, 1e9, missing=True),
    Column("price", "numeric", 2.0, 5e4),
    Column("constant", "numeric", 7.0, 7.0),
    Column("whole constant", "numeric", 7, 7, integer=True),
    Column("only", "categorical", categories=("one",)),
    Column("visit", "datetime", datetime(2020, 2, 29), datetime(2024, 12, 31)),
    Column("birth", "datetime", datetime(1970, 1, 1), DAY, missing=True),
    Column("battle", "datetime", datetime(1815, 6, 18), DAY),
)


@st.composite
def columns(draw: st.DrawFn) -> Column:
    """A column of any kind that private code may count."""
    missing, kind = draw(st.booleans()), draw(st.sampled_from(["whole", "number", "named", "date"]))
    if kind == "named":
        return Column("c", "categorical", categories=tuple("abcdefg"[: draw(st.integers(1, 7))]), missing=missing)
    if kind == "whole":
        low = draw(st.integers(-(10**6), 10**6))
        return Column("c", "numeric", low, low + draw(st.integers(0, 10**7)), integer=True, missing=missing)
    if kind == "number":
        low_, width = draw(st.floats(-1e6, 1e6)), draw(st.floats(1.0, 1e9))
        return Column("c", "numeric", low_, low_ + width, missing=missing)
    start = draw(st.datetimes(datetime(1900, 1, 1), datetime(2020, 1, 1)))
    return Column("c", "datetime", start.replace(microsecond=0), DAY, missing=missing)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(columns(), st.integers(0, 2**32))
def test_values_of_bins_lie_in_these_bins(column: Column, seed: int) -> None:
    rng, bins = np.random.default_rng(seed), Discretizer.from_column(column)
    assert 1 <= bins.n_bins <= (len(column.categories) or MAX_BINS) + column.missing
    codes = rng.integers(bins.n_bins, size=200)
    values = bins.decode(codes, rng)
    assert values.dtype == column.dtype and not list(column.iter_errors(values))
    np.testing.assert_array_equal(bins.encode(values), codes)
    assert (values.isna().to_numpy() == (codes == bins.n_bins - 1)).all() or not column.missing


def all_values(n: int, seed: int) -> pd.DataFrame:
    """Rows with every column, from all over the bounds, the bounds themselves among them."""
    rng, found = np.random.default_rng(seed), {}
    for column in COLUMNS:
        if column.categories:
            values: Any = pd.Series(rng.choice(column.categories, n))
        elif column.kind == "datetime":
            low, high = pd.Timestamp(column.lower), pd.Timestamp(column.upper)  # type: ignore[arg-type]
            values = pd.Series(low + (high - low) * rng.choice([0, 1, *rng.random(30)], n)).dt.floor("s")
        else:
            low_, high_ = float(column.lower), float(column.upper)  # type: ignore[arg-type]
            values = pd.Series(low_ + (high_ - low_) * rng.choice([0, 1, *rng.random(30) ** 4], n))
            values = values.round() if column.integer else values
        found[column.name] = (values.mask(rng.random(n) < 0.2) if column.missing else values).astype(column.dtype)
    return pd.DataFrame(found)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_each_value_is_in_the_one_bin_between_whose_edges_it_lies(column: Column) -> None:
    bins, values = Discretizer.from_column(column), all_values(300, 0)[column.name]
    for value, code in zip(values, bins.encode(values), strict=True):
        if pd.isna(value):
            assert code == bins.n_bins - 1
        elif bins.bin_edges is None:
            assert column.categories[code] == value
        else:
            x = (value - datetime(1970, 1, 1)).total_seconds() * 1e6 if column.kind == "datetime" else value
            low, high, last = bins.bin_edges[code], bins.bin_edges[code + 1], code == len(bins.bin_edges) - 2
            assert low <= x and (x < high or last)
            assert code < bins.n_bins - column.missing


def widths(edges: Any) -> Any:
    return np.diff(np.asarray(edges, dtype=float))


def test_small_whole_numbers_have_a_bin_each_and_large_ones_share() -> None:
    assert Discretizer.from_column(COLUMNS[2]).bin_edges.tolist() == [0, 1, 2, 3, 4, 5, 6]  # type: ignore[union-attr]
    age = Discretizer.from_column(COLUMNS[3])
    assert age.n_bins == MAX_BINS + 1 and set(widths(age.bin_edges)) == {2.0, 3.0}
    codes = age.encode(pd.Series(range(17, 91), dtype="Int64"))
    assert sorted(set(codes)) == list(range(MAX_BINS)) and (np.diff(codes) >= 0).all()


def test_wide_columns_are_cut_equally_in_logarithms_with_a_bin_for_nothing() -> None:
    gain = Discretizer.from_column(COLUMNS[6])
    assert gain.encode(pd.Series([0, 1, 99_999])).tolist()[0] == 0
    assert (
        gain.encode(pd.Series([1])).item() == 1
        and gain.encode(pd.Series([99_999])).item() == gain.n_bins - 1 <= MAX_BINS - 1
    )
    wealth = Discretizer.from_column(COLUMNS[7])
    steps = widths(np.log1p(wealth.bin_edges[1:]))  # type: ignore[index]
    assert wealth.n_bins == MAX_BINS + 1 and wealth.bin_edges[:2].tolist() == [0, 1]  # type: ignore[index]
    assert steps == pytest.approx(steps[0]) and wealth.bin_edges[-1] == pytest.approx(1e9)  # type: ignore[index]
    price = Discretizer.from_column(COLUMNS[8])
    assert (
        price.bin_edges[0] == 2 and price.n_bins <= MAX_BINS and np.argmax(widths(price.bin_edges)) == price.n_bins - 1
    )  # type: ignore[index]
    assert widths(Discretizer.from_column(COLUMNS[4]).bin_edges) == pytest.approx(4 / MAX_BINS)


@pytest.mark.parametrize("name", ["visit", "birth", "battle"])
def test_dates_are_cut_into_equal_spans_wherever_they_begin(name: str) -> None:
    bins = Discretizer.from_column(next(column for column in COLUMNS if column.name == name))
    assert (
        widths(bins.bin_edges) == pytest.approx(widths(bins.bin_edges)[0]) and len(widths(bins.bin_edges)) == MAX_BINS
    )


def test_a_column_of_one_value_has_one_bin() -> None:
    for column in (COLUMNS[9], COLUMNS[10], COLUMNS[11]):
        bins = Discretizer.from_column(column)
        values = bins.decode(np.zeros(20, dtype=np.int64), np.random.default_rng(0))
        assert bins.n_bins == 1 and values.nunique() == 1 and not list(column.iter_errors(values))


@pytest.mark.parametrize("bounds", [(None, None), (DAY, None), (None, DAY)])
def test_a_date_without_bounds_is_refused(bounds: tuple[Any, Any]) -> None:
    with pytest.raises(SchemaError, match=r"'seen': private code needs a lower and an upper bound that are public"):
        Discretizer.from_column(Column("seen", "datetime", *bounds))
    with pytest.raises(SchemaError, match="'seen'"):
        PublicEncoding((COLUMNS[0], Column("seen", "datetime", *bounds))).encode(pd.DataFrame())


def test_within_a_bin_all_values_are_as_likely() -> None:
    rng = np.random.default_rng(0)
    share = Discretizer.from_column(COLUMNS[4])
    drawn = share.decode(np.full(4_000, 3), rng).to_numpy()
    low, high = share.bin_edges[3:5]  # type: ignore[index]
    assert stats.kstest((drawn - low) / (high - low), "uniform").pvalue > 1e-3
    ages = Discretizer.from_column(COLUMNS[3])
    counts = ages.decode(np.full(4_000, 5), rng).value_counts()
    assert len(counts) == widths(ages.bin_edges)[5] and stats.chisquare(counts).pvalue > 1e-3


def test_rows_are_ones_at_their_bins_and_come_back() -> None:
    frame, encoding = all_values(200, 1), PublicEncoding(COLUMNS)
    x = encoding.encode(frame)
    assert x.shape == (200, encoding.width) and set(np.unique(x)) == {0, 1} and (x.sum(axis=1) == len(COLUMNS)).all()
    assert [span.start for span in encoding.spans] == [0, *np.cumsum([c.n_bins for c in encoding.discretizers])[:-1]]
    back = encoding.decode(x, np.random.default_rng(0))
    assert list(back.columns) == list(frame.columns)
    np.testing.assert_array_equal(encoding.encode(back), x)
    pd.testing.assert_series_equal(back["colour"], frame["colour"])
    pd.testing.assert_series_equal(back["rooms"], frame["rooms"])


# ── neighbors: what one record may change of the numbers that noise is added to ─────────────────────────────────────

Fit = Callable[[pd.DataFrame], Callable[[pd.DataFrame], Any]]  # a table to how rows are written


def public(frame: pd.DataFrame) -> Callable[[pd.DataFrame], Any]:
    return PublicEncoding(COLUMNS).encode


def by_range(frame: pd.DataFrame) -> Callable[[pd.DataFrame], Any]:
    """As many bins, between the least and the largest value of the rows: a histogram as it is usually drawn."""
    edges = np.linspace(frame["share"].min(), frame["share"].max(), MAX_BINS + 1)
    return lambda rows: np.eye(MAX_BINS)[np.clip(np.searchsorted(edges, rows["share"]) - 1, 0, MAX_BINS - 1)]


def by_modes(frame: pd.DataFrame) -> Callable[[pd.DataFrame], Any]:
    """What the generators of section 3 do."""
    rng = np.random.default_rng(0)
    fitted = DataTransformer.fit((COLUMNS[4],), frame, max_modes=5, rng=rng)
    return lambda rows: fitted.transform(rows, np.random.default_rng(1))


def moved(fit: Fit, before: pd.DataFrame, after: pd.DataFrame, shared: int) -> tuple[float, float]:
    """By how much a record changes how the other rows are written, and the sum of all rows' vectors (L2)."""
    one, two = fit(before), fit(after)
    others = np.abs(one(before.iloc[:shared]) - two(after.iloc[:shared])).max()
    return float(others), float(np.linalg.norm(one(before).sum(axis=0) - two(after).sum(axis=0)))


def test_a_scaler_fitted_to_the_rows_is_caught() -> None:
    rows = all_values(200, 2)
    rows["share"], rows["price"] = rows["share"].clip(0.0, 0.5), rows["price"].clip(10, 50)
    extreme = rows.iloc[[0]].assign(share=2.5, price=5e4)
    added = pd.concat([rows, extreme], ignore_index=True)
    replaced = pd.concat([rows.iloc[:-1], extreme], ignore_index=True)
    length = np.sqrt(len(COLUMNS))
    assert moved(public, rows, added, 200) == (0, pytest.approx(length))
    others, total = moved(public, rows, replaced, 199)
    assert others == 0 and total <= np.sqrt(2) * length + 1e-9
    for broken in (by_range, by_modes):
        for neighbor, shared in ((added, 200), (replaced, 199)):
            others, total = moved(broken, rows, neighbor, shared)
            assert others > 0.2 and total > 2 * math.sqrt(2)  # outside what any noise was made for


def test_a_date_in_logarithms_of_its_microseconds_is_caught() -> None:
    broken = mutant(discretize, 'column.kind == "numeric" and ', "")
    assert (
        widths(broken.Discretizer.from_column(COLUMNS[13]).bin_edges)[-1]
        > 0.3 * widths(broken.Discretizer.from_column(COLUMNS[13]).bin_edges).sum()
    )
