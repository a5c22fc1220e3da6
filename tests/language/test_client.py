"""The client against a server that misbehaves: a later try that works or a clear error, and no answer is lost."""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.storage import LockedError
from synthbook.language import cache as replay
from synthbook.language import client as client_module
from synthbook.language import client as endpoint_module
from synthbook.language import client as exchange
from synthbook.language.cache import CacheMiss, ResponseCache, canonical_lines
from synthbook.language.client import (
    AHEAD,
    KEY,
    LONGEST_WAIT,
    MODEL,
    URL,
    Client,
    Endpoint,
    ModelError,
    RetryPolicy,
    Usage,
)
from synthbook.language.messages import ChatRequest, ChatResponse, Message, SamplingParams, scripted_model, single_turn
from tests.language.rude import (
    LATE,
    RETRY_STATUS,
    Manner,
    Rude,
    completion,
    is_silent,
    never_ends,
    polite,
    refuses,
    says,
    serving,
    slow,
)
from tests.mutation import mutant

SECRET = "sk-Never+seen/by_anyone=0123456789"
HASTE = RetryPolicy(timeout=5, max_attempts=3, initial_backoff=0.01)


@pytest.fixture
def server() -> Iterator[Rude]:
    with serving() as running:
        yield running


def endpoint(server: Rude, key: str = SECRET) -> Endpoint:
    return Endpoint(server.url, "tiny", key)


def asking(server: Rude, **options: Any) -> Client:
    options = {"retry": HASTE, "sleep": lambda seconds: None} | options
    return Client(endpoint(server), **options)


def questions(n: int, text: str = "question") -> list[ChatRequest]:
    return [ChatRequest((Message("user", f"{text} {k}"),), SamplingParams(), k) for k in range(n)]


def expected(requests: Iterable[ChatRequest]) -> list[str]:
    return [f"{request.messages[-1].content}, seed {request.seed}" for request in requests]


def texts(answers: Iterable[ChatResponse]) -> list[str]:
    return [answer.text for answer in answers]


# ── what may be over soon ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("name", RETRY_STATUS)
def test_what_fails_once_is_asked_again_and_what_fails_always_says_why_and_loses_nothing(
    name: str, server: Rude, tmp_path: Path
) -> None:
    manner, why = RETRY_STATUS[name]
    client, before = asking(server, cache=ResponseCache(tmp_path / "a.jsonl", model="tiny")), questions(2)
    server.script.append(manner)
    kept = texts(client.chat(before))
    assert kept == expected(before) and client.usage.retries == 1
    server.always = manner
    with pytest.raises(ModelError) as caught:
        list(client.chat([*before, single_turn("one more")]))
    said = str(caught.value)
    assert why in said and "tiny at http://127.0.0.1:" in said and "3 attempts" in said and said.isprintable()
    assert "What was answered before is kept" in said and "look whether the server runs" in said
    assert server.requests.count("one more") == 3 and client.usage.requests == 2
    again = Client(None, cache=ResponseCache(tmp_path / "a.jsonl", model="tiny", read_only=True))
    assert texts(again.chat(before)) == kept


@pytest.mark.slow
@pytest.mark.parametrize("name", LATE)
def test_a_try_ends_in_its_time_however_the_answer_is_drawn_out(name: str, server: Rude) -> None:
    server.always, began = LATE[name], time.monotonic()
    with pytest.raises(ModelError, match=r"no whole answer in 0\.3 s"):
        list(asking(server, retry=RetryPolicy(timeout=0.3, max_attempts=1)).chat(questions(1)))
    assert 0.3 <= time.monotonic() - began < 2


@pytest.mark.slow
def test_after_a_try_that_was_late_comes_another(server: Rude) -> None:
    server.script.append(is_silent)
    client, requests = asking(server, retry=RetryPolicy(timeout=1, max_attempts=2)), questions(1)
    assert texts(client.chat(requests)) == expected(requests) and client.usage.retries == 1


