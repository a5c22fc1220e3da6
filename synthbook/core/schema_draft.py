"""A first schema for a table that has none, read off its rows and marked "inferred".

A draft is a list of questions, not an answer. Its bounds and categories were seen in the data: whoever knows what was
possible before any row was seen must replace them before the schema may say "public".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from synthbook.core.csv import infer_dtype, mask_missing, read_csv
from synthbook.core.errors import SchemaError, SynthbookError
from synthbook.core.storage import atomic_write, sha256_file
from synthbook.core.table import Codes, Column, Constraint, Schema, Table

if TYPE_CHECKING:
    import rich.table


_FEW, _MOST_CATEGORIES = 20, 1_000  # categories in any table, in a long one
_ENOUGH = 20  # rows that make "unique" mean a thing
_ID_NAME = re.compile(r"(?i:(?:^|[\W_])(?:id|uuid|guid|key)$|^(?:index|row)$)|[a-z](?:Id|ID)$")
_RANGE = re.compile(r"[<>≤≥]?=?\s*(\d+)\s*(?:(?:-|–|to)\s*\d+|\+)?")
_SCALES = (
    ("very low", "low", "medium", "high", "very high"),
    ("low", "moderate", "high"),
    ("low", "middle", "high"),
    ("none", "mild", "moderate", "severe"),
    ("xxs", "xs", "s", "m", "l", "xl", "xxl", "xxxl"),
    ("small", "medium", "large"),
    ("never", "rarely", "sometimes", "often", "always"),
    ("very poor", "poor", "fair", "good", "very good", "excellent"),
    ("very bad", "bad", "average", "good", "very good"),
    ("strongly disagree", "disagree", "neutral", "agree", "strongly agree"),
    ("very dissatisfied", "dissatisfied", "neutral", "satisfied", "very satisfied"),
    ("first", "second", "third", "fourth", "fifth"),
    ("1st", "2nd", "3rd", "4th", "5th"),
)
_BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})


def _as_typed(name: str, values: pd.Series[Any], notes: list[str]) -> pd.Series[Any]:
    """The column as integers, finite floats, dates, categories or strings; else a `SchemaError`."""
    typed = _typed(name, values, notes)
    if types.is_float_dtype(typed) and np.isinf(typed.to_numpy(dtype=float, na_value=np.nan)).any():
        raise SchemaError(f"column {name!r} holds infinities: no bound allows them. Mark them as missing in the data")
    return typed


def _typed(name: str, values: pd.Series[Any], notes: list[str]) -> pd.Series[Any]:
    if types.is_bool_dtype(values):
        notes.append("truth values: write them as text, which categories are")
        return pd.Series(values.astype(object).map(str, na_action="ignore"))
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        notes.append("times were converted to UTC")
        return pd.Series(values.dt.tz_convert("UTC").dt.tz_localize(None))
    if types.is_numeric_dtype(values) or types.is_datetime64_dtype(values) or _is_category(values):
        return values
    if (kind := types.infer_dtype(values, skipna=True)) not in ("string", "empty"):
        raise SchemaError(f"column {name!r} holds {kind}: give numbers, dates, strings or categories of strings")
    if values.isna().all():
        return values.astype(object)
    inferred = infer_dtype(mask_missing(values.astype(object), notes), notes)
    notes[:] = dict.fromkeys(notes)  # reading the file may have noted the same
    return inferred


def _is_category(values: pd.Series[Any]) -> bool:
    dtype = values.dtype
    return isinstance(dtype, pd.CategoricalDtype) and types.infer_dtype(dtype.categories) in ("string", "empty")


def _draft_column(name: str, values: pd.Series[Any], notes: list[str]) -> Column:
    """The column's declaration; what to review in it is added to `notes`."""
    present, missing = values.dropna(), bool(values.hasnans)
    common: dict[str, Any] = {"name": name, "missing": missing}
    if not len(present):
        notes.append("no row has a value: say what the column is, or leave it out")
        return Column(kind="text", **common)
    if types.is_datetime64_dtype(present):
        low, high = (bound.to_pydatetime() for bound in (present.min(), present.max()))
        notes.append("bounds SEEN IN THE ROWS: replace them by the first and last date that was possible")
        return Column(kind="datetime", lower=low, upper=high, **common)
    if types.is_numeric_dtype(present) and not (types.is_integer_dtype(present) and set(present.unique()) <= {0, 1}):
        return _numeric(name, present, missing, notes)
    if _is_category(present):
        categories = tuple(present.cat.categories)
        notes.append("categories as the frame declares them: were all of them possible before any row was seen?")
        return _categories(categories if present.cat.ordered else (), categories, common, notes)
    return _strings(present, common, notes)


