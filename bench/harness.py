"""What every comparison shares: alternating runs in child processes, medians and spread, results with provenance.

A result is a JSON file in bench/results with a `title`, a `note` of one or two sentences and a `table` for the site,
beside whatever else was measured. An oracle's answers go to bench/golden with the seeds and hashes of their inputs.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

BENCH = Path(__file__).resolve().parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Subject:
    """Somebody to measure: `function` of the script `module` in bench/, under the interpreter `python`."""

    name: str
    module: str
    function: str
    python: str = sys.executable


def alternate(subjects: Sequence[Subject], arrays: Mapping[str, np.ndarray], rounds: int) -> dict[str, dict]:
    """Measure all subjects `rounds` times in turn, each time in a new process with one thread for linear algebra.

    Returns for each name the `spread` of seconds, cpu_seconds and added_mib, and the last result.
    """
    runs: dict[str, list[dict]] = {subject.name: [] for subject in subjects}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, **arrays)
        for _ in range(rounds):
            for subject in subjects:
                runs[subject.name].append(_run(subject, inputs))
    return {name: _summary(measured) for name, measured in runs.items()}


def _run(subject: Subject, inputs: Path) -> dict:
    answer = inputs.with_name("answer.json")
    command = [subject.python, str(BENCH / "child.py"), subject.module, subject.function, str(inputs), str(answer)]
    done = subprocess.run(
        command, env=os.environ | dict.fromkeys(THREADS, "1"), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{subject.name} failed:\n{done.stdout}{done.stderr}")
    return dict(json.loads(answer.read_text(encoding="utf-8")))


def _summary(runs: list[dict]) -> dict:
    measures = ("seconds", "cpu_seconds", "added_mib", "process_mib")
    spreads = {name: spread([run[name] for run in runs]) for name in measures}
    return spreads | {"rounds": len(runs), "result": runs[-1]["result"]}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": median(values), "least": min(values), "most": max(values)}


def row(name: str, measured: dict, *more: str) -> list[str]:
    """A subject's line in a table: name, seconds, CPU seconds, memory, and what else the comparison shows."""
    seconds, cpu, mib = measured["seconds"], measured["cpu_seconds"], measured["added_mib"]
    time = f"{seconds['median']:.2f} ({seconds['least']:.2f}–{seconds['most']:.2f})"
    return [name, time, f"{cpu['median']:.2f}", f"{mib['median']:,.0f}", *more]


COLUMNS = ["", "seconds, median (least–most)", "CPU seconds", "added peak memory, MiB"]


def machine(*packages: str) -> dict[str, object]:
    """What of the machine and the software a reader must know to compare figures."""
    from importlib.metadata import version

    versions = {name: version(name) for name in ("numpy", *packages)}
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": versions,
    }


def hashes(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """SHA-256 of each array's bytes, as little-endian float64 in C order."""
    from synthbook.core.storage import sha256

    return {name: sha256(np.ascontiguousarray(value, dtype="<f8").tobytes()) for name, value in arrays.items()}


def save(path: Path, content: dict, command: str, *, seed: int, source: str = "") -> None:
    """Write a result or golden file and its sidecar, and say where."""
    from synthbook.core.storage import Provenance, write_with_provenance

    source = source or "measured on the machine that the file describes"
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_with_provenance(path, text, Provenance(source=source, command=command, seed=seed))
    print(f"written to {path.relative_to(BENCH.parent)}")


def show(rows: list[list[str]], note: str) -> None:
    """Print a table and the note below it."""
    for line in rows:
        print(" | ".join(line))
    print(note)


def save_result(
    name: str, title: str, note: str, rows: list[list[str]], content: dict, *, command: str = "", seed: int = 0
) -> None:
    """Write bench/results/<name>.json; `rows` are the site's table, the first of them its heading.

    `command` is what measures it again, `make bench-<name>` unless another is named.
    """
    show(rows, note)
    table = {"columns": rows[0], "rows": rows[1:]}
    path = BENCH / "results" / f"{name}.json"
    save(path, {"title": title, "note": note, "table": table} | content, command or f"make bench-{name}", seed=seed)


def golden(name: str, cases: Sequence[dict], answer: Callable[..., dict], oracle: str, command: str) -> None:
    """Write bench/golden/<name>.json: for each case its recipe, the hashes of its inputs and the oracle's answer."""
    import inputs

    answered = []
    for case in cases:
        arrays = inputs.make(**case)
        answered.append({"inputs": case, "sha256": hashes(arrays), "answer": answer(**arrays)})
    content = {"oracle": oracle, "cases": answered}
    save(BENCH / "golden" / f"{name}.json", content, command, seed=0, source=f"computed by {oracle}")
