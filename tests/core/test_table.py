"""Schemas, tables and holdouts: what is refused, with which words, and what cannot be changed."""

import copy
import dataclasses
import pickle
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthbook import datasets
from synthbook.core.errors import HoldoutError, SchemaError
from synthbook.core.table import Column, Constraint, Holdout, Schema, Table, refuse_holdout
from synthbook.core.types import Split

YEAR_2000 = datetime(2000, 1, 1)
SCHEMA = Schema(
    columns=(
        Column("id", "id"),
        Column("age", "numeric", lower=0, upper=120, integer=True),
        Column("height", "numeric", lower=0.0, upper=2.5, missing=True),
        Column("city", "categorical", categories=("Bonn", "Cork")),
        Column("country", "categorical", categories=("Germany", "Ireland"), missing=True),
        Column("level", "ordinal", categories=("low", "middle", "high")),
        Column("born", "datetime", lower=datetime(1900, 1, 1), upper=YEAR_2000),
        Column("seen", "datetime"),
        Column("note", "text", missing=True),
        Column("children", "numeric", lower=0, upper=20, integer=True, missing=True),
    ),
    origin="public",
    rules=(
        Constraint("dependency", ("city", "country")),
        Constraint("inequality", ("born", "seen")),
        Constraint("pairs", ("level", "age"), pairs=(("low", 1), ("middle", 2), ("high", 3))),
    ),
    entity="id",
)


def good() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": ["a", "b", "b"],
            "age": [1, 2, 3],
            "height": [1.5, np.nan, 2.5],
            "city": ["Bonn", "Cork", "Bonn"],
            "country": ["Germany", "Ireland", None],
            "level": ["low", "middle", "high"],
            "born": pd.to_datetime(["1900-01-01", "1999-12-31", "2000-01-01"]),
            "seen": pd.to_datetime(["2001-01-01"] * 3),
            "note": ["hello", None, ""],
            "children": [0, None, 20],
        },
        index=[7, 8, 19],
    )


def test_a_fitting_frame_becomes_a_table_with_the_schemas_types():
    table = Table(good()[good().columns[::-1]], SCHEMA)
    frame = table.frame
    assert list(frame.columns) == SCHEMA.names and list(frame.index) == [7, 8, 19]
    assert [str(frame[c].dtype) for c in ("age", "height", "children", "born")] == [
        "int64",
        "float64",
        "Int64",
        "datetime64[us]",
    ]
    assert list(frame["city"].cat.categories) == ["Bonn", "Cork"] and not frame["city"].cat.ordered
    assert frame["level"].cat.ordered and frame["level"].max() == "high"
    assert len(table) == 3 and repr(table) == "Table(3 rows x 10 columns, public schema)"


def test_a_table_of_a_tables_frame_is_the_same_table():
    table = Table(good(), SCHEMA)
    pd.testing.assert_frame_equal(Table(table.frame, SCHEMA).frame, table.frame)


def test_a_frame_without_rows_fits():
    assert len(Table(good().iloc[:0], SCHEMA)) == 0


def test_whole_floats_become_integers():
    assert Table(good().assign(age=[1.0, 2.0, 3.0]), SCHEMA)["age"].dtype == "int64"


