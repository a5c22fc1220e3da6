"""What a private run spends: our accountants and Opacus' against dp-accounting, over a grid of runs.

Writes bench/golden/accounting.json, the oracle's answers, and bench/results/accounting.json; with --quick it looks at
a few runs and writes nothing.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from itertools import product
from statistics import median

import harness
import numpy as np
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from synthbook.privacy.accounting import ORDERS, REPLACE_ONE, SubsampledGaussian, pld_epsilon, prv_epsilon, rdp_epsilon

WHOLE = list(range(2, 257))  # at fractional orders dp-accounting's series loses the signs of its terms: an upper bound
EXTRA = [  # full batches, three runs of the literature, and one that spends next to nothing
    (10.0, 1.0, 100, 1e-5),
    (5.0, 1.0, 100, 1e-7),
    (1.5, 0.04, 2_250, 1e-5),
    (1.3, 240 / 60_000, 3_750, 1e-5),
    (4.0, 0.01, 40_000, 1e-5),
    (10.0, 0.01, 100, 1e-5),
]
GRID = [
    (noise, rate, steps, delta)
    for noise, rate, (steps, delta) in product((0.7, 1.0, 2.0), (0.001, 0.01, 0.05), ((100, 1e-7), (3_000, 1e-5)))
]
ADD, REPLACE = NeighboringRelation.ADD_OR_REMOVE_ONE, NeighboringRelation.REPLACE_ONE


def spent(accountant: RdpAccountant | PLDAccountant, run: SubsampledGaussian, delta: float) -> float:
    """The oracle's epsilon."""
    step = PoissonSampledDpEvent(run.sample_rate, GaussianDpEvent(run.noise_multiplier))
    return float(accountant.compose(SelfComposedDpEvent(step, run.steps)).get_epsilon(delta))


ORACLE: dict[str, Callable[[SubsampledGaussian, float], float]] = {
    "rdp": lambda run, delta: spent(RdpAccountant(WHOLE, ADD), run, delta),
    "pld": lambda run, delta: spent(PLDAccountant(ADD), run, delta),
    "pld-replace": lambda run, delta: spent(PLDAccountant(REPLACE), run, delta),
    "rdp-fractional": lambda run, delta: spent(RdpAccountant(list(ORDERS), ADD), run, delta),
}
OURS: dict[str, Callable[[SubsampledGaussian, float], float]] = {
    "rdp": lambda run, delta: rdp_epsilon(run, delta, orders=np.array(WHOLE, dtype=np.float64)),
    "pld": pld_epsilon,
    "pld-replace": lambda run, delta: pld_epsilon(run, delta, neighboring_relation=REPLACE_ONE),
    "rdp-fractional": rdp_epsilon,
    "prv": prv_epsilon,
}
TITLES = {
    "rdp": ("Rényi, whole orders", "add or remove"),
    "pld": ("privacy losses", "add or remove"),
    "pld-replace": ("privacy losses", "replace one"),
}


def timed(
    accountants: dict[str, Callable[[SubsampledGaussian, float], float]], run: SubsampledGaussian, delta: float
) -> tuple[dict[str, float], dict[str, float]]:
    """The epsilon of each, and the seconds that it took."""
    epsilons, seconds = dict[str, float](), dict[str, float]()
    for name, spends in accountants.items():
        began = time.perf_counter()
        epsilons[name] = spends(run, delta)
        seconds[name] = time.perf_counter() - began
    return epsilons, seconds


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    logging.disable(logging.WARNING)  # the oracle's word on each order that it leaves out
    warnings.simplefilter("ignore")
    runs = []
    for noise, rate, steps, delta in EXTRA[:3] if quick else EXTRA + GRID:
        run = SubsampledGaussian(noise, rate, steps)
        ours, own = timed(OURS, run, delta)
        oracle, theirs = timed(ORACLE, run, delta)
        about = {"noise": noise, "rate": rate, "steps": steps, "delta": delta}
        runs.append({"run": about, "ours": ours, "oracle": oracle, "seconds": {"ours": own, "oracle": theirs}})
        print(about, {name: round(value, 4) for name, value in ours.items()}, file=sys.stderr)
    worst = {name: max(abs(one["ours"][name] - one["oracle"][name]) for one in runs) for name in TITLES}
    below = {name: max(one["oracle"][name] - one["ours"][name] for one in runs) for name in TITLES}
    above = [one["ours"]["prv"] - one["ours"]["pld"] for one in runs]
    over = [one["ours"]["rdp-fractional"] - one["ours"]["prv"] for one in runs]
    loose = max(one["oracle"]["rdp-fractional"] / one["ours"]["rdp-fractional"] - 1 for one in runs)
    ordered = sum(prv >= 0 and rdp >= 0 for prv, rdp in zip(above, over, strict=True))
    note = (
        f"{len(runs)} runs: ours and dp-accounting's epsilons differ by at most {max(worst.values()):.1g}. Rényi is at"
        f" least Opacus' PRV, and that at least the privacy losses, in {ordered} of them: PRV adds up to"
        f" {max(above):.3f} for its own error, and where a run spends next to nothing Rényi is lower than PRV by"
        f" {max(-min(over), 0):.3f}. At fractional orders dp-accounting adds the terms of its"
        f" series without their signs: its Rényi is then up to {100 * loose:.1f} per cent above ours."
    )
    rows = [["", "neighbours", "largest difference in epsilon", "seconds, median: ours", "dp-accounting"]]
    for name, titles in TITLES.items():
        times = [f"{median(one['seconds'][who][name] for one in runs):.2f}" for who in ("ours", "oracle")]
        rows.append([*titles, f"{worst[name]:.1g}", *times])
    if quick:
        harness.show(rows, note)
        return
    content = {
        "runs": runs,
        "largest_difference": worst,
        "most_below_the_oracle": below,
        "in_order": ordered,
        "oracle_over_ours_at_fractional_orders": loose,
        "prv_over_pld": {"least": min(above), "most": max(above)},
        "rdp_over_prv": {"least": min(over), "most": max(over)},
        "machine": harness.machine("opacus", "dp-accounting"),
    }
    harness.save_result("accounting", "What a private run spends", note, rows, content)
    oracle = f"dp-accounting {version('dp-accounting')}, RdpAccountant at orders 2 to 256 and PLDAccountant"
    answered = [{"run": one["run"], "answer": {name: one["oracle"][name] for name in TITLES}} for one in runs]
    golden = {"oracle": oracle, "cases": [], "runs": answered}  # no arrays go into a run
    path = harness.BENCH / "golden" / "accounting.json"
    harness.save(path, golden, "make bench-accounting", seed=0, source=f"computed by {oracle}")


if __name__ == "__main__":
    main()
