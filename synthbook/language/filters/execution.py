"""Execution-based verification: run code on inputs with known answers, and compare outside of its reach.

This is the verdict of an oracle: trusted code computed the expected values. Asserts that a model wrote for its own
code, `run_self_tests`, show only that the model agrees with itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import tee
from typing import TYPE_CHECKING, Any

from synthbook.core.errors import InvalidArgument
from synthbook.language.sandbox.pool import CallFailure, CodeTask, Outcome, Sandbox

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Case:
    """A call and its expected value: type and value must match; floats within `rel_tol` where that is given."""

    function: str
    args: tuple[Any, ...]
    expected: Any
    rel_tol: float | None = None

    def accepts(self, value: Any) -> bool:
        """Whether a returned value matches the expected one."""
        return strict_equal(value, self.expected, self.rel_tol)


@dataclass(frozen=True)
class Property:
    """A call and a property of its value, where no answer is known: `holds(value)` runs here, on plain data."""

    function: str
    args: tuple[Any, ...]
    holds: Callable[[Any], bool]

    def accepts(self, value: Any) -> bool:
        """Whether the property holds; a value of an unexpected type fails it."""
        try:
            return self.holds(value) is True
        except Exception:  # of a type that the property did not think of
            return False


@dataclass(frozen=True)
class Program:
    """Source code, and the function in it that is called."""

    id: str | int
    function: str
    code: str


@dataclass(frozen=True)
class Verdict:
    """`reason`: passed, wrong, error, timeout, memory, output_limit or denied, of the first case that failed.

    `cases`: whether each passed; `source`: "oracle", or "self_test" for asserts that the model wrote.
    """

    id: str | int
    passed: bool
    reason: str
    isolation: str
    seconds: float
    peak_mib: float | None
    cases: tuple[bool, ...] = ()
    message: str = ""
    source: str = "oracle"


def strict_equal(value: Any, expected: Any, rel_tol: float | None = None) -> bool:
    """Whether two plain values are equal, types included: True is not 1, 1.0 is not 1, and NaN equals nothing.

    >>> strict_equal(True, 1), strict_equal([1, (2.0, 0.30000000000000004)], [1, (2.0, 0.3)], rel_tol=1e-9)
    (False, True)
    """
    kind = type(expected)
    if type(value) is not kind:
        return False
    if kind is float and rel_tol is not None:
        return math.isclose(value, expected, rel_tol=rel_tol)
    if kind in (list, tuple):
        same_length = len(value) == len(expected)
        return same_length and all(strict_equal(a, b, rel_tol) for a, b in zip(value, expected, strict=True))
    if kind in (set, frozenset):
        return strict_equal(sorted(value, key=_order), sorted(expected, key=_order), rel_tol)
    if kind is dict:
        one, two = (sorted(pairs.items(), key=lambda pair: _order(pair[0])) for pairs in (value, expected))
        return strict_equal(one, two, rel_tol)
    return bool(value == expected)


def _order(value: Any) -> tuple[str, str]:
    return type(value).__name__, repr(value)


def execute(
    programs: Iterable[Program], cases: Mapping[str, Sequence[Case | Property]], sandbox: Sandbox
) -> Iterator[Verdict]:
    """A verdict for each program, in their order, on all cases of its function; programs are read lazily.

    Raises `InvalidArgument` for a function without a case, `WeakIsolation`.
    """

    def task(program: Program) -> CodeTask:
        if not cases.get(program.function):
            raise InvalidArgument("function", program.function, f"one that has a case: {', '.join(sorted(cases))}")
        return CodeTask(program.code, program.function, tuple(case.args for case in cases[program.function]))

    programs, sent = tee(programs)
    for program, outcome in zip(programs, sandbox.map(map(task, sent)), strict=True):
        yield to_verdict(program.id, outcome, cases[program.function])


def to_verdict(name: str | int, outcome: Outcome, cases: Sequence[Case | Property]) -> Verdict:
    """The verdict on the outcome of a run."""
    pairs = zip(outcome.values, cases, strict=True)
    passed = tuple(not isinstance(value, CallFailure) and case.accepts(value) for value, case in pairs)
    reason, message = "passed", ""
    if not all(passed):
        first = outcome.values[passed.index(False)]
        failed = isinstance(first, CallFailure)
        reason, message = (first.reason, first.message) if failed else ("wrong", repr(first)[:200])
    run = (outcome.isolation, outcome.seconds, outcome.peak_mib)
    return Verdict(name, all(passed), reason, *run, passed, message)


def evaluate_expressions(expressions: Iterable[str], sandbox: Sandbox) -> Iterator[Any]:
    """The value of each expression, such as "17 * (3 + 4)", or `CallFailure`."""
    return (outcome.values[0] for outcome in sandbox.map(CodeTask(text.strip()) for text in expressions))


def run_self_tests(programs: Iterable[tuple[Program, str]], sandbox: Sandbox) -> Iterator[Verdict]:
    """Whether each program passes the asserts that its own author wrote. This is no oracle: a model may make the same
    error twice, and a program can exit before its asserts."""
    programs, sent = tee(programs)
    tasks = (CodeTask(f"{program.code}\n{asserts}\n", "") for program, asserts in sent)
    for (program, _), outcome in zip(programs, sandbox.map(tasks), strict=True):
        (value,) = outcome.values
        failed = isinstance(value, CallFailure)
        reason = "passed" if not failed else "wrong" if value.message.startswith("AssertionError") else value.reason
        message = value.message if failed else ""
        run = (outcome.isolation, outcome.seconds, outcome.peak_mib)
        yield Verdict(program.id, not failed, reason, *run, (not failed,), message, "self_test")


def plot_verdicts(reasons: Mapping[str, int], ax: Axes | None = None, *, good: str = "passed") -> Axes:
    """Plot the number of programs by verdict; those that are not `good` are hatched."""
    from synthbook.core.plots import BLUE, VERMILLION, new_axes

    ax = new_axes(ax, width=6.5, height=1.0 + 0.4 * len(reasons))
    for y, (reason, count) in enumerate(reasons.items()):
        passed = reason == good
        ax.barh(y, count, color=BLUE if passed else VERMILLION, hatch="" if passed else "//", edgecolor="white")
        ax.annotate(f" {count:,}", (count, y), va="center")
    ax.set_yticks(range(len(reasons)), list(reasons))
    ax.set(xlabel="programs", ylim=(len(reasons) - 0.5, -0.5))
    ax.margins(x=0.12)
    return ax
