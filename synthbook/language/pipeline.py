"""generate -> filter -> deduplicate -> balance -> train, record by record, and a ledger of every drop.

A stage reads records lazily and yields each, in order, with the reason of its drop or None. Chained stages are lazy,
so a million records pass in bounded memory. Costly verdicts are cached in a file as they are computed, so that a killed
run does not compute them again.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.plots import BLUE, VERMILLION, new_axes
from synthbook.core.storage import Provenance, sha256, write_with_provenance
from synthbook.language.filters.dedup import NearDuplicateIndex
from synthbook.language.filters.execution import Case, Program, Property, execute
from synthbook.language.filters.verdicts import validate_json
from synthbook.language.records import Record, batched, read_jsonl, truncate_partial_line
from synthbook.language.sandbox.pool import Sandbox

if TYPE_CHECKING:
    from pydantic import BaseModel


StageResult = tuple[Record, str | None]  # the record, with its verdict, and the reason why it is dropped
Stage = Callable[[Iterable[Record]], Iterator[StageResult]]
BATCH = 500  # records whose signatures are computed together
_LEDGER, _KEPT, _DROPPED = "ledger.json", "kept.jsonl", "dropped.jsonl"


@dataclass
class StageStats:
    """Statistics of a stage: records in and out, drops by reason, seconds of its own."""

    stage: str
    n_in: int = 0
    n_out: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def run_pipeline(
    records: Iterable[Record],
    stages: Mapping[str, Stage],
    *,
    on_drop: Callable[[Record, str, str], None] = lambda record, stage, reason: None,
) -> tuple[Iterator[Record], list[StageStats]]:
    """The records that pass all stages, lazily, and the ledger, which is complete once they are read.

    `on_drop(record, stage, reason)` is called for each drop.
    """
    if not stages:
        raise InvalidArgument("stages", {}, "at least one stage by name")
    ledger = [StageStats(name) for name in stages]
    flow: Iterator[Record] = iter(records)
    for entry, stage in zip(ledger, stages.values(), strict=True):
        flow = _passing(flow, stage, entry, on_drop)
    return flow, ledger


def _passing(
    flow: Iterable[Record], stage: Stage, entry: StageStats, on_drop: Callable[[Record, str, str], None]
) -> Iterator[Record]:
    waited = 0.0  # for the stages before

    def counted() -> Iterator[Record]:
        nonlocal waited
        source = iter(flow)
        while True:
            began = time.perf_counter()
            record = next(source, None)
            waited += time.perf_counter() - began
            if record is None:
                return
            entry.n_in += 1
            yield record

    results = stage(counted())
    while True:
        began, before = time.perf_counter(), waited
        result = next(results, None)
        entry.seconds += time.perf_counter() - began - (waited - before)
        if result is None:
            return
        record, reason = result
        if reason is None:
            entry.n_out += 1
            yield record
        else:
            entry.reasons[reason] += 1
            on_drop(record, entry.stage, reason)


# ── stages ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def pass_tests(
    cases: Mapping[str, Sequence[Case | Property]], sandbox: Sandbox, *, verdict_cache: Path | None = None
) -> Stage:
    """Keep programs that return the right value on all cases of the function that their label names.

    Verdicts are cached in the file `verdict_cache` by record, cases and limits. Raises `InvalidArgument` for a property
    together with a cache: the function that checks it cannot be hashed.
    """
    if verdict_cache is not None and any(isinstance(case, Property) for some in cases.values() for case in some):
        raise InvalidArgument("verdict_cache", str(verdict_cache), "None, or cases with expected values only")
    hashes = {name: sha256(repr((some, sandbox.limits)).encode()) for name, some in cases.items()}

    def key(record: Record) -> str:
        return f"{record.content_hash} {hashes.get(record.label)}"

    def stage(records: Iterable[Record]) -> Iterator[StageResult]:
        known = _known(verdict_cache)
        for some in batched(records, BATCH):
            fresh = {key(record): record for record in some if key(record) not in known}
            programs = (Program(name, record.label, record.response) for name, record in fresh.items())
            for verdict in execute(programs, cases, sandbox):
                known[str(verdict.id)] = verdict.reason
                if verdict_cache is not None:
                    with verdict_cache.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"key": verdict.id, "reason": verdict.reason}) + "\n")
            for record in some:
                reason = known[key(record)]
                yield record.with_verdict("execution", reason), None if reason == "passed" else reason

    return stage


def _known(verdict_cache: Path | None) -> dict[str, str]:
    if verdict_cache is None or not verdict_cache.exists():
        return {}
    truncate_partial_line(verdict_cache)
    try:
        return {str(line["key"]): str(line["reason"]) for _, line in read_jsonl(verdict_cache)}
    except KeyError as error:
        raise DataError(f"{verdict_cache}: a line without {error}: remove the file and run again") from None


def drop_near_duplicates(memory: NearDuplicateIndex | None = None, *, batch: int = BATCH) -> Stage:
    """Drop near duplicates of earlier records, whose ids are the verdicts; records are read `batch` at a time."""

    def stage(records: Iterable[Record]) -> Iterator[StageResult]:
        index, ids = memory or NearDuplicateIndex(), list[str]()
        for some in batched(records, batch):
            ids += [record.id for record in some]
            for record, number in zip(some, index.add([record.response for record in some]), strict=True):
                original = None if number is None else ids[number]
                yield record.with_verdict("near duplicates", original), None if number is None else "near duplicate"

    return stage


def match_schema(schema: type[BaseModel]) -> Stage:
    """Keep responses that are JSON of a schema."""

    def judge(record: Record) -> StageResult:
        _, error = validate_json(record.response, schema)
        return record.with_verdict("form", error or "fits"), error or None

    return lambda records: map(judge, records)


def drop_exact_duplicates() -> Stage:
    """Drop exact duplicates of earlier records."""

    def stage(records: Iterable[Record]) -> Iterator[StageResult]:
        seen: set[str] = set()
        for record in records:
            yield record, "exact duplicate" if record.content_hash in seen else None
            seen.add(record.content_hash)

    return stage


def cap_per_class(limit: int, kind: Callable[[Record], str] = lambda record: record.label) -> Stage:
    """Keep the first `limit` records of each class, by default of each label."""
    if limit < 1:
        raise InvalidArgument("limit", limit, "at least 1 of each class")

    def stage(records: Iterable[Record]) -> Iterator[StageResult]:
        seen: Counter[str] = Counter()
        for record in records:
            seen[kind(record)] += 1
            yield record, f'{limit} of "{kind(record)}" already' if seen[kind(record)] > limit else None

    return stage


def keep_if(holds: Callable[[Record], bool], reason: str) -> Stage:
    """Keep records that satisfy a predicate."""
    return lambda records: ((record, None if holds(record) else reason) for record in records)


# ── to disk ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def run_to_disk(
    records: Iterable[Record], stages: Mapping[str, Stage], out: Path, provenance: Provenance
) -> tuple[Path, list[StageStats]]:
    """Run a pipeline, and write the records that pass to `out/kept.jsonl`, drops to `out/dropped.jsonl`, and the ledger
    to `out/ledger.json`, each with a sidecar."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=out) as drops:

        def dropped(record: Record, stage: str, reason: str) -> None:
            drops.write(json.dumps({"id": record.id, "stage": stage, "reason": reason}) + "\n")

        flow, ledger = run_pipeline(records, stages, on_drop=dropped)
        path = write_with_provenance(out / _KEPT, map(Record.to_json_line, flow), provenance)
        drops.seek(0)
        write_with_provenance(out / _DROPPED, drops, provenance)
    write_with_provenance(out / _LEDGER, json.dumps([to_dict(entry) for entry in ledger], indent=1) + "\n", provenance)
    return path, ledger


