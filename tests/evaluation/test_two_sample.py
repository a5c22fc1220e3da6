"""Perfect generators are not told apart, others are, and pMSE equals an independent fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from synthbook.core.errors import InvalidArgument
from synthbook.evaluation.two_sample import classifier_two_sample_test, pmse


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.slow
def test_the_trees_do_not_tell_perfect_samples_apart():
    result = [classifier_two_sample_test(draws(i + 100, 700, 3), real=draws(i, 500, 3), seed=i) for i in range(5)]
    assert not any(test.distinguishable for test in result)
    assert all(test.low <= test.accuracy <= test.high and test.n_test == 500 for test in result)
    assert result[0].high == pytest.approx(0.5 + 3.3 * 0.5 / np.sqrt(500))


@pytest.mark.slow
def test_equal_marginals_with_another_dependence_are_told_apart_by_trees_and_not_by_a_line():
    x = draws(1, 3000, 2)
    linked = np.column_stack([x[:, 0], 0.9 * x[:, 0] + np.sqrt(1 - 0.81) * x[:, 1]])
    other = draws(2, 3000, 2)
    assert classifier_two_sample_test(linked, real=other, seed=0).distinguishable
    assert not classifier_two_sample_test(linked, real=other, seed=0, classifier=LogisticRegression()).distinguishable


def test_copied_rows_mislead_the_classifier_below_chance():
    x = draws(3, 1000, 2)
    test = classifier_two_sample_test(x, real=x, seed=0, classifier=KNeighborsClassifier(1))
    assert test.accuracy < test.low and not test.distinguishable
    assert "copied" in str(test)


def test_the_seed_decides_everything():
    x, y = draws(4, 60, 2), draws(5, 80, 2) + 0.3
    assert classifier_two_sample_test(y, real=x, seed=7) == classifier_two_sample_test(
        y, real=x, seed=np.random.SeedSequence(7)
    )


@pytest.mark.parametrize("m", [300, 900])  # unequal sizes as well
def test_pmse_equals_a_fit_by_scikit_learn(m):
    x, y = draws(6, 300, 4), 0.4 + 1.2 * draws(7, m, 4)
    both, label = np.concatenate([x, y]), np.repeat([0, 1], [300, m])
    model = LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000).fit(both, label)
    by_hand = np.mean((model.predict_proba(both)[:, 1] - label.mean()) ** 2)
    result, c = pmse(y, real=x), m / (300 + m)
    assert result.value == pytest.approx(by_hand, rel=1e-5)
    assert (result.k, result.n, result.synthetic_fraction) == (5, 300 + m, c)
    assert result.null_independent == pytest.approx(c * (1 - c) * 4 / (300 + m))
    assert result.null_fitted == pytest.approx(c * (1 - c) ** 2 * 4 / (300 + m))


@pytest.mark.slow
def test_pmse_nulls_hold_for_unequal_sizes():
    rng = np.random.default_rng(8)
    fresh, fitted = [], []
    for _ in range(300):
        x = rng.standard_normal((400, 10))
        fresh.append(pmse(rng.standard_normal((1200, 10)), real=x).ratio_independent)
        fitted.append(pmse(x.mean(axis=0) + x.std(axis=0) * rng.standard_normal((1200, 10)), real=x).ratio_fitted)
    for ratios in (fresh, fitted):
        assert abs(np.mean(ratios) - 1) < 4 * np.std(ratios) / np.sqrt(300) + 0.02
    assert np.mean(np.array(fresh) > pmse(x, real=x).ratio_high) <= 0.01


def test_pmse_of_a_shifted_sample_lies_far_above_its_null():
    assert pmse(draws(10, 500, 3) + 0.5, real=draws(9, 500, 3)).ratio_independent > 10


def test_constant_and_repeated_columns_take_no_parameter():
    x, y = draws(11, 200, 2), draws(12, 200, 2)
    wide = [np.column_stack([z, z[:, 0], z[:, 0] - z[:, 1], np.full(200, 3.0)]) for z in (x, y)]
    assert pmse(wide[1], real=wide[0]).k == 3
    assert pmse(wide[1], real=wide[0]).value == pytest.approx(pmse(y, real=x).value, rel=1e-6)


def test_constant_data_cannot_be_told_apart():
    result = pmse(np.ones((40, 2)), real=np.ones((30, 2)))
    assert (result.value, result.k, result.ratio_independent, result.ratio_high) == (
        pytest.approx(0, abs=1e-12),
        1,
        1,
        1,
    )


def test_separable_samples_reach_the_largest_score():
    result = pmse(draws(14, 100, 2) + 50, real=draws(13, 100, 2))
    assert result.value == pytest.approx(0.25, abs=1e-3)


def test_identical_samples_have_no_error():
    x = draws(15, 100, 3)
    assert pmse(x, real=x).value == pytest.approx(0, abs=1e-15)


def test_too_few_rows_are_refused_or_warned_about():
    with pytest.raises(InvalidArgument, match="more than 22 rows"):
        pmse(draws(17, 11, 10), real=draws(16, 11, 10))
    with pytest.warns(UserWarning, match="below 220 rows"):
        pmse(draws(17, 50, 10), real=draws(16, 50, 10))
    with pytest.raises(InvalidArgument, match="at least 20 rows"):
        classifier_two_sample_test(draws(1, 50, 2), real=draws(0, 19, 2), seed=0)


@pytest.mark.parametrize("measure", [pmse, lambda x, real: classifier_two_sample_test(x, real=real, seed=0)])
def test_bad_arrays_are_named(measure):
    good = draws(0, 50, 2)
    for bad, says in (
        (np.where(good > 2, np.nan, good), "NaN or infinity"),
        (np.where(good > 2, np.inf, good), "NaN or infinity"),
        (draws(0, 50, 3), "3 features"),
        (draws(0, 50), "shape"),
        (np.empty((0, 2)), "0 rows"),
        ([["a", "b"]] * 50, "numbers"),
    ):
        with pytest.raises(InvalidArgument, match=f"synthetic.*{says}"):
            measure(bad, real=good)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    arrays(float, (60, 3), elements=st.floats(-1e6, 1e6)),
    arrays(float, (70, 3), elements=st.sampled_from([0.0, 1.0, -5.0])),
)
@pytest.mark.filterwarnings("ignore:pMSE")
def test_pmse_is_a_share_whatever_the_rows(x, y):
    result = pmse(y, real=x)
    assert 0 <= result.value <= 0.26 and np.isfinite(result.ratio_fitted)
    assert pmse(x, real=y).value == pytest.approx(result.value, abs=5e-3)


def test_pmse_sees_means_only_unless_it_is_given_products():
    x = draws(18, 400, 2)
    linked = np.column_stack([x[:, 0], x[:, 0] + 0.1 * x[:, 1]])
    apart = np.column_stack([linked[:, 0], np.roll(linked[:, 1], 7)])
    with_product = [np.column_stack([z, z[:, 0] * z[:, 1]]) for z in (linked, apart)]
    assert pmse(apart, real=linked).value == pytest.approx(0, abs=1e-12)
    assert pmse(with_product[1], real=with_product[0]).ratio_independent > 10
