"""A run of a task on disk. Whatever happens to it, the answers that were given stay, and none is asked for again.

Beside `data.jsonl` lie `data.jsonl.answers.jsonl`, a `Replay` into which each answer goes as it comes, the ledger,
which says from the beginning whose answers these are, and what was dropped. All but the first are made from answers
alone: a run that was killed and went on leaves the same bytes as one that was not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
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
from synthbook.language.cache import Replay, in_order
from synthbook.language.client import Client, Endpoint, Patience, Spent
from synthbook.language.pipeline import to_dict
from synthbook.language.records import Record
from synthbook.language.task.config import Task
from synthbook.language.task.runner import Made, allowed, generate


@dataclass(frozen=True)
class Files:
    """Where a run goes: the data, what lies beside them, and a page for people."""

    data: Path
    report: Path | None = None

    @property
    def answers(self) -> Path:
        """Every answer as it came."""
        return self.data.with_name(self.data.name + ".answers.jsonl")

    @property
    def dropped(self) -> Path:
        """What was not kept, and why."""
        return self.data.with_name(self.data.name + ".dropped.jsonl")

    @property
    def ledger(self) -> Path:
        """The task, counts, tokens and cost."""
        return self.data.with_name(self.data.name + ".ledger.json")

    @property
    def all(self) -> list[Path]:
        """All of them."""
        return [self.data, self.answers, self.dropped, self.ledger, *([] if self.report is None else [self.report])]

    def check(self, task: Task, *, seed: int, resume: bool, force: bool) -> None:
        """Raise `InvalidArgument` where a run may not go there, or is none of this task; nothing is changed.

        Raises `DataError` for a ledger that is none, and for seeds that changed since their sidecar was written.
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

    def same(self, asked: Mapping[str, Any]) -> None:
        """Raise `InvalidArgument` where the run that was begun asks something else."""
        try:
            begun = dict(json.loads(self.ledger.read_text(encoding="utf-8"))["questions"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.ledger} is no ledger of a run ({error}): begin anew with --force") from None
        differing = _differing(begun if "model" in asked else {**begun, "model": None}, {"model": None, **asked})
        if differing:
            accepted = (
                f"the task that was begun: this one differs in {', '.join(differing)}. Or begin anew with --force"
            )
            raise InvalidArgument("resume", str(self.data), accepted)


def _plain(task: Task, seed: int) -> dict[str, Any]:
    return json.loads(strict_json({**task.described, "seed": seed}))  # type: ignore[no-any-return]


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of what is not the same, with a second part where a table differs."""
    found = []
    for key in sorted(one.keys() | other.keys()):
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += [f"{key}.{part}" for part in sorted(a.keys() | b.keys()) if a.get(part) != b.get(part)]
        elif a != b:
            found.append(key)
    return found


def make(
    task: Task,
    endpoint: Endpoint,
    files: Files,
    n: int,
    *,
    seed: int = 0,
    most: int | None = None,
    side_by_side: int = 8,
    patience: Patience | None = None,
    resume: bool = False,
    force: bool = False,
    callback: Callable[[int, int], None] = lambda kept, n: None,
) -> tuple[Made, Spent]:
    """Run a task and write its files, whole or not; what it made, and what this time cost.

    Raises `InvalidArgument` where the files may not be written, `LockedError` where another process writes them, and
    `ModelError`, after which the same call goes on with `resume`.
    """
    most = allowed(n, most)
    task.at_most(n)
    files.check(task, seed=seed, resume=resume, force=force)
    files.data.parent.mkdir(parents=True, exist_ok=True)
    prices = task.chosen.prices or (0.0, 0.0)
    with file_lock(files.data.with_name(f".{files.data.name}.lock"), f"{files.data} is being written"):
        files.check(task, seed=seed, resume=resume, force=force)
        questions = {**_plain(task, seed), "model": endpoint.pinned}
        if resume and files.ledger.exists():
            files.same(questions)
        if force:
            for path in files.all:
                path.unlink(missing_ok=True)
                sidecar_path(path).unlink(missing_ok=True)
        provenance = _origin(task, endpoint, n, seed, most)
        head = {"finished": False, "questions": questions, "model": endpoint.model}
        write_with_provenance(files.ledger, strict_json(head, indent=1) + "\n", provenance)
        sidecar_path(files.answers).unlink(missing_ok=True)
        replay = Replay(files.answers, model=endpoint.pinned)
        client = Client(endpoint, replay=replay, concurrency=side_by_side, patience=patience, prices=prices)
        made = generate(task, client.ask, n, seed=seed, most=most, maker=endpoint.model, callback=callback)
        _write(task, files, made, {**head, "finished": True}, provenance)
    return made, client.spent


def _origin(task: Task, endpoint: Endpoint, n: int, seed: int, most: int) -> Provenance:
    command = f"synthbook generate {task.path.name} -n {n} --seed {seed} --most-asks {most}"
    parents = {**task.files, endpoint.model: endpoint.pinned}
    return Provenance(f"answers of {endpoint.model} to {task.name}", command, parents, _generation(task), 1.0, seed)


def _generation(task: Task) -> int:
    """Seeds that a model wrote, as their sidecar says, are not reality: what is made of them is one model further."""
    if task.examples is None or not sidecar_path(task.examples.path).exists():
        return 1
    return 1 + read_provenance(task.examples.path).generation


def _write(task: Task, files: Files, made: Made, head: Mapping[str, Any], provenance: Provenance) -> None:
    write_with_provenance(files.data, (_line(_kept(record, task)) for record in made.kept), provenance)
    write_with_provenance(files.dropped, _drops(made), provenance)
    write_with_provenance(files.answers, in_order(files.answers), provenance)
    if files.report is not None:
        from synthbook.language.task.report import page

        write_with_provenance(files.report, page(task, made, str(head["model"])), provenance)
    write_with_provenance(files.ledger, strict_json({**head, **summary(task, made)}, indent=1) + "\n", provenance)


def summary(task: Task, made: Made) -> dict[str, Any]:
    """Counts, tokens and cost, as plain JSON; the same whether or not it was interrupted."""
    stages = [{key: part for key, part in to_dict(entry).items() if key != "seconds"} for entry in made.ledger]
    tokens, prices = made.tokens, task.chosen.prices
    return {
        "n": made.n,
        "kept": len(made.kept),
        "asked": len(made.answers),
        "yield": round(made.share, 4),
        "why": made.why,
        "tokens": {"prompt": tokens[0], "answer": tokens[1]},
        "cost": None if prices is None else round(made.cost(prices), 6),
        "stages": stages,
    }


def _kept(record: Record, task: Task) -> dict[str, Any]:
    label = {} if task.filters.label is None else {"label": record.label}
    return {"id": record.id, **label, **record.provenance["fields"], **_told(record)}


def _drops(made: Made) -> Iterator[str]:
    for drop in made.dropped:
        said = {"stage": drop.stage, "reason": drop.reason, "answer": made.answers[int(drop.record.id)].text}
        yield _line({"id": drop.record.id, **said, **_told(drop.record)})


def _told(record: Record) -> dict[str, Any]:
    told = record.provenance
    found = {name: verdict for name, verdict in record.verdicts.items() if verdict is not None}
    return {
        "asked": {key: told[key] for key in ("number", "values", "seeds")},
        "provenance": {key: told[key] for key in ("model", "finish", "tokens")} | ({"found": found} if found else {}),
    }


def _line(document: Mapping[str, Any]) -> str:
    return json.dumps(document) + "\n"  # in ASCII, so that no text of a model's can do anything to a terminal
