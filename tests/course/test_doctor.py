"""The doctor: each check against a machine that lacks what it looks for."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from synthbook.course import doctor
from synthbook.course.doctor import GIB, CheckResult
from synthbook.language import server
from tests.conftest import require


def test_a_crash_in_compiled_code_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    crash = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **kwargs: real(crash, **kwargs))
    finding = doctor._in_child("PyBullet", None)
    assert finding.level == "fail" and "exit code -11" in finding.detail


def test_an_exception_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(root: Path | None) -> CheckResult:
        raise RuntimeError("boom")

    monkeypatch.setitem(doctor.CHECKS, "disk", broken)
    finding = doctor.run_check("disk", None)
    assert (finding.level, finding.detail) == ("fail", "RuntimeError: boom") and finding.hint


@pytest.mark.slow
@pytest.mark.parametrize("name", doctor.SUBPROCESS_CHECKS)
def test_compiled_libraries_work_here(name: str) -> None:
    require(find_spec(name.lower()), f"{name} is not installed")
    finding = doctor._in_child(name, None)
    assert finding.level == "ok", finding


def test_a_renderer_that_draws_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    require(find_spec("pybullet"), "PyBullet is not installed")
    empty = (64, 64, [7] * (64 * 64 * 4))
    monkeypatch.setattr("pybullet.getCameraImage", lambda *arguments, **options: empty)
    assert doctor.check_pybullet(None).level == "fail"


@pytest.mark.parametrize(("found", "level"), [("3.11.9", "ok"), ("3.12.1", "warn"), ("3.110.1", "warn")])
def test_python(found: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: found)
    assert doctor.check_python(None).level == level


def test_versions_that_drifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_missing_requirements", list)
    pins = f"# a comment\nnumpy=={version('numpy')}\nscipy==0.0.1  # why\nnot-installed-at-all==1.0\n"
    (tmp_path / "constraints.txt").write_text(pins)
    finding = doctor.check_packages(tmp_path)
    assert finding.level == "warn" and "pinned 0.0.1" in finding.detail and "numpy" not in finding.detail
    (tmp_path / "constraints.txt").write_text(f"numpy=={version('numpy')}+cpu\n")
    assert doctor.check_packages(tmp_path).level == "ok"
    monkeypatch.setattr(doctor, "_missing_requirements", lambda: ["torch"])
    assert doctor.check_packages(tmp_path).level == "fail"


def test_missing_requirements_are_those_of_the_course(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["numpy>=2", "absent-one", "absent-two; extra == 'course'", "absent-three; extra == 'dev'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: lines)
    assert doctor._missing_requirements() == ["absent-one", "absent-two"]


def test_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_container_room", list)
    for free, level in ((1.9, "warn"), (2.1, "ok")):
        monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=int(free * GIB)))
        assert doctor.check_memory(None).level == level
    monkeypatch.setattr(doctor, "_container_room", lambda: [GIB])
    assert doctor.check_memory(None).detail.startswith("1.0 GiB free, less than 2")


def test_little_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=int(0.9 * GIB)))
    finding = doctor.check_disk(tmp_path)
    assert (finding.level, finding.detail) == ("warn", "0.9 GiB free, less than 1 GiB") and finding.hint
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=int(1.1 * GIB)))
    assert doctor.check_disk(tmp_path).level == "ok"


def test_data_that_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from synthbook.datasets import write_manifest

    monkeypatch.setenv("SYNTHBOOK_DATA", str(tmp_path))
    assert doctor.check_data(None).level == "fail"
    (tmp_path / "a.csv").write_text("1")
    write_manifest(tmp_path)
    assert doctor.check_data(None).level == "ok"
    (tmp_path / "a.csv").write_text("2")
    finding = doctor.check_data(None)
    assert finding.level == "fail" and "a.csv" in finding.detail
    assert f"copy data/a.csv of a checkout of synthbook to {tmp_path / 'a.csv'}" in finding.hint  # no checkout here
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / "b.csv").touch()
    assert "remove b.csv" in doctor.check_data(None).hint


def test_the_local_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNTHBOOK_MODELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "synthbook" / "models"
    absent = doctor.check_model(None)
    assert absent.level == "warn" and "optional, used by section 4" in absent.hint and str(folder) in absent.hint
    assert "synthbook models fetch smollm2" in absent.hint and "SYNTHBOOK_MODELS" in absent.hint
    folder.mkdir(parents=True)
    (folder / server.FILE).touch()
    assert doctor.check_model(None).level == "ok"
    monkeypatch.setenv("SYNTHBOOK_MODELS", str(tmp_path))
    assert doctor.check_model(None).level == "warn"


def test_landlock_is_information_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer, level in ((3, "ok"), (-1, "warn")):
        library: Any = SimpleNamespace(syscall=lambda *arguments, answer=answer: answer)
        monkeypatch.setattr("ctypes.CDLL", lambda *arguments, library=library, **options: library)
        assert doctor.check_landlock(None).level == level
