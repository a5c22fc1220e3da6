"""Drafting a schema: the kinds, bounds and rules that a file suggests, and what to review."""

import json
import tomllib
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthbook import datasets
from synthbook.cli.main import main
from synthbook.core.csv import load_table, read_csv
from synthbook.core.errors import SchemaError
from synthbook.core.schema_draft import draft_file, draft_schema
from synthbook.core.table import Column, Constraint, Schema, Table

N = 200
RNG = np.random.default_rng(0)


def kinds(frame: pd.DataFrame) -> dict[str, str]:
    return {column.name: column.kind for column in draft_schema(frame).schema.columns}


def kind(values, name="x") -> str:
    return draft_schema(pd.DataFrame({name: pd.Series(values)})).schema.columns[0].kind


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.fixture(scope="module")
def adult_csv(tmp_path_factory):
    path = tmp_path_factory.mktemp("adult") / "real.csv"
    datasets.adult().train.frame.to_csv(path, index=False, na_rep="?")
    return path


@pytest.mark.slow
def test_adult_is_drafted_as_a_person_reviewed_it(adult_csv, tmp_path):
    drafted = draft_file(adult_csv, tmp_path / "schema.toml")
    reviewed, schema = datasets.load_schema("adult"), Schema.from_toml(tmp_path / "schema.toml")
    assert schema == drafted.schema and schema.origin == "inferred"
    agree = [c.name for c in reviewed.columns if (c.kind, c.missing) == (schema[c.name].kind, schema[c.name].missing)]
    assert len(agree) >= 13, set(reviewed.names) - set(agree)
    assert Constraint("dependency", ("education", "education-num")) in schema.rules
    assert {rule.columns for rule in schema.rules} == {("education", "education-num"), ("education-num", "education")}
    assert (schema["age"].lower, schema["age"].upper, schema["age"].integer) == (17, 90, True)
    same = load_table(adult_csv, reviewed)
    pd.testing.assert_frame_equal(same.frame, datasets.adult().train.frame.reset_index(drop=True))
    assert len(load_table(adult_csv, schema)) == 32_561


@pytest.mark.slow
def test_the_draft_asks_a_question_about_every_column_and_rule(adult_csv, tmp_path):
    draft_file(adult_csv, tmp_path / "schema.toml")
    lines = (tmp_path / "schema.toml").read_text().split("\n")
    starts = [i for i, line in enumerate(lines) if line in ("[[column]]", "[[rule]]")]
    assert len(starts) == 15 + 2 and all(lines[i - 1].startswith("# ") for i in starts)
    text = "\n".join(lines)
    assert text.count("bounds SEEN IN THE ROWS") == 6 and text.count("categories SEEN IN THE ROWS") == 9
    assert 'missing values are written as "?" in 583 rows' in text
    assert "41 categories SEEN IN THE ROWS (1 in one row only, a pointer to that row)" in text  # the book's own row
    assert "in 32,561 rows. Is it a law, or an accident of these rows?" in text
    assert lines[0].startswith("# Drafted from real.csv, 32,561 rows, SHA-256 ")
    assert "# by: synthbook schema draft real.csv" in lines


