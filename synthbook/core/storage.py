"""Files on disk: atomic writes, hashes, locks, and a provenance sidecar for each file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import synthbook
from synthbook.core.errors import DataError, InvalidArgument, SynthbookError


def atomic_write(path: Path, content: str | bytes | Iterable[str]) -> Path:
    """Write `content` to `path` atomically: a crash leaves the old file or the new one, never a part.

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
    """Standard JSON: NaN and infinities are written as strings, which `float` reads back.

    >>> strict_json({"measured": float("-inf")})
    '{"measured": "-Infinity"}'
    """
    finite = json.loads(json.dumps(document), parse_constant=str)
    return json.dumps(finite, ensure_ascii=False, allow_nan=False, **layout)


def sha256(content: bytes) -> str:
    """SHA-256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ── Locks ──


class LockedError(SynthbookError):
    """Another process holds the lock."""


@contextmanager
def file_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path`; raise `LockedError` ("`what`: wait until process 123 has ended") if it is held."""
    try:
        import fcntl
    except ImportError:
        raise SynthbookError("file locks take Linux or macOS: on Windows use WSL") from None
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise LockedError(f"{what}: wait until process {file.read().strip() or '?'} has ended") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


# ── Provenance ──
# `table.csv` is described by `table.csv.provenance.json`. The sidecar holds the file's own SHA-256, so a file that was
# changed after it was described is found out when the sidecar is read.
#
# Four kinds of file carry their origin inside, so that it cannot be lost on the way, and have no sidecar: an executed
# notebook (its metadata, under "synthbook"), a checkpoint (`model.json`, for itself and its `model.safetensors`), a
# drafted `schema.toml` (its first lines), and `data/manifest.json`, which is itself the list of what each file should
# be.


@dataclass(frozen=True)
class Provenance:
    """Where a file comes from.

    `generation` counts the models between this file and reality: 0 is real data, 1 a model's output, 2 the output of
    a model trained on generation 1. `synthetic_share` is the share of synthetic rows, in [0, 1].
    `parents` maps the name of each input to its SHA-256. `privacy` is the guarantee of a differentially private source.
    """

    source: str
    command: str
    parents: dict[str, str] = field(default_factory=dict)
    generation: int = 0
    synthetic_share: float = 0.0
    seed: int | None = None
    licence: str | None = None
    privacy: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.generation < 0:
            raise InvalidArgument("generation", self.generation, "0 for real data or the number of models in between")
        if not 0 <= self.synthetic_share <= 1:
            raise InvalidArgument("synthetic_share", self.synthetic_share, "a share between 0 and 1")

    def to_dict(self) -> dict[str, Any]:
        """As plain data; `privacy` is left out where there is no guarantee."""
        return {key: value for key, value in asdict(self).items() if key != "privacy" or value is not None}


def sidecar_path(path: Path) -> Path:
    """The sidecar's path: the file's own name with `.provenance.json` appended."""
    path = Path(path)
    return path.with_name(path.name + ".provenance.json")


def write_with_provenance(path: Path, content: str | bytes | Iterable[str], provenance: Provenance) -> Path:
    """Write a file, then its provenance sidecar, so that no sidecar describes a missing file."""
    path = atomic_write(path, content)
    described = {"file": path.name, "sha256": sha256_file(path), "synthbook": synthbook.__version__}
    atomic_write(sidecar_path(path), json.dumps(described | provenance.to_dict(), indent=1, sort_keys=True) + "\n")
    return path


def read_provenance(path: Path) -> Provenance:
    """Read a file's sidecar and verify the file's SHA-256 against it.

    Raises `DataError` when the sidecar is missing or unreadable, or when the file's bytes have changed since.
    """
    path, sidecar = Path(path), sidecar_path(path)
    try:
        described = json.loads(sidecar.read_text())
        expected = described.pop("sha256")
        described.pop("file"), described.pop("synthbook")
        provenance = Provenance(**described)
    except FileNotFoundError:
        raise DataError(f"{path} has no sidecar {sidecar.name}: nothing is known of its origin") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{sidecar} is not a sidecar of this package ({error}): write the file again") from None
    try:
        actual = sha256_file(path)
    except OSError as error:
        raise DataError(f"{path}, which {sidecar.name} describes, cannot be read: {error}") from None
    if actual != expected:
        raise DataError(f"{path} changed after it was described: its SHA-256 is {actual}, the sidecar says {expected}")
    return provenance
