"""A run of a task on disk. However it ends, its answers stay, and no request is sent twice.

Beside `data.jsonl` lie `data.jsonl.answers.jsonl` (a `ResponseCache` of all answers), the ledger, and the dropped
records. All but the answers are computed from the answers alone, so a resumed run writes the same bytes as an
uninterrupted one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.storage import (
    Provenance,
    file_lock,
    read_provenance,
    sidecar_path,
    strict_json,
    write_with_provenance,
)
from synthbook.language.cache import ResponseCache, canonical_lines
from synthbook.language.client import Client, Endpoint, RetryPolicy, Usage
from synthbook.language.pipeline import to_dict
from synthbook.language.records import Record
from synthbook.language.task.config import TaskConfig
from synthbook.language.task.runner import GenerationResult, generate, request_budget


@dataclass(frozen=True)
class OutputPaths:
    """The files of a run: the data, the files beside them, and an HTML report."""

    data: Path
    report: Path | None = None

    @property
    def answers(self) -> Path:
        """The cache of all answers."""
        return self.data.with_name(self.data.name + ".answers.jsonl")

    @property
    def dropped(self) -> Path:
        """The dropped records and their reasons."""
        return self.data.with_name(self.data.name + ".dropped.jsonl")

    @property
    def ledger(self) -> Path:
        """The task, counts, tokens and cost."""
        return self.data.with_name(self.data.name + ".ledger.json")

    @property
    def all(self) -> list[Path]:
        """Every file of the run."""
        return [self.data, self.answers, self.dropped, self.ledger, *([] if self.report is None else [self.report])]

    def check(self, task: TaskConfig, *, seed: int, resume: bool, force: bool) -> None:
        """Raise `InvalidArgument` where these files may not be written, or belong to another task; nothing is changed.

        Raises `DataError` for an invalid ledger, and for seeds that changed since their sidecar was written.
        """
        _generation(task)
        if self.data.suffix != ".jsonl":
            raise InvalidArgument("out", str(self.data), "a path that ends in .jsonl")
        if self.report is not None and self.report.suffix != ".html":
            raise InvalidArgument("report", str(self.report), "a path that ends in .html")
        if resume and force:
            raise InvalidArgument("resume", "with --force", "one of them: go on with a run, or begin anew")
        own = [task.path, *([] if task.examples is None else [task.examples.path])]
        if taken := [path for path in self.all if path.exists() and any(path.samefile(one) for one in own)]:
            raise InvalidArgument("out", str(taken[0]), "another path: this file is a part of the task")
        there = [path for path in self.all if path.exists()]
        if not there or force:
            return
        if not resume:
            accepted = "a new path, --resume to go on with that run, or --force to ask everything again"
            raise InvalidArgument("out", ", ".join(map(str, there)), accepted)
        if not self.ledger.exists():
            raise InvalidArgument("resume", str(there[0]), f"a run: {self.ledger.name} is missing, so it is not one")
        self.same(_plain(task, seed))

    def same(self, questions: Mapping[str, Any]) -> None:
        """Raise `InvalidArgument` where the run that was begun has other requests."""
        try:
            begun = dict(json.loads(self.ledger.read_text(encoding="utf-8"))["questions"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.ledger} is no ledger of a run ({error}): begin anew with --force") from None
        begun = begun if "model" in questions else {**begun, "model": None}
        if differing := _differing(begun, {"model": None, **questions}):
            accepted = f"the task that was begun: this one differs in {', '.join(differing)}"
            raise InvalidArgument("resume", str(self.data), f"{accepted}. Or begin anew with --force")


def _plain(task: TaskConfig, seed: int) -> dict[str, Any]:
    return json.loads(strict_json({**task.described, "seed": seed}))  # type: ignore[no-any-return]


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ, with a second part where both are tables."""
    keys = []
    for key in sorted(one.keys() | other.keys()):
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            keys += [f"{key}.{part}" for part in sorted(a.keys() | b.keys()) if a.get(part) != b.get(part)]
        elif a != b:
            keys.append(key)
    return keys


