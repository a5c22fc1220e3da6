"""Self-instruct: a pool of tasks that grows out of a few written ones, with a model as its author.

    show 6 written and 2 grown tasks  ->  a new one  ->  is it like another?  ->  of which kind is it?  ->  an instance
    kept: ROUGE-L < 0.7 against every instruction of the pool                  Wang et al., arXiv:2212.10560

The filter buys difference, not truth: of the paper's tasks 46 in 100 had a fault in some field. A classification gets
its label first and an input for it after, so that not all inputs get the same label.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from synthbook.core.errors import InvalidArgument
from synthbook.core.manifest import read_data
from synthbook.language.chat import Answer, Ask, Message, Model, Sampling
from synthbook.language.records import Record
from synthbook.language.verify.dedup import rouge_l
from synthbook.language.verify.schema import checked

WRITTEN, GROWN = 6, 2  # tasks that a prompt shows
MOST_ALIKE = 0.7
WORDS = (4, 40)  # of an instruction
BEYOND_TEXT = re.compile(
    r"\b(images?|pictures?|photos?|graphs?|files?|maps?|draw|plot|videos?|audio|diagrams?|websites?)\b", re.I
)
STOP = ("\n",)


@dataclass(frozen=True)
class Task:
    """An instruction, an instance, and whether its answers are labels. `origin`: written, or the number of a round."""

    id: str
    instruction: str
    classification: bool = False
    input: str = ""
    output: str = ""
    origin: str = "written"

    def record(self) -> Record:
        """As a record: the prompt is instruction and input."""
        prompt = f"{self.instruction}\n{self.input}".strip()
        kind = "classification" if self.classification else "other"
        return Record(self.id, prompt, self.output, kind, {"origin": self.origin})


class Instance(BaseModel, extra="forbid"):
    """An input, which may be empty, then the output."""

    input: str = Field(max_length=160)
    output: str = Field(min_length=1, max_length=160)


class Labelled(BaseModel, extra="forbid"):
    """The label first, then an input that deserves it."""

    label: str = Field(min_length=1, max_length=40)
    input: str = Field(min_length=1, max_length=160)


@dataclass(frozen=True)
class Round:
    """One round: tasks in the pool before it, proposals, what became of them, how like each was to its nearest task."""

    pool: int
    proposed: int
    reasons: Counter[str]
    likeness: tuple[float, ...]

    @property
    def accepted(self) -> int:
        """Proposals that were kept."""
        return self.reasons["accepted"]


@dataclass
class Pool:
    """Written and grown tasks, what was proposed and dropped with its reason, and the rounds."""

    tasks: list[Task]
    dropped: list[tuple[str, str]] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)

    @property
    def grown(self) -> list[Task]:
        """Those that nobody wrote."""
        return [task for task in self.tasks if task.origin != "written"]


def seed_tasks() -> list[Task]:
    """The 48 written tasks about work with data that come with the book."""
    lines = [json.loads(line) for line in read_data("seed-tasks/seed_tasks.jsonl").decode().splitlines()]
    return [Task(x["id"], x["instruction"], x["classification"], **x["instances"][0]) for x in lines]


# ── growing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def grow(
    model: Model,
    written: Sequence[Task],
    *,
    rounds: int,
    side_by_side: int = 8,
    seed: int = 0,
    most: float = MOST_ALIKE,
) -> Pool:
    """Grow a pool for some rounds of `side_by_side` questions each; `most` = 1 keeps whatever is no empty copy.

    What a question shows depends on the seed and on what was answered before, so that a replay asks the same ones.
    """
    if len(written) < WRITTEN or rounds < 1 or side_by_side < 1:
        raise InvalidArgument("written, rounds", (len(written), rounds), f"at least {WRITTEN} tasks and 1 round")
    pool = Pool(list(written))
    for k in range(rounds):
        rng = np.random.default_rng([seed, 48, k])
        asks = [_ask(_shown(pool, rng), seed, k * side_by_side + i) for i in range(side_by_side)]
        before, reasons, likeness = len(pool.tasks), Counter[str](), list[float]()
        for i, answer in enumerate(model(asks)):
            instruction = parsed(answer.text)
            reason, alike = judged(instruction, [task.instruction for task in pool.tasks], most=most)
            reasons[reason] += 1
            likeness.append(alike)
            if reason == "accepted":
                pool.tasks.append(Task(f"grown_{k:03d}_{i}", instruction, origin=f"round {k}"))
            else:
                pool.dropped.append((instruction, reason))
        pool.rounds.append(Round(before, side_by_side, reasons, tuple(likeness)))
    return pool


def _shown(pool: Pool, rng: np.random.Generator) -> list[str]:
    """Six written tasks and two grown ones, or fewer of these as long as there are no two, in a random order."""
    grown, written = pool.grown, [task for task in pool.tasks if task.origin == "written"]
    few = min(GROWN, len(grown))
    some = [written[i] for i in rng.choice(len(written), min(WRITTEN + GROWN - few, len(written)), replace=False)]
    some += [grown[i] for i in rng.choice(len(grown), few, replace=False)]
    return [some[i].instruction for i in rng.permutation(len(some))]


def _ask(shown: Sequence[str], seed: int, index: int) -> Ask:
    question = Message("user", "Write a new task about work with data, in one line.")
    turns = [turn for text in shown for turn in (question, Message("assistant", text))]
    return Ask((*turns, question), Sampling(temperature=1.0, max_tokens=48, stop=STOP, seed=seed), index)


def parsed(answer: str) -> str:
    """The instruction in an answer: its first line that says something, without a number or marks around it.

    >>> parsed("\\nTask 9: Count the  rows.\\nTask 10: Leave your record.")
    'Count the rows.'
    """
    line = next((line for line in answer.splitlines() if line.strip()), "")
    line = re.split(r"(?<=.)\bTask \d+:", line)[0]  # a second task in the same line
    line = re.sub(r"^\W*(?:Task)?\s*\d*\s*[:.)]\s*", "", line.strip())
    return " ".join(line.strip("*_\"'` ").split())


def judged(instruction: str, known: Sequence[str], *, most: float = MOST_ALIKE) -> tuple[str, float]:
    """ "accepted", or why not, and the likeness to the nearest known instruction."""
    alike = max((rouge_l(instruction, other) for other in known), default=0.0)
    count = len(instruction.split())
    if count < WORDS[0]:
        return "too short", alike
    if count > WORDS[1]:
        return "too long", alike
    if not instruction[0].isalpha() or not instruction.isascii():
        return "no plain sentence", alike
    if BEYOND_TEXT.search(instruction):
        return "not for a model of text", alike
    return ("accepted" if alike < most else "like another"), alike


# ── instances ────────────────────────────────────────────────────────────────────────────────────────────────────────


def with_instances(model: Model, pool: Pool, *, seed: int = 0) -> Iterator[tuple[Task, str | None]]:
    """Each grown task with its kind and an instance, and what is wrong with it, else None."""
    written = [task for task in pool.tasks if task.origin == "written"]
    kinds = list(model(_kind_ask(task, written, seed) for task in pool.grown))
    told = [_is_yes(kind) for kind in kinds]
    answers = model(_instance_ask(t, yes, written, seed) for t, yes in zip(pool.grown, told, strict=True))
    for task, classification, answer in zip(pool.grown, told, answers, strict=True):
        found, wrong = _instance(answer.text, classification)
        whole = Task(task.id, task.instruction, classification, *found, origin=task.origin)
        yield whole, wrong or _fault(whole)


def _kind_ask(task: Task, written: Sequence[Task], seed: int) -> Ask:
    turns = []
    for shown in [*[t for t in written if t.classification][:3], *[t for t in written if not t.classification][:3]]:
        turns += [_question(shown), Message("assistant", '"yes"' if shown.classification else '"no"')]
    schema = {"type": "string", "enum": ["yes", "no"]}
    return Ask((*turns, _question(task)), Sampling(temperature=0.0, max_tokens=8, schema=schema, seed=seed))


def _question(task: Task) -> Message:
    return Message("user", f"Does this task ask to choose one of a few labels? {task.instruction}")


def _is_yes(answer: Answer) -> bool:
    return "yes" in answer.text


def _instance_ask(task: Task, classification: bool, written: Sequence[Task], seed: int) -> Ask:
    form = Labelled if classification else Instance
    turns = []
    for shown in [t for t in written if t.classification is classification and t.input][:3]:
        turns += [_request(shown, classification), Message("assistant", _as_json(shown, classification))]
    sampling = Sampling(temperature=0.7, max_tokens=100, schema=form.model_json_schema(), seed=seed)
    return Ask((*turns, _request(task, classification)), sampling)


def _request(task: Task, classification: bool) -> Message:
    order = "a label, then an input that deserves it" if classification else "an input, then the output"
    return Message("user", f"Give {order}, as JSON, for this task: {task.instruction}")


def _as_json(task: Task, classification: bool) -> str:
    found: dict[str, Any] = {"label": task.output, "input": task.input}
    return json.dumps(found if classification else {"input": task.input, "output": task.output}, ensure_ascii=False)


def _instance(answer: str, classification: bool) -> tuple[tuple[str, str], str]:
    if classification:
        labelled, wrong = checked(answer, Labelled)
        return (labelled.input, labelled.label) if labelled else ("", ""), wrong
    plain, wrong = checked(answer, Instance)
    return (plain.input, plain.output) if plain else ("", ""), wrong


def _fault(task: Task) -> str | None:
    if not task.output.strip():
        return "no output"
    if task.output.strip() == task.input.strip():
        return "repeats its input"
    return "repeats its instruction" if rouge_l(task.output, task.instruction) >= MOST_ALIKE else None
