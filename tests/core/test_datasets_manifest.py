"""Damaged, missing and shared data folders, and the manifest itself."""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from synthbook import datasets
from synthbook.core.errors import DataError

CHECKOUT = Path(datasets.__file__).resolve().parents[1] / "data"
FILE = "adult/adult.data.gz"


def expected_hash(file: str = FILE) -> str:
    return json.loads((CHECKOUT / "manifest.json").read_text())["files"][file]["sha256"]


def flip(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :]


DAMAGE = {
    "altered content": lambda raw: gzip.compress(gzip.decompress(raw).replace(b"Private", b"private", 1)),
    "truncated": lambda raw: raw[: len(raw) // 2],
    "truncated in the checksum": lambda raw: raw[:-3],
    "flipped byte": lambda raw: flip(raw, len(raw) // 2),
    "trailing garbage": lambda raw: raw + b"garbage",
    "empty": lambda raw: b"",
    "an archive of nothing": lambda raw: gzip.compress(b""),
    "garbage": lambda raw: b"<html>404 not found</html>",
    "not compressed": gzip.decompress,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_with_both_hashes_and_the_remedy(copied, damage):
    path = copied / FILE
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(DataError) as refused:
        datasets.adult()
    message = str(refused.value)
    raw = path.read_bytes()
    readable = gzip.decompress(raw) if damage in ("altered content", "an archive of nothing") else raw
    assert str(path) in message and expected_hash() in message
    assert hashlib.sha256(readable).hexdigest() in message
    assert f"copy data/{FILE}" in message


def test_a_missing_file_is_called_missing(copied):
    (copied / FILE).unlink()
    with pytest.raises(DataError, match=f"(?s)adult.data.gz.*{expected_hash()}.*found: missing.*copy data/{FILE}"):
        datasets.adult()


def test_a_folder_in_place_of_a_file_is_refused(copied):
    (copied / FILE).unlink()
    (copied / FILE).mkdir()
    with pytest.raises(DataError, match=r"adult\.data\.gz"):
        datasets.adult()


def test_in_a_checkout_git_restores(copied, monkeypatch):
    monkeypatch.delenv(datasets.DATA_ENV_VAR)
    monkeypatch.setattr(datasets, "_checkout", lambda: copied.resolve())
    (copied / FILE).unlink()
    with pytest.raises(DataError, match=f"git checkout -- data/{FILE}"):
        datasets.adult()


def test_an_altered_schema_is_refused(copied):
    path = copied / "adult/schema.toml"
    path.write_text(path.read_text().replace("upper = 90", "upper = 80"))
    with pytest.raises(DataError, match=r"schema\.toml"):
        datasets.adult()


def test_a_repacked_archive_is_accepted(copied):
    path = copied / FILE
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1))
    assert len(datasets.adult().train) == 32_561


def test_damage_after_a_first_load_is_found_too(copied):
    datasets.adult()
    (copied / FILE).write_bytes(b"")
    with pytest.raises(DataError):
        datasets.adult()


def test_the_folder_of_the_variable_is_the_one_read(copied):
    assert datasets.data_folder() == copied
    shutil.rmtree(copied / "sms-spam")
    datasets.adult()
    with pytest.raises(DataError, match=str(copied)):
        datasets.sms_spam()


def test_without_the_variable_the_checkout_is_read():
    assert datasets.data_folder() == CHECKOUT


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv(datasets.DATA_ENV_VAR, "")
    assert datasets.data_folder() == CHECKOUT


def test_a_variable_that_points_nowhere_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv(datasets.DATA_ENV_VAR, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"SYNTHBOOK_DATA = '.*nowhere' holds no manifest.json"):
        datasets.adult()


def test_a_package_without_data_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "_checkout", lambda: tmp_path / "site-packages" / "data")
    with pytest.raises(DataError, match=r"carries code only. Clone .* SYNTHBOOK_DATA"):
        datasets.adult()


