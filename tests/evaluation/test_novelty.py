"""Honest rows lie inside their band, ties or not; copies do not; a plain double loop agrees."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score

from synthbook.core.errors import InvalidArgument
from synthbook.evaluation import novelty as module
from synthbook.evaluation.novelty import novelty
from tests.mutation import mutant


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def mixed(seed: int, n: int) -> np.ndarray:
    """A table full of ties: categories as scaled unit vectors, and a number with few values."""
    rng = np.random.default_rng(seed)
    picked = [rng.choice(len(p), n, p=p) for p in ([0.6, 0.3, 0.1], [0.5, 0.5], [0.4, 0.3, 0.2, 0.1])]
    units = [np.eye(codes.max() + 1, 4)[codes] / np.sqrt(2) for codes in picked]
    return np.column_stack([*units, rng.integers(5, size=n) / 1.4])


def by_double_loop(synthetic, train, holdout) -> float:
    share = 0.0
    for row in synthetic:
        nearest = [min(float(((row - other) ** 2).sum()) for other in rows) for rows in (train, holdout)]
        share += 0.5 if abs(nearest[0] - nearest[1]) < 1e-9 else float(nearest[0] < nearest[1])
    return share / len(synthetic)


def by_hand_auc(synthetic, train, holdout) -> float:
    nearest = [
        [min(round(float(((row - other) ** 2).sum()), 9) for other in synthetic) for row in rows]
        for rows in (train, holdout)
    ]
    return roc_auc_score([1] * len(train) + [0] * len(holdout), [-d for d in nearest[0] + nearest[1]])


@pytest.mark.parametrize("make", [lambda seed, n: draws(seed, n, 3), mixed])
def test_share_copies_and_auc_equal_a_double_loop(make):
    train, holdout = make(1, 60), make(2, 60)
    synthetic = np.concatenate([make(3, 70), train[:9], holdout[:4]])
    found = novelty(synthetic, train=train, holdout=holdout, seed=0)
    assert found.dcr_share == pytest.approx(by_double_loop(synthetic, train, holdout), abs=1e-12)
    assert found.membership_auc == pytest.approx(by_hand_auc(synthetic, train, holdout), abs=1e-12)
    rows = {tuple(row) for row in train}
    assert found.n_copies == sum(tuple(row) in rows for row in synthetic)
    assert found.expected_copies == pytest.approx(np.mean([tuple(row) in rows for row in holdout]) * len(synthetic))


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda seed, n: draws(seed, n, 4), mixed])
def test_honest_rows_lie_inside_their_band_and_half_of_the_time_near_training_rows(make):
    found = [
        novelty(make(3 * i, 800), train=make(3 * i + 1, 300), holdout=make(3 * i + 2, 300), seed=i) for i in range(25)
    ]
    assert not any(result.suspicious for result in found)
    assert all(result.low <= result.dcr_share <= result.high for result in found)
    shares, sds = np.array([r.dcr_share for r in found]), np.array([r.sd for r in found])
    assert abs(shares.mean() - 0.5) < 4 * shares.std() / 5
    assert 0.6 < np.sqrt(((shares - 0.5) ** 2 / sds**2).mean()) < 1.5  # the band is neither too wide nor too narrow


def wide_of_band(code, runs: int = 40) -> int:
    sets = [[draws(3 * i, 5_000, 4), draws(3 * i + 1, 50, 4), draws(3 * i + 2, 50, 4)] for i in range(runs)]
    found = [code.novelty(x, train=train, holdout=holdout, seed=0) for x, train, holdout in sets]
    return sum(not result.low <= result.dcr_share <= result.high for result in found)


@pytest.mark.slow
def test_a_binomial_band_would_accuse_honest_generators():
    binomial = mutant(module, "sd = float(np.sqrt(((shares[1:] - 0.5) ** 2).mean()))", "sd = 0.5 / np.sqrt(len(s))")
    assert wide_of_band(module) == 0
    assert wide_of_band(binomial) >= 5


def test_a_copier_and_near_copies_are_caught():
    train, holdout = draws(1, 400, 4), draws(2, 400, 4)
    copier = novelty(train[::-1], train=train, holdout=holdout, seed=0)
    assert (copier.dcr_share, copier.n_copies, copier.membership_auc) == (1, 400, 1)
    assert abs(copier.null_copies - 200) < 3 and copier.max_copies < 400
    near = novelty(train + 0.1 * draws(3, 400, 4), train=train, holdout=holdout, seed=0)
    assert near.dcr_share > 0.9 and near.n_copies == 0 and near.suspicious
    assert copier.suspicious and "suspicious" in str(copier)


def test_a_few_copies_among_many_honest_rows_are_caught_by_their_number():
    train, holdout, fresh = draws(1, 2000, 4), draws(2, 2000, 4), draws(3, 4000, 4)
    found = novelty(np.concatenate([fresh, train[:15]]), train=train, holdout=holdout, seed=0)
    assert found.dcr_share < found.high and found.membership_auc < found.membership_auc_high
    assert found.n_copies == 15 > found.max_copies and found.suspicious


def test_one_common_row_repeated_is_poor_and_not_memorised():
    train, holdout = mixed(1, 1000), mixed(2, 1000)
    rows, counts = np.unique(train, axis=0, return_counts=True)
    found = novelty(np.repeat(rows[[counts.argmax()]], 500, axis=0), train=train, holdout=holdout, seed=0)
    assert found.n_copies == found.max_copies == 500 and not found.suspicious
    assert found.dcr_share == 0.5


def test_swapped_arguments_are_noticed():
    train, holdout = draws(1, 300, 3), draws(2, 300, 3)
    assert novelty(train, train=train, holdout=holdout, seed=0).dcr_share == 1
    assert novelty(train, train=holdout, holdout=train, seed=0).dcr_share == 0
    assert novelty(draws(3, 300, 3), train=train, holdout=train, seed=0).dcr_share == 0.5  # everything ties


def test_the_larger_of_train_and_holdout_is_cut_and_the_result_says_so():
    found = novelty(draws(4, 500, 3), train=draws(5, 900, 3), holdout=draws(6, 300, 3), seed=0)
    assert (found.n_train, found.subsampled) == (300, "train") and "train cut" in str(found)
    assert abs(found.dcr_share - 0.5) < 3.3 * found.sd
    other = novelty(draws(1, 500, 3), train=draws(2, 300, 3), holdout=draws(3, 900, 3), seed=0)
    assert (other.n_train, other.subsampled) == (300, "holdout")
    assert novelty(draws(1, 500, 3), train=draws(2, 300, 3), holdout=draws(3, 300, 3), seed=0).subsampled == ""


def test_the_seed_decides_everything():
    x, train, holdout = draws(1, 90, 2), draws(2, 80, 2), draws(3, 70, 2)
    assert novelty(x, train=train, holdout=holdout, seed=5) == novelty(
        x, train=train, holdout=holdout, seed=np.random.SeedSequence(5)
    )


def test_blocks_do_not_change_the_result(monkeypatch):
    x, train, holdout = draws(1, 90, 2), draws(2, 80, 2), draws(3, 70, 2)
    whole = novelty(x, train=train, holdout=holdout, seed=5)
    monkeypatch.setattr(module, "BLOCK", 500)
    assert novelty(x, train=train, holdout=holdout, seed=5) == whole


def test_one_far_row_does_not_blur_the_others():
    train, holdout = draws(1, 200, 2), draws(2, 200, 2)
    far = np.array([[1e7, 0.0]])
    found = novelty(train, train=np.concatenate([train, far]), holdout=np.concatenate([holdout, far]), seed=0)
    assert found.dcr_share > 0.98


def test_constant_rows_tie():
    found = novelty(np.ones((5, 2)), train=np.ones((4, 2)), holdout=np.ones((4, 2)), seed=0)
    assert (found.dcr_share, found.sd, found.membership_auc, found.suspicious) == (0.5, 0, 0.5, False)
    assert (found.n_copies, found.expected_copies) == (5, 5)


def test_one_synthetic_row_is_never_enough_to_accuse():
    train = draws(1, 50, 2)
    assert not novelty(train[:1], train=train, holdout=draws(2, 50, 2), seed=0).suspicious


def test_bad_arrays_are_named():
    good = draws(1, 20, 2)
    for name in ("synthetic", "train", "holdout"):
        for bad in (np.full((20, 2), np.nan), np.empty((0, 2)), draws(1, 20), "rows"):
            with pytest.raises(InvalidArgument, match=name):
                novelty(**{"synthetic": good, "train": good, "holdout": good, name: bad}, seed=0)
    with pytest.raises(InvalidArgument, match="at least 2 rows"):
        novelty(good, train=good[:1], holdout=good, seed=0)
    with pytest.raises(InvalidArgument, match="3 features"):
        novelty(draws(1, 20, 3), train=good, holdout=good, seed=0)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(*[arrays(float, st.tuples(st.integers(2, 12), st.just(2)), elements=st.floats(-1e9, 1e9)) for _ in range(3)])
def test_every_number_is_finite_and_a_share_is_one(synthetic, train, holdout):
    found = novelty(synthetic, train=train, holdout=holdout, seed=0)
    assert 0 <= found.low <= 0.5 <= found.high <= 1
    assert 0 <= found.dcr_share <= 1 and 0 <= found.membership_auc <= 1
    assert (
        0 <= found.n_copies <= len(synthetic)
        and np.isfinite([found.sd, found.max_copies, found.membership_auc_high]).all()
    )


def test_two_thousand_rows_take_well_under_a_second():
    x, train, holdout = (draws(k, 2000, 100) for k in (1, 2, 3))
    start = time.process_time()
    novelty(x, train=train, holdout=holdout, seed=0)
    assert time.process_time() - start < 2  # 0.15 s on an idle core
