"""Every notebook under the arithmetic of other machines: does each output come out as it is committed?

Libraries choose their kernels by processor, and each kernel adds numbers in an order of its own. Environment variables
make them choose as they would elsewhere. For each combination a probe hashes what the libraries compute (so that one
sees whether bits changed at all), then all notebooks run and are compared, then the quick unit tests of sections 3, 5
and 6, and under one combination the slow ones as well.
What is done stays in build/machines: a notebook runs again once it, or code that it imports, has changed.

Writes bench/results/machines.json, in which combinations that were not run now keep their last result: machines differ
in what they can show. Run it with `make test-machines`, or one combination with `--only old`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import harness

from synthbook.core.storage import atomic_write, sha256, sha256_file
from synthbook.course import notebook as nb
from synthbook.course.notebook import fingerprint
from synthbook.course.project import Project

ROOT = harness.BENCH.parent
STATE = ROOT / "build" / "machines"
UNITS_NAME = "units"
UNITS = ("tests/generators", "tests/privacy", "tests/evaluation")
COMPARE = ("--nbval", "--nbval-current-env", "--nbval-sanitize-with", "tests/notebooks/sanitize.cfg")
WORKERS = ("-n", "logical", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder")
OLD_NUMPY = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"
OLD_LIBM = "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4"
VARIABLES = (
    "OPENBLAS_CORETYPE",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
    "NPY_DISABLE_CPU_FEATURES",
    "GLIBC_TUNABLES",
)


@dataclass(frozen=True)
class Machine:
    """A combination of settings; `needs` is the processor flag without which they have no effect.

    `slow_units` says that the slow unit tests run as well.
    """

    name: str
    about: str
    settings: dict[str, str] = field(default_factory=dict)
    busy: bool = False
    slow_units: bool = False
    needs: str = ""


MACHINES = (
    Machine("as-is", "this machine as it is"),
    Machine(
        "busy",
        "PyTorch without vectors, and a process beside it that never rests",
        {"ATEN_CPU_CAPABILITY": "default"},
        busy=True,
    ),
    Machine(
        "old",
        "no AVX at all, as in 2009",
        {
            "OPENBLAS_CORETYPE": "Nehalem",
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
            "NPY_DISABLE_CPU_FEATURES": OLD_NUMPY,
            "GLIBC_TUNABLES": OLD_LIBM,
        },
        slow_units=True,
    ),
    Machine(
        "sandybridge",
        "AVX without AVX2 in linear algebra, convolutions and PyTorch",
        {
            "OPENBLAS_CORETYPE": "Sandybridge",
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "AVX",
            "MKL_CBWR": "AVX",
        },
    ),
    Machine(
        "haswell",
        "AVX2, MKL in its most compatible mode",
        {
            "OPENBLAS_CORETYPE": "Haswell",
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "MKL_CBWR": "COMPATIBLE",
        },
    ),
    Machine(
        "zen",
        "AMD's kernels, convolutions and functions without AVX2",
        {
            "OPENBLAS_CORETYPE": "Zen",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "NPY_DISABLE_CPU_FEATURES": OLD_NUMPY,
            "GLIBC_TUNABLES": OLD_LIBM,
        },
    ),
    Machine(
        "generic",
        "the slowest kernels there are, PyTorch without vectors",
        {
            "OPENBLAS_CORETYPE": "Prescott",
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_CBWR": "COMPATIBLE",
        },
    ),
    Machine(
        "skylakex",
        "AVX-512 everywhere",
        {"OPENBLAS_CORETYPE": "SkylakeX", "ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
        needs="avx512f",
    ),
)

PROBE = """
import hashlib, json, math
import numpy as np, scipy.linalg, torch

