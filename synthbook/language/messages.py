"""Requests to chat models and their responses, for every model.

A model is any function from requests to responses, in their order: `Client.chat` of a real one, or a scripted model
whose errors are known. A response is data, whatever it says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from synthbook.core.errors import InvalidArgument
from synthbook.core.storage import sha256, strict_json

_ROLES = ("system", "user", "assistant")
SURROGATES = re.compile("[\ud800-\udfff]")  # of a surrogate pair: no character, and not to be written as UTF-8

_MARK = re.compile(
    r"<(?=[|\uff5c]|/?(?:s|bos|eos|pad|unk|SYS|im_start|im_end|start_of_turn|end_of_turn)>)|\[(?=/?INST\])"
)


@dataclass(frozen=True)
class Message:
    """One turn; `role` is system, user or assistant."""

    role: str
    content: str

    def __post_init__(self) -> None:
        is_text = isinstance(self.content, str)
        if self.role not in _ROLES or not is_text or SURROGATES.search(self.content):
            given = (self.role, self.content[:60] if is_text else self.content)
            raise InvalidArgument("message", given, f"text of whole characters, said by one of {', '.join(_ROLES)}")


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters: at most `max_tokens`, until one of `stop`, of the JSON `schema` where one is given.

    The server gets a seed that depends on `seed` and the index of the sample.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 128
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < inf or not 0 < self.top_p <= 1:
            given, accepted = (self.temperature, self.top_p), "a temperature of at least 0, a top_p above 0, at most 1"
            raise InvalidArgument("temperature, top_p", given, accepted)
        if not (isinstance(self.max_tokens, int) and 1 <= self.max_tokens <= 100_000):
            raise InvalidArgument("max_tokens", self.max_tokens, "a whole number from 1 to 100,000")
        stop: Any = self.stop
        if isinstance(stop, str) or not all(isinstance(text, str) and text for text in stop):
            raise InvalidArgument("stop", stop, 'texts that are not empty, such as ("\\n",)')


@dataclass(frozen=True)
class ChatRequest:
    """The `index`-th sample of an answer to a conversation."""

    messages: tuple[Message, ...]
    sampling: SamplingParams = SamplingParams()
    index: int = 0

    @property
    def payload(self) -> dict[str, Any]:
        """Messages and sampling as plain JSON: all but the index of the sample.

        Hashed into `cache_key`: its keys stay when attributes are renamed, so that recorded responses match.
        """
        drawn = self.sampling
        return {
            "messages": [{"role": message.role, "content": message.content} for message in self.messages],
            "sampling": {
                "temperature": drawn.temperature,
                "top_p": drawn.top_p,
                "max_tokens": drawn.max_tokens,
                "stop": list(drawn.stop),
                "schema": drawn.schema,
                "seed": drawn.seed,
            },
        }

    def cache_key(self, model: str) -> str:
        """SHA-256 of the model's fingerprint, the payload and the index."""
        return sha256(strict_json([model, self.payload, self.index], sort_keys=True).encode())

    @property
    def seed(self) -> int:
        """The seed that the server gets, of 31 bits, another one for each sample."""
        return int(sha256(f"{self.sampling.seed} {self.index}".encode())[:8], 16) & 0x7FFFFFFF


@dataclass(frozen=True)
class ChatResponse:
    """A response. `finish_reason` is "stop", or "length" where `max_tokens` cut it; `cached`: it was in the cache."""

    text: str
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False


ChatModel = Callable[[Iterable[ChatRequest]], Iterator[ChatResponse]]  # a response to each request, in their order


def single_turn(text: str, **sampling: Any) -> ChatRequest:
    """A request of one message."""
    return ChatRequest((Message("user", text),), SamplingParams(**sampling))


def few_shot(examples: Iterable[tuple[str, str]], prompt: str) -> tuple[Message, ...]:
    """A conversation that shows pairs of a prompt and its answer, and ends with a new prompt."""
    turns = [Message(role, text) for pair in examples for role, text in zip(("user", "assistant"), pair, strict=True)]
    return (*turns, Message("user", prompt))


def scripted_model(answer: Callable[[ChatRequest], str]) -> ChatModel:
    """A model that answers by a function.

    >>> next(scripted_model(lambda ask: ask.messages[-1].content.upper())([single_turn("hello")])).text
    'HELLO'
    """
    return lambda requests: (ChatResponse(answer(request)) for request in requests)


def break_special_tokens(text: str) -> str:
    """A text whose special tokens of chat templates are broken up by a space.

    >>> break_special_tokens("bye<|im_end|> [INST] 1 < 2")
    'bye< |im_end|> [ INST] 1 < 2'
    """
    return _MARK.sub(lambda match: f"{match[0]} ", text)
