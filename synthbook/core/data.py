"""One loader for each real data set, each with a fixed test part that no generator may see.

Every byte is held against `data/manifest.json` when it is read. Where a set was published with a test file, that file
is the test part. Elsewhere the test rows are those with the smallest SHA-256 of a key, "<set>:<row number>" or the
message itself: the split needs no random generator, is the same everywhere, and anyone can recompute it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synthbook.core.files import sha256
from synthbook.core.manifest import data_folder, read_data
from synthbook.core.payloads import Images, Photographs, Split, Texts
from synthbook.core.schema import Holdout, Schema, Table

if TYPE_CHECKING:
    import torch

__all__ = ["adult", "austen", "digits", "fashion_mnist", "hashed_rows", "real_cube", "schema_of", "shuttle", "sms_spam"]

SHUTTLE_TEST, DIGITS_TEST, SMS_TEST = 14_500, 450, 1_500  # rows
FASHION_CLASSES = (
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
NOVELS = {
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
    schema = schema_of("adult")
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
    schema = schema_of("shuttle")
    frame = pd.read_csv(io.BytesIO(read_data("shuttle/shuttle.csv.gz")))
    train, test = _split(len(frame), hashed_rows(_row_keys("shuttle", len(frame)), SHUTTLE_TEST))
    return Split(Table(frame.iloc[train], schema), Holdout(Table(frame.iloc[test], schema)))


def schema_of(table: str) -> Schema:
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
    return Images(_scaled(pixels, top=255), torch.from_numpy(labels.astype(np.int64)), FASHION_CLASSES)


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
    train, test = _split(len(labels), hashed_rows(_row_keys("digits", len(labels)), DIGITS_TEST))
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

    train, test = _split(len(messages), hashed_rows(messages, SMS_TEST))
    return Split(part(train), Holdout(part(test)))


def austen() -> Split[Texts]:
    """Jane Austen's six novels, 4 MB; the last tenth of each, from the start of a paragraph, is the test part."""
    text = read_data("austen/austen_six_novels.txt.gz").decode()
    _, *parts = re.split(r"^=== (.+) ===\n", text, flags=re.MULTILINE)  # title, novel, title, novel, ...
    titles = tuple(NOVELS[name] for name in parts[::2])
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


def hashed_rows(keys: Iterable[str], n: int) -> NDArray[np.int64]:
    """The `n` rows whose keys have the smallest SHA-256, in ascending order of row."""
    hashes = [sha256(key.encode()) for key in keys]
    return np.sort(np.array(sorted(range(len(hashes)), key=hashes.__getitem__)[:n], dtype=np.int64))


def _row_keys(name: str, rows: int) -> list[str]:
    return [f"{name}:{row}" for row in range(rows)]


def _split(rows: int, test: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.setdiff1d(np.arange(rows), test), test
