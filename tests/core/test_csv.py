"""Reading delimited text: encodings, delimiters, missing values, schemas that decide, and files that are no tables."""

import gzip

import pytest

from synthbook.core.csv import load_table, read_csv
from synthbook.core.errors import InvalidArgument, SchemaError
from synthbook.core.schema_draft import draft_schema
from synthbook.core.table import Column, Schema


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_a_schema_decides_what_is_missing_and_what_a_number_is(tmp_path):
    path = write(tmp_path / "a.csv", "country,note,zip,n\nNA,NA,00123,1\nDE,?,04567,?\n")
    columns = (
        Column("country", "categorical", categories=("DE", "NA")),  # Namibia
        Column("note", "text"),
        Column("zip", "categorical", categories=("00123", "04567")),
        Column("n", "numeric", lower=0, upper=9, integer=True, missing=True),
    )
    frame = load_table(path, Schema(columns, "public")).frame
    assert frame["country"].tolist() == ["NA", "DE"] and frame["note"].tolist() == ["NA", "?"]
    assert frame["zip"].tolist() == ["00123", "04567"] and frame["n"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        ("x\nabc\n1\n", Column("x", "numeric", lower=0, upper=9), "'x': 1 values, such as 'abc' in row 0"),
        ("x\n2024-02-30\n", Column("x", "datetime"), "'x': the values, such as '2024-02-30', are not dates"),
        ("x\n1.5\n", Column("x", "numeric", lower=0, upper=9, integer=True), "1.5 in row 0; allowed: whole numbers"),
        ("x\ninf\n", Column("x", "numeric", lower=0, upper=9), "inf in row 0"),
        ("x\ngreen\n", Column("x", "categorical", categories=("red",)), "'green' in row 0; allowed: one of 1 strings"),
        ("x,y\n1,\n2,\n", Column("y", "numeric", lower=0, upper=1), "column 'y': 2 values are missing"),
        ("y\n1\n", Column("x", "numeric", lower=0, upper=1), "column 'x' is missing"),
        ("x,y\n1,2\n", Column("x", "numeric", lower=0, upper=1), "column 'y' is not in the schema"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_its_schema_is_refused(tmp_path, content, column, message):
    path = write(tmp_path / "a.csv", content)
    columns = (column,) if "y" not in column.name else (Column("x", "numeric", lower=0, upper=9), column)
    with pytest.raises(SchemaError, match=message) as error:
        load_table(path, Schema(columns, "public"))
    assert "a.csv" in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_encodings_and_delimiters(tmp_path, delimiter, encoding):
    rows = [["name", "note", "n"], ["Zoë", '"a, b; c"', "1"], ["Åse", '"d|e, f"', "2"]]
    text = "".join(delimiter.join(row) + "\r\n" for row in rows)
    frame = read_csv(write(tmp_path / "a.csv", text, encoding))
    assert frame["name"].tolist() == ["Zoë", "Åse"] and frame["n"].tolist() == [1, 2]
    assert frame["note"].tolist() == ["a, b; c", "d|e, f"] and frame.attrs["delimiter"] == delimiter
    assert frame.attrs["encoding"] == {"utf-8": "utf-8-sig", "latin-1": "cp1252"}.get(encoding, encoding)


def test_decimal_commas_quoted_newlines_blanks_and_archives(tmp_path):
    text = 'a;b;c\n 1,5 ; "two\nlines" ;x\n-2;"";y\n'
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    frame = read_csv(path)
    assert frame["a"].tolist() == [1.5, -2] and frame["b"][0] == "two\nlines" and frame["b"].isna()[1]
    assert frame.attrs["notes"]["a"] == ["decimal commas were read as points"]
    assert load_table(path, draft_schema(frame).schema)["a"].tolist() == [1.5, -2]
    thousands = read_csv(write(tmp_path / "t.csv", 'n,m\n"1,500",2\n"2,250",3\n'))
    assert thousands["n"].tolist() == ["1,500", "2,250"]  # a comma beside comma delimiters is no decimal point
    assert read_csv(write(tmp_path / "b.csv", "only\n1\n2\n"))["only"].tolist() == [1, 2]
    assert read_csv(write(tmp_path / "c.csv", "x\n\x80uro\n", "latin-1"))["x"][0] == "€uro"
    assert read_csv(write(tmp_path / "d.csv", "x\n\x81\n", "latin-1")).attrs["encoding"] == "latin-1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: its first line should name the columns"),
        (b" \n\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"a,b\n", "has a header and no rows"),
        (b"a,b,a\n1,2,3\n", "several columns with the same name: a. Rename"),
        (b",a\n0,1\n", r"column 1 has no name.*index=False"),
        (b"a,b\n1,2\n1,2,3\n", "is not a table: line 3 has 3 fields, the header has 2"),
        (b"a,b,c\n1,2,3\n1,2\n1\n", "is not a table: line 3 has 2 fields, the header has 3"),
        (b'a,b\n1,"2\n', "is not a table"),
        (b"PK\x03\x04\0\0\0", "holds zero bytes: it is not delimited text"),
        (b"\xff\xfea", "begins as utf-16 and is not"),
    ],
)
def test_files_that_are_no_tables(tmp_path, content, message):
    path = tmp_path / "real.csv"
    path.write_bytes(content)
    with pytest.raises(SchemaError, match=message) as error:
        read_csv(path)
    assert "real.csv" in str(error.value)


def test_paths_that_cannot_be_read(tmp_path):
    (tmp_path / "a.gz").write_bytes(b"no archive")
    for name in ("nothing.csv", ".", "a.gz"):
        with pytest.raises(InvalidArgument, match=r"path = .* a file of delimited text"):
            read_csv(tmp_path / name)