def to_dict(entry: StageStats) -> dict[str, Any]:
    """An entry as plain JSON."""
    return {
        "stage": entry.stage,
        "in": entry.n_in,
        "out": entry.n_out,
        "reasons": dict(entry.reasons.most_common()),
        "seconds": round(entry.seconds, 3),
    }


# ── The figure ──


_NAMED = 3  # reasons at each stage; the rest together
_GAP = 0.04  # of the height, between the stream and what leaves it


def plot_funnel(ledger: Sequence[StageStats], ax: Axes | None = None) -> Axes:
    """Plot stages from left to right; heights are shares of the records, drops are hatched."""
    ax = new_axes(ax, width=2.0 + 1.7 * len(ledger), height=4.2)
    total = max(ledger[0].n_in, 1)
    t = np.linspace(0, 1, 30)
    bend = t * t * (3 - 2 * t)
    for x, entry in enumerate(ledger):
        n_in, n_out = entry.n_in / total, entry.n_out / total
        top = 1 + 0 * t
        ax.fill_between(x + t, top - n_out, top, color=BLUE, linewidth=0)
        common, level = entry.reasons.most_common(), 1 - n_out
        lost = common if len(common) <= _NAMED else common[: _NAMED - 1]
        if len(common) > _NAMED:
            lost.append(("other reasons", sum(count for _, count in common[_NAMED - 1 :])))
        for _, count in lost:
            share = count / total
            down = level - _GAP * bend - 0.25 * bend
            ax.fill_between(x + 0.55 * t, down - share, down, facecolor=VERMILLION, hatch="//", edgecolor="white", lw=0)
            level -= share
        if lost:
            words = "\n".join(f"{reason} {count:,}" for reason, count in lost)
            ax.text(x + 0.58, 1 - n_in - _GAP - 0.25, words, fontsize=8, va="bottom", ha="left")
        ax.text(x + 0.02, 1.03, f"{entry.stage}\n{entry.n_in:,} came", fontsize=9, va="bottom")
    ax.text(len(ledger) + 0.02, 1.03, f"kept\n{ledger[-1].n_out:,}", fontsize=9, va="bottom")
    ax.set(xlim=(0, len(ledger) + 0.4), ylim=(-0.35, 1.2), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.grid(False)
    return ax
