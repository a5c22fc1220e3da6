"""What the grid's and the ring's metrics say of samples whose faults were planted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from synthbook.core.errors import InvalidArgument
from synthbook.evaluation import mode_coverage
from synthbook.evaluation.mode_coverage import GRID, RING, GaussianMixture2D, plot_points
from tests.mutation import mutant


def optimum_is_right(grid: GaussianMixture2D, ring: GaussianMixture2D) -> bool:
    """C3.2-4: the closed form where bumps do not overlap, and the published value where they do."""
    closed = -(1 + np.log(25) + np.log(2 * np.pi * 0.05))
    return bool(abs(grid.optimum - closed) < 1e-3 and abs(ring.optimum + 1.702) < 0.02)


@pytest.mark.slow
def test_the_optimum() -> None:
    assert optimum_is_right(GRID, RING)
    for bumps in (GRID, RING):
        drawn = bumps.log_density(bumps.sample(200_000, seed=0))
        assert abs(drawn.mean() - bumps.optimum) < 4 * drawn.std() / 200_000**0.5
    broken = mutant(
        mode_coverage, "np.log(2 * np.pi * self.variance * len(self.centers))", "np.log(2 * np.pi * self.variance)"
    )
    assert not optimum_is_right(broken.GRID, broken.RING)


def test_perfect_samples_are_called_perfect() -> None:
    for bumps in (GRID, RING):
        scores = [bumps.score(bumps.sample(10_000, seed=s)) for s in range(20)]
        assert all(score.modes == score.of for score in scores)
        k = len(bumps.centers)
        # 2 n KL is chi-squared with K - 1 degrees of freedom; on the ring the nearest centre is not always the own one
        low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], 20 * (k - 1)) / (20 * (k - 1))
        assert low < np.mean([score.imbalance for score in scores]) < high
    assert np.mean([GRID.score(GRID.sample(10_000, seed=s)).high_quality for s in range(5)]) == pytest.approx(
        GRID.within, abs=0.002
    )


@pytest.mark.parametrize("bumps", [GRID, RING])
@pytest.mark.parametrize("lost", [1, 3])
def test_a_lost_mode_is_missed(bumps: GaussianMixture2D, lost: int) -> None:
    """Also on the ring, whose discs of 3 standard deviations overlap."""
    kept = GaussianMixture2D(bumps.name, bumps.centers[lost:], bumps.variance, bumps.min_fraction).sample(
        10_000, seed=0
    )
    score = bumps.score(kept)
    assert score.modes == score.of - lost and score.imbalance > 20
    assert f"{score.modes} of {score.of} modes" in str(score)


@pytest.mark.slow
def test_collapse_is_flagged_and_spread_is_not() -> None:
    test = GRID.sample(4_000, seed=9)
    narrow = GaussianMixture2D("narrow", GRID.centers, 0.005, 0.2).sample(10_000, seed=0)
    one = np.zeros((10_000, 2)) + 0.05 * np.random.default_rng(0).standard_normal((10_000, 2))
    wide = GaussianMixture2D("wide", GRID.centers, 0.2, 0.2).sample(10_000, seed=0)
    assert GRID.collapse(narrow, test).collapsed and GRID.collapse(one, test).collapsed
    assert "collapsed" in str(GRID.collapse(narrow, test))
    assert not GRID.collapse(wide, test).collapsed
    assert not any(GRID.collapse(GRID.sample(10_000, seed=s), test).collapsed for s in range(5))


def test_what_is_no_cloud_of_points_is_refused() -> None:
    for wrong in (np.zeros((0, 2)), np.zeros((5, 3)), [[np.nan, 0.0]]):
        with pytest.raises(InvalidArgument, match="finite points"):
            GRID.score(wrong)
    with pytest.raises(InvalidArgument, match="two for each mode"):
        GRID.collapse(np.zeros((40, 2)), np.zeros((40, 2)))


def test_the_figure_shows_points_and_centres() -> None:
    ax = plot_points(GRID.sample(3_000, seed=0), GRID)
    assert len(ax.lines) == 26 and len(ax.lines[0].get_xdata()) == 2_000