def _numeric(name: str, present: pd.Series[Any], missing: bool, notes: list[str]) -> Column:
    common: dict[str, Any] = {"name": name, "missing": missing}
    whole = bool((present % 1 == 0).all()) and float(present.abs().max()) <= 2**53
    different = present.nunique()
    in_order = whole and different == len(present) >= _ENOUGH and present.max() - present.min() == len(present) - 1
    if whole and (in_order or (_ID_NAME.search(name) and different > _FEW)):
        return _id(present, common, notes)
    if types.is_integer_dtype(present) and _ID_NAME.search(name):
        return _strings(present, common, notes)
    notes.append("bounds SEEN IN THE ROWS: replace them by the lowest and highest number that was possible")
    if whole and different <= 10:
        notes.append(f"{different} different whole numbers: if they are codes, make them categories")
    convert: Callable[[Any], float] = int if whole else float
    return Column(kind="numeric", integer=whole, lower=convert(present.min()), upper=convert(present.max()), **common)


def _id(present: pd.Series[Any], common: dict[str, Any], notes: list[str]) -> Column:
    notes.append("an id: never modelled, only regenerated")
    if present.nunique() < len(present):
        notes.append(f'it repeats: if rows with the same id are one person or thing, write entity = "{common["name"]}"')
    return Column(kind="id", **common)


def _strings(present: pd.Series[Any], common: dict[str, Any], notes: list[str]) -> Column:
    spelt = present.astype(str)
    counts = spelt.value_counts()
    blank = spelt.str.contains(r"\s").to_numpy()
    unique = len(counts) == len(spelt) >= _ENOUGH and not common["missing"]
    wordy = len(counts) > len(spelt) / 2 and np.median([len(value.split()) for value in spelt]) >= 4
    many = len(counts) > max(_FEW, min(_MOST_CATEGORIES, len(spelt) / 10))
    if (many and _ID_NAME.search(common["name"])) or (unique and not blank.any()):
        return _id(spelt, common, notes)
    if wordy or many:
        notes.append("free text: left out unless a text model is named")
        if not wordy:
            notes.append(f"{len(counts):,} different strings, too many to be categories: group them if they matter")
        return Column(kind="text", **common)
    notes.append(_on_categories(counts))
    return _categories(_order(list(counts.index)), tuple(sorted(counts.index)), common, notes)


def _categories(
    ordered: tuple[str, ...], categories: tuple[str, ...], common: dict[str, Any], notes: list[str]
) -> Column:
    if ordered:
        notes.append("ordinal, from low to high: check the order")
    return Column(kind="ordinal" if ordered else "categorical", categories=ordered or categories, **common)


def _on_categories(counts: pd.Series[Any]) -> str:
    if {c.lower() for c in counts.index} in _BOOLEANS or set(counts.index) == {"0", "1"}:
        return "truth values"
    once = int((counts == 1).sum())
    rare = f" ({once} in one row only, a pointer to that row)" if once else ""
    return f"{len(counts)} categories SEEN IN THE ROWS{rare}: add those that were possible and did not occur"


def _order(categories: list[str]) -> tuple[str, ...]:
    """The categories from low to high where their order is obvious: a known scale, or ranges such as 18-24; else ()."""
    if len(categories) < 3:
        return ()
    lowered = {category.lower().replace("_", " "): category for category in categories}
    for scale in _SCALES:
        if len(lowered) == len(categories) and set(lowered) <= set(scale):
            return tuple(lowered[step] for step in scale if step in lowered)
    starts = {category: match for category in categories if (match := _RANGE.fullmatch(category))}
    firsts = {category: (int(match[1]), category[0] not in "<≤") for category, match in starts.items()}
    if len(firsts) == len(categories) and len(set(firsts.values())) == len(firsts):
        ranges = sum(not category.isdigit() for category in categories)
        return tuple(sorted(firsts, key=firsts.__getitem__)) if ranges > 1 else ()
    return ()


# ── Rules between two columns ──
# With few rows, or with a column that has hardly any variety, many rules hold that mean nothing. So a rule is proposed
# only where it would almost surely be broken if the second column were shuffled.


_FAMILYWISE_ALPHA = 1e-6  # that a shuffled table proposes any rule, by one rule's bound times the number of pairs
_HEAD = 1_000  # rows that are looked at before all are


