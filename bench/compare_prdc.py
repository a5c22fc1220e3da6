"""Precision, recall, density and coverage: ours against the prdc package, on the same rows.

Writes bench/results/prdc.json and bench/golden/prdc.json; with --large bench/results/prdc-large.json.
"""

from __future__ import annotations

import sys

import harness
import inputs
import numpy as np

SCORES = ("precision", "recall", "density", "coverage")
SEED, ROUNDS, N, D, K = 0, 7, 5_000, 64, 5
LARGE = 50_000
GOLDEN = [
    {"seed": 1, "n": 1000, "m": 700, "d": 8},
    {"seed": 2, "n": 400, "m": 1000, "d": 2, "shift": 0.25},
    {"seed": 3, "n": 600, "m": 600, "d": 32, "width": 0.5},
    {"seed": SEED, "n": N, "m": N, "d": D},
]


def ours(real: np.ndarray, synthetic: np.ndarray) -> dict:
    from synthbook.evaluation.prdc import prdc

    scores = prdc(synthetic, real=real, k=K)
    return {name: getattr(scores, name) for name in SCORES}


def peer(real: np.ndarray, synthetic: np.ndarray) -> dict:
    from prdc import compute_prdc

    scores = compute_prdc(real, synthetic, nearest_k=K)
    return {name: float(scores[name]) for name in SCORES}


def main() -> None:
    subjects = [harness.Subject("synthbook", "compare_prdc", "ours"), harness.Subject("prdc", "compare_prdc", "peer")]
    measured = harness.alternate(subjects, inputs.make(SEED, N, N, D), ROUNDS)
    us, them = (measured[subject.name] for subject in subjects)
    difference = max(abs(us["result"][name] - them["result"][name]) for name in SCORES)
    ratio = {key: us[key]["median"] / them[key]["median"] for key in ("seconds", "cpu_seconds", "added_mib")}
    note = (
        f"The largest difference between the scores is {difference:.1g}. Time is {ratio['seconds']:.2f} of prdc's,"
        f" added memory {ratio['added_mib']:.2f}."
    )
    rows = [harness.COLUMNS + list(SCORES)]
    rows += [harness.row(name, m, *(f"{m['result'][s]:.4f}" for s in SCORES)) for name, m in measured.items()]
    content = {
        "n": N,
        "m": N,
        "d": D,
        "k": K,
        "measured": measured,
        "difference": difference,
        "ratio": ratio,
        "machine": harness.machine("prdc", "scikit-learn", "scipy"),
    }
    harness.save_result("prdc", f"PRDC of {N:,} × {N:,} rows, d = {D}, k = {K}", note, rows, content, seed=SEED)
    from importlib.metadata import version

    harness.golden("prdc", GOLDEN, peer, f"prdc {version('prdc')}, k = {K}", "make bench-prdc")


def large() -> None:
    subjects = [harness.Subject("synthbook", "compare_prdc", "ours")]
    us = harness.alternate(subjects, inputs.make(SEED, LARGE, LARGE, D), 1)["synthbook"]
    needed = 3 * LARGE**2 * 8 / 2**30
    note = (
        f"Peak memory of the whole process was {us['process_mib']['median']:,.0f} MiB. prdc did not run: its three"
        f" matrices alone take {needed:.0f} GiB."
    )
    rows = [harness.COLUMNS + list(SCORES)]
    rows += [harness.row("synthbook", us, *(f"{us['result'][s]:.4f}" for s in SCORES))]
    content = {"n": LARGE, "m": LARGE, "d": D, "k": K, "measured": us, "machine": harness.machine("scipy")}
    harness.save_result(
        "prdc-large", f"PRDC of {LARGE:,} × {LARGE:,} rows, d = {D}, k = {K}", note, rows, content, seed=SEED
    )


if __name__ == "__main__":
    large() if "--large" in sys.argv[1:] else main()
