"""Programs and cases from JSONL files, verdicts to another one: `synthbook verify`.

Verdicts are appended to a partial file beside their target. An interrupted run resumes after the last complete one, if
the files and the limits are still the same.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, tee
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.storage import Provenance, atomic_write, sha256, sha256_file, write_with_provenance
from synthbook.language.filters.execution import Case, Program, Verdict, execute
from synthbook.language.records import read_jsonl, truncate_partial_line
from synthbook.language.sandbox.pool import Limits, Sandbox
from synthbook.language.sandbox.worker import decode

COLUMNS = ("id", "passed", "reason", "isolation", "seconds", "peak_mib")
SHOWN = 50  # failures in a report


def _read_cases(path: Path) -> dict[str, list[Case]]:
    """Cases by function. Raises `DataError`, which names the line."""
    cases: dict[str, list[Case]] = {}
    for number, line in read_jsonl(path):
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
        cases.setdefault(line["function"], []).append(Case(line["function"], args, expected, tolerance))
    if not cases:
        raise DataError(f"{path} holds no case")
    return cases


def _read_programs(path: Path, cases: dict[str, list[Case]]) -> Iterator[Program]:
    """Programs, one after the other. Raises `DataError` for a line that is none, or whose function has no case."""
    for number, line in read_jsonl(path):
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
    """Programs by verdict, and the first failures: lines with `function` and `words` as well."""

    n: int
    reasons: dict[str, int]
    isolation: str
    failures: list[dict[str, Any]]


def verify_files(
    records: Path,
    cases: Path,
    out: Path,
    provenance: Provenance,
    *,
    limits: Limits,
    jobs: int | None = None,
    allow_weak: bool = False,
    resume: bool = False,
    callback: Callable[[int, int], None] = lambda done, n: None,
) -> Summary:
    """Run every program of a file on the cases of its function, and write the verdicts in the order of the programs.

    Both files are validated before anything runs. Raises `DataError`, `InvalidArgument`, `WeakIsolation`.
    """
    known = _read_cases(cases)
    n = sum(1 for _ in _read_programs(records, known))
    if not n:
        raise DataError(f"{records} holds no program")
    task = {"records": sha256_file(records), "cases": sha256_file(cases), "limits": asdict(limits)}
    partial = out.with_name(out.name + ".partial")
    done = _begin(partial, sha256(json.dumps(task).encode()), resume)
    rest, programs = tee(islice(_read_programs(records, known), done, None))
    with Sandbox(limits, jobs=jobs, allow_weak=allow_weak) as sandbox, partial.open("a", encoding="utf-8") as file:
        judged = zip(programs, execute(rest, known, sandbox), strict=True)
        for k, (program, verdict) in enumerate(judged, start=done + 1):
            line = _line(verdict) | {"function": program.function, "words": verdict.message}
            file.write(json.dumps(line) + "\n")
            file.flush()
            callback(k, n)
    write_with_provenance(
        out, (json.dumps({name: line[name] for name in COLUMNS}) + "\n" for line in _kept(partial)), provenance
    )
    reasons = Counter(line["reason"] for line in _kept(partial))
    weak = any(line["isolation"] != "os" for line in _kept(partial))
    failures = list(islice((line for line in _kept(partial) if not line["passed"]), SHOWN))
    partial.unlink()
    return Summary(n, dict(reasons.most_common()), "limits-only" if weak else "os", failures)


def _line(verdict: Verdict) -> dict[str, Any]:
    line = {name: getattr(verdict, name) for name in COLUMNS}
    line["seconds"] = round(verdict.seconds, 4)
    line["peak_mib"] = None if verdict.peak_mib is None else round(verdict.peak_mib, 1)
    return line


def _kept(partial: Path) -> Iterator[dict[str, Any]]:
    """The verdicts of a partial file, after the line that names their task."""
    return (line for _, line in islice(read_jsonl(partial), 1, None))


def _begin(partial: Path, task: str, resume: bool) -> int:
    """The number of verdicts of an earlier run; without one, start a partial file that names the task."""
    if partial.exists():
        truncate_partial_line(partial)
        head = [line for _, line in islice(read_jsonl(partial), 2)]
        if len(head) == 2:
            if not resume:
                accepted = "another file, --resume to go on, or remove it to begin again"
                raise InvalidArgument("out", str(partial), accepted)
            if head[0].get("task") != task:
                raise InvalidArgument("resume", str(partial), "the run that was begun: other files or limits now")
            return sum(1 for _ in _kept(partial))
    atomic_write(partial, json.dumps({"task": task}) + "\n")
    return 0


def page(summary: Summary, title: str) -> str:
    """The report as HTML: verdicts by kind, and the first failures; the output of programs is escaped."""
    from html import escape

    from synthbook.core import html
    from synthbook.language.filters.execution import plot_verdicts

    share = summary.reasons.get("passed", 0) / summary.n
    rows = [
        [escape(str(v["id"])), escape(v["function"]), v["reason"], f"{v['seconds']:.2f}", escape(v["words"])]
        for v in summary.failures
    ]
    alt = ", ".join(f"{reason} {count:,}" for reason, count in summary.reasons.items())
    isolation = "confined by the operating system" if summary.isolation == "os" else "NOT confined: limits only"
    return html.page(
        title,
        [
            f"<h1>{escape(title)}</h1>",
            f"<p><strong>{summary.reasons.get('passed', 0):,} of {summary.n:,} programs passed ({share:.1%}).</strong>",
            f"Each ran in a process of its own, {isolation}.</p>",
            html.img(plot_verdicts(summary.reasons).figure, alt),
            "<p>The first failures, with the words of the program or the value that it returned:</p>" if rows else "",
            html.table(["id", "function", "reason", "seconds", "words"], rows) if rows else "",
        ],
    )


# ── JSON schemas ──


M = TypeVar("M", bound=BaseModel)


def validate_json(answer: str, schema: type[M]) -> tuple[M | None, str]:
    """Parse an answer as JSON of a schema: the model and "", or None and the first error.

    Types are strict: "2" is no number. A schema checks the form of an answer, not its meaning.
    """
    try:
        return schema.model_validate_json(answer, strict=True), ""
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        words = re.sub(r" at line \d+ column \d+", "", str(first["msg"]))  # the same fault has the same words
        return None, f"{place}: {words}" if place else words


def pinned_schema(title: str, description: str) -> ConfigDict:
    """The configuration of a strict model whose JSON schema has this title and description.

    Both are hashed into the keys of recorded answers: a class and its docstring may change, these may not.
    """
    return ConfigDict(extra="forbid", title=title, json_schema_extra={"description": description})


# ── Labels ──
# The first needs no model and looks at numbers, units and negations. The second asks a classifier that learned from
# real texts. Neither is an oracle: the first sees only what it was told to look at, the second errs as often as it
# errs.


_NEGATION = re.compile(r"\b(?:not|no|never|none|nobody|nothing|without|cannot)\b|n't\b", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_UNIT = re.compile(r"(?<=\d)\s*(?:kilograms|grams|kg|g|hours|minutes|pounds|pence|km|m|%)\b", re.IGNORECASE)


def changed_label_cue(before: str, after: str) -> str | None:
    """The cue that an edit changed (negation, number or unit), on which labels often depend; else None.

    >>> changed_label_cue("It is not 6 m.", "It is 6 m."), changed_label_cue("a big box", "a big crate")
    ('negation', None)
    """
    for name, pattern in (("negation", _NEGATION), ("number", _NUMBER), ("unit", _UNIT)):
        old, new = (Counter(m.strip().lower() for m in pattern.findall(text)) for text in (before, after))
        if old != new:
            return name
    return None


def label_disagrees(texts: Sequence[str], labels: Sequence[str], classifier: Any) -> NDArray[np.bool_]:
    """Whether a classifier with `predict`, trained on real texts, disagrees with the label of each text."""
    if len(texts) != len(labels) or not texts:
        raise InvalidArgument("labels", len(labels), f"one for each of {len(texts)} texts, at least one")
    given: NDArray[np.bool_] = np.asarray(classifier.predict(list(texts))) != np.asarray(labels)
    return given
