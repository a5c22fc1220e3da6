"""Clients, requests and child processes for the tests of the client and its cache."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from synthbook.language.client import (
    Client,
    Endpoint,
    RetryPolicy,
)
from synthbook.language.messages import ChatRequest, ChatResponse, Message, SamplingParams
from tests.language.rude import (
    Rude,
)

SECRET = "sk-Never+seen/by_anyone=0123456789"
HASTE = RetryPolicy(timeout=5, max_attempts=3, initial_backoff=0.01)


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


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


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


RUN = """
client = Client(Endpoint(url, "tiny"), cache=ResponseCache(path, model="tiny"), concurrency=4)
print("\\n".join(answer.text for answer in client.chat(asks)))
"""
