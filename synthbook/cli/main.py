"""The `synthbook` command: one function per verb, nothing but options in and a report out.

Exit codes: 0 done, 1 a check failed or something was refused, 2 bad input, 130 after Ctrl-C.
"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from synthbook.cli import language, privacy, simulation, tables
from synthbook.cli import train as cli_calibrate
from synthbook.cli import train as cli_models
from synthbook.cli.common import Group, Json, put_json, run, show_version
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import console, put

HELP: dict[str, Any] = {"no_args_is_help": True, "rich_markup_mode": "markdown", "add_completion": False}
app = typer.Typer(
    help="The executable book on synthetic data, and its tools.", cls=Group, pretty_exceptions_enable=False, **HELP
)
course = typer.Typer(help="Execute the book and build its site.", **HELP)
data = typer.Typer(help="The real data the book stands on.", **HELP)
app.add_typer(course, name="course")
app.add_typer(data, name="data")
schema = typer.Typer(help="What a table may hold.", **HELP)
train = typer.Typer(help="Train the models that the book ships.", **HELP)
app.add_typer(schema, name="schema")
app.add_typer(train, name="train")
for verb in (tables.fit, tables.evaluate, simulation.render, simulation.locate):
    app.command()(verb)
app.command("score-localizer")(simulation.score_localizer)
app.command("score-models")(cli_models.score_models)
calibrate = typer.Typer(help="Measure on several seeds what the claims about trained models rest on.", **HELP)
app.add_typer(calibrate, name="calibrate")
calibrate.command("randomization")(simulation.calibrate_randomization)
for name in cli_calibrate.CALIBRATED:
    calibrate.command(name)(cli_calibrate.calibration(name))
train.command("features")(cli_models.train_features)
train.command("localizer")(simulation.train_localizer)
for name in cli_models.TRAINED:
    train.command(name)(cli_models.trainer(name))
for more in (tables.sample, language.verify, language.generate, language.record):
    app.command()(more)
for private in (privacy.epsilon, privacy.fit_private, privacy.audit, privacy.budget):
    app.command()(private)
models = typer.Typer(help="The language model that section 4 can talk to.", **HELP)
app.add_typer(models, name="models")
models.command("fetch")(language.fetch)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=show_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """The executable book on synthetic data, and its tools."""


class Profile(StrEnum):
    """How much a notebook may compute."""

    quick = "quick"
    full = "full"


@course.command("run")
def course_run(
    only: Annotated[list[str] | None, typer.Option(help="Beginning of a notebook's name; may be repeated.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Notebooks side by side (default: one per core).")] = None,
    profile: Annotated[
        Profile, typer.Option(envvar="SYNTHBOOK_PROFILE", help="full removes the budgets: for a GPU or an evening.")
    ] = Profile.quick,
    force: Annotated[bool, typer.Option("--force", help="Run unchanged notebooks, too.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Write what was executed back to notebooks/.")] = False,
    no_site: Annotated[bool, typer.Option("--no-site", help="Leave the site as it is.")] = False,
    cell_timeout: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds for each cell (default: 600; none in the full profile).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Execute copies of the notebooks, check their claims, build the site.

    Examples: `synthbook course run`, `synthbook course run --only 07a --force`, `synthbook course run --update`
    """
    from synthbook.course import display, runner
    from synthbook.course.project import find_project
    from synthbook.course.runner import Settings

    if cell_timeout is not None and not 0 < cell_timeout < math.inf:
        raise InvalidArgument("cell-timeout", cell_timeout, "a finite number of seconds above 0")
    if update and profile is Profile.full:
        why = "quick together with --update: everyone compares the committed notebooks with what a quick run shows"
        raise InvalidArgument("profile", profile.value, why)
    project = find_project()
    settings = Settings(jobs, profile.value, force, update, cell_timeout)
    screen = console(stderr=as_json)
    sources = project.select(only or ())
    with display.progress(screen) as callback:
        outcome = runner.make(
            project, sources, settings, callback=callback, site=not no_site, log=lambda line: display.say(screen, line)
        )
    if as_json:
        put_json(outcome.to_dict())
    else:
        display.show_outcome(screen, outcome)
    raise typer.Exit(outcome.exit_code)


@course.command("site")
def course_site(as_json: Json = False) -> None:
    """Build the site from the committed outputs, without executing anything.

    Example: `synthbook course site`
    """
    from synthbook.course.project import find_project
    from synthbook.course.runner import make_site

    index = make_site(find_project())
    if as_json:
        put_json({"site": str(index)})
    else:
        put(index)


@app.command()
def claims(
    section: Annotated[str | None, typer.Option(help="Only this section of the chapter, such as 7 or 7.2.")] = None,
    as_json: Json = False,
) -> None:
    """Show which claims the committed notebooks demonstrate, and whether they hold.

    Examples: `synthbook claims`, `synthbook claims --section 7`, `synthbook claims --json`
    """
    from synthbook.course import board
    from synthbook.course.project import find_project

    project = find_project()
    project.select()  # refuses an empty folder
    result = board.committed(project, section=section)
    if as_json:
        put_json(result.to_dict())
    else:
        from synthbook.course import display

        display.show_board(console(), result)
    raise typer.Exit(0 if result.ok else 1)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what works on this machine, and what to do about the rest.

    Example: `synthbook doctor`
    """
    from synthbook.course import display
    from synthbook.course import doctor as checks
    from synthbook.course.project import find_project

    try:
        root = find_project().root
    except InvalidArgument:
        root = None
    findings = checks.examine(root)
    works = all(finding.level != "fail" for finding in findings)
    if as_json:
        put_json({"checks": [asdict(finding) for finding in findings], "ok": works})
    else:
        display.show_findings(console(), findings)
    raise typer.Exit(0 if works else 1)


@data.command("verify")
def data_verify(
    update: Annotated[
        bool, typer.Option("--update", help="Write the manifest anew from the files as they are.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare every data file with the manifest.

    Examples: `synthbook data verify`, `synthbook data verify --update` (for authors who added a file)
    """
    from synthbook import datasets

    folder = datasets.data_folder()
    if update:
        datasets.write_manifest(folder)
    checks = datasets.verify_all(folder)
    good = all(check.holds for check in checks)
    if as_json:
        put_json({"folder": str(folder), "ok": good, "files": [asdict(c) | {"holds": c.holds} for c in checks]})
    else:
        from synthbook.course import display

        display.show_files(console(), checks)
    raise typer.Exit(0 if good else 1)


@schema.command("draft")
def schema_draft(
    source: Annotated[Path, typer.Argument(metavar="REAL.CSV", help="A delimited text file with a header.")],
    out: Annotated[Path, typer.Option(help="Where the draft goes.")] = Path("schema.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file named by --out.")] = False,
    as_json: Json = False,
) -> None:
    """Draft a schema from a table, marked "inferred", with comments that say what to review.

    Examples: `synthbook schema draft real.csv`, `synthbook schema draft real.csv --out adult.toml --force`
    """
    from synthbook.core.schema_draft import draft_file

    found = draft_file(source, out, force=force)
    if as_json:
        put_json({"schema": str(out)} | found.to_dict())
    else:
        console().print(found)
        put(f"{out}: {len(found.schema.columns)} columns, {len(found.rules)} rules to review")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; every deliberate error is one message, never a traceback."""
    return run(app, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
