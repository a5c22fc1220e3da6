"""Simulators obey the laws they were built from: epidemics, falling, swinging, tumbling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from synthbook.core.errors import InvalidArgument
from synthbook.simulation import mechanics
from synthbook.simulation.mechanics import G, ImuConfig, free_fall, pendulum, period, toss

SILENT = ImuConfig(240, 0, 0, 0, 0)


def test_free_fall_follows_the_law() -> None:
    times, fallen = free_fall(1)
    assert fallen[-1] == pytest.approx(G / 2, rel=0.01)
    # semi-implicit Euler is ahead by g t dt / 2
    np.testing.assert_allclose(fallen, G * times**2 / 2 + G * times / 480, atol=1e-6)
    assert abs(free_fall(1, rate=960)[1][-1] - G / 2) < abs(fallen[-1] - G / 2) / 3


@pytest.mark.parametrize("length", [0.25, 1.0])
def test_pendulum_period_follows_the_law(length: float) -> None:
    times, angles = pendulum(length, 0.05, 12 * np.sqrt(length))
    assert period(times, angles) == pytest.approx(2 * np.pi * np.sqrt(length / G), rel=0.01)
    assert np.abs(angles).max() == pytest.approx(0.05, rel=0.05)  # nothing brakes it
    wide = pendulum(length, 1.5, 12 * np.sqrt(length))
    assert period(*wide) > 1.1 * period(times, angles)  # the small-angle law ends


def test_imu_in_flight_at_rest_and_integrated() -> None:
    for seed in range(4):
        recording = toss(4, seed=seed, sensor=SILENT)
        flight = ~recording.in_contact & (recording.times < 0.3)
        assert np.abs(recording.accelerometer[flight]).max() < 1e-3  # nothing to feel in free fall
        turn = Rotation.identity()
        quiet = flight.nonzero()[0]
        first = Rotation.from_quat(recording.rotation[quiet[0]])
        turn = first
        for k in quiet[1:]:  # the gyroscope's readings add up to the turn that was true
            turn = turn * Rotation.from_rotvec(recording.gyroscope[k] / 240)
        true = Rotation.from_quat(recording.rotation[quiet[-1]])
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


def test_invalid_arguments_are_refused() -> None:
    for call in (
        lambda: free_fall(0),
        lambda: pendulum(0, 0.1, 1),
        lambda: period(*pendulum(1, 0.1, 0.5)),
        lambda: toss(-1, seed=0),
        lambda: ImuConfig(rate_hz=100),
        lambda: ImuConfig(gyroscope_noise=-1),
    ):
        with pytest.raises(InvalidArgument):
            call()


def test_figure_of_a_recording() -> None:
    top, bottom = mechanics.plot_recording(toss(1, seed=0))
    assert "m/s²" in top.get_ylabel() and "rad/s" in bottom.get_ylabel()
