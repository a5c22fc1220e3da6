"""Experiments that the claims rest on, each run for several seeds. No wing imports them.

An experiment is a trial function marked with `@experiment`. `list_experiments` reads the decorators without importing
their modules, which load torch; `read_results` reads the shipped results; `load_experiment` imports what is to run.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, cast

import pandas as pd

from synthbook.core.errors import InvalidArgument
from synthbook.core.jobs import read_trials
from synthbook.datasets import data_folder

_Trial = TypeVar("_Trial", bound=Callable[..., Mapping[str, Any]])


@dataclass(frozen=True)
class Experiment:
    """`trial(case, seed=k)` for each of `cases` returns one row of numbers as plain JSON.

    `results` is the path of the shipped rows below the data folder. `budget` is recorded beside the rows; a run with
    another budget, other cases or other `settings` is not resumed.
    """

    name: str
    help: str
    data_source: str
    results: str
    cases: tuple[str, ...]
    trial: Callable[..., Mapping[str, Any]]
    budget: Any = None
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ExperimentEntry:
    """What an experiment measures, where its results are, and where it is defined."""

    name: str
    help: str
    results: str
    module: str
    function: str


def experiment(
    name: str,
    *,
    help: str,
    data_source: str,
    results: str,
    cases: Sequence[str],
    budget: Any = None,
    settings: Mapping[str, Any] | None = None,
) -> Callable[[_Trial], _Trial]:
    """Mark `trial(case, *, seed)` as the experiment `name`; write `name`, `help` and `results` as literals.

    The trial raises `InvalidArgument` for a case that is not one of `cases`.
    """

    def mark(trial: _Trial) -> _Trial:
        @wraps(trial)
        def checked(case: str, **arguments: Any) -> Mapping[str, Any]:
            if case not in cases:
                raise InvalidArgument("case", case, f"one of {', '.join(cases)}")
            return trial(case, **arguments)

        checked.experiment = Experiment(  # type: ignore[attr-defined]
            name, help, data_source, results, tuple(cases), checked, budget, settings
        )
        return cast(_Trial, checked)

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
                    values = {word.arg: word.value for word in call.keywords}
                    help, results = (ast.literal_eval(values[key]) for key in ("help", "results"))
                    entries[name] = ExperimentEntry(name, help, results, f"{__name__}.{path.stem}", function.name)
    return dict(sorted(entries.items()))


def _entry(name: str) -> ExperimentEntry:
    entries = list_experiments()
    if name not in entries:
        raise InvalidArgument("name", name, f"one of {', '.join(entries)}")
    return entries[name]


def load_experiment(name: str) -> Experiment:
    """The experiment of that name, its module imported. Raises `InvalidArgument`."""
    entry = _entry(name)
    loaded: Experiment = getattr(import_module(entry.module), entry.function).experiment
    return loaded


def read_results(name: str) -> pd.DataFrame:
    """The shipped results of an experiment, a row for each case and seed. Raises `InvalidArgument`."""
    return read_trials(data_folder() / _entry(name).results)
