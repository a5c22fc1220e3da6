"""Distances to the nearest real record: their null, what they see of copies, and what they miss."""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.core.storage import strict_json
from synthbook.privacy.attacks import membership as module
from synthbook.privacy.attacks.membership import (
    AttackScores,
    Distances,
    distances,
    knn_distances,
    nearest_distance_score,
)
from tests.mutation import mutant

Array = np.ndarray


def world(seed: int, n: int = 300, d: int = 4) -> tuple[Array, Array, Array]:
    """Training rows, held-out rows and fresh ones (n, d) of the same kind."""
    train, held, fresh = np.random.default_rng([seed, 3]).normal(size=(3, n, d))
    return train, held, fresh


def by_loop(rows: Array, train: Array) -> tuple[list[float], list[float]]:
    """Distance to the nearest training row, and its ratio to the second, one row after the other."""
    found = [sorted(float(np.linalg.norm(row - other)) for other in train)[:2] for row in rows]
    return [a for a, _ in found], [a / b for a, b in found]


def agrees(by: ModuleType) -> bool:
    train, held, fresh = world(0, 60)
    found = by.distances(fresh[:50], train, held, seed=0)
    for rows, dcr, nndr in ((fresh[:50], found.dcr, found.nndr), (held, found.dcr_holdout, found.nndr_holdout)):
        for values, told in zip(by_loop(rows, train), (dcr, nndr), strict=True):
            if told != pytest.approx((np.median(values), np.percentile(values, 5))):
                return False
    return True


def test_distances_and_ratios_are_those_of_a_loop() -> None:
    assert agrees(module)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("knn_distances(rows, train, 2)", "knn_distances(rows, holdout, 2)"),
        ("_summary(ours[:, 0])", "_summary(ours[:, 1])"),
        ("np.maximum(pairs[:, 0], MIN_DISTANCE) / np", "1 / np.maximum(pairs[:, 0], MIN_DISTANCE) * np"),
        ("float(np.percentile(values, LOW_PERCENTILE))", "float(np.percentile(values, 100 - LOW_PERCENTILE))"),
        ("_summary(_ratio(ours)), _summary(_ratio(theirs))", "_summary(_ratio(theirs)), _summary(_ratio(ours))"),
    ],
)
def test_broken_distances_are_found(old: str, new: str) -> None:
    assert not agrees(mutant(module, old, new))


# ── the null: claim C5.3-3b ──────────────────────────────────────────────────────────────────────────────────────────


def test_fresh_rows_are_as_near_to_training_as_to_held_out_rows() -> None:
    shares, bands, naive = [], [], []
    for seed in range(30):
        train, held, fresh = world(seed, 100)
        found = distances(fresh, train, held, seed=seed)
        shares.append(found.novelty.dcr_share)
        bands.append(found.novelty.low <= found.novelty.dcr_share <= found.novelty.high)
        naive.append(found.dcr[0] / found.dcr_holdout[0])
    assert np.mean(shares) == pytest.approx(0.5, abs=4 * np.std(shares) / np.sqrt(30))
    assert all(bands) and np.mean(naive) == pytest.approx(1, abs=4 * np.std(naive) / np.sqrt(30))


def test_many_rows_do_not_narrow_the_band_to_that_of_a_coin() -> None:
    train, held, _ = world(1, 200)
    fresh = np.random.default_rng(9).normal(size=(5_000, 4))
    found = distances(fresh, train, held, seed=0).novelty
    assert found.low <= found.dcr_share <= found.high
    assert found.sd > 1.3 * np.sqrt(0.25 / 5_000)


def test_copies_are_seen_by_all_three() -> None:
    train, held, _ = world(2)
    found = distances(train, train, held, seed=0)
    assert found.dcr == (0.0, 0.0) and found.dcr_holdout[0] > 0.3
    assert found.nndr[0] < 1e-6 < found.nndr_holdout[1]
    assert found.novelty.dcr_share == 1 and found.novelty.n_copies == 300 and found.novelty.suspicious
    near = distances(train + 0.1 * np.random.default_rng(0).normal(size=train.shape), train, held, seed=0)
    assert near.novelty.dcr_share > 0.95 and near.novelty.n_copies == 0  # claim C5.3-3: h = 0.1


# ── far is not safe: claim C5.3-3c ───────────────────────────────────────────────────────────────────────────────────


def moved(train: Array, length: float, seed: int) -> tuple[Array, Array]:
    """Every training row moved by one vector of this length, with a little noise; and the vector."""
    rng = np.random.default_rng([seed, 6])
    shift = rng.normal(size=train.shape[1])
    shift *= length / np.linalg.norm(shift)
    return train + shift + 0.02 * rng.normal(size=train.shape), shift


