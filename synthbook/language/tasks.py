"""Questions with an oracle for a real model: word problems and small functions, and what may be kept of its answers.

An answer is kept when it is right on visible cases, and scored on hidden ones, which are others. A sum such as
"6 * 8 = 48" is lifted for that: with the numbers of its problem taken out it is a program, `a * b`, that must also give
the known answers to the same sentence with two other pairs of numbers. A sum of the wrong kind runs, and fails there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synthbook.language.chat import Ask, Message, Sampling
from synthbook.language.pipeline import BATCH, Stage, Told
from synthbook.language.planted import cases
from synthbook.language.problems import HIGHEST, KINDS, SHORT, computed
from synthbook.language.records import Record, batches
from synthbook.language.skills import SKILLS
from synthbook.language.verify.execute import Case, Program, execute
from synthbook.language.verify.sandbox import Sandbox

SHOWN_SUMS = (  # other sentences than those of the problems
    ("A bus carries 6 people and 2 more get on. How many people are on the bus?", "6 + 2 = 8"),
    ("There are 5 bags with 3 apples in each. How many apples are there?", "5 * 3 = 15"),
    ("Of 8 eggs, 3 break. How many are left?", "8 - 3 = 5"),
    ("A pond has 7 ducks and 6 more land. How many ducks are there?", "7 + 6 = 13"),
    ("4 dogs have 4 legs each. How many legs are there?", "4 * 4 = 16"),
    ("A tree had 9 apples and 5 fell. How many are left?", "9 - 5 = 4"),
)
SHOWN_FUNCTIONS = (
    ("Write a Python function double that returns twice a number.", "def double(x):\n    return 2 * x"),
    (
        "Write a Python function first_word that returns the first word of a text.",
        "def first_word(text):\n    return text.split()[0]",
    ),
)
VISIBLE = ((7, 2), (5, 4))  # the pairs whose answers are known for each sentence; they are never asked
HELD_OUT = 5  # one pair of numbers in so many is kept from every question, for a student's test
VISIBLE_CASES, HIDDEN_CASES = 20, 40  # of each function


@dataclass(frozen=True)
class Problem:
    """A sentence with places for two numbers, its kind, and the numbers."""

    kind: str
    sentence: str
    a: int
    b: int

    @property
    def text(self) -> str:
        """As it is asked."""
        return self.sentence.format(a=self.a, b=self.b)

    @property
    def operator(self) -> str:
        """What the oracle knows: +, - or *."""
        return KINDS[self.kind][0]

    @property
    def answer(self) -> int:
        """The oracle's."""
        return computed(self.a, self.operator, self.b)

    @property
    def sum(self) -> str:
        """The oracle's answer, as it should be written."""
        return f"{self.a} {self.operator} {self.b} = {self.answer}"


