"""Console output and progress bars of the commands."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def console(stderr: bool = False) -> Console:
    """A console on stdout or stderr: as wide as the terminal, or 110 columns in a log file."""
    from rich.console import Console

    class Patient(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            _let_go(stream)

    stream = sys.stderr if stderr else sys.stdout
    narrow = stream.isatty() or "COLUMNS" in os.environ  # a log file has no width of its own
    return Patient(stderr=stderr, width=None if narrow else 110)


def echo(text: object, *, stderr: bool = False) -> None:
    """Print a line and ignore a closed pipe, as in `synthbook claims | head -1`."""
    stream = sys.stderr if stderr else sys.stdout
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        _let_go(stream)


def _let_go(stream: TextIO) -> None:
    """Redirect a stream to the null device, so that no later flush raises `BrokenPipeError`."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def progress_bar(desc: str, unit: str | None = None, *, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """A progress bar on a terminal's error stream, as a callback to call after every step.

    With a `unit`, the callback takes (done, total): the bar shows rate and time left, a log file gets a line for each
    tenth. Without, it takes (step, steps, loss), where the loss may be a mapping whose first value is shown; a log file
    gets nothing.
    """
    if quiet:
        yield lambda *progress: None
        return
    from rich import progress as rp

    error = console(stderr=True)
    columns = [*rp.Progress.get_default_columns(), rp.TextColumn("loss {task.fields[loss]:.3f}")]
    if unit:
        rate = rp.TextColumn("{task.fields[rate]:,.0f} " + unit + "/s, left:")
        columns = [rp.TextColumn(desc), rp.BarColumn(), rp.MofNCompleteColumn(), rate]
        columns += [rp.TimeRemainingColumn(), rp.TimeElapsedColumn()]
    logged: list[int] = []  # the tenth at the start, then each new one

    def callback(done: int, total: int, loss: float | Mapping[str, float] = math.nan) -> None:
        loss = next(iter(loss.values())) if isinstance(loss, Mapping) else loss
        progress.update(task, completed=done, total=total, rate=progress.tasks[0].speed or 0.0, loss=loss)
        if unit and not error.is_terminal and (not logged or 10 * done // total > logged[-1]):
            logged.append(10 * done // total)
            echo(f"{desc}: {done:,} of {total:,} {unit}", stderr=True)

    with rp.Progress(*columns, console=error, disable=not error.is_terminal) as progress:
        task = progress.add_task(desc, total=None, rate=0.0, loss=math.nan)
        yield callback
