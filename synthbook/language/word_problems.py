"""Word problems whose answers are known, answered by a scripted teacher that errs in two ways.

A slip is arithmetic gone wrong, "7 + 8 = 16": whoever runs the left side finds it. A misreading is a right sum of the
wrong kind, "7 - 8 = -1" where something was bought: it runs, it is consistent, and it is wrong. Execution checks what
was computed, not what was asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Seed
from synthbook.language.coding_problems import CODING_PROBLEMS, cases
from synthbook.language.filters.execution import Case, Program, evaluate_expressions, execute
from synthbook.language.messages import ChatRequest, SamplingParams, few_shot
from synthbook.language.pipeline import BATCH, Stage, StageResult
from synthbook.language.records import Record, batched
from synthbook.language.sandbox.pool import Sandbox

OPERATIONS: dict[str, tuple[str, tuple[str, ...]]] = {  # operator, and ways to say it
    "more": (
        "+",
        (
            "There are {a} pears on the table and {b} more in the bag. How many pears are there?",
            "A shelf holds {a} books, and {b} more arrive. How many books does it hold?",
            "{a} birds sit on a roof and {b} more join them. How many birds sit there?",
        ),
    ),
    "fewer": (
        "-",
        (
            "Of {a} candles, {b} burn down. How many are left?",
            "A shop had {a} lamps and sold {b}. How many lamps are left?",
            "{a} guests came and {b} went home. How many are left?",
        ),
    ),
    "each": (
        "*",
        (
            "There are {a} boxes with {b} eggs in each. How many eggs are there?",
            "{a} children hold {b} balloons each. How many balloons are there?",
            "Each of {a} rows has {b} seats. How many seats are there?",
        ),
    ),
}
HIGHEST = 10  # numbers in a problem are 0, ..., 9
_HARD = "each"
_EQUATION = re.compile(r"\s*(\d+)\s*([-+*])\s*(\d+)\s*=\s*(-?\d+)\s*")


@dataclass(frozen=True)
class ScriptedMathTeacher:
    """Answers such as "7 + 8 = 15", with known error rates.

    `hard_error_rate` replaces `arithmetic_error_rate` for multiplication. Additions are `easy_weight` times as frequent
    as multiplications. A share `duplicate_rate` of the records repeats an earlier one.
    """

    arithmetic_error_rate: float = 0.3
    misread_rate: float = 0.05
    hard_error_rate: float = 0.6
    easy_weight: float = 4.0
    duplicate_rate: float = 0.3

    def __post_init__(self) -> None:
        shares = (self.arithmetic_error_rate, self.misread_rate, self.hard_error_rate, self.duplicate_rate)
        if not all(0 <= share < 1 for share in shares) or self.easy_weight <= 0:
            raise InvalidArgument("shares", shares, "shares of at least 0 and below 1, and a positive `easy_weight`")

    def records(self, n: int, *, seed: Seed) -> Iterator[Record]:
        """n records; `provenance` holds `correct`, `arithmetic_error` and `misread`."""
        rng = np.random.default_rng(seed)
        weights = np.array([self.easy_weight, np.sqrt(self.easy_weight), 1.0])
        originals: list[Record] = []
        for k in range(n):
            if originals and rng.random() < self.duplicate_rate:
                yield replace(originals[int(rng.integers(len(originals)))], id=f"{k:06d}")
                continue
            kind = str(rng.choice(list(OPERATIONS), p=weights / weights.sum()))
            originals.append(self._answer(f"{k:06d}", kind, rng))
            yield originals[-1]

    def _answer(self, name: str, kind: str, rng: np.random.Generator) -> Record:
        operator, sayings = OPERATIONS[kind]
        a, b = (int(x) for x in rng.integers(0, HIGHEST, 2))
        prompt = sayings[int(rng.integers(len(sayings)))].format(a=a, b=b)
        misread = bool(rng.random() < self.misread_rate)
        error = bool(rng.random() < (self.hard_error_rate if kind == _HARD else self.arithmetic_error_rate))
        if misread:
            operator = str(rng.choice([other for other, _ in OPERATIONS.values() if other != operator]))
        answer = computed(a, operator, b) + (int(rng.choice([-10, -2, -1, 1, 2, 10])) if error else 0)
        correct = answer == computed(a, OPERATIONS[kind][0], b)  # two errors may cancel
        provenance = {"model": "scripted", "correct": correct, "arithmetic_error": error, "misread": misread}
        return Record(name, prompt, f"{a} {operator} {b} = {answer}", kind, provenance)


def computed(a: int, operator: str, b: int) -> int:
    """a + b, a - b or a * b."""
    return {"+": a + b, "-": a - b, "*": a * b}[operator]


def arithmetic_holds(sandbox: Sandbox) -> Stage:
    """Keep answers whose left side, run in the sandbox, gives the right side."""

    def stage(records: Iterable[Record]) -> Iterator[StageResult]:
        for batch in batched(records, BATCH):
            sides = [record.response.rpartition("=")[::2] for record in batch]
            values = evaluate_expressions((left for left, _ in sides), sandbox)
            for record, (_, right), value in zip(batch, sides, values, strict=True):
                holds = type(value) is int and right.strip() == str(value)
                yield record.with_verdict("runs", holds), None if holds else "does not compute"

    return stage


# ── the student ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class NearestNeighborStudent:
    """A nearest neighbor: its answer is that of the most similar training problem of the same kind."""

    training: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]  # (n, 3): kind, a, b; (n,): answers

    @classmethod
    def fit(cls, records: Sequence[Record]) -> NearestNeighborStudent:
        """Fit a student to these records; answers that are no equation are left out."""
        rows = []
        for record in records:
            numbers = [int(x) for x in re.findall(r"\d+", record.prompt)]
            if (match := _EQUATION.fullmatch(record.response)) and len(numbers) == 2:
                rows.append((list(OPERATIONS).index(record.label), *numbers, int(match[4])))
        if not rows:
            raise InvalidArgument("records", len(records), "at least one answer such as 7 + 8 = 15")
        table = np.array(rows)
        return cls((table[:, :3], table[:, 3]))

    def predict(self, problems: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """An answer (N,) to each problem (N, 3): the most frequent among the nearest, of equals the lowest."""
        known, answers = self.training
        out = np.empty(len(problems), dtype=np.int64)
        for i, problem in enumerate(problems):
            distances = np.abs(known - problem) @ np.array([1_000, 1, 1])
            values, counts = np.unique(answers[distances == distances.min()], return_counts=True)
            out[i] = values[counts.argmax()]
        return out

    def accuracy(self) -> dict[str, float]:
        """Accuracy on all problems there are, by operation, and the mean."""
        grid = np.array([(a, b) for a in range(HIGHEST) for b in range(HIGHEST)])
        accuracies = {}
        for k, (kind, (operator, _)) in enumerate(OPERATIONS.items()):
            problems = np.column_stack([np.full(len(grid), k), grid])
            truth = np.array([computed(int(a), operator, int(b)) for a, b in grid])
            accuracies[kind] = float((self.predict(problems) == truth).mean())
        return accuracies | {"all": float(np.mean(list(accuracies.values())))}


# ── Problems for a real model ──
# An answer is kept when it is right on visible cases, and scored on hidden ones, which are others. A sum such as "6 * 8
# = 48" is lifted for that: with the numbers of its problem taken out it is a program, `a * b`, that must also give the
# known answers to the same sentence with two other pairs of numbers. A sum of the wrong kind runs, and fails there.


SHOWN_SUMS = (  # other sentences than those of the problems
    ("A bus carries 6 people and 2 more get on. How many people are on the bus?", "6 + 2 = 8"),
    ("There are 5 bags with 3 apples in each. How many apples are there?", "5 * 3 = 15"),
    ("Of 8 eggs, 3 break. How many are left?", "8 - 3 = 5"),
    ("A pond has 7 ducks and 6 more land. How many ducks are there?", "7 + 6 = 13"),
    ("4 dogs have 4 legs each. How many legs are there?", "4 * 4 = 16"),
    ("A tree had 9 apples and 5 fell. How many are left?", "9 - 5 = 4"),
)
_SHOWN_FUNCTIONS = (
    ("Write a Python function double that returns twice a number.", "def double(x):\n    return 2 * x"),
    (
        "Write a Python function first_word that returns the first word of a text.",
        "def first_word(text):\n    return text.split()[0]",
    ),
)
VISIBLE = ((7, 2), (5, 4))  # the pairs whose answers are known for each sentence; they are never asked
_HELD_OUT = 5  # one pair of numbers in so many is kept from every question, for a student's test
VISIBLE_CASES, _HIDDEN_CASES = 20, 40  # of each function


@dataclass(frozen=True)
class WordProblem:
    """A sentence with placeholders for two numbers, its operation, and the numbers."""

    kind: str
    sentence: str
    a: int
    b: int

    @property
    def text(self) -> str:
        """The text of the problem."""
        return self.sentence.format(a=self.a, b=self.b)

    @property
    def operator(self) -> str:
        """The correct operator: +, - or *."""
        return OPERATIONS[self.kind][0]

    @property
    def answer(self) -> int:
        """The correct answer."""
        return computed(self.a, self.operator, self.b)

    @property
    def sum(self) -> str:
        """The correct equation, such as 7 + 8 = 15."""
        return f"{self.a} {self.operator} {self.b} = {self.answer}"


def problems(*, held_out: bool) -> list[WordProblem]:
    """Every sentence with every pair of numbers of one part of the split: for requests, or held out."""
    rng = np.random.default_rng(0)
    pairs = [(a, b) for a in range(1, HIGHEST) for b in range(1, HIGHEST) if a != b and (a, b) not in VISIBLE]
    apart = {pairs[i] for i in rng.choice(len(pairs), len(pairs) // _HELD_OUT, replace=False)}
    return [
        WordProblem(kind, sentence, a, b)
        for kind, (operator, sentences) in OPERATIONS.items()
        for sentence in sentences
        for a, b in pairs
        if ((a, b) in apart) is held_out and (operator != "-" or a > b)
    ]


def word_problem_requests(n: int, *, seed: int) -> Iterator[tuple[ChatRequest, WordProblem]]:
    """n requests with their problems, the operations in turn."""
    rng, all_of = np.random.default_rng([seed, 41]), problems(held_out=False)
    kinds = {kind: [problem for problem in all_of if problem.kind == kind] for kind in OPERATIONS}
    sampling = SamplingParams(temperature=0.5, max_tokens=16, stop=("\n",), seed=seed)
    for k in range(n):
        some = kinds[list(OPERATIONS)[k % len(OPERATIONS)]]
        problem = some[int(rng.integers(len(some)))]
        yield ChatRequest(few_shot(SHOWN_SUMS, problem.text), sampling, k), problem


def function_requests(n: int, *, seed: int) -> Iterator[tuple[ChatRequest, str]]:
    """n requests for each coding problem, with the name of its function."""
    sampling = SamplingParams(temperature=0.7, max_tokens=110, seed=seed)
    for problem in CODING_PROBLEMS:
        for k in range(n):
            yield ChatRequest(few_shot(_SHOWN_FUNCTIONS, problem.request), sampling, k), problem.name


# ── what may be kept ─────────────────────────────────────────────────────────────────────────────────────────────────


def to_program(answer: str, problem: WordProblem) -> str | None:
    """The left side of an answer as a program of a and b; None where it is no sum of the problem's numbers.

    >>> to_program("6 * 8 = 48", WordProblem("each", "{a} rows of {b}", 6, 8))
    'a * b'
    """
    match = _EQUATION.fullmatch(answer)
    if match is None or {int(match[1]), int(match[3])} != {problem.a, problem.b}:
        return None
    left, right = ("a", "b") if int(match[1]) == problem.a else ("b", "a")
    return f"{left} {match[2]} {right}"


def visible_cases_pass(answers: Mapping[str, WordProblem], sandbox: Sandbox) -> Stage:
    """Keep equations that hold, and whose operator is right for the same sentence with the `VISIBLE` numbers.

    `answers` holds the problem of each record, by its id.
    """
    known = {kind: [(pair, computed(pair[0], OPERATIONS[kind][0], pair[1])) for pair in VISIBLE] for kind in OPERATIONS}

    def judge(records: Sequence[Record]) -> Iterator[StageResult]:
        codes, tests = dict[str, str](), dict[str, list[Case]]()
        for k, record in enumerate(records):
            problem, name = answers[record.id], f"sum_{k}"
            if (body := to_program(record.response, problem)) is not None:
                codes[name] = f"def {name}(a, b):\n    return {body}"
                stated = ((problem.a, problem.b), int(record.response.partition("=")[2]))
                tests[name] = [Case(name, pair, value) for pair, value in (stated, *known[record.label])]
        programs = (Program(name, name, code) for name, code in codes.items())
        passed = {str(verdict.id): verdict.cases for verdict in execute(programs, tests, sandbox)}
        for k, record in enumerate(records):
            reason: str | None = "no sum of these numbers"
            if (verdicts := passed.get(f"sum_{k}")) is not None:
                wrong = "wrong on a visible case" if verdicts[0] else "does not compute"
                reason = None if all(verdicts) else wrong
            yield record.with_verdict("visible cases", reason or "passed"), reason

    return lambda records: (result for batch in batched(records, BATCH) for result in judge(batch))


def function_cases(*, hidden: bool) -> dict[str, list[Case]]:
    """Visible or hidden cases of each coding problem; no call is in both."""
    visible = cases(VISIBLE_CASES, seed=1)
    if not hidden:
        return visible
    calls = {name: {repr(case.args) for case in some} for name, some in visible.items()}
    return {
        name: [case for case in some if repr(case.args) not in calls[name]]
        for name, some in cases(_HIDDEN_CASES, seed=2).items()
    }


def is_correct(record: Record, problem: WordProblem) -> bool:
    """Whether both sides of an answer are correct, by the oracle; for scores alone."""
    match = _EQUATION.fullmatch(record.response)
    return match is not None and int(match[4]) == problem.answer and expression_correct(record.response, problem)


def expression_correct(answer: str, problem: WordProblem) -> bool:
    """Whether the left side of an answer evaluates to the correct result, whatever its right side."""
    match = _EQUATION.match(answer if "=" in answer else f"{answer} = 0")
    return match is not None and computed(int(match[1]), match[2], int(match[3])) == problem.answer


def pass_hidden_cases(records: Iterable[Record], sandbox: Sandbox) -> Iterator[bool]:
    """Whether each program passes all hidden cases of its function, by the oracle; for scores alone."""
    programs = (Program(record.id, record.label, record.response) for record in records)
    return (verdict.passed for verdict in execute(programs, function_cases(hidden=True), sandbox))