WORDS = ["the", "parcel", "came", "late", "and", "box", "was", "open", "when", "it", "reached", "our", "door"]
KINDS = [
    ("row number", range(N), "id"),
    ("codes", [f"C{i:05d}" for i in range(N)], "id"),
    ("customer_id", RNG.integers(0, 100, N), "id"),
    ("customerId", [f"c{i}" for i in RNG.integers(0, 100, N)], "id"),
    ("store_id", RNG.integers(1, 6, N), "categorical"),
    ("paid", RNG.integers(1, 500, N), "numeric"),  # ends in "id" and is none
    ("spread", np.random.default_rng(1).permutation(10_000)[:N], "numeric"),  # unique, yet not counted up
    ("whole", RNG.integers(-50, 50, N), "numeric"),
    ("real", RNG.normal(size=N), "numeric"),
    ("exponents", ["1e-3", "2.5E+4", ".5", "3."] * 50, "numeric"),
    ("booleans", ["true", "False"] * 100, "categorical"),
    ("zero one", [0, 1] * 100, "categorical"),
    ("truth", [True, False] * 100, "categorical"),
    ("colours", ["red", "green", "blue", "grey"] * 50, "categorical"),
    ("zip", [f"0{i % 90:04d}" for i in range(N)], "text"),  # leading zeros: no number; too many for categories
    ("long numbers", [str(10**17 + i) for i in range(N)], "id"),
    ("sizes", ["S", "M", "L", "XL"] * 50, "ordinal"),
    ("ages", ["18-24", "25-34", "35-64", "65+"] * 50, "ordinal"),
    ("agreement", ["agree", "neutral", "disagree", "strongly agree"] * 50, "ordinal"),
    ("Likert codes", ["1", "2", "3", "4", "5"] * 40, "numeric"),
    ("two", ["<=50K", ">50K"] * 100, "categorical"),
    ("iso", ["2024-02-29", "1999-12-31"] * 100, "datetime"),
    ("iso time", ["2024-02-29T12:30:00", "1999-12-31 23:59:59.5"] * 100, "datetime"),
    ("german", ["29.02.2024", "31.12.1999"] * 100, "datetime"),
    ("slashes", ["29/02/2024", "01/12/1999"] * 100, "datetime"),
    ("American", ["02/29/2024 07:30", "12/31/1999 00:00"] * 100, "datetime"),
    ("months", ["29 Feb 2024", "31 Dec 1999"] * 100, "datetime"),
    ("no date", ["2023-02-30", "2024-02-29"] * 100, "categorical"),
    ("text", [" ".join(RNG.choice(WORDS, 12)) for _ in range(N)], "text"),
    ("empty", [None] * N, "text"),
    ("typed dates", pd.date_range("2020-01-01", periods=N), "datetime"),
    ("typed categories", pd.Categorical(["a", "b"] * 100, ["a", "b", "c"]), "categorical"),
    ("typed ordinal", pd.Categorical(["a", "b"] * 100, ["b", "a"], ordered=True), "ordinal"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "values", "expected"), KINDS, ids=[row[0] for row in KINDS])
def test_kinds(name, values, expected):
    assert kind(values, name) == expected


def test_dates_numbers_and_orders_are_read_for_what_they_are():
    frame = pd.DataFrame(
        {
            "day": ["29.02.2024", "01.03.2024"] * 20,
            "size": ["L", "XS", "M", "S"] * 10,
            "age": ["65+", "<18", "18-24", "25-64"] * 10,
            "offset": ["2024-01-01T00:00:00+02:00", "2024-01-01T00:00:00Z"] * 20,
        }
    )
    schema = draft_schema(frame).schema
    assert (schema["day"].lower, schema["day"].upper) == (datetime(2024, 2, 29), datetime(2024, 3, 1))
    assert schema["size"].categories == ("XS", "S", "M", "L")
    assert schema["age"].categories == ("<18", "18-24", "25-64", "65+")
    assert schema["offset"].lower == datetime(2023, 12, 31, 22)
    assert "converted to UTC" in " ".join(draft_schema(frame).review_notes["offset"])


def test_dates_that_may_be_read_in_two_ways_are_not_guessed(tmp_path):
    frame = pd.DataFrame({"day": ["01/02/2024", "03/04/2024"] * 20})
    found = draft_schema(frame)
    assert found.schema["day"].kind == "categorical"
    assert "fits both day first and month first: write them as 2024-12-31" in found.review_notes["day"][0]
    path = write(tmp_path / "a.csv", "day\n01/02/2024\n03/04/2024\n")
    with pytest.raises(SchemaError, match=r"a\.csv: column 'day': .*'01/02/2024'.*both day first and month first"):
        load_table(path, Schema((Column("day", "datetime"),), "public"))
    assert kind(["05/05/2024"] * 20) == "datetime"  # both readings are the same day


