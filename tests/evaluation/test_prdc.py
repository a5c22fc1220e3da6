"""Precision to coverage against the prdc package's answers, a plain double loop and what cannot change them."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import inputs
from bench.harness import hashes
from synthbook.core.errors import InvalidArgument
from synthbook.evaluation import prdc as module
from synthbook.evaluation.prdc import expected_coverage, expected_coverage_of_copies, prdc
from tests.evaluation.acceptance import double_loop
from tests.mutation import mutant

GOLDEN = json.loads((Path(__file__).parents[2] / "bench/golden/prdc.json").read_text())


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def four(real, synthetic, **kwargs) -> list[float]:
    result = kwargs.pop("prdc", prdc)(synthetic, real=real, **kwargs)
    return [result.precision, result.recall, result.density, result.coverage]


@pytest.mark.slow
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"n{case['inputs']['n']}-d{case['inputs']['d']}")
def test_equal_to_the_package(case):
    arrays = inputs.make(**case["inputs"])
    assert hashes(arrays) == case["sha256"]
    assert four(**arrays) == pytest.approx(list(case["answer"].values()), abs=1e-6)


ROWS = st.integers(0, 10**6).flatmap(lambda seed: st.tuples(st.just(seed), st.integers(4, 25), st.integers(4, 25)))


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(1, 3), st.integers(1, 3), st.sampled_from(["smooth", "lattice", "copies"]))
def test_equal_to_a_double_loop(rows, k, d, kind):
    seed, n, m = rows
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    if kind == "lattice":
        x, y = np.round(x), np.round(1.5 * y)
    if kind == "copies":
        y = x[rng.integers(0, n, m)]
    assert four(x, y, k=k) == pytest.approx(double_loop(x, y, k), abs=1e-12)


def test_equal_to_a_double_loop_where_neighbours_are_far_closer_than_the_origin():
    rng = np.random.default_rng(0)
    towns = rng.integers(0, 3, (60, 1)) * 1e6
    x, y = towns[:30] + 1e-3 * rng.standard_normal((30, 4)), towns[30:] + 1e-3 * rng.standard_normal((30, 4))
    expected = pytest.approx(double_loop(x, y, 2), abs=1e-12)
    assert four(x, y, k=2) == expected
    blurred = mutant(module, "self.close = self.radius2 * TIE <", "self.close = self.radius2 * TIE < 0 *")
    assert four(x, y, k=2, prdc=blurred.prdc) != expected


def test_ties_that_rounding_parts_are_ties():
    # four one-hot columns, each mismatch at squared distance 1: half of all pairs are tied, in some bits only
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 3, (400, 4))
    onehot = (codes[:, :, None] == np.arange(3)).reshape(400, 12)
    exact = four(onehot[:200].astype(float), onehot[200:].astype(float), k=20)
    scaled = onehot / np.sqrt(2) + 0.1
    assert four(scaled[:200], scaled[200:], k=20) == exact
    assert four(scaled[:200] * 1e-3, scaled[200:] * 1e-3, k=20) == exact


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.floats(1e-3, 1), st.floats(-150, 150))
def test_blocks_order_scale_and_place_change_nothing(seed, k, memory_mib, exponent):
    x, y = draws(seed, 60, 3), 1.2 * draws(seed + 1, 45, 3)
    expected = four(x, y, k=k)
    rng = np.random.default_rng(seed)
    assert four(x, y, k=k, memory_mib=memory_mib / 100) == expected
    assert four(rng.permutation(x), rng.permutation(y), k=k) == expected
    assert four(x + 100, y + 100, k=k) == expected
    assert four(x * 10**exponent, y * 10**exponent, k=k) == expected


def test_swapping_real_and_synthetic_swaps_precision_and_recall():
    real, narrow = draws(0, 500, 4), 0.3 * draws(1, 400, 4)
    one, other = prdc(narrow, real=real), prdc(real, real=narrow)
    assert one.precision > 0.95 and one.recall < 0.4
    assert (one.precision, one.recall) == (other.recall, other.precision)
    assert (one.n_real, one.n_synthetic) == (other.n_synthetic, other.n_real)
    assert one.density > 1 > 0.2 > other.density


def test_a_collapsed_generator_reaches_nothing():
    real = draws(0, 1000, 16)
    result = prdc(real[7] + 1e-6 * draws(1, 1000, 16), real=real)
    assert result.precision == 1 and result.recall <= 0.001 and result.coverage < 0.05
    assert prdc(np.tile(real[7], (1000, 1)), real=real).recall == 0


def test_a_full_copy_is_perfect_in_all_four():
    real = draws(0, 300, 5)
    assert four(real, real[::-1]) == [1, 1, 1, 1]


@pytest.mark.parametrize(("m", "expected"), [(5, 0.0248), (20, 0.0963), (100, 0.4102)])
def test_coverage_of_copies(m, expected):
    assert expected_coverage_of_copies(1000, m) == pytest.approx(expected, abs=5e-5)


def test_coverage_formulas_at_their_ends():
    assert expected_coverage(10**7, 10**7, 3) == pytest.approx(1 - 2**-3, rel=1e-6)
    assert expected_coverage(1000, 500) == pytest.approx(0.8690, abs=5e-5)
    assert (
        expected_coverage_of_copies(10, 0, 3) == 0
        and expected_coverage_of_copies(10, 8, 3) == expected_coverage_of_copies(10, 10, 3) == 1
    )
    assert expected_coverage_of_copies(10, 1, 3) == pytest.approx(0.3)


def test_an_exact_average_over_every_choice_of_copies():
    real = draws(2, 8, 2)
    covered = [prdc(real[[i, i, i, j, j, j]], real=real, k=2).coverage for i in range(8) for j in range(i)]
    assert np.mean(covered) == pytest.approx(expected_coverage_of_copies(8, 2, 2), rel=1e-12)


def test_memory_does_not_grow_with_the_product():
    x, y = draws(0, 6000, 4), draws(1, 6000, 4)  # one full matrix would be 275 MiB
    tracemalloc.start()
    try:
        prdc(y, real=x, memory_mib=8)
        assert tracemalloc.get_traced_memory()[1] < 30 * 2**20
    finally:
        tracemalloc.stop()


def test_one_constant_row_everywhere():
    flat = np.full((20, 3), 7.0)
    assert four(flat, flat) == [0, 0, 0, 0]  # empty balls hold nothing, not even their centres
    assert four(np.zeros((20, 3)), np.zeros((20, 3))) == [0, 0, 0, 0]


def test_report_names_what_the_scores_depend_on():
    shown = str(prdc(draws(1, 20, 2), real=draws(0, 30, 2), k=3))
    assert shown.endswith("(k = 3, 30 real and 20 synthetic rows)") and "coverage 0." in shown


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(bad):
    y = draws(0, 10, 2)
    y[3, 1] = bad
    with pytest.raises(InvalidArgument, match="synthetic = 'array with NaN or infinity"):
        prdc(y, real=draws(1, 10, 2))
    with pytest.raises(InvalidArgument, match="real = 'array with NaN or infinity"):
        prdc(draws(1, 10, 2), real=y)


@pytest.mark.parametrize("y", [draws(0, 10, 3), draws(0, 5, 2), draws(0, 1, 2), np.empty((0, 2)), draws(0, 9), "rows"])
def test_other_shapes_and_too_few_rows_are_refused(y):
    with pytest.raises(InvalidArgument, match=r"^synthetic = "):
        prdc(y, real=draws(1, 10, 2))


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "5"])
def test_k_must_be_a_number_of_neighbours(k):
    with pytest.raises(InvalidArgument, match=r"^k = "):
        prdc(draws(1, 10, 2), real=draws(0, 10, 2), k=k)


@pytest.mark.parametrize("memory_mib", [0, -1, np.nan])
def test_memory_must_be_above_nothing(memory_mib):
    with pytest.raises(InvalidArgument, match="memory_mib"):
        prdc(draws(1, 10, 2), real=draws(0, 10, 2), memory_mib=memory_mib)


@pytest.mark.parametrize(("n", "m", "k"), [(5, 5, 5), (5, 0, 2), (5, 5, 0)])
def test_expected_coverage_refuses_what_has_no_answer(n, m, k):
    with pytest.raises(InvalidArgument):
        expected_coverage(n, m, k)
    with pytest.raises(InvalidArgument):
        expected_coverage_of_copies(n, n + 1, 1)