def test_rows_that_all_moved_by_one_vector_pass_every_distance_and_are_all_given_away() -> None:
    naive, informed, shares, suspicious = [], [], [], 0
    for seed in range(10):
        train, held, _ = world(seed)
        made, shift = moved(train, 1.0, seed)
        found = distances(made, train, held, seed=seed)
        assert abs(found.novelty.dcr_share - 0.5) <= 4 * found.novelty.sd
        suspicious += found.novelty.suspicious
        assert found.dcr[0] > 0.8 * found.dcr_holdout[0]
        naive.append(AttackScores(nearest_distance_score(train, made), nearest_distance_score(held, made)).auc)
        informed.append(
            AttackScores(nearest_distance_score(train + shift, made), nearest_distance_score(held + shift, made)).auc
        )
        shares.append(found.novelty.dcr_share)
    assert abs(np.mean(naive) - 0.5) <= 0.05 and min(informed) >= 0.99
    assert np.mean(shares) == pytest.approx(0.542, abs=4 * 0.035 / np.sqrt(10)) and suspicious <= 1


def test_rows_that_moved_further_are_farther_from_training_rows_than_a_holdout_is() -> None:
    train, held, _ = world(0)
    made, shift = moved(train, 2.0, 0)
    found = distances(made, train, held, seed=0)
    assert found.dcr[0] > 1.2 * found.dcr_holdout[0] and not found.novelty.suspicious
    assert (
        AttackScores(nearest_distance_score(train + shift, made), nearest_distance_score(held + shift, made)).auc
        >= 0.99
    )


# ── ties ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def categories(seed: int, n: int) -> Array:
    """Independent columns of three categories (n, 4), one in a column of its own each (n, 12)."""
    drawn = np.random.default_rng([seed, 4]).choice(3, size=(n, 4), p=[0.5, 0.3, 0.2])
    return np.eye(3)[drawn].reshape(n, 12)


def test_ties_are_split_so_that_fresh_categories_read_a_half() -> None:
    shares, counted_as_holdout = [], []
    for seed in range(20):
        train, held, fresh = (categories(3 * seed + k, 200) for k in range(3))
        found = distances(fresh, train, held, seed=seed)
        shares.append(found.novelty.dcr_share)
        counted_as_holdout.append((knn_distances(fresh, train)[:, 0] < knn_distances(fresh, held)[:, 0] - 1e-9).mean())
        assert found.novelty.low <= found.novelty.dcr_share <= found.novelty.high
        assert found.dcr == found.dcr_holdout == (0.0, 0.0)  # close, and no leak: claim C5.3-3a
        assert found.nndr == found.nndr_holdout and found.nndr[0] == 1  # twins are alike
    assert np.mean(shares) == pytest.approx(0.5, abs=4 * np.std(shares) / np.sqrt(20))
    assert np.mean(counted_as_holdout) < 0.1  # how others count


def test_nearly_all_fresh_rows_of_few_categories_have_a_twin_in_training() -> None:
    p = np.array([0.5, 0.3, 0.2])
    cells = np.multiply.outer(np.multiply.outer(p, p), np.multiply.outer(p, p)).ravel()
    theory = float((cells * (1 - (1 - cells) ** 500)).sum())
    assert theory == pytest.approx(0.984, abs=5e-4)
    shares = [(knn_distances(categories(50 + k, 500), categories(150 + k, 500))[:, 0] == 0).mean() for k in range(20)]
    assert np.mean(shares) == pytest.approx(theory, abs=4 * np.std(shares) / np.sqrt(20))


# ── what it says of itself ───────────────────────────────────────────────────────────────────────────────────────────


def test_it_says_that_it_is_no_verdict_on_privacy() -> None:
    train, held, fresh = world(0, 60)
    for made in (fresh, train):
        found = distances(made, train, held, seed=0)
        assert str(found).endswith(": not a privacy verdict")
        told = json.loads(strict_json(found.to_dict()))
        assert told["note"] == "not a privacy verdict" and told["novelty"]["dcr_share"] == found.novelty.dcr_share
        assert told["dcr"] == list(found.dcr)
    other: Distances = replace(found, dcr=(0.1234, 0.0))
    assert "nearest training row 0.123 (held-out rows" in str(other)


@pytest.mark.parametrize(
    ("released", "train", "holdout"),
    [
        (np.zeros((5, 2)), np.zeros((5, 3)), np.zeros((5, 3))),
        (np.zeros((5, 2)), np.zeros((5, 2)), np.zeros((5, 3))),
        (np.zeros((5, 2)), np.zeros((1, 2)), np.zeros((5, 2))),
        (np.zeros((0, 2)), np.zeros((5, 2)), np.zeros((5, 2))),
        (np.full((5, 2), np.nan), np.zeros((5, 2)), np.zeros((5, 2))),
        (np.zeros(5), np.zeros((5, 2)), np.zeros((5, 2))),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(released: Array, train: Array, holdout: Array) -> None:
    with pytest.raises(InvalidArgument):
        distances(released, train, holdout, seed=0)
