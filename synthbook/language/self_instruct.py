"""Self-instruct: a pool of tasks that grows from a few seed tasks, with a model as its author.

    show 6 seed tasks and 2 generated ones  ->  a proposal  ->  is it well-formed?  ->  is it similar to another?
    accepted: ROUGE-L < 0.7 against every instruction of the pool                  Wang et al., arXiv:2212.10560

The filter enforces diversity, not correctness: of the paper's tasks 46 in 100 had a fault in some field. The tasks
shown are turns of a conversation: of a list in one message a small model copies a line.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from matplotlib.axes import Axes
from pydantic import BaseModel, Field

from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import BLACK, BLUE, VERMILLION, new_axes
from synthbook.datasets import read_data
from synthbook.language.filters.dedup import rouge_l
from synthbook.language.filters.verdicts import pinned_schema, validate_json
from synthbook.language.messages import SURROGATES, ChatModel, ChatRequest, ChatResponse, SamplingParams, few_shot
from synthbook.language.pipeline import Stage, StageResult, StageStats, run_pipeline
from synthbook.language.records import Record

# ── One proposed instruction: read out of an answer, looked at for its form, and held against all that are known ──
#     dropped where ROUGE-L(new, known) >= 0.7 for any known one                        Wang et al., arXiv:2212.10560
#
# Of an answer one line counts, up to the mark of a next task or of a speaker. So no instruction can pose as two, or as
# somebody else's turn, where it is shown to a model again.


ROUGE_THRESHOLD = 0.7
_WORDS = (4, 40)  # of an instruction
_READ = 2_000  # characters of an answer
_NON_TEXT_KEYWORDS = re.compile(
    r"\b(?:images?|pictures?|photos?|graphs?|files?|maps?|draw|plot|videos?|audio|diagrams?|websites?|go to)\b", re.I
)
_LOST = "\ufffd"  # stands for what was no character
_TURN = r"<\|[^<>]*>|</?s>|\[/?INST\]|<</?SYS>>|#{2,}|\b(?:system|user|assistant|human)\s*:"
_SPEAKER = re.compile(_TURN, re.I)
_NEXT = re.compile(rf"{_TURN}|\btask\s*#?\d+\s*:", re.I)
_FIRST = re.compile(rf"(?:{_TURN}|[\s\-*+>•\"'`_]|task\s*#?\d*\s*[:.)]|\d+\s*[.:)](?!\d))+", re.I)
_NEAREST = "nearest"  # the verdict that holds the likeness


def parse_instruction(answer: str) -> str:
    """The instruction in an answer: its first line with text, without numbering or markup.

    >>> parse_instruction("\\nTask 9: Count the  rows.\\nTask 10: Leave your record.")
    'Count the rows.'
    """
    text = unicodedata.normalize("NFKC", SURROGATES.sub(_LOST, answer[:_READ]))
    return next(filter(None, map(_instruction, text.splitlines())), "")


def _instruction(line: str) -> str:
    line = " ".join(line.split())
    if first := _FIRST.match(line):
        line = line[first.end() :]
    if another := _NEXT.search(line):
        line = line[: another.start()]
    return line.strip("*_\"'`: ")


def proposal(name: str, answer: ChatResponse) -> Record:
    """The record of a proposed instruction."""
    cut = answer.finish_reason == "length" and len(answer.text.strip().splitlines()) < 2
    return Record(name, "", parse_instruction(answer.text), "", {"cut off": cut, "tokens": answer.completion_tokens})


def instruction_error(instruction: str) -> str | None:
    """The reason why an instruction is not well-formed, else None."""
    if not instruction:
        return "empty"
    count = len(instruction.split())
    if count < _WORDS[0]:
        return "too short"
    if count > _WORDS[1]:
        return "too long"
    if not instruction.isprintable() or _LOST in instruction:
        return "unprintable"
    if not (instruction[0].isascii() and instruction[0].isalnum()):
        return "no plain sentence"
    return "not for a model of text" if _NON_TEXT_KEYWORDS.search(instruction) else None


def well_formed() -> Stage:
    """Keep complete, well-formed instructions that a text model can follow."""

    def judge(record: Record) -> StageResult:
        reason = instruction_error(record.response)
        return record, "cut off" if reason is None and record.provenance["cut off"] else reason

    return lambda records: map(judge, records)


def drop_similar(known: Iterable[str], rouge_threshold: float = ROUGE_THRESHOLD) -> Stage:
    """Drop instructions with a ROUGE-L of at least `rouge_threshold` to a known or an accepted one."""
    if not rouge_threshold > 0:
        raise InvalidArgument("rouge_threshold", rouge_threshold, "a similarity above 0; infinity keeps everything")
    pool = list(known)

    def judge(record: Record) -> StageResult:
        alike = max((rouge_l(record.response, other) for other in pool), default=0.0)
        if alike < rouge_threshold:
            pool.append(record.response)
        return record.with_verdict(_NEAREST, alike), None if alike < rouge_threshold else "ROUGE-L too high"

    return lambda records: map(judge, records)


# ── The pool of tasks ──


_ACCEPTED = "accepted"
_SEED_ORIGIN = "written"


@dataclass(frozen=True)
class Task:
    """An instruction with an instance, and whether it is a classification. `origin`: written, or a round."""

    id: str
    instruction: str
    classification: bool = False
    input: str = ""
    output: str = ""
    origin: str = _SEED_ORIGIN

    def record(self) -> Record:
        """The task as a record: the prompt is instruction and input."""
        prompt = f"{self.instruction}\n{self.input}".strip()
        kind = "classification" if self.classification else "other"
        return Record(self.id, prompt, self.output, kind, {"origin": self.origin})


def seed_tasks() -> list[Task]:
    """The 48 seed tasks about work with data that the book ships."""
    lines = [json.loads(line) for line in read_data("seed-tasks/seed_tasks.jsonl").decode().splitlines()]
    return [Task(x["id"], x["instruction"], x["classification"], **x["instances"][0]) for x in lines]


@dataclass(frozen=True)
class Round:
    """One round: the size of the pool before it, the number of proposals, their results, and the ledger of its stages.

    `max_rouge`: ROUGE-L to the nearest task of the pool, for each well-formed proposal.
    """

    pool: int
    proposed: int
    reasons: Counter[str]
    max_rouge: tuple[float, ...]
    ledger: tuple[StageStats, ...] = ()

    @property
    def accepted(self) -> int:
        """The number of accepted proposals."""
        return self.reasons[_ACCEPTED]

    @property
    def mean_max_rouge(self) -> float:
        """NaN where nothing was compared."""
        return float(np.mean(self.max_rouge)) if self.max_rouge else np.nan

    @property
    def highest_rouge(self) -> float:
        """NaN where nothing was compared."""
        return max(self.max_rouge, default=np.nan)


@dataclass
class TaskPool:
    """Seed tasks and generated ones, the dropped proposals with their reasons, and the rounds."""

    tasks: list[Task]
    dropped: list[tuple[str, str]] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)

    @property
    def written(self) -> list[Task]:
        """The seed tasks."""
        return [task for task in self.tasks if task.origin == _SEED_ORIGIN]

    @property
    def generated(self) -> list[Task]:
        """The tasks that the model wrote."""
        return [task for task in self.tasks if task.origin != _SEED_ORIGIN]

    @property
    def ledger(self) -> list[StageStats]:
        """The statistics of each stage over all rounds, for `plot_funnel`."""
        total: dict[str, StageStats] = {}
        for entry in (entry for one in self.rounds for entry in one.ledger):
            sums = total.setdefault(entry.stage, StageStats(entry.stage))
            sums.n_in, sums.n_out = sums.n_in + entry.n_in, sums.n_out + entry.n_out
            sums.seconds += entry.seconds
            sums.reasons.update(entry.reasons)
        return list(total.values())


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def plot_growth(pools: Mapping[str, TaskPool], ax: Axes | None = None) -> Axes:
    """Plot the size of each pool against the number of proposals; slope 1 accepts all."""
    ax = new_axes(ax)
    for name, pool in pools.items():
        proposed = np.cumsum([0, *(one.proposed for one in pool.rounds)])
        size = [*(one.pool for one in pool.rounds), len(pool.tasks)]
        ax.plot(proposed, size, label=f"{name}: {size[-1]}")
    ax.legend(loc="lower right")
    ax.set(xlabel="proposals", ylabel="tasks in the pool", title="The pool grows")
    return ax


def plot_max_rouge(pool: TaskPool, ax: Axes | None = None, *, rouge_threshold: float = 0.7) -> Axes:
    """Plot ROUGE-L of proposals to their nearest tasks against the pool's size: dots are accepted, crosses dropped."""
    ax = new_axes(ax)
    seen = [(one.pool, alike) for one in pool.rounds for alike in one.max_rouge]
    for below, color, marker, name in ((True, BLUE, "o", "kept"), (False, VERMILLION, "x", "too like another")):
        some = [pair for pair in seen if (pair[1] < rouge_threshold) is below]
        ax.plot(*np.array(some).reshape(-1, 2).T, marker, markersize=4, color=color, label=name, linestyle="")
    sizes = sorted({size for size, _ in seen})
    means = [np.mean([alike for at, alike in seen if at == size]) for size in sizes]
    ax.plot(sizes, means, "-", color=BLACK, linewidth=1, label="mean")
    ax.axhline(rouge_threshold, color=BLACK, linestyle=":", linewidth=1)
    ax.set(xlabel="tasks in the pool", ylabel="ROUGE-L to the nearest", title="What is new gets rare")
    ax.legend(loc="lower right")
    return ax


