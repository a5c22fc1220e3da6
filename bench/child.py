"""One measured call in a process of its own: `child.py MODULE FUNCTION INPUTS.npz ANSWER.json`.

Imports and a call on the first rows come before the clock starts, so that what is measured is the work. Memory is the
peak while the call runs, less what the process held before it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import resource
import sys
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

WARM_UP = 64  # rows


def main(module: str, function: str, inputs: str, answer: str) -> None:
    call = getattr(importlib.import_module(module), function)
    with np.load(inputs, allow_pickle=False) as stored:
        arrays = dict(stored)
    call(**{name: value[:WARM_UP] if value.ndim else value for name, value in arrays.items()})
    held = forget_peak()
    wall, cpu = perf_counter(), process_time()
    result = call(**arrays)
    wall, cpu = perf_counter() - wall, process_time() - cpu
    measured = {"seconds": wall, "cpu_seconds": cpu, "added_mib": peak() - held, "process_mib": peak()}
    Path(answer).write_text(json.dumps(measured | {"result": result}), encoding="utf-8")


def forget_peak() -> float:
    """Start the record of the peak anew where the system can (Linux); return the memory held, in MiB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak()


def peak() -> float:
    """Peak resident memory in MiB. Linux's own record of this process: ru_maxrss may still hold the parent's."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return float(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    main(*sys.argv[1:])
