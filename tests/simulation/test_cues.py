"""The optimum width, in theory, by simulation, and with mutants."""

from __future__ import annotations

import numpy as np
import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.simulation import cues
from synthbook.simulation.cues import Cues
from tests.mutation import mutant

WIDTHS, KNOWN = [0, 0.5, 1, 2, 5], [0.250, 0.125, 0.170, 0.222, 0.245]


def test_the_ledgers_values() -> None:
    assert Cues().error_in_reality(WIDTHS) == pytest.approx(KNOWN, abs=6e-4)
    assert Cues().best_width == pytest.approx(0.5)
    assert Cues().error_in_reality(0.5) == pytest.approx(0.25 * 0.25 / (0.25 + 0.25))
    rising = Cues().error_in_simulation(np.linspace(0, 5, 50))
    assert (np.diff(rising) > 0).all() and rising[-1] < 0.25


def test_simulation_agrees() -> None:
    found = Cues().simulated(WIDTHS, 200_000, seed=1)
    assert found == pytest.approx(KNOWN, rel=0.02)
    grid = np.arange(0, 2, 0.05)
    assert abs(grid[Cues(0.7, 0.2, 0.5).error_in_reality(grid).argmin()] - Cues(0.7, 0.2, 0.5).best_width) <= 0.05


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.sigma**2 / (self.sigma**2 + k2)", "self.sigma / (self.sigma + k2)"),
        ("w**2 * (self.mean**2 + self.tau**2)", "w**2 * self.tau**2"),
        ("np.hypot(self.mean, self.tau)", "self.tau"),
        ("np.linalg.lstsq(cues[0], s[0])", "np.linalg.lstsq(cues[1], s[1])"),
    ],
)
def test_mutants_disagree(old: str, new: str) -> None:
    code = mutant(cues, old, new).Cues()
    agree = [
        code.error_in_reality(WIDTHS) == pytest.approx(KNOWN, rel=0.02),
        code.best_width == pytest.approx(0.5),
        code.simulated(WIDTHS, 50_000, seed=1) == pytest.approx(KNOWN, rel=0.03),
    ]
    assert not all(agree)


def test_what_is_refused() -> None:
    for call in (
        lambda: Cues(sigma=0),
        lambda: Cues(tau=-1),
        lambda: Cues(mean=float("nan")),
        lambda: Cues().error_in_reality(-1),
        lambda: Cues().simulated([1], 3, seed=0),
    ):
        with pytest.raises(InvalidArgument):
            call()