def state(folder: Path) -> dict[Path, tuple[int, int]]:
    """When each file and folder was last written to, and its size: root may write where permissions forbid it."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in (folder, *folder.rglob("*"))}


def test_a_read_only_folder_works_and_is_not_written_to(read_only):
    before = state(read_only)
    assert len(datasets.adult().train) == 32_561 and len(datasets.austen().train) == 6
    assert all(check.ok for check in datasets.verify_all(read_only) if (read_only / check.file).exists())
    assert state(read_only) == before


def test_a_write_into_the_folder_would_be_noticed_even_if_it_was_undone(copied):
    before = state(copied)
    (copied / "adult" / "cache.bin").write_bytes(b"")
    (copied / "adult" / "cache.bin").unlink()
    assert state(copied) != before


def test_the_manifest_is_parsed_once_for_a_set_of_many_files():
    datasets._parsed.cache_clear()
    datasets.real_cube()
    uses = datasets._parsed.cache_info()
    assert (uses.misses, uses.hits) == (1, 140)


def test_what_a_caller_does_to_the_manifest_stays_with_the_caller():
    entries = datasets.read_manifest(CHECKOUT)
    entries[FILE]["sha256"] = "0"
    del entries["adult/adult.names"]
    assert datasets.read_manifest(CHECKOUT)[FILE]["sha256"] == expected_hash()
    assert "adult/adult.names" in datasets.read_manifest(CHECKOUT)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"files": {"adult/adult.data.gz": {"sha256": "0"}}}', '{"files": 3}']
)
def test_a_broken_manifest_is_refused(copied, content):
    (copied / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest.json cannot be read .*restore it"):
        datasets.adult()


def test_a_file_that_the_manifest_does_not_list_is_refused(copied):
    entries = json.loads((copied / "manifest.json").read_text())
    del entries["files"][FILE]
    (copied / "manifest.json").write_text(json.dumps(entries))
    with pytest.raises(DataError, match=f"does not list {FILE}"):
        datasets.adult()


def test_the_manifest_lists_every_data_file_and_nothing_else():
    prose = {"README.md", "SOURCE.md", "LICENSE", "LICENSE.GPL-2", "manifest.json"}
    on_disk = {p.relative_to(CHECKOUT).as_posix() for p in CHECKOUT.rglob("*") if p.is_file() and p.name not in prose}
    assert set(datasets.read_manifest(CHECKOUT)) == {file for file in on_disk if "/." not in f"/{file}"}


FOLDERS = sorted(path for path in CHECKOUT.iterdir() if path.is_dir())
ATTRIBUTION = {
    "adult": ("Becker, B. and Kohavi, R.", "CC BY 4.0", "packed with gzip"),
    "austen": ("Public domain",),
    "fashion-mnist": ("Copyright (c) 2017 Zalando SE", "`LICENSE`"),
    "real-cube": ("Inria", "`LICENSE.GPL-2`", "made smaller"),
    "seed-tasks": ("Written for this book", "Apache-2.0"),
    "shuttle": ("mlbench", "`LICENSE.GPL-2`", "CC BY 4.0", "to confirm", "converted to CSV"),
    "sms-spam": ("Almeida, T. A.", "Free for all purposes", "to confirm"),
}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_folder_says_its_source_licence_changes_and_limits(folder):
    text = (folder / "SOURCE.md").read_text(encoding="utf-8")
    title, *sections = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    assert title.startswith("# ") and sections[::2] == ["Source", "Licence", "Changes", "Limits"]
    assert all(len(words.split()) > 3 for words in sections[1::2])
    for named in re.findall(r"`(LICENSE[^`]*)`", text):
        assert (folder / named).is_file(), f"{folder.name} names {named}, which is not there"
    assert {path.name for path in folder.glob("LICENSE*")} == set(re.findall(r"`(LICENSE[^`]*)`", text))


@pytest.mark.parametrize("name", ATTRIBUTION)
def test_what_a_licence_asks_for_is_carried(name):
    text = " ".join((CHECKOUT / name / "SOURCE.md").read_text(encoding="utf-8").split())
    assert [words for words in ATTRIBUTION[name] if words not in text] == []
    for licence in (CHECKOUT / name).glob("LICENSE*"):
        expected = {"LICENSE": "Copyright (c) 2017 Zalando SE", "LICENSE.GPL-2": "GNU GENERAL PUBLIC LICENSE"}
        assert expected[licence.name] in licence.read_text()
    assert {folder.name for folder in FOLDERS} - {"artifacts"} == set(ATTRIBUTION)


def test_all_files_hold():
    checks = datasets.verify_all(CHECKOUT)
    assert len(checks) > 150 and all(check.ok for check in checks)
    assert [check.file for check in checks] == sorted(check.file for check in checks)


def test_hashes_and_sizes_agree_with_the_systems_tools():
    entries = datasets.read_manifest(CHECKOUT)
    content = subprocess.run(["gzip", "-dc", CHECKOUT / FILE], capture_output=True, check=True).stdout
    listed = subprocess.run(["sha256sum", CHECKOUT / "adult/adult.names"], capture_output=True, check=True).stdout
    assert entries[FILE] == {"of": "content", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert entries["adult/adult.names"]["sha256"] == listed.split()[0].decode()
    assert entries["adult/adult.names"]["bytes"] == (CHECKOUT / "adult/adult.names").stat().st_size


def test_verify_all_finds_altered_missing_and_unlisted_files(copied):
    (copied / "adult/adult.names").write_text("altered")
    (copied / "austen/austen_six_novels.txt.gz").unlink()
    (copied / "shuttle/notes.csv").write_text("1")
    checks = {check.file: check for check in datasets.verify_all(copied)}
    assert checks["adult/adult.names"].actual == hashlib.sha256(b"altered").hexdigest()
    assert checks["austen/austen_six_novels.txt.gz"].actual == datasets.MISSING
    assert checks["shuttle/notes.csv"].expected == datasets.UNLISTED
    failing = {file for file, check in checks.items() if not check.ok}
    absent = {f for f in checks if f.startswith(("fashion-mnist/", "real-cube/frame"))}  # not copied by the fixture
    assert failing - absent == {"adult/adult.names", "austen/austen_six_novels.txt.gz", "shuttle/notes.csv"}


def test_writing_the_manifest_makes_an_altered_folder_hold(copied):
    (copied / "adult/adult.names").write_text("altered on purpose")
    datasets.write_manifest(copied)
    assert all(check.ok for check in datasets.verify_all(copied))
    assert datasets.write_manifest(copied).read_bytes() == (copied / "manifest.json").read_bytes()


def test_writing_the_manifest_reproduces_the_committed_one(tmp_path):
    for file in datasets.data_files(CHECKOUT):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).symlink_to(CHECKOUT / file)
    assert datasets.write_manifest(tmp_path).read_bytes() == (CHECKOUT / "manifest.json").read_bytes()


@pytest.mark.parametrize("length", [0, 1000])
def test_a_broken_archive_cannot_enter_the_manifest(copied, length):
    path = copied / FILE
    path.write_bytes(path.read_bytes()[:length])
    before = (copied / "manifest.json").read_bytes()
    with pytest.raises(DataError, match="cannot enter the manifest"):
        datasets.write_manifest(copied)
    assert (copied / "manifest.json").read_bytes() == before


@pytest.mark.slow
def test_loading_tables_does_not_import_torch():
    script = "import sys; from synthbook import datasets; datasets.sms_spam(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT.parent).returncode == 0