REFUSED = {
    "unknown column": (lambda f: f.assign(extra=1), r"column 'extra' is not in the schema"),
    "absent column": (lambda f: f.drop(columns="age"), r"column 'age' is missing"),
    "column twice": (lambda f: pd.concat([f, f[["age"]]], axis=1), r"column 'age' occurs twice"),
    "too high": (lambda f: f.assign(age=[1, 121, 3]), r"'age': 1 values .* 121 in row 8; .* from 0 to 120"),
    "too low": (lambda f: f.assign(height=[-0.1, 1, 1]), r"'height': 1 values .* -0.1 in row 7; .* from 0.0 to 2.5"),
    "infinite": (lambda f: f.assign(height=[np.inf, 1, 1]), r"'height': .* inf in row 7"),
    "not whole": (lambda f: f.assign(age=[1, 2.5, 3]), r"'age': .* 2.5 in row 8; allowed: whole numbers from 0 to 120"),
    "strings for numbers": (lambda f: f.assign(age=["1", "2", "3"]), r"'age': holds string .*; allowed: whole numbers"),
    "booleans for numbers": (lambda f: f.assign(age=[True, False, True]), r"'age': holds boolean"),
    "unseen category": (
        lambda f: f.assign(city=["Bonn", "Rome", "Rome"]),
        r"'city': 2 values .* 'Rome' in row 8.*Cork",
    ),
    "other case": (lambda f: f.assign(level=["Low", "middle", "high"]), r"'level': 1 values .* 'Low' in row 7"),
    "numbers for categories": (lambda f: f.assign(city=[1, 2, 3]), r"'city': holds integer"),
    "lists for categories": (lambda f: f.assign(city=[["Bonn"]] * 3), r"'city': holds mixed"),
    "other categories": (
        lambda f: f.assign(city=pd.Categorical(["x", "Bonn", "Bonn"])),
        r"'city': 1 values .* 'x' in row 7",
    ),
    "missing number": (lambda f: f.assign(age=[1, np.nan, 3]), r"'age': 1 values are missing, which is not allowed"),
    "missing category": (lambda f: f.assign(city=["Bonn", None, None]), r"'city': 2 values are missing"),
    "all missing": (lambda f: f.assign(city=None), r"'city': 3 values are missing"),
    "strings for dates": (lambda f: f.assign(seen="2001-01-01"), r"'seen': holds string"),
    "date with time zone": (lambda f: f.assign(seen=f["seen"].dt.tz_localize("UTC")), r"'seen': holds datetime64"),
    "date too late": (
        lambda f: f.assign(born=pd.Timestamp(2000, 1, 2)),
        r"'born': 3 values .*2000-01-02.* from 1900-01-01",
    ),
    "numbers for text": (lambda f: f.assign(note=[1, 2, 3]), r"'note': holds integer .*; allowed: strings"),
    "fractions for ids": (lambda f: f.assign(id=[0.5, 1.5, 2.5]), r"'id': holds floating"),
    "broken dependency": (
        lambda f: f.assign(country=["Germany", "Ireland", "Ireland"]),
        r"2 rows break the rule dependency\('city', 'country'\)",
    ),
    "broken inequality": (
        lambda f: f.assign(seen=pd.to_datetime(["1899-01-01", "2001-01-01", "1999-01-01"])),
        r"2 rows break the rule inequality\('born', 'seen'\)",
    ),
    "broken pairs": (lambda f: f.assign(age=[1, 1, 1]), r"2 rows break the rule pairs\('level', 'age'\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_frame_that_does_not_fit_is_refused_with_column_value_and_what_is_allowed(case):
    change, message = REFUSED[case]
    with pytest.raises(SchemaError, match=message):
        Table(change(good()), SCHEMA)


def test_all_problems_are_listed_at_once():
    with pytest.raises(SchemaError) as refused:
        SCHEMA.validate(good().assign(age=-1, city="Rome"))
    assert "'age': 3 values" in str(refused.value) and "'city': 3 values" in str(refused.value)


def test_rules_pass_over_rows_with_missing_values():
    SCHEMA.validate(good().assign(country=[None, None, None]))


WRONG_COLUMNS = {
    "kind": {"kind": "number"},
    "bounds left out": {"kind": "numeric", "lower": 1},
    "bounds swapped": {"kind": "numeric", "lower": 2, "upper": 1},
    "bound is a string": {"kind": "numeric", "lower": "1", "upper": 2},
    "bound is infinite": {"kind": "numeric", "lower": 0, "upper": float("inf")},
    "bound is not a number": {"kind": "numeric", "lower": float("nan"), "upper": 1},
    "integer with fractions": {"kind": "numeric", "lower": 0.5, "upper": 2, "integer": True},
    "integer beyond floats": {"kind": "numeric", "lower": 0, "upper": 2**60, "integer": True},
    "no categories": {"kind": "categorical"},
    "categories on numbers": {"kind": "numeric", "lower": 0, "upper": 1, "categories": ("a",)},
    "category twice": {"kind": "categorical", "categories": ("a", "a")},
    "category is a number": {"kind": "ordinal", "categories": (1, 2)},
    "bounds on text": {"kind": "text", "lower": 0},
    "integer text": {"kind": "text", "integer": True},
    "date with time zone": {"kind": "datetime", "lower": datetime(2000, 1, 1, tzinfo=UTC)},
    "missing is a word": {"kind": "text", "missing": "yes"},
}


@pytest.mark.parametrize("case", WRONG_COLUMNS)
def test_a_wrong_column_is_refused_by_name(case):
    with pytest.raises(SchemaError, match="column 'x'"):
        Column("x", **WRONG_COLUMNS[case])


def number(name: str) -> Column:
    return Column(name, "numeric", lower=0, upper=9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"origin": "mine"}, "origin = 'mine'"),
        ({"columns": ()}, "at least one column"),
        ({"columns": (number("a"), number("a"))}, "same name"),
        ({"entity": "nobody"}, "entity = 'nobody'"),
        ({"rules": (Constraint("inequality", ("a", "z")),)}, "column 'z' is not in the schema"),
        ({"rules": (Constraint("inequality", ("a", "c")),)}, "cannot be compared"),
        ({"rules": (Constraint("pairs", ("a", "b"), pairs=((1, 10),)),)}, "rule pairs: column 'b'.* 10 "),
    ],
)
def test_a_wrong_schema_is_refused(change, message):
    right = {"columns": (number("a"), number("b"), Column("c", "text")), "origin": "public"}
    Schema(**right)
    with pytest.raises(SchemaError, match=message):
        Schema(**(right | change))


