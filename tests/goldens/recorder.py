"""What a golden is: a name, and the hash of bytes that were computed.

Of a JSON document its numbers are hashed by themselves as well: they stay when keys get new names.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HASHES = Path(__file__).with_name("hashes.json")
TIMES = ("seconds", "minutes", "peak_mib")  # keys whose values differ from run to run
# the kernels of the oldest processor, which every x86-64 processor runs: the same bits on all of them
ARITHMETIC = {
    "ATEN_CPU_CAPABILITY": "default",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Prescott",
} | dict.fromkeys(("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

Case = Callable[[Path], Mapping[str, Any]]
CASES: dict[str, Case] = {}


def golden(case: Case) -> Case:
    """Register a function that computes, in a folder of its own, values by name."""
    CASES[case.__name__] = case
    return case


def environment() -> dict[str, str]:
    """The environment in which goldens are computed."""
    return dict(os.environ) | ARITHMETIC | {"NO_COLOR": "1", "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"}


def hashes(folder: Path) -> dict[str, str]:
    """Compute every case below `folder`; its values as SHA-256 by "case/name"."""
    digests = {}
    for name, case in CASES.items():
        place = folder / name
        place.mkdir()
        for key, value in case(place).items():
            digests[f"{name}/{key}"] = digest(value)
            if isinstance(value, dict | list):
                digests[f"{name}/{key}, numbers"] = digest(json.dumps(sorted(numbers(value))))
        print(f"{name}: {len(digests)} hashes", file=sys.stderr)
    return digests


def digest(value: Any) -> str:
    """SHA-256 of bytes, text, an array, a frame or a JSON document."""
    if isinstance(value, pd.DataFrame):
        value = value.to_csv(index=False)
    elif hasattr(value, "detach"):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        value = f"{value.dtype} {value.shape} ".encode() + np.ascontiguousarray(value).tobytes()
    elif isinstance(value, dict | list):
        value = json.dumps(without_times(value), sort_keys=True)
    return hashlib.sha256(value if isinstance(value, bytes) else str(value).encode()).hexdigest()[:16]


def without_times(value: Any) -> Any:
    """The document without what a clock or a memory counter says."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if not any(t in key for t in TIMES)}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def numbers(value: Any) -> list[float]:
    """All numbers in a document."""
    if isinstance(value, dict | list):
        parts = without_times(value)
        return [n for inner in (parts.values() if isinstance(parts, dict) else parts) for n in numbers(inner)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []
