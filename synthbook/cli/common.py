"""What all verbs of the command share: Ctrl-C, errors as one message, the version, JSON for machines."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from synthbook import __version__
from synthbook.core.errors import SynthbookError, describe
from synthbook.core.progress import put
from synthbook.core.storage import strict_json

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]


class Group(TyperGroup):
    """Verbs whose Ctrl-C reaches `run`, which says so; typer would end without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Abort() from None


def run(app: typer.Typer, arguments: list[str]) -> int:
    """Run one verb and return its exit code; an error is one message, and a JSON document where JSON is asked for."""
    try:
        return int(app(args=arguments, prog_name="synthbook", standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort):
        return _report("interrupted", 130, arguments)
    except SynthbookError as error:
        return _report(str(error), error.exit_code, arguments)
    except OSError as error:  # a full disk, a checkout that may not be written to
        return _report(describe(error), 1, arguments)
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # what the parser found wrong
            return _report(error.format_message(), int(error.exit_code), arguments)
        raise


def put_json(document: dict[str, Any]) -> None:
    """Print one JSON document."""
    put(strict_json(document, indent=1))


def show_version(wanted: bool) -> None:
    """Print the version and end, where the option asks for it."""
    if wanted:
        put(f"synthbook {__version__}")
        raise typer.Exit


def _report(message: str, exit_code: int, arguments: list[str]) -> int:
    if "--json" in arguments:
        put_json({"error": message})
    elif message:
        put(f"synthbook: {message}", stderr=True)
    return exit_code
