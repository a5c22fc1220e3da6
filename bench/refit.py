"""Refits per second: the sufficient-statistics engine against a vectorised loop that draws every number.

Both run in alternation in this process, on the same machine, with the same n, and must agree in what they measure.
Writes bench/results/refit.json. Run it with `make bench-refit`.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from synthbook.collapse.refit import refit_gaussian, refit_gaussian_literally
from synthbook.core.provenance import Provenance, write_described

RESULT = Path(__file__).parent / "results" / "refit.json"
N, GENERATIONS, ROUNDS = 100, 20, 7
REPLICATES = {"sufficient statistics": 100_000, "literal": 5_000}


def main() -> None:
    engines = {"sufficient statistics": refit_gaussian, "literal": refit_gaussian_literally}
    rates: dict[str, list[float]] = {name: [] for name in engines}
    logs: dict[str, list[np.ndarray]] = {name: [] for name in engines}
    for round_ in range(ROUNDS):
        for name, engine in engines.items():
            start = perf_counter()
            fits = engine(N, GENERATIONS, REPLICATES[name], seed=np.random.SeedSequence([len(name), round_]))
            rates[name].append(REPLICATES[name] * GENERATIONS / (perf_counter() - start))
            logs[name].append(np.log(fits.variance[-1]))
    start = perf_counter()
    refit_gaussian(N, 100, 100_000, seed=0)
    long_run = perf_counter() - start

    means = {name: float(np.mean(values)) for name, values in logs.items()}
    errors = {name: float(np.std(values) / np.sqrt(np.size(values))) for name, values in logs.items()}
    fast, slow = (median(rates[name]) for name in engines)
    result = {
        "n": N,
        "generations": GENERATIONS,
        "rounds": ROUNDS,
        "refits_per_second": {
            name: {"median": median(r), "least": min(r), "most": max(r)} for name, r in rates.items()
        },
        "ratio_of_medians": fast / slow,
        "mean_log_variance": means,
        "difference_in_standard_errors": abs(np.subtract(*means.values())) / np.hypot(*errors.values()),
        "seconds_for_100000_replicates_of_100_generations": long_run,
        "machine": {"processor": platform.machine(), "python": platform.python_version(), "numpy": np.__version__},
    }
    provenance = Provenance(source="measured on the machine named in the file", command="make bench-refit", seed=0)
    write_described(RESULT, json.dumps(result, indent=1) + "\n", provenance)
    print(f"{fast:,.0f} refits/s against {slow:,.0f} literally: {fast / slow:.1f} times as many")
    print(f"mean log-variances differ by {result['difference_in_standard_errors']:.2f} standard errors")
    print(f"100,000 replicates x 100 generations: {long_run:.2f} s")
    print(f"written to {RESULT.relative_to(RESULT.parents[2])}")


if __name__ == "__main__":
    main()
