"""The whole of `make course`: the notebooks, then the site, then the claims board."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synthbook.core.errors import DataError, describe
from synthbook.core.files import sha256_file, strict_json
from synthbook.core.provenance import Provenance, write_described
from synthbook.course import notebook as nb
from synthbook.course.board import Board, board, rows_of
from synthbook.course.jobs import Job, Observer, Settings
from synthbook.course.lock import alone
from synthbook.course.project import Project
from synthbook.course.runner import run


@dataclass(frozen=True)
class Outcome:
    """What a run came to. `site` is the path of the first page; `interrupted` tells whether Ctrl-C ended it."""

    jobs: list[Job]
    board: Board | None = None
    site: Path | None = None
    errors: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0 when everything succeeded and holds, 130 after Ctrl-C, else 1."""
        if self.interrupted:
            return 130
        good = all(job.failure is None for job in self.jobs) and not self.errors
        return 0 if good and self.board is not None and self.board.ok else 1

    def as_json(self) -> dict[str, Any]:
        """The outcome for machines."""
        return {
            "notebooks": [_job_as_json(job) for job in self.jobs],
            "claims": self.board.as_json() if self.board else None,
            "site": str(self.site) if self.site else None,
            "interrupted": self.interrupted,
            "errors": self.errors,
        }


def make(
    project: Project,
    sources: list[Path],
    settings: Settings,
    *,
    observe: Observer,
    site: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Run the notebooks, build the site from what is committed, and write build/claims.json.

    A failed notebook does not keep the site from being built: the site shows the committed outputs in any case.
    """
    with alone(project):
        outcome = Outcome(run(project, sources, settings, observe))
        if any(job.status == "interrupted" for job in outcome.jobs):
            return replace(outcome, interrupted=True)
        try:
            if site:
                say("building the site, if anything in it changed")
                outcome = _try(outcome, "site", lambda: _build_site(project))
            return _try(outcome, "board", lambda: _write_board(project, outcome.jobs))
        except KeyboardInterrupt:
            return replace(outcome, interrupted=True)


def make_site(project: Project) -> Path:
    """Build the site from the committed notebooks; the path of its first page."""
    with alone(project):
        return _build_site(project)


def _build_site(project: Project) -> Path:
    from synthbook.course.site import build  # sphinx takes a second to import

    return build(project.root)


def _try(outcome: Outcome, part: str, work: Callable[[], Any]) -> Outcome:
    """The outcome with one more part, or with the reason why it is missing: the notebooks that ran are told of."""
    try:
        return replace(outcome, **{part: work()})
    except Exception as error:
        return replace(outcome, errors=[*outcome.errors, describe(error)])


def _write_board(project: Project, jobs: list[Job]) -> Board:
    """The board of this run: what ran counts as it ran, notebooks that were not asked for as they are committed."""
    ran = {job.source: job.notebook for job in jobs}
    logged, parents, unreadable = {}, {}, []
    for source in project.sources():
        try:
            logged[source.stem] = rows_of(ran[source] if source in ran else nb.read(source))
        except DataError as error:
            unreadable.append(str(error))
        copy = project.copy_of(source)
        path = copy if source in ran and copy.is_file() else source
        if path.is_file():
            parents[path.relative_to(project.root).as_posix()] = sha256_file(path)
    result = board(logged)
    result = Board(result.rows, [*result.errors, *unreadable])
    text = strict_json(result.as_json(), indent=1) + "\n"
    origin = Provenance("the claims that the notebooks checked", "synthbook course run", parents)
    write_described(project.build / "claims.json", text, origin)
    return result


def _job_as_json(job: Job) -> dict[str, Any]:
    failure = job.failure
    return {
        "name": job.name,
        "status": job.status,
        "cells": job.cells,
        "minutes": round(job.seconds / 60, 2),
        "peak_mib": job.peak_mib,
        "failure": vars(failure) if failure else None,
    }
