"""Executes copies of the notebooks, side by side, and writes down what was measured.

Nothing here changes notebooks/ unless `update` is set, and then only after a notebook succeeded from end to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from synthbook.core.errors import DataError, SynthbookError, format_error
from synthbook.core.storage import (
    Provenance,
    atomic_write,
    file_lock,
    sha256,
    sha256_file,
    strict_json,
    write_with_provenance,
)
from synthbook.course import notebook as nb
from synthbook.course import site as book_site
from synthbook.course.claims import Board, committed
from synthbook.course.notebook import fingerprint
from synthbook.course.project import Project


@contextlib.contextmanager
def _checkout_lock(project: Project) -> Iterator[None]:
    """Refuse to work beside another run of the same checkout, and sweep up after one that was killed.

    Swept is what was written beside its target and never renamed; an export's folder is swept when it is written.
    """
    project.copies.mkdir(parents=True, exist_ok=True)
    with file_lock(project.build / ".lock", f"another run is going on in {project.root}"):
        for pattern in ("build/.*.tmp", "build/notebooks/.*.tmp", "notebooks/.*.ipynb.*.tmp"):
            for path in project.root.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        yield


# ── Settings and jobs ──


_Status = Literal["waiting", "running", "done", "unchanged", "failed", "interrupted"]


@dataclass(frozen=True)
class RunConfig:
    """How to run. `cell_timeout` is in seconds; None means 600 in the quick profile and no limit in the full one."""

    n_jobs: int | None = None
    profile: Literal["quick", "full"] = "quick"
    force: bool = False
    update: bool = False
    cell_timeout: float | None = None

    @property
    def seconds_per_cell(self) -> float | None:
        """The time limit that holds for each cell."""
        if self.cell_timeout is not None:
            return self.cell_timeout
        return 600.0 if self.profile == "quick" else None


@dataclass(frozen=True)
class Failure:
    """Why a notebook did not succeed; `cell` counts code cells from 1, 0 when no cell is to blame."""

    reason: str
    cell: int = 0
    source: str = ""
    traceback: str = ""


@dataclass
class NotebookRun:
    """One notebook on its way through a run. Times are in seconds, memory in MiB."""

    source: Path
    status: _Status = "waiting"
    cell: int = 0
    cells: int = 0
    started: float = 0.0
    seconds: float = 0.0
    peak_mib: int = 0
    failure: Failure | None = None
    notebook: nb.Notebook = field(default_factory=dict, repr=False)
    source_bytes: bytes = field(default=b"", repr=False)
    fingerprint: str = ""

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.source.stem

    def to_dict(self) -> dict[str, Any]:
        """The run for machines."""
        facts = {key: getattr(self, key) for key in ("name", "status", "cells", "peak_mib")}
        failure = vars(self.failure) if self.failure else None
        return facts | {"minutes": round(self.seconds / 60, 2), "failure": failure}


RunCallback = Callable[[NotebookRun], None]  # called whenever a job changed


# ── The runner ──


def run_notebooks(
    project: Project, sources: list[Path], config: RunConfig, callback: RunCallback = lambda job: None
) -> list[NotebookRun]:
    """Run the notebooks that changed and return all jobs in the order given; jobs cut short are "interrupted".

    Whoever calls this holds the checkout's lock. Whatever is wrong with one notebook is that job's failure.
    """
    jobs = [NotebookRun(source) for source in sources]
    try:
        for job in jobs:
            _prepare(job, project, config)
            callback(job)
        waiting = [job for job in jobs if job.status == "waiting"]
        if waiting:
            asyncio.run(_run_all(waiting, project, config, callback))
    except KeyboardInterrupt:
        for job in jobs:
            if job.status in ("waiting", "running"):
                job.status = "interrupted"
                callback(job)
    return jobs


def _prepare(job: NotebookRun, project: Project, config: RunConfig) -> None:
    """Read the source and decide whether it has to run."""
    try:
        job.source_bytes = job.source.read_bytes()
        job.notebook = nb.read(job.source)
        job.cells = len(nb.code_cells(job.notebook))
        job.fingerprint = fingerprint(job.notebook, project, profile=config.profile)
        if not config.force and _reuse(job, project, config.update):
            facts = nb.run_metadata(job.notebook)
            job.status, job.seconds, job.peak_mib = "unchanged", facts["minutes"] * 60, facts["peak_mib"]
    except Exception as error:
        job.status, job.failure = "failed", Failure(format_error(error))


def _reuse(job: NotebookRun, project: Project, update: bool) -> bool:
    """Whether what was executed before is still good; if so, it takes over the source's words and its normal form.

    That is the committed notebook where it is to be updated, the executed copy otherwise.
    """
    path = job.source if update else project.copy_of(job.source)
    try:
        executed = job.notebook if update else nb.read(path)
    except DataError:
        return False
    facts = nb.run_metadata(executed)
    complete = {"minutes", "peak_mib", "claims"} <= facts.keys() and nb.is_fully_executed(executed)
    exported = not update or all((project.root / figure).is_file() for figure in nb.exported_figures(executed))
    if not (complete and exported and facts.get("fingerprint") == job.fingerprint):
        return False
    job.notebook = nb.copy_outputs(executed, job.notebook)
    text = nb.dumps(job.notebook)
    if update and text.encode() != job.source_bytes:
        _publish(job, job.notebook, text, project)
    elif not update and text.encode() != path.read_bytes():
        atomic_write(path, text)
    return True


async def _run_all(jobs: list[NotebookRun], project: Project, config: RunConfig, callback: RunCallback) -> None:
    from joblib import cpu_count  # knows the limits of a container

    from synthbook.course.kernels import KernelPool  # jupyter takes seconds to import

    pool = await asyncio.to_thread(KernelPool, config.n_jobs or cpu_count())
    longest_first = sorted(jobs, key=lambda job: -nb.run_metadata(job.notebook).get("minutes", 1e9))
    try:
        async with asyncio.TaskGroup() as group:
            for job in longest_first:
                group.create_task(_run_one(job, project, config, pool, callback))
    finally:
        pool.close()


async def _run_one(job: NotebookRun, project: Project, config: RunConfig, pool: Any, callback: RunCallback) -> None:
    async with pool.places:
        job.status, job.started = "running", time.monotonic()
        callback(job)
        executed, rows = await _execute(job, project, config, pool, callback)
        try:
            if job.failure is None:
                _write_done(job, executed, rows, project, config)
        except Exception as error:
            job.failure = Failure(format_error(error))
        if job.failure is not None:
            with contextlib.suppress(Exception):  # the failure is reported in any case
                _write_failed(job, executed, rows, project)
        job.status = "done" if job.failure is None else "failed"
        callback(job)


async def _execute(
    job: NotebookRun, project: Project, config: RunConfig, pool: Any, callback: RunCallback
) -> tuple[nb.Notebook, list[dict[str, Any]]]:
    """Run all cells in a fresh kernel; the executed notebook and the rows its claims logged."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError
    from nbformat import from_dict

    executed = from_dict(json.loads(json.dumps(job.notebook)))  # type: ignore[no-untyped-call]
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    log, source = pool.folder / job.name / "claims", ""
    try:
        async with pool.kernel(
            executed, name=job.name, cwd=project.notebooks, profile=config.profile, timeout=config.seconds_per_cell
        ) as kernel:
            try:
                for index, cell in enumerate(executed.cells):
                    if cell.cell_type != "code" or not cell.source.strip():
                        continue
                    job.cell, source = job.cell + 1, cell.source
                    callback(job)
                    await kernel.run(cell, index, job.cell)
            except CellExecutionError:
                errors = [output.traceback for output in cell.outputs if output.output_type == "error"]
                job.failure = Failure("an error was raised", job.cell, source, "\n".join(errors[-1] if errors else []))
            except CellTimeoutError:
                reason = f"still running after {config.seconds_per_cell:g} s, the limit of --cell-timeout: stopped"
                job.failure = Failure(reason, job.cell, source)
            except Exception as error:
                job.failure = Failure(await kernel.cause_of_death() or format_error(error), job.cell, source)
            finally:
                job.seconds, job.peak_mib = time.monotonic() - kernel.started, pool.memory.remove(kernel.pid)
    except Exception as error:
        job.failure = job.failure or Failure(f"the kernel did not work: {format_error(error)}", job.cell, source)
    if job.failure is None and not nb.is_fully_executed(executed):
        job.failure = Failure("a cell shows an error that the notebook lets pass (tag raises-exception)")
    return executed, _read_log(log)


