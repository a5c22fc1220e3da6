"""A first schema for a table that has none, read off its rows and marked "inferred".

A draft is a list of questions, not an answer. Its bounds and categories were seen in the data: whoever knows what was
possible before any row was seen must replace them before the schema may say "public".
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from synthbook.core.columns import Rule
from synthbook.core.draft_columns import as_typed, draft_column
from synthbook.core.draft_rules import find_rules
from synthbook.core.errors import SchemaError, SynthbookError
from synthbook.core.files import atomic_write, sha256_file
from synthbook.core.reading import load_table, read_table
from synthbook.core.schema import Schema

if TYPE_CHECKING:
    import rich.table

__all__ = ["Draft", "draft", "draft_file", "load_table", "read_table", "study"]

HEADER = """# Drafted from {source}
# by: synthbook schema draft {name}
#
# Nothing below is settled. Read every comment, correct what is wrong, and replace what was seen in the rows by what
# was possible before any row was seen: documents know that, the data do not. Then write origin = "public".
"""


@dataclass(frozen=True)
class Draft:
    """A drafted schema; what to review in each column and rule (sentences); missing and different values of each.

    `attrs` are the frame's: how the file was read.
    """

    schema: Schema
    remarks: dict[str, list[str]]
    rules: list[tuple[Rule, str]]
    missing: dict[str, int]
    different: dict[str, int]
    rows: int
    attrs: dict[str, Any]

    def to_toml(self, path: Path, *, source: str, name: str) -> Path:
        """Write the schema with its remarks as comments; `Schema.from_toml` reads it back."""
        with tempfile.TemporaryDirectory() as folder:
            text = self.schema.to_toml(Path(folder) / "schema.toml").read_text(encoding="utf-8")
        blocks = [self.remarks[column] for column in self.schema.names]
        blocks += [[f"{said}. Is it a law, or an accident of these rows?"] for _, said in self.rules]
        lines = HEADER.format(source=_printable(source), name=_printable(name)).splitlines()
        for line in text.split("\n")[:-1]:  # splitlines() would also split at U+2028 inside a value
            if line in ("[[column]]", "[[rule]]"):
                lines += [f"# {_printable(remark)}" for remark in blocks.pop(0)]
            lines.append(line)
        return atomic_write(path, "\n".join(lines) + "\n")

    def __rich__(self) -> rich.table.Table:
        """The draft as a table for a terminal."""
        from rich.table import Table
        from rich.text import Text

        table = Table("column", "kind", "missing", "different", "to review", box=None, pad_edge=False)
        for row in self.as_json()["columns"]:
            counts = (f"{row[key]:,}" for key in ("missing", "different"))
            table.add_row(Text(row["name"]), row["kind"], *counts, Text("\n".join(row["review"])))
        for rule, said in self.rules:
            table.add_row(Text(" → ".join(rule.columns)), rule.kind, "", "", Text(said))
        return table

    def as_json(self) -> dict[str, Any]:
        """Everything that was found, as plain JSON."""
        columns = [
            {
                "name": column.name,
                "kind": column.kind,
                "allowed": column.allowed,
                "missing": self.missing[column.name],
                "different": self.different[column.name],
                "review": self.remarks[column.name],
            }
            for column in self.schema.columns
        ]
        rules = [{"kind": rule.kind, "columns": list(rule.columns), "support": said} for rule, said in self.rules]
        read = {key: self.attrs[key] for key in ("encoding", "delimiter") if key in self.attrs}
        return read | {"rows": self.rows, "columns": columns, "rules": rules}


def draft_file(source: Path, out: Path, *, force: bool = False) -> Draft:
    """Draft a schema from a delimited file and write it to `out`; an existing file is kept unless `force` is set."""
    if Path(out).exists() and not force:
        raise SynthbookError(
            f"{out} exists, perhaps reviewed: name another file with --out, or overwrite it with --force"
        )
    found = study(read_table(source))
    described = f"{Path(source).name}, {found.rows:,} rows, SHA-256 {sha256_file(source)}"
    found.to_toml(out, source=described, name=Path(source).name)
    return found


def draft(frame: pd.DataFrame) -> Schema:
    """The schema that a frame's rows suggest, of origin "inferred"; raises `SchemaError` as `study` does."""
    return study(frame).schema


def study(frame: pd.DataFrame) -> Draft:
    """Draft a schema and say what to review in it.

    Strings that are all numbers or dates count as such. 0/1 and other pairs of truth values are categories. More than
    1,000 different strings (or more than one for each ten rows, beyond 20) are free text, with a remark. Raises
    `SchemaError` for a frame without rows or columns, with repeated names, infinities or values that are no scalars.
    """
    names = list(frame.columns)
    if not names or not len(frame):
        raise SchemaError(f"a frame of {len(frame)} rows and {len(names)} columns: nothing can be drafted from it")
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        raise SchemaError(f"several columns have the same name: {', '.join(twice)}")
    columns, remarks, typed = [], {}, {}
    for name in names:
        said = list(frame.attrs.get("notes", {}).get(name, ()))
        typed[str(name)] = values = as_typed(str(name), frame[name], said)
        columns.append(draft_column(str(name), values, said))
        remarks[str(name)] = said
    whole = pd.DataFrame(typed)
    rules = find_rules(whole, columns)
    schema = Schema(tuple(columns), "inferred", tuple(rule for rule, _ in rules))
    missing = {name: int(values.isna().sum()) for name, values in typed.items()}
    different = {name: int(values.nunique()) for name, values in typed.items()}
    return Draft(
        schema, remarks, rules, missing, different, len(frame), {str(key): value for key, value in frame.attrs.items()}
    )


def _printable(remark: str) -> str:
    return "".join(letter if letter.isprintable() else "�" for letter in remark)
