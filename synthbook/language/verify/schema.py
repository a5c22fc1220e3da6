"""Has an answer the form that was asked for, and are answers of many kinds? Necessary, and never enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from synthbook.core.errors import InvalidArgument

M = TypeVar("M", bound=BaseModel)


def checked(answer: str, schema: type[M]) -> tuple[M | None, str]:
    """An answer that should be JSON of a schema, read; else None and what is wrong with it.

    Types are strict: "2" is no number. A schema knows the form of an answer, not its meaning.
    """
    try:
        return schema.model_validate_json(answer, strict=True), ""
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return None, f"{place}: {first['msg']}" if place else str(first["msg"])


def entropy(kinds: Iterable[Hashable]) -> float:
    """Bits of the shares of kinds: log2 of their number where all are as frequent, 0 where there is one.

    >>> entropy("aabb"), entropy("aaaa")
    (1.0, 0.0)
    """
    import numpy as np

    counts = np.array(list(Counter(kinds).values()), dtype=float)
    if not len(counts):
        raise InvalidArgument("kinds", [], "at least one")
    p = counts / counts.sum()
    return float(abs(-(p * np.log2(p)).sum()))