def test_missing_values_in_every_spelling(tmp_path):
    tokens = ["", "NA", "?", "null", "NaN", "None", "N/A"]
    path = write(tmp_path / "a.csv", "n,c\n" + "".join(f"{t},{t}\n{i},red\n" for i, t in enumerate(tokens)))
    frame = read_csv(path)
    assert frame.isna().sum().to_dict() == {"n": 7, "c": 7} and str(frame["n"].dtype) == "Int64"
    schema = draft_schema(frame).schema
    assert schema["n"].missing and schema["n"].integer and schema["c"].categories == ("red",)
    assert frame.attrs["notes"]["n"][0].count(" in 1") == 7
    assert load_table(path, schema)["n"].isna().sum() == 7


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"x": []}), "0 rows and 1 columns"),
        (pd.DataFrame(index=[1]), "1 rows and 0 columns"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "several columns have the same name: a"),
        (pd.DataFrame({"x": [1.0, np.inf]}), "column 'x' holds infinities"),
        (pd.DataFrame({"x": ["1.5", "-inf"]}), "column 'x' holds infinities"),
        (pd.DataFrame({"x": [[1], [2]]}), "column 'x' holds mixed"),
        (pd.DataFrame({"x": ["a", 1]}), "column 'x' holds mixed"),
    ],
)
def test_frames_that_give_no_schema(frame, message):
    with pytest.raises(SchemaError, match=message):
        draft_schema(frame)


def test_ten_thousand_categories_are_free_text_with_a_word_about_it():
    found = draft_schema(pd.DataFrame({"x": [f"word{i % 10_000}" for i in range(20_000)]}))
    assert found.schema["x"].kind == "text"
    assert "10,000 different strings, too many to be categories: group them if they matter" in found.review_notes["x"]
    assert kind([f"word{i % 1_000}" for i in range(20_000)]) == "categorical"


def test_a_repeating_id_is_offered_as_the_entity():
    found = draft_schema(pd.DataFrame({"person_id": RNG.integers(0, 60, N), "x": RNG.normal(size=N)}))
    assert 'write entity = "person_id"' in found.review_notes["person_id"][1] and found.schema.entity is None


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def rules(frame: pd.DataFrame) -> set[tuple[str, tuple[str, str]]]:
    return {(rule.kind, rule.columns) for rule in draft_schema(frame).schema.rules}


def test_laws_are_found_and_one_exception_ends_them():
    city = RNG.choice(["Bonn", "Köln", "Cork", "Oslo"], N)
    country = pd.Series(city).map({"Bonn": "DE", "Köln": "DE", "Cork": "IE", "Oslo": "NO"})
    start = pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 1000, N), unit="D")
    end = start + pd.to_timedelta(RNG.integers(0, 30, N), unit="D")
    low = RNG.normal(size=N)
    frame = pd.DataFrame({"city": city, "country": country, "start": start, "end": end, "low": low, "high": low + 0.5})
    frame.loc[7, ["country", "end", "high"]] = None  # says nothing
    found = rules(frame)
    assert ("dependency", ("city", "country")) in found and ("dependency", ("country", "city")) not in found
    assert {columns for kind, columns in found if kind == "inequality"} == {("start", "end"), ("low", "high")}
    Table(frame, draft_schema(frame).schema)  # what is proposed holds
    frame.loc[3, "country"] = "NO" if frame["country"][3] != "NO" else "DE"
    frame.loc[3, "end"] = frame["start"][3] - pd.Timedelta(days=1)
    frame.loc[3, "high"] = frame["low"][3] - 1
    assert not rules(frame) & {
        ("dependency", ("city", "country")),
        ("inequality", ("start", "end")),
        ("inequality", ("low", "high")),
    }


