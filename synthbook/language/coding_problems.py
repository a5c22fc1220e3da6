"""Small coding problems, each with a correct program, typical wrong ones, and an oracle.

A wrong program is not wrong everywhere: some are right on all small inputs. A filter by examples misses those.
"""

from __future__ import annotations

import calendar
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Seed
from synthbook.language.filters.execution import Case
from synthbook.language.records import Record


@dataclass(frozen=True)
class CodingProblem:
    """`reference` is the oracle, `sample_args(rng)` draws the arguments of a call; `hard` ones fail more often."""

    name: str
    prompt: str
    canonical_solution: str
    buggy_solutions: tuple[str, ...]
    reference: Callable[..., Any]
    sample_args: Callable[[np.random.Generator], tuple[Any, ...]]
    hard: bool = False

    @property
    def request(self) -> str:
        """The prompt as a sentence that asks for the function by name."""
        return f"Write a Python function {self.name} that returns {self.prompt}."


def _number(low: int, high: int) -> Callable[[np.random.Generator], tuple[int]]:
    return lambda rng: (int(rng.integers(low, high)),)


def _word(rng: np.random.Generator, letters: str = "abcdeo", longest: int = 9) -> str:
    return "".join(rng.choice(list(letters), int(rng.integers(1, longest))))


def _numbers(rng: np.random.Generator) -> tuple[list[int]]:
    return (rng.integers(-9, 10, int(rng.integers(2, 8))).tolist(),)


