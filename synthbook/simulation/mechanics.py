"""Falling, swinging and tumbling things, and what a sensor inside them would say: labelled data from mechanics.

PyBullet integrates; what comes out is held against mechanics. An accelerometer does not feel gravity but what keeps it
from falling: on a table it reads +g upwards, in free flight 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import subplots
from synthbook.core.types import Array, Seed
from synthbook.simulation.bullet import pybullet

G = 9.81  # m/s^2
RATE = 240  # steps of the simulation per second


@contextmanager
def _world(gravity: float = G, rate: int = RATE) -> Iterator[int]:
    client = pybullet.connect(pybullet.DIRECT)
    try:
        pybullet.setGravity(0, 0, -gravity, physicsClientId=client)
        pybullet.setTimeStep(1 / rate, physicsClientId=client)
        yield client
    finally:
        pybullet.disconnect(physicsClientId=client)


def _free(client: int, body: int) -> None:
    """Without PyBullet's damping, which takes 4 % of the speed each second."""
    for link in range(-1, pybullet.getNumJoints(body, physicsClientId=client)):
        pybullet.changeDynamics(
            body, link, linearDamping=0, angularDamping=0, jointDamping=0, restitution=0.4, physicsClientId=client
        )


def free_fall(seconds: float, *, rate: int = RATE) -> tuple[Array, Array]:
    """Times (T,) s and the distance (T,) m that a ball has fallen from rest; g t^2 / 2 but for a step's g t dt / 2."""
    _check_seconds(seconds)
    steps = round(seconds * rate)
    with _world(rate=rate) as client:
        ball = pybullet.createCollisionShape(pybullet.GEOM_SPHERE, radius=0.05, physicsClientId=client)
        body = pybullet.createMultiBody(1.0, ball, basePosition=[0, 0, 0], physicsClientId=client)
        _free(client, body)
        fallen = [0.0]
        for _ in range(steps):
            pybullet.stepSimulation(physicsClientId=client)
            position, _ = pybullet.getBasePositionAndOrientation(body, physicsClientId=client)
            fallen.append(-position[2])
    return np.arange(steps + 1) / rate, np.array(fallen)


def pendulum(length: float, angle: float, seconds: float, *, rate: int = RATE) -> tuple[Array, Array]:
    """Times (T,) s and angles (T,) rad of a small ball on a massless rod of `length` m, let go at `angle`."""
    _check_seconds(seconds)
    if not (np.isfinite(length) and length > 0.02):
        raise InvalidArgument("length", length, "more than 0.02 m")
    steps = round(seconds * rate)
    with _world(rate=rate) as client:
        ball = pybullet.createCollisionShape(pybullet.GEOM_SPHERE, radius=0.001, physicsClientId=client)
        body = pybullet.createMultiBody(
            baseMass=0,
            linkMasses=[1.0],
            linkCollisionShapeIndices=[ball],
            linkVisualShapeIndices=[-1],
            linkPositions=[[0, 0, 0]],
            linkOrientations=[[0, 0, 0, 1]],
            linkInertialFramePositions=[[0, 0, -length]],
            linkInertialFrameOrientations=[[0, 0, 0, 1]],
            linkParentIndices=[0],
            linkJointTypes=[pybullet.JOINT_REVOLUTE],
            linkJointAxis=[[0, 1, 0]],
            physicsClientId=client,
        )
        _free(client, body)
        # joints have a motor that brakes them unless it is switched off
        pybullet.setJointMotorControl2(body, 0, pybullet.VELOCITY_CONTROL, force=0, physicsClientId=client)
        pybullet.resetJointState(body, 0, angle, physicsClientId=client)
        angles = [angle]
        for _ in range(steps):
            pybullet.stepSimulation(physicsClientId=client)
            angles.append(pybullet.getJointState(body, 0, physicsClientId=client)[0])
    return np.arange(steps + 1) / rate, np.array(angles)


def period(times: Array, angles: Array) -> float:
    """Mean time (s) from one downward zero crossing of the angle to the next, each interpolated."""
    before = np.flatnonzero((angles[:-1] > 0) & (angles[1:] <= 0))
    if len(before) < 2:
        raise InvalidArgument("angles", f"{len(before)} downward crossings", "two or more: simulate longer")
    part = angles[before] / (angles[before] - angles[before + 1])
    crossings = times[before] + part * (times[before + 1] - times[before])
    return float((crossings[-1] - crossings[0]) / (len(crossings) - 1))


