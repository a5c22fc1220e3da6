"""Self-instruct: a pool of tasks that grows out of a few written ones, with a model as its author.

    show 6 written and 2 grown tasks  ->  a new one  ->  is its form plain?  ->  is it like another?
    kept: ROUGE-L < 0.7 against every instruction of the pool                  Wang et al., arXiv:2212.10560

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

import numpy as np
from matplotlib.axes import Axes
from pydantic import BaseModel, Field

from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import BLACK, BLUE, VERMILLION, new_axes
from synthbook.datasets import read_data
from synthbook.language.filters.dedup import rouge_l
from synthbook.language.filters.verdicts import pinned_schema, validate_json
from synthbook.language.messages import SURROGATES, ChatModel, ChatRequest, ChatResponse, Message, SamplingParams
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
    """The instruction in an answer: its first line that says something, without a number or marks around it.

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
    """The record of what an answer proposes."""
    cut = answer.finish_reason == "length" and len(answer.text.strip().splitlines()) < 2
    return Record(name, "", parse_instruction(answer.text), "", {"cut off": cut, "tokens": answer.completion_tokens})


def instruction_error(instruction: str) -> str | None:
    """What is wrong with the form of an instruction, else None."""
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
    """Keeps whole instructions of a plain form, that ask a model of text for nothing but text."""

    def stage(records: Iterable[Record]) -> Iterator[StageResult]:
        for record in records:
            reason = instruction_error(record.response)
            yield record, "cut off" if reason is None and record.provenance["cut off"] else reason

    return stage


def drop_similar(known: Iterable[str], rouge_threshold: float = ROUGE_THRESHOLD) -> Stage:
    """Drops what is like a known instruction; what stays is known from then on."""
    if not rouge_threshold > 0:
        raise InvalidArgument("most", rouge_threshold, "a likeness above 0; infinity keeps everything")
    pool = list(known)

    def stage(records: Iterable[Record]) -> Iterator[StageResult]:
        for record in records:
            alike = max((rouge_l(record.response, other) for other in pool), default=0.0)
            if alike < rouge_threshold:
                pool.append(record.response)
            yield record.with_verdict(_NEAREST, alike), None if alike < rouge_threshold else "ROUGE-L too high"

    return stage


# ── The pool of tasks ──


_ACCEPTED = "accepted"
_SEED_ORIGIN = "written"


@dataclass(frozen=True)
class Task:
    """An instruction, an instance, and whether its answers are labels. `origin`: written, or the number of a round."""

    id: str
    instruction: str
    classification: bool = False
    input: str = ""
    output: str = ""
    origin: str = _SEED_ORIGIN

    def record(self) -> Record:
        """As a record: the prompt is instruction and input."""
        prompt = f"{self.instruction}\n{self.input}".strip()
        kind = "classification" if self.classification else "other"
        return Record(self.id, prompt, self.output, kind, {"origin": self.origin})


def seed_tasks() -> list[Task]:
    """The 48 written tasks about work with data that come with the book."""
    lines = [json.loads(line) for line in read_data("seed-tasks/seed_tasks.jsonl").decode().splitlines()]
    return [Task(x["id"], x["instruction"], x["classification"], **x["instances"][0]) for x in lines]


@dataclass(frozen=True)
class Round:
    """One round: tasks in the pool before it, proposals, what became of them, and the same as a ledger of its stages.

    `max_rouge`: ROUGE-L to the nearest task of the pool, of each proposal whose form was good enough to be compared.
    """

    pool: int
    proposed: int
    reasons: Counter[str]
    max_rouge: tuple[float, ...]
    ledger: tuple[StageStats, ...] = ()

    @property
    def accepted(self) -> int:
        """Proposals that were kept."""
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
    """Written and grown tasks, what was proposed and dropped with its reason, and the rounds."""

    tasks: list[Task]
    dropped: list[tuple[str, str]] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)

    @property
    def written(self) -> list[Task]:
        """Those that the pool began with."""
        return [task for task in self.tasks if task.origin == _SEED_ORIGIN]

    @property
    def generated(self) -> list[Task]:
        """Those that nobody wrote."""
        return [task for task in self.tasks if task.origin != _SEED_ORIGIN]

    @property
    def ledger(self) -> list[StageStats]:
        """What each stage did in all rounds together, for `plot_funnel`."""
        total: dict[str, StageStats] = {}
        for entry in (entry for one in self.rounds for entry in one.ledger):
            sums = total.setdefault(entry.stage, StageStats(entry.stage))
            sums.n_in, sums.n_out = sums.n_in + entry.n_in, sums.n_out + entry.n_out
            sums.seconds += entry.seconds
            sums.reasons.update(entry.reasons)
        return list(total.values())


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def plot_growth(pools: Mapping[str, TaskPool], ax: Axes | None = None) -> Axes:
    """Tasks of each pool against proposals; a line of slope 1 would keep them all."""
    ax = new_axes(ax)
    for name, pool in pools.items():
        asked, size = _steps(pool.rounds, len(pool.tasks))
        ax.plot(asked, size, label=f"{name}: {size[-1]}")
    ax.legend(loc="lower right")
    ax.set(xlabel="proposals", ylabel="tasks in the pool", title="The pool grows")
    return ax


