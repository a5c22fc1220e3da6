"""Consoles and progress bars, for the commands that people run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def console(stderr: bool = False) -> Console:
    """A console on the output or error stream: as wide as the terminal, 110 columns in a log file."""
    from rich.console import Console

    class Patient(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            _let_go(stream)

    stream = sys.stderr if stderr else sys.stdout
    narrow = stream.isatty() or "COLUMNS" in os.environ  # a log file has no width of its own
    return Patient(stderr=stderr, width=None if narrow else 110)


def echo(text: object, *, stderr: bool = False) -> None:
    """Print a line; a reader that went away, as in `synthbook claims | head -1`, does not end the work."""
    stream = sys.stderr if stderr else sys.stdout
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        _let_go(stream)


def _let_go(stream: TextIO) -> None:
    """Send what is still to come nowhere, so that no later flush complains about the closed pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def counter(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal's error stream that is told (done, of how many), with rate and time left; tenths in a log."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    error = console(stderr=True)
    rate = TextColumn("{task.fields[rate]:,.0f} " + unit + "/s, left:")
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn(), TimeElapsedColumn())
    told: list[int] = []  # what was done at the start, then each tenth

    def callback(done: int, total: int) -> None:
        progress.update(task, completed=done, total=total, rate=progress.tasks[0].speed or 0.0)
        tenth = 10 * done // total
        if not error.is_terminal and (not told or tenth > told[-1]):
            told.append(tenth)
            echo(f"{title}: {done:,} of {total:,} {unit}", stderr=True)

    with Progress(*columns, console=error, disable=not error.is_terminal) as progress:
        task = progress.add_task(title, total=None, rate=0.0)
        yield callback


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int, float], None]]:
    """A bar on a terminal's error stream that is told (step, steps, loss); nothing elsewhere."""
    from rich.progress import Progress, TextColumn

    error = console(stderr=True)
    columns = (*Progress.get_default_columns(), TextColumn("loss {task.fields[loss]:.3f}"))
    with Progress(*columns, console=error, disable=not error.is_terminal) as progress:
        task = progress.add_task(title, total=None, loss=float("nan"))
        yield lambda step, steps, loss: progress.update(task, completed=step, total=steps, loss=loss)
