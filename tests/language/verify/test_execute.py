"""Right programs pass, wrong ones do not, and what a comparison of types would let through is caught."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.language.filters import execution as module
from synthbook.language.filters.execution import (
    Case,
    Program,
    Property,
    evaluate_expressions,
    execute,
    run_self_tests,
    strict_equal,
)
from synthbook.language.sandbox.pool import CallFailure, Limits, Sandbox
from tests.language.verify.programs import programs
from tests.mutation import mutant


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(Limits(10.0), jobs=2, allow_weak=True) as sandbox:  # the programs here are our own
        yield sandbox


@pytest.mark.slow
def test_no_right_program_is_refused(box: Sandbox) -> None:
    right = programs()
    assert len(right) >= 200
    cases = {f"f{k}": [Case("f", args, expected)] for k, (_, args, expected) in enumerate(right)}
    written = (Program(f"f{k}", f"f{k}", f"{code}\nf{k} = f\n") for k, (code, _, _) in enumerate(right))
    verdicts = list(execute(written, cases, box))
    assert [(v.id, v.reason, v.message) for v in verdicts if not v.passed] == []
    assert [v.id for v in verdicts] == list(cases)


PAIRS = [
    (1, 1, True),
    (True, 1, False),
    (1.0, 1, False),
    (math.nan, math.nan, False),
    (0.1 + 0.2, 0.3, False),
    ("1", 1, False),
    ([1, 2], [1, 2], True),
    ([1, True], [1, 1], False),
    ((1, 2), [1, 2], False),
    ({1, 2}, {2, 1}, True),
    ({True}, {1}, False),
    ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, True),
    ({"a": True}, {"a": 1}, False),
    ({1: 2}, {True: 2}, False),
    (None, None, True),
    (None, False, False),
    ([[]], [()], False),
    (frozenset({1}), {1}, False),
]


@pytest.mark.parametrize(("value", "expected", "is_same"), PAIRS)
def test_same_means_the_same_type_and_value(value: object, expected: object, is_same: bool) -> None:
    assert strict_equal(value, expected) is is_same


def test_tolerance_is_for_floats_only() -> None:
    assert strict_equal([0.1 + 0.2, {"a": 1e9 + 0.5}], [0.3, {"a": 1e9}], rel_tol=1e-6)
    assert not strict_equal(1_000_001, 1_000_000, rel_tol=1e-3)
    assert not strict_equal(math.nan, math.nan, rel_tol=1.0)
    broken = mutant(module, "if type(value) is not kind:", "if False:")
    assert broken.strict_equal(True, 1)  # what the line is for


def test_the_first_failure_gives_the_reason(box: Sandbox) -> None:
    code = "def half(n):\n    if n == 3: raise KeyError('three')\n    return n / 2 if n != 5 else 7.0"
    cases = {"half": [Case("half", (n,), n / 2) for n in (1, 5, 3)]}
    (verdict,) = execute([Program("a", "half", code)], cases, box)
    assert (verdict.reason, verdict.cases, verdict.message) == ("wrong", (True, False, False), "7.0")
    (verdict,) = execute([Program("a", "half", code)], {"half": cases["half"][2:]}, box)
    assert (verdict.reason, verdict.message) == ("error", "KeyError: 'three'")
    (verdict,) = execute([Program("a", "half", "def half(n) return")], cases, box)
    assert verdict.reason == "error" and verdict.message.startswith("SyntaxError")
    (verdict,) = execute([Program("a", "half", "def other(n): return n")], cases, box)
    assert verdict.reason == "error" and "half" in verdict.message
    with pytest.raises(InvalidArgument, match="one that has a case: half"):
        list(execute([Program("a", "third", code)], cases, box))


def test_properties_and_hidden_inputs(box: Sandbox) -> None:
    ordered = Property("f", ([3, 1, 2],), lambda value: value == sorted(value) and len(value) == 3)
    checks = {"f": [ordered]}
    codes = ["def f(x): return sorted(x)", "def f(x): return x", "def f(x): return None"]
    verdicts = list(execute((Program(code, "f", code) for code in codes), checks, box))
    assert [verdict.passed for verdict in verdicts] == [True, False, False]
    hidden = {"f": [Case("f", args, sorted(*args)) for args in [([2, 1],), ([],)]]}
    assert [v.passed for v in execute((Program(code, "f", code) for code in codes), hidden, box)] == [
        True,
        False,
        False,
    ]


def test_arithmetic(box: Sandbox) -> None:
    values = list(
        evaluate_expressions(
            ["17 * (3 + 4)", " 1 / 0 ", "2 ** 0.5", "print('x')", "__import__('os').listdir('/')"], box
        )
    )
    assert values[0] == 119 and values[2] == 2**0.5 and values[3] is None
    assert isinstance(values[1], CallFailure) and values[1].message.startswith("ZeroDivisionError")


def test_what_a_model_says_of_itself_is_labelled_so(box: Sandbox) -> None:
    code = "def double(x): return x + x"
    tests = ["assert double(2) == 4", "assert double(2) == 5", "assert double(2) =="]
    told = list(run_self_tests(((Program("a", "double", code), text) for text in tests), box))
    assert [(verdict.passed, verdict.reason) for verdict in told] == [
        (True, "passed"),
        (False, "wrong"),
        (False, "error"),
    ]
    assert {verdict.source for verdict in told} == {"self_test"}
    wrong = Program("b", "double", "def double(x): return x * x")
    (agreed,) = run_self_tests([(wrong, "assert double(2) == 4")], box)
    (to_verdict,) = execute([wrong], {"double": [Case("double", (3,), 6)]}, box)
    assert agreed.passed and not to_verdict.passed  # it agrees with itself, and is wrong
