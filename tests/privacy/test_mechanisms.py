"""The mechanisms: noise against tables, quadrature and simulation, zCDP against exact Gaussians, and choices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import log_softmax, logsumexp, softmax

from synthbook.core.errors import InvalidArgument
from synthbook.privacy import mechanisms
from synthbook.privacy.mechanisms import (
    classical_sigma,
    exponential_mechanism,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mechanism,
    gaussian_sigma,
    laplace_mechanism,
    zcdp_epsilon,
    zcdp_rho,
)
from tests.mutation import mutant

DELTA = 1e-5

# ── Gaussian and Laplace noise ──


@pytest.mark.parametrize(
    ("epsilon", "sigma", "classical"),
    [(0.1, 30.7496, 48.4481), (0.5, 7.0318, 9.6896), (1, 3.7306, 4.8448), (2, 1.9938, 2.4224), (8, 0.6002, 0.6056)],
)
def test_the_noise_of_the_table(epsilon: float, sigma: float, classical: float) -> None:
    assert gaussian_sigma(epsilon, DELTA) == pytest.approx(sigma, abs=5e-5)
    assert classical_sigma(epsilon, DELTA) == pytest.approx(classical, abs=5e-5)
    assert gaussian_sigma(epsilon, DELTA, sensitivity=3.0) == pytest.approx(3 * gaussian_sigma(epsilon, DELTA))


@pytest.mark.parametrize(("sigma", "epsilon"), [(0.5, 9.9973), (1, 4.3772), (2, 1.9931), (4, 0.9263)])
def test_the_budget_of_the_table(sigma: float, epsilon: float) -> None:
    assert gaussian_epsilon(sigma, DELTA) == pytest.approx(epsilon, abs=5e-5)
    assert gaussian_delta(gaussian_epsilon(sigma, DELTA), sigma) == pytest.approx(DELTA, rel=1e-6)


def test_delta_is_the_area_between_the_densities_and_what_a_simulation_finds() -> None:
    for epsilon, sigma in ((0.5, 2.0), (1.0, 1.0), (3.0, 0.7)):
        p, q = stats.norm(1, sigma).pdf, stats.norm(0, sigma).pdf
        area, _ = integrate.quad(lambda z: max(p(z) - math.exp(epsilon) * q(z), 0), -12, 14, limit=400)  # noqa: B023
        assert gaussian_delta(epsilon, sigma) == pytest.approx(area, abs=1e-7)
    z = np.random.default_rng(0).normal(1.0, 1.0, 1_000_000)
    lost = np.maximum(1 - np.exp(1.0 - (z - 0.5)), 0)  # the loss at z is z - 1/2
    assert abs(lost.mean() - gaussian_delta(1.0, 1.0)) < 4 * lost.std() / 1_000


def test_the_classical_noise_breaks_its_promise_at_a_large_budget_and_a_broken_formula_is_seen() -> None:
    assert gaussian_delta(10.0, classical_sigma(10.0, DELTA)) == pytest.approx(2.27e-5, rel=0.01)
    assert all(gaussian_delta(e, classical_sigma(e, DELTA)) <= DELTA for e in (0.1, 0.5, 0.99))
    halved = mutant(mechanisms, "mu = sensitivity / sigma\n    first", "mu = sensitivity / (2 * sigma)\n    first")
    assert abs(halved.gaussian_sigma(1.0, DELTA) - 3.7306) > 1


def test_noise_has_the_size_that_it_should() -> None:
    rng, zeros = np.random.default_rng(0), np.zeros(200_000)
    assert np.abs(laplace_mechanism(zeros, 0.5, rng, sensitivity=2.0)).mean() == pytest.approx(4.0, rel=0.02)
    assert gaussian_mechanism(zeros, 1.0, DELTA, rng, sensitivity=2.0).std() == pytest.approx(2 * 3.7306, rel=0.02)


NO_BUDGETS = [(0, DELTA), (-1, DELTA), (math.inf, DELTA), (1, 0), (1, 1), (1, math.nan)]


@pytest.mark.parametrize(("epsilon", "delta"), NO_BUDGETS)
def test_budgets_that_are_none_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(InvalidArgument):
        gaussian_sigma(epsilon, delta)
    with pytest.raises(InvalidArgument):
        gaussian_epsilon(0.0, DELTA)


# ── zCDP ──

RHOS, DELTAS = (1e-6, 1e-3, 0.02, 0.5, 3.0, 40.0), (1e-9, 1e-5, 1e-2)


def on_a_grid(rho: float, delta: float) -> float:
    """Canonne, Kamath and Steinke, arXiv:2004.00010, proposition 12, at two hundred thousand orders."""
    a = 1 + np.geomspace(1e-5, 1e5, 200_001)
    return float(np.maximum((rho * a + np.log((a - 1) / a) - (math.log(delta) + np.log(a)) / (a - 1)).min(), 0.0))


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("delta", DELTAS)
def test_epsilon_is_the_least_over_the_orders(rho: float, delta: float) -> None:
    found = zcdp_epsilon(rho, delta)
    assert found == pytest.approx(on_a_grid(rho, delta), rel=1e-4, abs=1e-6)
    assert found <= rho + 2 * math.sqrt(rho * math.log(1 / delta))  # Bun and Steinke 2016, proposition 1.3
    # Gaussian noise is rho-zCDP, and a mechanism like others: what it really spends is no more
    assert found >= gaussian_epsilon(1 / math.sqrt(2 * rho), delta)


def test_a_conversion_that_spends_too_little_is_caught() -> None:
    broken = mutant(mechanisms, "/ (a - 1)\n", "/ a\n")
    assert any(
        broken.zcdp_epsilon(rho, delta) < gaussian_epsilon(1 / math.sqrt(2 * rho), delta)
        for rho in RHOS
        for delta in DELTAS
    )


@settings(deadline=None, max_examples=60)
@given(st.floats(0.01, 30.0), st.floats(1e-10, 0.1))
def test_rho_spends_what_was_asked_for_and_no_more(epsilon: float, delta: float) -> None:
    rho = zcdp_rho(epsilon, delta)
    assert zcdp_epsilon(rho, delta) <= epsilon
    assert zcdp_epsilon(1.001 * rho, delta) > epsilon


def test_what_is_no_budget_is_refused() -> None:
    for rho in (0.0, -1.0, math.nan):
        with pytest.raises(InvalidArgument, match="rho"):
            zcdp_epsilon(rho, 1e-5)
    for epsilon, delta in ((0.0, 1e-5), (math.inf, 1e-5), (1.0, 0.0), (1.0, 1.0)):
        with pytest.raises(InvalidArgument, match=r"epsilon|delta"):
            zcdp_rho(epsilon, delta)
    for scores in ([], [1.0, math.nan], [math.inf]):
        with pytest.raises(InvalidArgument, match="scores"):
            exponential_mechanism(np.array(scores), 1.0, np.random.default_rng(0))
    with pytest.raises(InvalidArgument, match="epsilon"):
        exponential_mechanism(np.ones(2), 0.0, np.random.default_rng(0))


# ── the exponential mechanism ────────────────────────────────────────────────────────────────────────────────────────

SCORES = np.array([3.0, 0.0, 5.0, 4.5])
EPSILON, SENSITIVITY, DRAWS = 0.8, 1.5, 20_000


def frequencies(module, scores: np.ndarray, seed: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    drawn = [module.exponential_mechanism(scores, EPSILON, rng, sensitivity=SENSITIVITY) for _ in range(DRAWS)]
    return np.bincount(drawn, minlength=len(scores))


@pytest.mark.slow
def test_choices_follow_the_softmax_and_a_greedier_one_is_caught() -> None:
    expected = DRAWS * softmax(EPSILON * SCORES / (2 * SENSITIVITY))
    assert stats.chisquare(frequencies(mechanisms, SCORES, 0), expected).pvalue > 1e-3
    greedier = mutant(mechanisms, "epsilon * scores / (2 * sensitivity)", "epsilon * scores / sensitivity")
    assert stats.chisquare(frequencies(greedier, SCORES, 0), expected).pvalue < 1e-6


@pytest.mark.slow
def test_a_neighbor_changes_no_choice_by_more_than_its_epsilon() -> None:
    """The worst case of the exponential mechanism: one score rises by the sensitivity, all others fall by it."""
    scores = np.zeros(40)
    worse = np.where(np.arange(40) == 0, SENSITIVITY, -SENSITIVITY)
    one, two = (frequencies(mechanisms, s, k)[0] / DRAWS for k, s in enumerate((scores, worse)))
    se = math.sqrt(1 / (one * DRAWS) + 1 / (two * DRAWS))
    ratio = math.log(two / one)
    assert 0.75 * EPSILON < ratio <= EPSILON + 3 * se
    greedier = mutant(mechanisms, "epsilon * scores / (2 * sensitivity)", "epsilon * scores / sensitivity")
    assert math.log(frequencies(greedier, worse, 2)[0] / frequencies(greedier, scores, 3)[0]) > EPSILON + 3 * se


def test_a_choice_is_as_concentrated_as_is_paid_for() -> None:
    """Renyi divergences of exact softmaxes: epsilon^2 / 8 at every order, for any neighbors."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        scores, epsilon = rng.normal(0, 5, 6), rng.uniform(0.05, 4)
        p, q = (log_softmax(epsilon * s / 2) for s in (scores, scores + rng.choice([-1, 0, 1], 6)))
        assert (p - q).max() <= epsilon + 1e-9
        for a in (1.01, 2.0, 8.0, 64.0):
            assert logsumexp(a * p + (1 - a) * q) / (a - 1) <= a * epsilon**2 / 8 + 1e-9


def test_without_a_limit_the_highest_is_chosen() -> None:
    rng = np.random.default_rng(0)
    assert {exponential_mechanism(SCORES, math.inf, rng) for _ in range(20)} == {2}
    assert exponential_mechanism(1e9 * SCORES, 1.0, rng) == 2 and exponential_mechanism(np.array([4.0]), 1.0, rng) == 0