def test_an_empty_answer_is_asked_for_again_with_another_seed(server: Rude) -> None:
    server.script.extend([says(completion("")), says(completion(" \n")), says(completion(None))])
    client, request = asking(server, retry=RetryPolicy(max_attempts=4), prices=(2.0, 4.0)), single_turn("say something")
    (answer,) = client.chat([request])
    seeds = [body["seed"] for body in server.bodies]
    assert len(set(seeds)) == 4 and seeds[0] == request.seed and answer.text == f"say something, seed {seeds[-1]}"
    assert all(0 <= seed < 2**31 for seed in seeds)
    # the empty ones were paid for, too
    assert client.usage == Usage(1, 0, 3, 40, 20, pytest.approx((40 * 2 + 20 * 4) / 1e6))
    again = asking(server)
    server.script.extend([says(completion("")), refuses(500), says(completion(""))])
    assert list(again.chat([request])) == [ChatResponse("", "stop", 10, 5)]
    assert [body["seed"] for body in server.bodies[4:]] == [seeds[0], seeds[1], seeds[1]]


def test_a_model_that_has_nothing_to_say_has_said_that(server: Rude, tmp_path: Path) -> None:
    server.always = says(completion("", choices=[{"message": {"content": ""}, "finish_reason": "length"}]))
    client = asking(server, cache=ResponseCache(tmp_path / "a.jsonl", model="tiny"))
    assert texts(client.chat(questions(2))) == ["", ""]
    assert len(server.bodies) == 6
    assert texts(client.chat(questions(2))) == ["", ""]
    assert len(server.bodies) == 6 and client.usage.cache_hits == 2


