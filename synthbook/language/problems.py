"""Word problems whose answers are known, answered by a scripted teacher that errs in two ways.

A slip is arithmetic gone wrong, "7 + 8 = 16": whoever runs the left side finds it. A misreading is a right sum of the
wrong kind, "7 - 8 = -1" where something was bought: it runs, it is consistent, and it is wrong. Execution checks what
was computed, not what was asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthbook.core.errors import InvalidArgument
from synthbook.language.pipeline import BATCH, Stage, Told
from synthbook.language.planted import Seed
from synthbook.language.records import Record, batches
from synthbook.language.verify.execute import evaluate
from synthbook.language.verify.sandbox import Sandbox

KINDS: dict[str, tuple[str, tuple[str, ...]]] = {  # operator, and ways to say it
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
HARD = "each"
SHORT = re.compile(r"\s*(\d+)\s*([-+*])\s*(\d+)\s*=\s*(-?\d+)\s*")


@dataclass(frozen=True)
class ProblemTeacher:
    """Answers as "7 + 8 = 15". `slip` and `misread`: shares of its answers; `hard`: slips in "each" problems, instead.

    `easy`: how many times as often it asks "more" as "each"; `repeats`: share of records that repeat an earlier one.
    """

    slip: float = 0.3
    misread: float = 0.05
    hard: float = 0.6
    easy: float = 4.0
    repeats: float = 0.3

    def __post_init__(self) -> None:
        shares = (self.slip, self.misread, self.hard, self.repeats)
        if not all(0 <= share < 1 for share in shares) or self.easy <= 0:
            raise InvalidArgument("shares", shares, "shares of at least 0 and below 1, and a positive `easy`")

    def records(self, n: int, *, seed: Seed) -> Iterator[Record]:
        """n records; `provenance` tells `right`, `slip`, `misread`."""
        rng = np.random.default_rng(seed)
        weights = np.array([self.easy, np.sqrt(self.easy), 1.0])
        made: list[Record] = []
        for k in range(n):
            if made and rng.random() < self.repeats:
                first = made[int(rng.integers(len(made)))]
                yield Record(f"{k:06d}", first.prompt, first.response, first.label, first.provenance)
                continue
            kind = str(rng.choice(list(KINDS), p=weights / weights.sum()))
            record = self._answer(f"{k:06d}", kind, rng)
            made.append(record)
            yield record

    def _answer(self, name: str, kind: str, rng: np.random.Generator) -> Record:
        operator, sayings = KINDS[kind]
        a, b = (int(x) for x in rng.integers(0, HIGHEST, 2))
        prompt = sayings[int(rng.integers(len(sayings)))].format(a=a, b=b)
        misread, slip = (
            bool(rng.random() < self.misread),
            bool(rng.random() < (self.hard if kind == HARD else self.slip)),
        )
        if misread:
            operator = str(rng.choice([other for other, _ in KINDS.values() if other != operator]))
        answer = computed(a, operator, b) + (int(rng.choice([-10, -2, -1, 1, 2, 10])) if slip else 0)
        right = answer == computed(a, KINDS[kind][0], b)  # two errors may cancel
        told = {"teacher": "planted", "right": right, "slip": slip, "misread": misread}
        return Record(name, prompt, f"{a} {operator} {b} = {answer}", kind, told)


def computed(a: int, operator: str, b: int) -> int:
    """a + b, a - b or a * b."""
    return {"+": a + b, "-": a - b, "*": a * b}[operator]


def runs(sandbox: Sandbox) -> Stage:
    """Keeps answers whose left side, run in the sandbox, gives the right side."""

    return lambda records: (told for some in batches(records, BATCH) for told in _run(some, sandbox))


def _run(records: Sequence[Record], sandbox: Sandbox) -> Iterator[Told]:
    sides = [record.response.rpartition("=")[::2] for record in records]
    values = evaluate((left for left, _ in sides), sandbox)
    for record, (_, right), value in zip(records, sides, values, strict=True):
        holds = type(value) is int and right.strip() == str(value)
        yield record.told("runs", holds), None if holds else "does not compute"


# ── the student ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Student:
    """A nearest neighbour: it answers as the most similar problem that it was taught, of the same kind."""

    taught: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]  # (n, 3): kind, a, b; (n,): answers

    @classmethod
    def of(cls, records: Sequence[Record]) -> Student:
        """Taught by these records; an answer that is no number teaches nothing."""
        rows = []
        for record in records:
            numbers = [int(x) for x in re.findall(r"\d+", record.prompt)]
            if (found := SHORT.fullmatch(record.response)) and len(numbers) == 2:
                rows.append((list(KINDS).index(record.label), *numbers, int(found[4])))
        if not rows:
            raise InvalidArgument("records", len(records), "at least one answer such as 7 + 8 = 15")
        table = np.array(rows)
        return cls((table[:, :3], table[:, 3]))

    def answers(self, problems: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """An answer (N,) to each problem (N, 3): the most frequent among the nearest, of equals the lowest."""
        seen, given = self.taught
        out = np.empty(len(problems), dtype=np.int64)
        for i, problem in enumerate(problems):
            far = np.abs(seen - problem) @ np.array([1_000, 1, 1])
            near = given[far == far.min()]
            values, counts = np.unique(near, return_counts=True)
            out[i] = values[counts.argmax()]
        return out

    def accuracy(self) -> dict[str, float]:
        """Share of right answers to all problems there are: of each kind, and their mean."""
        grid = np.array([(a, b) for a in range(HIGHEST) for b in range(HIGHEST)])
        found = {}
        for k, (kind, (operator, _)) in enumerate(KINDS.items()):
            problems = np.column_stack([np.full(len(grid), k), grid])
            truth = np.array([computed(int(a), operator, int(b)) for a, b in grid])
            found[kind] = float((self.answers(problems) == truth).mean())
        return found | {"all": float(np.mean(list(found.values())))}