@dataclass(frozen=True)
class ImuConfig:
    """An accelerometer (m/s^2) and a gyroscope (rad/s): samples per second, bias of each axis, noise of each sample."""

    rate: int = 120
    accelerometer_bias: float = 0.05  # standard deviation over axes
    accelerometer_noise: float = 0.05
    gyroscope_bias: float = 0.01
    gyroscope_noise: float = 0.01

    def __post_init__(self) -> None:
        if self.rate < 1 or RATE % self.rate:
            raise InvalidArgument("rate", self.rate, f"samples per second that divide {RATE}, such as 60 or 120")
        if min(self.accelerometer_bias, self.accelerometer_noise, self.gyroscope_bias, self.gyroscope_noise) < 0:
            raise InvalidArgument("sensor", self, "biases and noises of at least 0")


@dataclass(frozen=True, eq=False)
class ImuRecording:
    """What the sensor in a thing said, and what was true: T samples.

    `accelerometer`, `gyroscope` (T, 3) in the thing's own frame; `position` (T, 3) m, `velocity` (T, 3) m/s, `rotation`
    (T, 4) quaternions x, y, z, w to the world; `in_contact` (T,): whether it lay on or hit the floor in this interval.
    """

    times: Array
    accelerometer: Array
    gyroscope: Array
    position: Array
    velocity: Array
    rotation: Array
    in_contact: NDArray[np.bool_]


def toss(seconds: float, *, seed: Seed, sensor: ImuConfig | None = None) -> ImuRecording:
    """A box thrown into the air at random, falling to the floor, with a sensor inside: one labelled recording."""
    _check_seconds(seconds)
    told = sensor or ImuConfig()
    rng = np.random.default_rng(seed)
    half = rng.uniform(0.03, 0.1, 3)
    start, speed, spin = rng.uniform([-1, -1, 0.5], [1, 1, 1]), rng.uniform([-1, -1, 1], [1, 1, 4]), rng.normal(0, 5, 3)
    with _world() as client:
        floor = pybullet.createCollisionShape(pybullet.GEOM_PLANE, physicsClientId=client)
        pybullet.createMultiBody(0, floor, physicsClientId=client)
        shape = pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half.tolist(), physicsClientId=client)
        turn = Rotation.random(rng=rng).as_quat().tolist()
        body = pybullet.createMultiBody(0.5, shape, -1, start.tolist(), turn, physicsClientId=client)
        _free(client, body)
        pybullet.resetBaseVelocity(body, speed.tolist(), spin.tolist(), physicsClientId=client)
        states = [_state(client, body)]
        in_contact = []
        for _ in range(round(seconds * told.rate)):
            hit = False
            for _ in range(RATE // told.rate):
                pybullet.stepSimulation(physicsClientId=client)
                hit |= bool(pybullet.getContactPoints(body, physicsClientId=client))
            states.append(_state(client, body))
            in_contact.append(hit)
    position, rotation, velocity, omega = (np.array(part) for part in zip(*states, strict=True))
    turns = Rotation.from_quat(rotation[1:])
    # f = R^T (dv/dt - g), with gravity pointing down: the mean over the interval
    force = np.diff(velocity, axis=0) * told.rate + [0, 0, G]
    bias = rng.normal(0, 1, (2, 3))
    acceleration = turns.inv().apply(force) + told.accelerometer_bias * bias[0]
    gyroscope = turns.inv().apply(omega[1:]) + told.gyroscope_bias * bias[1]
    return ImuRecording(
        np.arange(1, len(states)) / told.rate,
        acceleration + told.accelerometer_noise * rng.standard_normal(acceleration.shape),
        gyroscope + told.gyroscope_noise * rng.standard_normal(gyroscope.shape),
        position[1:],
        velocity[1:],
        rotation[1:],
        np.array(in_contact, dtype=bool),
    )


def _state(client: int, body: int) -> tuple[tuple[float, ...], ...]:
    pose = pybullet.getBasePositionAndOrientation(body, physicsClientId=client)
    return (*pose, *pybullet.getBaseVelocity(body, physicsClientId=client))


def _check_seconds(seconds: float) -> None:
    if not (np.isfinite(seconds) and 0 < seconds <= 600):
        raise InvalidArgument("seconds", seconds, "a number above 0, up to 600")


def plot_recording(recording: ImuRecording) -> list[Axes]:
    """Accelerometer and gyroscope over time, one line for each axis; grey where the thing touches the floor."""
    _, axes = subplots(2, 1, width=7.5, height=5, sharex=True)
    parts = ((recording.accelerometer, "accelerometer (m/s²)"), (recording.gyroscope, "gyroscope (rad/s)"))
    for ax, (values, label) in zip(axes, parts, strict=True):
        low, high = float(values.min()), float(values.max())
        ax.fill_between(recording.times, low, high, where=recording.in_contact, color="0.9", linewidth=0, step="pre")
        for axis, name in enumerate("xyz"):
            ax.plot(recording.times, values[:, axis], label=name, linewidth=1.5)
        ax.set(ylabel=label)
    axes[0].set_ylim(-3 * G, 3 * G)  # hits go far beyond
    axes[0].legend(frameon=False, ncols=3)
    axes[1].set(xlabel="time (s)")
    return axes