# ── what will not pass ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(
    ("manner", "why"),
    [
        (refuses(400, "context of 1536 tokens exceeded"), "HTTP 400: context of 1536 tokens exceeded"),
        (refuses(404, "no model tiny"), "HTTP 404: no model tiny"),
        (refuses(422), "HTTP 422"),
        (says(b'{"message": "a plain one"}', 400), "HTTP 400: a plain one"),
        (says(b'{"error": "a short one"}', 400), "HTTP 400: a short one"),
        (says(b'{"error": {"reason": 5}}', 400), "HTTP 400: {'reason': 5}"),
        (says(b"[" * 50_000, 400), "HTTP 400: [[["),
        (says("\x1b[2Jgone\u2028\x00\ud7ff".encode(), 400), "HTTP 400: [2Jgone"),
        (never_ends(b"HTTP/1.1 403 No\r\nConnection: close\r\n\r\n"), "HTTP 403: an answer of more than 1,000,000"),
        (says(b"", 307, Location="http://127.0.0.1:1/v1"), "HTTP 307: without a word"),
        (refuses(401, "wrong key"), f"wrong key (the API key was rejected; it is read from {KEY})"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words_and_not_tried_again(manner: Manner, why: str, server: Rude) -> None:
    server.script.append(manner)
    with pytest.raises(ModelError) as caught:
        list(asking(server).chat(questions(1)))
    assert why in str(caught.value) and len(server.bodies) == 1 and len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_nobody_listens() -> None:
    nobody = Endpoint(f"http://127.0.0.1:{closed_port()}/v1", "tiny")
    with pytest.raises(ModelError, match=r"2 attempts.*Connection error"):
        list(Client(nobody, retry=RetryPolicy(max_attempts=2), sleep=lambda seconds: None).chat(questions(1)))


def test_a_server_that_dies_and_comes_back_is_only_late(tmp_path: Path) -> None:
    requests, up = questions(20), []

    def restart(seconds: float) -> None:
        if len(up) == 1:
            up.append(serving(port))
            up[-1].__enter__()

    first = serving()
    running = first.__enter__()
    port = running.server_address[1]
    up.append(first)
    running.always = slow(0.01)
    client = asking(running, cache=ResponseCache(tmp_path / "a.jsonl", model="tiny"), concurrency=2, sleep=restart)
    answers = client.chat(requests)
    begun = [next(answers) for _ in range(5)]
    first.__exit__(None, None, None)
    try:
        assert texts(begun + list(answers)) == expected(requests)
    finally:
        up[-1].__exit__(None, None, None)
    assert len(ResponseCache(tmp_path / "a.jsonl", model="tiny")) == 20


def test_waiting_doubles_and_is_as_long_as_the_server_wants(server: Rude) -> None:
    waited: list[float] = []
    server.always = refuses(503)
    client = asking(server, retry=RetryPolicy(max_attempts=7, initial_backoff=0.5), sleep=waited.append)
    with pytest.raises(ModelError):
        list(client.chat(questions(1)))
    assert len(waited) == 6 == client.usage.retries
    assert all(0.25 * 2**k <= seconds <= 0.5 * 2**k for k, seconds in enumerate(waited))
    waited.clear()
    long = asking(server, retry=RetryPolicy(max_attempts=20, initial_backoff=0.5), sleep=waited.append)
    with pytest.raises(ModelError):
        list(long.chat(questions(1)))
    assert max(waited) == LONGEST_WAIT == waited[-1]
    waited.clear()
    for header in ("7", "7.5", "0", "-3", "nan", "inf", "9e9", "Fri, 31 Dec 1999 23:59:59 GMT", "soon", ""):
        server.script.append(refuses(429, Retry_After=header))
        server.script.append(polite)
    list(asking(server, concurrency=1, sleep=waited.append, retry=RetryPolicy(initial_backoff=0.5)).chat(questions(10)))
    assert waited[:2] == [7, 7.5] and waited[5:7] == [LONGEST_WAIT] * 2
    assert all(0.25 <= seconds <= 0.5 for seconds in waited[2:5] + waited[7:])


# ── order, number, content ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_answers_keep_the_order_and_no_more_are_out_than_allowed(concurrency: int, server: Rude) -> None:
    rng = random.Random(0)

    def uneven(handler: Any, body: dict[str, Any]) -> None:
        time.sleep(rng.choice([0, 0.002, 0.02]))
        polite(handler, body)

    server.always, requests = uneven, questions(60)
    client = asking(server, concurrency=concurrency)
    assert texts(client.chat(requests)) == expected(requests)
    assert min(concurrency, 4) <= server.most_out <= concurrency and len(server.bodies) == 60 == client.usage.requests
    if concurrency == 1:
        assert server.requests == [request.messages[-1].content for request in requests]


def test_questions_without_end_are_read_a_bounded_way_ahead(server: Rude) -> None:
    read, client = [], asking(server, concurrency=2)
    first = single_turn("slow")
    server.own["slow"] = slow(0.3)

    def without_end() -> Iterator[ChatRequest]:
        yield first
        for k in itertools.count():
            read.append(k)
            yield single_turn(f"question {k}")

    answers = client.chat(without_end())
    assert read == []  # nothing before the first answer is wanted
    assert next(answers).text == f"slow, seed {first.seed}"
    assert len(read) == AHEAD * 2 - 1
    for k in range(10):
        assert next(answers).text.startswith(f"question {k},")
        assert len(read) <= AHEAD * 2 + k
    answers.close()


def test_an_answer_that_is_there_does_not_wait_until_the_queue_is_full(server: Rude) -> None:
    """A question may depend on an answer, where its source has others meanwhile."""
    heard: list[str] = []
    fillers = 0

    def talk() -> Iterator[ChatRequest]:
        nonlocal fillers
        yield single_turn("turn 0")
        while not heard:
            fillers += 1
            time.sleep(0.02)
            yield single_turn("filler")
        yield single_turn("turn 1")

    for answer in asking(server).chat(talk()):
        heard.append(answer.text)
    assert heard[0].startswith("turn 0") and heard[-1].startswith("turn 1")
    assert 0 < fillers < AHEAD * 8 - 1


def test_who_stops_listening_gives_up_what_is_out_and_what_is_queued(server: Rude, tmp_path: Path) -> None:
    server.own |= {"question 0": polite, "question 1": polite}
    server.always = is_silent
    client = asking(server, concurrency=3, cache=ResponseCache(tmp_path / "a.jsonl", model="tiny"))
    answers = client.chat(questions(100))
    assert len([next(answers), next(answers)]) == 2
    began = time.monotonic()
    answers.close()
    assert time.monotonic() - began < 3
    time.sleep(0.2)
    sent = len(server.bodies)  # on a busy machine more than the three that may be out when two have come
    assert sent <= 20 and client.usage.requests == 2
    server.over.set()
    time.sleep(0.1)
    assert len(server.bodies) == sent and len(ResponseCache(tmp_path / "a.jsonl", model="tiny")) == 2


def test_an_error_does_not_wait_for_the_others(server: Rude) -> None:
    server.own["question 0"] = refuses(400)
    server.always = is_silent
    began = time.monotonic()
    with pytest.raises(ModelError):
        list(asking(server).chat(questions(50)))
    assert time.monotonic() - began < 4


@pytest.mark.slow
def test_ctrl_c_ends_at_once_whatever_is_out(server: Rude, tmp_path: Path) -> None:
    server.always, running = is_silent, child(RUN, server.url, tmp_path / "a.jsonl")
    while len(server.bodies) < 4 and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=15)  # the server would be silent for longer
    assert error.strip().splitlines()[-1] == "KeyboardInterrupt" and len(server.bodies) == 4


def test_what_was_paid_is_counted(server: Rude, tmp_path: Path) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 7}
    server.script.extend([refuses(500), says(completion("a", usage=usage)), says(completion("b", usage=None))])
    server.always = says(completion("c", usage=usage))
    cache = ResponseCache(tmp_path / "a.jsonl", model="tiny")
    client = asking(server, cache=cache, concurrency=1, prices=(3.0, 15.0))
    answers = list(client.chat(questions(3)))
    assert answers == [ChatResponse("a", "stop", 100, 7), ChatResponse("b"), ChatResponse("c", "stop", 100, 7)]
    assert client.usage == Usage(3, 0, 1, 200, 14, pytest.approx(200 * 3e-6 + 14 * 15e-6))
    again = list(client.chat(questions(5)))
    assert [answer.cached for answer in again] == [True] * 3 + [False] * 2
    assert client.usage == Usage(5, 3, 1, 400, 28, pytest.approx(400 * 3e-6 + 28 * 15e-6))


