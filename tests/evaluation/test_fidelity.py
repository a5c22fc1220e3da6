"""Distances and associations against scipy and pandas, and what happens to odd columns."""

from datetime import datetime

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, spearmanr, wasserstein_distance

from synthbook.core.errors import InvalidArgument, SchemaError
from synthbook.core.table import Column, Holdout, Schema, Table
from synthbook.evaluation.fidelity import dependence, marginal_distances, plot_dependence, plot_marginal_distances

SCHEMA = Schema(
    (
        Column("who", "id"),
        Column("x", "numeric", lower=-1e9, upper=1e9, missing=True),
        Column("n", "numeric", lower=0, upper=9, integer=True, missing=True),
        Column("c", "categorical", categories=("a", "b", "d"), missing=True),
        Column("size", "ordinal", categories=("S", "M", "L")),
        Column("day", "datetime", lower=datetime(2000, 1, 1), upper=datetime(2100, 1, 1), missing=True),
        Column("says", "text"),
    ),
    "public",
)
LINKED = ("x", "n", "c", "size", "day")


def people(seed: int, n: int = 400, link: float = 1.0) -> Table:
    """Every column grows with a hidden number; `link` 0 cuts the ties between them."""
    rng = np.random.default_rng(seed)
    hidden = [link * rng.standard_normal(n)] * 5 if link else list(rng.standard_normal((5, n)))
    a, b, c, d, e = (h + 0.5 * rng.standard_normal(n) for h in hidden)
    frame = pd.DataFrame(
        {
            "who": np.arange(n),
            "x": np.where(rng.random(n) < 0.1, np.nan, a),
            "n": pd.array(np.clip(np.round(3 + 1.5 * b), 0, 9).astype(int), dtype="Int64"),
            "c": np.array(["a", "b", "d"])[np.digitize(c, [-0.5, 0.5])],
            "size": np.array(["S", "M", "L"])[np.digitize(d, [-0.5, 0.5])],
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.round(100 * e), unit="D"),
            "says": "hello",
        }
    )
    return Table(frame, SCHEMA)


def changed(table: Table, **columns: object) -> Table:
    return Table(table.frame.assign(**columns), table.schema)


def numbers(table: Table, name: str) -> np.ndarray:
    return table[name].dropna().to_numpy(dtype=float)


def distance(table: pd.DataFrame, column: str) -> float:
    return table.set_index("column").loc[column, "distance"]


def test_marginals_equal_scipy_and_pandas():
    real, generated = people(1), people(2, 300, link=2)
    result = marginal_distances(generated, real=real)
    assert list(result["column"]) == list(LINKED)  # no id, no text
    for name in ("x", "n"):
        x, y = numbers(real, name), numbers(generated, name)
        assert distance(result, name) == pytest.approx(wasserstein_distance(x, y) / x.std())
    p, q = (t["c"].astype(object).value_counts(normalize=True) for t in (real, generated))
    assert distance(result, "c") == pytest.approx(p.sub(q, fill_value=0).abs().sum() / 2)
    ranks = [t["size"].cat.codes.to_numpy(dtype=float) for t in (real, generated)]
    assert distance(result, "size") == pytest.approx(wasserstein_distance(*ranks) / ranks[0].std())
    days = [((t["day"] - pd.Timestamp("2020-01-01")) / pd.Timedelta(days=1)).to_numpy() for t in (real, generated)]
    assert distance(result, "day") == pytest.approx(wasserstein_distance(*days) / days[0].std())
    assert result.set_index("column").loc["x", "missing"] == pytest.approx(
        generated["x"].isna().mean() - real["x"].isna().mean()
    )


def test_a_table_is_no_distance_from_itself():
    result = marginal_distances(people(1), real=people(1))
    assert (result[["distance", "missing"]] == 0).all(axis=None)
    assert (dependence(people(1), real=people(1)).error == 0).all()


