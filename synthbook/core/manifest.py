"""Where the real data lie, and the proof that they are the files the book was written with.

`data/manifest.json` lists every data file with its SHA-256 and its size in bytes. For a `.gz` both are of the
decompressed content, since the same content may be packed again. Prose (`*.md`, licence texts) is not listed.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import synthbook
from synthbook.core.errors import DataError
from synthbook.core.files import atomic_write, sha256

FOLDER_VARIABLE = "SYNTHBOOK_DATA"
MANIFEST = "manifest.json"
MISSING, UNLISTED = "missing", "not listed"


@dataclass(frozen=True)
class FileCheck:
    """One data file held against the manifest.

    `of` is "content" (decompressed) or "file". `expected` and `found` are SHA-256 in hexadecimal; `found` is "missing"
    for an absent file, `expected` is "not listed" for one that the manifest does not know. `note` says what is wrong.
    """

    file: str
    of: str
    expected: str
    found: str
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the file is the one in the manifest; content that lies unpacked under a `.gz` name is not."""
        return self.found == self.expected and not self.note


def data_folder() -> Path:
    """The folder SYNTHBOOK_DATA names, absolute, else the checkout's `data/`; `DataError` where it has no manifest."""
    named = named_folder()
    folder = named or _checkout()
    if (folder / MANIFEST).is_file():
        return folder
    if named:
        raise DataError(
            f"{FOLDER_VARIABLE} = {os.environ[FOLDER_VARIABLE]!r} holds no {MANIFEST}: name the data/ folder of a "
            "checkout of synthbook or a copy of it, or unset the variable"
        )
    raise DataError(
        f"no data at {folder}: an installed package carries code only. Clone the project and run inside the clone, "
        f"or set {FOLDER_VARIABLE} to the clone's data/ folder"
    )


def named_folder() -> Path | None:
    """The absolute path of the folder that SYNTHBOOK_DATA names, whether it exists or not; None where it is unset."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named).expanduser().absolute() if named else None


def _checkout() -> Path:
    return Path(synthbook.__file__).resolve().parents[1] / "data"


def read_data(file: str) -> bytes:
    """The content of a data file such as "adult/adult.data.gz", decompressed, once it was held against the manifest.

    Every read is checked; hashing costs less than unpacking. Raises `DataError` with the file, both hashes and the
    way to restore it when the file is missing, truncated or altered.
    """
    folder = data_folder()
    entry = read_manifest(folder).get(file)
    if entry is None:
        raise DataError(f"{folder / MANIFEST} does not list {file}: {remedy(folder, MANIFEST)}")
    content, check = _check(folder, file, entry)
    if not check.holds:
        raise DataError(
            f"{folder / file} is not the file the book was written with{f' ({check.note})' if check.note else ''}.\n"
            f"expected SHA-256 of its {check.of}: {check.expected}\nfound: {check.found}\n{remedy(folder, file)}"
        )
    return content


def read_manifest(folder: Path) -> dict[str, dict[str, str | int]]:
    """The manifest of a data folder: file -> {"of", "sha256", "bytes"}."""
    try:
        files = _parsed((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        if all(set(entry) == {"of", "sha256", "bytes"} for entry in files.values()):
            return {file: dict(entry) for file, entry in files.items()}
        problem = "an entry has other keys than of, sha256 and bytes"
    except FileNotFoundError:
        problem = MISSING
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
    raise DataError(f"{folder / MANIFEST} cannot be read ({problem}): {remedy(folder, MANIFEST)}")


@lru_cache(maxsize=1)
def _parsed(text: str) -> Any:
    return json.loads(text)  # a loader asks once for each of its files


def verify_all(folder: Path) -> list[FileCheck]:
    """Hold every listed file against the manifest, and report files it does not list; in order of file name."""
    folder = Path(folder)
    entries = read_manifest(folder)
    checks = [_check(folder, file, entry)[1] for file, entry in entries.items()]
    unlisted = set(data_files(folder)) - set(entries)
    checks += [FileCheck(file, "file", UNLISTED, sha256((folder / file).read_bytes())) for file in unlisted]
    return sorted(checks, key=lambda check: check.file)


def write_manifest(folder: Path) -> Path:
    """Write `manifest.json` from the files as they are now; `DataError` if a `.gz` among them is broken."""
    folder = Path(folder)
    entries = {}
    for file in data_files(folder):
        content, note = _content(folder / file)
        if note:
            raise DataError(f"{folder / file} cannot enter the manifest ({note}): {remedy(folder, file)}")
        entries[file] = {"of": _of(file), "sha256": sha256(content), "bytes": len(content)}
    return atomic_write(folder / MANIFEST, json.dumps({"files": entries}, indent=1) + "\n")


def data_files(folder: Path) -> list[str]:
    """Every file that belongs into the manifest, relative to the folder, with forward slashes, sorted."""
    paths = [path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()]
    return sorted(path.as_posix() for path in paths if not _is_prose(path))


def _is_prose(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return hidden or path.suffix == ".md" or path.name.startswith("LICENSE") or path == Path(MANIFEST)


def _of(file: str) -> str:
    return "content" if file.endswith(".gz") else "file"


def _content(path: Path) -> tuple[bytes, str]:
    """The content and "", or the raw bytes and what is wrong with the archive."""
    raw = path.read_bytes()
    if path.suffix != ".gz":
        return raw, ""
    if not raw:  # gzip takes no bytes at all for an archive of nothing
        return raw, "the file is empty"
    try:
        return gzip.decompress(raw), ""
    except (OSError, EOFError, zlib.error) as error:
        return raw, f"the archive is broken: {error}; the hash found is of the archive"


def _check(folder: Path, file: str, entry: dict[str, str | int]) -> tuple[bytes, FileCheck]:
    of, expected = str(entry["of"]), str(entry["sha256"])
    try:
        content, note = _content(folder / file)
    except OSError as error:
        note = "" if isinstance(error, FileNotFoundError) else str(error)
        return b"", FileCheck(file, of, expected, MISSING, note)
    found = sha256(content)
    if not note and found != expected:
        note = f"{len(content):,} bytes, expected {entry['bytes']:,}"
    return content, FileCheck(file, of, expected, found, note)


def remedy(folder: Path, file: str) -> str:
    """What to do about a file of the data folder that is missing or damaged."""
    if folder.resolve() == _checkout():
        return f"restore it with: git checkout -- data/{file}"
    return f"restore it: copy data/{file} of a checkout of synthbook to {folder / file}"
