"""The optimum width, in theory, by simulation, and with mutants."""

from __future__ import annotations

import numpy as np
import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.simulation import cues
from synthbook.simulation.cues import CueModel
from tests.mutation import mutant

WIDTHS, EXPECTED = [0, 0.5, 1, 2, 5], [0.250, 0.125, 0.170, 0.222, 0.245]


def test_errors_and_optimum_are_those_of_the_claim() -> None:
    assert CueModel().real_mse(WIDTHS) == pytest.approx(EXPECTED, abs=6e-4)
    assert CueModel().optimal_width == pytest.approx(0.5)
    assert CueModel().real_mse(0.5) == pytest.approx(0.25 * 0.25 / (0.25 + 0.25))
    rising = CueModel().sim_mse(np.linspace(0, 5, 50))
    assert (np.diff(rising) > 0).all() and rising[-1] < 0.25


def test_simulated_errors_agree_with_the_closed_form() -> None:
    simulated = CueModel().simulated(WIDTHS, 200_000, seed=1)
    assert simulated == pytest.approx(EXPECTED, rel=0.02)
    grid = np.arange(0, 2, 0.05)
    assert abs(grid[CueModel(0.7, 0.2, 0.5).real_mse(grid).argmin()] - CueModel(0.7, 0.2, 0.5).optimal_width) <= 0.05


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.sigma**2 / (self.sigma**2 + k2)", "self.sigma / (self.sigma + k2)"),
        ("w**2 * (self.mean**2 + self.tau**2)", "w**2 * self.tau**2"),
        ("np.hypot(self.mean, self.tau)", "self.tau"),
        ("np.linalg.lstsq(cues[0], s[0])", "np.linalg.lstsq(cues[1], s[1])"),
    ],
)
def test_mutants_of_the_closed_form_disagree(old: str, new: str) -> None:
    code = mutant(cues, old, new).CueModel()
    agree = [
        code.real_mse(WIDTHS) == pytest.approx(EXPECTED, rel=0.02),
        code.optimal_width == pytest.approx(0.5),
        code.simulated(WIDTHS, 50_000, seed=1) == pytest.approx(EXPECTED, rel=0.03),
    ]
    assert not all(agree)


def test_invalid_arguments_are_refused() -> None:
    for call in (
        lambda: CueModel(sigma=0),
        lambda: CueModel(tau=-1),
        lambda: CueModel(mean=float("nan")),
        lambda: CueModel().real_mse(-1),
        lambda: CueModel().simulated([1], 3, seed=0),
    ):
        with pytest.raises(InvalidArgument):
            call()
