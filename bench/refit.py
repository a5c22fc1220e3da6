"""Refits per second: the sufficient-statistics engine against a vectorised loop that draws every number.

Both run in alternation in this process, on the same machine, with the same n, and must agree in what they measure.
Writes bench/results/refit.json. Run it with `make bench-refit`.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter

import harness
import numpy as np

from synthbook.collapse.refit import refit_gaussian, refit_gaussian_by_sampling

N, GENERATIONS, ROUNDS = 100, 20, 7
REPLICATES = {"sufficient statistics": 100_000, "literal": 5_000}


def main() -> None:
    engines = {"sufficient statistics": refit_gaussian, "literal": refit_gaussian_by_sampling}
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
        "refits_per_second": {name: harness.spread(r) for name, r in rates.items()},
        "ratio_of_medians": fast / slow,
        "mean_log_variance": means,
        "difference_in_standard_errors": abs(np.subtract(*means.values())) / np.hypot(*errors.values()),
        "seconds_for_100000_replicates_of_100_generations": long_run,
        "machine": harness.machine(),
    }
    rows = [["", "refits per second, median (least–most)"]]
    for name, r in result["refits_per_second"].items():
        rows.append([name, f"{r['median']:,.0f} ({r['least']:,.0f}–{r['most']:,.0f})"])
    note = (
        f"Mean log-variances differ by {result['difference_in_standard_errors']:.1f} standard errors."
        f" 100,000 replicates of 100 generations take {long_run:.2f} s."
    )
    title = f"Refits of a Gaussian to n = {N} rows, {GENERATIONS} generations"
    harness.save_result("refit", title, note, rows, result, seed=0)


if __name__ == "__main__":
    main()