def _steps(rounds: Sequence[Round], last: int) -> tuple[list[int], list[int]]:
    asked = np.cumsum([0, *(one.proposed for one in rounds)])
    return asked.tolist(), [*(one.pool for one in rounds), last]


def plot_max_rouge(pool: TaskPool, ax: Axes | None = None, *, rouge_threshold: float = 0.7) -> Axes:
    """ROUGE-L of each proposal to its nearest task, by the pool's size: dots below `most`, crosses above, the mean."""
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


_Judged = tuple[Task, str | None]  # and what is wrong with it
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


def generate_instances(model: ChatModel, pool: TaskPool, *, each: int = 1, seed: int = 0) -> Iterator[_Judged]:
    """Each grown task with its kind and `each` instances, one after the other, and what is wrong with it, else None."""
    if each < 1:
        raise InvalidArgument("each", each, "at least 1 instance of each task")
    written, generated = pool.written, pool.generated
    kinds = [bool(_YES.match(answer.text)) for answer in model(_kind_ask(task, written, seed) for task in generated)]
    tasks = [replace(task, classification=kind) for task, kind in zip(generated, kinds, strict=True)]
    requests = (_instance_ask(task, written, seed, k) for task in tasks for k in range(each))
    answers = list(model(requests))
    for i, task in enumerate(tasks):
        yield from _judged([_answered(task, answer, k) for k, answer in enumerate(answers[i * each : (i + 1) * each])])


def records(judged: Iterable[_Judged]) -> tuple[list[Record], StageStats]:
    """A record of each sound task, and the entry of a ledger that counts the others."""
    kept, entry = list[Record](), StageStats("instance")
    for task, reason in judged:
        entry.n_in += 1
        if reason is None:
            kept.append(task.record())
        else:
            entry.reasons[reason] += 1
    entry.n_out = len(kept)
    return kept, entry


# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _kind_ask(task: Task, written: Sequence[Task], seed: int) -> ChatRequest:
    """Examples are no and yes in turn: after three times the same answer a small model gives it a fourth time."""
    turns = list[Message]()
    for pair in zip(_some(written, False), _some(written, True), strict=False):
        for shown in pair:
            turns += [_question(shown), Message("assistant", '"yes"' if shown.classification else '"no"')]
    schema = {"type": "string", "enum": ["yes", "no"]}
    return ChatRequest(
        (*turns, _question(task)), SamplingParams(temperature=0.0, max_tokens=8, schema=schema, seed=seed)
    )