def short(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()[:12]

torch.set_num_threads(1)
rng = np.random.default_rng(0)
a, b = rng.normal(size=(2, 257, 257))
x = torch.from_numpy(rng.normal(size=(16, 3, 16, 16)).astype("float32"))
shapes = ((8, 3, 3, 3), (8, 1))
weights = [torch.from_numpy(0.1 * rng.normal(size=s).astype("float32")).requires_grad_() for s in shapes]
hidden = torch.nn.functional.silu(torch.nn.functional.conv2d(x, weights[0], padding=1)).mean((2, 3))
(hidden @ weights[1]).square().mean().backward()
print(json.dumps({
    "BLAS product": short(a @ b, a.astype("float32") @ b.astype("float32")),
    "eigenvalues": short(scipy.linalg.eigvalsh(a @ a.T)),
    "training step in float32": short(*(w.grad.numpy() for w in weights)),
    "functions": short(np.exp(a), np.log1p(np.abs(b)), a.sum(0), np.array([math.exp(v) for v in a[0]])),
}))
"""


def main() -> int:
    arguments = _arguments()
    machines = [m for m in MACHINES if m.name in (arguments.only or [m.name for m in MACHINES])]
    results = {}
    for machine in machines:
        if machine.needs and machine.needs not in _cpuinfo("flags").split():
            print(f"{machine.name}: left out, this processor has no {machine.needs}")
            continue
        if machine.settings and not machine.busy and _hashes(machine) == _hashes(MACHINES[0]):
            print(f"{machine.name}: left out, its bits are those of this machine as it is")
            continue
        results[machine.name] = _result(machine, units=arguments.units, force=arguments.force)
        print(f"{machine.name}: {_line(results[machine.name])}", flush=True)
    _save(results)
    return int(any(part["failed"] for result in results.values() for part in _parts(result)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[m.name for m in MACHINES], help="these combinations")
    parser.add_argument("--no-units", dest="units", action="store_false", help="the notebooks alone")
    parser.add_argument("--force", action="store_true", help="run again what was done")
    return parser.parse_args()


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def _result(machine: Machine, *, units: bool, force: bool) -> dict:
    """Probe, notebooks and unit tests of one combination; what an earlier run left of it, while nothing has changed."""
    path = STATE / f"{machine.name}.json"
    state = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and not force else {}
    env = _environment(machine)
    state["hashes"] = _hashes(machine)
    inputs, finished = _inputs(units), state.setdefault("finished", {})
    waiting = [name for name in inputs if finished.get(name, {}).get("inputs") != inputs[name]]
    notebooks = [f"notebooks/{name}" for name in waiting if name != UNITS_NAME]
    with _beside(machine.busy):
        unit_tests = UNITS if machine.slow_units else (*UNITS, "-m", "not slow")
        for part, arguments in (("notebooks", (*COMPARE, *notebooks)), (UNITS_NAME, unit_tests)):
            if notebooks if part == "notebooks" else UNITS_NAME in waiting:
                for name, outcome in _pytest(machine.name, part, arguments, env).items():
                    finished[name] = outcome | {"inputs": inputs[name]}
                atomic_write(path, json.dumps(state, indent=1))
    parts = {"notebooks": [name for name in inputs if name != UNITS_NAME]} | ({"units": [UNITS_NAME]} if units else {})
    return {"hashes": state["hashes"]} | {part: _sum([finished[n] for n in names]) for part, names in parts.items()}


def _environment(machine: Machine) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES} | machine.settings
    return env | dict.fromkeys(harness.THREADS, "1") | {"SYNTHBOOK_REQUIRE": os.environ.get("SYNTHBOOK_REQUIRE", "")}


@cache
def _bits(name: str) -> str:
    machine = next(machine for machine in MACHINES if machine.name == name)
    command = [sys.executable, "-W", "ignore", "-c", PROBE]
    return subprocess.run(command, env=_environment(machine), capture_output=True, text=True, check=True).stdout


def _hashes(machine: Machine) -> dict[str, str]:
    """What the libraries compute under a combination, as hashes."""
    hashes: dict[str, str] = json.loads(_bits(machine.name))
    return hashes


def _inputs(units: bool) -> dict[str, str]:
    """For each notebook, and for the unit tests, the SHA-256 of what decides the outcome."""
    project, inputs = Project(ROOT), {}
    comparing = [sha256_file(ROOT / f"synthbook/course/{name}.py") for name in ("comparison", "pytest_plugin")]
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        document = nb.read(path)
        cells = json.dumps([[cell["source"], cell.get("outputs")] for cell in document["cells"]], sort_keys=True)
        inputs[path.name] = sha256(f"{fingerprint(document, project, profile='quick')} {comparing} {cells}".encode())
    if units:
        paths = sorted(
            p for pattern in ("synthbook/**/*.py", "tests/**/*.py", "constraints.txt") for p in ROOT.glob(pattern)
        )
        inputs[UNITS_NAME] = sha256("\n".join(f"{p.relative_to(ROOT)} {sha256_file(p)}" for p in paths).encode())
    return inputs


def _sum(outcomes: list[dict]) -> dict:
    return {
        "passed": sum(outcome["passed"] for outcome in outcomes),
        "failed": [name for outcome in outcomes for name in outcome["failed"]],
        "seconds": round(sum(outcome["seconds"] for outcome in outcomes)),
    }


@contextmanager
def _beside(busy: bool) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def _pytest(machine: str, part: str, arguments: tuple[str, ...], env: dict[str, str]) -> dict[str, dict]:
    """Run pytest; by notebook, or for all unit tests, how many passed, which failed, and the seconds they took."""
    report, log = STATE / f"{machine}-{part}.xml", STATE / f"{machine}-{part}.log"
    STATE.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)  # that of an earlier run says nothing of this one
    command = [sys.executable, "-m", "pytest", *WORKERS, "-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
    with log.open("w", encoding="utf-8") as words:
        subprocess.run(command, cwd=ROOT, env=env, stdout=words, stderr=subprocess.STDOUT, check=False)
    if not report.is_file():
        raise SystemExit(f"{machine}: pytest ended without a report; read {log.relative_to(ROOT)}, then run this again")
    outcomes: dict[str, dict] = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        name = str(case.get("classname"))
        key = name.removeprefix("notebooks.") if part == "notebooks" else UNITS_NAME
        outcome = outcomes.setdefault(key, {"passed": 0, "failed": [], "seconds": 0.0})
        outcome["seconds"] += float(case.get("time") or 0)
        if _fails(case):
            outcome["failed"].append(f"{name} {case.get('name')}")
        else:
            outcome["passed"] += 1
    return outcomes


def _fails(case: ET.Element) -> bool:
    return case.find("failure") is not None or case.find("error") is not None


def _parts(result: dict) -> list[dict]:
    return [result[part] for part in ("notebooks", "units") if part in result]


def _line(result: dict) -> str:
    counts = ", ".join(
        f"{len(part['failed'])} of {part['passed'] + len(part['failed'])} failed" for part in _parts(result)
    )
    return "; ".join([counts, *(name for part in _parts(result) for name in part["failed"])])


def _save(new: dict[str, dict]) -> None:
    path, processor = harness.BENCH / "results" / "machines.json", _cpuinfo("model name")
    old = json.loads(path.read_text(encoding="utf-8"))["combinations"] if path.is_file() else {}
    results = {
        machine.name: old.get(machine.name, {})
        | ({"processor": processor} | new[machine.name] if machine.name in new else {})
        for machine in MACHINES
        if machine.name in old.keys() | new.keys()
    }
    by_name = {machine.name: machine for machine in MACHINES}
    distinct = {tuple(result["hashes"].values()) for result in results.values()}
    rows = [["", "settings", "processor", "training step in float32", "BLAS product", "cells that agree", "unit tests"]]
    for name, result in results.items():
        settings = " ".join(f"`{key}={value}`" for key, value in by_name[name].settings.items())
        counts = [f"{part['passed']} of {part['passed'] + len(part['failed'])}" for part in _parts(result)]
        counts += ["not run"] * (2 - len(counts))
        hashes = [f"`{result['hashes'][probe]}`" for probe in ("training step in float32", "BLAS product")]
        rows.append([f"{name}: {by_name[name].about}", settings or "none", result["processor"], *hashes, *counts])
    note = f"{len(results)} combinations, {len(distinct)} different sets of bits. Equal hashes mean the same bits."
    content = {
        "machine": harness.machine("scipy", "torch", "nbval"),
        "combinations": results,
        "distinct": len(distinct),
    }
    harness.save_result("machines", "The book on other machines", note, rows, content, command="make test-machines")


if __name__ == "__main__":
    sys.exit(main())
