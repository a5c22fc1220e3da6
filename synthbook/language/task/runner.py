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
from synthbook.language.few_shot import Seeds, no_copies
from synthbook.language.filters.dedup import NearDuplicates, detection
from synthbook.language.messages import Answer, Model
from synthbook.language.pipeline import Entry, Stage, Told, at_most, exact_duplicates, near_duplicates, only, run
from synthbook.language.records import Record
from synthbook.language.task.config import TEXT, Question, Task
from synthbook.language.task.fields import Form
from synthbook.language.task.template import as_text


def chosen(task: Task) -> Endpoint | None:
    """The model at an address, None for the one on this machine.

    Raises `InvalidArgument` where task and environment name different ones: the key is for one of them only.
    """
    file = task.path.name
    url, name = _one(file, "url", task.chosen.url, URL), _one(file, "name", task.chosen.name, MODEL)
    if not url:
        if task.chosen.name is not None:
            raise InvalidArgument(f"{file}: model.name", name, f"an address as well: model.url or {URL}")
        return None
    if not name:
        raise InvalidArgument(
            f"{file}: model.name", None, f"the name by which {url} knows its model, here or in {MODEL}"
        )
    try:
        return Endpoint(
            url, name, os.environ.get(KEY, ""), remedy=f"look at [model] in {file}, {URL}, {MODEL} and {KEY}"
        )
    except InvalidArgument as error:
        if task.chosen.url is None or error.argument != URL:
            raise
        raise InvalidArgument(f"{file}: model.url", error.value, error.accepted) from None


def _one(file: str, key: str, written: str | None, variable: str) -> str:
    found = os.environ.get(variable, "").strip()
    if written is not None and found and written.strip() != found:
        accepted = f"the same as in {variable}, or take one of them out"
        raise InvalidArgument(f"{file}: model.{key}", written if key == "name" else "another address", accepted)
    return found or (written or "").strip()


def opened(endpoint: Endpoint | None) -> AbstractContextManager[Endpoint]:
    """The model, started where it is on this machine, and stopped at the end."""
    from synthbook.language.server import local_server

    return local_server() if endpoint is None else nullcontext(endpoint)


# ── The run ──


FIRST = 32  # questions of the first round
JUDGED = 64  # answers that a judgement about the yield takes
SURE = 0.95
MOST = 20  # questions for each record that is wanted
HASHES, DETECTED = 100, 0.95
ENOUGH = "enough"
UNFINISHED = {"length": "cut off (max_tokens)", "content_filter": "held back by the server"}


@dataclass(frozen=True)
class Drop:
    """A record as it was when a stage dropped it, and why."""

    record: Record
    stage: str
    reason: str


@dataclass
class Made:
    """What came of a task. `answers`: each as it came, by number; `passed`: whether all filters let it through.

    `why`: what ended it before n were kept, else "".
    """

    n: int
    most: int
    kept: list[Record] = field(default_factory=list)
    dropped: list[Drop] = field(default_factory=list)
    ledger: list[Entry] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    passed: list[bool] = field(default_factory=list)
    why: str = ""

    @property
    def share(self) -> float:
        """Of the answers, those that passed all filters: the yield."""
        return sum(self.passed) / len(self.passed) if self.passed else 0.0

    @property
    def tokens(self) -> tuple[int, int]:
        """Of all questions and of all answers, whenever they were asked."""
        return sum(a.prompt_tokens for a in self.answers), sum(a.completion_tokens for a in self.answers)

    def cost(self, prices: tuple[float, float]) -> float:
        """Of these tokens, at prices of a million."""
        return sum(count * price for count, price in zip(self.tokens, prices, strict=True)) / 1e6


def allowed(n: int, most: int | None) -> int:
    """How many questions may be asked for n records; raises `InvalidArgument` for fewer than n."""
    if n < 1:
        raise InvalidArgument("n", n, "at least 1 record")
    if most is not None and most < n:
        raise InvalidArgument("most-asks", most, f"at least {n:,}, a question for each record")
    return MOST * n if most is None else most


def generate(
    task: Task,
    model: Model,
    n: int,
    *,
    seed: int = 0,
    most: int | None = None,
    maker: str = "",
    callback: Callable[[int, int], None] = lambda kept, n: None,
) -> Made:
    """Ask until n records are kept, `most` questions were asked, or it is plain that these will not do.

    `maker` names the model in each record. Raises what the model raises, and `InvalidArgument` for an n that is not to
    be had.
    """
    made = Made(n, allowed(n, most))

    def records() -> Iterator[Record]:
        while size := _round(made):
            first = len(made.answers)
            asked = [task.question(i, seed=seed) for i in range(first, first + size)]
            for question, answer in zip(asked, model([one.ask for one in asked]), strict=True):
                made.answers.append(answer)
                before = made.ledger[-1].came
                yield _record(question, answer, maker)
                made.passed.append(made.ledger[-1].came > before)

    def dropped(record: Record, stage: str, reason: str) -> None:
        made.dropped.append(Drop(record, stage, reason))

    flow, made.ledger = run(records(), stages(task, made), dropped=dropped)
    callback(0, n)
    for record in flow:
        made.kept.append(record)
        callback(len(made.kept), n)
    made.why = "" if len(made.kept) == n else _why(made)
    return made


