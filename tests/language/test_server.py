"""The server in a child: it says why it does not start, keeps its key, ends with us, and answers where it can."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.language import server
from synthbook.language import server as local_model
from synthbook.language.cache import ResponseCache
from synthbook.language.client import Client, Endpoint, ModelError, RetryPolicy
from synthbook.language.messages import ChatRequest, Message, SamplingParams, single_turn
from synthbook.language.server import ServerError, local_server
from tests.conftest import require

MODULE = "synthbook.language.server"


def children(of: int | None = None) -> list[psutil.Process]:
    """Servers that a process started, by default this one."""
    found = psutil.Process(of).children()
    return [child for child in found if child.status() != "zombie" and MODULE in child.cmdline()]


def gone(pid: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie":
            return True
        time.sleep(0.02)
    return False


# ── a library that stands in for llama.cpp ───────────────────────────────────────────────────────────────────────────

FAKE = """
import json, os, pathlib, sys, time
from types import SimpleNamespace

def CommonParams():
    return SimpleNamespace(model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace())

class Server:
    listening_address = "http://127.0.0.1:9"

    def __init__(self, params):
        said = {"model": params.model.path, "hosts": params.hostnames, "port": params.port, "slots": params.n_parallel,
                "context": params.n_ctx, "keys": len(params.api_keys), "threads": params.cpuparams.n_threads}
        pathlib.Path(__file__).with_name("told.json").write_text(json.dumps(said))
        print("llama_model_loader: loaded")
        for k in range(20_000):
            print("chatter " * 10, file=sys.stderr)
        exec(os.environ.get("FAKE", ""))
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "xllamacpp.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(server, "find_spec", lambda name: True)
    monkeypatch.delenv("FAKE", raising=False)
    model = tmp_path / "tiny.gguf"
    model.write_bytes(b"GGUF and no more")
    return model


