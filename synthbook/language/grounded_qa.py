"""Few-shot labeled messages, and questions whose answers stand in a document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from synthbook.core.errors import InvalidArgument
from synthbook.language.filters.dedup import jaccard, shingles, tokenize
from synthbook.language.filters.verdicts import label_disagrees, pinned_schema, validate_json
from synthbook.language.messages import ChatModel, ChatRequest, ChatResponse, Message, SamplingParams, few_shot
from synthbook.language.pipeline import Stage, StageResult
from synthbook.language.records import Record

PASSAGE = (50, 90)  # words
_ASK, _MORE = "Ask and answer a question about this text, as JSON: ", "Ask and answer another question about it."
_EXAMPLE = (
    "The library of the town opens at nine. It lends books for three weeks, and films for one week.",
    ("When does the library open?", "It opens at nine."),
    ("For how long does it lend films?", "For one week."),
)


class QAPair(BaseModel):
    """A question about the passage, and its answer."""

    model_config = pinned_schema("Turn", "What one turn is: a question about the passage, and its answer.")

    question: str = Field(min_length=8, max_length=120)
    answer: str = Field(min_length=2, max_length=160)


@dataclass(frozen=True)
class Document:
    """A passage and its source."""

    id: str
    text: str


def passages(novels: Sequence[str], titles: Sequence[str], n: int, *, seed: int) -> list[Document]:
    """n paragraphs of `PASSAGE` words, short enough for a small model, from the novels in turn."""
    rng, documents = np.random.default_rng([seed, 44]), list[Document]()
    for k in range(n):
        novel = k % len(novels)
        parts = [" ".join(part.split()) for part in novels[novel].split("\n\n")]
        fit = [part for part in parts if PASSAGE[0] <= len(part.split()) <= PASSAGE[1] and '"' not in part]
        documents.append(Document(f"{titles[novel]}, {k:02d}", fit[int(rng.integers(len(fit)))]))
    return documents


def dialogues(model: ChatModel, documents: Sequence[Document], *, seed: int = 0) -> list[Record]:
    """Two turns about each document, one record each; the second request contains the first answer."""
    sampling = SamplingParams(temperature=0.7, max_tokens=110, schema=QAPair.model_json_schema(), seed=seed)
    text, *turns = _EXAMPLE
    shown = [json.dumps({"question": question, "answer": answer}) for question, answer in turns]
    examples = [(_ASK + text, shown[0]), (_MORE, shown[1])]
    requests = [ChatRequest(few_shot(examples, _ASK + one.text), sampling, k) for k, one in enumerate(documents)]
    first = list(model(requests))
    again = [
        ChatRequest((*request.messages, Message("assistant", a.text), Message("user", _MORE)), sampling, request.index)
        for request, a in zip(requests, first, strict=True)
    ]
    second = list(model(again))
    records = []
    for k, (document, *both) in enumerate(zip(documents, first, second, strict=True)):
        for turn, answer in enumerate(both, start=1):
            provenance = {"document": document.id, "turn": turn, "finish": answer.finish_reason}
            records.append(Record(f"{k:03d}-{turn}", document.text, answer.text, f"turn {turn}", provenance))
    return records


def answer_grounded(*, threshold: float = 0.7) -> Stage:
    """Keep turns with a question, and at least a share `threshold` of the words of the answer in the passage."""

    def judge(record: Record) -> StageResult:
        turn, error = validate_json(record.response, QAPair)
        if turn is None:
            return record.with_verdict("grounded", error), "invalid JSON"
        known, words = set(tokenize(record.prompt)), tokenize(turn.answer)
        share = sum(word in known for word in words) / max(len(words), 1)
        reason = None if share >= threshold else "not grounded"
        if not turn.question.rstrip().endswith("?"):
            reason = "asks nothing"
        return record.with_verdict("grounded", round(share, 3)), reason

    return lambda records: map(judge, records)


# ── Few-shot labels ──
# The label is what was asked for, not what was written: a model that is asked for spam may write a love letter. So each
# message is checked for its form, for copies of the seeds, for repetition, and by a classifier that knows only the
# seeds.


LABEL_DESCRIPTIONS = {
    "spam": "a text message that advertises something or tricks the reader into a call (spam)",
    "ham": "a private text message to a friend or relative (ham)",
}
_RATIONALE_RULES: Mapping[str, Sequence[tuple[str, str]]] = {  # why a real message is what it is, by what it says
    "spam": (
        (r"\b(?:won|win|prize|award|guaranteed|cash)\b", "it promises a prize"),
        (r"\b(?:free|offer|half price|discount)\b", "it praises an offer"),
        (r"\b(?:call|txt|text|reply)\b", "it wants a call or an answer"),
        (r"\d{5}", "it names a number to pay for"),
        ("", "it comes from nobody that the reader knows"),
    ),
    "ham": (
        (r"\?", "somebody asks a friend something"),
        (r"\b(?:love|miss|dear|babe|sorry)\b", "it speaks of feelings between two people"),
        (r"\b(?:home|tonight|tomorrow|today|later|now)\b", "it is about plans for the day"),
        ("", "it goes on with a conversation"),
    ),
}


class LabeledMessage(BaseModel):
    """A message and, before it, the rationale of its label."""

    model_config = pinned_schema(
        "Written", "The form of an answer: a message and, before it, why it deserves its label."
    )

    why: str = Field(max_length=80)
    message: str = Field(min_length=10, max_length=200)


_SCHEMA: dict[str, Any] = LabeledMessage.model_json_schema()


@dataclass(frozen=True)
class SeedExamples:
    """Real labeled texts: all that the model sees of the data."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]

    @classmethod
    def sample(cls, texts: Sequence[str], labels: Sequence[str], n: int, *, seed: int) -> SeedExamples:
        """Draw n texts of each label, of at most 160 characters. Raises `InvalidArgument` where there are fewer."""
        rng, chosen = np.random.default_rng([seed, 42]), list[int]()
        for label in LABEL_DESCRIPTIONS:
            pairs = enumerate(zip(texts, labels, strict=True))
            rows = [i for i, (text, own) in pairs if own == label and len(text) <= 160]
            if len(rows) < n:
                raise InvalidArgument("n", n, f'at most {len(rows)}, as many short messages as are "{label}"')
            chosen += rng.choice(rows, n, replace=False).tolist()
        return cls(tuple(texts[i] for i in chosen), tuple(labels[i] for i in chosen))

    def of(self, label: str) -> list[str]:
        """The texts of a label."""
        return [text for text, own in zip(self.texts, self.labels, strict=True) if own == label]


