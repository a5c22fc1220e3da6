"""Shared by all commands: options, errors as one message, JSON for machines, progress, and what may be overwritten."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from synthbook.core import progress
from synthbook.core.errors import InvalidArgument, SynthbookError, format_error
from synthbook.core.progress import echo
from synthbook.core.storage import strict_json

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what --out names.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


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


def counter(title: str, unit: str, *, quiet: bool) -> AbstractContextManager[Callable[[int, int], None]]:
    """A progress bar with rate and time left, for a callback (done, total)."""
    return nullcontext(lambda done, total: None) if quiet else progress.counter(title, unit)


def loss_bar(title: str, *, quiet: bool) -> AbstractContextManager[Callable[[int, int, float], None]]:
    """A progress bar with time left, for a callback (step, steps, loss)."""
    return nullcontext(lambda step, steps, loss: None) if quiet else progress.bar(title)


def check_outputs(*paths: Path | None, force: bool = False, resume: bool = False, accept: str = "--force") -> None:
    """Refuse to overwrite: a file must not exist, a folder must be empty or absent, unless `force` or `resume`.

    Hidden files such as locks do not count. `accept` is the option that the message names. Raises `InvalidArgument`.
    """
    if force and resume:
        raise InvalidArgument("force, resume", (True, True), "one of both")
    if force or resume:
        return
    existing = [path for path in paths if path is not None and path.exists()]
    if taken := [str(path) for path in existing if not path.is_dir() or any(p.name[0] != "." for p in path.iterdir())]:
        raise InvalidArgument("out", ", ".join(taken), f"a path that does not exist, or {accept}")