def _round(made: Made) -> int:
    """How many questions to ask next; 0 is the end."""
    asked, missing = len(made.passed), made.n - sum(made.passed)
    left = made.most - asked
    if missing <= 0 or left <= 0 or _hopeless(made.passed, missing, left):
        return 0
    if not asked:
        return min(made.n, FIRST)
    kept, lately = _lately(made.passed)
    return min(ceil(missing * (lately + 1) / (kept + 0.5)), asked, left)


def _lately(passed: Sequence[bool]) -> tuple[int, int]:
    """How many passed of how many: of the newer half of the answers, and of at least `JUDGED`."""
    some = passed[-max(JUDGED, len(passed) // 2) :]
    return sum(some), len(some)


def _hopeless(passed: Sequence[bool], missing: int, left: int) -> bool:
    """Whether the highest yield that the newer answers allow for (Clopper and Pearson 1934) is too low for the rest."""
    kept, lately = _lately(passed)
    if len(passed) < JUDGED or kept == lately:
        return False
    return missing > float(betaincinv(kept + 1, lately - kept, SURE)) * left


def _why(made: Made) -> str:
    if len(made.passed) >= made.most:
        return f"all {made.most:,} questions that it may ask (most-asks) were asked"
    kept, lately = _lately(made.passed)
    return f"of the last {lately:,} answers {kept:,} passed, too few for {made.n:,} within {made.most:,} questions"


# ── from answers to records ──────────────────────────────────────────────────────────────────────────────────────────


def _record(question: Question, answer: Answer, maker: str) -> Record:
    told = {
        "number": question.ask.index,
        "values": dict(question.values),
        "seeds": list(question.shown),
        "model": maker,
        "finish": answer.finish,
        "tokens": [answer.prompt_tokens, answer.completion_tokens],
    }
    return Record(f"{question.ask.index:06d}", question.ask.messages[-1].content, answer.text, provenance=told)


def value(record: Record, name: str) -> str:
    """What a field says or, where there is no such field, what a placeholder was filled with."""
    found = record.provenance["fields"].get(name, record.provenance["values"].get(name))
    return str(as_text(found))


def stages(task: Task, made: Made) -> dict[str, Stage]:
    """What an answer passes through, in this order; every stage takes one record at a time."""
    filters, form = task.filters, task.form
    some: dict[str, Stage] = {"form": _formed(form, filters.label)}
    if filters.min_length is not None or filters.max_length is not None:
        some["length"] = _length(filters.min_length or 0, filters.max_length)
    if filters.copies_of_seeds is not None and task.examples is not None:
        real = tuple(task.compared(row) for row in task.examples.rows)
        some["no copy of a seed"] = no_copies(Seeds(real, ("",) * len(real)), most=filters.copies_of_seeds)
    if form is None or form.has_text:
        some["exact duplicates"] = exact_duplicates()
    if filters.near_duplicates is not None:
        some["near duplicates"] = near_duplicates(remembering(filters.near_duplicates), batch=1)
    if (most := task.at_most(made.n)) is not None:
        some["balance"] = at_most(most, lambda record: value(record, str(filters.balance)))
    some[ENOUGH] = only(lambda record: len(made.kept) < made.n, f"{made.n:,} are kept")
    return some


def remembering(threshold: float) -> NearDuplicates:
    """A memory of 100 hashes for each text, in bands of as many as let at most one pair in twenty at it escape."""
    rows = max((r for r in range(1, 6) if detection(threshold, HASHES // r, r) >= DETECTED), default=1)
    return NearDuplicates(threshold=threshold, bands=HASHES // rows, rows=rows)


def _formed(form: Form | None, label: str | None) -> Stage:
    """Keeps whole answers of the form, and goes on with what they say: fields in the provenance, text as response."""

    def stage(records: Iterable[Record]) -> Iterator[Told]:
        for record in records:
            found: dict[str, Any] = {TEXT: record.response.strip()}
            wrong = UNFINISHED.get(record.provenance["finish"]) or ("" if found[TEXT] else "empty")
            if form is not None and not wrong:
                found, wrong = form.read(record.response)
            if wrong:
                yield record, wrong
                continue
            told = replace(record, response=found[TEXT] if form is None else form.text(found))
            told = replace(told, provenance={**record.provenance, "fields": found})
            yield replace(told, label="" if label is None else value(told, label)), None

    return stage


def _length(least: int, most: int | None) -> Stage:
    def stage(records: Iterable[Record]) -> Iterator[Told]:
        for record in records:
            length = len(record.response)
            long = f"longer than {most:,}" if most is not None and length > most else None
            yield record, f"shorter than {least:,}" if length < least else long

    return stage
