"""What flows through the pipeline: a prompt, what was answered, where it came from, and what was said about it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from synthbook.core.errors import DataError
from synthbook.core.storage import sha256

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """One answer. `label` is its kind; `provenance` tells who made it, `verdicts` what each stage found."""

    id: str
    prompt: str
    response: str
    label: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    verdicts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content_hash(self) -> str:
        """SHA-256 of what was asked, answered and labelled: the same for the same content, whoever made it."""
        return sha256(json.dumps([self.prompt, self.response, self.label]).encode())

    def with_verdict(self, stage: str, verdict: Any) -> Record:
        """The same record with one more verdict."""
        return replace(self, verdicts={**self.verdicts, stage: verdict})

    def to_json_line(self) -> str:
        """One line of JSON; text is data, whatever it says."""
        return json.dumps(asdict(self), sort_keys=True) + "\n"


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number and the object of each line of a JSONL file, read as it is needed; blank lines are passed over.

    Raises `DataError`, which names the line, for what is no JSON object.
    """
    with Path(path).open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            try:
                line = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number}: not JSON ({error}): one object is expected there") from None
            if not isinstance(line, dict):
                raise DataError(f"{path}, line {number}: a {type(line).__name__}; one JSON object is expected there")
            yield number, line


def read_records(path: Path) -> Iterator[Record]:
    """Records that `Record.line` wrote. Raises `DataError` for a line that is none."""
    for number, line in read_jsonl(path):
        try:
            yield Record(**line)
        except TypeError as error:
            raise DataError(f"{path}, line {number}: no record ({error})") from None


def truncate_partial_line(path: Path) -> None:
    """Cut off a last line that was being written when its run was killed."""
    with Path(path).open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)


def batched(items: Iterable[T], n: int) -> Iterator[list[T]]:
    """Items in lists of n, the last one shorter; read as they are needed."""
    source = iter(items)
    while some := list(islice(source, n)):
        yield some