@pytest.mark.parametrize(
    "rule", [("sum", ("a", "b")), ("pairs", ("a", "b")), ("dependency", ("a", "a")), ("dependency", ("a", "b", "c"))]
)
def test_a_wrong_rule_is_refused(rule):
    with pytest.raises(SchemaError, match="rule"):
        Constraint(*rule)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "origin = ",
        'origin = "public"',
        'origin = "public"\n[[column]]\nname = "a"\nkind = "text"\nunit = "m"',
        'origin = "public"\nauthor = "me"\n[[column]]\nname = "a"\nkind = "text"',
        'origin = "public"\n[[column]]\nkind = "text"',
        'origin = "public"\ncolumn = 3',
        'origin = "public"\n[[column]]\nname = "a"\nkind = "id"\n[[rule]]\nkind = "pairs"\ncolumns = []\npairs = [[1]]',
    ],
)
def test_a_file_that_is_not_a_schema_is_refused_by_name(tmp_path, text):
    path = tmp_path / "schema.toml"
    path.write_text(text)
    with pytest.raises(SchemaError, match=r"schema.toml is not a schema"):
        Schema.from_toml(path)


def test_a_schema_file_that_cannot_be_read_is_refused_by_name(tmp_path):
    with pytest.raises(SchemaError, match=r"absent.toml cannot be read"):
        Schema.from_toml(tmp_path / "absent.toml")


# ── round trip ──

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)  # control characters, quotes and emoji included
flags = {"missing": st.booleans(), "description": st.text(st.characters(codec="utf-8"), max_size=6)}
integers = st.integers(-(2**53), 2**53)
floats = st.floats(allow_nan=False, allow_infinity=False)
moments = st.datetimes(datetime(1000, 1, 1))


@st.composite
def columns(draw, name: str) -> Column:
    kind = draw(st.sampled_from(["integer", "float", "categorical", "ordinal", "datetime", "id", "text"]))
    common = {key: draw(value) for key, value in flags.items()}
    if kind in ("integer", "float"):
        lower, upper = sorted(draw(st.tuples(*[integers if kind == "integer" else floats] * 2)))
        return Column(name, "numeric", lower=lower, upper=upper, integer=kind == "integer", **common)
    if kind in ("categorical", "ordinal"):
        return Column(
            name, kind, categories=tuple(draw(st.lists(words, min_size=1, max_size=4, unique=True))), **common
        )
    if kind == "datetime" and draw(st.booleans()):
        lower, upper = sorted(draw(st.tuples(moments, moments)))
        return Column(name, kind, lower=lower, upper=upper, **common)
    return Column(name, kind, **common)


