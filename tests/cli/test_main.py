"""One policy for all commands: how options are spelled, typed and explained, and that every help fits a terminal."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import pytest
import typer

from synthbook.cli.main import _COMMANDS, _RENAMED, app, main


class Policy(NamedTuple):
    """An option that means the same in every command; None where commands differ."""

    name: str  # of the function's argument
    type: type
    default: Any
    help: str | None


POLICIES = {
    "-n": Policy("n", int, None, None),
    "--out": Policy("out", Path, None, None),
    "--seed": Policy("seed", int, 0, "Seed of everything random."),
    "--resume": Policy("resume", bool, False, "Continue a run that was stopped."),
    "--force": Policy("force", bool, False, "Overwrite what --out names."),
    "--quiet": Policy("quiet", bool, False, "Show no progress."),
    "--json": Policy("as_json", bool, False, "Print one JSON document."),
}
EXCEPTIONS = {  # with their reasons
    ("course run", "--force"): "it overwrites nothing: it runs unchanged notebooks, too",
}


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command by its words, groups left out."""
    if not hasattr(command, "commands"):
        yield " ".join(path), command
    for name, child in getattr(command, "commands", {}).items():
        yield from leaves(child, (*path, name))


COMMANDS = dict(leaves(typer.main.get_command(app)))
OPTIONS = {
    name: {spelling: option for option in command.params for spelling in getattr(option, "opts", ())}
    for name, command in COMMANDS.items()
}


@pytest.mark.parametrize("option", POLICIES)
def test_an_option_means_the_same_in_every_command(option: str) -> None:
    policy, commands = POLICIES[option], [name for name, options in OPTIONS.items() if option in options]
    assert commands
    for name in commands:
        given = OPTIONS[name][option]
        assert (given.name, given.opts, given.secondary_opts) == (policy.name, [option], []), name
        annotation = get_type_hints(COMMANDS[name].callback)[policy.name]
        assert policy.type in (annotation, *get_args(annotation)), name
        if policy.default is not None:
            assert given.default == policy.default and not given.required, name
        assert given.help.endswith("."), name
        if policy.help and (name, option) not in EXCEPTIONS:
            assert given.help == policy.help, name


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_the_options_that_its_kind_needs(name: str) -> None:
    options = OPTIONS[name].keys()
    assert "--json" in options
    assert not {"-n", "--seed"} <= options or "--out" in options, "what is drawn is written"
    assert "-n" not in options or "--seed" in options, "what is drawn has a seed"
    assert "--out" not in options or {"--force", "--resume"} & options, "nothing is overwritten by accident"
    long = {"-n", "--seed", "--resume"} & options
    assert not long or "--quiet" in options or (name, "--quiet") in EXCEPTIONS, "progress can be turned off"
    assert [option for option in options if option[0] == "-" and option[1] != "-"] in ([], ["-n"]), "one short form"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_count_starts_at_one_and_a_seed_at_zero(name: str) -> None:
    hints = get_type_hints(COMMANDS[name].callback, include_extras=True)
    least = {key: hints[key].__metadata__[0].min for key in ("n", "seed", "jobs") if key in hints}
    assert least.get("seed", 0) == 0 and least.get("n", 1) >= 1 and least.get("jobs", 1) == 1


def test_every_exception_is_still_one() -> None:
    for name, option in EXCEPTIONS:
        given = OPTIONS[name].get(option)
        assert given is None or given.help != POLICIES[option].help


def help_of(arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*arguments.split(), "--help"]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_fits_80_columns_and_has_an_example(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = help_of(name, monkeypatch, capsys)
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    words = inspect.cleandoc(COMMANDS[name].help)
    assert f"`synthbook {name}" in words.partition("Example")[2]


def test_the_help_of_all_commands_fits_one_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = help_of("", monkeypatch, capsys)
    assert len(lines) <= 24 and max(map(len, lines)) <= 80 and not any("..." in line[40:] for line in lines[2:])
    named = [name for commands in _COMMANDS.values() for name in commands]
    assert [line[12:29].strip() for line in lines[4:]] == named


@pytest.mark.parametrize("old", _RENAMED)
def test_a_former_name_is_refused_with_the_new_one(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([old]) == 2
    new = _RENAMED[old].partition(" --")[0]
    assert f"it is now `synthbook {new}" in capsys.readouterr().err
    assert new in COMMANDS or any(name.startswith(f"{new} ") for name in COMMANDS)