def problems(*, held_out: bool) -> list[Problem]:
    """Every sentence with every pair of numbers: those for questions, or those that are held out of them."""
    rng = np.random.default_rng(0)
    pairs = [(a, b) for a in range(1, HIGHEST) for b in range(1, HIGHEST) if a != b and (a, b) not in VISIBLE]
    apart = {pairs[i] for i in rng.choice(len(pairs), len(pairs) // HELD_OUT, replace=False)}
    return [
        Problem(kind, sentence, a, b)
        for kind, (operator, sentences) in KINDS.items()
        for sentence in sentences
        for a, b in pairs
        if ((a, b) in apart) is held_out and (operator != "-" or a > b)
    ]


def sum_asks(n: int, *, seed: int) -> Iterator[tuple[Ask, Problem]]:
    """n questions, each kind as often, drawn by a seed."""
    rng, all_of = np.random.default_rng([seed, 41]), problems(held_out=False)
    kinds = {kind: [problem for problem in all_of if problem.kind == kind] for kind in KINDS}
    sampling = Sampling(temperature=0.5, max_tokens=16, stop=("\n",), seed=seed)
    for k in range(n):
        some = kinds[list(KINDS)[k % len(KINDS)]]
        problem = some[int(rng.integers(len(some)))]
        yield Ask(_shown(SHOWN_SUMS, problem.text), sampling, k), problem


def function_asks(n: int, *, seed: int) -> Iterator[tuple[Ask, str]]:
    """n questions for each of the skills, and the name of the function that is asked for."""
    sampling = Sampling(temperature=0.7, max_tokens=110, seed=seed)
    for skill in SKILLS:
        prompt = f"Write a Python function {skill.name} that returns {skill.prompt}."
        for k in range(n):
            yield Ask(_shown(SHOWN_FUNCTIONS, prompt), sampling, k), skill.name


def _shown(pairs: Sequence[tuple[str, str]], question: str) -> tuple[Message, ...]:
    turns = [Message(role, text) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]
    return (*turns, Message("user", question))


# ── what may be kept ─────────────────────────────────────────────────────────────────────────────────────────────────


def lifted(answer: str, problem: Problem) -> str | None:
    """The left side of an answer as a program of a and b; None where it is no sum of the problem's numbers.

    >>> lifted("6 * 8 = 48", Problem("each", "{a} rows of {b}", 6, 8))
    'a * b'
    """
    found = SHORT.fullmatch(answer)
    if found is None or {int(found[1]), int(found[3])} != {problem.a, problem.b}:
        return None
    one, two = ("a", "b") if int(found[1]) == problem.a else ("b", "a")
    return f"{one} {found[2]} {two}"


def visible(answers: Mapping[str, Problem], sandbox: Sandbox) -> Stage:
    """Keeps sums that compute what they say, and are right for the same sentence with the `VISIBLE` numbers.

    `answers` holds the problem of each record, by its id.
    """
    known = {kind: [(pair, computed(pair[0], KINDS[kind][0], pair[1])) for pair in VISIBLE] for kind in KINDS}

    def told(records: Sequence[Record]) -> Iterator[Told]:
        codes, tests = dict[str, str](), dict[str, list[Case]]()
        for k, record in enumerate(records):
            problem, name = answers[record.id], f"sum_{k}"
            if (body := lifted(record.response, problem)) is not None:
                codes[name] = f"def {name}(a, b):\n    return {body}"
                said = ((problem.a, problem.b), int(record.response.partition("=")[2]))
                tests[name] = [Case(name, pair, value) for pair, value in (said, *known[record.label])]
        programs = (Program(name, name, code) for name, code in codes.items())
        passed = {str(verdict.id): verdict.cases for verdict in execute(programs, tests, sandbox)}
        for k, record in enumerate(records):
            reason = _reason(passed.get(f"sum_{k}"))
            yield record.told("visible cases", reason or "passed"), reason

    return lambda records: (found for some in batches(records, BATCH) for found in told(some))


def _reason(passed: Sequence[bool] | None) -> str | None:
    if passed is None:
        return "no sum of these numbers"
    return None if all(passed) else "wrong on a visible case" if passed[0] else "does not compute"


def function_cases(*, hidden: bool) -> dict[str, list[Case]]:
    """Visible or hidden cases of each skill; no call is in both."""
    shown = cases(VISIBLE_CASES, seed=1)
    if not hidden:
        return shown
    calls = {name: {case.args.__repr__() for case in some} for name, some in shown.items()}
    return {
        name: [case for case in some if repr(case.args) not in calls[name]]
        for name, some in cases(HIDDEN_CASES, seed=2).items()
    }


def right(record: Record, problem: Problem) -> bool:
    """Whether an answer says the right sum and the right result; the oracle, for scores alone."""
    found = SHORT.fullmatch(record.response)
    return found is not None and int(found[4]) == problem.answer and said_sum(record.response, problem)


def said_sum(answer: str, problem: Problem) -> bool:
    """Whether the left side of an answer comes to the right result, whatever its right side says."""
    found = SHORT.match(answer if "=" in answer else f"{answer} = 0")
    return found is not None and computed(int(found[1]), found[2], int(found[3])) == problem.answer


def correct_functions(records: Iterable[Record], sandbox: Sandbox) -> Iterator[bool]:
    """Whether each program is right on all hidden cases of its function; the oracle, for scores alone."""
    programs = (Program(record.id, record.label, record.response) for record in records)
    return (verdict.passed for verdict in execute(programs, function_cases(hidden=True), sandbox))
