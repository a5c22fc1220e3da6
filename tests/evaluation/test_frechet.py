"""The Fréchet distance against torchmetrics' answers, closed forms and its own symmetries."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from bench import inputs
from bench.harness import hashes
from synthbook.core.errors import InvalidArgument
from synthbook.evaluation.frechet import (
    covariance,
    finite_sample_bias,
    frechet,
    frechet_distance,
    frechet_from_moments,
    frechet_infinity,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "bench/golden/frechet.json").read_text())


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"d{case['inputs']['d']}")
def test_equal_to_torchmetrics(case):
    arrays = inputs.make(**case["inputs"])
    assert hashes(arrays) == case["sha256"]
    assert frechet_distance(*arrays.values()) == pytest.approx(case["answer"]["distance"], rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_the_formula_with_a_matrix_root(seed):
    x, y = draws(seed, 200, 7) @ draws(seed + 10, 7, 7), 0.5 + draws(seed + 20, 90, 7)
    (m1, s1), (m2, s2) = ((rows.mean(axis=0), np.cov(rows.T)) for rows in (x, y))
    expected = ((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_one_dimension():
    assert frechet_from_moments([1.0], [[9.0]], [3.0], [[4.0]]) == pytest.approx(2**2 + (3 - 2) ** 2, rel=1e-12)


def test_rank_deficient_covariances_give_no_noise():
    x = draws(0, 30, 100)  # the root of the product of such covariances is complex
    assert frechet_distance(x, x[::-1]) < 1e-10
    assert frechet_distance(x, x + 0.1) == pytest.approx(100 * 0.1**2, rel=1e-9)


def test_a_constant_feature_counts_only_by_its_mean():
    x, y = draws(1, 60, 3), draws(2, 50, 3)
    flat = frechet_distance(np.c_[x, np.ones(60)], np.c_[y, np.full(50, 3.0)])
    assert flat == pytest.approx(frechet_distance(x, y) + 4, rel=1e-9)
    assert frechet_distance(np.ones((5, 2)), np.ones((9, 2))) == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(2, 40), st.integers(1, 8))
def test_invariances(seed, n, m, d):
    x, y = draws(seed, n, d), 2 * draws(seed + 1, m, d) + 1
    value = frechet_distance(x, y)
    turn, shift = np.linalg.qr(draws(seed + 2, d, d))[0], draws(seed + 3, d)
    assert value >= 0
    assert frechet_distance(y, x) == pytest.approx(value, rel=1e-6, abs=1e-9)
    assert frechet_distance(x @ turn + shift, y @ turn + shift) == pytest.approx(value, rel=1e-5, abs=1e-6)
    assert frechet_distance(3 * x, 3 * y) == pytest.approx(9 * value, rel=1e-6, abs=1e-9)
    assert frechet_distance(x, np.tile(x, (1, 1))[::-1]) < 1e-8 * (1 + d)


# ── chance ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("d", [1, 3, 16])
def test_bias_of_unit_covariance(d):
    assert finite_sample_bias(np.eye(d), 100, 50) == pytest.approx((1 / 100 + 1 / 50) * d * (d + 5) / 4, rel=1e-12)


def test_bias_scales_with_the_covariance_and_ignores_constant_features():
    sigma = np.diag([3.0, 1.0, 0.0])
    assert finite_sample_bias(2 * sigma, 10, 10) == pytest.approx(2 * finite_sample_bias(sigma, 10, 10))
    assert finite_sample_bias(sigma, 10, 10) == pytest.approx(finite_sample_bias(sigma[:2, :2], 10, 10))
    assert finite_sample_bias(np.zeros((2, 2)), 10, 10) == 0


@pytest.mark.slow
def test_extrapolation_finds_a_real_difference():
    result = [frechet_infinity(draws(i, 400, 8), draws(i + 500, 300, 8) + 0.2, seed=i) for i in range(60)]
    assert abs(np.mean(result) - 8 * 0.2**2) < 4 * np.std(result) / np.sqrt(60) + 0.01
    biased = [frechet_distance(draws(i, 400, 8), draws(i + 500, 300, 8) + 0.2) for i in range(60)]
    assert np.mean(biased) - 0.32 > 5 * abs(np.mean(result) - 0.32)


def test_extrapolating_copies_falls_below_zero():
    x = draws(3, 400, 8)
    copies = frechet(x, x, features="white noise", seed=0)
    assert copies.value < 1e-9 and copies.corrected < -0.1 and copies.extrapolated < -0.1


def test_the_same_seed_gives_the_same_number():
    x, y = draws(4, 100, 3), draws(5, 100, 3)
    assert frechet_infinity(x, y, seed=1) == frechet_infinity(x, y, seed=1) != frechet_infinity(x, y, seed=2)


# ── what is reported, and what is refused ────────────────────────────────────────────────────────────────────────────


def test_report_names_features_and_sizes():
    shown = frechet(draws(6, 300, 4), draws(7, 200, 4), features="fashion-cnn", seed=0)
    assert str(shown).startswith("Fréchet distance on fashion-cnn, N = 300, M = 200: ")
    assert "FID" not in str(shown)
    pooled = (299 * covariance(draws(6, 300, 4)) + 199 * covariance(draws(7, 200, 4))) / 498
    assert shown.bias == finite_sample_bias(pooled, 300, 200)
    assert (shown.n, shown.m, shown.d, shown.corrected) == (300, 200, 4, shown.value - shown.bias)


def test_too_few_rows_are_said():
    with pytest.warns(UserWarning, match="5 rows give a singular covariance of 6 features"):
        few = frechet(draws(0, 5, 6), draws(1, 50, 6), features="x", seed=0)
    assert np.isnan(few.extrapolated) and np.isfinite(few.value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet(draws(0, 50, 6), draws(1, 50, 6), features="x", seed=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(bad):
    x = draws(0, 10, 2)
    x[3, 1] = bad
    for arguments in ((x, draws(1, 10, 2)), (draws(1, 10, 2), x)):
        with pytest.raises(InvalidArgument, match="NaN or infinity"):
            frechet_distance(*arguments)


@pytest.mark.parametrize("y", [draws(0, 10, 3), draws(0, 1, 2), np.empty((0, 2)), draws(0, 10), [["a", "b"]] * 3])
def test_other_shapes_are_refused(y):
    with pytest.raises(InvalidArgument, match=r"^y = "):
        frechet_distance(draws(1, 10, 2), y)


@pytest.mark.parametrize("features", ["", " ", None])
def test_a_distance_without_a_name_is_refused(features):
    with pytest.raises(InvalidArgument, match="features"):
        frechet(draws(0, 10, 2), draws(1, 10, 2), features=features, seed=0)


@pytest.mark.parametrize(
    ("sigma", "says"),
    [
        ([[1.0, 2.0], [2.0, 1.0]], "no eigenvalue below 0"),
        ([[1.0, 0.5], [0.0, 1.0]], "symmetric"),
        ([[1.0, np.nan], [np.nan, 1.0]], "finite"),
        ([1.0, 1.0], "shape"),
    ],
)
def test_matrices_that_are_no_covariance_are_refused(sigma, says):
    with pytest.raises(InvalidArgument, match=says):
        frechet_from_moments([0.0, 0.0], np.eye(2), [0.0, 0.0], sigma)
    with pytest.raises(InvalidArgument, match=says):
        finite_sample_bias(sigma, 10, 10)


@pytest.mark.parametrize("fractions", [(1.0,), (1.0, 1.0), (1.0, 0.0), (1.0, 2.0), (1.0, 0.01)])
def test_fractions_that_give_no_line_are_refused(fractions):
    with pytest.raises(InvalidArgument, match="fractions"):
        frechet_infinity(draws(0, 20, 2), draws(1, 20, 2), seed=0, fractions=fractions)
