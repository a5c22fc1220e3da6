"""Experiments that the claims rest on, each run for several seeds. No wing imports them.

A trial function marked with `@experiment` is one. `list_experiments` reads the decorators without importing their
modules, which load torch; `load_experiment` imports the one that is to run.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from synthbook.core.errors import InvalidArgument

_Trial = Callable[..., Mapping[str, Any]]


@dataclass(frozen=True)
class Experiment:
    """`trial(case, seed=k)` for each of `cases` returns one row of numbers as plain JSON.

    `budget` is recorded beside the rows; a run with another budget, other cases or other `settings` is not resumed.
    """

    name: str
    help: str
    data_source: str
    cases: tuple[str, ...]
    trial: _Trial
    budget: Any = None
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ExperimentEntry:
    """Where an experiment is defined, and what it measures."""

    name: str
    help: str
    module: str
    function: str


def experiment(
    name: str,
    *,
    help: str,
    data_source: str,
    cases: Sequence[str],
    budget: Any = None,
    settings: Mapping[str, Any] | None = None,
) -> Callable[[_Trial], _Trial]:
    """Mark `trial(case, *, seed)` as the experiment `name`; write `name` and `help` as literals."""

    def mark(trial: _Trial) -> _Trial:
        trial.experiment = Experiment(  # type: ignore[attr-defined]
            name, help, data_source, tuple(cases), trial, budget, settings
        )
        return trial

    return mark


@cache
def list_experiments() -> dict[str, ExperimentEntry]:
    """All experiments of this package by name, in alphabetical order."""
    entries = {}
    for path in Path(__file__).parent.glob("*.py"):
        functions = [n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.FunctionDef)]
        for function in functions:
            for call in function.decorator_list:
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "experiment":
                    name = ast.literal_eval(call.args[0])
                    help = next(ast.literal_eval(word.value) for word in call.keywords if word.arg == "help")
                    entries[name] = ExperimentEntry(name, help, f"{__name__}.{path.stem}", function.name)
    return dict(sorted(entries.items()))


def load_experiment(name: str) -> Experiment:
    """The experiment of that name, its module imported. Raises `InvalidArgument`."""
    entries = list_experiments()
    if name not in entries:
        raise InvalidArgument("name", name, f"one of {', '.join(entries)}")
    entry = entries[name]
    loaded: Experiment = getattr(import_module(entry.module), entry.function).experiment
    return loaded