def _discover_constraints(frame: pd.DataFrame, columns: list[Column]) -> list[tuple[Constraint, str]]:
    """Dependencies and inequalities that hold in all rows, each with a sentence on its support.

    Rows with a missing value in either column are ignored. Two columns that are always equal get dependencies only.
    """
    columns = [column for column in columns if column.kind != "text"]
    codes = {column.name: pd.factorize(frame[column.name])[0].astype(np.int64) for column in columns}
    limit = np.log(_FAMILYWISE_ALPHA / max(1, len(columns) * (len(columns) - 1)))
    candidates = [*_dependencies(columns, codes, limit), *_inequalities(frame, columns, limit)]
    # the schema's own judgement is the last word
    return [(rule, support) for rule, support in candidates if not rule.count_violations(frame)]


def _dependencies(columns: list[Column], codes: dict[str, Codes], limit: float) -> Iterator[tuple[Constraint, str]]:
    for first, second in permutations(columns, 2):
        if (first.kind == "numeric" and not first.integer) or second.kind == "id":
            continue
        both = (codes[first.name] >= 0) & (codes[second.name] >= 0)
        a, b = codes[first.name][both], codes[second.name][both]
        sizes = np.bincount(a)
        sizes = sizes[sizes > 0]
        if not len(a):
            continue
        pairs = a * (b.max() + 1) + b
        if any(len(np.unique(pairs[:rows])) != len(np.unique(a[:rows])) for rows in (_HEAD, len(a))):
            continue  # the first column does not determine the second
        if _log_chance_of_dependency(sizes, np.bincount(b) / len(b)) < limit:
            support = (
                f"each of {len(sizes):,} values of the first comes with one value of the second, in {len(a):,} rows"
            )
            yield Constraint("dependency", (first.name, second.name)), support


def _log_chance_of_dependency(sizes: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    """log Π_g Σ_v p_v^(n_g): all rows of each group g share a value v when values are drawn independently."""
    different, times = np.unique(sizes, return_counts=True)
    with np.errstate(divide="ignore", under="ignore"):
        logs = [count * np.log((p**size).sum()) for size, count in zip(different, times, strict=True)]
    return float(sum(logs))


def _inequalities(frame: pd.DataFrame, columns: list[Column], limit: float) -> Iterator[tuple[Constraint, str]]:
    ordered = {
        column.name: _ordered(frame[column.name]) for column in columns if column.kind in ("numeric", "datetime")
    }
    for first, second in permutations([column for column in columns if column.name in ordered], 2):
        a, b = ordered[first.name], ordered[second.name]  # a comparison with NaN is False
        if first.kind != second.kind or (a[:_HEAD] > b[:_HEAD]).any() or (a > b).any():
            continue
        both = ~(np.isnan(a) | np.isnan(b))
        a, b = a[both], b[both]
        if (a == b).all():
            continue
        # log Π_i F_a(b_i): every row keeps the rule when the first column is drawn independently
        below = np.searchsorted(np.sort(a), b, side="right") / len(a)
        if np.log(below).sum() < limit:
            yield (
                Constraint("inequality", (first.name, second.name)),
                f"holds in {len(a):,} rows, strictly in {(a < b).sum():,}",
            )


def _ordered(values: pd.Series[Any]) -> NDArray[np.float64]:
    """Numbers, or dates in microseconds since 1970, which float64 holds exactly between the years 1684 and 2255."""
    if types.is_datetime64_dtype(values):
        values = values.astype("datetime64[us]").astype("int64").where(values.notna())
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))


# ── The draft of a schema ──


_HEADER = """# Drafted from {source}
# by: synthbook schema draft {name}
#
# Nothing below is settled. Read every comment, correct what is wrong, and replace what was seen in the rows by what
# was possible before any row was seen: documents know that, the data do not. Then write origin = "public".
"""


