"""Closed forms of excess risk and interval coverage against simulations that draw every row."""

import numpy as np
import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.evaluation.inference import (
    expected_excess_risk,
    mean_interval_coverage,
    naive_coverage,
    simulate_tstr_regression,
)


@pytest.mark.slow
@pytest.mark.parametrize("omitted_coef", [0.0, 0.6])
def test_the_fast_simulation_agrees_with_fitting_every_row(omitted_coef):
    rng, d, n_r, n_s, runs = np.random.default_rng(1), 3, 20, 30, 4000
    beta = np.array([1.0, -2.0, omitted_coef])
    literal = np.empty((runs, 2))
    for i in range(runs):
        x = rng.standard_normal((n_r, d))
        y = x @ beta + rng.standard_normal(n_r)
        known = x if omitted_coef == 0 else x[:, :-1]  # the wrong generator does not look at the last column
        fit, residual, *_ = np.linalg.lstsq(known, y)
        z = rng.standard_normal((n_s, d))
        generated = z[:, : known.shape[1]] @ fit + np.sqrt(residual / (n_r - known.shape[1])) * rng.standard_normal(n_s)
        literal[i] = [((np.linalg.lstsq(a, b)[0] - beta) ** 2).sum() for a, b in ((x, y), (z, generated))]
    fast = simulate_tstr_regression(n_r, n_s, d, runs, seed=2, omitted_coef=omitted_coef)
    for one, other in zip(literal.T, (fast.real, fast.synthetic), strict=True):
        assert abs(one.mean() - other.mean()) < 4 * np.hypot(one.std(), other.std()) / np.sqrt(runs)
    expected = [expected_excess_risk(n_r, None, d), expected_excess_risk(n_r, n_s, d, omitted_coef=omitted_coef)]
    assert (np.abs(literal.mean(axis=0) - expected) < 4 * literal.std(axis=0) / np.sqrt(runs)).all()


def test_more_rows_close_the_gap_of_a_right_generator_only():
    assert expected_excess_risk(40, np.inf, 5) == expected_excess_risk(40, None, 5)
    gaps = [expected_excess_risk(40, n, 5) - expected_excess_risk(40, None, 5) for n in (10, 100, 1000, 10**6)]
    assert all(np.diff(gaps) < 0) and 0 < gaps[-1] < 1e-5
    assert expected_excess_risk(40, np.inf, 5, omitted_coef=0.5) - expected_excess_risk(40, None, 5) > 0.1


def test_regression_refuses_what_has_no_expectation():
    for wrong in ({"n_real": 6}, {"n_synthetic": 6}, {"d": 0}, {"noise_variance": 0.0}, {"omitted_coef": np.inf}):
        given_ = {"n_real": 40, "n_synthetic": 60, "d": 5} | wrong
        with pytest.raises(InvalidArgument, match=next(iter(wrong))):
            expected_excess_risk(**given_)
        with pytest.raises(InvalidArgument, match=next(iter(wrong))):
            simulate_tstr_regression(**given_, replicates=10, seed=0)
    with pytest.raises(InvalidArgument, match="replicates"):
        simulate_tstr_regression(40, 60, 5, 0, seed=0)


def test_intervals_of_drawn_rows_cover_as_the_fast_simulation_says():
    rng, n_r, n_s, runs = np.random.default_rng(3), 50, 100, 4000
    real = rng.standard_normal((runs, n_r))
    generated = real.mean(axis=1)[:, None] + real.std(axis=1, ddof=1)[:, None] * rng.standard_normal((runs, n_s))
    half = 1.959964 * generated.std(axis=1, ddof=1) / np.sqrt(n_s)
    literal = [(np.abs(generated.mean(axis=1)) <= half * wider).mean() for wider in (1, np.sqrt(3))]
    fast = mean_interval_coverage(n_r, n_s, 100_000, seed=4)
    assert literal == pytest.approx([fast.naive, fast.corrected], abs=0.03)
    assert "naive" in str(fast)


def test_coverage_refuses_bad_arguments():
    for wrong in (-1, np.nan):
        with pytest.raises(InvalidArgument, match="ratio"):
            naive_coverage(wrong)
    with pytest.raises(InvalidArgument, match="level"):
        naive_coverage(1, level=1.0)
    for wrong in ({"n_real": 1}, {"n_synthetic": 1}, {"replicates": 0}):
        with pytest.raises(InvalidArgument, match=next(iter(wrong))):
            mean_interval_coverage(**({"n_real": 10, "n_synthetic": 10, "replicates": 5} | wrong), seed=0)
    assert naive_coverage(0) == pytest.approx(0.95)