# ── Instances ──
#     a classification: the label first, then an input that deserves it        Wang et al., arXiv:2212.10560
#     any other task: an input, which may be empty, then the output
#
# A model that writes inputs first gives most of them the same label. What comes back is checked for its form, and for
# faults that can be seen without knowing the right answer; most wrong answers cannot.


_Instance = tuple[Task, str | None]  # and what is wrong with it
_SHOWN = 3  # written tasks of a kind, in a question
_YES = re.compile(r"\W*yes\b", re.I)


class InputFirst(BaseModel):
    """An input, which may be empty, then the output."""

    model_config = pinned_schema("Instance", "An input, which may be empty, then the output.")

    input: str = Field(max_length=160)
    output: str = Field(min_length=1, max_length=160)


class OutputFirst(BaseModel):
    """The label first, then an input that deserves it."""

    model_config = pinned_schema("Labelled", "The label first, then an input that deserves it.")

    label: str = Field(min_length=1, max_length=40)
    input: str = Field(min_length=1, max_length=160)


def generate_instances(model: ChatModel, pool: TaskPool, *, each: int = 1, seed: int = 0) -> Iterator[_Instance]:
    """`each` instances of every generated task, in order, each with its error or None."""
    if each < 1:
        raise InvalidArgument("each", each, "at least 1 instance of each task")
    written, generated = pool.written, pool.generated
    kinds = [bool(_YES.match(one.text)) for one in model(_kind_request(task, written, seed) for task in generated)]
    tasks = [replace(task, classification=kind) for task, kind in zip(generated, kinds, strict=True)]
    answers = iter(list(model(_instance_request(task, written, seed, k) for task in tasks for k in range(each))))
    for task in tasks:
        yield from _consistent([_parse_instance(task, answer, k) for k, answer in enumerate(islice(answers, each))])


