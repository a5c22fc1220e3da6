"""Errors that say what was given and what would be accepted.

Every error the package raises on purpose is a `SynthbookError`. Its `exit_code` is what a command ends with:
1 for a failed check or a refusal, 2 for bad input.
"""

from __future__ import annotations


class SynthbookError(Exception):
    """Base of all deliberate errors: a failed check or a refusal."""

    exit_code = 1


class InvalidArgument(SynthbookError, ValueError):
    """An argument was given a value that is not accepted.

    >>> raise InvalidArgument("n", 0, "a whole number of at least 2")
    Traceback (most recent call last):
        ...
    synthbook.core.errors.InvalidArgument: n = 0 is not accepted: give a whole number of at least 2
    """

    exit_code = 2

    def __init__(self, argument: str, value: object, accepted: str):
        self.argument, self.value, self.accepted = argument, value, accepted
        super().__init__(f"{argument} = {value!r} is not accepted: give {accepted}")


class DataError(SynthbookError):
    """A data file is missing, truncated or altered; the message names it and the way to restore it."""


class SchemaError(SynthbookError, ValueError):
    """A table and its schema disagree; the message names the column and what the schema allows."""

    exit_code = 2


class HoldoutError(SynthbookError, TypeError):
    """A generator was asked to learn from data that is reserved for testing."""


class ClaimFailed(SynthbookError, AssertionError):
    """A measured value lies outside the tolerance of its claim."""


def format_error(error: Exception) -> str:
    """What to tell people: a deliberate error's own words, the system's with the file, else the type and the message.

    >>> format_error(PermissionError(13, "Permission denied", "build/.lock")), format_error(KeyError("minutes"))
    ('build/.lock: Permission denied', "KeyError: 'minutes'")
    """
    if isinstance(error, SynthbookError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"
