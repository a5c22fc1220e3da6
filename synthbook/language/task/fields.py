"""The fields of an answer, compiled twice: to the JSON schema that a server writes by, and to a model that checks.

The schema holds the decoder to the form where the server can; llama.cpp leaves the bounds of numbers with a fraction
out. So every answer is read by the strict model as well, whoever wrote it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from synthbook.core.errors import InvalidArgument
from synthbook.language.client import HIDDEN, KEY
from synthbook.language.filters.schema import validate_json
from synthbook.language.task.template import NAME

if TYPE_CHECKING:
    from pydantic import BaseModel


_SECRETS = ("key", "apikey", "token", "secret", "password", "authorization")
_LONGEST = 80  # characters of a value in a message


class Keys:
    """One table of the file `file`. `place` is its dotted name, "" for the file itself; `accepted` are its keys.

    Raises `InvalidArgument` for what is no table and for keys that are not accepted; a key to a service is never shown.
    """

    def __init__(self, file: str, place: str, table: object, accepted: Sequence[str]):
        self.file, self.place = file, place
        if not isinstance(table, dict):
            raise InvalidArgument(f"{file}: {place}", shown(table), f"a table with the keys {', '.join(accepted)}")
        self.table: dict[str, Any] = table
        for key in table:
            if key in accepted:
                continue
            if "".join(filter(str.isalpha, key.lower())) in _SECRETS:
                advice = f"no key in the file: set {KEY} in the environment, the one place from which it is read"
                raise InvalidArgument(self.name(key), HIDDEN, advice)
            where = f"key in [{place}]" if place else "key"
            raise InvalidArgument(f"{file}: {where}", shown(key), f"one of {', '.join(accepted)}")

    def name(self, key: str) -> str:
        """A key as errors name it."""
        return f"{self.file}: {self.place}.{key}" if self.place else f"{self.file}: {key}"

    def fail(self, key: str, accepted: str) -> InvalidArgument:
        """The error for what stands at a key."""
        return InvalidArgument(self.name(key), shown(self.table.get(key)), accepted)

    def text(self, key: str, default: str | None = None) -> str:
        """Text that is not blank; `default` where the key is missing, which is an error where it is None."""
        found = self.table.get(key, default)
        if found is None or not isinstance(found, str) or (key in self.table and not found.strip()):
            raise self.fail(key, "text that is not blank")
        return found

    def whole(self, key: str, default: int | None = None, *, least: int = 0) -> int | None:
        """A whole number of at least `least`, or the default."""
        found = self.table.get(key, default)
        if key in self.table and not (type(found) is int and found >= least):
            raise self.fail(key, f"a whole number of at least {least}")
        return found

    def number(self, key: str, default: float | None = None, *, accepted: str = "a number") -> float | None:
        """A finite number, or the default."""
        found = self.table.get(key, default)
        if key in self.table and not is_number(found):
            raise self.fail(key, accepted)
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        """Different texts, none of them empty; none where the key is missing."""
        found = self.table.get(key, [])
        good = isinstance(found, list) and all(isinstance(one, str) and one for one in found)
        if not good or len(set(found)) < len(found):
            raise self.fail(key, 'a list of different texts, such as ["yes", "no"]')
        return tuple(found)


def is_number(value: object) -> bool:
    """A finite number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def shown(value: object) -> object:
    """A value as a message shows it: what is long is cut."""
    written = repr(value)
    if len(written) <= _LONGEST:
        return value
    return f"{value[:_LONGEST]}..." if isinstance(value, str) else f"{written[:_LONGEST]}..."


# ── The fields of an answer ──


_KEYS: Mapping[str, tuple[str, ...]] = {
    "text": ("min_length", "max_length"),
    "integer": ("min", "max"),
    "number": ("min", "max"),
    "boolean": (),
    "category": ("values",),
}
_LARGEST = 2**53  # whole numbers beyond it change on their way through programs that have only floats
RESERVED = ("id", "asked", "provenance")  # of a record


@dataclass(frozen=True)
class Field:
    """One field. `low` and `high` bound a number, or the length of a text in characters; both are inclusive."""

    name: str
    type: str
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    description: str = ""

    @property
    def words(self) -> str:
        """What it holds, for the prompt and for people."""
        what = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "text": "text"}
        said = what.get(self.type) or "one of " + ", ".join(json.dumps(one, ensure_ascii=False) for one in self.values)
        unit = " characters" if self.type == "text" else ""
        low = self.low if self.type != "text" or (self.low or 0) > 1 else None
        if low is not None and self.high is not None:
            said += f" of {low} to {self.high}{unit}" if unit else f" from {low} to {self.high}"
        elif low is not None or self.high is not None:
            said += f" of at {'most' if low is None else 'least'} {self.high if low is None else low}{unit}"
        return f"{said}: {self.description}" if self.description else said

    @property
    def _annotated(self) -> tuple[Any, Any]:
        """Type and limits as pydantic takes them; the alias keeps a name such as `schema` off its own methods."""
        from typing import Literal

        from pydantic import Field as Limits

        # mypy cannot know a Literal that is made from a file
        kind: Any = {"text": str, "integer": int, "number": float, "boolean": bool}.get(self.type)
        kind = kind or Literal[self.values]
        low, high = ("min_length", "max_length") if self.type == "text" else ("ge", "le")
        limits: dict[str, Any] = {low: self.low, high: self.high}
        limits = {key: value for key, value in limits.items() if value is not None}
        return kind, Limits(alias=self.name, description=self.description or None, **limits)


