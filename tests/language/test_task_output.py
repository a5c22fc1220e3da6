"""`synthbook generate` as people run it: stopped, resumed, refused, and short of records."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from synthbook.cli.main import main
from synthbook.core.storage import Provenance, file_lock, read_provenance, write_with_provenance
from synthbook.language import server as local_model
from synthbook.language.client import KEY, MODEL, URL
from synthbook.language.messages import ChatRequest, SamplingParams
from synthbook.language.task import output as generate_files
from synthbook.language.task import report as generate_page
from synthbook.language.task.config import load_task
from tests.conftest import require
from tests.language.generating import (
    SECRET,
    TASK,
    answers,
    command,
    contents,
    lines,
    new,
    reported,
    says,
)
from tests.language.rude import Handler, Rude, completion, refuses, serving
from tests.language.test_task import EXAMPLE, SEEDS, written


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rude]:
    with serving() as running:
        running.always = answers
        monkeypatch.setenv(URL, running.url)
        monkeypatch.setenv(MODEL, "tiny")
        monkeypatch.setenv(KEY, SECRET)
        yield running


@pytest.mark.slow
def test_a_run_leaves_records_drops_answers_ledger_and_a_page(
    server: Rude, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new(tmp_path, "reviews")
    assert main(reported(folder)) == 0
    kept, dropped = lines(folder / "data.jsonl"), lines(folder / "data.jsonl.dropped.jsonl")
    ledger = json.loads((folder / "data.jsonl.ledger.json").read_text())
    asked = len(server.bodies)
    assert (ledger["finished"], ledger["kept"], ledger["requests"], len(kept)) == (True, 12, asked, 12)
    assert len(kept) + len(dropped) == asked and ledger["tokens"] == {"prompt": 10 * asked, "answer": 5 * asked}
    assert ledger["cost"] == pytest.approx(asked * (10 * 2 + 5 * 4) / 1e6)
    assert ledger["stages"][0]["in"] == asked and ledger["questions"]["model"] == "tiny"
    said = capsys.readouterr()
    assert re.search(rf"12 of 12 kept; {asked} requests to tiny, [\d.]+% passed; .* tokens, cost 0\.00", said.out)
    assert "generating: 12 of 12 records" in said.err
    assert list(kept[0]) == ["id", "label", "text", "stars", "request", "provenance"]
    assert kept[0]["label"] == kept[0]["request"]["values"]["tone"] and kept[0]["provenance"]["model"] == "tiny"
    assert kept[0]["provenance"]["verdicts"].keys() == {"nearest seed"} and len(kept[0]["request"]["seed_lines"]) == 2
    assert [line["reason"] for line in dropped if line["stage"] == "form"] and all("answer" in line for line in dropped)
    body = server.bodies[0]
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["text", "stars"]
    assert {len(one["messages"]) for one in server.bodies} == {5} and len(
        {one["seed"] for one in server.bodies}
    ) == asked
    for name in ("data.jsonl", "data.jsonl.dropped.jsonl", "data.jsonl.answers.jsonl", "data.jsonl.ledger.json"):
        provenance = read_provenance(folder / name)
        assert (provenance.generation, provenance.synthetic_share, provenance.seed) == (1, 1.0, 0)
        assert (
            provenance.parents.keys() == {"task.toml", "seeds.jsonl", "tiny"} and provenance.parents["tiny"] == "tiny"
        )
        assert provenance.command == "synthbook generate task.toml -n 12 --seed 0 --max-requests 240"
    assert read_provenance(folder / "report.html") == provenance
    page = (folder / "report.html").read_text()
    assert page.count("<img ") == page.count(' alt="') == 2 and "reviews: 12 of 12 records" in page
    assert "Write a {tone} review." in page and "which cost 0.00" in page
    assert not any(SECRET.encode() in content for content in contents(folder).values())


@pytest.mark.slow
def test_a_second_run_asks_nothing_twice_or_is_refused(
    server: Rude, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new(tmp_path, "reviews")
    assert main(command(folder)) == 0
    whole, asked = contents(folder), len(server.bodies)
    assert main(command(folder)) == 2 and "--resume to go on with that run, or --force" in capsys.readouterr().err
    assert main(command(folder, "--resume", "--force")) == 2
    assert main(command(folder, "--resume", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["usage"]["requests"] == 0 and told["usage"]["cache_hits"] == asked and told["kept"] == 12
    assert contents(folder) == whole and len(server.bodies) == asked
    for old, now, error in (
        ("a {tone} review", "the {tone} review", "differs in prompt."),
        ('"angry"', '"cross"', "differs in values.tone."),
        ("max = 5", "max = 6", "differs in fields.stars."),
        ("per_prompt = 2", "per_prompt = 1", "differs in seeds.per_prompt."),
        ("[filters]", "[sampling]\ntop_p = 0.5\n[filters]", "differs in sampling."),
    ):
        written(folder, TASK.replace(old, now))
        assert main(command(folder, "--resume")) == 2 and error in capsys.readouterr().err
    written(folder, TASK, [*SEEDS, SEEDS[0]])
    assert main(command(folder, "--resume")) == 2 and "differs in seeds.sha256." in capsys.readouterr().err
    written(folder, TASK)
    assert main(command(folder, "--resume", "--seed", "1")) == 2 and "differs in seed." in capsys.readouterr().err
    os.environ[MODEL] = "huge"
    assert main(command(folder, "--resume")) == 2 and "differs in model." in capsys.readouterr().err
    os.environ[MODEL] = "tiny"
    assert contents(folder) == whole and len(server.bodies) == asked
    assert main(command(folder, "--resume", n=20)) == 0  # more of the same
    bodies = [json.dumps(body) for body in server.bodies]
    assert len(set(bodies)) == len(bodies) > asked
    written(folder, TASK.replace("min_length = 8", "min_length = 30"))  # another filter is no other question
    assert main(command(folder, "--resume", n=12)) == 0
    assert all(len(line["text"]) >= 30 for line in lines(folder / "data.jsonl"))
    assert len({json.dumps(body) for body in server.bodies}) == len(server.bodies)
    written(folder, TASK)
    before = len(server.bodies)
    assert main(command(folder, "--force")) == 0 and len(server.bodies) == before + asked
    assert contents(folder) == whole


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(server: Rude, tmp_path: Path) -> None:
    quiet, killed = new(tmp_path, "quiet"), tmp_path / "killed" / "quiet"
    assert main(reported(quiet, n=24)) == 0
    killed.mkdir(parents=True)
    written(killed, TASK)
    asked, server.bodies[:] = len(server.bodies), []
    started: list[subprocess.Popen[bytes]] = []

    def kills(handler: Handler, body: dict[str, Any]) -> None:
        os.kill(started[-1].pid, signal.SIGKILL)
        handler.close_connection = True

    seen, kept = 0, set[int]()
    for moment in (1, 9, 14):  # answers before it: none, some, some after a resumption
        server.script.extend([answers] * (moment - 1) + [kills])
        started.append(start(reported(killed, "--resume", "--concurrency", "3", n=24)))
        assert started[-1].wait(60) == -signal.SIGKILL
        server.script.clear()
        assert not {body["seed"] for body in server.bodies[seen:]} & kept
        seen, kept = len(server.bodies), known(killed / "data.jsonl.answers.jsonl")
        assert not (killed / "data.jsonl").exists()
    assert len(kept) > 15
    assert main(reported(killed, "--resume", n=24)) == 0
    assert not {body["seed"] for body in server.bodies[seen:]} & kept
    assert contents(killed) == contents(quiet)
    assert asked <= len(server.bodies) <= asked + 3 * 3  # what was out when it was killed


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "synthbook.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def known(path: Path) -> set[int]:
    """The seeds of the answers in a cache."""
    whole = path.read_bytes().rpartition(b"\n")[0].splitlines() if path.exists() else []
    numbers = [line["index"] for line in map(json.loads, whole) if "index" in line]
    return {ChatRequest((), SamplingParams(seed=0), number).seed for number in numbers}


@pytest.mark.slow
def test_a_run_that_is_stopped_while_it_writes_goes_on(
    server: Rude, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        generate_page, "report_page", lambda task, result, model: f"{result.yield_rate}\n"
    )  # figures take a while
    quiet = new(tmp_path, "quiet")
    assert main(reported(quiet)) == 0
    for moment in range(1, 7):  # ledger, data, drops, answers, page, ledger
        stopped = tmp_path / str(moment) / "quiet"
        stopped.mkdir(parents=True)
        written(stopped, TASK)
        writes = iter(range(1, 100))

        def interrupted(
            path: Path, content: Any, provenance: Provenance, writes: Any = writes, now: int = moment
        ) -> Path:
            if next(writes) == now:
                raise KeyboardInterrupt
            return write_with_provenance(path, content, provenance)

        with monkeypatch.context() as patched:
            patched.setattr(generate_files, "write_with_provenance", interrupted)
            assert main(reported(stopped)) == 130
        said = capsys.readouterr().err
        assert "interrupted" in said and ("and --resume" in said) is (moment > 1)
        assert moment == 1 or main(reported(stopped)) == 2
        assert main(reported(stopped, "--resume")) == 0
        assert contents(stopped) == contents(quiet)


@pytest.mark.slow
def test_a_server_that_refuses_ends_the_run_and_what_it_gave_stays(
    server: Rude, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new(tmp_path, "reviews")
    server.script.extend([answers] * 5 + [refuses(402, f"no credit left for {SECRET}")])
    assert main(command(folder, "--concurrency", "1")) == 1
    said = capsys.readouterr().err
    assert "no credit left" in said and "and --resume" in said and SECRET not in said
    assert not (folder / "data.jsonl").exists() and len(known(folder / "data.jsonl.answers.jsonl")) >= 5
    before, kept = len(server.bodies), known(folder / "data.jsonl.answers.jsonl")
    assert main(command(folder, "--resume")) == 0 and not kept & {body["seed"] for body in server.bodies[before:]}


@pytest.mark.slow
def test_fewer_than_wanted_are_written_and_the_exit_code_says_so(
    server: Rude, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, script = new(tmp_path, "reviews"), [completion("I cannot answer that.")] * 200

    def mostly(handler: Handler, body: dict[str, Any]) -> None:
        handler.reply(script.pop() if len(server.bodies) > 4 else completion(says(body["seed"])))

    server.always = mostly
    assert main(reported(folder)) == 1
    said, kept = capsys.readouterr(), lines(folder / "data.jsonl")
    assert 0 < len(kept) < 12 and f"{len(kept)} of 12 kept" in said.out
    assert "fewer than 12: of the last" in said.err and "at 'form'" in said.err
    ledger = json.loads((folder / "data.jsonl.ledger.json").read_text())
    assert (
        ledger["finished"]
        and ledger["kept"] == len(kept)
        and ledger["stop_reason"]
        and ledger["requests"] == len(server.bodies)
    )
    assert "It ended before there were enough" in (folder / "report.html").read_text()
    assert main(command(folder, "--resume", "--json")) == 1
    assert json.loads(capsys.readouterr().out)["stop_reason"]
    script[:] = [completion("no") for _ in range(500)]
    empty = new(tmp_path, "empty")
    server.bodies.extend([{"messages": [{"content": ""}], "seed": -1}] * 5)
    assert main(reported(empty)) == 1 and lines(empty / "data.jsonl") == []
    assert "Nothing." in (empty / "report.html").read_text()


REFUSED: list[tuple[list[str], str, str]] = [
    (["--out", "data.csv"], TASK, "ends in .jsonl"),
    (["--report", "page.pdf"], TASK, "ends in .html"),
    (["--max-requests", "3"], TASK, "max-requests = 3"),
    (["-n", "0"], TASK, "n"),
    (["--concurrency", "0"], TASK, "concurrency"),
    (["--timeout", "0"], TASK, "more than 0 seconds"),
    ([], TASK.replace('balance = "tone"', 'balance = "tone"\nat_most = 2'), "n = 12 is not accepted: give at most 4"),
    ([], TASK.replace("prompt", "promt"), "'promt'"),
    ([], TASK.replace("{tone}", "{tune}"), "{tune}"),
    ([], TASK.replace("seeds.jsonl", "seed.jsonl"), "seeds.file"),
    ([], TASK + 'key = "sk-hidden"', KEY),
    ([], TASK + 'url = "http://127.0.0.1:9/v1"', "the same as in"),
    ([], TASK + 'name = "huge"', "the same as in"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("more", "toml", "says"), REFUSED, ids=[says for _, _, says in REFUSED])
def test_what_is_wrong_is_said_before_anything_is_asked(
    more: list[str], toml: str, says: str, server: Rude, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new(tmp_path, "reviews", toml)
    before = contents(folder)
    assert main([*command(folder), *more]) == 2
    said = capsys.readouterr().err
    assert says in said and "sk-hidden" not in said and not server.bodies and contents(folder) == before


def test_the_local_model_is_not_started_for_a_task_with_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(URL, raising=False)
    monkeypatch.setenv(local_model.VARIABLE, str(tmp_path / "nowhere"))
    folder = new(tmp_path, "reviews", TASK.replace("tone}", "tune}"))
    assert main(command(folder)) == 2 and "{tune}" in capsys.readouterr().err
    written(folder, TASK)
    assert main(command(folder)) == 1 and "synthbook models fetch smollm2" in capsys.readouterr().err
    assert main(command(folder, "--dry-run")) == 0
    assert not (folder / "data.jsonl.ledger.json").exists()


@pytest.mark.slow
def test_files_of_others_are_left_alone(server: Rude, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = new(tmp_path, "reviews")
    seeds = (folder / "seeds.jsonl").read_bytes()
    own = ["generate", str(folder / "task.toml"), "-n", "2", "--out", str(folder / "seeds.jsonl")]
    for how in ([], ["--force"], ["--resume"]):
        assert main([*own, *how]) == 2 and "a part of the task" in capsys.readouterr().err
    (folder / "data.jsonl").write_text("precious\n")
    assert main(command(folder)) == 2 and main(command(folder, "--resume")) == 2
    assert "is missing, so it is not one" in capsys.readouterr().err
    (folder / "data.jsonl.ledger.json").write_text("[]")
    assert main(command(folder, "--resume")) == 1 and "is no ledger of a run" in capsys.readouterr().err
    with file_lock(folder / ".data.jsonl.lock", "busy"):
        assert main(command(folder, "--force")) == 1 and "is being written" in capsys.readouterr().err
    assert (folder / "data.jsonl").read_text() == "precious\n" and not server.bodies
    assert (folder / "seeds.jsonl").read_bytes() == seeds


def test_a_dry_run_shows_what_would_be_sent_and_asks_nothing(
    server: Rude, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new(tmp_path, "reviews", TASK.replace('"glad"', '"\\u001b[31mglad"'))
    assert main(["generate", str(folder / "task.toml"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "user: Write a \\x1b[31mglad review." in shown and '"maximum": 5' in shown
    assert main(["generate", str(folder / "task.toml"), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    sent = [
        [message.__dict__ for message in load_task(folder / "task.toml").question(i, seed=0).request.messages]
        for i in (0, 1)
    ]
    assert told["prompts"] == sent and told["sampling"]["schema"]["required"] == ["text", "stars"]
    assert not server.bodies and contents(folder).keys() == {"task.toml", "seeds.jsonl"}
    assert main(["generate", str(folder / "task.toml")]) == 2 and "--dry-run" in capsys.readouterr().err


@pytest.mark.slow
def test_seeds_that_a_model_wrote_make_data_one_generation_further(server: Rude, tmp_path: Path) -> None:
    first, second = new(tmp_path, "first"), new(tmp_path, "second", TASK.replace("seeds.jsonl", "../first/data.jsonl"))
    assert main(command(first)) == 0
    rows = [{**line, "tone": line["label"]} for line in lines(first / "data.jsonl")]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_with_provenance(second / "made.jsonl", text, read_provenance(first / "data.jsonl"))
    written(second, TASK.replace("seeds.jsonl", "made.jsonl"))
    assert main(command(second, n=4)) == 0
    assert read_provenance(second / "data.jsonl").generation == 2
    (second / "made.jsonl").write_text(text * 2)
    asked = len(server.bodies)
    assert main(command(second, "--force", n=4)) == 1 and len(server.bodies) == asked
    assert (second / "data.jsonl").exists()


# ── live ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_example_runs_with_the_small_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require(local_model.model_file(), "no SmolLM2: synthbook models fetch smollm2")
    for variable in (URL, MODEL, KEY):
        monkeypatch.delenv(variable, raising=False)
    toml = EXAMPLE.read_text(encoding="utf-8").replace("per_prompt = 3", "per_prompt = 1")  # a third of the minute
    written(tmp_path, toml, (EXAMPLE.parent / "seeds.jsonl").read_text(encoding="utf-8"))
    out = tmp_path / "data.jsonl"
    assert main(["generate", str(tmp_path / "task.toml"), "-n", "1", "--out", str(out), "--concurrency", "1"]) == 0
    (line,) = lines(out)
    assert 25 <= len(line["text"]) <= 240 and 1 <= line["stars"] <= 5
    assert read_provenance(out).parents[local_model.NAME] == local_model.SHA256