def test_real_and_synthetic_are_not_the_same_thing():
    real, generated = people(1), people(2, link=3)
    assert distance(marginal_distances(generated, real=real), "x") > 1.5 * distance(
        marginal_distances(real, real=generated), "x"
    )  # in real units


def test_missing_values_count():
    real = people(1)
    lost = changed(real, c=real["c"].where(np.arange(400) % 2 == 0), x=real["x"].where(np.arange(400) % 2 == 0))
    result = marginal_distances(lost, real=real).set_index("column")
    assert result.loc["c", "distance"] == result.loc["c", "missing"] == 0.5
    assert result.loc["x", "missing"] > 0.4


def test_columns_without_spread_or_values_have_a_defined_distance_and_a_warning():
    real = people(1)
    flat, none = changed(real, x=1.0), changed(real, x=np.nan)
    with pytest.warns(UserWarning, match="'x' is constant in the real table"):
        assert distance(marginal_distances(real, real=flat), "x") == np.inf
    with pytest.warns(UserWarning, match="all synthetic values are missing"):
        assert distance(marginal_distances(none, real=real), "x") == np.inf
    with pytest.warns(UserWarning, match="all real values are missing"):
        assert distance(marginal_distances(real, real=none), "x") == np.inf
    assert distance(marginal_distances(flat, real=flat), "x") == distance(marginal_distances(none, real=none), "x") == 0


def test_dependence_equals_scipy_and_the_textbook():
    real = people(1)
    result = dependence(people(2, link=0), real=real)
    at = {name: i for i, name in enumerate(result.columns)}
    frame = real.frame[real["x"].notna()]
    assert result.real[at["x"], at["n"]] == pytest.approx(spearmanr(frame.x, frame.n.astype(float)).statistic)
    assert result.real[at["size"], at["day"]] == pytest.approx(
        spearmanr(real["size"].cat.codes, real["day"].astype("int64")).statistic
    )
    # Bergsma's corrected Cramer's V needs two categories; c against itself cut in two
    halves = changed(real, c=real["c"].where(real["c"] != "d", "b"))
    table = Table(halves.frame[["c"]].assign(c2=real["c"]), two_categories())
    v = dependence(table, real=table).real[0, 1]
    counts = pd.crosstab(table["c"].astype(str), table["c2"].astype(str)).to_numpy()
    n, (r, k) = counts.sum(), counts.shape
    phi2 = max(chi2_contingency(counts, correction=False).statistic / n - (r - 1) * (k - 1) / (n - 1), 0)
    smaller = min(r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)) - 1
    assert v == pytest.approx(min(np.sqrt(phi2 / smaller), 1))


def two_categories() -> Schema:
    return Schema(tuple(Column(name, "categorical", categories=("a", "b", "d")) for name in ("c", "c2")), "public")


def test_the_correlation_ratio_equals_a_sum_over_groups():
    real = people(1)
    result = dependence(real, real=real)
    i, j = result.columns.index("n"), result.columns.index("c")
    ranks = real["n"].astype(float).rank().to_numpy()
    groups = [ranks[(real["c"] == c).to_numpy()] for c in ("a", "b", "d")]
    within = sum(((g - g.mean()) ** 2).sum() for g in groups) / (400 - 3)
    assert result.real[i, j] == result.real[j, i] == pytest.approx(np.sqrt(1 - within / ranks.var(ddof=1)))


def test_chance_alone_gives_hardly_any_association():
    independent = dependence(people(2, 2000, link=0), real=people(1, 2000, link=0))
    off = independent.real[np.triu_indices(5, k=1)]
    assert np.abs(off).max() < 0.08 and independent.mean_error < 0.04
    assert dependence(people(2, 2000), real=people(1, 2000)).real[np.triu_indices(5, k=1)].min() > 0.5


def test_broken_ties_show_as_error_even_where_marginals_agree():
    real = people(1, 1000)
    alone = changed(real, n=np.random.default_rng(0).permutation(real["n"]))
    assert marginal_distances(alone, real=real)["distance"].max() == 0
    result = dependence(alone, real=real)
    assert "n" in result.worst[:2] and result.worst[2] > 0.5
    assert "n" in str(result)


