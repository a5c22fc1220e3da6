"""The command line: exit codes, JSON for machines, one clear message for people."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import synthbook
from synthbook.cli.main import main
from synthbook.core.errors import SynthbookError
from synthbook.core.storage import read_provenance
from synthbook.course import doctor
from synthbook.course.claims import load_claims
from synthbook.course.doctor import CheckResult
from tests.course.conftest import Book

CLAIM = next(claim for claim in load_claims().values() if claim.tier == "exact")
CHECKS = "\n".join(
    f"claim({CLAIM.id!r}, part={part.id!r}, measured=1, expected=1, tolerance=0)" for part in CLAIM.parts
)


@pytest.fixture
def inside(book: Book, monkeypatch: pytest.MonkeyPatch) -> Book:
    monkeypatch.chdir(book.notebooks)  # a folder below the root will do
    monkeypatch.setenv("COLUMNS", "160")
    return book


@pytest.mark.slow
def test_a_run_for_people_and_for_machines(inside: Book, capsys: pytest.CaptureFixture[str]) -> None:
    inside.write("01_claims", "from synthbook.course import claim", CHECKS)
    inside.write("02_fails", "x = 1", "assert x == [2]")
    assert main(["course", "run", "--no-site"]) == 1
    out = capsys.readouterr().out
    assert "01_claims: started" in out and "02_fails: FAILED at cell 2 of 2" in out
    assert "02_fails.ipynb, cell 2 of 2" in out and "assert x == [2]" in out and "AssertionError" in out
    assert "\x1b" not in out
    assert f"1 of {len(load_claims())} claims shown, 1 hold" in out and out.endswith("2 notebooks: 1 done, 1 failed\n")

    path = inside.build / "claims.json"
    written = json.loads(path.read_text())
    assert (written["shown"], written["hold"]) == (1, 1)
    assert set(read_provenance(path).parents) == {"build/notebooks/01_claims.ipynb", "notebooks/02_fails.ipynb"}

    assert main(["course", "run", "--no-site", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [job["status"] for job in document["notebooks"]] == ["unchanged", "failed"]
    failure = document["notebooks"][1]["failure"]
    assert failure["cell"] == 2 and failure["source"] == "assert x == [2]"
    assert document["claims"]["shown"] == 1 and document["site"] is None

    assert main(["course", "run", "--no-site", "--only", "01"]) == 0
    assert capsys.readouterr().out.endswith("1 notebook: 1 unchanged\n")
    assert main(["claims"]) == 0  # nothing is committed yet
    assert f"0 of {len(load_claims())} claims shown, 0 hold" in capsys.readouterr().out


@pytest.mark.slow
def test_a_refuted_claim_fails_the_run(inside: Book, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = f"claim({CLAIM.id!r}, part={CLAIM.parts[0].id!r}, measured=2, expected=1, tolerance=0)"
    inside.write("01", "from synthbook.course import claim", wrong)
    assert main(["course", "run", "--no-site", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)["claims"]["claims"]
    assert next(row for row in rows if row["id"] == CLAIM.id)["holds"] is False


@pytest.mark.slow
def test_the_site_comes_last_and_in_spite_of_failures(
    inside: Book, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.write("01", "1 / 0")
    page = inside.build / "site" / "index.html"
    monkeypatch.setattr("synthbook.course.site.build", lambda root: page)
    assert main(["course", "run"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"The book: {page}"
    assert main(["course", "site"]) == 0
    assert capsys.readouterr().out == f"{page}\n"

    def broken(root: Path) -> Path:
        raise SynthbookError("a page has no title")

    monkeypatch.setattr("synthbook.course.site.build", broken)
    inside.write("01", "1")
    assert main(["course", "run"]) == 1
    out = capsys.readouterr().out
    assert "✗ a page has no title" in out and "1 notebook: 1 done" in out
    assert main(["course", "site", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"error": "a page has no title"}


def test_claims_of_committed_notebooks(
    inside: Book, shown: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": CLAIM.id, "part": p.id, "measured": 1, "expected": 1, "tolerance": 0} for p in CLAIM.parts]
    shown(inside, "01", rows)
    assert main(["claims", "--section", CLAIM.section]) == 0
    out = capsys.readouterr().out
    assert f"{CLAIM.id}" in out and "✓" in out and "1 of " in out and "claims shown, 1 hold" in out
    assert main(["claims", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["shown"], document["hold"], document["total"]) == (1, 1, len(load_claims()))
    shown(inside, "02", rows)
    assert main(["claims"]) == 1
    assert "is shown by 2 notebooks" in capsys.readouterr().out
    (inside.notebooks / "02.ipynb").unlink()
    shown(inside, "01", [rows[0] | {"measured": 2}, *rows[1:]])
    assert main(["claims"]) == 1
    assert "✗" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["course", "run", "--only", "9z"],
            "only = '9z' is not accepted: give the beginning of a notebook's name (01)",
        ),
        (["course", "run", "--cell-timeout", "0"], "cell-timeout = 0.0 is not accepted"),
        (["course", "run", "--cell-timeout", "inf"], "cell-timeout = inf is not accepted"),
        (["course", "run", "--cell-timeout", "nan"], "cell-timeout = nan is not accepted"),
        (["course", "run", "--update", "--profile", "full"], "give quick together with --update"),
        (["course", "run", "--jobs", "0"], "--jobs"),
        (["course", "run", "--profile", "slow"], "--profile"),
        (["claims", "--section", "99"], "section = '99' is not accepted"),
        (["claims", "--nonsense"], "--nonsense"),
        (["nonsense"], "nonsense"),
    ],
)
def test_bad_input_ends_with_2(
    arguments: list[str], message: str, inside: Book, capsys: pytest.CaptureFixture[str]
) -> None:
    inside.write("01", "1")
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err and captured.out == ""
    assert main([*arguments, "--json"]) == 2
    assert message in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize("command", [["course", "run"], ["claims"]])
def test_a_book_without_notebooks_is_bad_input(
    command: list[str], inside: Book, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    assert "give a folder that holds at least one notebook (*.ipynb)" in capsys.readouterr().err


@pytest.mark.slow
def test_the_environment_may_name_the_profile(
    inside: Book, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(
        "synthbook.course.runner.run_notebooks",
        lambda project, sources, settings, callback: asked.append(settings) or [],
    )
    inside.write("01", "1")
    monkeypatch.setenv("SYNTHBOOK_PROFILE", "full")
    main(["course", "run", "--no-site"])
    main(["course", "run", "--no-site", "--profile", "quick"])
    assert [settings.profile for settings in asked] == ["full", "quick"]
    assert main(["course", "run", "--update"]) == 2
    monkeypatch.setenv("SYNTHBOOK_PROFILE", "slow")
    assert main(["course", "run"]) == 2
    assert "SYNTHBOOK_PROFILE" in capsys.readouterr().err


def test_outside_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["course", "run"]) == 2
    assert "holds notebooks/ and pyproject.toml" in capsys.readouterr().err


def test_the_doctor_fails_only_for_what_is_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [CheckResult("a", "ok", "fine"), CheckResult("b", "warn", "hm", "do this")]
    monkeypatch.setattr(doctor, "run_checks", lambda root: findings)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "✓" in out and "!" in out and "do this" in out
    findings.append(CheckResult("c", "fail", "no", "do that"))
    assert main(["doctor", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False and [check["level"] for check in document["checks"]] == ["ok", "warn", "fail"]


def test_data_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SYNTHBOOK_DATA", str(tmp_path))
    assert main(["data", "verify"]) == 1
    assert "manifest.json" in capsys.readouterr().err
    (tmp_path / "manifest.json").write_text('{"files": {}}')
    (tmp_path / "a.csv").write_text("1")
    assert main(["data", "verify"]) == 1
    assert "a.csv" in capsys.readouterr().out
    assert main(["data", "verify", "--update"]) == 0
    assert capsys.readouterr().out == "1 of 1 data files are as the manifest says\n"
    (tmp_path / "a.csv").write_text("2")
    assert main(["data", "verify", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False and document["files"][0]["ok"] is False


@pytest.mark.slow
def test_ctrl_c_outside_of_a_notebook(
    inside: Book, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(root: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("synthbook.course.site.build", interrupted)
    assert main(["course", "site"]) == 130
    assert capsys.readouterr().err == "synthbook: interrupted\n"
    assert main(["course", "site", "--json"]) == 130
    assert json.loads(capsys.readouterr().out) == {"error": "interrupted"}
    inside.write("01", "1")
    assert main(["course", "run"]) == 130
    out = capsys.readouterr().out
    assert "interrupted: notebooks that had ended are kept" in out and out.endswith("1 notebook: 1 done\n")
    assert main(["course", "run", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["interrupted"] is True


@pytest.mark.parametrize("command", [["course", "run", "--no-site"], ["course", "site"]])
def test_a_folder_that_cannot_be_written_is_one_message(
    command: list[str], inside: Book, capsys: pytest.CaptureFixture[str]
) -> None:
    inside.write("01", "1")
    inside.build.touch()
    assert main(command) == 1
    message = f"{inside.copies}: Not a directory"
    assert capsys.readouterr().err == f"synthbook: {message}\n"
    assert main([*command, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"error": message}


@pytest.mark.slow
def test_a_full_disk_does_not_hide_what_ran(
    inside: Book, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(root: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    inside.write("01", "1")
    monkeypatch.setattr("synthbook.course.site.build", full)
    monkeypatch.setattr("synthbook.course.runner.write_with_provenance", full)
    assert main(["course", "run"]) == 1
    out = capsys.readouterr().out
    assert "✗ No space left on device" in out and out.endswith("1 notebook: 1 done\n")


@pytest.mark.slow
def test_a_reader_that_went_away_does_not_end_the_run(inside: Book) -> None:
    inside.write("01", "1")
    inside.write("02", "1")
    for arguments in (["--jobs", "1"], ["--json"]):
        runner = inside.start(*arguments)
        assert runner.stdout and runner.stderr
        runner.stdout.close()
        said = runner.stderr.read()
        assert runner.wait(timeout=300) == 0 and "Traceback" not in said and "Broken" not in said
        assert len(list(inside.copies.iterdir())) == 2 and (inside.build / "claims.json").is_file()


def test_the_site_and_the_board_survive_an_odd_notebook(
    inside: Book, shown: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": CLAIM.id, "part": p.id, "measured": 1, "expected": 1, "tolerance": 0} for p in CLAIM.parts]
    shown(inside, "01", rows)
    (inside.notebooks / "02.ipynb").mkdir()
    assert main(["claims"]) == 1
    out = capsys.readouterr().out
    assert f"1 of {len(load_claims())} claims shown, 1 hold" in out and "02.ipynb cannot be read" in out
    assert main(["claims", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["hold"] == 1 and len(document["errors"]) == 1


def test_numbers_that_are_not_finite_are_printed_as_json(
    inside: Book, shown: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    shown(inside, "01", [{"id": CLAIM.id, "part": CLAIM.parts[0].id, "measured": math.nan, "expected": 1}])
    assert main(["claims", "--json"]) == 1
    out = capsys.readouterr().out
    row = next(row for row in json.loads(out, parse_constant=pytest.fail)["claims"] if row["id"] == CLAIM.id)
    assert row["holds"] is False and row["parts"][0]["measured"] == "NaN"


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"synthbook {synthbook.__version__}\n"


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_on_a_narrow_terminal_the_title_keeps_its_place(
    columns: int,
    inside: Book,
    shown: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{"id": CLAIM.id, "part": p.id, "measured": 1, "expected": 1, "tolerance": 0} for p in CLAIM.parts]
    shown(inside, "01_a_name_of_some_length", rows)
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["claims", "--section", CLAIM.section]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(CLAIM.id))
    assert CLAIM.title[:12] in line and CLAIM.verdict in line and "✓" in line and len(line.rstrip()) <= columns
    assert ("01_a_name_of_some_length" in line) == (columns == 160)