CODING_PROBLEMS: tuple[CodingProblem, ...] = (
    CodingProblem(
        "gcd",
        "the greatest common divisor of two positive whole numbers",
        "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a",
        (
            "def gcd(a, b):\n    return min(a, b)",
            "def gcd(a, b):\n    for d in range(2, min(a, b) + 1):\n        if a % d == 0 and b % d == 0:\n"
            "            return d\n    return 1",
            "def gcd(a, b):\n    while b > 1:\n        a, b = b, a % b\n    return a",
        ),
        math.gcd,
        lambda rng: tuple(int(x) for x in rng.integers(1, 200, 2)),
    ),
    CodingProblem(
        "is_prime",
        "whether a whole number is prime",
        "def is_prime(n):\n    if n < 2:\n        return False\n    d = 2\n    while d * d <= n:\n"
        "        if n % d == 0:\n            return False\n        d += 1\n    return True",
        (
            "def is_prime(n):\n    return n > 1 and all(n % d for d in (2, 3, 5, 7) if d < n)",
            "def is_prime(n):\n    return all(n % d for d in range(2, n))",
            "def is_prime(n):\n    return n == 2 or n % 2 == 1",
        ),
        lambda n: n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1)),
        _number(0, 400),
        hard=True,
    ),
    CodingProblem(
        "digit_sum",
        "the sum of the decimal digits of a whole number, which may be negative",
        "def digit_sum(n):\n    return sum(int(c) for c in str(abs(n)))",
        (
            "def digit_sum(n):\n    s = 0\n    while n > 0:\n        s += n % 10\n        n //= 10\n    return s",
            "def digit_sum(n):\n    return sum(int(c) for c in str(n))",
            "def digit_sum(n):\n    return abs(n) % 9",
        ),
        lambda n: sum(map(int, str(abs(n)))),
        _number(-500, 5_000),
    ),
    CodingProblem(
        "vowels",
        "how many vowels (a, e, i, o, u) a text has, in lower or upper case",
        "def vowels(text):\n    return sum(c in 'aeiou' for c in text.lower())",
        (
            "def vowels(text):\n    return sum(c in 'aeiou' for c in text)",
            "def vowels(text):\n    return len(set(text.lower()) & set('aeiou'))",
            "def vowels(text):\n    return sum(c in 'aeio' for c in text.lower())",
        ),
        lambda text: len([c for c in text if c in "aeiouAEIOU"]),
        lambda rng: (_word(rng, "abcdeEiouUxyz", 12),),
    ),
    CodingProblem(
        "median",
        "the median of a list of whole numbers, as a float",
        "def median(x):\n    x = sorted(x)\n    n = len(x)\n    return (x[(n - 1) // 2] + x[n // 2]) / 2",
        (
            "def median(x):\n    x = sorted(x)\n    return float(x[len(x) // 2])",
            "def median(x):\n    n = len(x)\n    return (x[(n - 1) // 2] + x[n // 2]) / 2",
            "def median(x):\n    return sum(x) / len(x)",
        ),
        lambda x: float(statistics.median(x)),
        _numbers,
        hard=True,
    ),
    CodingProblem(
        "is_palindrome",
        "whether a text reads the same backwards, upper and lower case alike",
        "def is_palindrome(text):\n    t = text.lower()\n    return t == t[::-1]",
        (
            "def is_palindrome(text):\n    return text == text[::-1]",
            "def is_palindrome(text):\n    t = text.lower()\n    return t[0] == t[-1]",
            "def is_palindrome(text):\n    return False",
        ),
        lambda text: all(a == b for a, b in zip(text.lower(), reversed(text.lower()), strict=True)),
        lambda rng: ((lambda w: w + w[::-1].upper() if rng.random() < 0.5 else w)(_word(rng, "ab", 5)),),
    ),
    CodingProblem(
        "second_largest",
        "the second largest of the different numbers in a list, or None where there is none",
        "def second_largest(x):\n    x = sorted(set(x))\n    return x[-2] if len(x) > 1 else None",
        (
            "def second_largest(x):\n    return sorted(x)[-2]",
            "def second_largest(x):\n    x = sorted(set(x))\n    return x[1] if len(x) > 1 else None",
            "def second_largest(x):\n    return max([v for v in x if v < x[0]], default=None)",
        ),
        lambda x: max((v for v in x if v < max(x)), default=None),
        _numbers,
        hard=True,
    ),
    CodingProblem(
        "is_leap_year",
        "whether a year of the Gregorian calendar has 366 days",
        "def is_leap_year(y):\n    return y % 4 == 0 and (y % 100 != 0 or y % 400 == 0)",
        (
            "def is_leap_year(y):\n    return y % 4 == 0",
            "def is_leap_year(y):\n    return y % 4 == 0 and y % 100 != 0",
            "def is_leap_year(y):\n    return y % 400 == 0",
        ),
        calendar.isleap,
        lambda rng: (int(rng.integers(15, 25)) * 100 + int(rng.integers(100)) * int(rng.random() < 0.4),),
        hard=True,
    ),
    CodingProblem(
        "run_lengths",
        "the runs of equal letters in a text, as a list of [letter, how often]",
        "def run_lengths(text):\n    runs = []\n    for c in text:\n        if runs and runs[-1][0] == c:\n"
        "            runs[-1][1] += 1\n        else:\n            runs.append([c, 1])\n    return runs",
        (
            "def run_lengths(text):\n    return [[c, text.count(c)] for c in dict.fromkeys(text)]",
            "def run_lengths(text):\n    return [[c, 1] for c in text]",
            "def run_lengths(text):\n    runs, n = [], 1\n    for a, b in zip(text, text[1:]):\n        if a == b:\n"
            "            n += 1\n        else:\n            runs.append([a, n])\n            n = 1\n    return runs",
        ),
        lambda text: [[c, len(list(run))] for c, run in groupby(text)],
        lambda rng: (_word(rng, "ab"),),
        hard=True,
    ),
    CodingProblem(
        "to_binary",
        "a whole number of at least 0 in binary digits, as text without leading zeros",
        "def to_binary(n):\n    digits = ''\n    while n:\n        digits = str(n % 2) + digits\n        n //= 2\n"
        "    return digits or '0'",
        (
            "def to_binary(n):\n    digits = ''\n    while n:\n        digits = str(n % 2) + digits\n        n //= 2\n"
            "    return digits",
            "def to_binary(n):\n    digits = ''\n    while n:\n        digits += str(n % 2)\n        n //= 2\n"
            "    return digits or '0'",
            "def to_binary(n):\n    return bin(n)",
        ),
        lambda n: format(n, "b"),
        lambda rng: (int(rng.integers(64)) * int(rng.random() < 0.8),),
    ),
)


