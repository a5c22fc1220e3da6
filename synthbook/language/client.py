"""A client for chat models: on this machine, on a cluster, or hosted; only the address changes.

Requests are sent concurrently, and responses come back in their order. Transient errors are retried with exponential
backoff; other errors end the run and say why. Each response is stored in a `ResponseCache` as it arrives.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from ipaddress import ip_address
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.core.storage import sha256
from synthbook.language.cache import CacheMiss, ResponseCache
from synthbook.language.messages import SURROGATES, ChatRequest, ChatResponse, break_special_tokens

if TYPE_CHECKING:
    from openai import AsyncOpenAI


# ── Where a model answers: an address, a name, a key, and what pins its answers ──
# The server speaks the protocol of OpenAI's chat completions, as llama.cpp, vLLM and Ollama do. The key is sent and
# never written: it is cut out of whatever a server says.


URL, MODEL, KEY = "SYNTHBOOK_LLM_URL", "SYNTHBOOK_LLM_MODEL", "SYNTHBOOK_LLM_KEY"
NO_KEY, HIDDEN = "none", "[key]"
_SHORTEST_SECRET = 8  # characters: a shorter key, such as EMPTY or ollama, guards nothing and stands in honest answers


class ModelError(SynthbookError):
    """A language model gave no answer, and retries failed or would not help."""


@dataclass(frozen=True)
class Endpoint:
    """Where a model answers: the `base_url` up to /v1, the model's name there, an API key, and a hint for failures.

    `fingerprint` identifies the model in a cache: the SHA-256 of its file where it is known, else its name.
    """

    base_url: str
    model: str
    api_key: str = field(default=NO_KEY, repr=False)
    fingerprint: str = ""
    hint: str = "look whether the server runs, and whether this is its address"

    def __post_init__(self) -> None:
        if not _is_address(self.base_url):
            shown = re.split("[?#]", self.base_url.rpartition("@")[2])[0]  # a password or a key may stand in the rest
            raise InvalidArgument(URL, shown, "an address such as http://127.0.0.1:8000/v1, with nothing secret in it")
        if not self.model:
            raise InvalidArgument(MODEL, self.model, "the name by which the server knows its model")
        key = self.api_key.strip() or NO_KEY
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise InvalidArgument(KEY, HIDDEN, "a key of letters, digits and signs, without spaces, on one line")
        object.__setattr__(self, "api_key", key)
        object.__setattr__(self, "fingerprint", self.fingerprint or self.model)

    @classmethod
    def from_environment(cls) -> Endpoint | None:
        """What SYNTHBOOK_LLM_URL, _MODEL and _KEY name; None where no address is set."""
        url = os.environ.get(URL, "").strip()
        if not url:
            return None
        remedy = f"look at {URL}, {MODEL} and {KEY}"
        return cls(url, os.environ.get(MODEL, "").strip(), os.environ.get(KEY, ""), hint=remedy)

    @property
    def loopback(self) -> bool:
        """Whether it is on this machine."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            return host == "localhost" or ip_address(host).is_loopback
        except ValueError:  # a name
            return False

    def without_key(self, text: str) -> str:
        """A text with the API key masked."""
        return text if len(self.api_key) < _SHORTEST_SECRET else text.replace(self.api_key, HIDDEN)

    def shown(self, text: str, length: int = 300) -> str:
        """The beginning of a server's message, on one line, with the API key masked."""
        whole = self.without_key(text)  # before it is cut, which could leave a part of the key
        return "".join(c if c.isprintable() else " " for c in whole[:length]).strip()


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for what is none
        good = parts.scheme in ("http", "https") and parts.hostname and url.isprintable() and " " not in url
    except ValueError:
        return False
    return bool(good) and not ("@" in parts.netloc or parts.query or parts.fragment)


# ── One attempt ──
# It may be late, broken, empty, huge or no JSON. All of it, the head and refusals included, must come within the time
# and the size of a try. So tries run on an event loop in a thread of its own, which can give any of them up at any
# moment.


