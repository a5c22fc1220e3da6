"""Generate n records of a task: request, validate, filter, and request again until n are kept.

Requests are sent in rounds. The recent yield sets the size of a round, which is at most that of all rounds before it,
so that few requests are wasted. Each answer passes all stages before the next one does: whether the i-th is kept
depends on the earlier answers alone, and not on rounds or on the order of arrival.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
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
    """The endpoint that a task or the environment names, None for the local model.

    Raises `InvalidArgument` where task and environment name different ones: the key is for one of them only.
    """
    file = task.path.name
    url, name = _one(file, "url", task.model.url, URL), _one(file, "name", task.model.name, MODEL)
    if not url:
        if task.model.name is not None:
            raise InvalidArgument(f"{file}: model.name", name, f"an address as well: model.url or {URL}")
        return None
    if not name:
        accepted = f"the name by which {url} knows its model, here or in {MODEL}"
        raise InvalidArgument(f"{file}: model.name", None, accepted)
    try:
        return Endpoint(url, name, os.environ.get(KEY, ""), hint=f"look at [model] in {file}, {URL}, {MODEL} and {KEY}")
    except InvalidArgument as error:
        if task.model.url is None or error.argument != URL:
            raise
        raise InvalidArgument(f"{file}: model.url", error.value, error.accepted) from None


def _one(file: str, key: str, written: str | None, variable: str) -> str:
    exported = os.environ.get(variable, "").strip()
    if written is not None and exported and written.strip() != exported:
        accepted = f"the same as in {variable}, or take one of them out"
        raise InvalidArgument(f"{file}: model.{key}", written if key == "name" else "another address", accepted)
    return exported or (written or "").strip()


def open_endpoint(endpoint: Endpoint | None) -> AbstractContextManager[Endpoint]:
    """The endpoint as a context; the local model is started, and stopped at the end."""
    from synthbook.language.server import local_server

    return local_server() if endpoint is None else nullcontext(endpoint)


# ── The run ──


_FIRST = 32  # questions of the first round
_JUDGED = 64  # answers that a judgement about the yield takes
_CONFIDENCE = 0.95
_MOST = 20  # questions for each record that is wanted
_HASHES, _DETECTED = 100, 0.95
ENOUGH = "enough"
_UNFINISHED = {"length": "cut off (max_tokens)", "content_filter": "held back by the server"}


@dataclass(frozen=True)
class DroppedRecord:
    """A dropped record, with the stage and the reason."""

    record: Record
    stage: str
    reason: str


@dataclass
class GenerationResult:
    """The result of a task. `answers`: all, by index; `passed`: whether each passed all filters.

    `stop_reason`: why it ended before n records were kept, else "".
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
        """The share of answers that passed all filters."""
        return sum(self.passed) / len(self.passed) if self.passed else 0.0

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of all prompts and of all answers, cached ones included."""
        return sum(a.prompt_tokens for a in self.answers), sum(a.completion_tokens for a in self.answers)

    def cost(self, prices: tuple[float, float]) -> float:
        """The cost of these tokens, at prices of a million."""
        return sum(count * price for count, price in zip(self.tokens, prices, strict=True)) / 1e6


def request_budget(n: int, max_requests: int | None) -> int:
    """The maximum number of requests for n records, 20 n by default. Raises `InvalidArgument` below n."""
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
    """Generate until n records are kept, `max_requests` requests were sent, or the yield is too low to reach n.

    `model_name` goes into the provenance of each record. Raises what the model raises, and `InvalidArgument` where n
    records cannot be had.
    """
    result = GenerationResult(n, request_budget(n, max_requests))

    def records() -> Iterator[Record]:
        while size := _round(result):
            first = len(result.answers)
            prompts = [task.question(i, seed=seed) for i in range(first, first + size)]
            for prompt, answer in zip(prompts, model([one.request for one in prompts]), strict=True):
                result.answers.append(answer)
                before = result.ledger[-1].n_in
                yield _record(prompt, answer, model_name)
                result.passed.append(result.ledger[-1].n_in > before)

    def drop(record: Record, stage: str, reason: str) -> None:
        result.dropped.append(DroppedRecord(record, stage, reason))

    flow, result.ledger = run_pipeline(records(), _stages(task, result), on_drop=drop)
    callback(0, n)
    for record in flow:
        result.kept.append(record)
        callback(len(result.kept), n)
    result.stop_reason = "" if len(result.kept) == n else _stop_reason(result)
    return result


def _round(result: GenerationResult) -> int:
    """The number of requests in the next round; 0 ends the run."""
    requests, missing = len(result.passed), result.n - sum(result.passed)
    left = result.max_requests - requests
    if missing <= 0 or left <= 0:
        return 0
    if not requests:
        return min(result.n, _FIRST)
    passed, recent = _recent_yield(result.passed)
    if requests >= _JUDGED and passed < recent:  # the highest plausible yield, by Clopper and Pearson (1934)
        upper = float(betaincinv(passed + 1, recent - passed, _CONFIDENCE))
        if missing > upper * left:
            return 0
    return min(ceil(missing * (recent + 1) / (passed + 0.5)), requests, left)


def _recent_yield(passed: Sequence[bool]) -> tuple[int, int]:
    """How many passed of how many: of the newer half of the answers, and of at least `_JUDGED`."""
    recent = passed[-max(_JUDGED, len(passed) // 2) :]
    return sum(recent), len(recent)


def _stop_reason(result: GenerationResult) -> str:
    limit = f"{result.max_requests:,} requests"
    if len(result.passed) >= result.max_requests:
        return f"the limit of {limit} (max-requests) was reached"
    passed, recent = _recent_yield(result.passed)
    return f"of the last {recent:,} answers {passed:,} passed, too few for {result.n:,} within {limit}"


# ── from answers to records ──────────────────────────────────────────────────────────────────────────────────────────


def _record(prompt: RenderedPrompt, answer: ChatResponse, model_name: str) -> Record:
    request, tokens = prompt.request, [answer.prompt_tokens, answer.completion_tokens]
    provenance = {"index": request.index, "values": dict(prompt.values), "seed_lines": list(prompt.shown)}
    provenance |= {"model": model_name, "finish": answer.finish_reason, "tokens": tokens}
    return Record(f"{request.index:06d}", request.messages[-1].content, answer.text, provenance=provenance)


def value(record: Record, name: str) -> str:
    """The value of a field or, where there is no such field, of a placeholder."""
    return str(as_text(record.provenance["fields"].get(name, record.provenance["values"].get(name))))


def _stages(task: TaskConfig, result: GenerationResult) -> dict[str, Stage]:
    """The stages that an answer passes through, in this order; each reads one record at a time."""
    filters, form = task.filters, task.form
    stages: dict[str, Stage] = {"form": _parse_response(form, filters.label)}
    if filters.min_length is not None or filters.max_length is not None:
        stages["length"] = _length(filters.min_length or 0, filters.max_length)
    if filters.copies_of_seeds is not None and task.examples is not None:
        texts = tuple(task.compared(row) for row in task.examples.rows)
        seeds = SeedExamples(texts, ("",) * len(texts))
        stages["no copy of a seed"] = drop_seed_copies(seeds, threshold=filters.copies_of_seeds)
    if form is None or form.has_text:
        stages["exact duplicates"] = drop_exact_duplicates()
    if filters.near_duplicates is not None:
        stages["near duplicates"] = drop_near_duplicates(near_duplicate_index(filters.near_duplicates), batch=1)
    if (limit := task.at_most(result.n)) is not None:
        stages["balance"] = cap_per_class(limit, lambda record: value(record, str(filters.balance)))
    stages[ENOUGH] = keep_if(lambda record: len(result.kept) < result.n, f"{result.n:,} are kept")
    return stages


def near_duplicate_index(threshold: float) -> NearDuplicateIndex:
    """An index of 100 hashes per text, in the longest bands that detect 95 % of the pairs at the threshold."""
    detection = {rows: lsh_detection_probability(threshold, _HASHES // rows, rows) for rows in range(1, 6)}
    rows = max((rows for rows, probability in detection.items() if probability >= _DETECTED), default=1)
    return NearDuplicateIndex(threshold=threshold, bands=_HASHES // rows, rows=rows)


def _parse_response(form: ResponseSchema | None, label: str | None) -> Stage:
    """Keep complete answers that match the schema; their fields go to the provenance, their text is the response."""

    def judge(record: Record) -> StageResult:
        fields: dict[str, Any] = {TEXT: record.response.strip()}
        error = _UNFINISHED.get(record.provenance["finish"]) or ("" if fields[TEXT] else "empty")
        if form is not None and not error:
            fields, error = form.read(record.response)
        if error:
            return record, error
        text = fields[TEXT] if form is None else form.text(fields)
        parsed = replace(record, response=text, provenance={**record.provenance, "fields": fields})
        return replace(parsed, label="" if label is None else value(parsed, label)), None

    return lambda records: map(judge, records)


def _length(low: int, high: int | None) -> Stage:
    def judge(record: Record) -> StageResult:
        length = len(record.response)
        long = f"longer than {high:,}" if high is not None and length > high else None
        return record, f"shorter than {low:,}" if length < low else long

    return lambda records: map(judge, records)
