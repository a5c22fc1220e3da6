"""synthbook verify, as people run it: files with holes, a run that is stopped, a report with nasty text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synthbook.cli.main import main
from synthbook.core.storage import read_provenance
from synthbook.language.filters import verdicts

PROGRAMS = [
    {"id": "right", "function": "add", "code": "def add(a, b): return a + b"},
    {"id": "wrong", "function": "add", "code": "def add(a, b): return a - b"},
    {"id": 3, "function": "add", "code": "def add(a, b): raise ValueError('<script>alert(1)</script>')"},
    {"id": "slow", "function": "add", "code": "def add(a, b):\n    while True: pass"},
    {"id": "thief", "function": "add", "code": "def add(a, b): return open('/etc/passwd').read()"},
    {"id": "float", "function": "half", "code": "def half(x): return x / 2 + 1e-12"},
    {"id": "pair", "function": "both", "code": "def both(x): return x, x"},
    {"id": "list", "function": "both", "code": "def both(x): return [x, x]"},
]
CASES = [
    {"function": "add", "args": [1, 2], "expected": 3},
    {"function": "add", "args": [0, 0], "expected": 0},
    {"function": "half", "args": [1], "expected": 0.5, "rel_tol": 1e-9},
    {"function": "both", "args": [1], "expected": {"$": "tuple", "v": [1, 1]}},
]
REASONS = ["passed", "wrong", "error", "timeout", "denied", "passed", "passed", "wrong"]


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    records, cases = lines(tmp_path / "records.jsonl", PROGRAMS), lines(tmp_path / "cases.jsonl", CASES)
    out = tmp_path / "verdicts.jsonl"
    return ["verify", str(records), "--cases", str(cases), "--out", str(out), "--timeout", "0.5", "--allow-weak"]


@pytest.mark.slow
def test_verdicts_come_in_the_order_of_the_records(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, out = tmp_path / "report.html", tmp_path / "verdicts.jsonl"
    assert main([*command, "--report", str(report)]) == 0
    assert "8 programs: passed 3, wrong 2" in capsys.readouterr().out
    told = [json.loads(line) for line in out.read_text().splitlines()]
    assert [list(line) for line in told] == [["id", "passed", "reason", "isolation", "seconds", "peak_mib"]] * 8
    assert [line["id"] for line in told] == [program["id"] for program in PROGRAMS]
    assert [line["reason"] for line in told] == REASONS
    assert all(line["passed"] is (line["reason"] == "passed") for line in told)
    assert read_provenance(out).command.startswith("synthbook verify records.jsonl --cases cases.jsonl")
    shown = report.read_text()
    assert "3 of 8 programs passed" in shown and "&lt;script&gt;" in shown and "<script>" not in shown
    assert not list(tmp_path.glob("*.partial"))
    assert main(command) == 2 and "--force" in capsys.readouterr().err
    assert main([*command, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reasons"] == {
        "passed": 3,
        "wrong": 2,
        "error": 1,
        "timeout": 1,
        "denied": 1,
    }


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    out, partial = tmp_path / "verdicts.jsonl", tmp_path / "verdicts.jsonl.partial"
    whole = [json.loads(line)["reason"] for line in out.read_text().splitlines()]
    out.unlink()
    execute, made = verdicts.execute, []

    def counted(programs: Any, *rest: Any) -> Any:
        for verdict in execute(programs, *rest):
            made.append(verdict.id)
            yield verdict

    def stopped(programs: Any, *rest: Any) -> Any:
        for k, verdict in enumerate(execute(programs, *rest)):
            if k == 3:
                raise KeyboardInterrupt
            yield verdict

    monkeypatch.setattr(verdicts, "execute", stopped)
    assert main(command) == 130 and not out.exists() and len(partial.read_text().splitlines()) == 4
    monkeypatch.setattr(verdicts, "execute", counted)
    partial.write_text(partial.read_text() + '{"id": "slow", "pas')
    assert main(command) == 2 and "--resume to go on" in capsys.readouterr().err
    assert main([*command, "--resume", "--timeout", "0.9"]) == 2 and "other files or limits" in capsys.readouterr().err
    assert main([*command, "--resume", "--report", str(tmp_path / "report.html")]) == 0
    assert "&lt;script&gt;" in (tmp_path / "report.html").read_text()  # a failure of the first sitting
    assert [json.loads(line)["reason"] for line in out.read_text().splitlines()] == whole
    assert made == [program["id"] for program in PROGRAMS[3:]]


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_a_run_that_was_stopped_before_its_first_verdict_begins_again(
    more: list[str], command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> Any:
        raise KeyboardInterrupt

    execute = verdicts.execute
    monkeypatch.setattr(verdicts, "execute", stopped)
    assert main(command) == 130 and (tmp_path / "verdicts.jsonl.partial").exists()
    monkeypatch.setattr(verdicts, "execute", execute)
    assert main([*command, *more]) == 0
    told = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in told] == REASONS and not list(tmp_path.glob("*.partial"))


HOLES = [
    ("records", "{not json}\n", "line 1: not JSON"),
    ("records", "[1]\n", "line 1: a list"),
    ("records", "\n\n", "holds no program"),
    ("records", json.dumps({"id": "a", "code": "x"}) + "\n", "id, function and code are expected"),
    ("records", json.dumps({"id": None, "function": "add", "code": ""}) + "\n", "id = None"),
    ("records", json.dumps({"id": "a", "function": "add", "code": 3}) + "\n", "function and code are text"),
    ("records", json.dumps({"id": "a", "function": "mul", "code": "x"}) + "\n", "no case for the function 'mul'"),
    ("cases", "", "holds no case"),
    ("cases", json.dumps({"function": "add", "args": 3, "expected": 1}) + "\n", "args a list"),
    ("cases", json.dumps({"function": "add", "args": []}) + "\n", "function, args and expected are needed"),
    ("cases", json.dumps({"function": "add", "args": [], "expected": 1, "tol": 1}) + "\n", "rel_tol is allowed"),
    ("cases", json.dumps({"function": "a", "args": [], "expected": 1, "rel_tol": 2}) + "\n", "rel_tol = 2"),
    ("cases", json.dumps({"function": "a", "args": [], "expected": {"$": "eval", "v": "1"}}) + "\n", "a tag"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("which", "content", "says"), HOLES, ids=[says for _, _, says in HOLES])
def test_holes_are_named_before_anything_runs(
    which: str, content: str, says: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"{which}.jsonl").write_text(content)
    assert main(command) == 1
    assert says in capsys.readouterr().err and not (tmp_path / "verdicts.jsonl").exists()
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--timeout", "0"], "timeout = 0.0"),
        (["--memory", "1"], "at least 64 MiB"),
        (["--cases", "nowhere.jsonl"], "a file that exists"),
        (["--report", "report.txt"], "ends in .html"),
        (["--jobs", "0"], "jobs"),
    ],
)
def test_bad_options_are_refused(
    arguments: list[str], says: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_report_says_when_nothing_was_confined() -> None:
    failure = {"id": "a", "function": "f", "reason": "wrong", "seconds": 0.1, "words": "0"}
    shown = verdicts.page(verdicts.Summary(1, {"wrong": 1}, "limits-only", [failure]), "Programs")
    assert "NOT confined" in shown and "0 of 1 programs passed" in shown