def _some(written: Sequence[Task], classification: bool) -> list[Task]:
    """From beginning to end of the list, so that not all are about numbers."""
    some = [task for task in written if task.classification is classification and task.input]
    return some[:: max(len(some) // _SHOWN, 1)][:_SHOWN]


def _question(task: Task) -> Message:
    return Message("user", f"Does this task ask to choose one of a few labels? {task.instruction}")


def _instance_ask(task: Task, written: Sequence[Task], seed: int, index: int) -> ChatRequest:
    match_schema = OutputFirst if task.classification else InputFirst
    turns = list[Message]()
    for shown in _some(written, task.classification):
        turns += [_request(shown), Message("assistant", _as_json(shown))]
    sampling = SamplingParams(temperature=0.7, max_tokens=100, schema=match_schema.model_json_schema(), seed=seed)
    return ChatRequest((*turns, _request(task)), sampling, index)


def _request(task: Task) -> Message:
    order = "a label, then an input that deserves it" if task.classification else "an input, then the output"
    return Message("user", f"Give {order}, as JSON, for this task: {task.instruction}")


def _as_json(task: Task) -> str:
    label_first = {"label": task.output, "input": task.input}
    found = label_first if task.classification else {"input": task.input, "output": task.output}
    return json.dumps(found, ensure_ascii=False)


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _answered(task: Task, answer: ChatResponse, k: int) -> _Judged:
    named = replace(task, id=f"{task.id}.{k}") if k else task
    if answer.finish_reason == "length":
        return named, "cut off"
    if task.classification:
        labelled, wrong = validate_json(answer.text, OutputFirst)
        found = ("", "") if labelled is None else (labelled.input, labelled.label)
    else:
        well_formed, wrong = validate_json(answer.text, InputFirst)
        found = ("", "") if well_formed is None else (well_formed.input, well_formed.output)
    whole = replace(named, input=found[0].strip(), output=found[1].strip())
    return whole, wrong or _fault(whole)


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


def _judged(instances: Sequence[_Judged]) -> Iterator[_Judged]:
    """Instances of one task: an input with two outputs discredits all of them, what was said before is dropped."""
    outputs, seen = defaultdict[str, set[str]](set), set[tuple[str, str]]()
    for task, reason in instances:
        if reason is None and task.input:
            outputs[task.input].add(task.output)
    two = any(len(some) > 1 for some in outputs.values())
    for task, reason in instances:
        said = (task.input, task.output)
        if reason is None:
            reason = "one input, two outputs" if two else "exact duplicate" if said in seen else None
            seen.add(said)
        yield task, reason


# ── The loop ──


WRITTEN, GROWN = 6, 2  # tasks that a question shows
_QUESTION = Message("user", "Write a new task about work with data, in one line.")
_STOP = ("\n",)


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
    """Grow a pool for some rounds of `proposals_per_round` questions each, or until it has `size` tasks.

    What is like a task of the pool, by ROUGE-L of at least `most`, is dropped; infinity lets everything in. What a
    question shows depends on the seed and on what was answered before, so that a replay asks the same ones.
    """
    if len(written) < WRITTEN or rounds < 1 or proposals_per_round < 1:
        given = (len(written), rounds, proposals_per_round)
        raise InvalidArgument("written, rounds, side_by_side", given, f"at least {WRITTEN} tasks, 1 round, 1 question")
    for task in written:
        if parse_instruction(task.instruction) != task.instruction:
            raise InvalidArgument("written", task.instruction, "one line, without the mark of a task or a speaker")
    pool = TaskPool(list(written))
    for k in range(rounds):
        if size is not None and len(pool.tasks) >= size:
            break
        _round(model, pool, k, proposals_per_round, seed, rouge_threshold)
    return pool


def _round(
    model: ChatModel, pool: TaskPool, k: int, proposals_per_round: int, seed: int, rouge_threshold: float
) -> None:
    """Ask side by side, then go through the answers in order: of two that are alike the first one stays."""
    rng = np.random.default_rng([seed, 48, k])
    requests = [_ask(_shown(pool, rng), seed, k * proposals_per_round + i) for i in range(proposals_per_round)]
    proposed = [
        proposal(f"grown_{k:03d}_{i}", a) for i, a in zip(range(proposals_per_round), model(requests), strict=True)
    ]
    before, reasons, nearest = len(pool.tasks), Counter[str](), dict[str, float]()

    def told(record: Record, reason: str) -> None:
        reasons[reason] += 1
        if _NEAREST in record.verdicts:
            nearest[record.id] = record.verdicts[_NEAREST]
        if reason != _ACCEPTED:
            pool.dropped.append((record.response, reason))

    known = [task.instruction for task in pool.tasks]
    stages = {"form": well_formed(), "difference": drop_similar(known, rouge_threshold)}
    flow, ledger = run_pipeline(proposed, stages, on_drop=lambda record, stage, reason: told(record, reason))
    for record in flow:
        told(record, _ACCEPTED)
        pool.tasks.append(Task(record.id, record.response, origin=f"round {k}"))
    max_rouge = tuple(nearest[record.id] for record in proposed if record.id in nearest)
    pool.rounds.append(Round(before, proposals_per_round, reasons, max_rouge, tuple(ledger)))


def _shown(pool: TaskPool, rng: np.random.Generator) -> list[str]:
    """Six written tasks and two grown ones, or fewer of these as long as there are no two, in a random order."""
    generated, written = pool.generated, pool.written
    few = min(GROWN, len(generated))
    some = [written[i] for i in rng.choice(len(written), min(WRITTEN + GROWN - few, len(written)), replace=False)]
    some += [generated[i] for i in rng.choice(len(generated), few, replace=False)]
    return [some[i].instruction for i in rng.permutation(len(some))]


def _ask(shown: Sequence[str], seed: int, index: int) -> ChatRequest:
    turns = [turn for text in shown for turn in (_QUESTION, Message("assistant", text))]
    return ChatRequest(
        (*turns, _QUESTION), SamplingParams(temperature=1.0, max_tokens=48, stop=_STOP, seed=seed), index
    )