@dataclass(frozen=True)
class ResponseSchema:
    """The fields of an answer, in the order in which they are written."""

    fields: tuple[Field, ...]

    @cached_property
    def model(self) -> type[BaseModel]:
        """What reads an answer: these fields, all of them, and no others."""
        from pydantic import ConfigDict, create_model

        fields: dict[str, Any] = {f"field_{k}": field._annotated for k, field in enumerate(self.fields)}
        return create_model("Answer", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema, without the titles that pydantic adds.

        It lets a text have one character too many. A server that is held to a length stops there, in the middle of a
        sentence: so what was stopped is longer than what is accepted, and is found out.
        """
        found = self.model.model_json_schema()
        found.pop("title")
        for one in found["properties"].values():
            one.pop("title", None)
            if "maxLength" in one:
                one["maxLength"] += 1
        return found

    @property
    def words(self) -> str:
        """What a prompt says of the form where it has the place {fields}."""
        return "a JSON object with " + ", ".join(f'"{field.name}" ({field.words})' for field in self.fields)

    def __getitem__(self, name: str) -> Field | None:
        return next((field for field in self.fields if field.name == name), None)

    def read(self, answer: str) -> tuple[dict[str, Any], str]:
        """The values by name, and "" or what is wrong, in words that hold none of the answer's own."""
        found, wrong = validate_json(answer, self.model)
        if found is None:
            return {}, "a key that was not asked for" if wrong.endswith("Extra inputs are not permitted") else wrong
        values = found.model_dump(by_alias=True)
        for field in self.fields:
            if field.type == "integer" and abs(values[field.name]) > _LARGEST:
                return {}, f"{field.name}: beyond 2^53"
        return values, ""

    def text(self, values: Mapping[str, Any]) -> str:
        """What is compared and measured of an answer: its texts, a line each; all of it where it has none."""
        texts = [str(values[field.name]) for field in self.fields if field.type == "text"]
        return "\n".join(texts) if texts else json.dumps(values, ensure_ascii=False)

    @property
    def has_text(self) -> bool:
        """Whether any field is text."""
        return any(field.type == "text" for field in self.fields)


def read_form(file: str, table: object) -> ResponseSchema:
    """The fields that a task.toml declares. Raises `InvalidArgument`, which names the key."""
    if not isinstance(table, dict) or not table:
        example = 'a table of fields, such as text = {type = "text", max_length = 200}'
        raise InvalidArgument(f"{file}: fields", shown(table), example)
    return ResponseSchema(tuple(_field(file, name, one) for name, one in table.items()))


def _field(file: str, name: str, table: object) -> Field:
    if not NAME.fullmatch(name) or name in RESERVED:
        accepted = f"a name of letters, digits and _ that is none of {', '.join(RESERVED)}"
        raise InvalidArgument(f"{file}: name in [fields]", shown(name), accepted)
    place, both = f"fields.{name}", ("type", "description")
    every = dict.fromkeys(key for some in _KEYS.values() for key in some)
    keys = Keys(file, place, table, (*both, *every))
    kind = keys.table.get("type")
    if kind not in tuple(_KEYS):
        raise keys.fail("type", f"one of {', '.join(_KEYS)}")
    keys = Keys(file, place, table, (*both, *_KEYS[kind]))
    values = keys.texts("values") if kind == "category" else ()
    if kind == "category" and not values:
        raise keys.fail("values", 'the categories, such as values = ["yes", "no"]')
    low, high = _limits(keys, kind)
    return Field(name, kind, values, low, high, keys.text("description", ""))


def _limits(keys: Keys, kind: str) -> tuple[float | None, float | None]:
    if kind == "text":
        low, high = keys.whole("min_length", 1), keys.whole("max_length", None, least=1)
        return _in_order(keys, "max_length", low, high)
    for key in ("min", "max"):
        bound = keys.table.get(key)
        if bound is not None and not is_number(bound):
            raise keys.fail(key, "a number")
        if bound is not None and kind == "integer" and not (type(bound) is int and abs(bound) <= _LARGEST):
            raise keys.fail(key, "a whole number of at most 2^53 in size")
    return _in_order(keys, "max", keys.table.get("min"), keys.table.get("max"))


def _in_order(keys: Keys, key: str, low: float | None, high: float | None) -> tuple[float | None, float | None]:
    if low is not None and high is not None and low > high:
        raise keys.fail(key, f"at least {low}, the lower limit")
    return low, high
