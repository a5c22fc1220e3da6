"""What all generators share before they have seen any data: settings, and an error for samples too early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from synthbook.core.errors import InvalidArgument, SynthbookError


class NotFitted(SynthbookError):
    """A model was asked for samples before it was fitted or loaded."""


def check_count(name: str, given: object) -> int:
    """A whole number of at least 1; `InvalidArgument` for anything else."""
    if not isinstance(given, int | np.integer) or given < 1:
        raise InvalidArgument(name, given, "a whole number of at least 1")
    return int(given)


def configured(settings: type, given: Mapping[str, Any]) -> Any:
    """An instance of the dataclass `settings`. Raises `InvalidArgument` for names it does not have."""
    known = [field.name for field in fields(settings)]
    if unknown := sorted(set(given) - set(known)):
        raise InvalidArgument("settings", unknown, f"some of {', '.join(known)}" if known else "no settings")
    return settings(**given)
