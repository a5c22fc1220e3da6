"""A cache of responses: each is requested once, and stored in a file that people can read.

A line is either a prompt, `{"prompt": P, "model", "messages", "sampling"}`, or an answer to one, `{"key", "prompt": P,
"index", "text", "finish", "tokens": [of the prompt, of the answer]}`; the key is `ChatRequest.cache_key`. Answers
are written as they arrive: a run that was killed has lost at most the line that it was writing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

from synthbook.core.errors import DataError, InvalidArgument, SynthbookError, format_error
from synthbook.core.storage import file_lock, sha256, strict_json
from synthbook.language.messages import ChatRequest, ChatResponse
from synthbook.language.records import truncate_partial_line

FIRST = b'{"prompt": "0000000000000000", "'  # how a file of answers begins, with other digits
SEPARATORS = {ord(mark): f"\\u{ord(mark):04x}" for mark in "\x85\u2028\u2029"}  # which some programs take for newlines


class CacheMiss(SynthbookError):
    """A cache that is only read has no such answer."""


class _Writer:
    """The right to write a file. One process has it at a time, and gives it back when none of its caches needs it."""

    def __init__(self, path: Path):
        self.lock, self._held = Lock(), ExitStack()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._held.enter_context(file_lock(path.with_name(f".{path.name}.writer"), f"{path} is being written"))


_writers: WeakValueDictionary[Path, _Writer] = WeakValueDictionary()
_choosing = Lock()


def _writer(path: Path) -> _Writer:
    with _choosing:
        writer = _writers.get(path.resolve())
        if writer is None:
            writer = _writers[path.resolve()] = _Writer(path)
        return writer


class ResponseCache:
    """The responses of `model`, pinned by name or hash, in the file `path`; `read_only` for a committed one.

    Thread-safe. One process writes at a time, a second one gets a `LockedError`; others may read meanwhile. Raises
    `DataError` for a file that is no cache, `InvalidArgument` for the responses of another model.
    """

    def __init__(self, path: Path, *, model: str, read_only: bool = False):
        self.path, self.model, self.read_only = Path(path), model, read_only
        self._prompts: set[str] = set()
        self._answers: dict[str, ChatResponse] = {}
        if read_only:
            self._read()
            return
        self._writer = _writer(self.path)
        with self._writer.lock:
            self._read()
            if self.path.exists():
                truncate_partial_line(self.path)  # not before it has proved to be ours

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, request: ChatRequest) -> ChatResponse | None:
        """The cached response to a request, else None."""
        return self._answers.get(request.cache_key(self.model))

    def put(self, request: ChatRequest, answer: ChatResponse) -> ChatResponse:
        """Store a response unless there is one, and return the stored one.

        Raises `SynthbookError` where it cannot be written; earlier responses stay.
        """
        if self.read_only:
            raise CacheMiss(f"{self.path} is only read: nothing is added to it")
        key, prompt = request.cache_key(self.model), _prompt(request, self.model)
        with self._writer.lock:
            if key in self._answers:
                return self._answers[key]
            text = "" if prompt["prompt"] in self._prompts else _line(prompt)
            self._append((text + _line(_answer(key, request, answer, prompt["prompt"]))).encode())
            self._prompts.add(prompt["prompt"])
            self._answers[key] = ChatResponse(
                answer.text, answer.finish_reason, answer.prompt_tokens, answer.completion_tokens, cached=True
            )
        return answer

    def _append(self, content: bytes) -> None:
        try:
            with self.path.open("ab", buffering=0) as file:
                whole = file.tell()
                try:
                    while content:
                        content = content[file.write(content) :]
                except OSError:
                    file.truncate(whole)
                    raise
        except OSError as error:
            state = f"the {len(self):,} answers before are kept, and the same command goes on from there"
            raise SynthbookError(f"{self.path} cannot take another answer ({format_error(error)}): {state}") from None

    def _read(self) -> None:
        for line in _lines(self.path):
            if "messages" not in line:
                prompt_tokens, completion_tokens = line["tokens"]
                response = ChatResponse(line["text"], line["finish"], prompt_tokens, completion_tokens, cached=True)
                self._answers[line["key"]] = response
            elif line["model"] == self.model:
                self._prompts.add(line["prompt"])
            else:
                accepted = f"{line['model']!r}, whose answers {self.path} holds, or another file"
                raise InvalidArgument("model", self.model, accepted)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file, each a prompt, or an answer to one before it; one that is being written is not."""
    if not path.exists():
        return
    prompts = set()
    with path.open("rb") as file:
        start = file.peek(1)[: len(FIRST)]
        if not FIRST.startswith(start[:12] + re.sub(rb"[0-9a-f]", b"0", start[12:28]) + start[28:]):
            raise DataError(f"{path} holds no answers: give the path of a new file, or of one that a Replay wrote")
        for number, raw in enumerate(file, start=1):
            if not raw.endswith(b"\n"):
                return
            try:
                line = json.loads(raw)
            except (ValueError, RecursionError):
                line = None
            match line:
                case {"prompt": str(name), "model": str(), "messages": list()}:
                    prompts.add(name)
                case {
                    "key": str(),
                    "prompt": str(name),
                    "index": int(),
                    "text": str(),
                    "finish": str(),
                    "tokens": [int(), int()],
                } if name in prompts:
                    pass
                case _:
                    wrong = "neither a prompt nor an answer to one before it"
                    raise DataError(f"{path}, line {number}: {wrong}. Restore the file, or take this line out")
            yield line


def _prompt(request: ChatRequest, model: str) -> dict[str, Any]:
    about = {"model": model, **request.payload}
    return {"prompt": sha256(strict_json(about, sort_keys=True).encode())[:16], **about}


def _answer(key: str, request: ChatRequest, answer: ChatResponse, prompt: str) -> dict[str, Any]:
    return {
        "key": key,
        "prompt": prompt,
        "index": request.index,
        "text": answer.text,
        "finish": answer.finish_reason,
        "tokens": [answer.prompt_tokens, answer.completion_tokens],
    }


def _line(document: dict[str, Any]) -> str:
    text = strict_json(document).translate(SEPARATORS)
    return text.encode(errors="backslashreplace").decode() + "\n"  # JSON's way to write half of a surrogate pair


def canonical_lines(path: Path) -> Iterator[str]:
    """The lines of a cache in an order that does not depend on arrival: each prompt, then its answers by index."""
    prompts: dict[str, dict[str, Any]] = {}
    answers: dict[str, dict[int, dict[str, Any]]] = {}
    for line in _lines(path):
        if "messages" in line:
            prompts[line["prompt"]] = line
        else:
            answers.setdefault(line["prompt"], {})[line["index"]] = line
    for name in sorted(answers):
        yield _line(prompts[name])
        for index in sorted(answers[name]):
            yield _line(answers[name][index])
