"""A copy of the data that a test may damage."""

import os
import shutil
from pathlib import Path

import pytest

from synthbook import datasets

CHECKOUT = Path(datasets.__file__).resolve().parents[1] / "data"


@pytest.fixture(autouse=True)
def _checkout_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(datasets.DATA_ENV_VAR, raising=False)


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A writable copy of the small sets (hard links would let a test damage the original), named by SYNTHBOOK_DATA."""
    folder = tmp_path / "data"
    shutil.copytree(CHECKOUT, folder, ignore=shutil.ignore_patterns("fashion-mnist", "frame*.jpg"))
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (0, 0))  # whatever is written from now on is newer
    monkeypatch.setenv(datasets.DATA_ENV_VAR, str(folder))
    return folder


@pytest.fixture
def read_only(copied: Path) -> Path:
    """The copy with every write permission taken away, as a classroom's shared folder has it."""
    for path in [copied, *copied.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield copied
    for path in [copied, *copied.rglob("*")]:
        path.chmod(0o755)
