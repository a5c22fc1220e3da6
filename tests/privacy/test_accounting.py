"""The accountants: against tables, binomial sums, Opacus, and broken copies."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from synthbook.cli.main import main
from synthbook.core.errors import InvalidArgument
from synthbook.privacy import accounting
from synthbook.privacy.accounting import (
    REPLACE_ONE,
    SubsampledGaussian,
    calibrate_noise,
    pld_epsilon,
    prv_epsilon,
    rdp,
    rdp_epsilon,
)
from synthbook.privacy.mechanisms import gaussian_epsilon
from tests.mutation import mutant

DELTA = 1e-5

# ── many steps ───────────────────────────────────────────────────────────────────────────────────────────────────────

GOLDEN = [  # noise, rate, steps: RDP, PRV, PLD, PLD for replacing one
    (1.5, 0.04, 2_250, 7.329, 6.779, 6.769, 13.489),
    (1.0, 0.01, 1_000, 2.101, 1.838, 1.828, 2.843),
    (0.8, 0.05, 100, 6.656, 5.752, 5.741, 7.235),
]


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "rate", "steps", "rdp", "prv", "pld", "replaced"), GOLDEN)
def test_the_golden_budgets(
    noise: float, rate: float, steps: int, rdp: float, prv: float, pld: float, replaced: float
) -> None:
    run = SubsampledGaussian(noise, rate, steps)
    assert rdp_epsilon(run, DELTA) == pytest.approx(rdp, abs=0.005)
    assert prv_epsilon(run, DELTA) == pytest.approx(prv, abs=0.005)
    assert pld_epsilon(run, DELTA) == pytest.approx(pld, abs=0.005)
    assert pld_epsilon(run, DELTA, neighboring_relation=REPLACE_ONE) == pytest.approx(replaced, abs=0.005)


TABLE = [  # rate, noise, steps: RDP by the old conversion, by the new one, PLD; integer orders
    (0.01, 4, 10_000, 1.259, 1.035, 0.947),
    (0.01, 4, 40_000, 2.576, 2.213, 2.033),
    (0.01, 8, 10_000, 0.612, 0.481, 0.437),
    (256 / 60_000, 1.12, 14_062, 2.922, 2.521, 2.310),
    (256 / 60_000, 0.6, 7_031, 9.773, 8.819, 7.691),
    (256 / 60_000, 1.2, 2_343, 1.198, 0.932, 0.792),
    (256 / 60_000, 1.1, 14_062, 3.009, 2.597, 2.382),
]


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "noise", "steps", "old", "new", "pld"), TABLE)
def test_the_table_of_the_literature(rate: float, noise: float, steps: int, old: float, new: float, pld: float) -> None:
    run, whole = SubsampledGaussian(noise, rate, steps), np.arange(2.0, 257.0)
    assert rdp_epsilon(run, DELTA, classic_conversion=True, orders=whole) == pytest.approx(old, abs=0.002)
    assert rdp_epsilon(run, DELTA, orders=whole) == pytest.approx(new, abs=0.002)
    found = pld_epsilon(run, DELTA)
    assert found == pytest.approx(pld, abs=0.008)
    assert found <= rdp_epsilon(run, DELTA) <= rdp_epsilon(run, DELTA, classic_conversion=True)


@pytest.mark.parametrize("order", [2, 3, 7])
def test_renyi_at_whole_orders_is_a_binomial_sum(order: int) -> None:
    run, q, sigma = SubsampledGaussian(1.3, 0.07, 1), 0.07, 1.3
    terms = [
        math.comb(order, k) * (1 - q) ** (order - k) * q**k * math.exp(k * (k - 1) / (2 * sigma**2))
        for k in range(order + 1)
    ]  # Mironov, Talwar and Zhang, arXiv:1908.10530
    assert rdp(run, np.array([float(order)]))[0] == pytest.approx(math.log(sum(terms)) / (order - 1), rel=1e-7)


def test_full_batches_are_one_gaussian_with_the_root_of_the_steps() -> None:
    run = SubsampledGaussian(10.0, 1.0, 100)
    exact = gaussian_epsilon(1.0, DELTA)
    assert pld_epsilon(run, DELTA) == pytest.approx(exact, rel=1e-3)
    assert rdp_epsilon(run, DELTA) > exact
    assert pld_epsilon(run, DELTA, neighboring_relation=REPLACE_ONE) == pytest.approx(
        gaussian_epsilon(0.5, DELTA), rel=1e-3
    )


@pytest.mark.slow
def test_more_steps_larger_batches_and_less_noise_spend_more_and_the_accountants_keep_their_order() -> None:
    base = (1.0, 0.01, 500)
    for spends in (rdp_epsilon, pld_epsilon):
        start = spends(SubsampledGaussian(*base), DELTA)
        assert all(
            spends(SubsampledGaussian(*run), DELTA) > start
            for run in ((0.9, 0.01, 500), (1.0, 0.012, 500), (1.0, 0.01, 600))
        )
    for noise in (0.7, 1.0, 2.0):
        for rate in (0.005, 0.05):
            run = SubsampledGaussian(noise, rate, 400)
            assert rdp_epsilon(run, DELTA) >= prv_epsilon(run, DELTA) - 1e-9 >= pld_epsilon(run, DELTA) - 0.011


def test_a_finer_grid_changes_little_and_never_reports_more() -> None:
    run = SubsampledGaussian(1.0, 0.01, 1_000)
    coarse, fine = (pld_epsilon(run, DELTA, discretization_interval=grid) for grid in (5e-4, 1e-4))
    assert 0 <= coarse - fine < 0.003


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mass[1:] += upper", "mass[1:] += 0"),
        ("directions = (True, False)", "directions = (False,)"),
        ("(p * np.exp(-points[:-1]) - other)", "(p * np.exp(-points[:-1]) - p)"),
    ],
)
def test_broken_accountants_miss_the_golden_budgets(old: str, new: str) -> None:
    broken = mutant(accounting, old, new)
    misses = []
    for noise, rate, steps, *_, pld, _ in GOLDEN:
        try:
            misses.append(abs(broken.pld_epsilon(broken.SubsampledGaussian(noise, rate, steps), DELTA) - pld))
        except (InvalidArgument, ValueError, FloatingPointError):
            misses.append(math.inf)
    assert max(misses) > 0.005


@pytest.mark.slow
def test_noise_is_found_for_a_budget_and_a_little_less_would_not_do() -> None:
    for by in ("rdp", "pld"):
        noise = calibrate_noise(2.0, DELTA, sample_rate=0.01, steps=1_000, accountant=by)
        spends = accounting.get_accountant(by)
        assert (
            spends(SubsampledGaussian(noise, 0.01, 1_000), DELTA)
            <= 2.0
            < spends(SubsampledGaussian(noise - 5e-4, 0.01, 1_000), DELTA)
        )
    with pytest.raises(InvalidArgument, match="central limit"):
        calibrate_noise(2.0, DELTA, sample_rate=0.01, steps=10, accountant="gdp")
    with pytest.raises(InvalidArgument, match="rdp, prv"):
        accounting.get_accountant("best")


@pytest.mark.parametrize("wrong", [(0, 0.1, 1), (math.inf, 0.1, 1), (1, 0, 1), (1, 1.1, 1), (1, 0.1, 0), (1, 0.1, 1.5)])
def test_runs_that_are_none_are_refused(wrong: tuple[float, float, int]) -> None:
    with pytest.raises(InvalidArgument):
        SubsampledGaussian(*wrong)
    with pytest.raises(InvalidArgument, match="add or remove"):
        pld_epsilon(SubsampledGaussian(1.0, 0.1, 1), DELTA, neighboring_relation="some")


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_command_prints_every_accountant_with_its_neighbors(capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--sample-rate", "0.01", "--steps", "1000", "--delta", "1e-5"]
    assert main(["compute-epsilon", "--noise-multiplier", "1.0", *run]) == 0
    said = capsys.readouterr().out
    assert "2.101" in said and "1.838" in said and "replace one record" in said and "unit: one record" in said
    assert main(["compute-epsilon", "--target-epsilon", "2", *run, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accountants"]["pld"]["epsilon"] <= 2.0 and 0.9 < found["noise_multiplier"] < 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [
        ["--noise-multiplier", "1", "--target-epsilon", "2"],
        [],
        ["--target-epsilon", "-1"],
        ["--noise-multiplier", "0"],
        ["--target-epsilon", "2", "--accountant", "gdp"],
    ],
)
def test_the_command_refuses_what_makes_no_sense(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compute-epsilon", *wrong, "--sample-rate", "0.01", "--steps", "10", "--delta", "1e-5"]) == 2
    assert "not accepted" in capsys.readouterr().err