def test_what_is_sent(server: Rude) -> None:
    schema = {"type": "object", "properties": {"why": {"type": "string"}}}
    sampling = SamplingParams(temperature=0.5, top_p=0.9, max_tokens=16, stop=("\n", "END"), schema=schema, seed=3)
    request = ChatRequest((Message("system", "Be brief."), Message("user", "Why? \U0001f600\u2028\x00")), sampling, 4)
    list(asking(server).chat([request, single_turn("plain")]))
    sent = next(body for body in server.bodies if "response_format" in body)
    assert sent == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Why? \U0001f600\u2028\x00"},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 16,
        "stop": ["\n", "END"],
        "seed": request.seed,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}},
    }
    (plain,) = (body for body in server.bodies if "response_format" not in body)
    assert "stop" not in plain and plain["max_tokens"] == 128
    assert {head["path"] for head in server.heads} == {"/v1/chat/completions"}
    assert {head["authorization"] for head in server.heads} == {f"Bearer {SECRET}"}


def test_what_openais_variables_name_is_for_another_server(server: Rude, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "authorization: Bearer theirs\nX-Gateway-Key: theirs")
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{name}", "theirs")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/theirs")
    assert texts(asking(server).chat(questions(1))) == expected(questions(1))
    assert "theirs" not in str(server.heads) and server.heads[0]["authorization"] == f"Bearer {SECRET}"


