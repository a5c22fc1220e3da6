"""A delimited text file as a frame: encoding, delimiter, missing values, numbers and dates settled in one place.

Nothing is guessed silently. What was decided stands in the frame's `attrs`: "encoding", "delimiter", and "notes", which
has a list of sentences for each column that has any.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synthbook.core.errors import InvalidArgument, SchemaError
from synthbook.core.table import Column, Schema, Table

_NA_VALUES = ("", "?", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None")
_DELIMITERS = (",", ";", "\t", "|")
# no leading zeros (00123 is a code) and no plus sign (+49 30 is a telephone)
_INTEGER = r"0|-?[1-9]\d*"
_NUMBER = r"-?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]?[Ii]nf(?:inity)?"
_COMMA_NUMBER = r"-?(?:0|[1-9]\d*)(?:,\d+)?"
_ISO = r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?"
_OFFSET = r".*(?:Z|:\d{2}[+-]\d{2}:?\d{2}|:\d{2}\.\d+[+-]\d{2}:?\d{2})"
_DAYS: tuple[str, ...] = ("%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y")
_DAYS += ("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y")
TIMES = ("", " %H:%M", " %H:%M:%S")
Series = pd.Series  # of any type: these functions decide which


def load_table(path: Path, schema: Schema) -> Table:
    """The file as a `Table`; a `SchemaError` names the file and everything in which it and the schema disagree."""
    frame = read_csv(path, schema)
    try:
        return Table(frame, schema)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from None


def read_csv(path: Path, schema: Schema | None = None) -> pd.DataFrame:
    """A frame with the file's columns; its index counts the rows from 0.

    UTF-8 (with or without a byte order mark), UTF-16 with one, else Windows-1252 or Latin-1; a `.gz` is unpacked. The
    delimiter is the one of , ; tab | that splits the first lines evenly. Blanks around values are dropped. `NA_VALUES`
    lists what counts as missing, unless the schema has it as a category or the column is free text. With a schema,
    every column is read as its kind; without, numbers and dates are recognised. Raises `InvalidArgument` for a path
    that cannot be read, `SchemaError` for a file that is not a table.
    """
    path = Path(path)
    text, encoding = _decoded(path)
    delimiter = _delimiter(text)
    strings = _strings(path, text, delimiter)
    declared = {column.name: column for column in schema.columns} if schema else {}
    notes: dict[str, list[str]] = {}
    columns = {}
    for name in strings.columns:
        column_notes: list[str] = []
        if name in declared:
            columns[name] = _as_declared(path, declared[name], strings[name], delimiter)
        else:
            columns[name] = infer_dtype(mask_missing(strings[name], column_notes), column_notes, delimiter)
        notes |= {name: column_notes} if column_notes else {}
    frame = pd.DataFrame(columns)
    frame.attrs.update(encoding=encoding, delimiter=delimiter, notes=notes)
    return frame


def _decoded(path: Path) -> tuple[str, str]:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidArgument("path", str(path), f"a file of delimited text ({error})") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return raw.decode("utf-16"), "utf-16"
        except UnicodeDecodeError as error:
            raise SchemaError(f"{path} begins as utf-16 and is not: {error}. Write it as UTF-8") from None
    if b"\0" in raw[:100_000]:
        raise SchemaError(f"{path} holds zero bytes: it is not delimited text. Export it as CSV")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return raw.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1"), "latin-1"


def _delimiter(text: str) -> str:
    """The delimiter that gives the most columns among those that split the first 100 records evenly, else the comma."""

    def columns(delimiter: str) -> int:
        reader = csv.reader(io.StringIO(text[:200_000], newline=""), delimiter=delimiter, skipinitialspace=True)
        try:
            widths = [len(row) for row, _ in zip(reader, range(100), strict=False) if row]
        except csv.Error:
            return 0
        complete = widths[:-1] if len(text) > 200_000 and len(widths) > 1 else widths  # the last may be cut
        return complete[0] if len(set(complete)) == 1 else 1 if complete else 0

    return max(_DELIMITERS, key=columns)  # the first of equals


def _strings(path: Path, text: str, delimiter: str) -> pd.DataFrame:
    """Every value as it is written, without blanks around it; `SchemaError` for what is no table."""
    if not text.strip():
        raise SchemaError(f"{path} is empty: its first line should name the columns")
    _check_widths(path, text, delimiter)
    options: dict[str, Any] = {"sep": delimiter, "dtype": str, "keep_default_na": False, "skipinitialspace": True}
    try:
        # the header is read as a row like the others: pandas makes silent repairs where it knows of a header
        frame = pd.read_csv(io.StringIO(text), header=None, **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise SchemaError(f"{path} is not a table: {error}") from None
    frame = pd.DataFrame({i: frame[i].str.strip() for i in frame.columns})
    frame.columns = pd.Index(_names(path, frame.iloc[0].to_list()))
    if len(frame) == 1:
        raise SchemaError(f"{path} has a header and no rows")
    return frame.iloc[1:].reset_index(drop=True)


def _check_widths(path: Path, text: str, delimiter: str) -> None:
    """Every record has as many fields as the header; pandas fills short ones up without a word."""
    reader, width = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True), 0
    try:
        for row in reader:
            width = width or len(row)
            if row and len(row) != width:
                what = f"line {reader.line_num} has {len(row)} fields, the header has {width}"
                raise SchemaError(f"{path} is not a table: {what} (delimiter {delimiter!r})")
    except csv.Error as error:
        raise SchemaError(f"{path} is not a table: line {reader.line_num}: {error}") from None


def _names(path: Path, names: list[str]) -> list[str]:
    if twice := sorted({name for name in names if names.count(name) > 1 and name}):
        raise SchemaError(f"{path} has several columns with the same name: {', '.join(twice)}. Rename them in the file")
    if "" in names:
        raise SchemaError(
            f"{path}: column {names.index('') + 1} has no name. Name it, or write the file without its row numbers "
            "(pandas: index=False)"
        )
    return names


def mask_missing(values: Series, notes: list[str], *, keep: tuple[str, ...] = ()) -> Series:
    """The values with what `NA_VALUES` lists as NaN, except what is in `keep`; a note says how each was written."""
    counts = values[values.isin(set(_NA_VALUES) - set(keep))].value_counts()
    if len(counts):
        written = ", ".join(f'"{token}" in {count:,}' for token, count in counts.items())
        notes.append(f"missing values are written as {written} rows")
    return values.mask(values.isin(counts.index))


def infer_dtype(values: Series, notes: list[str], delimiter: str = ",") -> Series:
    """Strings as whole numbers, numbers or dates where all of them are; else as they came."""
    present = values.dropna()
    distinct = pd.Series(present.unique())

    def all_match(pattern: str) -> bool:
        return len(distinct) > 0 and bool(distinct.str.fullmatch(pattern).all())

    if all_match(_INTEGER) and max(map(abs, map(int, distinct))) <= 2**53:
        return pd.to_numeric(values).astype("Int64" if values.hasnans else "int64")
    if not all_match(_INTEGER) and all_match(_NUMBER):
        return pd.to_numeric(values).astype("float64")
    if delimiter != "," and not all_match(_INTEGER) and all_match(_COMMA_NUMBER):
        notes.append("decimal commas were read as points")
        return pd.to_numeric(values.str.replace(",", ".")).astype("float64")
    dates = _dates(distinct, notes)
    return values if dates is None else values.map(dict(zip(distinct, dates, strict=True))).astype(dates.dtype)


def _dates(distinct: Series, notes: list[str]) -> Series | None:
    """Distinct strings as dates without time zone; None unless all are dates, and written in one way only."""
    if not len(distinct) or not distinct.str.fullmatch(r"(?=.*\d{4}).{8,35}").all():
        return None
    if distinct.str.fullmatch(_ISO).all():
        if distinct.str.fullmatch(_OFFSET).any():
            notes.append("times with an offset from UTC were converted to UTC")
        dates = pd.to_datetime(distinct, format="ISO8601", utc=True, errors="coerce").dt.tz_localize(None)
        return None if dates.hasnans else dates.astype("datetime64[us]")
    formats = (day + time for day in _DAYS for time in TIMES)
    readings = [pd.to_datetime(distinct, format=f, errors="coerce").astype("datetime64[us]") for f in formats]
    whole = [reading for reading in readings if not reading.hasnans]
    if whole and any(not reading.equals(whole[0]) for reading in whole[1:]):
        notes.append("looks like dates, but every value fits both day first and month first: write them as 2024-12-31")
        return None
    return whole[0] if whole else None


def _as_declared(path: Path, column: Column, values: Series, delimiter: str) -> Series:
    where = f"{path}: column {column.name!r}: "
    if column.kind == "text":
        return values.mask(values == "") if column.missing else values
    if column.kind == "id":
        return mask_missing(values, []) if column.missing else values
    values = mask_missing(values, [], keep=column.categories)
    if column.categories:
        return values
    if column.kind == "datetime":
        return _as_dates(where, values)
    numbers = infer_dtype(values, [], delimiter)
    if not pd.api.types.is_numeric_dtype(numbers):
        numbers = pd.to_numeric(values, errors="coerce")
    if len(bad := values[numbers.isna() & values.notna()]):
        examples = ", ".join(f"{value!r} in row {row}" for row, value in bad.head(3).items())
        raise SchemaError(f"{where}{len(bad):,} values, such as {examples}, are not numbers")
    whole = numbers.dropna().mod(1).eq(0).all() and bool(np.isfinite(numbers.dropna().astype(float)).all())
    return numbers.astype(("Int64" if numbers.hasnans else "int64") if column.integer and whole else "float64")


def _as_dates(where: str, values: Series) -> Series:
    if values.isna().all():
        return pd.to_datetime(values).astype("datetime64[us]")
    notes: list[str] = []
    dates = infer_dtype(values, notes)
    if not pd.api.types.is_datetime64_dtype(dates):
        why = f": {notes[0]}" if notes else ", all written in the same way"
        raise SchemaError(f"{where}the values, such as {values.dropna().iloc[0]!r}, are not dates{why}")
    return dates
