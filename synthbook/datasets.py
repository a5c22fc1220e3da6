"""One loader for each real data set, each with a fixed test part that no generator may see.

Every byte is held against `data/manifest.json` when it is read. Where a set was published with a test file, that file
is the test part. Elsewhere the test rows are those with the smallest SHA-256 of a key, "<set>:<row number>" or the
message itself: the split needs no random generator, is the same everywhere, and anyone can recompute it.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import synthbook
from synthbook.core.errors import DataError
from synthbook.core.storage import atomic_write, sha256
from synthbook.core.table import Holdout, Schema, Table
from synthbook.core.types import Images, Photographs, Split, Texts

if TYPE_CHECKING:
    import torch


# ── Where the real data lie, and the proof that they are the files the book was written with ──
# `data/manifest.json` lists every data file with its SHA-256 and its size in bytes. For a `.gz` both are of the
# decompressed content, since the same content may be packed again. Prose (`*.md`, licence texts) is not listed.


DATA_ENV_VAR = "SYNTHBOOK_DATA"
MANIFEST = "manifest.json"
MISSING, UNLISTED = "missing", "not listed"


@dataclass(frozen=True)
class FileCheck:
    """One data file held against the manifest.

    `hashed` is "content" (decompressed) or "file". `expected` and `actual` are SHA-256 in hexadecimal; `actual` is
    "missing" for an absent file, `expected` is "not listed" for a file that the manifest does not list.
    """

    file: str
    hashed: str
    expected: str
    actual: str
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether the file is the one in the manifest; content that lies unpacked under a `.gz` name is not."""
        return self.actual == self.expected and not self.problem


def data_folder() -> Path:
    """The folder SYNTHBOOK_DATA names, absolute, else the checkout's `data/`; `DataError` where it has no manifest."""
    named = data_folder_from_env()
    folder = named or _checkout()
    if (folder / MANIFEST).is_file():
        return folder
    if named:
        raise DataError(
            f"{DATA_ENV_VAR} = {os.environ[DATA_ENV_VAR]!r} holds no {MANIFEST}: name the data/ folder of a "
            "checkout of synthbook or a copy of it, or unset the variable"
        )
    raise DataError(
        f"no data at {folder}: an installed package carries code only. Clone the project and run inside the clone, "
        f"or set {DATA_ENV_VAR} to the clone's data/ folder"
    )


