"""The Fréchet distance on given features: ours against torchmetrics' formula, with the same moments in float64.

Writes bench/results/frechet.json and bench/golden/frechet.json.
"""

from __future__ import annotations

import harness
import inputs
import numpy as np

SEED, ROUNDS = 0, 7
CASES = [
    {"seed": SEED, "n": 5000, "m": 5000, "d": 64, "shift": 0.05, "width": 0.9},
    {"seed": SEED, "n": 5000, "m": 5000, "d": 512},
]
GOLDEN = [
    {"seed": 1, "n": 1000, "m": 700, "d": 8},
    {"seed": 2, "n": 400, "m": 1000, "d": 2, "shift": 0.25},
    {"seed": 3, "n": 600, "m": 600, "d": 32, "width": 0.5},
    CASES[0],
]


def ours(real: np.ndarray, synthetic: np.ndarray) -> dict:
    from synthbook.evaluation.frechet import frechet_distance

    return {"distance": frechet_distance(real, synthetic)}


def peer(real: np.ndarray, synthetic: np.ndarray) -> dict:
    import torch
    from torchmetrics.image.fid import _compute_fid

    torch.set_num_threads(1)
    moments = []
    for x in map(torch.from_numpy, (real, synthetic)):
        moments += [x.mean(dim=0), torch.cov(x.T)]  # over N - 1, as torchmetrics does from its running sums
    return {"distance": float(_compute_fid(*moments))}


def main() -> None:
    from importlib.metadata import version

    subjects = [
        harness.Subject("synthbook", "compare_frechet", "ours"),
        harness.Subject("torchmetrics", "compare_frechet", "peer"),
    ]
    rows, results = [["d", *harness.COLUMNS, "distance"]], []
    for case in CASES:
        measured = harness.alternate(subjects, inputs.make(**case), ROUNDS)
        us, them = (measured[subject.name]["result"]["distance"] for subject in subjects)
        results.append({"inputs": case, "measured": measured, "relative_difference": abs(us - them) / them})
        for name, m in measured.items():
            rows.append([str(case["d"]), *harness.row(name, m, f"{m['result']['distance']:.6f}")])
    worst = max(result["relative_difference"] for result in results)
    note = (
        f"Both take N - 1 covariances of the same 5,000 × 5,000 rows. The largest relative difference is {worst:.1g}."
    )
    content = {"cases": results, "relative_difference": worst, "machine": harness.machine("torch", "torchmetrics")}
    harness.save_result("frechet", "Fréchet distance on given features", note, rows, content, seed=SEED)
    oracle = f"torchmetrics {version('torchmetrics')}, torchmetrics.image.fid._compute_fid in float64"
    harness.golden("frechet", GOLDEN, peer, oracle, "make bench-frechet")


if __name__ == "__main__":
    main()