def rationale(text: str, label: str) -> str:
    """A reason for the label of a real message: that of the first rule that it matches.

    >>> rationale("You have won a prize", "spam"), rationale("Where are you?", "ham")
    ('it promises a prize', 'somebody asks a friend something')
    """
    return next(reason for rule, reason in _RATIONALE_RULES[label] if re.search(rule, text, re.IGNORECASE))


def few_shot_requests(
    seeds: SeedExamples, n: int, *, seed: int, shown: int = 3, prompts: int = 8
) -> Iterator[tuple[ChatRequest, str]]:
    """n requests for each label, and the label; they cycle through `prompts` prompts of `shown` seeds each.

    Few prompts, sampled often, are cheap: a server processes a shared prefix once.
    """
    rng = np.random.default_rng([seed, 43])
    sampling = SamplingParams(temperature=0.9, max_tokens=110, schema=_SCHEMA, seed=seed)
    for label, what in LABEL_DESCRIPTIONS.items():
        question = f"Write {what}, as JSON with the keys why and message."
        for k in range(prompts):
            texts = rng.choice(seeds.of(label), shown, replace=False).tolist()
            answers = [{"why": rationale(text, label), "message": text} for text in texts]
            examples = [(question, json.dumps(answer, ensure_ascii=False)) for answer in answers]
            for i in range(k, n, prompts):
                yield ChatRequest(few_shot(examples, question), sampling, i), label


def few_shot_records(
    requests: Iterable[tuple[ChatRequest, str]], answers: Iterable[ChatResponse], *, model_name: str
) -> list[Record]:
    """A record of each answer, unparsed."""
    records = []
    for k, ((request, label), answer) in enumerate(zip(requests, answers, strict=True)):
        provenance = {"model": model_name, "finish": answer.finish_reason, "tokens": answer.completion_tokens}
        records.append(Record(f"{k:05d}", request.messages[-1].content, answer.text, label, provenance))
    return records


def parse_message(record: Record) -> Record:
    """The message alone, on one line, its rationale in the provenance; invalid JSON stays as it is."""
    parsed, _ = validate_json(record.response, LabeledMessage)
    if parsed is None:
        return record
    provenance = {**record.provenance, "why": parsed.why}
    return replace(record, response=" ".join(parsed.message.split()), provenance=provenance)


def drop_seed_copies(seeds: SeedExamples, *, threshold: float = 0.5) -> Stage:
    """Drop copies of seeds: messages whose Jaccard similarity with a seed, of word trigrams, exceeds `threshold`."""
    real = [shingles(text) for text in seeds.texts]

    def judge(record: Record) -> StageResult:
        own = shingles(record.response)
        nearest = max(jaccard(own, other) for other in real)
        return record.with_verdict("nearest seed", round(nearest, 3)), "copies a seed" if nearest > threshold else None

    return lambda records: map(judge, records)


def label_agrees(classifier: Any) -> Stage:
    """Drop messages whose label disagrees with that of a classifier trained on real ones."""

    def judge(record: Record) -> StageResult:
        disagrees = label_disagrees([record.response], [record.label], classifier)[0]
        verdict, reason = ("doubted", "label mismatch") if disagrees else ("agreed", None)
        return record.with_verdict("label", verdict), reason

    return lambda records: map(judge, records)


def classifier() -> Any:
    """TF-IDF of character n-grams, n from 2 to 5, and logistic regression with balanced class weights."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    runs = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    return make_pipeline(runs, LogisticRegression(C=10.0, class_weight="balanced", max_iter=1_000))