@pytest.mark.slow
def test_seeds_differ_from_sample_to_sample_and_not_from_run_to_run(server: Rude) -> None:
    same = [ChatRequest((Message("user", "the same"),), SamplingParams(seed=5), k) for k in range(30)]
    other = [ChatRequest((Message("user", "the same"),), SamplingParams(seed=6), k) for k in range(30)]
    for requests in (same, same, other):
        list(asking(server, concurrency=1).chat(requests))
    seeds = [body["seed"] for body in server.bodies]
    assert seeds[:30] == seeds[30:60] and len(set(seeds)) == 60
    assert len({request.cache_key("m") for request in same + other}) == 60
    assert same[0].cache_key("m") != same[0].cache_key("another")


def test_this_machine_is_reached_round_every_proxy_and_others_through_it(
    server: Rude, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert texts(asking(server).chat(questions(1))) == expected(questions(1))
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, server.url.removesuffix("/v1"))
    away = Client(Endpoint("http://model.example.org/v1", "tiny"), retry=RetryPolicy(max_attempts=1))
    assert texts(away.chat(questions(1))) == expected(questions(1))
    assert server.heads[-1]["path"] == "http://model.example.org/v1/chat/completions"


def test_the_loop_of_another_process_is_not_waited_for(server: Rude) -> None:
    list(asking(server).chat(questions(1)))
    child = os.fork()
    if not child:
        try:
            os._exit(0 if texts(asking(server).chat(questions(3))) == expected(questions(3)) else 3)
        finally:
            os._exit(4)
    deadline = time.monotonic() + 10
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    if done == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert done == (child, 0)


def test_settings_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    good = Endpoint("http://127.0.0.1:1/v1", "tiny")
    for settings in ({"timeout": 0}, {"timeout": float("nan")}, {"max_attempts": 0}, {"initial_backoff": -1}):
        with pytest.raises(InvalidArgument, match="retry"):
            RetryPolicy(**settings)  # type: ignore[arg-type]
    for concurrency in (0, 1_001):
        with pytest.raises(InvalidArgument, match="concurrency"):
            Client(good, concurrency=concurrency)
    with pytest.raises(InvalidArgument, match=URL):
        Client(None)
    with pytest.raises(InvalidArgument, match="a cache of the model that is asked, tiny"):
        Client(good, cache=ResponseCache(tmp_path / "a.jsonl", model="another"))
    for sampling in ({"temperature": -1}, {"temperature": float("nan")}, {"top_p": 0}, {"max_tokens": 0}):
        with pytest.raises(InvalidArgument):
            SamplingParams(**sampling)  # type: ignore[arg-type]
    for stop in ("END", ("",), (5,)):
        with pytest.raises(InvalidArgument, match="stop"):
            SamplingParams(stop=stop)  # type: ignore[arg-type]
    for role, content in (("robot", "a"), ("user", None), ("user", "half of \ud83d")):
        with pytest.raises(InvalidArgument, match="message"):
            Message(role, content)  # type: ignore[arg-type]


# ── the key ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:80/v1",
        "ftp://a/v1",
        "http://",
        "http://[::1/v1",
        "http://a:99999/v1",
        "http://a b/v1",
        "http://a/v1\n",
        f"http://:{SECRET}@a/v1",
        f"http://me:{SECRET}@a/v1",
        f"http://a/v1?key={SECRET}",
        f"http://a/v1#{SECRET}",
    ],
)
def test_an_address_is_one_and_holds_no_secret(url: str) -> None:
    with pytest.raises(InvalidArgument, match=URL) as caught:
        Endpoint(url, "tiny")
    assert SECRET not in str(caught.value)


def test_the_environment_names_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (URL, MODEL, KEY):
        monkeypatch.delenv(name, raising=False)
    assert Endpoint.from_environment() is None
    monkeypatch.setenv(URL, " http://cluster:8000/v1 \n")
    with pytest.raises(InvalidArgument, match=MODEL):
        Endpoint.from_environment()
    monkeypatch.setenv(MODEL, "large")
    found = Endpoint.from_environment()
    assert found is not None and (found.base_url, found.api_key, found.fingerprint) == (
        "http://cluster:8000/v1",
        "none",
        "large",
    )
    assert not found.loopback and KEY in found.hint
    monkeypatch.setenv(KEY, f"{SECRET}\r\n")
    found = Endpoint.from_environment()
    assert found is not None and found.api_key == SECRET
    for bad in ("two words of a secret", "clé-très-secrète", "line-one\nline-two"):
        monkeypatch.setenv(KEY, bad)
        with pytest.raises(InvalidArgument, match=KEY) as caught:
            Endpoint.from_environment()
        assert bad not in str(caught.value) and "secr" not in repr(caught.value)