_MAX_BYTES = 1_000_000  # of an answer
_MAX_TOKENS = 1_000_000_000  # that one answer can have cost
HEADERS = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent"}
RETRY_STATUS = {408, 409, 425, 429}  # states that may be over soon, as may all from 500 on


class TransientError(Exception):
    """An error worth a retry, after `retry_after` seconds; `empty` is the response where it had no text."""

    def __init__(self, message: str, retry_after: float = 0.0, *, empty: ChatResponse | None = None):
        super().__init__(message)
        self.retry_after, self.empty = retry_after, empty


_loops: dict[int, asyncio.AbstractEventLoop] = {}  # by process: a forked one has no thread of its parent
_starting = threading.Lock()


def start(work: Coroutine[Any, Any, ChatResponse]) -> Future[ChatResponse]:
    """Begin work on the loop; cancelling the future ends it."""
    with _starting:
        if os.getpid() not in _loops:
            _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=_loops[os.getpid()].run_forever, name="asking", daemon=True).start()
    return asyncio.run_coroutine_threadsafe(work, _loops[os.getpid()])


def connect(endpoint: Endpoint) -> AsyncOpenAI:
    """The library's client, which does not ask again itself; on its way to this machine it goes round every proxy."""
    import openai

    async def keep_to_ours(request: Any) -> None:
        for name in set(request.headers) - HEADERS:
            if not name.startswith("x-stainless-"):  # the library's own; what OPENAI_* name is for another server
                del request.headers[name]
        request.headers["authorization"] = f"Bearer {endpoint.api_key}"

    async def look(response: Any) -> None:
        if response.is_success:
            return
        try:
            body = await _whole(response)
        except TransientError as broken:
            body = str(broken).encode()
        raise _refusal(endpoint, response.status_code, body, response.headers.get("retry-after"))

    hooks: dict[str, list[Any]] = {"request": [keep_to_ours], "response": [look]}
    http = openai.DefaultAsyncHttpxClient(trust_env=not endpoint.loopback, follow_redirects=False, event_hooks=hooks)
    plain = {"Accept-Encoding": "identity"}  # what is packed has no size until it is unpacked
    return openai.AsyncOpenAI(
        base_url=endpoint.base_url, api_key=endpoint.api_key, max_retries=0, http_client=http, default_headers=plain
    )


async def attempt(
    connection: AsyncOpenAI, endpoint: Endpoint, request: ChatRequest, *, seed: int, seconds: float
) -> ChatResponse:
    """One HTTP attempt. Raises `TransientError` for what a retry may mend, `ModelError` for all else."""
    import openai

    create = connection.chat.completions.with_streaming_response.create
    try:
        async with (
            asyncio.timeout(seconds),
            create(**request_body(request, endpoint.model, seed), timeout=seconds) as response,
        ):
            content = await _whole(response.http_response)
    except (TimeoutError, openai.APITimeoutError):
        failed = f"no whole answer in {seconds:g} s"
    except openai.OpenAIError as error:  # of the connection
        failed = endpoint.shown(f"{error} {error.__cause__ or ''}")
    else:
        return _read(content, endpoint)
    raise TransientError(failed)  # out here, because the library's errors hold the key, and errors remember each other