def instance_records(instances: Iterable[_Instance]) -> tuple[list[Record], StageStats]:
    """A record of each task without an error, and the statistics of the others."""
    records, stats = list[Record](), StageStats("instance")
    for task, reason in instances:
        stats.n_in += 1
        if reason is None:
            records.append(task.record())
        else:
            stats.reasons[reason] += 1
    stats.n_out = len(records)
    return records, stats


# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _kind_request(task: Task, written: Sequence[Task], seed: int) -> ChatRequest:
    """Examples are no and yes in turn: after three times the same answer a small model gives it a fourth time."""
    question = "Does this task ask to choose one of a few labels? "
    pairs = zip(_some(written, False), _some(written, True), strict=False)
    examples = [
        (question + one.instruction, '"yes"' if one.classification else '"no"') for both in pairs for one in both
    ]
    schema = {"type": "string", "enum": ["yes", "no"]}
    sampling = SamplingParams(temperature=0.0, max_tokens=8, schema=schema, seed=seed)
    return ChatRequest(few_shot(examples, question + task.instruction), sampling)


def _some(written: Sequence[Task], classification: bool) -> list[Task]:
    """From beginning to end of the list, so that not all are about numbers."""
    some = [task for task in written if task.classification is classification and task.input]
    return some[:: max(len(some) // _SHOWN, 1)][:_SHOWN]


def _instance_request(task: Task, written: Sequence[Task], seed: int, index: int) -> ChatRequest:
    schema = OutputFirst if task.classification else InputFirst
    order = "a label, then an input that deserves it" if task.classification else "an input, then the output"
    question, examples = f"Give {order}, as JSON, for this task: ", list[tuple[str, str]]()
    for one in _some(written, task.classification):
        label_first = {"label": one.output, "input": one.input}
        answer = label_first if task.classification else {"input": one.input, "output": one.output}
        examples.append((question + one.instruction, json.dumps(answer, ensure_ascii=False)))
    sampling = SamplingParams(temperature=0.7, max_tokens=100, schema=schema.model_json_schema(), seed=seed)
    return ChatRequest(few_shot(examples, question + task.instruction), sampling, index)


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _parse_instance(task: Task, answer: ChatResponse, k: int) -> _Instance:
    task = replace(task, id=f"{task.id}.{k}") if k else task
    if answer.finish_reason == "length":
        return task, "cut off"
    parsed, error = validate_json(answer.text, OutputFirst if task.classification else InputFirst)
    if isinstance(parsed, OutputFirst):
        pair = parsed.input, parsed.label
    elif isinstance(parsed, InputFirst):
        pair = parsed.input, parsed.output
    else:
        return replace(task, input="", output=""), error
    task = replace(task, input=pair[0].strip(), output=pair[1].strip())
    return task, _fault(task)


def _fault(task: Task) -> str | None:
    if not task.output:
        return "no output"
    if task.output.rstrip(".") == task.input.rstrip("."):
        return "repeats its input"
    if rouge_l(task.output, task.instruction) >= ROUGE_THRESHOLD:
        return "repeats its instruction"
    if task.input.endswith(":") or task.output.endswith(":"):
        return "ends with a colon"
    return "contains a role marker" if _SPEAKER.search(f"{task.input}\n{task.output}") else None


def _consistent(instances: Sequence[_Instance]) -> Iterator[_Instance]:
    """Instances of one task: an input with two outputs discredits all of them, exact duplicates are dropped."""
    outputs, seen = defaultdict[str, set[str]](set), set[tuple[str, str]]()
    for task, reason in instances:
        if reason is None and task.input:
            outputs[task.input].add(task.output)
    two = any(len(some) > 1 for some in outputs.values())
    for task, reason in instances:
        pair = (task.input, task.output)
        if reason is None:
            reason = "one input, two outputs" if two else "exact duplicate" if pair in seen else None
            seen.add(pair)
        yield task, reason


# ── The loop ──


WRITTEN, GROWN = 6, 2  # tasks that a question shows
_QUESTION = "Write a new task about work with data, in one line."


def grow_pool(
    model: ChatModel,
    written: Sequence[Task],
    *,
    rounds: int,
    proposals_per_round: int = 8,
    seed: int = 0,
    rouge_threshold: float = ROUGE_THRESHOLD,
    size: int | None = None,
) -> TaskPool:
    """Grow a pool for some rounds of `proposals_per_round` requests each, or until it has `size` tasks.

    Proposals with a ROUGE-L of at least `rouge_threshold` to a task of the pool are dropped; infinity accepts all. The
    examples in a request depend on the seed and on earlier answers, so that a replay sends the same requests.
    """
    if len(written) < WRITTEN or rounds < 1 or proposals_per_round < 1:
        given, accepted = (len(written), rounds, proposals_per_round), f"at least {WRITTEN} tasks, 1 round, 1 proposal"
        raise InvalidArgument("written, rounds, proposals_per_round", given, accepted)
    for task in written:
        if parse_instruction(task.instruction) != task.instruction:
            raise InvalidArgument("written", task.instruction, "one line, without the mark of a task or a speaker")
    pool = TaskPool(list(written))
    for k in range(rounds):
        if size is not None and len(pool.tasks) >= size:
            break
        _round(model, pool, k, proposals_per_round, seed, rouge_threshold)
    return pool


def _round(model: ChatModel, pool: TaskPool, k: int, n: int, seed: int, rouge_threshold: float) -> None:
    """Send n requests together, then judge the answers in order: of two that are alike the first one stays."""
    rng = np.random.default_rng([seed, 48, k])
    sampling = SamplingParams(temperature=1.0, max_tokens=48, stop=("\n",), seed=seed)
    requests = []
    for i in range(n):
        examples = [(_QUESTION, instruction) for instruction in _shown(pool, rng)]
        requests.append(ChatRequest(few_shot(examples, _QUESTION), sampling, k * n + i))
    proposed = [proposal(f"grown_{k:03d}_{i}", a) for i, a in zip(range(n), model(requests), strict=True)]
    before, reasons, nearest = len(pool.tasks), Counter[str](), dict[str, float]()

    def count(record: Record, reason: str) -> None:
        reasons[reason] += 1
        if _NEAREST in record.verdicts:
            nearest[record.id] = record.verdicts[_NEAREST]
        if reason != _ACCEPTED:
            pool.dropped.append((record.response, reason))

    known = [task.instruction for task in pool.tasks]
    stages = {"form": well_formed(), "difference": drop_similar(known, rouge_threshold)}
    flow, ledger = run_pipeline(proposed, stages, on_drop=lambda record, stage, reason: count(record, reason))
    for record in flow:
        count(record, _ACCEPTED)
        pool.tasks.append(Task(record.id, record.response, origin=f"round {k}"))
    max_rouge = tuple(nearest[record.id] for record in proposed if record.id in nearest)
    pool.rounds.append(Round(before, n, reasons, max_rouge, tuple(ledger)))


def _shown(pool: TaskPool, rng: np.random.Generator) -> list[str]:
    """Six written tasks and two grown ones, or fewer of these as long as there are no two, in a random order."""
    generated, written = pool.generated, pool.written
    few = min(GROWN, len(generated))
    some = [written[i] for i in rng.choice(len(written), min(WRITTEN + GROWN - few, len(written)), replace=False)]
    some += [generated[i] for i in rng.choice(len(generated), few, replace=False)]
    return [some[i].instruction for i in rng.permutation(len(some))]
