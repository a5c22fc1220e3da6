"""Prompt templates, and the response schema that the fields of a task declare.

In a prompt `{name}` is filled in, `{{name}}` stands for {name}, and every other brace stays. Values are data: they are
not read for placeholders again, and special tokens of chat templates are broken up by a space.

Fields are compiled to a JSON schema for constrained decoding and to a strict pydantic model. Servers enforce the schema
only in part (llama.cpp ignores bounds of floats), so every response is validated by the model as well.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, StrictFloat, StrictInt, ValidationError, WrapValidator, create_model
from pydantic import Field as Constraints
from pydantic import model_validator as validator

from synthbook.core.errors import InvalidArgument
from synthbook.language.client import HIDDEN, KEY
from synthbook.language.filters.verdicts import validate_json
from synthbook.language.messages import break_special_tokens

IDENTIFIER = re.compile(r"[^\W\d]\w*")
_PLACEHOLDER = re.compile(r"\{\{([^\W\d]\w*)\}\}|\{([^\W\d]\w*)\}")
_PRINTED = "\n\u200c\u200d"


@dataclass(frozen=True)
class Template:
    """A prompt: its source, and its pieces, each with True where it is the name of a placeholder."""

    source: str
    pieces: tuple[tuple[str, bool], ...]

    @classmethod
    def of(cls, text: str) -> Template:
        """Split a text at its placeholders.

        >>> Template.of('Write a {tone} review as {"text": ...}, not {{tone}}.').fill({"tone": "{product}"})
        'Write a {product} review as {"text": ...}, not {tone}.'
        """
        pieces, end = list[tuple[str, bool]](), 0
        for match in _PLACEHOLDER.finditer(text):
            pieces.append((text[end : match.start()], False))
            pieces.append((f"{{{match[1]}}}", False) if match[1] else (match[2], True))
            end = match.end()
        return cls(text, (*pieces, (text[end:], False)))

    @property
    def names(self) -> tuple[str, ...]:
        """Placeholders, each once, in order."""
        return tuple(dict.fromkeys(text for text, is_name in self.pieces if is_name))

    def fill(self, values: Mapping[str, str]) -> str:
        """Fill every placeholder. Raises `KeyError` for one without a value."""
        return "".join(break_special_tokens(values[text]) if is_name else text for text, is_name in self.pieces)


def as_text(value: object) -> str | None:
    """A value as it appears in a prompt: text, numbers, true and false; None for anything else.

    >>> as_text(True), as_text(2.5), as_text(None)
    ('true', '2.5', None)
    """
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else None


def visible(text: str) -> str:
    r"""Escape control characters for display, except newlines and zero-width joiners.

    >>> visible("red \x1b[31m")
    'red \\x1b[31m'
    """
    return "".join(
        c if c.isprintable() or c in _PRINTED or unicodedata.category(c) == "Zs" else ascii(c)[1:-1] for c in text
    )


# ── Tables of a task file ──

_SECRETS = ("key", "apikey", "token", "secret", "password", "authorization")
_MAX_SHOWN = 80  # characters of a value in a message


def shown(value: object) -> object:
    """A value for an error message, shortened if it is long."""
    written = repr(value)
    if len(written) <= _MAX_SHOWN:
        return value
    return f"{value[:_MAX_SHOWN]}..." if isinstance(value, str) else f"{written[:_MAX_SHOWN]}..."


class Table(BaseModel):
    """A table of a task file. Unknown keys are refused; the value of a key that looks like a secret is never shown.

    Validators raise `InvalidArgument` with a key relative to the table: "" is the table itself, "key" one of its keys.
    """

    model_config = ConfigDict(extra="forbid", validate_default=True)

    @classmethod
    def keys(cls, table: Mapping[str, Any]) -> list[str]:
        """The keys that this table may have."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @validator(mode="before")
    @classmethod
    def _known_keys(cls, table: object) -> object:
        if isinstance(table, cls):
            return table
        if not isinstance(table, dict):
            raise InvalidArgument("", shown(table), f"a table with the keys {', '.join(cls.keys({}))}")
        accepted = cls.keys(table)
        for key in table:
            if key not in accepted and "".join(filter(str.isalpha, key.lower())) in _SECRETS:
                advice = f"no key in the file: set {KEY} in the environment, the one place from which it is read"
                raise InvalidArgument(key, HIDDEN, advice)
            if key not in accepted:
                raise InvalidArgument("key", shown(key), f"one of {', '.join(accepted)}")
        return table