def request_body(request: ChatRequest, model: str, seed: int) -> dict[str, Any]:
    """The body of the HTTP request; special tokens of chat templates are broken up."""
    drawn = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": turn.role, "content": break_special_tokens(turn.content)} for turn in request.messages],
        "temperature": drawn.temperature,
        "top_p": drawn.top_p,
        "max_tokens": drawn.max_tokens,
        "seed": seed,
    }
    if drawn.stop:
        body["stop"] = list(drawn.stop)
    if drawn.schema is not None:
        schema = {"name": "answer", "strict": True, "schema": drawn.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


async def _whole(response: Any) -> bytes:
    content, failed = bytearray(), ""
    try:
        async for piece in response.aiter_raw():
            content += piece
            if len(content) > _MAX_BYTES:
                failed = f"an answer of more than {_MAX_BYTES:,} bytes"
                break
    except Exception as error:  # of the transport, which is another library from version to version
        failed = f"the answer broke off ({type(error).__name__})"
    if failed:
        raise TransientError(failed)
    return bytes(content)


def _refusal(endpoint: Endpoint, code: int, body: bytes, retry_after: str | None) -> Exception:
    words = f"HTTP {code}: {endpoint.shown(_message(body)) or 'without a word'}"
    if code in RETRY_STATUS or code >= 500:
        return TransientError(words, _seconds(retry_after))
    if code in (401, 403):
        words += f" (the API key was rejected; it is read from {KEY})"
    return ModelError(f"{endpoint.model} at {endpoint.base_url} refused: {words}")


def _message(body: bytes) -> str:
    text = body.decode(errors="replace")
    try:
        message = json.loads(text)
        for name in ("error", "message"):
            message = message.get(name, message) if isinstance(message, dict) else message
        return str(message)
    except (ValueError, RecursionError):
        return text


def _seconds(header: str | None) -> float:
    """What a Retry-After header asks for; dates are not read."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0


def _read(content: bytes, endpoint: Endpoint) -> ChatResponse:
    try:
        document = json.loads(content)
        choice, usage = document["choices"][0], document.get("usage") or {}
        text, finish = choice["message"]["content"] or "", choice.get("finish_reason") or "stop"
        prompt, completion = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        are_counts = all(0 <= tokens <= _MAX_TOKENS for tokens in (prompt, completion))
        if not isinstance(text, str) or not isinstance(finish, str) or not are_counts:
            raise TypeError
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        wrong = type(error).__name__
    else:
        text, finish = (SURROGATES.sub("\ufffd", endpoint.without_key(part)) for part in (text, finish))
        answer = ChatResponse(text, finish[:40], prompt, completion)
        if text.strip():
            return answer
        raise TransientError("an empty answer", empty=answer)
    raise TransientError(f"no chat completion ({wrong}), but {endpoint.shown(content.decode(errors='replace'), 60)!r}")


# ── The client ──


LONGEST_WAIT = 60.0  # seconds between two tries, whatever the server asks for
AHEAD = 4  # questions that are read for each one that is out, so that a slow answer holds nobody up


@dataclass(frozen=True)
class RetryPolicy:
    """Seconds for one attempt, attempts for one answer, and the backoff before the second, then doubled each time."""

    timeout: float = 120.0
    max_attempts: int = 5
    initial_backoff: float = 0.5

    def __post_init__(self) -> None:
        if not self.timeout > 0 or self.max_attempts < 1 or not 0 <= self.initial_backoff < inf:
            given = (self.timeout, self.max_attempts, self.initial_backoff)
            raise InvalidArgument("retry", given, "more than 0 seconds, at least 1 try, a wait of at least 0")


@dataclass
class Usage:
    """Requests, and what live responses cost: tokens, and money in the currency of the prices.

    Empty responses that were retried count as well.
    """

    requests: int = 0
    cache_hits: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class Client:
    """Chats with the model at `endpoint`, and caches its responses. `prices`: of a million tokens, in and out.

    Without an endpoint the cache alone answers, and what it lacks raises `CacheMiss`. `retry` limits the attempts for
    each request. `sleep` replaces waiting, in tests.
    """

    def __init__(
        self,
        endpoint: Endpoint | None,
        *,
        cache: ResponseCache | None = None,
        concurrency: int = 8,
        retry: RetryPolicy | None = None,
        prices: tuple[float, float] = (0.0, 0.0),
        sleep: Callable[[float], None] | None = None,
    ):
        if not 1 <= concurrency <= 1_000:
            raise InvalidArgument("concurrency", concurrency, "from 1 to 1000 questions side by side")
        if endpoint is None and cache is None:
            raise InvalidArgument("endpoint", None, f"an endpoint ({URL}, or `local_server()`), or a cache to replay")
        if cache is not None and endpoint is not None and cache.model != endpoint.fingerprint:
            raise InvalidArgument("cache", cache.model, f"a cache of the model that is asked, {endpoint.fingerprint}")
        self.endpoint, self.cache, self.concurrency = endpoint, cache, concurrency
        self.retry, self.prices, self.usage = retry or RetryPolicy(), prices, Usage()
        self._sleep, self._lock = sleep, Lock()
        self._connection = None if endpoint is None else connect(endpoint)

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatResponse]:
        """A response to each request, in their order; requests are read a bounded number ahead of the responses.

        Raises `ModelError`, `CacheMiss`, and `SynthbookError` where the cache cannot be written. Where it ends early,
        pending requests are cancelled.
        """
        waiting: deque[Future[ChatResponse]] = deque()
        gate = asyncio.Semaphore(self.concurrency)
        try:
            for request in requests:
                waiting.append(self._begun(request, gate))
                while waiting and (waiting[0].done() or len(waiting) >= AHEAD * self.concurrency):
                    yield waiting[0].result()
                    waiting.popleft()
            while waiting:
                yield waiting[0].result()
                waiting.popleft()
        finally:
            for future in waiting:
                future.cancel()

    def _begun(self, request: ChatRequest, gate: asyncio.Semaphore) -> Future[ChatResponse]:
        """The answer to come: from the cache, else live, and then kept."""
        known: Future[ChatResponse] = Future()
        if self.cache is not None and (cached := self.cache.get(request)) is not None:
            self._count(cache_hits=1)
            known.set_result(cached)
        elif self.endpoint is None:
            name = self.cache.path.name if self.cache is not None else "the cache"
            words = f"{name} has no such answer, and there is no model: synthbook models fetch smollm2 gets one"
            known.set_exception(CacheMiss(words))
        else:
            return start(self._live(self.endpoint, request, gate))
        return known

    async def _live(self, endpoint: Endpoint, request: ChatRequest, gate: asyncio.Semaphore) -> ChatResponse:
        async with gate:
            answer = await self._tried(endpoint, request)
        self._count(requests=1)
        return answer if self.cache is None else self.cache.put(request, answer)

    async def _tried(self, endpoint: Endpoint, request: ChatRequest) -> ChatResponse:
        """An answer, in a few tries. After an empty one another seed is tried; if all are empty, that is the answer."""
        assert self._connection is not None
        empty, failed = 0, TransientError("")
        for k in range(self.retry.max_attempts):
            if k:
                self._count(retries=1)
                if failed.empty is None:
                    await self._wait(self.retry.initial_backoff * 2 ** (k - 1), failed.retry_after)
            seed = request.seed if not empty else int(sha256(f"{request.seed} {empty}".encode())[:8], 16) & 0x7FFFFFFF
            try:
                answer = await attempt(self._connection, endpoint, request, seed=seed, seconds=self.retry.timeout)
            except TransientError as error:
                failed = error
            else:
                self._count(answer)
                return answer
            if failed.empty is not None:
                self._count(failed.empty)
                empty += 1
        if failed.empty is not None:
            return failed.empty
        cached = "" if self.cache is None else ". What was answered before is kept"
        raise ModelError(
            f"{endpoint.model} at {endpoint.base_url} failed after {self.retry.max_attempts} attempts;"
            f" last error: {failed}. To fix it, {endpoint.hint}{cached}"
        )

    async def _wait(self, doubled: float, least: float) -> None:
        drawn = doubled * random.uniform(0.5, 1)  # so that not all come back at once
        seconds = min(max(drawn, least), LONGEST_WAIT)
        if self._sleep is None:
            await asyncio.sleep(seconds)
        else:
            self._sleep(seconds)

    def _count(
        self, answer: ChatResponse | None = None, *, requests: int = 0, cache_hits: int = 0, retries: int = 0
    ) -> None:
        with self._lock:
            self.usage.requests += requests
            self.usage.cache_hits += cache_hits
            self.usage.retries += retries
            if answer is not None:
                paid, given = answer.prompt_tokens, answer.completion_tokens
                self.usage.prompt_tokens += paid
                self.usage.completion_tokens += given
                self.usage.cost += (paid * self.prices[0] + given * self.prices[1]) / 1e6
