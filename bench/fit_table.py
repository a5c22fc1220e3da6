"""One generator of tables, fitted and drawn from once in a process of its own: `fit_table.py TASK TRAIN STEM`.

TASK, in JSON, names the subject, its `seed`, `threads` and `budget` (steps, or epochs of a peer), and how many `rows`
to draw. TRAIN is the CSV file to learn from, in which "?" stands for a missing value. Writes STEM.csv, the rows drawn,
then STEM.json, what was measured. Imports and a tiny fit come before the clock starts. Memory is the peak while fitting
and drawing, less what the process held before; that of other processes that it started is told apart.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import threading
from collections.abc import Callable
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from child import forget_peak, peak

ROOT = Path(__file__).resolve().parents[1]
OURS = {"ctgan": "CTGAN", "tvae": "TVAE", "diffusion": "TabDDPM"}
PEERS = {"peer-ctgan": "CTGAN", "peer-tvae": "TVAE"}
WARM_UP = 1_000  # rows


class Ours:
    """A family of this package, at its default settings."""

    packages = ("torch", "numpy", "pandas")

    def __init__(self, name: str, budget: int):
        module = importlib.import_module(f"synthbook.generators.tabular.{name}")
        self.model, self.budget = getattr(module, OURS[name])(), budget

    @staticmethod
    def table(frame: pd.DataFrame) -> Any:
        from synthbook.core.table import Table
        from synthbook.datasets import load_schema

        return Table(frame.mask(frame == "?"), load_schema("adult"))

    def fit(self, table: Any, seed: int) -> None:
        self.model.fit(table, seed=seed, steps=self.budget)

    def sample(self, n: int, seed: int) -> pd.DataFrame:
        return self.model.sample(n, seed=np.random.SeedSequence([seed, 1])).frame


class Peer:
    """A synthesiser of the ctgan package, at its default settings; it takes no missing values, so "?" is a category."""

    packages = ("ctgan", "rdt", "torch", "numpy", "pandas")

    def __init__(self, name: str, budget: int):
        self.model = getattr(importlib.import_module("ctgan"), PEERS[name])(epochs=budget, enable_gpu=False)

    @staticmethod
    def table(frame: pd.DataFrame) -> pd.DataFrame:
        return frame

    def fit(self, table: pd.DataFrame, seed: int) -> None:
        self.model.set_random_state(seed)
        self.model.fit(table, [name for name in table.columns if table[name].dtype == object])

    def sample(self, n: int, seed: int) -> pd.DataFrame:
        return self.model.sample(n)


def main(task: dict[str, Any], train: Path, stem: Path) -> None:
    torch.set_num_threads(task["threads"])
    name, seed, kind = task["name"], task["seed"], Ours if task["name"] in OURS else Peer
    frame = pd.read_csv(train, keep_default_na=False)
    warm = kind(name, 1)
    warm.fit(kind.table(frame[:WARM_UP]), seed)
    warm.sample(WARM_UP, seed)
    del warm
    subject, table = kind(name, task["budget"]), kind.table(frame)
    held = forget_peak()
    with Helpers() as helpers:
        _, fitting = timed(lambda: subject.fit(table, seed))
    fitting |= {"added_mib": peak() - held, "helpers": helpers.seen}
    drawn, drawing = timed(lambda: subject.sample(task["rows"], seed))
    measured = {"fit": fitting, "sample": drawing, "added_mib": peak() - held, "process_mib": peak()}
    drawn.to_csv(stem.with_suffix(".csv"), index=False, na_rep="?", lineterminator="\n")
    packages = {package: version(package) for package in kind.packages}
    answer = {"task": task, "measured": measured, "packages": packages, "sources": sources()}
    stem.with_suffix(".json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


class Helpers:
    """Other processes that this one started: how many at once, their memory together, their CPU seconds meanwhile."""

    def __init__(self) -> None:
        self.cpu: dict[int, float] = {}
        self.most, self.mib, self.over = 0, 0.0, threading.Event()
        self.look()
        self.before = sum(self.cpu.values())

    def __enter__(self) -> Helpers:
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def watch(self) -> None:
        while not self.over.wait(0.5):
            self.look()
        self.look()

    def look(self) -> None:
        held = []
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                self.cpu[child.pid] = sum(child.cpu_times()[:2])
                held.append(child.memory_full_info().uss / 2**20)  # what it shares with nobody
        self.most, self.mib = max(self.most, len(held)), max(self.mib, sum(held))

    @property
    def seen(self) -> dict[str, float]:
        return {"most": self.most, "mib": self.mib, "cpu_seconds": sum(self.cpu.values()) - self.before}


def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What a call returns, and the seconds that it took."""
    wall, cpu = perf_counter(), process_time()
    result = call()
    return result, {"seconds": perf_counter() - wall, "cpu_seconds": process_time() - cpu}


def sources() -> dict[str, str]:
    """SHA-256 of the files of our models that are loaded, by path: they decide how a model is fitted."""
    loaded = [module.__file__ for name, module in sys.modules.items() if name.startswith("synthbook.generators")]
    return {
        str(Path(f).relative_to(ROOT)): sha256(Path(f).read_bytes()).hexdigest() for f in sorted(filter(None, loaded))
    }


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
