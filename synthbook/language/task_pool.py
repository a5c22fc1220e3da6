"""Tasks, written and grown, and what is told of how their pool grew: rounds, drops, a ledger, two figures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes

from synthbook.core.manifest import read_data
from synthbook.core.plots import BLACK, BLUE, VERMILLION, new_axis
from synthbook.language.pipeline import Entry
from synthbook.language.records import Record

ACCEPTED = "accepted"
BY_HAND = "written"


@dataclass(frozen=True)
class Task:
    """An instruction, an instance, and whether its answers are labels. `origin`: written, or the number of a round."""

    id: str
    instruction: str
    classification: bool = False
    input: str = ""
    output: str = ""
    origin: str = BY_HAND

    def record(self) -> Record:
        """As a record: the prompt is instruction and input."""
        prompt = f"{self.instruction}\n{self.input}".strip()
        kind = "classification" if self.classification else "other"
        return Record(self.id, prompt, self.output, kind, {"origin": self.origin})


def seed_tasks() -> list[Task]:
    """The 48 written tasks about work with data that come with the book."""
    lines = [json.loads(line) for line in read_data("seed-tasks/seed_tasks.jsonl").decode().splitlines()]
    return [Task(x["id"], x["instruction"], x["classification"], **x["instances"][0]) for x in lines]


@dataclass(frozen=True)
class Round:
    """One round: tasks in the pool before it, proposals, what became of them, and the same as a ledger of its stages.

    `likeness`: ROUGE-L to the nearest task of the pool, of each proposal whose form was good enough to be compared.
    """

    pool: int
    proposed: int
    reasons: Counter[str]
    likeness: tuple[float, ...]
    ledger: tuple[Entry, ...] = ()

    @property
    def accepted(self) -> int:
        """Proposals that were kept."""
        return self.reasons[ACCEPTED]

    @property
    def mean_likeness(self) -> float:
        """NaN where nothing was compared."""
        return float(np.mean(self.likeness)) if self.likeness else np.nan

    @property
    def max_likeness(self) -> float:
        """NaN where nothing was compared."""
        return max(self.likeness, default=np.nan)


@dataclass
class Pool:
    """Written and grown tasks, what was proposed and dropped with its reason, and the rounds."""

    tasks: list[Task]
    dropped: list[tuple[str, str]] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)

    @property
    def written(self) -> list[Task]:
        """Those that the pool began with."""
        return [task for task in self.tasks if task.origin == BY_HAND]

    @property
    def grown(self) -> list[Task]:
        """Those that nobody wrote."""
        return [task for task in self.tasks if task.origin != BY_HAND]

    @property
    def ledger(self) -> list[Entry]:
        """What each stage did in all rounds together, for `plot_flow`."""
        total: dict[str, Entry] = {}
        for entry in (entry for one in self.rounds for entry in one.ledger):
            sums = total.setdefault(entry.stage, Entry(entry.stage))
            sums.came, sums.stayed = sums.came + entry.came, sums.stayed + entry.stayed
            sums.seconds += entry.seconds
            sums.reasons.update(entry.reasons)
        return list(total.values())


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def plot_growth(pools: Mapping[str, Pool], ax: Axes | None = None) -> Axes:
    """Tasks of each pool against proposals; a line of slope 1 would keep them all."""
    ax = new_axis(ax)
    for name, pool in pools.items():
        asked, size = _steps(pool.rounds, len(pool.tasks))
        ax.plot(asked, size, label=f"{name}: {size[-1]}")
    ax.legend(loc="lower right")
    ax.set(xlabel="proposals", ylabel="tasks in the pool", title="The pool grows")
    return ax


def _steps(rounds: Sequence[Round], last: int) -> tuple[list[int], list[int]]:
    asked = np.cumsum([0, *(one.proposed for one in rounds)])
    return asked.tolist(), [*(one.pool for one in rounds), last]


def plot_likeness(pool: Pool, ax: Axes | None = None, *, most: float = 0.7) -> Axes:
    """ROUGE-L of each proposal to its nearest task, by the pool's size: dots below `most`, crosses above, the mean."""
    ax = new_axis(ax)
    seen = [(one.pool, alike) for one in pool.rounds for alike in one.likeness]
    for below, colour, marker, name in ((True, BLUE, "o", "kept"), (False, VERMILLION, "x", "too like another")):
        some = [pair for pair in seen if (pair[1] < most) is below]
        ax.plot(*np.array(some).reshape(-1, 2).T, marker, markersize=4, color=colour, label=name, linestyle="")
    sizes = sorted({size for size, _ in seen})
    means = [np.mean([alike for at, alike in seen if at == size]) for size in sizes]
    ax.plot(sizes, means, "-", color=BLACK, linewidth=1, label="mean")
    ax.axhline(most, color=BLACK, linestyle=":", linewidth=1)
    ax.set(xlabel="tasks in the pool", ylabel="ROUGE-L to the nearest", title="What is new gets rare")
    ax.legend(loc="lower right")
    return ax