@dataclass(frozen=True)
class SchemaDraft:
    """A drafted schema, the notes for its review, and counts of missing and distinct values by column.

    `attrs` are the frame's: how the file was read.
    """

    schema: Schema
    review_notes: dict[str, list[str]]
    rules: list[tuple[Constraint, str]]
    n_missing: dict[str, int]
    n_unique: dict[str, int]
    n_rows: int
    attrs: dict[str, Any]

    def to_toml(self, path: Path, *, source: str, name: str) -> Path:
        """Write the schema with the review notes as comments; `Schema.from_toml` reads it back."""
        blocks = [self.review_notes[column] for column in self.schema.names]
        blocks += [[f"{support}. Is it a law, or an accident of these rows?"] for _, support in self.rules]
        lines = _HEADER.format(source=_printable(source), name=_printable(name)).splitlines()
        for line in self.schema.to_toml().split("\n")[:-1]:  # splitlines() would also split at U+2028 inside a value
            if line in ("[[column]]", "[[rule]]"):
                lines += [f"# {_printable(note)}" for note in blocks.pop(0)]
            lines.append(line)
        return atomic_write(path, "\n".join(lines) + "\n")

    def __rich__(self) -> rich.table.Table:
        """The draft as a table for a terminal."""
        from rich.table import Table
        from rich.text import Text

        table = Table("column", "kind", "missing", "different", "to review", box=None, pad_edge=False)
        for row in self.to_dict()["columns"]:
            counts = (f"{row[key]:,}" for key in ("missing", "different"))
            table.add_row(Text(row["name"]), row["kind"], *counts, Text("\n".join(row["review"])))
        for rule, support in self.rules:
            table.add_row(Text(" → ".join(rule.columns)), rule.kind, "", "", Text(support))
        return table

    def to_dict(self) -> dict[str, Any]:
        """Everything that was found, as plain JSON."""
        columns = [
            {
                "name": column.name,
                "kind": column.kind,
                "allowed": column.allowed_values,
                "missing": self.n_missing[column.name],
                "different": self.n_unique[column.name],
                "review": self.review_notes[column.name],
            }
            for column in self.schema.columns
        ]
        rules = [{"kind": rule.kind, "columns": list(rule.columns), "support": support} for rule, support in self.rules]
        read = {key: self.attrs[key] for key in ("encoding", "delimiter") if key in self.attrs}
        return read | {"rows": self.n_rows, "columns": columns, "rules": rules}


def draft_file(source: Path, out: Path, *, force: bool = False) -> SchemaDraft:
    """Draft a schema from a delimited file and write it to `out`; an existing file is kept unless `force` is set."""
    if Path(out).exists() and not force:
        raise SynthbookError(
            f"{out} exists, perhaps reviewed: name another file with --out, or overwrite it with --force"
        )
    draft = draft_schema(read_csv(source))
    described = f"{Path(source).name}, {draft.n_rows:,} rows, SHA-256 {sha256_file(source)}"
    draft.to_toml(out, source=described, name=Path(source).name)
    return draft


def draft_schema(frame: pd.DataFrame) -> SchemaDraft:
    """The schema that a frame's rows suggest, of origin "inferred", and what to review in it.

    Strings that are all numbers or dates count as such. 0/1 and other pairs of truth values are categories. More than
    1,000 different strings (or more than one for each ten rows, beyond 20) are free text, with a note. Raises
    `SchemaError` for a frame without rows or columns, with repeated names, infinities or values that are no scalars.
    """
    names = list(frame.columns)
    if not names or not len(frame):
        raise SchemaError(f"a frame of {len(frame)} rows and {len(names)} columns: nothing can be drafted from it")
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        raise SchemaError(f"several columns have the same name: {', '.join(twice)}")
    columns, typed = [], {}
    review_notes: dict[str, list[str]] = {}
    for name in names:
        notes = review_notes[str(name)] = list(frame.attrs.get("notes", {}).get(name, ()))
        typed[str(name)] = values = _as_typed(str(name), frame[name], notes)
        columns.append(_draft_column(str(name), values, notes))
    rules = _discover_constraints(pd.DataFrame(typed), columns)
    return SchemaDraft(
        schema=Schema(tuple(columns), "inferred", tuple(rule for rule, _ in rules)),
        review_notes=review_notes,
        rules=rules,
        n_missing={name: int(values.isna().sum()) for name, values in typed.items()},
        n_unique={name: int(values.nunique()) for name, values in typed.items()},
        n_rows=len(frame),
        attrs={str(key): value for key, value in frame.attrs.items()},
    )


def draft_table(frame: pd.DataFrame) -> Table:
    """The rows with the schema that they suggest, of origin "inferred"; raises `SchemaError` as `draft_schema` does."""
    schema = draft_schema(frame).schema
    typed = {str(name): _as_typed(str(name), frame[name], []) for name in frame.columns}
    for column in schema.columns:
        if column.categories or column.kind == "text":
            typed[column.name] = typed[column.name].astype(object).map(str, na_action="ignore")
        elif column.kind == "id" and types.is_float_dtype(typed[column.name]):
            typed[column.name] = typed[column.name].astype("Int64")
    return Table(pd.DataFrame(typed), schema)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "�" for letter in text)
