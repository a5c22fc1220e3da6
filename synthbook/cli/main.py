"""The `synthbook` command. Exit codes: 0 done, 1 a check failed or was refused, 2 bad input, 130 after Ctrl-C."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from synthbook import __version__
from synthbook.cli import book, dev, language, privacy, simulation, tables
from synthbook.cli.common import InterruptibleGroup, run_app
from synthbook.core.progress import echo

_COMMANDS: dict[str, dict[str, Any]] = {  # in the order of use
    "Book": {"doctor": book.doctor, "course": book.course, "claims": book.claims, "data": book.data},
    "Generators": {
        "schema": tables.schema,
        "fit": tables.fit,
        "sample": tables.sample,
        "evaluate": tables.evaluate,
    },
    "Privacy": {
        "audit": privacy.audit,
        "compute-epsilon": privacy.compute_epsilon,
        "privacy-ledger": privacy.privacy_ledger,
    },
    "Simulation": {"render": simulation.render, "locate": simulation.locate},
    "Language": {"generate": language.generate, "verify": language.verify, "models": language.models},
    "Authors": {"dev": dev.app},
}
_RENAMED = {
    "fit-private": "fit --model mst --epsilon ... --delta ...",
    "epsilon": "compute-epsilon",
    "budget": "privacy-ledger",
    "calibrate": "dev experiment",
    "train": "dev train",
    "record": "dev record",
    "score-models": "dev score-models",
    "score-localizer": "dev score-localizer",
}


class RootGroup(InterruptibleGroup):
    """All commands, listed by topic on one screen; a former name's error says the new one."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names in the order of use."""
        return [name for commands in _COMMANDS.values() for name in commands]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, or end with a usage error."""
        if args[0] in _RENAMED:
            ctx.fail(f"No such command '{args[0]}': it is now `synthbook {_RENAMED[args[0]]}`.")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write one line for each command, with its topic before the first."""
        formatter.write("Usage: synthbook [--version] COMMAND [ARGUMENTS]..., synthbook COMMAND --help\n\n")
        formatter.write(f"{self.help}\n\n")
        for topic, names in _COMMANDS.items():
            for name in names:
                command = self.get_command(ctx, name)
                assert command is not None
                formatter.write(f"{topic:11} {name:16} {command.get_short_help_str(limit=60)}\n")
                topic = ""


app = typer.Typer(
    help="The executable book on synthetic data, and its tools.",
    cls=RootGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in _COMMANDS.values():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, no_args_is_help=True)
        else:
            app.command(name)(command)


def _print_version(requested: bool) -> None:
    if requested:
        echo(f"synthbook {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """The executable book on synthetic data, and its tools."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; every deliberate error is one message, never a traceback."""
    return run_app(app, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
