"""The record of the pipeline: a prompt, a response, its label, its provenance, and the verdicts on it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from synthbook.core.errors import DataError
from synthbook.core.storage import sha256

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Record:
    """One response with its label; `provenance` says which model wrote it, `verdicts` what each stage decided."""

    id: str
    prompt: str
    response: str
    label: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    verdicts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content_hash(self) -> str:
        """SHA-256 of prompt, response and label, whatever their provenance."""
        return sha256(json.dumps([self.prompt, self.response, self.label]).encode())

    def with_verdict(self, stage: str, verdict: Any) -> Record:
        """The same record with one more verdict."""
        return replace(self, verdicts={**self.verdicts, stage: verdict})

    def to_json_line(self) -> str:
        """The record as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True) + "\n"


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number and the object of each line of a JSONL file, read lazily; blank lines are skipped.

    Raises `DataError`, which names the line, for a line that is not a JSON object.
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
    """The records that `Record.to_json_line` wrote. Raises `DataError` for a line that is none."""
    for number, line in read_jsonl(path):
        try:
            yield Record(**line)
        except TypeError as error:
            raise DataError(f"{path}, line {number}: no record ({error})") from None


def truncate_partial_line(path: Path) -> None:
    """Cut off a last line without a newline, which a killed run left."""
    with Path(path).open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)


def batched(items: Iterable[_Item], n: int) -> Iterator[list[_Item]]:
    """Items in lists of n, the last one shorter, read lazily."""
    source = iter(items)
    while some := list(islice(source, n)):
        yield some