# ── A scripted teacher with known errors ──
# Of a real model nobody knows which answers are wrong; of this one each record says so in its provenance. It errs at a
# rate that you set, more often on what is hard, and may repeat itself in other words. Its errors may be its own each
# time, or shared: the same wrong answer whenever the same problem is asked, which no vote among its answers can mend.


@dataclass(frozen=True)
class ScriptedCodeTeacher:
    """Writes a function for each prompt; a share `error_rate` is wrong (`hard_error_rate` for hard problems, if given).

    A share `duplicate_rate` of the records is a reformatted copy of an earlier one.
    """

    error_rate: float = 0.3
    hard_error_rate: float | None = None
    duplicate_rate: float = 0.0
    problems: tuple[CodingProblem, ...] = CODING_PROBLEMS

    def __post_init__(self) -> None:
        for name in ("error_rate", "hard_error_rate", "duplicate_rate"):
            if (share := getattr(self, name)) is not None and not 0 <= share <= 1:
                raise InvalidArgument(name, share, "a share from 0 to 1")

    def records(self, n: int, *, seed: Seed) -> Iterator[Record]:
        """n records, each from its own seed; `provenance` holds `correct`, and `duplicate_of` (an id) for copies."""
        root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        return (self._record(k, root) for k in range(n))

    def _record(self, k: int, root: np.random.SeedSequence) -> Record:
        rng = np.random.default_rng(np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, k)))
        if rng.random() < self.duplicate_rate and k:
            first = self._record(int(rng.integers(k)), root)
            known = {"duplicate_of": first.id, **first.provenance}  # the first of all that say it
            return Record(f"{k:06d}", first.prompt, reworded(first.response, rng), first.label, known)
        problem = self.problems[int(rng.integers(len(self.problems)))]
        error = self.hard_error_rate if problem.hard and self.hard_error_rate is not None else self.error_rate
        correct = bool(rng.random() >= error)
        code, buggy = problem.canonical_solution, problem.buggy_solutions
        if not correct:
            code = buggy[int(rng.integers(len(buggy)))]
        provenance = {"model": "scripted", "correct": correct, "hard": problem.hard}
        return Record(f"{k:06d}", problem.request, code, problem.name, provenance)


def reworded(code: str, rng: np.random.Generator) -> str:
    """The same program with a comment, a newline, or other quotes and spaces."""
    kind = int(rng.integers(3))
    if kind == 0:
        return f"# {rng.choice(['solution', 'answer', 'done'])}\n{code}"
    return f"{code}\n" if kind == 1 else code.replace(" = ", "  =  ").replace("'", '"')


def cases(n: int, *, seed: Seed, problems: tuple[CodingProblem, ...] = CODING_PROBLEMS) -> dict[str, list[Case]]:
    """n cases for each problem, answered by its oracle."""
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    by_name = {}
    for problem, child in zip(problems, root.spawn(len(problems)), strict=True):
        rng = np.random.default_rng(child)
        calls = [problem.sample_args(rng) for _ in range(n)]
        by_name[problem.name] = [Case(problem.name, args, problem.reference(*args)) for args in calls]
    return by_name


def sample_answers(
    problems: int, k: int, *, p: float, answers: int = 10, shared_error_rate: float = 0.0, seed: Seed
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Truths (problems,) and k answers (problems, k) among `answers` possible ones, right with probability p.

    Of a share `shared_error_rate` of the problems all paths give the same wrong answer.
    """
    if answers < 2 or not 0 <= p <= 1 or not 0 <= shared_error_rate <= 1:
        values = (p, answers, shared_error_rate)
        raise InvalidArgument("p, answers, shared_error_rate", values, "shares from 0 to 1, at least 2 answers")
    rng = np.random.default_rng(seed)
    truth = rng.integers(answers, size=problems)
    wrong = (truth[:, None] + rng.integers(1, answers, (problems, k))) % answers
    given = np.where(rng.random((problems, k)) < p, truth[:, None], wrong)
    misled = rng.random(problems) < shared_error_rate
    return truth, np.where(misled[:, None], wrong[:, :1], given)