def test_a_sign_that_flips_is_an_error():
    real = people(1, 1000)
    flipped = dependence(changed(real, x=-real["x"]), real=real)
    assert flipped.error[flipped.columns.index("x"), flipped.columns.index("n")] > 1


def test_columns_that_do_not_vary_have_no_association_and_a_warning():
    real = people(1)
    with pytest.warns(UserWarning, match="synthetic columns that do not vary have association 0: x, c"):
        result = dependence(changed(real, x=3.0, c="a"), real=real)
    assert np.isfinite(result.synthetic).all() and result.synthetic[0, 2] == 0


def test_what_cannot_be_compared_is_refused():
    real = people(1)
    empty, one = Table(real.frame.iloc[:0], SCHEMA), Table(real.frame.iloc[:1], SCHEMA)
    for measure in (marginal_distances, dependence):
        with pytest.raises(InvalidArgument, match="synthetic = 'a table without rows'"):
            measure(empty, real=real)
        with pytest.raises(InvalidArgument, match=r"synthetic = 'Holdout'.*its data"):
            measure(Holdout(real), real=real)
        with pytest.raises(InvalidArgument, match="real = 'DataFrame'"):
            measure(real, real=real.frame)
        with pytest.raises(SchemaError, match="has the columns"):
            measure(Table(real.frame[["x"]], Schema((SCHEMA["x"],), "public")), real=real)
        other = Column("x", "categorical", categories=("a",))
        with pytest.raises(SchemaError, match=r"column 'x'.*different kinds"):
            measure(
                Table(pd.DataFrame({"x": ["a"]}), Schema((other,), "public")),
                real=Table(real.frame[["x"]], Schema((SCHEMA["x"],), "public")),
            )
        with pytest.raises(SchemaError, match="no comparable columns"):
            only_ids = Table(real.frame[["who"]], Schema((SCHEMA["who"],), "public"))
            measure(only_ids, real=only_ids)
    with pytest.raises(InvalidArgument, match="1 row"):
        dependence(one, real=real)
    assert np.isfinite(marginal_distances(one, real=real)["distance"]).all()


values = st.lists(
    st.tuples(st.none() | st.floats(-1e9, 1e9), st.none() | st.integers(0, 9), st.sampled_from(["a", "b", "d", None])),
    min_size=2,
    max_size=30,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(values, values)
@pytest.mark.filterwarnings("ignore:.*(constant|missing|do not vary)")
def test_distances_are_never_negative_and_associations_stay_in_bounds(one, two):
    schema = Schema(tuple(SCHEMA[name] for name in ("x", "n", "c")), "public")
    frames = [pd.DataFrame(rows, columns=["x", "n", "c"]) for rows in (one, two)]
    real, generated = (
        Table(f.assign(x=f.x.astype(float), n=f.n.astype("Int64"), c=f.c.astype(object)), schema) for f in frames
    )
    assert (marginal_distances(generated, real=real)["distance"] >= 0).all()
    result = dependence(generated, real=real)
    for matrix in (result.real, result.synthetic):
        assert (np.abs(matrix) <= 1 + 1e-12).all() and (matrix == matrix.T).all() and (np.diag(matrix) == 1).all()


@pytest.mark.filterwarnings("ignore:.*constant")
def test_figures_show_every_column_and_the_infinite_ones():
    real = people(1)
    result = marginal_distances(real, real=changed(real, x=1.0))
    ax = plot_marginal_distances(result)
    assert [label.get_text() for label in ax.get_yticklabels()][-1] == "x"
    assert "infinite" in [text.get_text() for text in ax.get_legend().get_texts()]
    ax = plot_dependence(dependence(people(2), real=real))
    assert [label.get_text() for label in ax.get_xticklabels()] == list(LINKED)
    assert ax.images[0].get_array().shape == (5, 5)
    plt.close("all")