_Table = TypeVar("_Table", bound=Table)


def parse_table(file: str, model: type[_Table], document: object) -> _Table:
    """Validate a document; raises one `InvalidArgument` that lists every problem with what would be accepted."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problems = [_problem(file, one) for one in error.errors(include_url=False)]
    others = "".join(f"\n{problem}" for problem in problems[1:])
    raise InvalidArgument(problems[0].argument, problems[0].value, problems[0].accepted + others)


def _problem(file: str, error: Any) -> InvalidArgument:
    place, cause = ".".join(map(str, error["loc"])), error.get("ctx", {}).get("error")
    if not isinstance(cause, InvalidArgument):
        return InvalidArgument(f"{file}: {place}", shown(error["input"]), str(cause or error["msg"]))
    if cause.argument in ("key", "name") and cause.value != HIDDEN:
        return InvalidArgument(
            f"{file}: {cause.argument}{f' in [{place}]' if place else ''}", cause.value, cause.accepted
        )
    return InvalidArgument(f"{file}: {'.'.join(filter(None, (place, cause.argument)))}", cause.value, cause.accepted)


def accepts(text: str) -> WrapValidator:
    """Replace pydantic's message for an invalid value by what would be accepted."""

    def wrap(value: Any, handler: Any) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(text) from None

    return WrapValidator(wrap)


_Finite = Annotated[StrictFloat, Constraints(allow_inf_nan=False)]
Number = Annotated[StrictInt | _Finite, accepts("a number")]
Text = Annotated[str, Constraints(strict=True, pattern=r"\S"), accepts("text that is not blank")]
Length = Annotated[StrictInt, Constraints(ge=0), accepts("a whole number of at least 0")]
Count = Annotated[StrictInt, Constraints(ge=1), accepts("a whole number of at least 1")]


def _texts(value: Any, handler: Any) -> Any:
    texts = isinstance(value, list | tuple) and all(isinstance(text, str) and text for text in value)
    if not texts or len(set(value)) < len(value):
        raise ValueError('a list of different texts, such as ["yes", "no"]')
    return handler(tuple(value))


Texts = Annotated[tuple[str, ...], WrapValidator(_texts)]


# ── The fields of a response ──

_KEYS: Mapping[str, tuple[str, ...]] = {
    "text": ("min_length", "max_length"),
    "integer": ("min", "max"),
    "number": ("min", "max"),
    "boolean": (),
    "category": ("values",),
}
_LARGEST = 2**53  # larger whole numbers change in programs that have only floats
_RESERVED = ("id", "request", "provenance")  # keys of a written record


