"""Commands for readers of the book: doctor, course, claims and data."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import asdict
from typing import Annotated

import typer

from synthbook.cli.common import JsonOption, Profile, Quiet, echo_json
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import console, echo

course = typer.Typer(help="Execute the notebooks and build the site.")
data = typer.Typer(help="Verify the real data sets.")


@course.command("run")
def course_run(
    only: Annotated[list[str] | None, typer.Option(help="Beginning of a notebook's name; may be repeated.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Notebooks run in parallel (default: one per core).")] = None,
    profile: Annotated[
        Profile, typer.Option(envvar="SYNTHBOOK_PROFILE", help="full removes the time budgets.")
    ] = Profile.quick,
    force: Annotated[bool, typer.Option("--force", help="Run unchanged notebooks too.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Write the outputs back to notebooks/.")] = False,
    no_site: Annotated[bool, typer.Option("--no-site", help="Do not build the site.")] = False,
    cell_timeout: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds for each cell (default: 600; none in the full profile).")
    ] = None,
    quiet: Quiet = False,
    as_json: JsonOption = False,
) -> None:
    """Execute the notebooks, check claims, build the site.

    Copies are executed, in build/; unchanged notebooks are skipped.

    Examples: `synthbook course run`, `synthbook course run --only 07a --force`, `synthbook course run --update`
    """
    from synthbook.course import display, runner
    from synthbook.course.project import find_project
    from synthbook.course.runner import RunConfig

    if cell_timeout is not None and not 0 < cell_timeout < math.inf:
        raise InvalidArgument("cell-timeout", cell_timeout, "a finite number of seconds above 0")
    if update and profile is Profile.full:
        why = "quick together with --update: everyone compares the committed notebooks with what a quick run shows"
        raise InvalidArgument("profile", profile.value, why)
    project = find_project()
    config = RunConfig(jobs, profile.value, force, update, cell_timeout)
    screen = console(stderr=as_json)
    sources = project.select(only or ())
    with nullcontext(lambda job: None) if quiet else display.progress(screen) as callback:
        outcome = runner.run_course(
            project,
            sources,
            config,
            callback=callback,
            site=not no_site,
            log=lambda line: display.print_line(screen, line),
        )
    if as_json:
        echo_json(outcome.to_dict())
    else:
        display.show_outcome(screen, outcome)
    raise typer.Exit(outcome.exit_code)


@course.command("site")
def course_site(as_json: JsonOption = False) -> None:
    """Build the site from the committed outputs.

    Example: `synthbook course site`
    """
    from synthbook.course.project import find_project
    from synthbook.course.runner import build_site

    index = build_site(find_project())
    if as_json:
        echo_json({"site": str(index)})
    else:
        echo(index)


def claims(
    section: Annotated[str | None, typer.Option(help="One section of the chapter, such as 7 or 7.2.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which claims the notebooks demonstrate.

    Exits with status 1 if a claim that the committed notebooks show does not hold.

    Examples: `synthbook claims`, `synthbook claims --section 7`, `synthbook claims --json`
    """
    from synthbook.course import claims as board
    from synthbook.course.project import find_project

    project = find_project()
    project.select()  # refuses an empty folder
    result = board.committed(project, section=section)
    if as_json:
        echo_json(result.to_dict())
    else:
        from synthbook.course import display

        display.show_board(console(), result)
    raise typer.Exit(0 if result.ok else 1)


def doctor(as_json: JsonOption = False) -> None:
    """Check what works on this machine.

    Example: `synthbook doctor`
    """
    from synthbook.course import display
    from synthbook.course import doctor as checks
    from synthbook.course.project import find_project

    try:
        root = find_project().root
    except InvalidArgument:
        root = None
    findings = checks.run_checks(root)
    works = all(finding.level != "fail" for finding in findings)
    if as_json:
        echo_json({"checks": [asdict(finding) for finding in findings], "ok": works})
    else:
        display.show_checks(console(), findings)
    raise typer.Exit(0 if works else 1)


@data.command("verify")
def data_verify(
    update: Annotated[bool, typer.Option("--update", help="Rewrite the manifest from the files as they are.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare every data file with the manifest.

    Examples: `synthbook data verify`, `synthbook data verify --update` (for authors who added a file)
    """
    from synthbook import datasets

    folder = datasets.data_folder()
    if update:
        datasets.write_manifest(folder)
    checks = datasets.verify_all(folder)
    good = all(check.ok for check in checks)
    if as_json:
        echo_json({"folder": str(folder), "ok": good, "files": [asdict(c) | {"ok": c.ok} for c in checks]})
    else:
        from synthbook.course import display

        display.show_files(console(), checks)
    raise typer.Exit(0 if good else 1)
