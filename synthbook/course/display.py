"""What people see: progress while notebooks run, failures with their source, the claims board, the doctor's lines."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.spinner import Spinner
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from synthbook.core.plots import GUESS_COLOR
from synthbook.course.claims import Board
from synthbook.course.doctor import CheckResult
from synthbook.course.runner import CourseResult, NotebookRun, RunCallback
from synthbook.datasets import FileCheck

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_MARKS = {True: Text("✓", "green"), False: Text("✗", "red"), None: Text("–", "dim")}
_LEVELS = {"ok": _MARKS[True], "warn": Text("!", "yellow"), "fail": _MARKS[False]}
_STATUS_STYLE = {"done": "green", "unchanged": "green", "failed": "red", "interrupted": "yellow", "running": "bold"}


def _duration(seconds: float) -> str:
    """Seconds as people read them.

    >>> _duration(4.24), _duration(83)
    ('4.2 s', '1 min 23 s')
    """
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"


@contextmanager
def progress(console: Console) -> Iterator[RunCallback]:
    """A callback of a run: a live table on a terminal, a line for each event elsewhere."""
    if not console.is_terminal:
        yield partial(_print_event, console)
        return
    jobs: dict[str, NotebookRun] = {}
    with Live(get_renderable=lambda: _job_table(jobs), console=console, refresh_per_second=4):
        yield lambda job: jobs.update({job.name: job})


def _print_event(console: Console, job: NotebookRun) -> None:
    messages = {
        "running": "started",
        "done": f"done in {_duration(job.seconds)}, {job.peak_mib} MiB",
        "unchanged": "unchanged",
        "failed": f"FAILED at cell {job.cell} of {job.cells}" if job.cell else "FAILED",
        "interrupted": "interrupted",
    }
    if job.status in messages and not (job.status == "running" and job.cell):  # its start, not each of its cells
        console.print(f"{job.name}: {messages[job.status]}", markup=False, highlight=False, soft_wrap=True)


def _job_table(jobs: dict[str, NotebookRun]) -> RenderableType:
    table = Table("notebook", "status", "cell", "time", box=None, pad_edge=False)
    for job in jobs.values():
        running = job.status == "running"
        seconds = time.monotonic() - job.started if running else job.seconds
        status = Spinner("dots", text="running") if running else Text(job.status, _STATUS_STYLE.get(job.status, "dim"))
        cell = f"{job.cell} of {job.cells}" if job.cell else ""
        table.add_row(job.name, status, cell, _duration(seconds) if running or job.status == "done" else "")
    return table


def show_outcome(console: Console, outcome: CourseResult) -> None:
    """The board, then what failed, a summary, and as the last line the path of the site."""
    if outcome.board is not None:
        show_board(console, outcome.board)
    for job in outcome.jobs:
        if job.failure is not None:
            console.print(_failure(job, console.is_terminal), soft_wrap=True)
    for error in outcome.errors:
        print_line(console, f"✗ {error}", "red")
    if outcome.interrupted:
        print_line(console, "interrupted: notebooks that had ended are kept, the others are untouched", "yellow")
    print_line(console, _summary(outcome.jobs))
    if outcome.site is not None:
        print_line(console, f"The book: {outcome.site}")


def print_line(console: Console, line: str, style: str | None = None) -> None:
    """One line as it is: no markup read into it, not wrapped."""
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def _summary(jobs: list[NotebookRun]) -> str:
    names = ("done", "unchanged", "failed", "interrupted")
    counts = {name: sum(job.status == name for job in jobs) for name in names}
    return f"{len(jobs)} notebook{'s' * (len(jobs) != 1)}: " + ", ".join(
        f"{count} {name}" for name, count in counts.items() if count
    )


def _failure(job: NotebookRun, colors: bool) -> RenderableType:
    assert job.failure is not None
    where = f"{job.source.name}, cell {job.failure.cell} of {job.cells}" if job.failure.cell else job.source.name
    if not colors:
        lines = [f"── {where} ──", f"✗ {job.failure.reason}", job.failure.source, _ANSI.sub("", job.failure.traceback)]
        return Text("\n".join(line for line in lines if line) + "\n")
    return Group(
        Rule(f"[red]{where}"),
        Text(f"✗ {job.failure.reason}", "red"),
        Syntax(job.failure.source, "python", background_color="default"),
        Text.from_ansi(job.failure.traceback),
    )


def show_board(console: Console, board: Board) -> None:
    """The claims as a table, what is wrong, and how many are shown and hold."""
    table = Table(box=None, pad_edge=False, expand=True)
    for heading in ("claim", "what it says", "verdict", "notebook", ""):
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    table.columns[1].ratio = 1
    table.columns[3].max_width = max(8, console.width - 70)  # the first to shrink
    for row in board.rows:
        style = "dim" if row["holds"] is None else None
        table.add_row(row["id"], row["title"], row["verdict"], row["notebook"] or "", _MARKS[row["holds"]], style=style)
    console.print(table)
    for error in board.errors:
        print_line(console, f"✗ {error}", "red")
    print_line(console, f"{board.n_demonstrated} of {len(board.rows)} claims shown, {board.n_holding} hold")


def show_checks(console: Console, checks: list[CheckResult]) -> None:
    """One line for each check of the doctor, with advice below where something is to be done."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for check in checks:
        text = check.detail if check.level == "ok" or not check.hint else f"{check.detail}\n→ {check.hint}"
        table.add_row(_LEVELS[check.level], check.name, Text(text))
    console.print(table)


def show_files(console: Console, checks: list[FileCheck]) -> None:
    """One line for each data file that is not what the manifest says, then a count."""
    wrong = [check for check in checks if not check.ok]
    for check in wrong:
        note = f" ({check.problem})" if check.problem else ""
        print_line(console, f"✗ {check.file}{note}\n  expected {check.expected}\n  found    {check.actual}", "red")
    print_line(console, f"{len(checks) - len(wrong)} of {len(checks)} data files are as the manifest says")


# ── Predictions of the reader ──


@dataclass(frozen=True)
class Prediction:
    """A reader's guess, waiting for its result."""

    question: str
    guess: float

    def plot_guess(self, ax: Axes, *, x: float | None = None) -> Axes:
        """Draw the guess: a diamond at `x`, or a dotted horizontal line across the axis when `x` is left out."""
        label = f"your guess: {self.guess:g}"
        if x is None:
            ax.axhline(self.guess, color=GUESS_COLOR, linestyle=":", linewidth=2, label=label)
        else:
            ax.plot([x], [self.guess], marker="D", markersize=9, linestyle="", color=GUESS_COLOR, label=label)
        return ax

    def compare(self, result: float) -> str:
        """One sentence that sets the guess beside the result."""
        return f"You guessed {self.guess:g}; the result is {result:.3g}."


def predict(question: str, *, guess: float) -> Prediction:
    """Record a guess and say so; change the number, run the cell again, and the figures below will draw yours."""
    print(f"Your guess: {guess:g}. ({question})")
    return Prediction(question, float(guess))