def test_the_child_is_told_all_and_is_gone_at_the_end(fake: Path) -> None:
    with local_server(fake, slots=3, context=100, threads=2) as endpoint:
        (child,) = children()
        assert (endpoint.base_url, endpoint.model) == ("http://127.0.0.1:9/v1", "tiny") and endpoint.loopback
        assert (
            len(endpoint.fingerprint) == 64 and len(endpoint.api_key) >= 32 and endpoint.api_key not in repr(endpoint)
        )
    told = json.loads((fake.parent / "told.json").read_text())
    wanted = {
        "model": str(fake),
        "hosts": ["127.0.0.1"],
        "port": 0,
        "slots": 3,
        "context": 300,
        "keys": 1,
        "threads": 2,
    }
    assert told == wanted and gone(child.pid, 0.1)
    with pytest.raises(ZeroDivisionError), local_server(fake) as other:
        (child,) = children()
        assert other.api_key != endpoint.api_key
        _ = 1 / 0
    assert gone(child.pid, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("raise RuntimeError('no memory')", "RuntimeError: no memory"),
        ("os._exit(7)", "chatter"),
        ("os.kill(os.getpid(), 11)", "chatter"),
        ("sys.exit('cannot map')", "cannot map"),
    ],
)
def test_a_child_that_does_not_start_says_why(does: str, why: str, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", does)
    with pytest.raises(ServerError, match=r"did not start with .*tiny") as caught, local_server(fake):
        pass
    assert why in str(caught.value) and "memory for it?" in str(caught.value) and not children()


def test_a_child_that_takes_for_ever_is_not_waited_for(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", "time.sleep(60)")
    began = time.monotonic()
    with pytest.raises(ServerError, match=r"not ready after 0\.3 s"), local_server(fake, seconds=0.3):
        pass
    assert time.monotonic() - began < 5 and not children()


@pytest.mark.slow
def test_ctrl_c_is_for_us_and_not_for_the_child(fake: Path) -> None:
    with local_server(fake):
        (child,) = children()
        child.send_signal(signal.SIGINT)
        assert not gone(child.pid, 0.5)
    assert gone(child.pid, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["ready", "loading"])
def test_no_child_outlives_us(moment: str, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if moment == "loading":
        monkeypatch.setenv("FAKE", "time.sleep(1)")
    code = f"from {MODULE} import *\nfrom synthbook.language import server\nserver.find_spec = str\n"
    code += f"with local_server(Path({str(fake)!r})): print('ready', flush=True); sys.stdin.read()"
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if moment == "ready":
            assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 10
        while not (found := children(parent.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        parent.kill()
        parent.communicate()
    assert gone(found[0].pid)


# ── what is missing ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_model_no_library_no_sense(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHBOOK_MODELS", str(tmp_path))
    with pytest.raises(ServerError, match=r"Q4_1\.gguf is not in .*: synthbook models fetch smollm2"), local_server():
        pass
    (tmp_path / "text.gguf").write_text("a letter to my aunt")
    for path in (tmp_path / "absent.gguf", tmp_path, tmp_path / "text.gguf"):
        with pytest.raises(InvalidArgument, match="a GGUF file that exists"), local_server(path):
            pass
    for settings in ({"slots": 0}, {"context": 10}, {"threads": 0}):
        with pytest.raises(InvalidArgument, match="slots, context, threads"), local_server(fake, **settings):  # type: ignore[arg-type]
            pass
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(ServerError, match=r"pip install 'synthbook\[llm\]'"), local_server(fake):
        pass
    assert not children()


def test_a_file_that_only_begins_like_a_model(tmp_path: Path) -> None:
    require(server.find_spec("xllamacpp"), "xllamacpp is not installed")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 1_000)
    why = r"did not start with .*cut\.gguf.*Is the file whole"
    with pytest.raises(ServerError, match=why), local_server(tmp_path / "cut.gguf"):
        pass


# ── the real one ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def real() -> Iterator[Endpoint]:
    require(server.find_spec("xllamacpp"), "xllamacpp is not installed")
    require(local_model.model_file(), "the language model was not fetched: synthbook models fetch smollm2")
    with local_server(slots=2, context=512, threads=1) as endpoint:
        yield endpoint


@pytest.mark.slow
def test_the_model_answers_in_form_and_again_the_same(real: Endpoint) -> None:
    schema = {"type": "object", "properties": {"color": {"enum": ["red", "blue"]}}, "required": ["color"]}
    sampling = SamplingParams(max_tokens=24, schema=schema)
    requests = [ChatRequest((Message("user", "Name a color, as JSON."),), sampling, k) for k in range(4)]
    client = Client(real, concurrency=2)
    answers = list(client.chat(requests))
    assert all(json.loads(answer.text)["color"] in ("red", "blue") for answer in answers)
    assert client.usage.prompt_tokens >= 40 and client.usage.completion_tokens >= 20 and client.usage.retries == 0
    alone = Client(real, concurrency=1)
    draws = [ChatRequest((Message("user", "Write a sentence."),), SamplingParams(max_tokens=12), k) for k in (0, 1, 0)]
    first, second, again = (answer.text for answer in alone.chat(draws))
    assert first == again != second
    (cut,) = alone.chat([single_turn("Count from one to one hundred.", max_tokens=4, temperature=0.0)])
    assert (cut.finish_reason, cut.completion_tokens) == ("length", 4)
    assert real.fingerprint == local_model.SHA256


@pytest.mark.slow
def test_questions_that_are_too_long_are_refused_in_clear_words(real: Endpoint) -> None:
    with pytest.raises(ModelError, match=r"HTTP 400.*context"):
        list(Client(real).chat([single_turn("too much " * 1_000)]))


@pytest.mark.slow
def test_the_key_is_asked_for_and_nowhere_to_be_read(real: Endpoint) -> None:
    stranger = Endpoint(real.base_url, real.model, "another-key-altogether")
    with pytest.raises(ModelError, match="HTTP 401") as caught:
        list(Client(stranger).chat([single_turn("hello")]))
    assert "another-key" not in str(caught.value)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(urllib.request.Request(f"{real.base_url}/chat/completions", b"{}"))
    for name in ("cmdline", "environ"):
        for path in Path("/proc").glob(f"[0-9]*/{name}"):
            try:
                assert real.api_key.encode() not in path.read_bytes()
            except OSError:  # it has ended, or is another user's
                continue


@pytest.mark.slow
def test_only_this_machine_can_reach_it(real: Endpoint) -> None:
    listening = [c for child in children() for c in child.net_connections() if c.status == psutil.CONN_LISTEN]
    assert [found.laddr.ip for found in listening] == ["127.0.0.1"]
    assert real.base_url == f"http://127.0.0.1:{listening[0].laddr.port}/v1"


@pytest.mark.slow
def test_a_server_that_is_killed_costs_no_answer_that_was_kept(tmp_path: Path) -> None:
    require(server.find_spec("xllamacpp"), "xllamacpp is not installed")
    require(local_model.model_file(), "the language model was not fetched: synthbook models fetch smollm2")
    before = {child.pid for child in children()}
    path, requests = tmp_path / "a.jsonl", [single_turn(f"Say {k}.", max_tokens=8) for k in range(16)]

    def asking(endpoint: Endpoint) -> Client:
        cache = ResponseCache(path, model=endpoint.fingerprint)
        return Client(endpoint, cache=cache, concurrency=2, retry=RetryPolicy(max_attempts=3, initial_backoff=0.01))

    with local_server(slots=2, context=256, threads=1) as endpoint:
        (own,) = [child for child in children() if child.pid not in before]
        answers = asking(endpoint).chat(requests)
        begun = [next(answers).text for _ in range(4)]
        own.kill()
        with pytest.raises(
            ModelError, match=r"3 attempts.*start it again: the same command goes on.*is kept"
        ) as caught:
            list(answers)
        assert endpoint.api_key not in str(caught.value)
    kept = len(ResponseCache(path, model=endpoint.fingerprint))
    assert 4 <= kept < 16
    with local_server(slots=2, context=256, threads=1) as endpoint:
        client = asking(endpoint)
        texts = [answer.text for answer in client.chat(requests)]
    assert texts[:4] == begun and len(texts) == 16 and client.usage.cache_hits == kept