@st.composite
def schemas(draw) -> Schema:
    names = draw(st.lists(words, min_size=1, max_size=5, unique=True))
    made = tuple(draw(columns(name)) for name in names)
    rules: tuple[Constraint, ...] = ()
    if len(names) > 1:
        rules = (Constraint("dependency", (names[0], names[1])),)
        named = [column for column in made if column.categories]
        if len(named) > 1:
            rules += (
                Constraint(
                    "pairs", (named[0].name, named[1].name), ((named[0].categories[0], named[1].categories[-1]),)
                ),
            )
    entity = draw(st.sampled_from([None, *names]))
    return Schema(made, draw(st.sampled_from(["public", "inferred"])), rules, entity)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(schemas())
def test_every_schema_survives_being_written_and_read(schema):
    with tempfile.TemporaryDirectory() as folder:
        text = schema.to_toml(path := Path(folder) / "schema.toml")
        assert Schema.from_toml(path) == Schema.from_text(text, source=path) == schema


@pytest.mark.parametrize("name", ["adult", "shuttle"])
def test_the_reviewed_schemas_survive_too(name, tmp_path):
    schema = datasets.load_schema(name)
    schema.to_toml(tmp_path / "schema.toml")
    assert Schema.from_toml(tmp_path / "schema.toml") == schema


def test_a_bound_of_zero_is_written():
    assert "lower = 0" in Schema((number("a"),), "public").to_toml()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=8))
def test_broken_rows_are_those_a_plain_loop_counts(rows):
    frame = pd.DataFrame(rows, columns=["a", "b"], dtype="int64")
    seconds = {a: {b for x, b in rows if x == a} for a, _ in rows}
    assert Constraint("dependency", ("a", "b")).count_violations(frame) == sum(len(seconds[a]) > 1 for a, _ in rows)
    assert Constraint("inequality", ("a", "b")).count_violations(frame) == sum(a > b for a, b in rows)
    assert Constraint("pairs", ("a", "b"), ((0, 1), (2, 2))).count_violations(frame) == sum(
        r not in ((0, 1), (2, 2)) for r in rows
    )


# ── immutability ──


def test_nothing_done_to_a_look_at_a_table_reaches_it():
    source = good()
    table = Table(source, SCHEMA)
    before = table.frame
    source.loc[7, "age"] = 99
    frame, column = table.frame, table["age"]
    frame.loc[7, "age"] = column.iloc[0] = 99
    del frame["height"]
    for values in (table.frame["height"].to_numpy(), table["height"].to_numpy(), table.frame["age"].array):
        try:
            values[0] = 2
        except ValueError:
            continue  # pandas 3 hands out arrays that refuse writing
    pd.testing.assert_frame_equal(table.frame, before)


def test_an_array_shared_with_the_source_frame_does_not_reach_the_table():
    array = np.array([[1.0], [2.0]])
    table = Table(pd.DataFrame(array, columns=["a"], copy=False), Schema((number("a"),), "public"))
    array[:] = 9
    assert table["a"].tolist() == [1.0, 2.0]


def test_a_table_cannot_be_given_another_frame_or_schema():
    table = Table(good(), SCHEMA)
    for name in ("frame", "schema", "rows"):
        with pytest.raises(AttributeError):
            setattr(table, name, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.schema.origin = "inferred"
    with pytest.raises(SchemaError, match="column 'nobody'"):
        table["nobody"]


def test_a_table_can_be_sent_to_another_process():
    table = Table(good(), SCHEMA)
    for other in (pickle.loads(pickle.dumps(table)), copy.deepcopy(table)):
        pd.testing.assert_frame_equal(other.frame, table.frame)
        assert other.schema == SCHEMA


# ── holdouts ──


def test_a_holdout_is_refused_wherever_it_hides():
    holdout = Holdout(Table(good(), SCHEMA))
    for hidden in (holdout, [holdout], ("train", holdout), Split(holdout.data, holdout)):
        with pytest.raises(HoldoutError, match="cannot be used for fitting a copula: give the train part"):
            refuse_holdout(hidden, "fitting a copula")


def test_training_data_are_not_refused():
    for fine in (Table(good(), SCHEMA), good(), np.zeros(3), [1, 2], None, "text"):
        refuse_holdout(fine, "fitting")


def test_a_holdout_is_read_only_and_as_long_as_its_data():
    holdout = Holdout(Table(good(), SCHEMA))
    assert len(holdout) == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        holdout.data = good()