def test_which_addresses_are_on_this_machine() -> None:
    for host, here in {
        "127.0.0.1": True,
        "localhost": True,
        "[::1]": True,
        "127.8.8.8": True,
        "10.0.0.1": False,
    }.items():
        assert Endpoint(f"http://{host}:1/v1", "tiny").loopback is here
    assert not Endpoint("https://localhost.example.org/v1", "tiny").loopback


def test_a_short_key_is_no_secret_and_stays_in_honest_answers(server: Rude) -> None:
    server.always = says(completion("an ollama is a llama, none other"))
    for key in ("ollama", "none", "", "a"):
        client = Client(endpoint(server, key))
        assert texts(client.chat(questions(1))) == ["an ollama is a llama, none other"]


def everything_said(server: Rude, folder: Path, caplog: pytest.LogCaptureFixture, found: type[Endpoint]) -> str:
    """All that people or files get to see while a server echoes the key wherever it can."""
    seen: list[str] = []
    long = "x" * 290 + SECRET  # at 300 characters a message is cut
    server.script.extend(
        [
            refuses(401, f"Incorrect API key provided: {SECRET}"),
            refuses(400, long),
            says(long.encode(), 404),
            says(f"<b>{SECRET}</b>".encode(), 403),
            *[says(b"x" * 50 + SECRET.encode())] * 2,
            *[refuses(500, SECRET)] * 2,
            says(completion(f"my key is {SECRET}!")),
            says(completion("a", choices=[{"message": {"content": "b"}, "finish_reason": SECRET}])),
            says(completion("a", choices=[{"message": {"content": "c"}, "finish_reason": "y" * 30 + SECRET}])),
        ]
    )
    where = found(server.url, "tiny", SECRET)
    patience = RetryPolicy(max_attempts=2)
    cache = ResponseCache(folder / "a.jsonl", model="tiny")
    client = Client(where, cache=cache, retry=patience, concurrency=1, sleep=lambda seconds: None)
    with caplog.at_level(logging.DEBUG):
        for k in range(6):
            try:
                list(client.chat([single_turn(f"question {k}")]))
            except Exception as error:
                chain: BaseException | None = error
                while chain is not None:
                    seen += [str(chain), repr(chain), *traceback.format_exception(chain)]
                    chain = chain.__cause__ or chain.__context__
            else:
                raise AssertionError("the server refused it")
        answers = list(client.chat(questions(3, "well")))
        server.always = RETRY_STATUS["hangs up"][0]
        with pytest.raises(Exception, match="Connection error") as caught:
            list(client.chat([single_turn("is anybody there?")]))
    seen += [str(caught.value), repr(client), repr(where), str(where), repr(client.usage), repr(answers), caplog.text]
    seen += [record.getMessage() for record in caplog.records]
    return "\n".join([*seen, (folder / "a.jsonl").read_text()])


def shows_the_key(text: str) -> bool:
    """Whether eight characters of it in a row are to be seen."""
    return any(SECRET[k : k + 8] in text for k in range(len(SECRET) - 7))


