"""Question and answer sets from a document: two turns, each checked against the document that it claims to know.

A model that is asked about a passage may answer from what it read elsewhere. An answer is grounded here when most of
its words stand in the passage: a test of copying, which a right answer in other words fails, and a wrong one may pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, Field

from synthbook.language.filters.dedup import tokenize
from synthbook.language.filters.schema import pinned_schema, validate_json
from synthbook.language.messages import ChatModel, ChatRequest, ChatResponse, Message, SamplingParams
from synthbook.language.pipeline import Stage, StageResult
from synthbook.language.records import Record

PASSAGE = (50, 90)  # words
SHOWN = (
    "The library of the town opens at nine. It lends books for three weeks, and films for one week.",
    ("When does the library open?", "It opens at nine."),
    ("For how long does it lend films?", "For one week."),
)


class QAPair(BaseModel):
    """What one turn is: a question about the passage, and its answer."""

    model_config = pinned_schema("Turn", "What one turn is: a question about the passage, and its answer.")

    question: str = Field(min_length=8, max_length=120)
    answer: str = Field(min_length=2, max_length=160)


@dataclass(frozen=True)
class Document:
    """A passage, and where it stands."""

    id: str
    text: str


def passages(novels: Sequence[str], titles: Sequence[str], n: int, *, seed: int) -> list[Document]:
    """n paragraphs of a length that a small model can read, from novels in turn."""
    rng, found = np.random.default_rng([seed, 44]), list[Document]()
    for k in range(n):
        novel = k % len(novels)
        parts = [" ".join(part.split()) for part in novels[novel].split("\n\n")]
        fit = [part for part in parts if PASSAGE[0] <= len(part.split()) <= PASSAGE[1] and '"' not in part]
        found.append(Document(f"{titles[novel]}, {k:02d}", fit[int(rng.integers(len(fit)))]))
    return found


def dialogues(model: ChatModel, documents: Sequence[Document], *, seed: int = 0) -> list[Record]:
    """Two turns about each document, a record each; the second question is asked after the first answer was given."""
    sampling = SamplingParams(temperature=0.7, max_tokens=110, schema=QAPair.model_json_schema(), seed=seed)
    requests = [ChatRequest(_begun(document.text), sampling, k) for k, document in enumerate(documents)]
    first = list(model(requests))
    more = Message("user", "Ask and answer another question about it.")
    again = [
        ChatRequest((*request.messages, Message("assistant", a.text), more), sampling, request.index)
        for request, a in zip(requests, first, strict=True)
    ]
    second = list(model(again))
    return [
        _record(document, k, turn, answer)
        for k, (document, *both) in enumerate(zip(documents, first, second, strict=True))
        for turn, answer in enumerate(both, start=1)
    ]


def _begun(passage: str) -> tuple[Message, ...]:
    text, *turns = SHOWN
    told = [json.dumps({"question": question, "answer": answer}) for question, answer in turns]
    request = "Ask and answer a question about this text, as JSON: "
    return (
        Message("user", f"{request}{text}"),
        Message("assistant", told[0]),
        Message("user", "Ask and answer another question about it."),
        Message("assistant", told[1]),
        Message("user", f"{request}{passage}"),
    )


def _record(document: Document, k: int, turn: int, answer: ChatResponse) -> Record:
    told = {"document": document.id, "turn": turn, "finish": answer.finish_reason}
    return Record(f"{k:03d}-{turn}", document.text, answer.text, f"turn {turn}", told)


def answer_grounded(*, threshold: float = 0.7) -> Stage:
    """Keeps turns that ask something, and whose answer has at least a share `least` of its words from the passage."""

    def stage(records: Iterable[Record]) -> Iterator[StageResult]:
        for record in records:
            turn, wrong = validate_json(record.response, QAPair)
            if turn is None:
                yield record.with_verdict("grounded", wrong), "invalid JSON"
                continue
            known, said = set(tokenize(record.prompt)), tokenize(turn.answer)
            share = sum(word in known for word in said) / max(len(said), 1)
            reason = "asks nothing" if not turn.question.rstrip().endswith("?") else None
            yield (
                record.with_verdict("grounded", round(share, 3)),
                reason or (None if share >= threshold else "not grounded"),
            )

    return stage
