"""One process at a time: a lock that the system gives back when its holder dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synthbook.core.errors import SynthbookError


class Busy(SynthbookError):
    """Another process is at work in the same place."""


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path`; raises `Busy` ("`what`: wait until process 123 has ended") where another does."""
    try:
        import fcntl
    except ImportError:
        raise SynthbookError("file locks take Linux or macOS: on Windows use WSL") from None
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Busy(f"{what}: wait until process {file.read().strip() or '?'} has ended") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
