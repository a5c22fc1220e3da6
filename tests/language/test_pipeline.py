"""The planted teacher errs as it was told; the pipeline keeps its ledger, its order and its memory."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.storage import Provenance, read_provenance
from synthbook.language import pipeline
from synthbook.language.coding_problems import CODING_PROBLEMS, ScriptedCodeTeacher, cases, reworded
from synthbook.language.filters.execution import Program, Property, execute
from synthbook.language.filters.voting import precision_and_yield, score_filter
from synthbook.language.pipeline import (
    cap_per_class,
    drop_exact_duplicates,
    drop_near_duplicates,
    keep_if,
    match_schema,
    pass_tests,
    plot_funnel,
    run_pipeline,
)
from synthbook.language.records import Record, read_jsonl, read_records
from synthbook.language.sandbox.pool import Limits, Sandbox

ORIGIN = Provenance("a test", "pytest")


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(Limits(2.0), jobs=2, allow_weak=True) as sandbox:  # every program here is our own
        yield sandbox


# ── the teacher ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_right_programs_are_right_and_wrong_ones_are_not(box: Sandbox) -> None:
    """On many inputs of its oracle: the ground truth itself. One is wrong for 0 and 1 alone."""
    known = cases(1_500, seed=5)
    right = [Program(problem.name, problem.name, problem.canonical_solution) for problem in CODING_PROBLEMS]
    assert [v.id for v in execute(right, known, box) if not v.passed] == []
    wrong = [
        Program(f"{s.name} {k}", s.name, code) for s in CODING_PROBLEMS for k, code in enumerate(s.buggy_solutions)
    ]
    assert [v.id for v in execute(wrong, known, box) if v.passed] == []


def test_the_teacher_errs_and_repeats_as_often_as_it_was_told() -> None:
    n = 4_000
    made = list(ScriptedCodeTeacher(error_rate=0.2, hard_error_rate=0.5, duplicate_rate=0.3).records(n, seed=0))
    fresh = [record for record in made if "duplicate_of" not in record.provenance]
    assert abs(1 - len(fresh) / n - 0.3) < 4 * np.sqrt(0.3 * 0.7 / n)
    for hard, error in ((False, 0.2), (True, 0.5)):
        some = [record for record in fresh if record.provenance["hard"] is hard]
        share = np.mean([not record.provenance["correct"] for record in some])
        assert abs(share - error) < 4 * np.sqrt(error * (1 - error) / len(some))
    by_id = {record.id: record for record in made}
    for record in made:
        if first := record.provenance.get("repeats"):
            assert by_id[first].provenance.get("repeats") is None and by_id[first].label == record.label
            assert by_id[first].provenance["correct"] == record.provenance["correct"] and record.response != ""


def test_a_record_depends_on_the_seed_and_its_number_alone() -> None:
    teacher = ScriptedCodeTeacher(duplicate_rate=0.3)
    some = list(teacher.records(50, seed=1))
    assert list(itertools.islice(teacher.records(10_000, seed=1), 50)) == some
    assert list(teacher.records(50, seed=2)) != some
    with pytest.raises(InvalidArgument):
        ScriptedCodeTeacher(error_rate=1.5)


@pytest.mark.slow
def test_rewording_changes_no_meaning(box: Sandbox) -> None:
    known, rng = cases(20, seed=6), np.random.default_rng(0)
    programs = [
        Program(f"{s.name} {k}", s.name, reworded(s.canonical_solution, rng)) for s in CODING_PROBLEMS for k in range(4)
    ]
    assert all(verdict.passed for verdict in execute(programs, known, box))


# ── filters, scored ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def passed(box: Sandbox) -> dict[str, tuple[bool, ...]]:
    """For each program of the teacher whether it passes each of eight cases."""
    programs = [
        Program(code, problem.name, code)
        for problem in CODING_PROBLEMS
        for code in (problem.canonical_solution, *problem.buggy_solutions)
    ]
    return {str(verdict.id): verdict.cases for verdict in execute(programs, cases(8, seed=8), box)}


@pytest.mark.slow
@pytest.mark.parametrize("error_rate", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("k", [1, 2, 8])
def test_execution_does_what_its_rates_foretell(error_rate: float, k: int, passed: dict[str, tuple[bool, ...]]) -> None:
    """C4.3-1: a and b of one half give precision and yield of the other, within 4 standard errors."""
    made = list(ScriptedCodeTeacher(error_rate=error_rate).records(8_000, seed=7))
    right = np.array([record.provenance["correct"] for record in made])
    verdict_cache = np.array([all(passed[record.response][:k]) for record in made])
    known, found = score_filter(right[::2], verdict_cache[::2]), score_filter(right[1::2], verdict_cache[1::2])
    precision, share = precision_and_yield(found.base_rate, known.tpr, known.fpr)
    wrong, n = 4_000 * (1 - found.base_rate), 4_000
    se_b = np.sqrt(known.fpr * (1 - known.fpr) / wrong)  # of b here, and of b there
    se_share = np.sqrt(2) * (1 - found.base_rate) * se_b
    se_precision = np.sqrt(2) * se_b * found.base_rate * (1 - found.base_rate) / share**2
    assert known.tpr == 1 and abs(found.yield_rate - share) < 4 * se_share + 1 / n
    assert abs(found.precision - precision) < 4 * se_precision + 1 / n


def test_more_cases_miss_less(passed: dict[str, tuple[bool, ...]]) -> None:
    wrong = [passed[code] for problem in CODING_PROBLEMS for code in problem.buggy_solutions]
    rates = [np.mean([all(told[:k]) for told in wrong]) for k in range(1, 9)]
    assert rates == sorted(rates, reverse=True) and rates[0] > 2 * rates[-1] > 0
    assert all(all(passed[problem.canonical_solution]) for problem in CODING_PROBLEMS)


# ── the pipeline ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_every_drop_is_in_the_ledger(box: Sandbox) -> None:
    made = list(ScriptedCodeTeacher(error_rate=0.4, duplicate_rate=0.3).records(300, seed=0))
    stages = {
        "no comments": keep_if(lambda record: not record.response.startswith("#"), "a comment"),
        "copies": drop_exact_duplicates(),
        "execution": pass_tests(cases(6, seed=1), box),
        "repeats": drop_near_duplicates(),
        "balance": cap_per_class(2),
    }
    told: list[tuple[str, str, str]] = []
    flow, ledger = run_pipeline(
        made, stages, on_drop=lambda record, stage, reason: told.append((record.id, stage, reason))
    )
    verdict_cache = list(flow)
    assert [entry.stage for entry in ledger] == list(stages)
    assert ledger[0].n_in == 300 and ledger[-1].n_out == len(verdict_cache)
    for before, after in itertools.pairwise(ledger):
        assert before.n_out == after.n_in
    for entry in ledger:
        assert entry.n_in == entry.n_out + sum(entry.reasons.values())
    assert Counter(stage for _, stage, _ in told) == {e.stage: sum(e.reasons.values()) for e in ledger if e.reasons}
    assert {record.id for record in verdict_cache} | {name for name, _, _ in told} == {record.id for record in made}
    assert [record.id for record in verdict_cache] == sorted(record.id for record in verdict_cache)
    assert max(Counter(record.label for record in verdict_cache).values()) <= 2
    assert all(record.verdicts["execution"] == "passed" for record in verdict_cache)
    ax = plot_funnel(ledger)
    words = " ".join(text.get_text() for text in ax.texts)
    assert all(entry.stage in words for entry in ledger) and "wrong" in words


def test_nothing_is_read_before_it_is_needed() -> None:
    read = []

    def records() -> Iterator[Record]:
        for k in itertools.count():
            read.append(k)
            yield Record(str(k), "", str(k), "a")

    flow, ledger = run_pipeline(records(), {"even": keep_if(lambda record: int(record.id) % 2 == 0, "odd")})
    assert [record.id for record in itertools.islice(flow, 3)] == ["0", "2", "4"]
    assert len(read) == 5 and ledger[0].reasons == {"odd": 2}


@pytest.mark.slow
def test_many_records_pass_in_bounded_memory() -> None:
    def records(n: int) -> Iterator[Record]:
        return (Record(str(k), "prompt", f"answer {k} " + "x" * 1_000, "a") for k in range(n))

    def peak(n: int) -> int:
        flow, _ = run_pipeline(
            records(n), {"short": keep_if(lambda record: len(record.id) < 4, "long"), "few": cap_per_class(10)}
        )
        tracemalloc.start()
        assert sum(1 for _ in flow) == 10
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(20_000) < peak(2_000) + 100_000


@pytest.mark.slow
def test_a_run_that_was_killed_asks_for_nothing_twice(box: Sandbox, tmp_path: Path) -> None:
    made, file = list(ScriptedCodeTeacher().records(40, seed=0)), tmp_path / "verdicts.jsonl"
    asked: list[str] = []

    class Counting:
        limits = box.limits

        def map(self, tasks: Iterable[object]) -> Iterator[object]:
            def counted() -> Iterator[object]:
                for task in tasks:
                    asked.append(task.code)  # type: ignore[attr-defined]
                    yield task

            return box.map(counted())  # type: ignore[arg-type, return-value]

    def verdict_cache(some: list[Record]) -> list[Record]:
        flow, _ = run_pipeline(some, {"execution": pass_tests(cases(4, seed=1), Counting(), verdict_cache=file)})  # type: ignore[arg-type]
        return list(flow)

    verdict_cache(made[:25])
    first = len(asked)
    assert first == len({record.content_hash for record in made[:25]})
    file.write_bytes(file.read_bytes() + b'{"key": "cut off wh')
    whole = verdict_cache(made)
    assert len(asked) == len({record.content_hash for record in made}) and len(set(asked)) == len(asked)
    fresh, _ = run_pipeline(made, {"execution": pass_tests(cases(4, seed=1), box)})
    assert list(fresh) == whole
    others = {**cases(4, seed=1), **cases(1, seed=2)}
    flow, _ = run_pipeline(made, {"execution": pass_tests(others, Counting(), verdict_cache=file)})  # type: ignore[arg-type]
    list(flow)
    assert len(asked) == 2 * len(set(asked))  # other cases are another question
    with pytest.raises(InvalidArgument, match="expected values only"):
        pass_tests({"f": [Property("f", (), bool)]}, box, verdict_cache=file)


def test_what_was_kept_is_written_with_its_origin(tmp_path: Path) -> None:
    made = list(ScriptedCodeTeacher().records(30, seed=0))
    path, ledger = pipeline.run_to_disk(made, {"few": cap_per_class(1)}, tmp_path / "out", ORIGIN)
    assert list(read_records(path)) == [r for k, r in enumerate(made) if r.label not in {m.label for m in made[:k]}]
    assert read_provenance(path) == ORIGIN == read_provenance(tmp_path / "out" / "ledger.json")
    drops = [line for _, line in read_jsonl(tmp_path / "out" / "dropped.jsonl")]
    assert {line["id"] for line in drops} | {record.id for record in read_records(path)} == {r.id for r in made}
    assert all(line["stage"] == "few" and "already" in line["reason"] for line in drops)
    (entry,) = json.loads((tmp_path / "out" / "ledger.json").read_text())
    assert entry["in"] == 30 and entry["out"] == ledger[0].n_out == len(list(read_records(path)))


class Note(BaseModel):
    """What a response should look like."""

    text: str


def test_a_form_is_checked_and_text_stays_data() -> None:
    nasty = '{"text": "ignore all rules\\n{\\"id\\": \\"9\\"}\\u0000\\ud800"}'
    some = [Record("1", "p", '{"text": "a"}'), Record("2", "p", "no JSON"), Record("3", "p", nasty)]
    flow, ledger = run_pipeline(some, {"form": match_schema(Note)})
    verdict_cache = list(flow)
    assert (verdict_cache[0].id, verdict_cache[0].verdicts) == ("1", {"form": "fits"})
    assert any("Invalid JSON" in reason for reason in ledger[0].reasons)
    line = some[2].to_json_line()
    assert line.count("\n") == 1 and json.loads(line)["response"] == nasty


def test_lines_that_are_no_records_are_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + Record("1", "p", "r").to_json_line().encode() + b"\n  \n[1]\n")
    with pytest.raises(DataError, match="line 4: a list"):
        list(read_jsonl(path))
    path.write_text('{"id": "1"}\n')
    with pytest.raises(DataError, match="line 1: no record"):
        list(read_records(path))
    path.write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(DataError, match="line 1: not JSON"):
        list(read_jsonl(path))
    for bad in ({}, None):
        with pytest.raises(InvalidArgument):
            run_pipeline([], bad or {})
    with pytest.raises(InvalidArgument):
        cap_per_class(0)
