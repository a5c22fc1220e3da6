"""synthbook generate, as people run it: stopped, resumed, refused, short of records, and told nasty things."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from synthbook.cli.main import main
from synthbook.core.errors import InvalidArgument
from synthbook.core.storage import Provenance, file_lock, read_provenance, write_with_provenance
from synthbook.language import server as local_model
from synthbook.language.client import KEY, MODEL, URL
from synthbook.language.filters.dedup import NearDuplicateIndex, jaccard, shingles
from synthbook.language.messages import ChatRequest, ChatResponse, SamplingParams, scripted_model
from synthbook.language.records import read_jsonl
from synthbook.language.task import output as generate_files
from synthbook.language.task import report as generate_page
from synthbook.language.task import runner as engine
from synthbook.language.task.config import TaskConfig, load_task
from synthbook.language.task.runner import GenerationResult
from tests.conftest import require
from tests.language.rude import Handler, Rude, completion, refuses, serving
from tests.language.test_task import EXAMPLE, FIELDS, FILE, NASTY, PROMPT, SEEDS, TONES, WHOLE, read, written
from tests.mutation import mutant

FILTERS = """[filters]
min_length = 8
max_length = 39
near_duplicates = 0.6
copies_of_seeds = 0.5
label = "tone"
balance = "tone"
"""
TASK = WHOLE + FILTERS + "[model]\nprices = {input = 2, output = 4}\n"
WORDS = ("tall", "red", "old", "soft", "loud", "quick", "warm", "dear", "odd", "plain")
SECRET = "sk-never-to-be-written"


def says(seed: int) -> str:
    """What the model answers: mostly of the form, at times a copy, cut off, too short, or no JSON."""
    rng = np.random.default_rng(seed)
    kind, text = rng.random(), " ".join(rng.choice(WORDS, 6, replace=False))
    if kind < 0.1:
        return "Certainly! Here is your review."
    if kind < 0.2:
        text = str(SEEDS[int(rng.integers(6))]["text"])
    elif kind < 0.3:
        text = "no"
    return json.dumps({"text": text, "stars": int(rng.integers(1, 7 if kind < 0.35 else 6))})


def answers(handler: Handler, body: dict[str, Any]) -> None:
    handler.reply(completion(says(body["seed"])))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rude]:
    with serving() as running:
        running.always = answers
        monkeypatch.setenv(URL, running.url)
        monkeypatch.setenv(MODEL, "tiny")
        monkeypatch.setenv(KEY, SECRET)
        yield running


def command(folder: Path, *more: str, n: int = 12) -> list[str]:
    return ["generate", str(folder / "task.toml"), "-n", str(n), "--out", str(folder / "data.jsonl"), *more]


def reported(folder: Path, *more: str, n: int = 12) -> list[str]:
    return command(folder, "--report", str(folder / "report.html"), *more, n=n)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def lines(path: Path) -> list[dict[str, Any]]:
    return [line for _, line in read_jsonl(path)]


def new(tmp_path: Path, name: str, toml: str = TASK) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    written(folder, toml)
    return folder


# ── the engine ───────────────────────────────────────────────────────────────────────────────────────────────────────


def result(
    some: TaskConfig,
    n: int,
    answer: Callable[[ChatRequest], str] | None = None,
    module: ModuleType = engine,
    **how: Any,
) -> GenerationResult:
    return module.generate(some, scripted_model(answer or (lambda request: says(request.seed))), n, **how)  # type: ignore[no-any-return]


def test_as_many_are_kept_as_were_wanted_and_all_others_have_a_reason(tmp_path: Path) -> None:
    some, told = read(tmp_path, TASK), list[tuple[int, int]]()
    found = result(some, 40, callback=lambda kept, n: told.append((kept, n)))
    assert len(found.kept) == 40 and not found.stop_reason and told == [(k, 40) for k in range(41)]
    assert len(found.answers) == len(found.passed) == len(found.kept) + len(found.dropped)
    assert found.ledger[0].n_in == len(found.answers) and sum(found.passed) - 40 < 8  # little is asked in vain
    for before, after in zip(found.ledger, found.ledger[1:], strict=False):
        assert before.n_out == after.n_in and before.n_in == before.n_out + sum(before.reasons.values())
    assert sum(found.passed) == found.ledger[-1].n_in and {d.stage for d in found.dropped} >= {
        "form",
        "length",
        "balance",
    }
    ids = [record.id for record in found.kept]
    assert ids == sorted(ids) and not set(ids) & {drop.record.id for drop in found.dropped}
    assert Counter(record.label for record in found.kept) == {"glad": 20, "angry": 20}
    assert found.tokens == (0, 0) and found.cost((1, 1)) == 0


def test_what_is_kept_does_not_depend_on_how_many_are_wanted(tmp_path: Path) -> None:
    some = read(tmp_path, TASK.replace('balance = "tone"', ""))
    few, many = result(some, 10), result(some, 60)
    assert [record.content_hash for record in few.kept] == [record.content_hash for record in many.kept[:10]]
    assert [record.content_hash for record in result(some, 10, seed=1).kept] != [
        record.content_hash for record in few.kept
    ]


def answered(texts: list[str], some: TaskConfig, module: ModuleType = engine) -> list[tuple[str, str]]:
    """The stage at which each of these answers is dropped, and why; "" where it is kept. A last good one ends it."""
    told = [*texts, json.dumps({"text": "the last one is well and good", "stars": 1})]
    model = scripted_model(lambda request: told[min(request.index, len(texts))])
    found = module.generate(some, model, len(told), max_requests=len(told))
    drops = {int(drop.record.id): (drop.stage, drop.reason) for drop in found.dropped}
    return [drops.get(k, ("", "")) for k in range(len(texts))]


GOOD = json.dumps({"text": "a quick red fox and an old one", "stars": 3})
DROPPED = {
    GOOD: "",
    "no JSON": "form",
    " \n": "form",
    json.dumps({"text": "five and a half of six", "stars": 5.5}): "form",
    json.dumps({"text": "one more than was asked for", "stars": 5, "why": "so"}): "form",
    json.dumps({"text": "x" * 41, "stars": 5}): "form",
    json.dumps({"text": "short", "stars": 5}): "length",
    json.dumps({"text": "y" * 40, "stars": 5}): "length",
    json.dumps({"text": "So, A REAL TEXT 3", "stars": 5}): "no copy of a seed",
    json.dumps({"text": "a quick red fox and an old one!", "stars": 4}): "near duplicates",
    json.dumps({"text": "another that nobody said before", "stars": 4}): "",
}
UNBALANCED = TASK.replace('balance = "tone"', "")


def test_each_filter_drops_what_it_is_for(tmp_path: Path) -> None:
    found = answered(list(DROPPED), read(tmp_path, UNBALANCED))
    assert [stage for stage, _ in found] == list(DROPPED.values())
    assert found[2] == ("form", "empty") and found[4][1] == "a key that was not asked for"
    one = PROMPT + '[values]\ntone = ["glad"]\n' + FIELDS + FILE
    assert answered([GOOD, GOOD], read(tmp_path, one))[1] == ("exact duplicates", "exact duplicate")
    assert answered([GOOD, GOOD], read(tmp_path, one + "[filters]\nat_most = 1\nlabel = 'stars'"))[1][0] != ""
    assert answered([GOOD, GOOD, GOOD], read(tmp_path, WHOLE + "[filters]\nbalance = 'stars'\nat_most = 3"))[2][0] != ""


BROKEN = [
    ("if form is not None and not wrong:", "if False:"),
    ("if filters.min_length is not None or filters.max_length is not None:", "if False:"),
    ("length > high else None", "length > high + 1 else None"),
    ("if filters.copies_of_seeds is not None and task.examples is not None:", "if False:"),
    ("threshold=filters.copies_of_seeds\n", "threshold=1.0\n"),
    ("if filters.near_duplicates is not None:", "if False:"),
]


@pytest.mark.parametrize(("old", "new"), BROKEN, ids=[old for old, _ in BROKEN])
def test_an_engine_that_forgets_a_filter_is_caught(old: str, new: str, tmp_path: Path) -> None:
    found = answered(list(DROPPED), read(tmp_path, UNBALANCED), mutant(engine, old, new))
    assert [stage for stage, _ in found] != list(DROPPED.values())


def share_found(memory: NearDuplicateIndex, similar: float) -> float:
    """Of pairs of texts of this Jaccard similarity, those that are told."""
    rng, found = np.random.default_rng(0), list[bool]()
    for k in range(60):
        tokenize = [f"w{k}-{i}" for i in rng.permutation(202)]
        shared = round(400 * similar / (1 + similar))  # of 200 runs of three words in either text
        other = [*tokenize[: shared + 2], *(f"v{k}-{i}" for i in range(200 - shared))]
        assert jaccard(shingles(" ".join(tokenize)), shingles(" ".join(other))) == pytest.approx(similar, abs=0.01)
        found.append(memory.add([" ".join(tokenize), " ".join(other)])[1] is not None)
    return float(np.mean(found))


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.6, 0.8])
def test_near_copies_are_found_whatever_similarity_is_asked_for(threshold: float) -> None:
    assert share_found(engine.remembering(threshold), threshold + 0.15) >= 0.9
    assert share_found(engine.remembering(threshold), threshold - 0.15) <= 0.1
    assert threshold > 0.3 or share_found(NearDuplicateIndex(threshold=threshold), threshold + 0.15) < 0.5


def test_records_are_balanced_and_what_cannot_be_had_is_refused_at_once(tmp_path: Path) -> None:
    some = read(tmp_path, WHOLE + '[filters]\nbalance = "stars"\nat_most = 4\n')
    found = result(some, 20)
    assert Counter(r.provenance["fields"]["stars"] for r in found.kept) == dict.fromkeys(range(1, 6), 4)
    with pytest.raises(
        InvalidArgument, match=r"n = 21 is not accepted: give at most 20: 4 \(filters.at_most\) of each"
    ):
        result(some, 21)
    unequal = mutant(
        engine, "(max_requests := task.at_most(result.n)) is not None", "(max_requests := None) is not None"
    )
    stars = Counter(r.provenance["fields"]["stars"] for r in result(some, 20, module=unequal).kept)
    assert len(set(stars.values())) > 1


def test_a_yield_without_hope_ends_soon_and_a_low_one_does_not(tmp_path: Path) -> None:
    some = read(tmp_path, WHOLE)
    never = result(some, 100, lambda request: "no JSON")
    assert len(never.answers) == 64 and "of the last 64 answers 0 passed" in never.stop_reason and not never.kept
    seldom = result(some, 30, lambda request: says(request.seed) if request.index % 8 == 0 else "no JSON")
    assert len(seldom.kept) == 30 and not seldom.stop_reason
    dries_up = result(some, 100, lambda request: says(request.seed) if request.index < 60 else "no JSON")
    assert 40 < len(dries_up.kept) < 60 and len(dries_up.answers) < 400 and dries_up.stop_reason
    few = result(some, 30, lambda request: says(request.seed) if request.index % 8 == 0 else "no JSON", max_requests=50)
    assert len(few.answers) == 50 and "limit of 50 requests" in few.stop_reason
    for bad in ({"n": 0}, {"n": 9, "max_requests": 8}):
        with pytest.raises(InvalidArgument):
            result(some, **bad)  # type: ignore[arg-type]


def test_an_answer_that_was_cut_off_or_held_back_is_dropped(tmp_path: Path) -> None:
    some, told = read(tmp_path, PROMPT + TONES), iter(["length", "content_filter", "stop", "eos_token", "stop"])
    texts = ["half a", "nothing", " text 2\n", "text 3", " \n"]
    model = lambda requests: (ChatResponse(texts[request.index], next(told)) for request in requests)  # noqa: E731
    found = engine.generate(some, model, 3, max_requests=5)
    assert [drop.reason for drop in found.dropped] == ["cut off (max_tokens)", "held back by the server", "empty"]
    assert [record.response for record in found.kept] == ["text 2", "text 3"]


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


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
    for old, now, says in (
        ("a {tone} review", "the {tone} review", "differs in prompt."),
        ('"angry"', '"cross"', "differs in values.tone."),
        ("max = 5", "max = 6", "differs in fields.stars."),
        ("per_prompt = 2", "per_prompt = 1", "differs in seeds.per_prompt."),
        ("[filters]", "[sampling]\ntop_p = 0.5\n[filters]", "differs in sampling."),
    ):
        written(folder, TASK.replace(old, now))
        assert main(command(folder, "--resume")) == 2 and says in capsys.readouterr().err
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
        generate_page, "page", lambda task, result, model: f"{result.yield_rate}\n"
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


# ── text is data ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag, tuple(name for name, _ in attrs)] += 1

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.slow
def test_nothing_that_a_model_or_a_file_says_leaves_its_record_or_the_page(
    server: Rude, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nasty = [text for text in NASTY if len(text) <= 39 and len(text) >= 8]
    lists = "[values]\ntone = " + json.dumps([*nasty, "$\\frac{$", "漢字 \\u200b"]) + "\n"
    toml = PROMPT + lists + FIELDS + FILE + "[filters]\nlabel = 'tone'\nbalance = 'tone'\nat_most = 9\n"
    folder, said = new(tmp_path, "reviews", toml), list[str]()

    def malicious(handler: Handler, body: dict[str, Any]) -> None:
        text = NASTY[len(said) % len(NASTY)]
        key = "stars" if len(said) % 3 else f"stars{text}"
        said.append(json.dumps({"text": f"{text[:36]} {len(said)}", key: 3}) if len(said) % 4 else text)
        handler.reply(completion(said[-1], finish_reason="stop") if len(said) % 5 else completion(said[-1]))

    server.always = malicious
    assert main(reported(folder, "--concurrency", "1")) == 0
    shown = capsys.readouterr()
    assert (shown.out + shown.err).replace("\n", "").isprintable()
    for name in ("data.jsonl", "data.jsonl.dropped.jsonl"):
        raw = (folder / name).read_bytes()
        assert raw.isascii() and raw.decode().replace("\n", "").isprintable()
        assert len(raw.splitlines()) == raw.count(b"\n")
    kept, dropped = lines(folder / "data.jsonl"), lines(folder / "data.jsonl.dropped.jsonl")
    assert len(kept) == 12 and {line["answer"] for line in dropped} <= set(said)
    for line in kept:
        assert json.dumps({"text": line["text"], "stars": line["stars"]}) == said[line["request"]["index"]]
    page = Tags()
    html = (folder / "report.html").read_text()
    page.feed(html)
    own = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "p",
        "strong",
        "div",
        "table",
        "tr",
        "th",
        "td",
        "img",
    }
    assert {tag for tag, _ in page.tags} == own
    assert {attributes for _, attributes in page.tags} <= {
        (),
        ("lang",),
        ("charset",),
        ("style",),
        ("class",),
        ("src", "alt"),
    }
    assert "<script>alert(1)</script>" in page.text and "\\x1b" in page.text
    assert not set(html) & set("\x1b\x07\x08\x00\u202e\u2028\x9b\x85")
    assert "{tone}" in page.text


def test_a_page_that_does_not_escape_is_caught(tmp_path: Path) -> None:
    some = read(tmp_path, PROMPT + TONES)
    found = result(some, 2, lambda request: f"<script>alert({request.index})</script>")
    assert "<script>" not in generate_page.page(some, found, "tiny")
    careless = mutant(generate_page, "return escape(visible(", "return (visible(")
    assert "<script>" in careless.page(some, found, "tiny")


def test_figures_tell_in_words_what_they_show(tmp_path: Path) -> None:
    some = read(tmp_path, TASK)
    found = result(some, 30)
    counts = generate_page.counted(some, found)
    assert counts["tone"] == {"glad": 15, "angry": 15} and list(counts["stars"]) == ["1", "2", "3", "4", "5"]
    alt = generate_page.kept_alt([len(r.response) for r in found.kept], counts)
    assert "tone: glad 15, angry 15" in alt and alt.startswith("Texts have ")
    assert f"form: {found.ledger[0].n_in} came, {found.ledger[0].n_out} stayed" in generate_page.flow_alt(found.ledger)
    many = Counter({f"{k}": k for k in range(40)})
    ax = generate_page.plot_counts(many, "of many kinds")
    assert len(ax.patches) == generate_page.BARS and sum(bar.get_width() for bar in ax.containers[0]) == many.total()
    ax.figure.clear()


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
