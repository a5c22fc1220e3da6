"""What must hold of the loaders for any data, not for the rows there are: drawn by hypothesis."""

import csv
import gzip
import shutil
import struct
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from synthbook import datasets
from synthbook.core.errors import DataError

FOLDER = Path(datasets.__file__).parents[1] / "data"
FILES = sorted(datasets.read_manifest(FOLDER))
ADULT = gzip.decompress((FOLDER / "adult/adult.data.gz").read_bytes()).decode().strip().split("\n")
SCHEMA = datasets.load_schema("adult")
few = settings(max_examples=25, deadline=None)
some = settings(max_examples=60, deadline=None)

# ── damage ──


@few
@given(st.sampled_from(FILES), st.data())
def test_content_that_differs_by_one_byte_is_refused(file, draw):
    """One byte changed, left out or put in, anywhere in the content of any file."""
    raw = (FOLDER / file).read_bytes()
    packed = file.endswith(".gz")
    content = gzip.decompress(raw) if packed else raw
    at = draw.draw(st.integers(0, len(content) - 1))
    new = draw.draw(st.binary(min_size=1, max_size=1).filter(lambda byte: byte != content[at : at + 1]))
    change = draw.draw(st.sampled_from(["changed", "left out", "put in"]))
    altered = content[:at] + (b"" if change == "left out" else new) + content[at + (change != "put in") :]
    assert read(file, raw) == content
    with pytest.raises(DataError, match="is not the file the book was written with"):
        read(file, gzip.compress(altered, 1) if packed else altered)


@few
@given(st.sampled_from([file for file in FILES if file.endswith(".gz") and "fashion" not in file]), st.data())
def test_an_archive_with_a_byte_changed_is_refused_or_holds_what_it_held(file, draw):
    raw = (FOLDER / file).read_bytes()
    at = draw.draw(st.integers(0, 20) | st.integers(0, len(raw) - 1))  # the header has bytes that mean nothing
    altered = raw[:at] + bytes([raw[at] ^ draw.draw(st.integers(1, 255))]) + raw[at + 1 :]
    try:
        found = read(file, altered)
    except DataError:
        return
    assert at < 10 and found == gzip.decompress(raw)


def read(file: str, raw: bytes) -> bytes:
    """What `read_data` makes of a folder in which this file holds these bytes."""
    with tempfile.TemporaryDirectory() as folder, patch.dict("os.environ", {datasets.DATA_ENV_VAR: folder}):
        path = Path(folder, file)
        path.parent.mkdir(parents=True)
        path.write_bytes(raw)
        shutil.copy(FOLDER / "manifest.json", folder)
        return datasets.read_data(file)


# ── splits ──

keys = st.lists(st.text(max_size=5), unique=True, max_size=40)


@some
@given(keys, st.integers(0, 50), st.randoms(use_true_random=False))
def test_hashed_rows_depend_on_the_keys_and_not_on_their_order(names, n, random):
    chosen = [names[row] for row in datasets.hash_split(names, n)]
    assert len(set(chosen)) == min(n, len(names))
    shuffled = random.sample(names, len(names))
    assert {shuffled[row] for row in datasets.hash_split(shuffled, n)} == set(chosen)


@some
@given(keys.filter(bool), st.integers(0, 50))
def test_hashed_rows_move_as_little_as_they_can(names, n):
    """A larger part holds the smaller one; one more row in the data takes the place of at most one."""
    chosen = {names[row] for row in datasets.hash_split(names, n)}
    assert chosen <= {names[row] for row in datasets.hash_split(names, n + 1)}
    before = {names[row] for row in datasets.hash_split(names[:-1], n)}
    assert len(before - chosen) <= 1 and chosen - before <= {names[-1]}


# ── parsers ──


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


arrays = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6))


@some
@given(arrays)
def test_an_idx_file_gives_back_its_array(array):
    found = datasets._idx(idx(array))
    assert found.shape == array.shape and (found == array).all()


@some
@given(arrays, st.data())
def test_an_idx_file_that_is_cut_off_or_too_long_is_refused(array, draw):
    raw = idx(array)
    length = draw.draw(st.integers(0, len(raw) - 1))
    for wrong in (raw[:length], raw + b"\0"):
        with pytest.raises((ValueError, IndexError)):
            datasets._idx(wrong)


@pytest.mark.slow
@some
@given(st.lists(st.sampled_from(ADULT), min_size=1, max_size=30), st.booleans())
def test_adult_keeps_every_value_of_any_rows(lines, as_in_test_file):
    stop = "." if as_in_test_file else ""
    raw = "".join(f"{line}{stop}\n" for line in ["|1x3 Cross validator"] * as_in_test_file + lines)
    with patch.object(datasets, "read_data", lambda file: raw.encode()):
        table = datasets._adult_table("adult/adult.data.gz", SCHEMA, skiprows=int(as_in_test_file))
    found = table.frame.astype(object).map(lambda value: "?" if value != value else str(value))
    assert found.to_numpy().tolist() == list(csv.reader(lines, skipinitialspace=True))


messages = st.text(st.characters(codec="utf-8", exclude_characters="\t\n"), max_size=5)


@some
@given(st.dictionaries(messages, st.sampled_from(["ham", "spam"]), min_size=1), st.data(), st.integers(0, 5))
def test_no_message_is_in_both_parts_however_often_it_was_sent(label_of, draw, tests):
    sent = list(label_of) + draw.draw(st.lists(st.sampled_from(list(label_of))))
    raw = "\n".join(f"{label_of[message]}\t{message}" for message in draw.draw(st.permutations(sent)))
    with patch.object(datasets, "read_data", lambda file: raw.encode()), patch.object(datasets, "SMS_TEST", tests):
        split = datasets.sms_spam()
    both = [*split.train.texts, *split.test.data.texts]
    assert len(split.test) == min(tests, len(label_of)) and sorted(both) == sorted(label_of)
    assert dict(zip(both, [*split.train.labels, *split.test.data.labels], strict=True)) == label_of
