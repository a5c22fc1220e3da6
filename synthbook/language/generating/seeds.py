"""Real examples from a file of yours: rows whose columns fill places in a prompt, or show what an answer looks like."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthbook.core.errors import DataError
from synthbook.language.chat import HALVES
from synthbook.language.generating.fields import Form
from synthbook.language.generating.template import as_text
from synthbook.language.records import read_lines

SUFFIXES = (".jsonl", ".csv")


@dataclass(frozen=True)
class Seed:
    """A row and the line that it ends on."""

    line: int
    columns: Mapping[str, Any]


def read_seeds(path: Path) -> tuple[Seed, ...]:
    """The rows of a JSONL file, or of a CSV file in UTF-8 with commas and a header; a CSV file holds text only.

    Raises `DataError`, which names the line.
    """
    rows = _csv_rows(path) if path.suffix == ".csv" else read_lines(path)
    found = tuple(Seed(line, columns) for line, columns in rows)
    if not found:
        raise DataError(f"{path} holds no example")
    return found


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}): write it as CSV in UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = reader.fieldnames or []
        if len(set(names)) < len(names):
            raise DataError(f"{path}: two columns have the same name")
        for row in reader:
            if None in row or None in row.values():
                raise DataError(f"{path}, line {reader.line_num}: {len(names)} values are expected, as in the header")
            yield reader.line_num, dict(row)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def need(path: Path, seeds: Iterable[Seed], columns: Iterable[str], why: str) -> None:
    """Raise `DataError` where a row has no such column, or nothing that can stand in a prompt."""
    wanted = list(columns)
    for seed in seeds:
        for name in wanted:
            where = f"{path}, line {seed.line}"
            if name not in seed.columns:
                has = ", ".join(map(repr, seed.columns)) or "none"
                raise DataError(f"{where}: no column {name!r}, which {why}; its columns are {has}")
            said = as_text(seed.columns[name])
            if said is None or HALVES.search(said):
                given = repr(seed.columns[name])[:60]
                raise DataError(f"{where}: {name} = {given}; text, a number, true or false is expected")


def typed(seed: Seed, form: Form) -> dict[str, Any]:
    """The fields of an answer in a row; where all is text, as in CSV, numbers and truth values are read."""
    return {field.name: _read(seed.columns[field.name], field.type) for field in form.fields}


def _read(value: Any, kind: str) -> Any:
    """What is not written as its type is left as it is, for the check of the form to find."""
    if not isinstance(value, str):
        return value
    if kind == "integer" and re.fullmatch(r"-?\d{1,16}", value, re.ASCII):
        return int(value)
    if kind == "number" and re.fullmatch(r"-?\d{1,16}(\.\d+)?([eE][+-]?\d{1,3})?", value, re.ASCII):
        return float(value)
    if kind == "boolean" and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value
