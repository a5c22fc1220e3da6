"""Generators of tables: the protocol that they share, and what each family keeps of the rows and what not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.tree import DecisionTreeClassifier

import synthbook as sb
from synthbook.core.errors import DataError, HoldoutError, InvalidArgument, SchemaError
from synthbook.core.schema_draft import draft_schema
from synthbook.core.storage import Provenance
from synthbook.core.table import Column, Constraint, Schema, Table
from synthbook.datasets import adult
from synthbook.generators.base import NotFittedError
from synthbook.generators.tabular.base import SAMPLE_BATCH_SIZE, RejectionSamplingError, TableGenerator
from synthbook.generators.tabular.copula import Copula, Marginals, SmoothedBootstrap
from synthbook.generators.tabular.ctgan import CTGAN
from synthbook.generators.tabular.diffusion import TabDDPM
from synthbook.generators.tabular.trees import CART, BoostedTrees, Tree
from synthbook.generators.tabular.tvae import TVAE
from synthbook.privacy.generators.mst import Mst

ORIGIN = Provenance("a test", "pytest")
FAMILIES: dict[str, Callable[[], TableGenerator]] = {
    "marginals": Marginals,
    "copula": Copula,
    "bootstrap": SmoothedBootstrap,
    "cart": CART,
    "boosted": BoostedTrees,
}
TINY = {"steps": 8, "batch_size": 40, "hidden": 16}  # they learn nothing in that time, and keep to the protocol
EVERY = FAMILIES | {
    "tvae": lambda: TVAE(**TINY, latent_dim=4),
    "ctgan": lambda: CTGAN(**TINY, latent_dim=8),
    "diffusion": lambda: TabDDPM(**TINY, T=10),
}


def small() -> Table:
    """Every kind of column, every kind of rule, holes."""
    rng, n = np.random.default_rng(0), 400
    size = rng.choice(["S", "M", "L"], n, p=[0.6, 0.3, 0.1])
    low = rng.uniform(0, 5, n)
    frame = pd.DataFrame(
        {
            "id": np.arange(n) + 900,
            "size": size,
            "price": pd.Series(size).map({"S": 1.5, "M": 2.5, "L": 9.0}),
            "low": low,
            "high": low + rng.exponential(1, n),
            "rank": pd.Series(rng.choice(["a", "b"], n)).mask(rng.random(n) < 0.2),
            "count": pd.Series(rng.poisson(2, n)).mask(rng.random(n) < 0.1).astype("Int64"),
            "day": pd.Timestamp("2020-02-29") + pd.to_timedelta(rng.integers(0, 300, n), unit="D"),
            "note": "private",
        }
    )
    columns = (
        Column("id", "id"),
        Column("size", "categorical", categories=("S", "M", "L")),
        Column("price", "numeric", 0, 10),
        Column("low", "numeric", 0, 100),
        Column("high", "numeric", 0, 100),
        Column("rank", "ordinal", categories=("a", "b"), missing=True),
        Column("count", "numeric", 0, 50, integer=True, missing=True),
        Column("day", "datetime", datetime(2020, 1, 1), datetime(2021, 12, 31)),
        Column("note", "text"),
    )
    rules = (Constraint("dependency", ("size", "price")), Constraint("inequality", ("low", "high")))
    return Table(frame.assign(day=frame["day"].astype("datetime64[us]")), Schema(columns, "public", rules))


TABLE = small()


@cache
def fitted(family: str) -> TableGenerator:
    """Learnt once for all tests here; none of them changes it."""
    return EVERY[family]().fit(TABLE, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("family", EVERY)
def test_rows_fit_their_schema_and_repeat_themselves(family: str, tmp_path: Path) -> None:
    model = fitted(family)
    made = model.sample(700, seed=4)  # a Table: types, bounds, categories and rules hold
    assert len(made) == 700 and made.schema == TABLE.schema
    frame = made.frame
    assert frame["id"].tolist() == list(range(1, 701)) and set(frame["note"]) == {""}
    if family in FAMILIES:
        assert frame["rank"].isna().mean() == pytest.approx(0.2, abs=0.08)
        assert frame["size"].eq("S").mean() == pytest.approx(0.6, abs=0.08)
    pd.testing.assert_frame_equal(EVERY[family]().fit(TABLE, seed=3).sample(700, seed=4).frame, frame)
    assert not model.sample(700, seed=5).frame.equals(frame)
    kept = type(model).load(model.save(tmp_path / "model", ORIGIN))
    pd.testing.assert_frame_equal(kept.sample(700, seed=4).frame, frame)
    again = model.save(tmp_path / "again", ORIGIN)
    for name in ("model.json", "model.safetensors"):
        assert (again / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_drawn_as_asked(family: str) -> None:
    model = fitted(family)
    made = model.sample(300, seed=4, where={"size": "L", "rank": "a"}).frame
    assert len(made) == 300 and set(made["size"]) == {"L"} and set(made["rank"]) == {"a"} and set(made["price"]) == {9}
    assert made["id"].tolist() == list(range(1, 301))
    assert set(model.sample(20, seed=4, where={"count": "2"}).frame["count"]) == {2}
    for asked, expected in (
        ({"colour": "red"}, "one of id"),
        ({"size": "XL"}, "3 strings"),
        ({"count": "many"}, "whole numbers"),
        ({"count": 2.5}, "whole numbers"),
        ({"note": "x"}, "kind text"),
        ({"rank": None}, "2 strings"),
    ):
        with pytest.raises(InvalidArgument, match=expected):
            model.sample(3, seed=0, where=asked)
    with pytest.raises(RejectionSamplingError, match=r"0 of .* had count = 49"):
        model.sample(3, seed=0, where={"count": 49})


@pytest.mark.slow
def test_what_cannot_be_learnt_is_refused(tmp_path: Path) -> None:
    for given in (adult().test, [adult().test]):
        with pytest.raises(HoldoutError):
            Copula().fit(given, seed=0)
    with pytest.raises(InvalidArgument, match="a Table"):
        Copula().fit({"a": [1, 2]}, seed=0)
    with pytest.raises(InvalidArgument, match="at least 2"):
        Copula().fit(Table(TABLE.frame.head(1), TABLE.schema), seed=0)
    with pytest.raises(InvalidArgument, match="does not train in steps"):
        Copula().fit(TABLE, seed=0, steps=3)
    with pytest.raises(InvalidArgument, match="some of min_samples_leaf"):
        CART(depth=3)
    with pytest.raises(InvalidArgument, match="at least 1"):
        CART(min_samples_leaf=0)
    with pytest.raises(InvalidArgument, match="share from 0 to 1"):
        SmoothedBootstrap(resample_prob=2)
    with pytest.raises(NotFittedError):
        CART().sample(3, seed=0)
    with pytest.raises(InvalidArgument, match="n"):
        Marginals().fit(TABLE, seed=0).sample(0, seed=0)
    bare = Schema((Column("id", "id"), Column("note", "text")), "public")
    with pytest.raises(SchemaError, match="nothing is left"):
        Marginals().fit(Table(TABLE.frame[["id", "note"]], bare), seed=0)
    folder = Copula().fit(TABLE, seed=0).save(tmp_path / "model", ORIGIN)
    with pytest.raises(DataError, match="'table-copula', not of 'table-cart'"):
        CART.load(folder)


def test_a_frame_gets_a_drafted_schema_with_a_warning_and_private_models_refuse_it() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"flag": rng.integers(2, size=200), "late": rng.random(200) < 0.5, "size": rng.normal(size=200)}
    )
    frame["when"] = [f"2024-03-{day:02d}" for day in rng.integers(1, 29, 200)]
    frame["town"] = pd.Series(rng.choice(["Köln", "Bonn"], 200)).mask(rng.random(200) < 0.1)
    with pytest.warns(UserWarning, match="drafted from the rows"):
        model = sb.Copula().fit(frame, seed=0)
    schema, drawn = model.table_spec_.schema, model.sample(300, seed=1)
    assert schema == draft_schema(frame).schema and schema.origin == "inferred" and "inferred" in repr(drawn)
    assert set(drawn["flag"]) == {"0", "1"} and set(drawn["late"]) == {"False", "True"}
    assert drawn["when"].dt.month.eq(3).all() and drawn["town"].isna().mean() == pytest.approx(0.1, abs=0.08)
    with pytest.raises(InvalidArgument, match="a Table"):
        Mst(epsilon=1.0, delta=1e-6).fit(frame, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_column_without_a_value_and_one_with_a_single_value(family: str) -> None:
    columns = (Column("empty", "numeric", 0, 1, missing=True), Column("one", "categorical", categories=("x", "y")))
    frame = pd.DataFrame({"empty": np.full(50, np.nan), "one": "x"})
    made = FAMILIES[family]().fit(Table(frame, Schema(columns, "public")), seed=0).sample(60, seed=0).frame
    assert made["empty"].isna().all() and set(made["one"]) <= ({"x", "y"} if family == "bootstrap" else {"x"})


def test_a_rule_between_a_number_and_another_column_is_reported_when_it_breaks() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, 300)
    frame = pd.DataFrame({"x": x, "y": x * 1.5})
    columns = (Column("x", "numeric", 0, 9, integer=True), Column("y", "numeric", 0, 20))
    both = (Constraint("dependency", ("x", "y")), Constraint("dependency", ("y", "x")))
    for rules in (both[:1], both):
        table = Table(frame, Schema(columns, "public", rules))
        with pytest.warns(UserWarning, match="rows break the rule dependency") as told:
            made = Marginals().fit(table, seed=0).sample(100, seed=0)
        assert len(told) == len(rules) and made.schema.rules == ()


@pytest.mark.slow
def test_only_rules_that_rows_can_break_cost_rows() -> None:
    asked: list[int] = []

    class Counted(Marginals):
        def _draw(self, n: int, *given: object) -> pd.DataFrame:
            asked.append(n)
            return super()._draw(n, *given)  # type: ignore[arg-type]

    rows = Table(adult().train.frame.head(200), adult().train.schema)
    assert len(Counted().fit(rows, seed=0).sample(7, seed=0)) == 7  # education-num is looked up, whatever the rows are
    assert asked == [7] and not Counted().fit(rows, seed=0).table_spec_.unenforced_rules
    Counted().fit(TABLE, seed=0).sample(7, seed=0)  # low <= high
    assert asked[1:] == [SAMPLE_BATCH_SIZE]


@pytest.mark.slow
def test_the_families_of_adult_order_themselves_by_what_they_keep_of_its_columns() -> None:
    train = adult().train
    rows = Table(train.frame.head(6_000), train.schema)
    gap = {}
    for name, family in FAMILIES.items():
        made = family().fit(rows, seed=0).sample(6_000, seed=1).frame
        assert (made["education-num"].isin(range(1, 17))).all()
        married = made["marital-status"] == "Married-civ-spouse"
        rich = made["income"] == ">50K"
        gap[name] = float(rich[married].mean() - rich[~married].mean())
    real = rows.frame
    married, rich = real["marital-status"] == "Married-civ-spouse", real["income"] == ">50K"
    true = float(rich[married].mean() - rich[~married].mean())
    assert true > 0.3 and abs(gap["marginals"]) < 0.05
    assert gap["copula"] > 0.5 * true
    assert gap["cart"] == pytest.approx(true, abs=0.05) and gap["boosted"] == pytest.approx(true, abs=0.08)
    assert 0.8 * true < gap["bootstrap"] < true


def test_a_bootstrap_that_is_not_shaken_copies() -> None:
    made = SmoothedBootstrap(bandwidth=0.0, resample_prob=0.0).fit(TABLE, seed=0).sample(100, seed=1).frame
    known = {tuple(row) for row in TABLE.frame[["low", "high", "day"]].itertuples(index=False)}
    assert all(tuple(row) in known for row in made[["low", "high", "day"]].itertuples(index=False))
    shaken = SmoothedBootstrap().fit(TABLE, seed=0).sample(4_000, seed=1).frame
    assert shaken["low"].std() == pytest.approx(TABLE["low"].std(), rel=0.05)
    assert shaken["low"].isin(TABLE["low"]).mean() < 0.01  # the least and the largest, at most


def test_a_tree_sends_rows_where_scikit_learn_does() -> None:
    rng = np.random.default_rng(0)
    x, column = rng.normal(size=(3_000, 4)), Column("c", "categorical", categories=("a", "b", "c"))
    y = np.digitize(x[:, 0] + 0.5 * x[:, 1] * rng.normal(size=3_000), [-0.5, 0.5]).astype(float)
    tree = Tree.fit(x, y, column, 5, seed=7)
    peer = DecisionTreeClassifier(min_samples_leaf=5, random_state=7).fit(x, y.astype(int))
    fresh = rng.normal(size=(3_000, 4))
    np.testing.assert_array_equal(tree.apply(fresh), peer.apply(fresh))
    drawn = np.stack([tree.draw(fresh[:20], np.random.default_rng(seed)) for seed in range(800)])
    shares = np.stack([(drawn == k).mean(axis=0) for k in range(3)], axis=1)
    np.testing.assert_allclose(shares, peer.predict_proba(fresh[:20]), atol=0.08)


@pytest.mark.slow
def test_many_rows_take_no_more_memory_than_a_few(tmp_path: Path) -> None:
    Marginals().fit(TABLE, seed=0).save(tmp_path / "model", ORIGIN)
    script = (
        "import resource; from pathlib import Path; from synthbook.core.storage import Provenance\n"
        "from synthbook.generators.registry import load\n"
        "for n in (20_000, 250_000):\n"
        "    load('model').write(f'{n}.csv', n, seed=0)\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"  # the highest so far, and it never falls
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=True)
    few, many = (int(said) * (1 if sys.platform == "darwin" else 1024) for said in done.stdout.split())
    with (tmp_path / "250000.csv").open() as lines:
        assert sum(1 for _ in lines) == 250_001
    assert many < few + 10 * 2**20  # 43 bytes for each row more; a row has nine values
