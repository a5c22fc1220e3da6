"""As many records of a task as are wanted: ask, check, drop, count, and ask again for what is missing.

Questions go out in rounds. A round is as large as the share of answers that were kept lately makes necessary, and at
most as large as all before it, so that little is asked in vain. Each answer passes all stages before the next one does:
whether the i-th is kept depends on the answers before it alone, and not on rounds or on who answered first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

from scipy.special import betaincinv

from synthbook.core.errors import InvalidArgument
from synthbook.language.client import KEY, MODEL, URL, Endpoint
from synthbook.language.filters.dedup import NearDuplicateIndex, lsh_detection_probability
from synthbook.language.grounded_qa import SeedExamples, drop_seed_copies
from synthbook.language.messages import ChatModel, ChatResponse
from synthbook.language.pipeline import (
    Stage,
    StageResult,
    StageStats,
    cap_per_class,
    drop_exact_duplicates,
    drop_near_duplicates,
    keep_if,
    run_pipeline,
)
from synthbook.language.records import Record
from synthbook.language.task.config import TEXT, RenderedPrompt, TaskConfig
from synthbook.language.task.fields import ResponseSchema, as_text


def resolve_endpoint(task: TaskConfig) -> Endpoint | None:
    """The model at an address, None for the one on this machine.

    Raises `InvalidArgument` where task and environment name different ones: the key is for one of them only.
    """
    file = task.path.name
    url, name = _one(file, "url", task.model.url, URL), _one(file, "name", task.model.name, MODEL)
    if not url:
        if task.model.name is not None:
            raise InvalidArgument(f"{file}: model.name", name, f"an address as well: model.url or {URL}")
        return None
    if not name:
        raise InvalidArgument(
            f"{file}: model.name", None, f"the name by which {url} knows its model, here or in {MODEL}"
        )
    try:
        return Endpoint(url, name, os.environ.get(KEY, ""), hint=f"look at [model] in {file}, {URL}, {MODEL} and {KEY}")
    except InvalidArgument as error:
        if task.model.url is None or error.argument != URL:
            raise
        raise InvalidArgument(f"{file}: model.url", error.value, error.accepted) from None


def _one(file: str, key: str, written: str | None, variable: str) -> str:
    found = os.environ.get(variable, "").strip()
    if written is not None and found and written.strip() != found:
        accepted = f"the same as in {variable}, or take one of them out"
        raise InvalidArgument(f"{file}: model.{key}", written if key == "name" else "another address", accepted)
    return found or (written or "").strip()


def open_endpoint(endpoint: Endpoint | None) -> AbstractContextManager[Endpoint]:
    """The model, started where it is on this machine, and stopped at the end."""
    from synthbook.language.server import local_server

    return local_server() if endpoint is None else nullcontext(endpoint)


# ── The run ──


_FIRST = 32  # questions of the first round
_JUDGED = 64  # answers that a judgement about the yield takes
_SURE = 0.95
_MOST = 20  # questions for each record that is wanted
_HASHES, _DETECTED = 100, 0.95
ENOUGH = "enough"
_UNFINISHED = {"length": "cut off (max_tokens)", "content_filter": "held back by the server"}


@dataclass(frozen=True)
class DroppedRecord:
    """A record as it was when a stage dropped it, and why."""

    record: Record
    stage: str
    reason: str


@dataclass
class GenerationResult:
    """What came of a task. `answers`: each as it came, by number; `passed`: whether all filters let it through.

    `stop_reason`: what ended it before n were kept, else "".
    """

    n: int
    max_requests: int
    kept: list[Record] = field(default_factory=list)
    dropped: list[DroppedRecord] = field(default_factory=list)
    ledger: list[StageStats] = field(default_factory=list)
    answers: list[ChatResponse] = field(default_factory=list)
    passed: list[bool] = field(default_factory=list)
    stop_reason: str = ""

    @property
    def yield_rate(self) -> float:
        """Of the answers, those that passed all filters: the yield."""
        return sum(self.passed) / len(self.passed) if self.passed else 0.0

    @property
    def tokens(self) -> tuple[int, int]:
        """Of all questions and of all answers, whenever they were asked."""
        return sum(a.prompt_tokens for a in self.answers), sum(a.completion_tokens for a in self.answers)

    def cost(self, prices: tuple[float, float]) -> float:
        """Of these tokens, at prices of a million."""
        return sum(count * price for count, price in zip(self.tokens, prices, strict=True)) / 1e6


def request_budget(n: int, max_requests: int | None) -> int:
    """How many questions may be asked for n records; raises `InvalidArgument` for fewer than n."""
    if n < 1:
        raise InvalidArgument("n", n, "at least 1 record")
    if max_requests is not None and max_requests < n:
        raise InvalidArgument("max-requests", max_requests, f"at least {n:,}, a question for each record")
    return _MOST * n if max_requests is None else max_requests


def generate(
    task: TaskConfig,
    model: ChatModel,
    n: int,
    *,
    seed: int = 0,
    max_requests: int | None = None,
    model_name: str = "",
    callback: Callable[[int, int], None] = lambda kept, n: None,
) -> GenerationResult:
    """Ask until n records are kept, `max_requests` questions were asked, or it is plain that these will not do.

    `model_name` goes into the provenance of each record. Raises what the model raises, and `InvalidArgument` where n
    records cannot be had.
    """
    result = GenerationResult(n, request_budget(n, max_requests))

    def records() -> Iterator[Record]:
        while size := _round(result):
            first = len(result.answers)
            asked = [task.question(i, seed=seed) for i in range(first, first + size)]
            for question, answer in zip(asked, model([one.request for one in asked]), strict=True):
                result.answers.append(answer)
                before = result.ledger[-1].n_in
                yield _record(question, answer, model_name)
                result.passed.append(result.ledger[-1].n_in > before)

    def dropped(record: Record, stage: str, reason: str) -> None:
        result.dropped.append(DroppedRecord(record, stage, reason))

    flow, result.ledger = run_pipeline(records(), stages(task, result), on_drop=dropped)
    callback(0, n)
    for record in flow:
        result.kept.append(record)
        callback(len(result.kept), n)
    result.stop_reason = "" if len(result.kept) == n else _why(result)
    return result


def _round(result: GenerationResult) -> int:
    """How many questions to ask next; 0 is the end."""
    asked, missing = len(result.passed), result.n - sum(result.passed)
    left = result.max_requests - asked
    if missing <= 0 or left <= 0 or _hopeless(result.passed, missing, left):
        return 0
    if not asked:
        return min(result.n, _FIRST)
    kept, lately = _lately(result.passed)
    return min(ceil(missing * (lately + 1) / (kept + 0.5)), asked, left)


def _lately(passed: Sequence[bool]) -> tuple[int, int]:
    """How many passed of how many: of the newer half of the answers, and of at least `JUDGED`."""
    some = passed[-max(_JUDGED, len(passed) // 2) :]
    return sum(some), len(some)


def _hopeless(passed: Sequence[bool], missing: int, left: int) -> bool:
    """Whether the highest yield that the newer answers allow for (Clopper and Pearson 1934) is too low for the rest."""
    kept, lately = _lately(passed)
    if len(passed) < _JUDGED or kept == lately:
        return False
    return missing > float(betaincinv(kept + 1, lately - kept, _SURE)) * left


def _why(result: GenerationResult) -> str:
    if len(result.passed) >= result.max_requests:
        return f"the limit of {result.max_requests:,} requests (max-requests) was reached"
    kept, lately = _lately(result.passed)
    told = f"of the last {lately:,} answers {kept:,} passed, too few for {result.n:,} within"
    return f"{told} {result.max_requests:,} requests"


# ── from answers to records ──────────────────────────────────────────────────────────────────────────────────────────


def _record(question: RenderedPrompt, answer: ChatResponse, model_name: str) -> Record:
    told = {
        "index": question.request.index,
        "values": dict(question.values),
        "seed_lines": list(question.shown),
        "model": model_name,
        "finish": answer.finish_reason,
        "tokens": [answer.prompt_tokens, answer.completion_tokens],
    }
    return Record(f"{question.request.index:06d}", question.request.messages[-1].content, answer.text, provenance=told)


def value(record: Record, name: str) -> str:
    """What a field says or, where there is no such field, what a placeholder was filled with."""
    found = record.provenance["fields"].get(name, record.provenance["values"].get(name))
    return str(as_text(found))


def stages(task: TaskConfig, result: GenerationResult) -> dict[str, Stage]:
    """What an answer passes through, in this order; every stage takes one record at a time."""
    filters, form = task.filters, task.form
    some: dict[str, Stage] = {"form": _formed(form, filters.label)}
    if filters.min_length is not None or filters.max_length is not None:
        some["length"] = _length(filters.min_length or 0, filters.max_length)
    if filters.copies_of_seeds is not None and task.examples is not None:
        real = tuple(task.compared(row) for row in task.examples.rows)
        some["no copy of a seed"] = drop_seed_copies(
            SeedExamples(real, ("",) * len(real)), threshold=filters.copies_of_seeds
        )
    if form is None or form.has_text:
        some["exact duplicates"] = drop_exact_duplicates()
    if filters.near_duplicates is not None:
        some["near duplicates"] = drop_near_duplicates(remembering(filters.near_duplicates), batch=1)
    if (max_requests := task.at_most(result.n)) is not None:
        some["balance"] = cap_per_class(max_requests, lambda record: value(record, str(filters.balance)))
    some[ENOUGH] = keep_if(lambda record: len(result.kept) < result.n, f"{result.n:,} are kept")
    return some


def remembering(threshold: float) -> NearDuplicateIndex:
    """A memory of 100 hashes for each text, in bands of as many as let at most one pair in twenty at it escape."""
    rows = max(
        (r for r in range(1, 6) if lsh_detection_probability(threshold, _HASHES // r, r) >= _DETECTED), default=1
    )
    return NearDuplicateIndex(threshold=threshold, bands=_HASHES // rows, rows=rows)


def _formed(form: ResponseSchema | None, label: str | None) -> Stage:
    """Keeps whole answers of the form, and goes on with what they say: fields in the provenance, text as response."""

    def stage(records: Iterable[Record]) -> Iterator[StageResult]:
        for record in records:
            found: dict[str, Any] = {TEXT: record.response.strip()}
            wrong = _UNFINISHED.get(record.provenance["finish"]) or ("" if found[TEXT] else "empty")
            if form is not None and not wrong:
                found, wrong = form.read(record.response)
            if wrong:
                yield record, wrong
                continue
            told = replace(record, response=found[TEXT] if form is None else form.text(found))
            told = replace(told, provenance={**record.provenance, "fields": found})
            yield replace(told, label="" if label is None else value(told, label)), None

    return stage


def _length(low: int, high: int | None) -> Stage:
    def stage(records: Iterable[Record]) -> Iterator[StageResult]:
        for record in records:
            length = len(record.response)
            long = f"longer than {high:,}" if high is not None and length > high else None
            yield record, f"shorter than {low:,}" if length < low else long

    return stage
