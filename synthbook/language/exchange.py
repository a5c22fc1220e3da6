"""One try to be answered: a question goes out, and nothing that comes back is trusted.

It may be late, broken, empty, huge or no JSON. All of it, the head and refusals included, must come within the time and
the size of a try. So tries run on an event loop in a thread of its own, which can give any of them up at any moment.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from synthbook.language.chat import HALVES, Answer, Ask, unmarked
from synthbook.language.endpoint import KEY, Endpoint, ModelError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

LONGEST = 1_000_000  # bytes of an answer
MOST = 1_000_000_000  # tokens that one answer can have cost
HEADERS = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent"}
PASSING = {408, 409, 425, 429}  # states that may be over soon, as may all from 500 on


class Passing(Exception):
    """What may be over at the next try; `wait`: seconds that the server asked for; `empty`: it said nothing."""

    def __init__(self, words: str, wait: float = 0.0, *, empty: Answer | None = None):
        super().__init__(words)
        self.wait, self.empty = wait, empty


_loops: dict[int, asyncio.AbstractEventLoop] = {}  # by process: a forked one has no thread of its parent
_starting = threading.Lock()


def start(work: Coroutine[Any, Any, Answer]) -> Future[Answer]:
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
        request.headers["authorization"] = f"Bearer {endpoint.key}"

    async def look(response: Any) -> None:
        if response.is_success:
            return
        try:
            said = await _whole(response)
        except Passing as broken:
            said = str(broken).encode()
        raise _refusal(endpoint, response.status_code, said, response.headers.get("retry-after"))

    hooks: dict[str, list[Any]] = {"request": [keep_to_ours], "response": [look]}
    http = openai.DefaultAsyncHttpxClient(trust_env=not endpoint.loopback, follow_redirects=False, event_hooks=hooks)
    plain = {"Accept-Encoding": "identity"}  # what is packed has no size until it is unpacked
    return openai.AsyncOpenAI(
        base_url=endpoint.url, api_key=endpoint.key, max_retries=0, http_client=http, default_headers=plain
    )


async def answered(connection: AsyncOpenAI, endpoint: Endpoint, ask: Ask, *, seed: int, seconds: float) -> Answer:
    """One try. Raises `Passing` for what another may mend, `ModelError` for what it cannot."""
    import openai

    create = connection.chat.completions.with_streaming_response.create
    try:
        async with (
            asyncio.timeout(seconds),
            create(**request(ask, endpoint.model, seed), timeout=seconds) as response,
        ):
            content = await _whole(response.http_response)
    except (TimeoutError, openai.APITimeoutError):
        failed = f"no whole answer in {seconds:g} s"
    except openai.OpenAIError as error:  # of the connection
        failed = endpoint.shown(f"{error} {error.__cause__ or ''}")
    else:
        return _read(content, endpoint)
    raise Passing(failed)  # out here, because the library's errors hold the key, and errors remember each other


def request(ask: Ask, model: str, seed: int) -> dict[str, Any]:
    """The body that is sent. No message holds a whole mark by which a chat template would end it."""
    drawn = ask.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": turn.role, "content": unmarked(turn.content)} for turn in ask.messages],
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
            if len(content) > LONGEST:
                failed = f"an answer of more than {LONGEST:,} bytes"
                break
    except Exception as error:  # of the transport, which is another library from version to version
        failed = f"the answer broke off ({type(error).__name__})"
    if failed:
        raise Passing(failed)
    return bytes(content)


def _refusal(endpoint: Endpoint, code: int, said: bytes, wait: str | None) -> Exception:
    words = f"HTTP {code}: {endpoint.shown(_message(said)) or 'without a word'}"
    if code in PASSING or code >= 500:
        return Passing(words, _seconds(wait))
    if code in (401, 403):
        words += f" (it does not accept the key, which is read from {KEY})"
    return ModelError(f"{endpoint.model} at {endpoint.url} refused: {words}")


def _message(said: bytes) -> str:
    text = said.decode(errors="replace")
    try:
        found = json.loads(text)
        for name in ("error", "message"):
            found = found.get(name, found) if isinstance(found, dict) else found
        return str(found)
    except (ValueError, RecursionError):
        return text


def _seconds(header: str | None) -> float:
    """What a Retry-After header asks for; dates are not read."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0


def _read(content: bytes, endpoint: Endpoint) -> Answer:
    try:
        found = json.loads(content)
        choice, usage = found["choices"][0], found.get("usage") or {}
        text, finish = choice["message"]["content"] or "", choice.get("finish_reason") or "stop"
        asked, given = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        if not isinstance(text, str) or not isinstance(finish, str) or not (0 <= asked <= MOST and 0 <= given <= MOST):
            raise TypeError
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        wrong = type(error).__name__
    else:
        text, finish = (HALVES.sub("\ufffd", endpoint.without_key(said)) for said in (text, finish))
        answer = Answer(text, finish[:40], asked, given)
        if text.strip():
            return answer
        raise Passing("an empty answer", empty=answer)
    raise Passing(f"no chat completion ({wrong}), but {endpoint.shown(content.decode(errors='replace'), 60)!r}")
