"""Programs and cases from JSONL files, verdicts back: what `synthbook verify` does.

Verdicts are kept beside their target as they are made. A run that was stopped goes on after the last whole one, if the
files and the limits are still the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.files import sha256, sha256_file
from synthbook.core.provenance import Provenance, write_described
from synthbook.language.records import read_lines
from synthbook.language.verify.child import decode
from synthbook.language.verify.execute import Case, Program, Verdict, execute
from synthbook.language.verify.sandbox import Limits, Sandbox

COLUMNS = ("id", "passed", "reason", "isolation", "seconds", "peak_mib")
SHOWN = 50  # failures in a report


def read_cases(path: Path) -> dict[str, list[Case]]:
    """Cases by function. Raises `DataError`, which names the line."""
    found: dict[str, list[Case]] = {}
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        if not {"function", "args", "expected"} <= line.keys() <= {"function", "args", "expected", "rel_tol"}:
            raise DataError(f"{where}: keys {sorted(line)}; function, args and expected are needed, rel_tol is allowed")
        tolerance = line.get("rel_tol")
        if not isinstance(line["function"], str) or not isinstance(line["args"], list):
            raise DataError(f"{where}: function is a name and args a list of arguments")
        if tolerance is not None and not (isinstance(tolerance, int | float) and 0 <= tolerance < 1):
            raise DataError(f"{where}: rel_tol = {tolerance!r}; a number from 0 to 1 is accepted")
        try:
            args, expected = tuple(decode(line["args"])), decode(line["expected"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: a value with a tag that is not known ({error})") from None
        found.setdefault(line["function"], []).append(Case(line["function"], args, expected, tolerance))
    if not found:
        raise DataError(f"{path} holds no case")
    return found


def read_programs(path: Path, cases: dict[str, list[Case]]) -> Iterator[Program]:
    """Programs, one after the other. Raises `DataError` for a line that is none, or whose function has no case."""
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        if line.keys() != {"id", "function", "code"}:
            raise DataError(f"{where}: keys {sorted(line)}; id, function and code are expected")
        if not isinstance(line["function"], str) or not isinstance(line["code"], str):
            raise DataError(f"{where}: function and code are text")
        if not isinstance(line["id"], str | int) or isinstance(line["id"], bool):
            raise DataError(f"{where}: id = {line['id']!r}; text or a whole number is expected")
        if line["function"] not in cases:
            raise DataError(f"{where}: no case for the function {line['function']!r}; there are {', '.join(cases)}")
        yield Program(line["id"], line["function"], line["code"])


@dataclass(frozen=True)
class Summary:
    """How many programs, of which kinds, and the first failures."""

    n: int
    reasons: dict[str, int]
    isolation: str
    failures: list[tuple[Verdict, str]]  # with the function


def verify_files(
    records: Path,
    cases: Path,
    out: Path,
    origin: Provenance,
    *,
    limits: Limits,
    jobs: int | None = None,
    allow_weak: bool = False,
    resume: bool = False,
    observe: Callable[[int, int], None] = lambda done, n: None,
) -> Summary:
    """Judge every program of a file on the cases of its function; write a verdict for each, in their order.

    Both files are read through before anything runs. Raises `DataError`, `InvalidArgument`, `WeakIsolation`.
    """
    known = read_cases(cases)
    n = sum(1 for _ in read_programs(records, known))
    if not n:
        raise DataError(f"{records} holds no program")
    told = {"records": sha256_file(records), "cases": sha256_file(cases), "limits": asdict(limits)}
    partial, task = out.with_name(out.name + ".partial"), sha256(json.dumps(told).encode())
    done = _begun(partial, task, resume)
    out.parent.mkdir(parents=True, exist_ok=True)
    reasons, isolation = Counter(line["reason"] for line in done), "os"
    failures: list[tuple[Verdict, str]] = []
    with Sandbox(limits, jobs=jobs, allow_weak=allow_weak) as sandbox, partial.open("a", encoding="utf-8") as file:
        if not done:
            file.write(json.dumps({"task": task}) + "\n")
        rest = islice(read_programs(records, known), len(done), None)
        names = (program.function for program in islice(read_programs(records, known), len(done), None))
        for k, verdict in enumerate(execute(rest, known, sandbox), start=len(done) + 1):
            file.write(json.dumps(_line(verdict)) + "\n")
            file.flush()
            reasons[verdict.reason] += 1
            isolation, function = verdict.isolation, next(names)
            if not verdict.passed and len(failures) < SHOWN:
                failures.append((verdict, function))
            observe(k, n)
    with partial.open(encoding="utf-8") as file:
        write_described(out, islice(file, 1, None), origin)  # without the line that names the task
    partial.unlink()
    return Summary(n, dict(reasons.most_common()), isolation, failures)


def _line(verdict: Verdict) -> dict[str, Any]:
    line = {name: getattr(verdict, name) for name in COLUMNS}
    line["seconds"] = round(verdict.seconds, 4)
    line["peak_mib"] = None if verdict.peak_mib is None else round(verdict.peak_mib, 1)
    return line


def _begun(partial: Path, task: str, resume: bool) -> list[dict[str, Any]]:
    """The verdicts that a run before this one kept; what was cut off is cut away."""
    if not partial.exists():
        return []
    if not resume:
        raise InvalidArgument("out", str(partial), "another file, --resume to go on, or remove it to begin again")
    raw = partial.read_bytes()
    partial.write_bytes(raw[: raw.rfind(b"\n") + 1])
    found = [line for _, line in read_lines(partial)]
    if not found:
        return []
    if found[0].get("task") != task:
        raise InvalidArgument("resume", str(partial), "the run that was begun: other files or limits now")
    return found[1:]


def page(summary: Summary, title: str) -> str:
    """A report: how many of which kind, and the first failures; what the programs said is escaped."""
    from html import escape

    from synthbook.core.html import document, image, table
    from synthbook.language.verify.execute import plot_reasons

    share = summary.reasons.get("passed", 0) / summary.n
    rows = [
        [escape(str(v.id)), escape(function), v.reason, f"{v.seconds:.2f}", escape(v.words[:200])]
        for v, function in summary.failures
    ]
    alt = ", ".join(f"{reason} {count:,}" for reason, count in summary.reasons.items())
    kept = "confined by the operating system" if summary.isolation == "os" else "NOT confined: limits only"
    return document(
        title,
        [
            f"<h1>{escape(title)}</h1>",
            f"<p><strong>{summary.reasons.get('passed', 0):,} of {summary.n:,} programs passed ({share:.1%}).</strong>",
            f"Each ran in a process of its own, {kept}.</p>",
            image(plot_reasons(summary.reasons).figure, alt),
            "<p>The first failures, with the words of the program or the value that it returned:</p>" if rows else "",
            table(["id", "function", "reason", "seconds", "words"], rows) if rows else "",
        ],
    )
