"""A server of chat completions that misbehaves on purpose, one manner for each question."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Manner = Callable[["Handler", dict[str, Any]], None]


class Rude(ThreadingHTTPServer):
    """Answers a question in its own manner, else in the next of the script, and in that of `always` when it is over."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0):
        super().__init__(("127.0.0.1", port), Handler)
        self.own: dict[str, Manner] = {}
        self.script: deque[Manner] = deque()
        self.always: Manner = polite
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[dict[str, str]] = []
        self.out = self.most_out = 0
        self.lock, self.over = threading.Lock(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def requests(self) -> list[str]:
        """The last words of each question, in the order in which they came."""
        return [body["messages"][-1]["content"] for body in self.bodies]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that went away are nothing to write home about."""


class Handler(BaseHTTPRequestHandler):
    server: Rude
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    counted = False

    def do_POST(self) -> None:
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append(body)
            server.heads.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
            server.out += 1
            server.most_out = max(server.most_out, server.out)
            manner = server.own.get(server.requests[-1])
            manner = manner or (server.script.popleft() if server.script else server.always)
            self.counted = True
        try:
            manner(self, body)
        finally:
            self.no_longer_out()

    def no_longer_out(self) -> None:
        with self.server.lock:
            self.server.out -= self.counted
            self.counted = False

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def reply(self, content: bytes, code: int = 200, length: int | None = None, **headers: str) -> None:
        """A whole reply, or one that promises another length than it has and then closes."""
        self.no_longer_out()  # before the client can know, and send the next one
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)
        if length is not None:
            self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


def completion(text: Any, **changed: Any) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage} | changed).encode()


def words(body: dict[str, Any]) -> str:
    """What a polite server says: what it was asked, and with which seed."""
    return f"{body['messages'][-1]['content']}, seed {body['seed']}"


def polite(handler: Handler, body: dict[str, Any]) -> None:
    handler.reply(completion(words(body)))


def slow(seconds: float) -> Manner:
    def manner(handler: Handler, body: dict[str, Any]) -> None:
        time.sleep(seconds)
        polite(handler, body)

    return manner


def says(content: bytes, code: int = 200, **headers: str) -> Manner:
    return lambda handler, body: handler.reply(content, code, **headers)


def refuses(code: int, message: str = "try later", **headers: str) -> Manner:
    return says(json.dumps({"error": {"message": message, "type": "x", "code": None}}).encode(), code, **headers)


def breaks_off(code: int = 200) -> Manner:
    return lambda handler, body: handler.reply(completion("half"), code, length=4_000)


def breaks_off_within_a_chunk(handler: Handler, body: dict[str, Any]) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{")
    handler.hang_up()


def hangs_up(handler: Handler, body: dict[str, Any]) -> None:
    handler.hang_up()


def is_silent(handler: Handler, body: dict[str, Any]) -> None:
    handler.server.over.wait(20)
    handler.close_connection = True


def drips(start: bytes, drop: bytes = b"x") -> Manner:
    """A byte now and then, for ever: each comes in time, the whole never does."""

    def manner(handler: Handler, body: dict[str, Any]) -> None:
        handler.close_connection = True
        handler.wfile.write(start)
        while not handler.server.over.wait(0.05):
            handler.wfile.write(drop)

    return manner


def never_ends(start: bytes) -> Manner:
    """As much as the client takes."""

    def manner(handler: Handler, body: dict[str, Any]) -> None:
        handler.close_connection = True
        handler.wfile.write(start)
        while not handler.server.over.is_set():
            handler.wfile.write(b"y" * 65_536)

    return manner


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n"
BAD_HEAD = b"HTTP/1.1 500 Sorry\r\nConnection: close\r\n\r\n"
RETRY_STATUS: dict[str, tuple[Manner, str]] = {  # what may be over at the next try, and what people are told of it
    "429": (refuses(429), "HTTP 429: try later"),
    "429, with a wait": (refuses(429, Retry_After="7"), "HTTP 429: try later"),
    "500": (refuses(500), "HTTP 500"),
    "503 in HTML": (says(b"<h1>Down\nfor now</h1>", 503), "HTTP 503: <h1>Down for now</h1>"),
    "529": (refuses(529), "HTTP 529"),
    "a bare state": (says(b"", 502), "HTTP 502: without a word"),
    "no JSON": (says(b'{"choices": [}'), "no chat completion"),
    "no text": (says(b"\xff\xfe\x00"), "no chat completion"),
    "HTML": (says(b"<html>Welcome to the hotel</html>", Content_Type="text/html"), "<html>Welcome to the hotel"),
    "an error with 200": (says(b'{"error": "overloaded"}'), "overloaded"),
    "no choices": (says(completion("a", choices=[])), "no chat completion"),
    "choices that are none": (says(completion("a", choices="none")), "no chat completion"),
    "a list": (says(b"[1, 2]"), "no chat completion"),
    "a number for text": (says(completion(5)), "no chat completion"),
    "pieces for text": (says(completion([{"type": "text", "text": "a"}])), "no chat completion"),
    "no message": (says(completion("a", choices=[{"text": "a"}])), "no chat completion"),
    "tokens without end": (says(completion("a", usage={"prompt_tokens": float("inf")})), "no chat completion"),
    "more tokens than there are": (says(completion("a", usage={"completion_tokens": 10**40})), "no chat completion"),
    "negative tokens": (says(completion("a", usage={"completion_tokens": -1})), "no chat completion"),
    "tokens in words": (says(completion("a", usage={"completion_tokens": "many"})), "no chat completion"),
    "deep nesting": (says(b"[" * 100_000), "no chat completion"),
    "packed": (says(gzip.compress(completion("a" * 10_000)), Content_Encoding="gzip"), "no chat completion"),
    "10 MB": (says(completion("a" * 10_000_000)), "more than 1,000,000 bytes"),
    "breaks off": (breaks_off(), "broke off"),
    "breaks off within a chunk": (breaks_off_within_a_chunk, "broke off"),
    "breaks off while it refuses": (breaks_off(500), "HTTP 500: the answer broke off"),
    "hangs up": (hangs_up, "disconnected"),
    "no HTTP": (lambda handler, body: handler.wfile.write(b"220 mail.example.org ESMTP\r\n\r\n"), "Connection error"),
    "a refusal without end": (never_ends(BAD_HEAD), "HTTP 500: an answer of more than 1,000,000 bytes"),
}
LATE: dict[str, Manner] = {  # what takes as long as a try may
    "silent": is_silent,
    "drips a body": drips(HEAD),
    "drips a head": drips(b"HTTP/1.1 200 OK\r\nX: "),
    "drips a refusal": drips(BAD_HEAD),
    "drips empty chunks": drips(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
}


@contextmanager
def serving(port: int = 0) -> Iterator[Rude]:
    """A server on this machine, which is gone at the end."""
    with Rude(port) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()
