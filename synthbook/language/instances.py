"""What a grown instruction is good for: is it a classification, and what is an instance of it?

    a classification: the label first, then an input that deserves it        Wang et al., arXiv:2212.10560
    any other task: an input, which may be empty, then the output

A model that writes inputs first gives most of them the same label. What comes back is checked for its form, and for
faults that can be seen without knowing the right answer; most wrong answers cannot.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pydantic import BaseModel, Field

from synthbook.core.errors import InvalidArgument
from synthbook.language.chat import Answer, Ask, Message, Model, Sampling
from synthbook.language.pipeline import Entry
from synthbook.language.proposals import MOST_ALIKE, SPEAKER
from synthbook.language.records import Record
from synthbook.language.task_pool import Pool, Task
from synthbook.language.verify.dedup import rouge_l
from synthbook.language.verify.schema import checked

Judged = tuple[Task, str | None]  # and what is wrong with it
SHOWN = 3  # written tasks of a kind, in a question
YES = re.compile(r"\W*yes\b", re.I)


class Instance(BaseModel, extra="forbid"):
    """An input, which may be empty, then the output."""

    input: str = Field(max_length=160)
    output: str = Field(min_length=1, max_length=160)


class Labelled(BaseModel, extra="forbid"):
    """The label first, then an input that deserves it."""

    label: str = Field(min_length=1, max_length=40)
    input: str = Field(min_length=1, max_length=160)


def with_instances(model: Model, pool: Pool, *, each: int = 1, seed: int = 0) -> Iterator[Judged]:
    """Each grown task with its kind and `each` instances, one after the other, and what is wrong with it, else None."""
    if each < 1:
        raise InvalidArgument("each", each, "at least 1 instance of each task")
    written, grown = pool.written, pool.grown
    kinds = [bool(YES.match(answer.text)) for answer in model(_kind_ask(task, written, seed) for task in grown)]
    tasks = [replace(task, classification=kind) for task, kind in zip(grown, kinds, strict=True)]
    asks = (_instance_ask(task, written, seed, k) for task in tasks for k in range(each))
    answers = list(model(asks))
    for i, task in enumerate(tasks):
        yield from _judged([_answered(task, answer, k) for k, answer in enumerate(answers[i * each : (i + 1) * each])])


def records(judged: Iterable[Judged]) -> tuple[list[Record], Entry]:
    """A record of each sound task, and the entry of a ledger that counts the others."""
    kept, entry = list[Record](), Entry("instance")
    for task, reason in judged:
        entry.came += 1
        if reason is None:
            kept.append(task.record())
        else:
            entry.reasons[reason] += 1
    entry.stayed = len(kept)
    return kept, entry


# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _kind_ask(task: Task, written: Sequence[Task], seed: int) -> Ask:
    """Examples are no and yes in turn: after three times the same answer a small model gives it a fourth time."""
    turns = list[Message]()
    for pair in zip(_some(written, False), _some(written, True), strict=False):
        for shown in pair:
            turns += [_question(shown), Message("assistant", '"yes"' if shown.classification else '"no"')]
    schema = {"type": "string", "enum": ["yes", "no"]}
    return Ask((*turns, _question(task)), Sampling(temperature=0.0, max_tokens=8, schema=schema, seed=seed))


def _some(written: Sequence[Task], classification: bool) -> list[Task]:
    """From beginning to end of the list, so that not all are about numbers."""
    some = [task for task in written if task.classification is classification and task.input]
    return some[:: max(len(some) // SHOWN, 1)][:SHOWN]


def _question(task: Task) -> Message:
    return Message("user", f"Does this task ask to choose one of a few labels? {task.instruction}")


def _instance_ask(task: Task, written: Sequence[Task], seed: int, index: int) -> Ask:
    form = Labelled if task.classification else Instance
    turns = list[Message]()
    for shown in _some(written, task.classification):
        turns += [_request(shown), Message("assistant", _as_json(shown))]
    sampling = Sampling(temperature=0.7, max_tokens=100, schema=form.model_json_schema(), seed=seed)
    return Ask((*turns, _request(task)), sampling, index)


def _request(task: Task) -> Message:
    order = "a label, then an input that deserves it" if task.classification else "an input, then the output"
    return Message("user", f"Give {order}, as JSON, for this task: {task.instruction}")


def _as_json(task: Task) -> str:
    label_first = {"label": task.output, "input": task.input}
    found = label_first if task.classification else {"input": task.input, "output": task.output}
    return json.dumps(found, ensure_ascii=False)


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _answered(task: Task, answer: Answer, k: int) -> Judged:
    named = replace(task, id=f"{task.id}.{k}") if k else task
    if answer.finish == "length":
        return named, "cut off"
    if task.classification:
        labelled, wrong = checked(answer.text, Labelled)
        found = ("", "") if labelled is None else (labelled.input, labelled.label)
    else:
        plain, wrong = checked(answer.text, Instance)
        found = ("", "") if plain is None else (plain.input, plain.output)
    whole = replace(named, input=found[0].strip(), output=found[1].strip())
    return whole, wrong or _fault(whole)


def _fault(task: Task) -> str | None:
    if not task.output:
        return "no output"
    if task.output.rstrip(".") == task.input.rstrip("."):
        return "repeats its input"
    if rouge_l(task.output, task.instruction) >= MOST_ALIKE:
        return "repeats its instruction"
    if task.input.endswith(":") or task.output.endswith(":"):
        return "ends too early"
    return "poses as a turn" if SPEAKER.search(f"{task.input}\n{task.output}") else None


def _judged(instances: Sequence[Judged]) -> Iterator[Judged]:
    """Instances of one task: an input with two outputs discredits all of them, what was said before is dropped."""
    outputs, seen = defaultdict[str, set[str]](set), set[tuple[str, str]]()
    for task, reason in instances:
        if reason is None and task.input:
            outputs[task.input].add(task.output)
    two = any(len(some) > 1 for some in outputs.values())
    for task, reason in instances:
        said = (task.input, task.output)
        if reason is None:
            reason = "one input, two outputs" if two else "said before" if said in seen else None
            seen.add(said)
        yield task, reason