def data_folder_from_env() -> Path | None:
    """The absolute path of the folder that SYNTHBOOK_DATA names, whether it exists or not; None where it is unset."""
    named = os.environ.get(DATA_ENV_VAR)
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
        raise DataError(f"{folder / MANIFEST} does not list {file}: {restore_hint(folder, MANIFEST)}")
    content, check = _check(folder, file, entry)
    if not check.ok:
        problem = f" ({check.problem})" if check.problem else ""
        raise DataError(
            f"{folder / file} is not the file the book was written with{problem}.\n"
            f"expected SHA-256 of its {check.hashed}: {check.expected}\nfound: {check.actual}\n"
            + restore_hint(folder, file)
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
    raise DataError(f"{folder / MANIFEST} cannot be read ({problem}): {restore_hint(folder, MANIFEST)}")


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
        content, problem = _content(folder / file)
        if problem:
            raise DataError(f"{folder / file} cannot enter the manifest ({problem}): {restore_hint(folder, file)}")
        hashed = "content" if file.endswith(".gz") else "file"
        entries[file] = {"of": hashed, "sha256": sha256(content), "bytes": len(content)}
    return atomic_write(folder / MANIFEST, json.dumps({"files": entries}, indent=1) + "\n")


def data_files(folder: Path) -> list[str]:
    """Every file that belongs into the manifest, relative to the folder, with forward slashes, sorted."""

    def is_listed(path: Path) -> bool:
        prose = path.suffix == ".md" or path.name.startswith("LICENSE")
        return not (prose or path == Path(MANIFEST) or any(part.startswith(".") for part in path.parts))

    paths = [path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()]
    return sorted(path.as_posix() for path in paths if is_listed(path))


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
    hashed, expected = str(entry["of"]), str(entry["sha256"])
    try:
        content, problem = _content(folder / file)
    except OSError as error:
        problem = "" if isinstance(error, FileNotFoundError) else str(error)
        return b"", FileCheck(file, hashed, expected, MISSING, problem)
    actual = sha256(content)
    if not problem and actual != expected:
        problem = f"{len(content):,} bytes, expected {entry['bytes']:,}"
    return content, FileCheck(file, hashed, expected, actual, problem)


def restore_hint(folder: Path, file: str) -> str:
    """What to do about a file of the data folder that is missing or damaged."""
    if folder.resolve() == _checkout():
        return f"restore it with: git checkout -- data/{file}"
    return f"restore it: copy data/{file} of a checkout of synthbook to {folder / file}"


# ── Loaders ──


__all__ = [
    "adult",
    "austen",
    "digits",
    "fashion_mnist",
    "hash_split",
    "load_schema",
    "real_cube",
    "shuttle",
    "sms_spam",
]

_SHUTTLE_TEST, _DIGITS_TEST, SMS_TEST = 14_500, 450, 1_500  # rows
_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_NOVELS = {
    "emma": "Emma",
    "mansfieldpark": "Mansfield Park",
    "northangerabbey": "Northanger Abbey",
    "persuasion": "Persuasion",
    "prideprejudice": "Pride and Prejudice",
    "sensesensibility": "Sense and Sensibility",
}


def adult() -> Split[Table]:
    """Adult (1994 census extract): 32,561 people to train on, 16,281 in the published test file, 15 columns.

    The frames' index is the row's number in its file, from 0. "?" in the files is a missing value here.
    """
    schema = load_schema("adult")
    train = _adult_table("adult/adult.data.gz", schema)
    test = _adult_table("adult/adult.test.gz", schema, skiprows=1)  # "|1x3 Cross validator"
    return Split(train, Holdout(test))


def _adult_table(file: str, schema: Schema, skiprows: int = 0) -> Table:
    maybe_missing = {column.name: ["?"] for column in schema.columns if column.missing}
    frame = pd.read_csv(
        io.BytesIO(read_data(file)),
        names=schema.names,
        skiprows=skiprows,
        skipinitialspace=True,
        na_values=maybe_missing,
        keep_default_na=False,
    )
    return Table(frame.assign(income=frame["income"].str.removesuffix(".")), schema)


def shuttle() -> Split[Table]:
    """Statlog Shuttle: 58,000 rows of nine sensor integers and one of 7 states, two of them rarer than 1 in 4,000.

    14,500 rows are the test part. The frames' index is the row's number in the file, from 0.
    """
    schema = load_schema("shuttle")
    frame = pd.read_csv(io.BytesIO(read_data("shuttle/shuttle.csv.gz")))
    train, test = _split(len(frame), hash_split(_row_keys("shuttle", len(frame)), _SHUTTLE_TEST))
    return Split(Table(frame.iloc[train], schema), Holdout(Table(frame.iloc[test], schema)))


def load_schema(table: str) -> Schema:
    """The reviewed schema of a table, "adult" or "shuttle", held against the manifest like the data."""
    file = f"{table}/schema.toml"
    return Schema.from_text(read_data(file).decode(), source=data_folder() / file)


def fashion_mnist() -> Split[Images]:
    """Fashion-MNIST: 60,000 + 10,000 product photographs (N, 1, 28, 28), 10 classes of equal size, 220 MB in memory."""
    return Split(_fashion_part("train"), Holdout(_fashion_part("t10k")))


def _fashion_part(part: str) -> Images:
    import torch

    pixels = _idx(read_data(f"fashion-mnist/{part}-images-idx3-ubyte.gz"))
    labels = _idx(read_data(f"fashion-mnist/{part}-labels-idx1-ubyte.gz"))
    return Images(_scaled(pixels, top=255), torch.from_numpy(labels.astype(np.int64)), _FASHION_CLASSES)


def _idx(raw: bytes) -> NDArray[np.uint8]:
    """Parse an idx file of bytes: two zeros, type 8, number of axes, their lengths as big-endian int32, the values."""
    axes = np.frombuffer(raw, dtype=">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * raw[3]).reshape(axes)


def _scaled(pixels: NDArray[Any], top: int) -> torch.Tensor:
    import torch

    images = torch.from_numpy(pixels.astype(np.float32))  # (N, H, W)
    return images.mul_(2 / top).sub_(1).clamp_(-1, 1).unsqueeze(1)  # (N, 1, H, W); float32 rounds 2 / top


def digits() -> Split[Images]:
    """scikit-learn's 1,797 handwritten digits (N, 1, 8, 8); 450 of them are the test part."""
    import torch
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = _scaled(bunch.images, top=16), torch.from_numpy(bunch.target.astype(np.int64))
    train, test = _split(len(labels), hash_split(_row_keys("digits", len(labels)), _DIGITS_TEST))
    names = tuple("0123456789")
    return Split(Images(images[train], labels[train], names), Holdout(Images(images[test], labels[test], names)))


def sms_spam() -> Split[Texts]:
    """Real text messages, labelled "ham" or "spam": 4,534 different ones, 561 of them spam, 1,500 in the test part.

    Repeated messages are dropped before the split, so that no test message was seen in training.
    """
    lines = read_data("sms-spam/sms_spam_4862.tsv.gz").decode().split("\n")
    pairs = [line.split("\t") for line in lines if line]
    label_of = {message: label for label, message in reversed(pairs)}  # no message has two labels
    messages = list(dict.fromkeys(message for _, message in pairs))  # in order of first appearance

    def part(rows: NDArray[np.int64]) -> Texts:
        chosen = tuple(messages[row] for row in rows)
        return Texts(chosen, tuple(label_of[message] for message in chosen))

    train, test = _split(len(messages), hash_split(messages, SMS_TEST))
    return Split(part(train), Holdout(part(test)))


def austen() -> Split[Texts]:
    """Jane Austen's six novels, 4 MB; the last tenth of each, from the start of a paragraph, is the test part."""
    text = read_data("austen/austen_six_novels.txt.gz").decode()
    _, *parts = re.split(r"^=== (.+) ===\n", text, flags=re.MULTILINE)  # title, novel, title, novel, ...
    titles = tuple(_NOVELS[name] for name in parts[::2])
    halves = [_last_tenth(novel) for novel in parts[1::2]]
    train, test = (tuple(half) for half in zip(*halves, strict=True))
    return Split(Texts(train, titles), Holdout(Texts(test, titles)))


def _last_tenth(novel: str) -> tuple[str, str]:
    lines = novel.splitlines(keepends=True)
    cut = len(lines) * 9 // 10
    while lines[cut - 1].strip():  # move on to the end of the paragraph
        cut += 1
    return "".join(lines[:cut]), "".join(lines[cut:])


def real_cube() -> Holdout[Photographs]:
    """140 real photographs (240 x 320, grey) of one cube with its pose: all for testing, nothing is trained on them.

    They are frames of one video of one desk, so they are correlated and the cube moves little: see SOURCE.md.
    """
    from PIL import Image

    labels = json.loads(read_data("real-cube/labels.json"))
    frames = labels["frames"]
    images = [np.asarray(Image.open(io.BytesIO(read_data(f"real-cube/{frame['file']}")))) for frame in frames]
    return Holdout(
        Photographs(
            images=np.stack(images),
            corners=np.array([frame["corners_2d"] for frame in frames]),
            visible=np.array([np.isin(range(8), frame["visible_corners"]) for frame in frames]),
            boxes=np.array([frame["bbox_xyxy"] for frame in frames]),
            rvec=np.array([frame["rvec"] for frame in frames]),
            tvec=np.array([frame["tvec_m"] for frame in frames]),
            K=np.array(labels["K"]),
            cube_corners=np.array(labels["cube_corners_m"]),
            cube_side=labels["cube_side_m"],
        )
    )


def hash_split(keys: Iterable[str], n: int) -> NDArray[np.int64]:
    """The `n` rows whose keys have the smallest SHA-256, in ascending order of row."""
    hashes = [sha256(key.encode()) for key in keys]
    return np.sort(np.array(sorted(range(len(hashes)), key=hashes.__getitem__)[:n], dtype=np.int64))


def _row_keys(name: str, rows: int) -> list[str]:
    return [f"{name}:{row}" for row in range(rows)]


def _split(rows: int, test: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.setdiff1d(np.arange(rows), test), test
