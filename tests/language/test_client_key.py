"""Endpoints, and a key that nobody gets to see."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from types import ModuleType

import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.language import client as endpoint_module
from synthbook.language import client as exchange
from synthbook.language.cache import ResponseCache
from synthbook.language.client import (
    KEY,
    MODEL,
    URL,
    Client,
    Endpoint,
    RetryPolicy,
)
from synthbook.language.messages import single_turn
from tests.language.asking import (
    SECRET,
    endpoint,
    questions,
    texts,
)
from tests.language.rude import (
    RETRY_STATUS,
    Rude,
    completion,
    refuses,
    says,
)
from tests.language.test_client_mutants import use
from tests.mutation import mutant


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
    (exchange, "endpoint.without_key(part))", "part)"),
    (exchange, "endpoint.shown(_message(body))", "_message(body)"),
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
