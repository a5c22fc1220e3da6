"""Files that are either whole or absent: written beside their target, synced, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def atomic_write(path: Path, content: str | bytes | Iterable[str]) -> Path:
    """Write `content` to `path` so that a crash at any moment leaves the old file or the new one, never a part.

    Text is written as UTF-8, piece by piece where there are several. The temporary file lies in the target's own
    folder, so the rename never crosses devices.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pieces = [content] if isinstance(content, str | bytes) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                file.write(piece.encode() if isinstance(piece, str) else piece)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp makes files that only their owner may read
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return path


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # folders cannot be opened elsewhere
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def strict_json(document: Any, **layout: Any) -> str:
    """JSON as the standard has it: NaN and infinities become text, which `float` reads back.

    >>> strict_json({"measured": float("-inf")})
    '{"measured": "-Infinity"}'
    """
    finite = json.loads(json.dumps(document), parse_constant=str)
    return json.dumps(finite, ensure_ascii=False, allow_nan=False, **layout)


def sha256(content: bytes) -> str:
    """SHA-256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes as they lie on disk."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
