"""What kind a column seems to be, from its values and its name, and what a person should review in that guess."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from synthbook.core.columns import Column
from synthbook.core.errors import SchemaError
from synthbook.core.reading import infer, without_missing

FEW, MOST_CATEGORIES, ENOUGH = (
    20,
    1_000,
    20,
)  # categories in any table, in a long one; rows that make "unique" mean a thing
ID_NAME = re.compile(r"(?i:(?:^|[\W_])(?:id|uuid|guid|key)$|^(?:index|row)$)|[a-z](?:Id|ID)$")
RANGE = re.compile(r"[<>≤≥]?=?\s*(\d+)\s*(?:(?:-|–|to)\s*\d+|\+)?")
SCALES = (
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
BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})


def as_typed(name: str, values: pd.Series[Any], said: list[str]) -> pd.Series[Any]:
    """The column as integers, finite floats, dates, categories or strings; else a `SchemaError`."""
    typed = _typed(name, values, said)
    if types.is_float_dtype(typed) and np.isinf(typed.to_numpy(dtype=float, na_value=np.nan)).any():
        raise SchemaError(f"column {name!r} holds infinities: no bound allows them. Mark them as missing in the data")
    return typed


def _typed(name: str, values: pd.Series[Any], said: list[str]) -> pd.Series[Any]:
    if types.is_bool_dtype(values):
        said.append("truth values: write them as text, which categories are")
        return pd.Series(values.astype(object).map(str, na_action="ignore"))
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        said.append("times were converted to UTC")
        return pd.Series(values.dt.tz_convert("UTC").dt.tz_localize(None))
    if types.is_numeric_dtype(values) or types.is_datetime64_dtype(values) or _is_category(values):
        return values
    if (kind := types.infer_dtype(values, skipna=True)) not in ("string", "empty"):
        raise SchemaError(f"column {name!r} holds {kind}: give numbers, dates, strings or categories of strings")
    if values.isna().all():
        return values.astype(object)
    found = infer(without_missing(values.astype(object), said), said)
    said[:] = dict.fromkeys(said)  # what reading the file has said already
    return found


def _is_category(values: pd.Series[Any]) -> bool:
    dtype = values.dtype
    return isinstance(dtype, pd.CategoricalDtype) and types.infer_dtype(dtype.categories) in ("string", "empty")


def draft_column(name: str, values: pd.Series[Any], said: list[str]) -> Column:
    """The column's declaration; what to review in it is added to `said`."""
    present, missing = values.dropna(), bool(values.hasnans)
    common: dict[str, Any] = {"name": name, "missing": missing}
    if not len(present):
        said.append("no row has a value: say what the column is, or leave it out")
        return Column(kind="text", **common)
    if types.is_datetime64_dtype(present):
        low, high = (bound.to_pydatetime() for bound in (present.min(), present.max()))
        said.append("bounds SEEN IN THE ROWS: replace them by the first and last date that was possible")
        return Column(kind="datetime", lower=low, upper=high, **common)
    if types.is_numeric_dtype(present) and not (types.is_integer_dtype(present) and set(present.unique()) <= {0, 1}):
        return _numeric(name, present, missing, said)
    if _is_category(present):
        categories = tuple(present.cat.categories)
        said.append("categories as the frame declares them: were all of them possible before any row was seen?")
        return _categories(categories if present.cat.ordered else (), categories, common, said)
    return _strings(present, common, said)


def _is_whole(present: pd.Series[Any]) -> bool:
    return bool((present % 1 == 0).all()) and float(present.abs().max()) <= 2**53


def _numeric(name: str, present: pd.Series[Any], missing: bool, said: list[str]) -> Column:
    common: dict[str, Any] = {"name": name, "missing": missing}
    whole, different = _is_whole(present), present.nunique()
    in_order = whole and different == len(present) >= ENOUGH and present.max() - present.min() == len(present) - 1
    if whole and (in_order or (ID_NAME.search(name) and different > FEW)):
        return _id(present, common, said)
    if types.is_integer_dtype(present) and ID_NAME.search(name):
        return _strings(present, common, said)
    said.append("bounds SEEN IN THE ROWS: replace them by the lowest and highest number that was possible")
    if whole and different <= 10:
        said.append(f"{different} different whole numbers: if they are codes, make them categories")
    convert: Callable[[Any], float] = int if whole else float
    return Column(kind="numeric", integer=whole, lower=convert(present.min()), upper=convert(present.max()), **common)


def _id(present: pd.Series[Any], common: dict[str, Any], said: list[str]) -> Column:
    said.append("an id: never modelled, only regenerated")
    if present.nunique() < len(present):
        said.append(f'it repeats: if rows with the same id are one person or thing, write entity = "{common["name"]}"')
    return Column(kind="id", **common)


def _strings(present: pd.Series[Any], common: dict[str, Any], said: list[str]) -> Column:
    spelt = present.astype(str)
    counts = spelt.value_counts()
    blank = spelt.str.contains(r"\s").to_numpy()
    unique = len(counts) == len(spelt) >= ENOUGH and not common["missing"]
    wordy = len(counts) > len(spelt) / 2 and np.median([len(value.split()) for value in spelt]) >= 4
    many = len(counts) > max(FEW, min(MOST_CATEGORIES, len(spelt) / 10))
    if (many and ID_NAME.search(common["name"])) or (unique and not blank.any()):
        return _id(spelt, common, said)
    if wordy or many:
        said.append("free text: left out unless a text model is named")
        if not wordy:
            said.append(f"{len(counts):,} different strings, too many to be categories: group them if they matter")
        return Column(kind="text", **common)
    said.append(_on_categories(counts))
    return _categories(_order(list(counts.index)), tuple(sorted(counts.index)), common, said)


def _categories(
    ordered: tuple[str, ...], categories: tuple[str, ...], common: dict[str, Any], said: list[str]
) -> Column:
    if ordered:
        said.append("ordinal, from low to high: check the order")
    return Column(kind="ordinal" if ordered else "categorical", categories=ordered or categories, **common)


def _on_categories(counts: pd.Series[Any]) -> str:
    if {c.lower() for c in counts.index} in BOOLEANS or set(counts.index) == {"0", "1"}:
        return "truth values"
    once = int((counts == 1).sum())
    rare = f" ({once} in one row only, a pointer to that row)" if once else ""
    return f"{len(counts)} categories SEEN IN THE ROWS{rare}: add those that were possible and did not occur"


def _order(categories: list[str]) -> tuple[str, ...]:
    """The categories from low to high where their order is obvious: a known scale, or ranges such as 18-24; else ()."""
    if len(categories) < 3:
        return ()
    lowered = {category.lower().replace("_", " "): category for category in categories}
    for scale in SCALES:
        if len(lowered) == len(categories) and set(lowered) <= set(scale):
            return tuple(lowered[step] for step in scale if step in lowered)
    starts = {category: match for category in categories if (match := RANGE.fullmatch(category))}
    firsts = {category: (int(match[1]), category[0] not in "<≤") for category, match in starts.items()}
    if len(firsts) == len(categories) and len(set(firsts.values())) == len(firsts):
        ranges = sum(not category.isdigit() for category in categories)
        return tuple(sorted(firsts, key=firsts.__getitem__)) if ranges > 1 else ()
    return ()