def _read_log(path: Path) -> list[dict[str, Any]]:
    """One row for each complete line; a kernel that was killed may have left half of one."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line, parse_constant=str))
    return rows


def _write_done(
    job: NotebookRun, executed: nb.Notebook, rows: list[dict[str, Any]], project: Project, config: RunConfig
) -> None:
    executed["metadata"][nb.KEY] = {
        "fingerprint": job.fingerprint,
        "profile": config.profile,
        "minutes": round(job.seconds / 60, 2),
        "peak_mib": job.peak_mib,
        "claims": rows,
    }
    nb.update_header(executed)
    text = nb.dumps(nb.normalize(executed))
    if config.update:
        _publish(job, executed, text, project)
    atomic_write(project.copy_of(job.source), text)
    project.failed_copy_of(job.source).unlink(missing_ok=True)
    job.notebook = executed


def _publish(job: NotebookRun, executed: nb.Notebook, text: str, project: Project) -> None:
    """Write the pictures the notebook exports, then the notebook itself, unless its author changed it meanwhile."""
    if job.source.read_bytes() != job.source_bytes:
        raise SynthbookError(f"{job.source.name} was edited while it ran and is left as it is: run it again")
    command = f"synthbook course run --update --only {job.name}"
    for path, picture in nb.exported_figures(executed).items():
        target = (project.root / path).resolve()
        if picture is None or not target.is_relative_to(project.root):
            raise SynthbookError(
                f"the cell that exports {path} needs an image/png output and a path inside the project"
            )
        parents = {f"notebooks/{job.source.name}": sha256(text.encode())}
        for temp_file in target.parent.glob(f".{target.name}.*.tmp"):
            temp_file.unlink()  # of a run that was killed
        write_with_provenance(target, picture, Provenance(f"a figure of {job.source.name}", command, parents))
    atomic_write(job.source, text)


def _write_failed(job: NotebookRun, executed: nb.Notebook, rows: list[dict[str, Any]], project: Project) -> None:
    """Keep what was executed for looking at; an older success must not hide this failure from the next run."""
    project.copy_of(job.source).unlink(missing_ok=True)
    executed["metadata"][nb.KEY] = {"claims": rows}
    atomic_write(project.failed_copy_of(job.source), nb.dumps(nb.normalize(executed)))
    job.notebook = executed


# ── The whole course ──


@dataclass
class CourseResult:
    """The result of a run. `site` is the path of the first page; `interrupted` tells whether Ctrl-C ended it."""

    jobs: list[NotebookRun]
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

    def to_dict(self) -> dict[str, Any]:
        """The outcome for machines."""
        return {
            "notebooks": [job.to_dict() for job in self.jobs],
            "claims": self.board.to_dict() if self.board else None,
            "site": str(self.site) if self.site else None,
            "interrupted": self.interrupted,
            "errors": self.errors,
        }


def run_course(
    project: Project,
    sources: list[Path],
    config: RunConfig,
    *,
    callback: RunCallback,
    site: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> CourseResult:
    """Run the notebooks, build the site from what is committed, and write build/claims.json.

    A failed notebook does not keep the site from being built: the site shows the committed outputs in any case.
    """
    with _checkout_lock(project):
        outcome = CourseResult(run_notebooks(project, sources, config, callback))
        outcome.interrupted = any(job.status == "interrupted" for job in outcome.jobs)
        if outcome.interrupted:
            return outcome
        try:
            if site:
                log("building the site, if anything in it changed")
                with _collect_error(outcome.errors):
                    outcome.site = book_site.build(project.root)
            with _collect_error(outcome.errors):
                outcome.board = _write_board(project, outcome.jobs)
        except KeyboardInterrupt:
            outcome.interrupted = True
        return outcome


def build_site(project: Project) -> Path:
    """Build the site from the committed notebooks; the path of its first page."""
    with _checkout_lock(project):
        return book_site.build(project.root)


@contextlib.contextmanager
def _collect_error(errors: list[str]) -> Iterator[None]:
    """Add the reason why a part of the result is missing; what else there is, such as the notebooks, is reported."""
    try:
        yield
    except Exception as error:
        errors.append(format_error(error))


def _write_board(project: Project, jobs: list[NotebookRun]) -> Board:
    """The board of this run: what ran counts as it ran, notebooks that were not asked for as they are committed."""
    executed = {job.source: job.notebook for job in jobs}
    result = committed(project, executed=executed)
    parents = {}
    for source in project.sources():
        copy = project.copy_of(source)
        path = copy if source in executed and copy.is_file() else source
        if path.is_file():
            parents[path.relative_to(project.root).as_posix()] = sha256_file(path)
    text = strict_json(result.to_dict(), indent=1) + "\n"
    provenance = Provenance("the claims that the notebooks checked", "synthbook course run", parents)
    write_with_provenance(project.build / "claims.json", text, provenance)
    return result
