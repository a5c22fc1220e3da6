"""Has an answer the form that was asked for? Necessary, and never enough."""

from __future__ import annotations

import re
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

M = TypeVar("M", bound=BaseModel)


def validate_json(answer: str, schema: type[M]) -> tuple[M | None, str]:
    """An answer that should be JSON of a schema, read; else None and what is wrong with it.

    Types are strict: "2" is no number. A schema knows the form of an answer, not its meaning.
    """
    try:
        return schema.model_validate_json(answer, strict=True), ""
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        words = re.sub(r" at line \d+ column \d+", "", str(first["msg"]))  # the same fault has the same words
        return None, f"{place}: {words}" if place else words


def pinned_schema(title: str, description: str) -> ConfigDict:
    """The configuration of a strict model whose JSON schema keeps this title and description.

    Both are hashed into the keys of recorded answers: a class or its docstring may change, these may not.
    """
    return ConfigDict(extra="forbid", title=title, json_schema_extra={"description": description})
