"""Generators of tables: CTGAN, TVAE and diffusion of ours against the ctgan package's CTGAN and TVAE, on Adult.

All learn from the same 20,000 rows at their default settings, one after the other, each in a process of its own with
one or two threads, whichever a short trial found quicker for it. All write as many rows, which are judged here: by a
classifier that learns from them and is tested on the real test file, and by their nearness to the training rows.

Each run is kept in build/bench-ctgan and not made again, unless the code of our model has changed since or `--anew`
names its subject: `make bench-ctgan ARGS="--anew tvae"`. Nothing else should run on the machine meanwhile. Writes
bench/results/ctgan.json; `--quick` tries everything with few steps and rows instead, and writes no result.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import harness
import numpy as np
from judge_table import Judge, as_table

from synthbook.core.storage import sha256_file
from synthbook.core.table import Holdout
from synthbook.datasets import adult

ROOT = harness.BENCH.parent
NAMES = {
    "ctgan": "synthbook's CTGAN",
    "tvae": "synthbook's TVAE",
    "diffusion": "synthbook's diffusion",
    "peer-ctgan": "ctgan's CTGAN",
    "peer-tvae": "ctgan's TVAE",
}
MATCHES = {"ctgan": "peer-ctgan", "tvae": "peer-tvae", "diffusion": "peer-ctgan"}
TWICE = ("ctgan", "tvae", "diffusion", "peer-tvae")  # fitted again with the first seed
SUMMED = ("fit_seconds", "sample_seconds", "added_mib", "process_mib", "auc", "f1")
EPOCHS = 300  # the peers' default
THREADS = (1, 2)  # to choose from
TRIAL = "-trial"


@dataclass(frozen=True)
class Plan:
    """What is measured: rows to learn from and to draw, rows judged for novelty, budgets, and where runs are kept."""

    rows: int
    judged: int
    epochs: int
    steps: int | None  # None: each family's own
    folder: Path
    trials: dict[bool, tuple[int, int]]  # by whether it is a peer: two short budgets

    def budget(self, name: str) -> int:
        """Steps of ours, epochs of a peer."""
        from synthbook.generators import registry

        return self.epochs if is_peer(name) else self.steps or registry.get(name)().config.steps


FULL = Plan(20_000, 5_000, EPOCHS, None, ROOT / "build" / "bench-ctgan", {False: (10, 510), True: (1, 11)})
QUICK = Plan(2_000, 500, 2, 20, ROOT / "build" / "bench-ctgan-quick", {False: (1, 5), True: (1, 2)})


def is_peer(name: str) -> bool:
    return name.startswith("peer-")


# ── runs, each kept ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Runs:
    """Runs in a plan's folder, made where they are missing; `sitting` is when this one began."""

    plan: Plan
    python: str
    train: Path
    sitting: str

    def run(self, name: str, *, seed: int, threads: int, budget: int, again: str = "") -> dict[str, Any]:
        """What `fit_table.py` measured; its rows are in the file `rows`."""
        stem = self.plan.folder / f"{name}-seed{seed}-threads{threads}-budget{budget}{again}"
        rows = self.plan.rows if again != TRIAL else self.plan.judged
        task = {"name": name, "seed": seed, "threads": threads, "budget": budget, "rows": rows}
        task |= {"train": sha256_file(self.train), "sitting": self.sitting}
        if not is_current(stem, task):
            print(f"{stem.name} ...", flush=True)
            self._make(stem, task)
        return dict(json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))) | {"rows": f"{stem}.csv"}

    def _make(self, stem: Path, task: dict[str, Any]) -> None:
        stem.with_suffix(".json").unlink(missing_ok=True)
        python = self.python if is_peer(task["name"]) else sys.executable
        command = [python, str(harness.BENCH / "fit_table.py"), json.dumps(task), str(self.train), str(stem)]
        environment = os.environ | dict.fromkeys(harness.THREADS, str(task["threads"]))
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{stem.name} failed:\n{done.stdout}{done.stderr}")

    def threads(self, name: str) -> dict[int, float]:
        """Seconds that a whole fit would take with one thread and with two, from two short budgets each."""
        short, longer = self.plan.trials[is_peer(name)]
        expected = {}
        for threads in THREADS:
            first, second = (
                self.run(name, seed=0, threads=threads, budget=budget, again=TRIAL)["measured"]["fit"]["seconds"]
                for budget in (short, longer)
            )
            expected[threads] = first + (second - first) / (longer - short) * (self.plan.budget(name) - short)
        return expected


