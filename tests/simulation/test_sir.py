"""Epidemics: the final size, the mean-field equations, and mutants."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from synthbook.core.errors import InvalidArgument
from synthbook.simulation import sir
from synthbook.simulation.sir import final_size, mean_field, simulate
from tests.mutation import mutant


@pytest.mark.slow
@pytest.mark.parametrize(("r0", "z"), [(1.5, 0.5828), (2, 0.7968), (3, 0.9405)])
def test_attack_rate_of_simulation_and_equations_is_the_final_size(r0: float, z: float) -> None:
    assert final_size(r0) == pytest.approx(z, abs=5e-5)
    assert final_size(r0) == pytest.approx(brentq(lambda x: 1 - np.exp(-r0 * x) - x, 0.01, 1), abs=1e-12)
    late = mean_field(r0, np.linspace(0, 200, 50), initial_infected=1e-6)
    assert late.attack_rate[0] == pytest.approx(z, abs=1e-3)
    runs = simulate(2_000, r0, 150, seed=1)
    assert runs.attack_rate[runs.major].mean() == pytest.approx(z, abs=0.01)


def test_an_epidemic_conserves_people_and_ends() -> None:
    epidemic = simulate(500, 2, 40, seed=3, initial_infected=5)
    total = epidemic.susceptible + epidemic.infected + epidemic.recovered
    np.testing.assert_allclose(total, 1)
    assert (np.diff(epidemic.susceptible) <= 0).all() and (np.diff(epidemic.recovered) >= -1e-12).all()
    assert (epidemic.infected[:, -1] == 0).all() and (epidemic.infected[:, 0] == 0.01).all()
    again = simulate(500, 2, 40, seed=3, initial_infected=5)
    assert (again.infected == epidemic.infected).all()
    assert final_size(1) == final_size(0.5) == 0
    assert simulate(2000, 0.5, 50, seed=1).attack_rate.max() < 0.05


def test_large_populations_follow_the_mean_field() -> None:
    epidemic = simulate(20_000, 2, 10, seed=2, initial_infected=400)
    expected = mean_field(2, epidemic.times, initial_infected=0.02)
    assert np.abs(epidemic.infected.mean(0) - expected.infected[0]).max() < 0.03  # steps of a tenth lag a little


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-np.expm1(-r0 * recovery * prevalence)", "-np.expm1(-r0 * STEP * prevalence) * 0.9"),
        ("(infected & (u >= recovery))", "(infected & (u >= 1.3 * recovery))"),
        ("(u < infection)", "(u < 0.95 * infection)"),
    ],
)
def test_mutants_miss_the_final_size(old: str, new: str) -> None:
    runs = mutant(sir, old, new).simulate(2_000, 2, 60, seed=1)
    assert abs(runs.attack_rate[runs.attack_rate > 0.1].mean() - final_size(2)) > 0.01


def test_invalid_arguments_are_refused() -> None:
    for call in (
        lambda: simulate(1, 2, 3, seed=0),
        lambda: simulate(10, 2, 0, seed=0),
        lambda: simulate(10, -1, 3, seed=0),
        lambda: simulate(10, 2, 3, seed=0, initial_infected=10),
        lambda: mean_field(2, [0, 1], initial_infected=0),
        lambda: mean_field(2, [1, 0], initial_infected=0.1),
        lambda: final_size(float("nan")),
    ):
        with pytest.raises(InvalidArgument):
            call()


def test_figure_shows_every_run_and_the_mean_field() -> None:
    epidemic = simulate(200, 2, 5, seed=0)
    ax = sir.plot_epidemics(epidemic, expected=mean_field(2, epidemic.times, initial_infected=0.005))
    assert len(ax.lines) == 7 and "infectious periods" in ax.get_xlabel()
