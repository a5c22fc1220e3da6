"""The client against a server that misbehaves: a later attempt succeeds, or the error says why."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.language.cache import ResponseCache
from synthbook.language.client import (
    AHEAD,
    KEY,
    LONGEST_WAIT,
    URL,
    Client,
    Endpoint,
    ModelError,
    RetryPolicy,
    Usage,
)
from synthbook.language.messages import ChatRequest, ChatResponse, Message, SamplingParams, scripted_model, single_turn
from tests.language.asking import (
    RUN,
    SECRET,
    asking,
    child,
    closed_port,
    expected,
    questions,
    texts,
)
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


def test_a_scripted_model_is_a_model_like_any_other() -> None:
    model = scripted_model(lambda request: f"{request.seed}")
    assert texts(model(questions(3))) == [str(request.seed) for request in questions(3)]
