"""Gaussian and kernel refits: exact values, two engines that agree, and refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from synthbook.collapse import refit, theory
from synthbook.core.errors import InvalidArgument


def within(a, b, sigmas=4):
    """Two independent samples (replicates,) have the same mean within so many standard errors."""
    se = np.hypot(a.std() / np.sqrt(a.size), b.std() / np.sqrt(b.size))
    return abs(a.mean() - b.mean()) <= sigmas * se


@pytest.mark.slow
def test_ledger_values_at_ten_rows():
    variance = refit.refit_gaussian(10, 20, 400_000, seed=0).variance
    for t, expected in ((1, 0.9), (5, 0.5905), (10, 0.3487), (20, 0.1216)):
        assert abs(variance[t].mean() - expected) < 4 * variance[t].std() / np.sqrt(400_000) + 5e-5


def test_first_generation_is_the_fit_to_real_data():
    first = refit.refit_gaussian(10, 1, 100_000, seed=1, mean=3.0, variance=4.0)
    assert (first.variance[0] == 4).all() and (first.mean[0] == 3).all()
    assert stats.kstest(first.variance[1] * 10 / 4, stats.chi2(9).cdf).pvalue > 1e-3
    assert stats.kstest(first.mean[1], stats.norm(3, 2 / np.sqrt(10)).cdf).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("temperature", [1.0, 0.9])
@pytest.mark.parametrize("n", [2, 5, 40])
def test_engines_agree(n, ddof, temperature):
    arguments = {
        "generations": 6,
        "replicates": 20_000,
        "mean": 1.0,
        "variance": 2.0,
        "ddof": ddof,
        "temperature": temperature,
    }
    short = refit.refit_gaussian(n, seed=2, **arguments)
    literal = refit.refit_gaussian_by_sampling(n, seed=3, **arguments)
    for t in (1, 2, 6):
        assert within(np.log(short.variance[t]), np.log(literal.variance[t]))
        assert stats.ks_2samp(short.variance[t], literal.variance[t]).pvalue > 1e-4
        assert stats.ks_2samp(short.mean[t], literal.mean[t]).pvalue > 1e-4


@pytest.mark.slow
def test_engines_agree_in_three_dimensions():
    covariance = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])
    short = refit.refit_gaussian_nd(12, 5, 20_000, seed=4, covariance=covariance)
    literal = refit.refit_gaussian_nd_by_sampling(12, 5, 20_000, seed=5, covariance=covariance)
    for t in (1, 5):
        assert within(short.log_det[t], literal.log_det[t])
        for i, j in ((0, 0), (1, 0), (2, 1)):
            assert within(short.covariance[t, :, i, j], literal.covariance[t, :, i, j])
            assert abs(short.covariance[t, :, i, j].mean() - covariance[i, j] * (11 / 12) ** t) < 0.02
        assert within(short.mean[t, :, 0] ** 2, literal.mean[t, :, 0] ** 2)


def test_log_det_drifts_as_in_theory():
    fits = refit.refit_gaussian_nd(20, 10, 20_000, seed=6, covariance=np.eye(3))
    steps = np.diff(fits.log_det, axis=0)
    assert abs(steps.mean() - theory.log_det_drift(20, 3)) < 4 * steps.std() / np.sqrt(steps.size)


def test_one_dimension_is_the_nd_case():
    nd = refit.refit_gaussian_nd(8, 4, 50_000, seed=7, covariance=[[1.0]], ddof=1)
    flat = refit.refit_gaussian(8, 4, 50_000, seed=8, ddof=1)
    assert stats.ks_2samp(nd.covariance[4, :, 0, 0], flat.variance[4]).pvalue > 1e-4


def test_literal_loop_is_the_six_line_loop():
    rng, x = np.random.default_rng(9), None
    mean, s = 0.0, 1.0
    for _ in range(3):
        x = mean + s * rng.standard_normal(50)
        mean, s = x.mean(), x.std()
    assert np.isclose(refit.refit_gaussian_by_sampling(50, 3, 1, seed=9).variance[3, 0], s**2)


def test_scotts_rule_is_scipys():
    x = np.random.default_rng(10).standard_normal(50)
    ours = x.std() * 50**-0.2
    assert np.isclose(stats.gaussian_kde(x, bw_method="scott").factor * x.std(), ours)


def test_kernel_density_tends_to_its_fixed_point():
    variance = refit.refit_kernel_density(10, 120, 4_000, seed=11, bandwidth=0.5)
    assert abs(variance[-30:].mean() / (9 * 0.25) - 1) < 0.03


def test_infinite_data_matches_the_mixture_moments():
    moments = refit.refit_with_infinite_data([0.2, 0.5, 0.3], [-1, 0, 4], variance=0.7, generations=3)
    mean = 0.2 * -1 + 0.3 * 4
    assert np.allclose(moments, [mean, 0.7 + 0.2 + 0.3 * 16 - mean**2], atol=1e-12)


def test_long_runs_underflow_to_zero_not_to_nan():
    variance = refit.refit_gaussian(3, 2_000, 20, seed=12).variance
    assert np.isfinite(variance).all() and (variance[-1] == 0).any()


@given(n=st.integers(2, 60), ddof=st.sampled_from([0, 1]), scale=st.floats(0.01, 100), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_scale_and_shift_are_carried_through(n, ddof, scale, seed):
    base = refit.refit_gaussian(n, 5, 7, seed=seed, ddof=ddof)
    moved = refit.refit_gaussian(n, 5, 7, seed=seed, ddof=ddof, mean=scale, variance=scale**2)
    assert np.allclose(moved.variance, base.variance * scale**2, rtol=1e-9)
    assert np.allclose(moved.mean, base.mean * scale + scale, rtol=1e-9, atol=1e-9 * scale)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_same_seed_same_bytes(seed):
    a, b = (refit.refit_gaussian(5, 4, 3, seed=seed) for _ in range(2))
    assert a.variance.tobytes() == b.variance.tobytes() and a.mean.tobytes() == b.mean.tobytes()
    assert (refit.refit_gaussian(5, 4, 3, seed=seed + 1).variance[1:] != a.variance[1:]).all()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"n": 1}, "n = 1"),
        ({"n": 2.5}, "n = 2.5"),
        ({"generations": 0}, "generations = 0"),
        ({"replicates": 0}, "replicates = 0"),
        ({"ddof": 2}, "ddof = 2"),
        ({"variance": -1.0}, "variance = -1.0"),
        ({"variance": float("nan")}, "variance = nan"),
        ({"temperature": 0.0}, "temperature = 0.0"),
    ],
)
def test_bad_arguments_are_named(arguments, names):
    with pytest.raises(InvalidArgument, match=names):
        refit.refit_gaussian(**({"n": 5, "generations": 2, "replicates": 2, "seed": 0} | arguments))


def test_other_refusals():
    with pytest.raises(InvalidArgument, match="singular"):
        refit.refit_gaussian_nd(3, 2, 2, seed=0, covariance=np.eye(3))
    with pytest.raises(InvalidArgument, match="positive definite"):
        refit.refit_gaussian_nd(9, 2, 2, seed=0, covariance=-np.eye(3))
    with pytest.raises(InvalidArgument, match="symmetric"):
        refit.refit_gaussian_nd(9, 2, 2, seed=0, covariance=[[1, 2], [0, 1]])
    with pytest.raises(InvalidArgument, match="bandwidth"):
        refit.refit_kernel_density(9, 2, 2, seed=0, bandwidth=-1.0)
    with pytest.raises(InvalidArgument, match="sum 1"):
        refit.refit_with_infinite_data([0.5, 0.6], [0, 1], variance=1, generations=1)
