"""What a run is asked to do, and what becomes of each notebook in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from synthbook.course import notebook as nb

Status = Literal["waiting", "running", "done", "unchanged", "failed", "interrupted"]


@dataclass(frozen=True)
class Settings:
    """How to run. `cell_timeout` is in seconds; None means 600 in the quick profile and no limit in the full one."""

    jobs: int | None = None
    profile: Literal["quick", "full"] = "quick"
    force: bool = False
    update: bool = False
    cell_timeout: float | None = None

    @property
    def seconds_per_cell(self) -> float | None:
        """The time limit that holds for each cell."""
        if self.cell_timeout is not None:
            return self.cell_timeout
        return 600.0 if self.profile == "quick" else None


@dataclass(frozen=True)
class Failure:
    """Why a notebook did not succeed; `cell` counts code cells from 1, 0 when no cell is to blame."""

    reason: str
    cell: int = 0
    source: str = ""
    traceback: str = ""


@dataclass
class Job:
    """One notebook on its way through a run. Times are in seconds, memory in MiB."""

    source: Path
    status: Status = "waiting"
    cell: int = 0
    cells: int = 0
    started: float = 0.0
    seconds: float = 0.0
    peak_mib: int = 0
    failure: Failure | None = None
    notebook: nb.Notebook = field(default_factory=dict, repr=False)
    read_as: bytes = field(default=b"", repr=False)
    fingerprint: str = ""

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.source.stem


Observer = Callable[[Job], None]  # called whenever a job changed