def test_the_key_is_never_seen(server: Rude, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = everything_said(server, tmp_path, caplog, Endpoint)
    assert not shows_the_key(text)
    assert text.count("[key]") > 5 and "my key is [key]!" in text
    assert {head["authorization"] for head in server.heads} == {f"Bearer {SECRET}"}


KEY_MUTANTS = [
    (endpoint_module, "else text.replace(self.api_key, HIDDEN)", "else text"),
    (endpoint_module, "field(default=NO_KEY, repr=False)", "field(default=NO_KEY)"),
    (endpoint_module, "whole = self.without_key(text)", "whole = text"),
    (endpoint_module, "whole = self.without_key(text)", "whole = self.without_key(text[:length])"),
    (exchange, "endpoint.without_key(said))", "said)"),
    (exchange, "endpoint.shown(_message(said))", "_message(said)"),
    (exchange, "endpoint.shown(content.decode(errors='replace'), 60)", "content.decode(errors='replace')[:60]"),
    (exchange, "answer = ChatResponse(text, finish[:40]", "answer = ChatResponse(text, choice['finish_reason'][:40]"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("module", "old", "new"), KEY_MUTANTS)
def test_a_client_that_shows_the_key_is_found_out(
    module: ModuleType,
    old: str,
    new: str,
    server: Rude,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = mutant(module, old, new)
    if module is exchange:
        use(broken, module, monkeypatch)
    found = broken.Endpoint if module is endpoint_module else Endpoint
    assert shows_the_key(everything_said(server, tmp_path, caplog, found))


# ── answers that were kept ───────────────────────────────────────────────────────────────────────────────────────────

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


PRELUDE = """
import resource, sys, time
from pathlib import Path
from synthbook.core.errors import SynthbookError
from synthbook.language.messages import ChatResponse, ChatRequest, Message, SamplingParams
from synthbook.language.client import Client, RetryPolicy
from synthbook.language.client import Endpoint
from synthbook.language.cache import ResponseCache
url, path = sys.argv[1], Path(sys.argv[2])
asks = [ChatRequest((Message("user", f"question {k // 2}"),), SamplingParams(), k) for k in range(60)]
"""
ASKS = [ChatRequest((Message("user", f"question {k // 2}"),), SamplingParams(), k) for k in range(60)]


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PRELUDE + code, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, preexec_fn=heeds_ctrl_c)


def heeds_ctrl_c() -> None:
    """What a shell starts in the background does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ended(process: subprocess.Popen[str]) -> str:
    """What it printed; stderr is for surprises."""
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0 and not error, error
    return out


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


RUN = """
client = Client(Endpoint(url, "tiny"), cache=ResponseCache(path, model="tiny"), concurrency=4)
print("\\n".join(answer.text for answer in client.chat(asks)))
"""


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


# ── broken clients and caches are found out ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def checks(server: Rude, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], None]]:
    another = TOLD.replace("0123456789abcdef", "fedcba9876543210")
    return {
        "cut": lambda: test_a_line_that_was_being_written_is_cut_off(tmp_path),
        "hostile": lambda: test_an_answer_stays_within_its_record_whatever_it_says(tmp_path),
        "damaged": lambda: test_a_damaged_line_is_named_and_left(another, False, tmp_path),
        "mixed": lambda: test_answers_of_another_model_are_not_mixed(tmp_path),
        "thesis": lambda: test_a_file_of_something_else_is_never_cut(b"my thesis", tmp_path),
        "first": lambda: test_the_first_answer_that_is_kept_is_the_answer(server, tmp_path),
        "out": lambda: test_answers_keep_the_order_and_no_more_are_out_than_allowed(3, server),
        "ahead": lambda: test_questions_without_end_are_read_a_bounded_way_ahead(server),
        "stops": lambda: test_who_stops_listening_gives_up_what_is_out_and_what_is_queued(server, tmp_path),
        "waits": lambda: test_waiting_doubles_and_is_as_long_as_the_server_wants(server),
        "empty": lambda: test_an_empty_answer_is_asked_for_again_with_another_seed(server),
        "kept": lambda: test_what_was_paid_is_counted(server, tmp_path),
        "late": lambda: test_a_try_ends_in_its_time_however_the_answer_is_drawn_out("drips a head", server),
        "proxy": lambda: test_this_machine_is_reached_round_every_proxy_and_others_through_it(server, monkeypatch),
        "halves": lambda: test_a_live_answer_holds_whole_characters_alone(server, tmp_path),
        "sent": lambda: test_what_is_sent(server),
        "theirs": lambda: test_what_openais_variables_name_is_for_another_server(server, monkeypatch),
    }


IN_REPLAY = [
    ('            if not raw.endswith(b"\\n"):\n                return\n', "", "cut"),
    ("                truncate_partial_line(self.path)", "                pass", "cut"),
    ("strict_json(document).translate(SEPARATORS)", "strict_json(document)", "hostile"),
    ('text.encode(errors="backslashreplace").decode()', "text", "hostile"),
    (" if name in prompts:", ":", "damaged"),
    ('elif line["model"] == self.model:', "elif True:", "mixed"),
    ("if not FIRST.startswith(", "if not print and (", "thesis"),
    ("return self._answers[key]\n            text", "return answer\n            text", "first"),
]
IN_CLIENT = [
    ("async with gate:", "if gate:", "out"),
    ("len(waiting) >= AHEAD * self.concurrency", "False", "ahead"),
    ("future.cancel()", "pass", "stops"),
    ("self.retry.initial_backoff * 2 ** (k - 1)", "self.retry.initial_backoff", "waits"),
    ("max(drawn, least)", "drawn", "waits"),
    ("self._count(failed.empty)", "pass", "empty"),
    ("seed = request.seed if not empty else", "seed = request.seed if True else", "empty"),
    ("self.cache.put(request, answer)", "answer", "kept"),
]
IN_EXCHANGE = [
    ("asyncio.timeout(seconds)", "asyncio.timeout(2.1)", "late"),
    ("trust_env=not endpoint.loopback", "trust_env=True", "proxy"),
    ("trust_env=not endpoint.loopback", "trust_env=False", "proxy"),
    ('SURROGATES.sub("\\ufffd", endpoint.without_key(said))', "endpoint.without_key(said)", "halves"),
    ("if drawn.schema is not None:", "if False:", "sent"),
    ('"seed": seed,', "", "sent"),
    ("set(request.headers) - HEADERS:", "():", "theirs"),
    ('request.headers["authorization"] = f"Bearer {endpoint.api_key}"', "pass", "theirs"),
]


MUTANTS = [(replay, *row) for row in IN_REPLAY]
MUTANTS += [(client_module, *row) for row in IN_CLIENT] + [(exchange, *row) for row in IN_EXCHANGE]


@pytest.mark.slow
@pytest.mark.parametrize(("module", "old", "new", "check"), MUTANTS)
def test_broken_ones_are_found_out(
    module: ModuleType,
    old: str,
    new: str,
    check: str,
    checks: dict[str, Callable[[], None]],
    server: Rude,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(mutant(module, old, new), module, monkeypatch)
    with pytest.raises((Exception, pytest.fail.Exception)):
        checks[check]()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "same", "names"),
    [
        (replay, "class CacheMiss", ("cut", "hostile", "damaged", "mixed", "thesis")),
        (client_module, "class Usage", ("out", "ahead", "waits", "kept")),
        (exchange, "class TransientError", ("late", "halves")),
    ],
)
def test_whole_ones_are_not(
    module: ModuleType,
    same: str,
    names: tuple[str, ...],
    checks: dict[str, Callable[[], None]],
    server: Rude,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(mutant(module, same, same), module, monkeypatch)
    for name in names:
        for path in tmp_path.iterdir():
            path.unlink() if path.is_file() else shutil.rmtree(path)
        server.bodies.clear()
        server.most_out = 0
        checks[name]()


def use(broken: ModuleType, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace what this file imports from the module by the mutant's."""
    for name, value in list(vars(sys.modules[__name__]).items()):
        if getattr(value, "__module__", None) == module.__name__ and hasattr(broken, name):
            monkeypatch.setattr(sys.modules[__name__], name, getattr(broken, name))


def test_a_scripted_model_is_a_model_like_any_other() -> None:
    model = scripted_model(lambda request: f"{request.seed}")
    assert texts(model(questions(3))) == [str(request.seed) for request in questions(3)]
