"""What attacks prove: published values, coverage, and the bug that must be caught."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from synthbook.core.errors import InvalidArgument
from synthbook.privacy import audit as module
from synthbook.privacy.audit import (
    AttackCounts,
    audit_scores,
    clopper_pearson,
    epsilon_lower_bound,
    mu_lower_bound,
    one_run_epsilon,
    one_run_p_value,
)
from synthbook.privacy.mechanisms import gaussian_epsilon, gaussian_sigma
from tests.mutation import mutant

DELTA = 1e-5


@pytest.mark.parametrize(
    ("n", "bound"), [(100, 3.281), (200, 3.984), (500, 4.906), (1_000, 5.601), (2_000, 6.295), (10_000, 7.905)]
)
def test_the_bound_of_a_perfect_attack(n: int, bound: float) -> None:
    assert epsilon_lower_bound(AttackCounts(n, n, 0, n), DELTA) == pytest.approx(bound, abs=6e-4)


def test_clopper_pearson_limits_invert_the_binomial_test() -> None:
    for k, n in ((0, 10), (3, 10), (10, 10), (57, 400)):
        exact = stats.binomtest(k, n).proportion_ci(0.95, method="exact")
        assert clopper_pearson(k, n) == pytest.approx((exact.low, exact.high), abs=1e-12)


@pytest.mark.parametrize(
    ("m", "r", "v", "delta", "bound"),
    [
        (1_000, 1_000, 1_000, 0.0, 5.809),
        (1_000, 1_000, 1_000, 1e-5, 5.782),
        (1_000, 100, 100, 0.0, 3.493),
        (1_000, 100, 95, 0.0, 2.172),
        (1_000, 1_000, 731, 0.0, 0.881),
        (1_000, 1_000, 550, 0.0, 0.094),
    ],
)
def test_the_published_bounds_of_one_run(m: int, r: int, v: int, delta: float, bound: float) -> None:
    assert one_run_epsilon(delta, n_canaries=m, n_guesses=r, n_correct=v) == pytest.approx(bound, abs=1e-3)


@pytest.mark.slow
def test_one_run_bounds_have_their_confidence() -> None:
    rng = np.random.default_rng(0)
    right = rng.binomial(1_000, 1 / (1 + np.exp(-1)), 500)  # randomized response with epsilon 1
    bounds = np.array([one_run_epsilon(0.0, n_canaries=1_000, n_guesses=1_000, n_correct=int(v)) for v in right])
    assert (bounds > 1).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 500)
    assert np.median(bounds) == pytest.approx(0.88, abs=0.05)
    assert (
        one_run_epsilon(0.0, n_canaries=100, n_guesses=100, n_correct=50) == 0
        and one_run_p_value(0, 0, n_canaries=1, n_guesses=1, n_correct=0) == 1
    )


def scores(mu: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The best attack on a Gaussian mechanism sees its output."""
    rng = np.random.default_rng([seed, 7])
    return rng.normal(mu, 1, n), rng.normal(0, 1, n)


@pytest.mark.slow
@pytest.mark.parametrize(("epsilon", "n"), [(1.0, 4_000), (2.0, 1_000), (4.0, 500)])
def test_the_audit_detects_halved_noise_and_keeps_its_confidence(epsilon: float, n: int) -> None:
    mu = 1 / gaussian_sigma(epsilon, DELTA)
    runs = 100
    honest = [audit_scores(*scores(mu, n, k), DELTA, seed=k) for k in range(runs)]
    halved = [audit_scores(*scores(2 * mu, n, k + runs), DELTA, seed=k) for k in range(runs)]
    assert np.mean([one.mu > mu for one in honest]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert np.mean([one.epsilon > epsilon for one in honest]) <= 0.05
    assert np.mean([one.mu > mu for one in halved]) >= 0.9
    assert np.mean([one.gaussian_epsilon > epsilon for one in halved]) >= 0.9
    assert np.mean([one.epsilon > epsilon for one in halved]) < 0.2  # what usual audits miss


def test_missing_noise_is_detected_and_random_scores_show_nothing() -> None:
    members, others = np.full(500, 1.0), np.full(500, 0.0)
    found = audit_scores(members, others, DELTA)
    assert found.epsilon > 4 and found.gaussian_epsilon > 8
    rng = np.random.default_rng(0)
    blind = [audit_scores(rng.normal(size=400), rng.normal(size=400), DELTA, seed=k) for k in range(60)]
    assert np.mean([one.mu > 0 for one in blind]) < 0.12 and np.median([one.epsilon for one in blind]) == 0
    assert (
        mu_lower_bound(AttackCounts(50, 100, 50, 100))
        == 0
        == epsilon_lower_bound(AttackCounts(0, 100, 100, 100), DELTA)
    )
    assert found.gaussian_epsilon == pytest.approx(gaussian_epsilon(1 / found.mu, DELTA))


def test_a_threshold_chosen_on_the_counted_scores_claims_too_much() -> None:
    greedy = mutant(
        module,
        "for scores in (count_in, count_out))",
        "for scores in (choose_in, choose_out))",
    )
    wrong, fair = (
        [by.audit_scores(*scores(0.3, 200, k), DELTA, seed=k).mu for k in range(60)] for by in (greedy, module)
    )
    assert np.mean(wrong) > 1.5 * np.mean(fair)
    assert np.mean(np.array(fair) > 0.3) <= 0.05


@pytest.mark.parametrize("wrong", [(2, 1, 0, 1), (0, 0, 0, 1), (0, 1, -1, 1)])
def test_invalid_counts_are_refused(wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(InvalidArgument):
        AttackCounts(*wrong)
    with pytest.raises(InvalidArgument):
        one_run_p_value(1.0, 0.0, n_canaries=5, n_guesses=6, n_correct=1)
    with pytest.raises(InvalidArgument, match="at least 20"):
        audit_scores(np.zeros(5), np.zeros(50), DELTA)
