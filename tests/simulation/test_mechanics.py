"""Simulators obey the laws they were built from: epidemics, falling, swinging, tumbling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.spatial.transform import Rotation

from synthbook.core.errors import InvalidArgument
from synthbook.simulation import mechanics, sir
from synthbook.simulation.mechanics import G, ImuConfig, free_fall, pendulum, period, toss
from synthbook.simulation.sir import final_size, mean_field, simulate
from tests.mutation import mutant

SILENT = ImuConfig(240, 0, 0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("r0", "z"), [(1.5, 0.5828), (2, 0.7968), (3, 0.9405)])
def test_final_size(r0: float, z: float) -> None:
    assert final_size(r0) == pytest.approx(z, abs=5e-5)
    assert final_size(r0) == pytest.approx(brentq(lambda x: 1 - np.exp(-r0 * x) - x, 0.01, 1), abs=1e-12)
    late = mean_field(r0, np.linspace(0, 200, 50), initial_infected=1e-6)
    assert late.attack_rate[0] == pytest.approx(z, abs=1e-3)
    runs = simulate(2_000, r0, 150, seed=1)
    assert runs.attack_rate[runs.major].mean() == pytest.approx(z, abs=0.01)


def test_an_epidemic_keeps_its_people_and_ends() -> None:
    found = simulate(500, 2, 40, seed=3, initial_infected=5)
    total = found.susceptible + found.infected + found.recovered
    np.testing.assert_allclose(total, 1)
    assert (np.diff(found.susceptible) <= 0).all() and (np.diff(found.recovered) >= -1e-12).all()
    assert (found.infected[:, -1] == 0).all() and (found.infected[:, 0] == 0.01).all()
    again = simulate(500, 2, 40, seed=3, initial_infected=5)
    assert (again.infected == found.infected).all()
    assert final_size(1) == final_size(0.5) == 0
    assert simulate(2000, 0.5, 50, seed=1).attack_rate.max() < 0.05


def test_many_people_follow_the_equations() -> None:
    found = simulate(20_000, 2, 10, seed=2, initial_infected=400)
    expected = mean_field(2, found.times, initial_infected=0.02)
    assert np.abs(found.infected.mean(0) - expected.infected[0]).max() < 0.03  # steps of a tenth lag a little


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-np.expm1(-r0 * recovery * prevalence)", "-np.expm1(-r0 * STEP * prevalence) * 0.9"),
        ("(infected & (u >= recovery))", "(infected & (u >= 1.3 * recovery))"),
        ("(u < infection)", "(u < 0.95 * infection)"),
    ],
)
def test_mutants_of_the_epidemic_end_elsewhere(old: str, new: str) -> None:
    runs = mutant(sir, old, new).simulate(2_000, 2, 60, seed=1)
    assert abs(runs.attack_rate[runs.attack_rate > 0.1].mean() - final_size(2)) > 0.01


def test_falling() -> None:
    times, fallen = free_fall(1)
    assert fallen[-1] == pytest.approx(G / 2, rel=0.01)
    # semi-implicit Euler is ahead by g t dt / 2
    np.testing.assert_allclose(fallen, G * times**2 / 2 + G * times / 480, atol=1e-6)
    assert abs(free_fall(1, rate=960)[1][-1] - G / 2) < abs(fallen[-1] - G / 2) / 3


@pytest.mark.parametrize("length", [0.25, 1.0])
def test_swinging(length: float) -> None:
    times, angles = pendulum(length, 0.05, 12 * np.sqrt(length))
    assert period(times, angles) == pytest.approx(2 * np.pi * np.sqrt(length / G), rel=0.01)
    assert np.abs(angles).max() == pytest.approx(0.05, rel=0.05)  # nothing brakes it
    wide = pendulum(length, 1.5, 12 * np.sqrt(length))
    assert period(*wide) > 1.1 * period(times, angles)  # the small-angle law ends


def test_a_sensor_in_flight_at_rest_and_integrated() -> None:
    for seed in range(4):
        found = toss(4, seed=seed, sensor=SILENT)
        flight = ~found.in_contact & (found.times < 0.3)
        assert np.abs(found.accelerometer[flight]).max() < 1e-3  # nothing to feel in free fall
        turn = Rotation.identity()
        quiet = flight.nonzero()[0]
        first = Rotation.from_quat(found.rotation[quiet[0]])
        turn = first
        for k in quiet[1:]:  # the gyroscope's readings add up to the turn that was true
            turn = turn * Rotation.from_rotvec(found.gyroscope[k] / 240)
        true = Rotation.from_quat(found.rotation[quiet[-1]])
        assert (turn.inv() * true).magnitude() < 0.05
    rest = toss(12, seed=1, sensor=SILENT)
    still = rest.times > 11
    up = Rotation.from_quat(rest.rotation[still]).apply(rest.accelerometer[still])
    np.testing.assert_allclose(up.mean(0), [0, 0, G], atol=0.05)
    assert rest.in_contact[still].all() and np.abs(rest.gyroscope[still]).max() < 0.05


def test_bias_noise_and_rate_are_as_declared() -> None:
    clean = toss(5, seed=4, sensor=ImuConfig(60, 0, 0, 0, 0))
    noisy = toss(5, seed=4, sensor=ImuConfig(60, 0.5, 0.2, 0.1, 0.05))
    assert len(clean.times) == len(noisy.times) == 300
    np.testing.assert_array_equal(clean.position, noisy.position)
    for name, noise in (("accelerometer", 0.2), ("gyroscope", 0.05)):
        off = getattr(noisy, name) - getattr(clean, name)
        assert off.std(0) == pytest.approx([noise] * 3, rel=0.25)
        assert (np.abs(off.mean(0)) > 4 * noise / np.sqrt(300)).any()
    again = toss(5, seed=4, sensor=ImuConfig(60, 0.5, 0.2, 0.1, 0.05))
    assert (again.accelerometer == noisy.accelerometer).all()


def test_what_is_refused() -> None:
    for call in (
        lambda: simulate(1, 2, 3, seed=0),
        lambda: simulate(10, 2, 0, seed=0),
        lambda: simulate(10, -1, 3, seed=0),
        lambda: simulate(10, 2, 3, seed=0, initial_infected=10),
        lambda: mean_field(2, [0, 1], initial_infected=0),
        lambda: mean_field(2, [1, 0], initial_infected=0.1),
        lambda: final_size(float("nan")),
        lambda: free_fall(0),
        lambda: pendulum(0, 0.1, 1),
        lambda: period(*pendulum(1, 0.1, 0.5)),
        lambda: toss(-1, seed=0),
        lambda: ImuConfig(rate_hz=100),
        lambda: ImuConfig(gyroscope_noise=-1),
    ):
        with pytest.raises(InvalidArgument):
            call()


def test_figures() -> None:
    found = simulate(200, 2, 5, seed=0)
    ax = sir.plot_epidemics(found, expected=mean_field(2, found.times, initial_infected=0.005))
    assert len(ax.lines) == 7 and "infectious periods" in ax.get_xlabel()
    top, bottom = mechanics.plot_recording(toss(1, seed=0))
    assert "m/s²" in top.get_ylabel() and "rad/s" in bottom.get_ylabel()
