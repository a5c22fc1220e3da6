"""Closed forms against the ledger's table and against numerical integration."""

import numpy as np
import pytest
from scipy import integrate, stats

from synthbook.collapse import theory

TABLE = [  # C7.2-2: n, drift unbiased, drift MLE, spread, half-lives of a typical run
    (5, -0.27036, -0.49351, 0.64493, 2.6, 1.4),
    (10, -0.11521, -0.22057, 0.24873, 6.0, 3.1),
    (20, -0.05355, -0.10485, 0.11100, 12.9, 6.6),
    (50, -0.02055, -0.04075, 0.04166, 33.7, 17.0),
    (100, -0.01014, -0.02019, 0.02041, 68.4, 34.3),
    (500, -0.00201, -0.00401, 0.00402, 346, 173),
]


@pytest.mark.parametrize(("n", "unbiased", "mle", "spread", "half_unbiased", "half_mle"), TABLE)
def test_table_of_the_ledger(n, unbiased, mle, spread, half_unbiased, half_mle):
    assert abs(theory.log_variance_drift(n, ddof=1) - unbiased) < 6e-6
    assert abs(theory.log_variance_drift(n) - mle) < 6e-6
    assert abs(theory.log_variance_variance(n) - spread) < 6e-6
    assert np.isclose(theory.half_life_typical(n, ddof=1), half_unbiased, atol=0.05, rtol=0.002)
    assert np.isclose(theory.half_life_typical(n), half_mle, atol=0.05, rtol=0.002)


@pytest.mark.parametrize("n", [2, 7, 30])
def test_log_moments_by_integration(n):
    density = stats.chi2(n - 1).pdf
    first = integrate.quad(lambda u: np.log(u / n) * density(u), 0, np.inf, limit=200)[0]
    second = integrate.quad(lambda u: np.log(u / n) ** 2 * density(u), 0, np.inf, limit=200)[0]
    assert np.isclose(theory.log_variance_drift(n), first, atol=1e-5)
    assert np.isclose(theory.log_variance_variance(n), second - first**2, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 5, 25])
def test_c4_by_integration(n):
    mean_s = integrate.quad(lambda u: np.sqrt(u / (n - 1)) * stats.chi2(n - 1).pdf(u), 0, np.inf)[0]
    assert np.isclose(theory.c4(n), mean_s, atol=1e-6)


def test_wasserstein_values_of_the_ledger():
    assert np.isclose(theory.squared_wasserstein(25, 50, ddof=1), 2.8118, atol=5e-5)
    assert np.isclose(theory.squared_wasserstein(25, 50), 1.5718, atol=5e-5)
    t = np.arange(5_000)
    assert (theory.squared_wasserstein(25, t) <= 2).all()
    assert theory.squared_wasserstein(25, 10**6, ddof=1) > 10**4


def test_half_life_of_the_mean():
    assert np.isclose(theory.half_life_mean(100), 69.0, atol=0.05)
    assert np.isclose(theory.mean_variance(100, theory.half_life_mean(100)), 0.5)


def test_lost_variance_is_drift():
    t = np.arange(200)
    assert np.allclose(theory.mean_drift(25, t) + theory.mean_variance(25, t), 1)


def test_log_det_drift_of_the_ledger():
    assert np.isclose(theory.log_det_drift(20, 3), -0.4893, atol=5e-5)
    assert np.isclose(theory.log_det_drift(20, 1), theory.log_variance_drift(20))


def test_kernel_density_figures_of_the_ledger():
    v = theory.kernel_density_variance(50, 31, bandwidth=0.3)
    assert np.allclose(v[[1, 2, 6, 11, 31]], [0.980, 1.049, 1.310, 1.607, 2.539], atol=6e-4)
    assert np.isclose(theory.kernel_density_variance(50, 3_000, bandwidth=0.3)[-1], 49 * 0.09)
    scott = theory.kernel_density_variance(50, 20)
    assert np.allclose(scott[2:] / scott[1:-1], 0.98 * (1 + 50**-0.4))
