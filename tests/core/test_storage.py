"""Files are whole or absent, and their sidecars tell the truth about them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synthbook.core import storage
from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.storage import (
    Provenance,
    atomic_write,
    read_provenance,
    sha256,
    sha256_file,
    sidecar_path,
    write_with_provenance,
)

ROOT = Path(storage.__file__).parents[2]


def test_text_and_bytes_are_written_as_given(tmp_path):
    assert atomic_write(tmp_path / "deep" / "a.txt", "ε\n").read_bytes() == "ε\n".encode()
    assert atomic_write(tmp_path / "b.bin", b"\r\n\x00").read_bytes() == b"\r\n\x00"
    assert (tmp_path / "b.bin").stat().st_mode & 0o777 == 0o644


def test_known_hash(tmp_path):
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # "abc", FIPS 180-2
    assert sha256(b"abc") == sha256_file(atomic_write(tmp_path / "abc", "abc")) == expected


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_scrap(tmp_path, monkeypatch, step):
    path = atomic_write(tmp_path / "a.txt", "old")

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="no space left"):
        atomic_write(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_the_old_file_and_no_scrap(tmp_path, monkeypatch):
    path = atomic_write(tmp_path / "a.txt", "old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path, size = tmp_path / "a.txt", 2_000_000
    script = (
        "import sys; from synthbook.core.storage import atomic_write\n"
        "while True:\n"
        f"    for letter in 'ab': atomic_write({str(path)!r}, letter * {size})\n"
    )
    for delay in (0.0, 0.003, 0.007, 0.02):
        writer = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        content = path.read_text()
        assert content in ("a" * size, "b" * size)
        path.unlink()


GIVEN = Provenance(
    source="adult",
    command="synthbook x",
    parents={"a": "0" * 64},
    generation=2,
    synthetic_share=0.5,
    seed=7,
    licence="CC BY 4.0",
)


def test_a_sidecar_gives_back_what_was_said(tmp_path):
    path = write_with_provenance(tmp_path / "table.csv", "1,2\n", GIVEN)
    assert path.read_text() == "1,2\n" and read_provenance(path) == GIVEN
    assert sidecar_path(path) == tmp_path / "table.csv.provenance.json"
    assert json.loads(sidecar_path(path).read_text())["sha256"] == sha256(b"1,2\n")


def test_a_file_changed_after_it_was_described_is_found_out(tmp_path):
    path = write_with_provenance(tmp_path / "table.csv", "1,2\n", GIVEN)
    path.write_text("1,3\n")
    with pytest.raises(DataError, match="changed after it was described") as refused:
        read_provenance(path)
    assert sha256(b"1,2\n") in str(refused.value) and sha256(b"1,3\n") in str(refused.value)


def test_a_file_without_sidecar_is_refused(tmp_path):
    path = atomic_write(tmp_path / "table.csv", "1")
    with pytest.raises(DataError, match=r"has no sidecar table.csv.provenance.json"):
        read_provenance(path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "3", '{"sha256": "0", "file": "f", "synthbook": "1", "colour": "red"}']
)
def test_a_sidecar_that_is_none_is_refused(tmp_path, content):
    path = write_with_provenance(tmp_path / "table.csv", "1", GIVEN)
    sidecar_path(path).write_text(content)
    with pytest.raises(DataError, match="is not a sidecar"):
        read_provenance(path)


def test_a_sidecar_whose_file_is_gone_is_refused(tmp_path):
    path = write_with_provenance(tmp_path / "table.csv", "1", GIVEN)
    path.unlink()
    with pytest.raises(DataError, match=r"table.csv.* cannot be read"):
        read_provenance(path)


@pytest.mark.parametrize("wrong", [{"generation": -1}, {"synthetic_share": 1.01}, {"synthetic_share": float("nan")}])
def test_impossible_origins_are_refused(wrong):
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        Provenance(source="s", command="c", **wrong)