def run_task(
    task: TaskConfig,
    endpoint: Endpoint,
    files: OutputPaths,
    n: int,
    *,
    seed: int = 0,
    max_requests: int | None = None,
    concurrency: int = 8,
    retry: RetryPolicy | None = None,
    resume: bool = False,
    force: bool = False,
    callback: Callable[[int, int], None] = lambda kept, n: None,
) -> tuple[GenerationResult, Usage]:
    """Run a task and write its files, also where records are missing; return the result and the usage of this run.

    Raises `InvalidArgument` where the files may not be written, `LockedError` where another process writes them, and
    `ModelError`, after which the same call goes on with `resume`.
    """
    max_requests = request_budget(n, max_requests)
    task.at_most(n)
    files.check(task, seed=seed, resume=resume, force=force)
    files.data.parent.mkdir(parents=True, exist_ok=True)
    prices = task.model.prices or (0.0, 0.0)
    with file_lock(files.data.with_name(f".{files.data.name}.lock"), f"{files.data} is being written"):
        files.check(task, seed=seed, resume=resume, force=force)
        questions = {**_plain(task, seed), "model": endpoint.fingerprint}
        if resume and files.ledger.exists():
            files.same(questions)
        if force:
            for path in files.all:
                path.unlink(missing_ok=True)
                sidecar_path(path).unlink(missing_ok=True)
        command = f"synthbook generate {task.path.name} -n {n} --seed {seed} --max-requests {max_requests}"
        parents = {**task.files, endpoint.model: endpoint.fingerprint}
        name = f"answers of {endpoint.model} to {task.name}"
        provenance = Provenance(name, command, parents, _generation(task), 1.0, seed)
        head = {"finished": False, "questions": questions, "model": endpoint.model}
        write_with_provenance(files.ledger, strict_json(head, indent=1) + "\n", provenance)
        sidecar_path(files.answers).unlink(missing_ok=True)
        cache = ResponseCache(files.answers, model=endpoint.fingerprint)
        client = Client(endpoint, cache=cache, concurrency=concurrency, retry=retry, prices=prices)
        result = generate(
            task, client.chat, n, seed=seed, max_requests=max_requests, model_name=endpoint.model, callback=callback
        )
        _write(task, files, result, {**head, "finished": True}, provenance)
    return result, client.usage


def _generation(task: TaskConfig) -> int:
    """Seeds that a model wrote, as their sidecar says, are not real data: their records are one generation further."""
    if task.examples is None or not sidecar_path(task.examples.path).exists():
        return 1
    return 1 + read_provenance(task.examples.path).generation


def _write(
    task: TaskConfig, files: OutputPaths, result: GenerationResult, head: Mapping[str, Any], provenance: Provenance
) -> None:
    drops = (
        {"id": drop.record.id, "stage": drop.stage, "reason": drop.reason}
        | {"answer": result.answers[int(drop.record.id)].text, **_origin(drop.record)}
        for drop in result.dropped
    )
    write_with_provenance(files.data, (_line(_row(record, task)) for record in result.kept), provenance)
    write_with_provenance(files.dropped, map(_line, drops), provenance)
    write_with_provenance(files.answers, canonical_lines(files.answers), provenance)
    if files.report is not None:
        from synthbook.language.task import report

        page = report.report_page(task, result, str(head["model"]))
        write_with_provenance(files.report, page, provenance)
    write_with_provenance(files.ledger, strict_json({**head, **summary(task, result)}, indent=1) + "\n", provenance)


def summary(task: TaskConfig, result: GenerationResult) -> dict[str, Any]:
    """Counts, tokens and cost as plain JSON; equal for interrupted and uninterrupted runs."""
    stages = [{key: part for key, part in to_dict(entry).items() if key != "seconds"} for entry in result.ledger]
    tokens, prices = result.tokens, task.model.prices
    return {
        "n": result.n,
        "kept": len(result.kept),
        "requests": len(result.answers),
        "yield": round(result.yield_rate, 4),
        "stop_reason": result.stop_reason,
        "tokens": {"prompt": tokens[0], "answer": tokens[1]},
        "cost": None if prices is None else round(result.cost(prices), 6),
        "stages": stages,
    }


def _row(record: Record, task: TaskConfig) -> dict[str, Any]:
    label = {} if task.filters.label is None else {"label": record.label}
    return {"id": record.id, **label, **record.provenance["fields"], **_origin(record)}


def _origin(record: Record) -> dict[str, Any]:
    """The request of a record, and its provenance with the verdicts of the filters."""
    request = {key: record.provenance[key] for key in ("index", "values", "seed_lines")}
    provenance = {key: record.provenance[key] for key in ("model", "finish", "tokens")}
    if verdicts := {name: verdict for name, verdict in record.verdicts.items() if verdict is not None}:
        provenance["verdicts"] = verdicts
    return {"request": request, "provenance": provenance}


def _line(document: Mapping[str, Any]) -> str:
    return json.dumps(document) + "\n"  # in ASCII, so that no text of a model's can do anything to a terminal
