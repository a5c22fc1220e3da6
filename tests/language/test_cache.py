"""The cache of responses: what a file holds after hostile text, damage, a kill and a full disk."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.storage import LockedError
from synthbook.language.cache import CacheMiss, ResponseCache, canonical_lines
from synthbook.language.client import (
    Client,
    Usage,
)
from synthbook.language.messages import ChatRequest, ChatResponse, Message, SamplingParams, single_turn
from tests.language.asking import (
    ASKS,
    RUN,
    asking,
    child,
    ended,
    expected,
    questions,
    texts,
)
from tests.language.rude import (
    Rude,
    completion,
    polite,
    says,
    slow,
)

HOSTILE = [
    'a\n{"key": "0", "prompt": "0", "index": 0, "text": "injected", "finish": "stop", "tokens": [0, 0]}\nb',
    'a\r\n{"prompt": "0", "model": "tiny", "messages": []}\r\n',
    '"}\n{"key": 1}',
    "nul \x00 and escape \x1b[2J",
    "lines \u2028 and \u2029 and \x85 and \x0b\x0c\x1c\x1d\x1e end",
    "\U0001f600 und Straße, עברית",
    "half of a pair \ud83d here, and \udc00 there",
    "\\u2028 \\n \\",
    " \ufeff",
    "NaN Infinity",
    "x" * 200_000,
]


def test_an_answer_stays_within_its_record_whatever_it_says(tmp_path: Path) -> None:
    path, requests = tmp_path / "deep" / "a.jsonl", questions(len(HOSTILE))
    cache = ResponseCache(path, model="tiny")
    for request, text in zip(requests, HOSTILE, strict=True):
        assert cache.put(request, ChatResponse(text, "stop", 3, 4)) == ChatResponse(text, "stop", 3, 4)
    for again in (cache, ResponseCache(path, model="tiny"), ResponseCache(path, model="tiny", read_only=True)):
        assert [again.get(request) for request in requests] == [
            ChatResponse(text, "stop", 3, 4, True) for text in HOSTILE
        ]
        assert len(again) == len(HOSTILE) and again.get(single_turn("injected")) is None
    content = path.read_text("utf-8")
    assert len(content.splitlines()) == content.count("\n") == 2 * len(HOSTILE)
    assert all(isinstance(json.loads(line), dict) for line in content.splitlines())
    ordered = "".join(canonical_lines(path))
    assert sorted(ordered.splitlines()) == sorted(content.splitlines())
    assert "\U0001f600 und Straße, עברית" in content  # for people to read


def test_a_live_answer_holds_whole_characters_alone(server: Rude, tmp_path: Path) -> None:
    halves = (
        b'{"choices": [{"message": {"content": "a \\ud83d b \\ud83d\\ude00 \\udc00"}, "finish_reason": "\\ud83d"}]}'
    )
    server.script.append(says(halves))
    (answer,) = asking(server, cache=ResponseCache(tmp_path / "a.jsonl", model="tiny")).chat(questions(1))
    assert (answer.text, answer.finish_reason) == ("a \ufffd b \U0001f600 \ufffd", "\ufffd")
    Message("assistant", answer.text)  # it can be said again


def test_a_prompt_is_written_once_and_its_answers_in_order(tmp_path: Path) -> None:
    contents = []
    for name, order in {"a": [0, 1, 2, 3, 4, 5], "b": [5, 3, 1, 4, 2, 0]}.items():
        cache = ResponseCache(tmp_path / name, model="tiny")
        requests = [
            ChatRequest((Message("user", f"question {k // 3}"),), SamplingParams(), (7 * k) % 10) for k in range(6)
        ]
        for k in order:
            cache.put(requests[k], ChatResponse(f"answer {k}"))
        lines = (tmp_path / name).read_text().splitlines()
        assert sum("messages" in json.loads(line) for line in lines) == 2 and len(lines) == 8
        contents.append("".join(canonical_lines(tmp_path / name)))
    assert contents[0] == contents[1]
    (tmp_path / "c").write_text(contents[0])
    again = ResponseCache(tmp_path / "c", model="tiny", read_only=True)
    assert [again.get(request).text for request in requests] == [f"answer {k}" for k in range(6)]  # type: ignore[union-attr]
    indices = [json.loads(line).get("index") for line in contents[0].splitlines()]
    assert sorted(indices[1:4]) == indices[1:4] and indices[0] is None is indices[4]


def test_the_first_answer_that_is_kept_is_the_answer(server: Rude, tmp_path: Path) -> None:
    numbers = itertools.count()
    server.always = lambda handler, body: handler.reply(completion(f"answer {next(numbers)}"))
    client = asking(server, cache=ResponseCache(tmp_path / "a.jsonl", model="tiny"))
    first = texts(client.chat([single_turn("the same")] * 8))
    assert len(set(first)) == 1
    assert texts(client.chat([single_turn("the same")] * 8)) == first and client.usage.requests == len(server.bodies)


def test_a_cache_that_is_only_read(server: Rude, tmp_path: Path) -> None:
    path = tmp_path / "smollm2.jsonl"
    list(asking(server, cache=ResponseCache(path, model="tiny")).chat(questions(4)))
    before = path.read_bytes()
    cache = ResponseCache(path, model="tiny", read_only=True)
    client = Client(None, cache=cache)
    answers = client.chat(questions(6))
    assert texts(itertools.islice(answers, 4)) == expected(questions(4)) and client.usage == Usage(0, 4)
    with pytest.raises(CacheMiss, match=r"smollm2\.jsonl has no such answer.*synthbook models fetch smollm2"):
        next(answers)
    with pytest.raises(CacheMiss, match="only read"):
        cache.put(single_turn("a"), ChatResponse("a"))
    with pytest.raises(CacheMiss, match="only read"):
        list(asking(server, cache=cache).chat([single_turn("new")]))
    missing = Client(None, cache=ResponseCache(tmp_path / "no such", model="tiny", read_only=True))
    with pytest.raises(CacheMiss):
        list(missing.chat(questions(1)))
    assert path.read_bytes() == before and not (tmp_path / "no such").exists()
    assert sorted(child.name for child in tmp_path.iterdir()) == [".smollm2.jsonl.writer", "smollm2.jsonl"]


GOOD = '{"prompt": "0123456789abcdef", "model": "tiny", "messages": [], "sampling": {}}'
TOLD = '{"key": "k", "prompt": "0123456789abcdef", "index": 0, "text": "t", "finish": "stop", "tokens": [1, 2]}'


@pytest.mark.parametrize(
    "line",
    [
        TOLD[:-9],
        TOLD + "}",
        TOLD.replace('"t"', "5"),
        TOLD.replace('"t"', "null"),
        TOLD.replace("[1, 2]", "[1]"),
        TOLD.replace("[1, 2]", '["1", "2"]'),
        TOLD.replace("0123456789abcdef", "fedcba9876543210"),
        TOLD.replace('"key"', '"kee"'),
        TOLD.replace('"k"', "[]"),
        '{"prompt": "fedcba9876543210", "messages": []}',
        '"text"',
        "[]",
        "[" * 100_000,
        "",
        "\x00\x00",
    ],
)
@pytest.mark.parametrize("read_only", [True, False])
def test_a_damaged_line_is_named_and_left(line: str, read_only: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{GOOD}\n{TOLD}\n{line}\n{TOLD}\n")
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"a\.jsonl, line 3: "):
        ResponseCache(path, model="tiny", read_only=read_only)
    assert path.read_bytes() == before
    path.write_bytes(before.replace(line.encode() + b"\n", b"", 1) if line else f"{GOOD}\n{TOLD}\n".encode())
    assert len(ResponseCache(path, model="tiny")) == 1


@pytest.mark.parametrize("content", [b"my thesis", b'{"prompt": "p", "response": "r"}', b"{}\n", b"\xff" * 50, b"\n"])
def test_a_file_of_something_else_is_never_cut(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_bytes(content)
    for read_only in (True, False):
        with pytest.raises(DataError, match="holds no answers"):
            ResponseCache(path, model="tiny", read_only=read_only)
    assert path.read_bytes() == content


def test_a_line_that_was_being_written_is_cut_off(tmp_path: Path) -> None:
    path, requests = tmp_path / "a.jsonl", questions(2)
    cache = ResponseCache(path, model="tiny")
    for request in requests:
        cache.put(request, ChatResponse("kept"))
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for size in (*range(34), *range(len(whole) - len(lines[-1]), len(whole), 9), len(whole) - 1):
        path.write_bytes(whole[:size])
        held = whole[:size].count(b"\n") // 2
        assert len(ResponseCache(path, model="tiny", read_only=True)) == held and path.stat().st_size == size
        again = ResponseCache(path, model="tiny")
        assert len(again) == held and path.read_bytes() == whole[: whole[:size].rfind(b"\n") + 1]
        for request in requests:
            again.put(request, ChatResponse("kept"))
        assert "".join(canonical_lines(path)) == "".join(in_order_of(whole, tmp_path))


def in_order_of(content: bytes, folder: Path) -> Iterator[str]:
    (folder / "other").write_bytes(content)
    return canonical_lines(folder / "other")


def test_answers_of_another_model_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    ResponseCache(path, model="tiny").put(single_turn("a"), ChatResponse("a"))
    for read_only in (True, False):
        with pytest.raises(InvalidArgument, match=r"model = 'large'.*'tiny', whose answers .*a\.jsonl holds"):
            ResponseCache(path, model="large", read_only=read_only)


def test_caches_of_one_process_share_a_file(tmp_path: Path) -> None:
    """A cell of a notebook is run twice."""
    path = tmp_path / "a.jsonl"
    one, two = ResponseCache(path, model="tiny"), ResponseCache(tmp_path / "." / "a.jsonl", model="tiny")
    for k, request in enumerate(questions(20)):
        (one, two)[k % 2].put(request, ChatResponse(str(k)))
    assert len(ResponseCache(path, model="tiny")) == 20


@pytest.mark.slow
def test_another_process_may_read_but_not_write(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    holder = child("cache = ResponseCache(path, model='tiny'); cache.put(asks[0], ChatResponse('a'))\n"
                   "print('ready', flush=True)\n"
                   "sys.stdin.read()", "", path)  # fmt: skip
    assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
    with path.open("ab") as file:
        file.write(b'{"key": "being written')
    with pytest.raises(LockedError, match=rf"a\.jsonl is being written: wait until process {holder.pid} has ended"):
        ResponseCache(path, model="tiny")
    assert len(ResponseCache(path, model="tiny", read_only=True)) == 1
    assert path.read_bytes().endswith(b"being written")
    ended(holder)
    again = ResponseCache(path, model="tiny")
    assert len(again) == 1 and path.read_bytes().endswith(b"}\n")
    refused = child("try: ResponseCache(path, model='tiny')\nexcept SynthbookError as error: print(error)", "", path)
    assert f"wait until process {os.getpid()} has ended" in ended(refused)
    del again
    assert ended(child("print(len(ResponseCache(path, model='tiny')))", "", path)) == "1\n"


def held(path: Path) -> list[tuple[str, int]]:
    """The questions and seeds whose answers a file holds, in its whole lines."""
    cache = ResponseCache(path, model="tiny", read_only=True)
    return [(request.messages[0].content, request.seed) for request in ASKS if cache.get(request)]


@pytest.mark.slow
def test_a_run_that_was_killed_asks_again_for_nothing_that_it_was_told(server: Rude, tmp_path: Path) -> None:
    server.always, path = slow(0.03), tmp_path / "a.jsonl"
    known: list[tuple[str, int]] = []
    for moment in (1, 14, 33):
        asked = len(server.bodies)
        running = child(RUN, server.url, path)
        while len(server.bodies) < asked + moment and running.poll() is None:
            time.sleep(0.002)
        time.sleep(0.011 * moment % 0.03)
        running.kill()
        running.communicate()
        fresh = [(body["messages"][0]["content"], body["seed"]) for body in server.bodies[asked:]]
        assert len(fresh) >= moment and not set(fresh) & set(known)
        if path.exists():
            known = held(path)
    assert len(known) >= 1 + 14 + 33 - 3 * 4
    asked = len(server.bodies)
    assert ended(child(RUN, server.url, path)).splitlines() == expected(ASKS)
    fresh = [(body["messages"][0]["content"], body["seed"]) for body in server.bodies[asked:]]
    assert len(fresh) == 60 - len(known) and not set(fresh) & set(known)
    assert len(server.bodies) <= 60 + 3 * 4
    content = path.read_text()
    assert content.endswith("\n") and sum("index" in json.loads(line) for line in content.splitlines()) == 60
    prompts = [json.loads(line)["prompt"] for line in content.splitlines() if "messages" in line]
    assert len(prompts) == len(set(prompts)) == 30


FULL = """
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
client = Client(Endpoint(url, "tiny"), cache=ResponseCache(path, model="tiny"), concurrency=2,
                retry=RetryPolicy(max_attempts=1))
try:
    for answer in client.chat(asks):
        pass
except SynthbookError as error:
    print(error)
print(len(client.cache))
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 5_001])
def test_a_full_disk_costs_no_answer_that_was_kept(size: int, server: Rude, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    server.always = lambda handler, body: handler.reply(completion("long " * 300))
    if size:
        ResponseCache(path, model="tiny").put(ASKS[0], ChatResponse("kept before"))
    else:
        (tmp_path / ".a.jsonl.writer").write_text("1" * 10)  # there is room for the lock
    said, n = ended(child(FULL, server.url, path, max(size, 10))).splitlines()
    assert "a.jsonl cannot take another answer" in said and "File too large" in said
    assert f"the {n} answers before are kept" in said and (size or 1) // 1_700 - 1 <= int(n) < 60
    content = path.read_bytes()
    assert content.endswith(b"\n") or not content
    assert len(held(path)) == int(n)
    if size:
        server.always = polite
        assert len(ended(child(RUN, server.url, path)).splitlines()) == 60