def is_current(stem: Path, task: dict[str, Any]) -> bool:
    """Whether a run of this task was made before, in whatever sitting, by code that is still the same."""
    try:
        found = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    same = found["task"] | {"sitting": ""} == task | {"sitting": ""}
    return same and all((ROOT / f).exists() and sha256_file(ROOT / f) == h for f, h in found["sources"].items())


# ── what came of it ──────────────────────────────────────────────────────────────────────────────────────────────────


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Spreads over seeds; `middle` is the run whose AUC is in the middle, the lower one of two."""
    flat = []
    for run in runs:
        m, s = run["measured"], run["scores"]["synthetic"]
        times = {f"{work}_seconds": m[work]["seconds"] for work in ("fit", "sample")}
        flat.append(times | {k: m[k] for k in ("added_mib", "process_mib")} | {k: s[k][0] for k in ("auc", "f1")})
    middle = sorted(range(len(runs)), key=lambda i: flat[i]["auc"])[(len(runs) - 1) // 2]
    spreads = {key: harness.spread([one[key] for one in flat]) for key in SUMMED}
    kept = [{"seed": r["task"]["seed"], "sitting": r["task"]["sitting"], **r["measured"], **r["scores"]} for r in runs]
    return spreads | {"middle": middle, "runs": kept}


def against(ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """Ratios of medians, and whether our AUC comes up to the interval of the peer's."""
    auc, theirs = (one["runs"][one["middle"]]["synthetic"]["auc"] for one in (ours, peer))
    ratios = {key: ours[key]["median"] / peer[key]["median"] for key in SUMMED[:4]}
    return ratios | {"auc": auc, "peer_auc": theirs, "reached": auc[0] >= theirs[1]}


COLUMNS = [
    "",
    "threads",
    "fit, seconds, median (least–most)",
    "draw, seconds, median (least–most)",
    "added peak memory, MiB",
    "fit time and memory, of the peer's",
    "AUC (95 %)",
    "F1 (95 %)",
    "share nearer to training rows (band)",
]


def table(subjects: dict[str, Any], matched: dict[str, Any]) -> list[list[str]]:
    """A line for each subject, and one for a classifier that learns from the real rows."""
    lines = [COLUMNS]
    for name, found in subjects.items():
        middle, m = found["runs"][found["middle"]], matched.get(name)
        near = middle["novelty"]
        lines.append(
            [
                NAMES[name],
                str(found["threads"]),
                *(f"{s['median']:,.1f} ({s['least']:,.1f}–{s['most']:,.1f})" for s in (found[k] for k in SUMMED[:2])),
                f"{found['added_mib']['median']:,.0f}",
                f"{m['fit_seconds']:.2f}, {m['added_mib']:.2f}" if m else "",
                *(interval(middle["synthetic"][score]) for score in ("auc", "f1")),
                interval([near[key] for key in ("share", "low", "high")]),
            ]
        )
    real = subjects["ctgan"]["runs"][0]["real"]
    return [*lines, ["the real rows", *[""] * 5, *(interval(real[score]) for score in ("auc", "f1")), ""]]


def interval(values: list[float]) -> str:
    return f"{values[0]:.3f} ({values[1]:.3f}–{values[2]:.3f})"


