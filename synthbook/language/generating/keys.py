"""Tables of a task.toml, read key by key: an error names the key, what it holds, and what is accepted there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from synthbook.core.errors import InvalidArgument
from synthbook.language.endpoint import HIDDEN, KEY

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
