"""Shared by all commands: options, errors as one message, JSON for machines, progress, and what may be overwritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from synthbook.core.errors import InvalidArgument, SynthbookError, format_error
from synthbook.core.progress import console, echo
from synthbook.core.storage import strict_json

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what --out names.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


class Profile(StrEnum):
    """Computing budget: small, or without limits."""

    quick = "quick"
    full = "full"


class InterruptibleGroup(TyperGroup):
    """A group of commands whose Ctrl-C reaches `run_app`, which reports it; typer would end without a message."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Abort() from None


def run_app(app: typer.Typer, arguments: list[str]) -> int:
    """Run one command and return its exit code; an error is one message, or a JSON document under --json."""
    try:
        return int(app(args=arguments, prog_name="synthbook", standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort):
        return _report("interrupted", 130, arguments)
    except SynthbookError as error:
        return _report(str(error), error.exit_code, arguments)
    except OSError as error:  # a full disk, a checkout that may not be written to
        return _report(format_error(error), 1, arguments)
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # of the parser
            return _report(error.format_message(), int(error.exit_code), arguments)
        raise


def _report(message: str, exit_code: int, arguments: list[str]) -> int:
    if "--json" in arguments:
        echo_json({"error": message})
    elif message:
        echo(f"synthbook: {message}", stderr=True)
    return exit_code


def echo_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document."""
    echo(strict_json(document, indent=1))


def echo_warning(message: str) -> None:
    """Print a line on the error stream."""
    echo(message, stderr=True)


@contextmanager
def status(message: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A line on the error stream that says what is being done, for a callback (message)."""
    if quiet:
        yield lambda message: None
        return
    with console(stderr=True).status(message) as line:
        yield line.update


def echo_report(report: Any, out: Path | None, *, as_json: bool) -> None:
    """Print a report, and where it was written."""
    if as_json:
        echo_json(report.to_dict() | {"report": None if out is None else str(out)})
        return
    echo(report)
    if out is not None:
        echo(f"report: {out}")


def check_inputs(files: Mapping[str, Path]) -> None:
    """Raise `InvalidArgument` unless all are files, and different ones."""
    for name, path in files.items():
        if not path.is_file():
            raise InvalidArgument(name, str(path), "the path of a file that exists")
    for (name, path), (other, same) in combinations(files.items(), 2):
        if path.samefile(same):
            raise InvalidArgument(other, str(same), f"another file than {name}")


def check_outputs(*paths: Path | None, force: bool = False, resume: bool = False, accept: str = "--force") -> None:
    """Refuse to overwrite: a file must not exist, a folder must be empty or absent, unless `force` or `resume`.

    Hidden files such as locks do not count. `accept` is the option that the message names. Raises `InvalidArgument`.
    """
    if force or resume:
        return
    existing = [path for path in paths if path is not None and path.exists()]
    if taken := [str(path) for path in existing if not path.is_dir() or any(p.name[0] != "." for p in path.iterdir())]:
        raise InvalidArgument("out", ", ".join(taken), f"a path that does not exist, or {accept}")


def check_report(out: Path | None, *, force: bool) -> None:
    """Refuse a report that is neither .html nor .json, whose folder is missing, or that exists. See `check_outputs`."""
    if out is None:
        return
    if out.suffix not in (".html", ".json"):
        raise InvalidArgument("out", str(out), "a path that ends in .html or .json")
    if out.is_dir() or not out.resolve().parent.is_dir():
        raise InvalidArgument("out", str(out), "a file in a folder that exists")
    check_outputs(out, force=force)