class Field(Table):
    """One field of the response; bounds are inclusive, lengths are in characters."""

    TYPES: ClassVar = {"text": str, "integer": int, "number": float, "boolean": bool}

    type: Annotated[
        Literal["text", "integer", "number", "boolean", "category"], accepts(f"one of {', '.join(_KEYS)}")
    ] = None  # type: ignore[assignment]
    description: Annotated[str, accepts("text that is not blank")] = ""
    min_length: Length = 1
    max_length: Count | None = None
    min: Number | None = None
    max: Number | None = None
    values: Texts = ()

    @classmethod
    def keys(cls, table: Mapping[str, Any]) -> list[str]:
        """The keys of this type; all where the type is unknown."""
        kind = table.get("type")
        own = _KEYS.get(kind) if isinstance(kind, str) else None
        every = dict.fromkeys(key for keys in _KEYS.values() for key in keys)
        return ["type", "description", *(every if own is None else own)]

    @validator(mode="after")
    def _consistent(self) -> Self:
        if self.type == "category" and not self.values:
            raise InvalidArgument("values", None, 'the categories, such as values = ["yes", "no"]')
        for key in ("min", "max") if self.type == "integer" else ():
            bound = getattr(self, key)
            if bound is not None and not (isinstance(bound, int) and abs(bound) <= _LARGEST):
                raise InvalidArgument(key, bound, "a whole number of at most 2^53 in size")
        if self.low is not None and self.high is not None and self.low > self.high:
            key = "max_length" if self.type == "text" else "max"
            raise InvalidArgument(key, self.high, f"at least {self.low}, the lower limit")
        return self

    @property
    def low(self) -> float | None:
        """The lower bound of a number, or of the length of a text."""
        return self.min_length if self.type == "text" else self.min

    @property
    def high(self) -> float | None:
        """The upper bound of a number, or of the length of a text."""
        return self.max_length if self.type == "text" else self.max

    @property
    def words(self) -> str:
        """A description of the field for prompts and reports."""
        what = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "text": "text"}
        text = what.get(self.type) or "one of " + ", ".join(json.dumps(one, ensure_ascii=False) for one in self.values)
        unit = " characters" if self.type == "text" else ""
        low = self.low if self.type != "text" or (self.low or 0) > 1 else None
        if low is not None and self.high is not None:
            text += f" of {low} to {self.high}{unit}" if unit else f" from {low} to {self.high}"
        elif low is not None or self.high is not None:
            text += f" of at {'most' if low is None else 'least'} {self.high if low is None else low}{unit}"
        return f"{text}: {self.description}" if self.description else text

    def constrained(self, name: str) -> tuple[Any, Any]:
        """Type and constraints for pydantic; the alias allows names such as `schema`, which BaseModel defines."""
        kind: Any = self.TYPES.get(self.type) or Literal[self.values]  # a Literal that mypy cannot know
        low, high = ("min_length", "max_length") if self.type == "text" else ("ge", "le")
        limits: dict[str, Any] = {low: self.low, high: self.high}
        limits = {key: value for key, value in limits.items() if value is not None}
        return kind, Constraints(alias=name, description=self.description or None, **limits)


@dataclass(frozen=True)
class ResponseSchema:
    """The fields of a response by name, in the order in which they are written."""

    fields: Mapping[str, Field]

    @cached_property
    def model(self) -> type[BaseModel]:
        """The strict model of a response: these fields, all required, and no others."""
        fields: dict[str, Any] = {
            f"field_{k}": field.constrained(name) for k, (name, field) in enumerate(self.fields.items())
        }
        return create_model("Answer", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema, without the titles that pydantic adds.

        `maxLength` is one larger than accepted. A constrained decoder stops at the limit, in the middle of a sentence;
        a text of that length is then recognized as truncated.
        """
        schema = self.model.model_json_schema()
        schema.pop("title")
        for field in schema["properties"].values():
            field.pop("title", None)
            if "maxLength" in field:
                field["maxLength"] += 1
        return schema

    @property
    def words(self) -> str:
        """The description that fills the placeholder {fields} of a prompt."""
        return "a JSON object with " + ", ".join(f'"{name}" ({field.words})' for name, field in self.fields.items())

    def read(self, answer: str) -> tuple[dict[str, Any], str]:
        """Values by name and "", or nothing and a reason that quotes no part of the answer."""
        parsed, error = validate_json(answer, self.model)
        if parsed is None:
            return {}, "a key that was not asked for" if error.endswith("Extra inputs are not permitted") else error
        values = parsed.model_dump(by_alias=True)
        for name, field in self.fields.items():
            if field.type == "integer" and abs(values[name]) > _LARGEST:
                return {}, f"{name}: beyond 2^53"
        return values, ""

    def text(self, values: Mapping[str, Any]) -> str:
        """What filters compare and measure: the text fields, one per line; the whole object where there are none."""
        texts = [str(values[name]) for name, field in self.fields.items() if field.type == "text"]
        return "\n".join(texts) if texts else json.dumps(values, ensure_ascii=False)

    @property
    def has_text(self) -> bool:
        """Whether any field is text."""
        return any(field.type == "text" for field in self.fields.values())


def check_fields(table: object) -> dict[str, Any]:
    """The table [fields]: at least one field, each with a valid name. Raises `InvalidArgument`."""
    if not isinstance(table, dict) or not table:
        raise InvalidArgument("", shown(table), 'a table of fields, such as text = {type = "text", max_length = 200}')
    for name in table:
        if not IDENTIFIER.fullmatch(name) or name in _RESERVED:
            accepted = f"a name of letters, digits and _ that is none of {', '.join(_RESERVED)}"
            raise InvalidArgument("name", shown(name), accepted)
    return table