def told(subjects: dict[str, Any], same: dict[str, bool], sittings: list[str]) -> str:
    """The sentences below the table."""
    text = (
        "Gradient boosting learns from the rows drawn and is tested on the real test file; of several seeds, the one"
        " with the middle AUC is shown. Numbers out of bounds were moved onto the bound. Diffusion is held against"
        " the peer's CTGAN."
    )
    for is_same, what in ((True, "the same rows, byte for byte"), (False, "other rows")):
        if names := [NAMES[name] for name in same if same[name] is is_same]:
            text += f" Fitted again with the same seed, {', '.join(names)} gave {what}."
    peers = [run for name, found in subjects.items() if is_peer(name) for run in found["runs"]]
    if beside := max(run["fit"]["helpers"]["mib"] for run in peers):
        text += f" Processes that a peer starts beside its own hold up to {beside:,.0f} MiB more, not counted here."
    return text + (f" The runs were made in {len(sittings)} sittings, not in one." if len(sittings) > 1 else "")


def measured(runs: Runs, judge: Judge, name: str, seeds: int) -> tuple[dict[str, Any], bool | None]:
    """A subject's summary, and whether a second fit gave the same rows (None: not tried)."""
    expected = runs.threads(name)
    how: dict[str, Any] = {"threads": min(expected, key=lambda n: expected[n]), "budget": runs.plan.budget(name)}
    made = [runs.run(name, seed=seed, **how) for seed in range(seeds)]
    same = None
    if name in TWICE:
        again = runs.run(name, seed=0, again="-again", **how)
        same = sha256_file(made[0]["rows"]) == sha256_file(again["rows"])
    judged = [run | {"scores": judge(run["rows"])} for run in made]
    return how | {"expected_seconds": expected, "packages": made[0]["packages"]} | summary(judged), same


def main() -> None:
    options = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a fit does not outlive this
    plan = QUICK if options.quick else FULL
    plan.folder.mkdir(parents=True, exist_ok=True)
    for file in [file for name in options.anew for file in plan.folder.glob(f"{name}-seed*")]:
        file.unlink()
    data, train = adult(), plan.folder / "train.csv"
    whole = data.train.frame
    rows = whole.iloc[np.sort(np.random.default_rng(0).choice(len(whole), plan.rows, replace=False))]
    rows.to_csv(train, index=False, na_rep="?", lineterminator="\n")
    runs = Runs(plan, options.python, train, datetime.now(UTC).isoformat(timespec="seconds"))
    judge = Judge(as_table(rows), Holdout(as_table(data.test.data.frame)), plan.judged)
    found = {n: measured(runs, judge, n, options.peer_seeds if is_peer(n) else options.seeds) for n in NAMES}

    subjects = {name: subject for name, (subject, _) in found.items()}
    same = {name: is_same for name, (_, is_same) in found.items() if is_same is not None}
    matched = {name: against(subjects[name], subjects[peer]) for name, peer in MATCHES.items()}
    sittings = sorted({run["sitting"] for subject in subjects.values() for run in subject["runs"]})
    machine = harness.machine("torch", "scikit-learn", "pandas")
    machine["packages"] |= {p: subjects["peer-ctgan"]["packages"][p] for p in ("ctgan", "rdt")}
    lines, note = table(subjects, matched), told(subjects, same, sittings)
    if options.quick:
        return harness.show(lines, note)
    result = {"rows": plan.rows, "epochs": plan.epochs, "subjects": subjects, "against": matched}
    result |= {"same_rows": same, "sittings": sittings, "machine": machine}
    title = f"Generators of tables, fitted to {plan.rows:,} rows of Adult; ctgan with its defaults"
    harness.save_result("ctgan", title, note, lines, result, seed=0)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("python", help="the Python of the environment with ctgan")
    parser.add_argument("--seeds", type=int, default=3, help="fits of each family of ours")
    parser.add_argument("--peer-seeds", type=int, default=1, help="fits of each peer")
    parser.add_argument("--anew", action="append", default=[], choices=NAMES, help="make this subject's runs again")
    parser.add_argument("--quick", action="store_true", help="few steps and rows, and no result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
