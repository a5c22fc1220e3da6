"""Calibrations: one experiment for many cases and seeds, a file each while they run, one table in the end.

A claim about trained models needs to know how far seeds differ. These tables say so; thresholds are set by them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synthbook.core.parallel import pmap
from synthbook.core.provenance import Provenance, write_described
from synthbook.core.shards import Plan, shard_paths

TABLE = "trials.json"


@dataclass(frozen=True)
class Trials:
    """`run(case, seed=k)` for every case and k = 0, ..., seeds - 1; it returns numbers by name, as plain JSON.

    `run` is a function of a module (or a `partial` of one), so that other processes find it.
    """

    run: Callable[..., Mapping[str, Any]]
    cases: tuple[str, ...]
    seeds: int

    @property
    def n(self) -> int:
        """How many trials."""
        return len(self.cases) * self.seeds

    def __call__(self, items: dict[int, np.random.SeedSequence]) -> bytes:
        """The trials of a shard as lines of JSON; item i is case i mod K of seed i div K."""
        lines = [self.run(self.cases[i % len(self.cases)], seed=i // len(self.cases)) for i in items]
        return "".join(json.dumps(line) + "\n" for line in lines).encode()


def calibrate(
    trials: Trials,
    out: Path,
    settings: Mapping[str, Any],
    origin: Provenance,
    *,
    jobs: int = 1,
    resume: bool = False,
    observe: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda message: None,
) -> Path:
    """Run what is missing in `out` and gather all into `out/trials.json`, whose path is returned.

    `settings` says what the trials depend on: a folder of other settings is refused.
    """
    plan = Plan(trials.n, 0, settings, shard_size=1, suffix=".jsonl")
    pmap(trials, plan, out, jobs=jobs, resume=resume, origin=origin, observe=observe, say=say)
    found = ",\n ".join(path.read_text().strip() for path in shard_paths(out))
    budget = json.dumps(settings.get("budget"))
    text = f'{{"command": "{origin.command}", "budget": {budget}, "trials": [\n {found}\n]}}\n'
    return write_described(out / TABLE, text, origin)


def read_trials(path: Path) -> pd.DataFrame:
    """A row for each trial, with the columns that its experiment returned."""
    return pd.DataFrame(json.loads(path.read_text())["trials"])