def test_what_would_hold_by_chance_is_not_proposed():
    n = 1_000
    assert rules(pd.DataFrame({"a": [1, 2] * 500, "constant": 3})) == set()
    age, income = RNG.integers(17, 90, n), RNG.integers(12_000, 90_000, n)
    assert rules(pd.DataFrame({"age": age, "income": income})) == set()  # bounds that do not meet
    low, high = RNG.integers(1, 6, n), RNG.integers(5, 10, n)
    assert rules(pd.DataFrame({"low": low, "high": high})) == set()  # bounds that touch
    many, rare = np.arange(n) // 3, np.arange(n) >= n - 1
    assert rules(pd.DataFrame({"many": many, "rare": np.where(rare, "yes", "no")})) == set()
    assert rules(pd.DataFrame({"a": [1, 1, 2, 2], "b": [3, 3, 4, 4], "c": [5, 5, 6, 6]})) == set()  # four rows
    same = RNG.normal(size=n).round(1)
    assert not any(kind == "inequality" for kind, _ in rules(pd.DataFrame({"a": same, "b": same})))


@pytest.mark.slow
def test_independent_columns_give_no_rule_in_forty_tables():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(5, 200))
        frame = {f"c{i}": [f"v{v}" for v in rng.integers(0, rng.integers(2, 12), n)] for i in range(4)}
        frame |= {f"n{i}": rng.exponential(rng.uniform(0.1, 5), n) for i in range(3)}
        assert rules(pd.DataFrame(frame)) == set(), seed


# ── properties ───────────────────────────────────────────────────────────────────────────────────────────────────────

NAMES = (
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=8).map(str.strip).filter(bool)
)
CELLS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8),
    st.integers(-(10**17), 10**17).map(str),
    st.floats(allow_nan=True, allow_infinity=False).map(str),
    st.sampled_from(["", "NA", "?", "true", "0", "1", "2024-02-29", "01/02/2024", "low", "high", "00123", "1e400"]),
    st.datetimes().map(str),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_file_fits_the_schema_drafted_from_it(tmp_path_factory, data):
    names = data.draw(st.lists(NAMES, min_size=2, max_size=4, unique=True))
    pools = [data.draw(st.lists(CELLS, min_size=1, max_size=6)) for _ in names]
    n = data.draw(st.integers(1, 40))
    frame = pd.DataFrame(
        {name: [data.draw(st.sampled_from(pool)) for _ in range(n)] for name, pool in zip(names, pools, strict=True)}
    )
    path = tmp_path_factory.mktemp("d") / "real.csv"
    frame.to_csv(path, index=False, encoding="utf-8", quoting=1)
    try:
        found = draft_file(path, path.with_name("schema.toml"))
    except SchemaError as error:
        assert "infinities" in str(error)  # 1e400
        return
    assert len(load_table(path, Schema.from_toml(path.with_name("schema.toml")))) == n == found.n_rows


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_command_writes_prints_and_does_not_overwrite(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "real.csv", "age,sex\n" + "31,f\n40,m\n" * 20)
    draft = ["schema", "draft", "real.csv", "--out", "schema.toml"]
    assert main(draft) == 0
    out = capsys.readouterr().out
    assert "age" in out and "numeric" in out and out.endswith("schema.toml: 2 columns, 2 rules\n")
    written = (tmp_path / "schema.toml").read_text()
    assert main(draft[:3]) == 0
    printed = capsys.readouterr()
    assert printed.out == written and "numeric" in printed.err
    reviewed = written.replace("inferred", "public")
    (tmp_path / "schema.toml").write_text(reviewed)
    assert main(draft) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "schema.toml").read_text() == reviewed
    assert main([*draft, "--json"]) == 2
    assert "schema.toml" in json.loads(capsys.readouterr().out)["error"]
    assert main([*draft, "--force", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "schema.toml" and document["rows"] == 40 and document["delimiter"] == ","
    assert [c["kind"] for c in document["columns"]] == ["numeric", "categorical"] and len(document["rules"]) == 2
    assert tomllib.loads((tmp_path / "schema.toml").read_text())["origin"] == "inferred"
    assert main(["schema", "draft", "real.csv", "--out", "sub/other.toml"]) == 0
    assert main(["schema", "draft", "nothing.csv", "--out", "x.toml"]) == 2
    write(tmp_path / "empty.csv", "")
    assert main(["schema", "draft", "empty.csv", "--out", "x.toml"]) == 2 and not (tmp_path / "x.toml").exists()
