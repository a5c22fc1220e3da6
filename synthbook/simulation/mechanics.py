"""Rigid-body simulations with PyBullet: free fall, a pendulum, and IMU recordings of a tossed box with ground truth.

An accelerometer measures specific force, acceleration minus gravity: at rest it reads +g upward, in free flight 0.
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
from synthbook.simulation import import_pybullet

pybullet = import_pybullet()
G = 9.81  # m/s^2
_RATE = 240  # steps of the simulation per second


@contextmanager
def _world(gravity: float = G, rate: int = _RATE) -> Iterator[int]:
    client = pybullet.connect(pybullet.DIRECT)
    try:
        pybullet.setGravity(0, 0, -gravity, physicsClientId=client)
        pybullet.setTimeStep(1 / rate, physicsClientId=client)
        yield client
    finally:
        pybullet.disconnect(physicsClientId=client)


def _undamp(client: int, body: int) -> None:
    """Switch off PyBullet's damping, which takes 4 % of the speed each second."""
    for link in range(-1, pybullet.getNumJoints(body, physicsClientId=client)):
        pybullet.changeDynamics(
            body, link, linearDamping=0, angularDamping=0, jointDamping=0, restitution=0.4, physicsClientId=client
        )


def free_fall(seconds: float, *, rate: int = _RATE) -> tuple[Array, Array]:
    """Simulate a ball falling from rest: times (T,) s and distances (T,) m, in theory g t^2 / 2.

    Semi-implicit Euler steps of length dt add g t dt / 2. Raises `InvalidArgument`.
    """
    _check_seconds(seconds)
    steps = round(seconds * rate)
    with _world(rate=rate) as client:
        ball = pybullet.createCollisionShape(pybullet.GEOM_SPHERE, radius=0.05, physicsClientId=client)
        body = pybullet.createMultiBody(1.0, ball, basePosition=[0, 0, 0], physicsClientId=client)
        _undamp(client, body)
        distances = [0.0]
        for _ in range(steps):
            pybullet.stepSimulation(physicsClientId=client)
            position, _ = pybullet.getBasePositionAndOrientation(body, physicsClientId=client)
            distances.append(-position[2])
    return np.arange(steps + 1) / rate, np.array(distances)


def pendulum(length: float, angle: float, seconds: float, *, rate: int = _RATE) -> tuple[Array, Array]:
    """Simulate a small ball on a massless rod of `length` m, released at `angle`: times (T,) s and angles (T,) rad.

    Raises `InvalidArgument`.
    """
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
        _undamp(client, body)
        # joints have a motor that brakes unless its force is 0
        pybullet.setJointMotorControl2(body, 0, pybullet.VELOCITY_CONTROL, force=0, physicsClientId=client)
        pybullet.resetJointState(body, 0, angle, physicsClientId=client)
        angles = [angle]
        for _ in range(steps):
            pybullet.stepSimulation(physicsClientId=client)
            angles.append(pybullet.getJointState(body, 0, physicsClientId=client)[0])
    return np.arange(steps + 1) / rate, np.array(angles)


def period(times: Array, angles: Array) -> float:
    """Mean time (s) between downward zero crossings of the angle, each linearly interpolated."""
    before = np.flatnonzero((angles[:-1] > 0) & (angles[1:] <= 0))
    if len(before) < 2:
        raise InvalidArgument("angles", f"{len(before)} downward crossings", "two or more: simulate longer")
    fraction = angles[before] / (angles[before] - angles[before + 1])
    crossings = times[before] + fraction * (times[before + 1] - times[before])
    return float((crossings[-1] - crossings[0]) / (len(crossings) - 1))


@dataclass(frozen=True)
class ImuConfig:
    """An inertial measurement unit (IMU): accelerometer (m/s^2) and gyroscope (rad/s).

    Each axis has a constant bias and white noise per sample, both Gaussian with the given standard deviations.
    """

    rate_hz: int = 120
    accelerometer_bias: float = 0.05
    accelerometer_noise: float = 0.05
    gyroscope_bias: float = 0.01
    gyroscope_noise: float = 0.01

    def __post_init__(self) -> None:
        if self.rate_hz < 1 or _RATE % self.rate_hz:
            raise InvalidArgument("rate_hz", self.rate_hz, f"samples per second that divide {_RATE}, such as 60 or 120")
        if min(self.accelerometer_bias, self.accelerometer_noise, self.gyroscope_bias, self.gyroscope_noise) < 0:
            raise InvalidArgument("bias, noise", self, "standard deviations of at least 0")


