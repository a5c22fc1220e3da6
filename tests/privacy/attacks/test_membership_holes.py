"""A filter against near copies passes the distance test and draws the people it hides: claim C5.3-4."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.evaluation.novelty import novelty
from synthbook.privacy.attacks import membership as module
from synthbook.privacy.attacks.membership import HOLE_NEIGHBORS, AttackScores, hole_score, similarity_filter
from tests.mutation import mutant

Array = np.ndarray
RELEASED, MEMBERS, RADIUS, SEEDS = 100_000, 300, 0.35, 3


@cache
def world(seed: int) -> tuple[Array, Array, Array, Array]:
    """Training and held-out rows (300, 4), and a Gaussian fitted to the former: all its rows, and those kept."""
    rng = np.random.default_rng([seed, 2])
    train, held = rng.normal(size=(2, MEMBERS, 4))
    made = rng.multivariate_normal(train.mean(axis=0), np.cov(train.T), RELEASED)
    return train, held, made, similarity_filter(made, train, RADIUS)


def area(by: ModuleType, seed: int, kept: bool, k: int = HOLE_NEIGHBORS) -> float:
    train, held, *releases = world(seed)
    return AttackScores(*(by.hole_score(rows, releases[kept], k=k) for rows in (train, held))).auc


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_the_filter_leaves_passes_the_distance_test(seed: int) -> None:
    train, held, _, kept = world(seed)
    assert len(kept) > 0.8 * RELEASED
    found = novelty(kept[:4_000], train=train, holdout=held, seed=seed)
    assert found.dcr_share < 0.5 and found.dcr_share < found.high and not found.suspicious and found.n_copies == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_its_holes_give_the_members_away(seed: int) -> None:
    assert area(module, seed, kept=True) >= 0.8


@pytest.mark.slow
def test_without_the_filter_the_same_attack_finds_nobody() -> None:
    areas = [area(module, seed, kept=False) for seed in range(SEEDS)]
    se = AttackScores(np.zeros(MEMBERS), np.zeros(MEMBERS)).auc_null_se
    assert abs(np.mean(areas) - 0.5) <= 0.05 and max(abs(a - 0.5) for a in areas) < 4 * se


def test_one_neighbour_alone_tells_nothing() -> None:
    assert area(module, 0, kept=True, k=1) == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("np.asarray(logs[:, 0] - logs", "-np.asarray(logs[:, 0] - logs"),  # sign flipped
        ("_log_distances(candidates, synthetic, k)", "_log_distances(candidates, synthetic, 1)"),
        ("logs[:, 0] - logs", "-logs"),  # density alone
    ],
)
def test_broken_attacks_find_no_hole(old: str, new: str) -> None:
    assert not area(mutant(module, old, new), 0, kept=True) >= 0.8


def test_a_filter_that_keeps_near_rows_or_looks_at_others_is_found() -> None:
    train, _, made, _ = world(0)
    rows = made[:3_000]
    near = np.array([np.linalg.norm(train - row, axis=1).min() < RADIUS for row in rows])
    assert (similarity_filter(rows, train, RADIUS) == rows[~near]).all() and near.any()
    turned = mutant(module, "[:, 0] >= radius", "[:, 0] < radius")
    assert (turned.similarity_filter(rows, train, RADIUS) == rows[near]).all()


def test_a_row_at_the_radius_is_kept() -> None:
    assert similarity_filter(np.array([[0.9], [1.0], [1.1]]), np.zeros((1, 1)), 1.0).ravel().tolist() == [1.0, 1.1]
    assert similarity_filter(np.zeros((2, 1)), np.zeros((1, 1)), 1.0).shape == (0, 1)


def test_copies_are_no_holes_and_scores_stay_finite() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 2))
    scores = hole_score(rows, rows)
    assert np.isfinite(scores).all() and (scores < -10).all()
    assert (hole_score(rows[:3], np.repeat(rows[:3], 60, axis=0)) == 0).all()


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan")])
def test_a_radius_that_is_none_is_refused(radius: float) -> None:
    with pytest.raises(InvalidArgument, match=r"radius = .*above 0"):
        similarity_filter(np.zeros((3, 2)), np.zeros((2, 2)), radius)


def test_fewer_released_rows_than_neighbours_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="at least k = 50"):
        hole_score(np.zeros((3, 2)), np.zeros((49, 2)))
