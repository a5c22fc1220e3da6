"""Category refits against the binomial chain, the literal loop and the ledger's figures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthbook.collapse import categories, theory
from synthbook.core.errors import HoldoutError, InvalidArgument, SynthbookError
from synthbook.core.table import Holdout


@pytest.mark.slow
def test_engines_agree():
    p = [0.6, 0.3, 0.08, 0.02]
    short = categories.refit_categories(p, 40, 5, 3_000, seed=0)
    literal = categories.refit_categories_by_sampling(p, 40, 5, 3_000, seed=1)
    for t in (1, 5):
        for a, b in ((short[t] > 0, literal[t] > 0), (short[t] ** 2, literal[t] ** 2)):
            se = np.sqrt((a.var(axis=0) + b.var(axis=0)) / 3_000)
            assert (abs(a.mean(axis=0) - b.mean(axis=0)) <= 4 * se + 1e-12).all()


def test_survival_is_the_dense_matrix_power():
    n, p, t = 12, 0.2, 4
    from scipy.stats import binom

    step = np.array([[binom.pmf(j, n, i / n) for j in range(n + 1)] for i in range(n + 1)])
    start = binom.pmf(np.arange(n + 1), n, p)
    assert np.isclose(theory.survival_probability(p, n, t)[-1], 1 - (start @ np.linalg.matrix_power(step, t - 1))[0])


def test_survival_of_the_only_row():
    exact = theory.survival_probability(1 / 32_561, 32_561, 10, max_count=400)
    assert np.allclose(exact[[0, 1, 9]], [0.63, 0.47, 0.16], atol=0.005)
    assert abs(exact[0] - (1 - (1 - 1 / 32_561) ** 32_561)) < 1e-12
    assert np.allclose(exact, [theory.branching_survival(1.0, t) for t in range(1, 11)], atol=0.002)


def test_survival_refuses_a_matrix_that_is_too_small():
    with pytest.raises(InvalidArgument, match="more counts"):
        theory.survival_probability(0.1, 500, 20, max_count=60)


def test_branching_table_of_the_ledger():
    q = [1 - float(theory.branching_survival(1e-9, t)) for t in (1, 2, 3, 5, 10, 20, 50, 100)]
    assert np.allclose((1 - np.array(q)) * 1e9, [1, 0.632, 0.469, 0.312, 0.172, 0.092, 0.038, 0.020], atol=6e-4)


def test_branching_limits_of_the_ledger():
    assert np.isclose(float(theory.branching_survival(10, 100)), 0.178, atol=5e-4)
    assert np.isclose(theory.survival_probability(0.1, 100, 100)[-1], 0.214, atol=5e-4)


@pytest.mark.slow
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(sum), st.integers(2, 50), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_frequencies_stay_frequencies_and_the_dead_stay_dead(counts, n, seed):
    p = np.array(counts) / sum(counts)
    shares = categories.refit_categories(p, n, 6, 3, seed=seed)
    assert shares.shape == (7, 3, len(counts))
    assert np.allclose(shares.sum(axis=-1), 1) and (shares >= 0).all()
    assert np.allclose(shares[1:] * n, np.round(shares[1:] * n))
    assert not ((shares[:-1] == 0) & (shares[1:] > 0)).any()


def test_absorb_starts_with_one_type_and_gives_up():
    winner, time = categories.simulate_absorption([0, 1.0, 0], 10, 5, seed=0)
    assert (winner == 1).all() and (time == 0).all()
    with pytest.raises(SynthbookError, match="still vary after 3 generations"):
        categories.simulate_absorption([0.5, 0.5], 1_000, 5, seed=0, max_generations=3)


def test_a_holdout_is_refused():
    with pytest.raises(HoldoutError):
        categories.refit_categories(Holdout(np.array([0.5, 0.5])), 10, 2, 2, seed=0)


@pytest.mark.parametrize("p", [[], [0.5, 0.6], [1.2, -0.2], [np.nan, 1], [[0.5, 0.5]]])
def test_bad_frequencies_are_refused(p):
    with pytest.raises(InvalidArgument, match="p = "):
        categories.refit_categories(p, 10, 2, 2, seed=0)