@dataclass(frozen=True, eq=False)
class ImuRecording:
    """IMU readings and ground truth for T time steps.

    `accelerometer`, `gyroscope` (T, 3) in the body's frame; `position` (T, 3) m, `velocity` (T, 3) m/s, `rotation`
    (T, 4) quaternions x, y, z, w to the world; `in_contact` (T,): whether it touched the floor during the step.
    """

    times: Array
    accelerometer: Array
    gyroscope: Array
    position: Array
    velocity: Array
    rotation: Array
    in_contact: NDArray[np.bool_]


def toss(seconds: float, *, seed: Seed, sensor: ImuConfig | None = None) -> ImuRecording:
    """Simulate a box tossed at random and falling to the floor, with an IMU inside. Raises `InvalidArgument`."""
    _check_seconds(seconds)
    imu, rng = sensor or ImuConfig(), np.random.default_rng(seed)
    half = rng.uniform(0.03, 0.1, 3)
    start, speed, spin = rng.uniform([-1, -1, 0.5], [1, 1, 1]), rng.uniform([-1, -1, 1], [1, 1, 4]), rng.normal(0, 5, 3)
    with _world() as client:
        floor = pybullet.createCollisionShape(pybullet.GEOM_PLANE, physicsClientId=client)
        pybullet.createMultiBody(0, floor, physicsClientId=client)
        shape = pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half.tolist(), physicsClientId=client)
        orientation = Rotation.random(rng=rng).as_quat().tolist()
        body = pybullet.createMultiBody(0.5, shape, -1, start.tolist(), orientation, physicsClientId=client)
        _undamp(client, body)
        pybullet.resetBaseVelocity(body, speed.tolist(), spin.tolist(), physicsClientId=client)
        states = [_state(client, body)]
        in_contact = []
        for _ in range(round(seconds * imu.rate_hz)):
            contact = False
            for _ in range(_RATE // imu.rate_hz):
                pybullet.stepSimulation(physicsClientId=client)
                contact |= bool(pybullet.getContactPoints(body, physicsClientId=client))
            states.append(_state(client, body))
            in_contact.append(contact)
    position, rotation, velocity, omega = (np.array(values) for values in zip(*states, strict=True))
    to_body = Rotation.from_quat(rotation[1:]).inv()
    # f = R^T (dv/dt - g), with gravity pointing down: the mean over the interval
    specific_force = np.diff(velocity, axis=0) * imu.rate_hz + [0, 0, G]
    bias = rng.normal(0, 1, (2, 3))
    accelerometer = to_body.apply(specific_force) + imu.accelerometer_bias * bias[0]
    gyroscope = to_body.apply(omega[1:]) + imu.gyroscope_bias * bias[1]
    return ImuRecording(
        np.arange(1, len(states)) / imu.rate_hz,
        accelerometer + imu.accelerometer_noise * rng.standard_normal(accelerometer.shape),
        gyroscope + imu.gyroscope_noise * rng.standard_normal(gyroscope.shape),
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
    """Plot accelerometer and gyroscope over time, one line for each axis; gray where the box touches the floor."""
    _, axes = subplots(2, 1, width=7.5, height=5, sharex=True)
    panels = ((recording.accelerometer, "accelerometer (m/s²)"), (recording.gyroscope, "gyroscope (rad/s)"))
    for ax, (values, label) in zip(axes, panels, strict=True):
        low, high = float(values.min()), float(values.max())
        ax.fill_between(recording.times, low, high, where=recording.in_contact, color="0.9", linewidth=0, step="pre")
        for axis, name in enumerate("xyz"):
            ax.plot(recording.times, values[:, axis], label=name, linewidth=1.5)
        ax.set(ylabel=label)
    axes[0].set_ylim(-3 * G, 3 * G)  # impacts go far beyond
    axes[0].legend(frameon=False, ncols=3)
    axes[1].set(xlabel="time (s)")
    return axes
