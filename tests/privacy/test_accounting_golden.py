"""What a run spends, as dp-accounting has it: `make bench-accounting` writes its answers for these runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from opacus.accountants.analysis.rdp import compute_rdp

from synthbook.privacy import accounting
from synthbook.privacy.accounting import REPLACE_ONE, SubsampledGaussian, pld_epsilon, prv_epsilon, rdp, rdp_epsilon
from tests.mutation import mutant

BENCH = Path(__file__).parents[2] / "bench"
RUNS: list[dict[str, Any]] = json.loads((BENCH / "golden/accounting.json").read_text())["runs"]
WHOLE = np.arange(2.0, 257.0)
QUICK = 6  # one run in so many, by `make check`
PRV_ERROR = 0.01  # what Opacus' accountant allows itself, and adds

each_run = pytest.mark.parametrize(
    "golden",
    [pytest.param(one, marks=() if k % QUICK == 1 else pytest.mark.slow) for k, one in enumerate(RUNS)],
    ids=[f"sigma{r['noise']:g}-q{r['rate']:g}-T{r['steps']}-delta{r['delta']:g}" for r in (o["run"] for o in RUNS)],
)


def of(golden: dict[str, Any], module: ModuleType = accounting) -> tuple[Any, float]:
    run = golden["run"]
    return module.SubsampledGaussian(run["noise"], run["rate"], run["steps"]), run["delta"]


def test_the_runs_span_what_people_do() -> None:
    runs = [one["run"] for one in RUNS]
    assert len(runs) >= 20 and {run["delta"] for run in runs} == {1e-5, 1e-7}
    assert min(run["rate"] for run in runs) <= 0.001 and max(run["rate"] for run in runs) == 1
    spent = [one["answer"]["pld"] for one in RUNS]
    assert min(spent) < 0.05 and max(spent) > 20
    assert all(one["answer"]["pld-replace"] >= one["answer"]["pld"] for one in RUNS)


@pytest.mark.slow
@each_run
def test_budgets_are_those_of_the_oracle_and_never_below(golden: dict[str, Any]) -> None:
    (run, delta), answer = of(golden), golden["answer"]
    assert rdp_epsilon(run, delta, orders=WHOLE) == pytest.approx(answer["rdp"], abs=1e-6)
    for neighbors, expected in ((accounting.ADD_OR_REMOVE_ONE, answer["pld"]), (REPLACE_ONE, answer["pld-replace"])):
        found = pld_epsilon(run, delta, neighboring_relation=neighbors)
        assert expected - 1e-5 <= found <= expected + 2e-3


@pytest.mark.slow
@each_run
def test_the_accountants_keep_their_order_up_to_the_error_that_prv_adds(golden: dict[str, Any]) -> None:
    run, delta = of(golden)
    rdp, prv, pld = (spends(run, delta) for spends in (rdp_epsilon, prv_epsilon, pld_epsilon))
    assert rdp >= pld and prv >= pld
    assert rdp >= prv - PRV_ERROR
    if pld > 0.1:
        assert rdp >= prv
    assert prv == pytest.approx(golden["answer"]["pld"], abs=0.02)


def test_divergences_at_fractional_orders_are_those_of_opacus_where_the_oracle_bounds_them_only() -> None:
    orders = np.array([1.5, 2.5, 3.7, 6.3, 10.9])
    for golden in RUNS:
        run, _ = of(golden)
        theirs = compute_rdp(q=run.sample_rate, noise_multiplier=run.noise_multiplier, steps=run.steps, orders=orders)
        np.testing.assert_allclose(run.steps * rdp(run, orders), theirs, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(2 * z - 1) / (2 * sigma**2)", "2 * z / (2 * sigma**2)"),
        ("(math.log(delta) + np.log(orders))", "(math.log(delta) - np.log(orders))"),
        ("composed = mechanism.steps * rdp", "composed = math.sqrt(mechanism.steps) * rdp"),
    ],
)
def test_broken_renyi_accountants_miss_the_oracle(old: str, new: str) -> None:
    broken, goldens = mutant(accounting, old, new), RUNS[1::QUICK]
    misses = [abs(broken.rdp_epsilon(*of(g, broken), orders=WHOLE) - g["answer"]["rdp"]) for g in goldens]
    assert max(misses) > 0.02


def test_other_neighbors_miss_the_oracle() -> None:
    run, delta = of(RUNS[1])
    assert abs(pld_epsilon(run, delta, neighboring_relation=REPLACE_ONE) - RUNS[1]["answer"]["pld"]) > 1


@pytest.mark.slow
def test_the_result_says_what_the_runs_say() -> None:
    found = json.loads((BENCH / "results/accounting.json").read_text())
    assert [one["run"] for one in found["runs"]] == [one["run"] for one in RUNS]
    assert max(found["largest_difference"].values()) <= 2e-3 and max(found["most_below_the_oracle"].values()) <= 1e-5
    assert found["prv_over_pld"]["least"] >= 0 and found["rdp_over_prv"]["least"] >= -PRV_ERROR
    assert found["in_order"] >= len(RUNS) - 1
    for one in found["runs"]:
        run = SubsampledGaussian(*(one["run"][name] for name in ("noise", "rate", "steps")))
        assert one["ours"]["rdp-fractional"] == pytest.approx(rdp_epsilon(run, one["run"]["delta"]), abs=1e-6)
