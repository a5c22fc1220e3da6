"""The smallest GAN there is: one number generates, one number judges, and the two can circle for ever.

The data are the point 0, the generator is the point theta, the discriminator is D(x) = psi x. The generator goes down
on, and the discriminator up, f(psi theta) + f(0): the Dirac-GAN of Mescheder et al., arXiv:1801.04406.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument

Array = NDArray[np.float64]


def _logistic(t: float) -> float:
    """f'(t) of f(t) = -ln(1 + exp(-t)), the loss of the first GAN; f'(0) = 1/2."""
    return float(1 / (1 + np.exp(t)))


def _wasserstein(t: float) -> float:
    """f'(t) of f(t) = t."""
    return 1.0


@dataclass(frozen=True)
class Game:
    """Which way each player steps: `slope` is f', `pull` what a penalty adds to the step of psi, `clip` bounds psi."""

    slope: Callable[[float], float] = _logistic
    pull: Callable[[float], float] = lambda psi: 0.0
    clip: float = np.inf


def _towards_slope_one(psi: float) -> float:
    """Minus the gradient of 1/2 (|psi| - 1)^2: WGAN-GP wants a discriminator of slope 1, also at the equilibrium."""
    return float(-(abs(psi) - 1) * np.sign(psi))


GAMES = {
    "plain": Game(),
    "WGAN, clipped": Game(_wasserstein, clip=1.0),
    "WGAN-GP": Game(_wasserstein, _towards_slope_one),
    "R1": Game(pull=lambda psi: -psi),  # gamma = 1: minus the gradient of 1/2 psi^2, a slope of 0 is wanted at the data
}


def play(
    game: Game, *, h: float = 0.1, steps: int = 1_000, start: tuple[float, float] = (1.0, 1.0), take_turns: bool = False
) -> Array:
    """The path (steps + 1, 2) of (theta, psi) under gradient steps of size h.

    Both step at once, or with `take_turns` the discriminator answers what the generator has done. Near the equilibrium
    simultaneous steps multiply the distance by sqrt(1 + h^2 f'(0)^2), whatever h > 0.
    """
    if not (h > 0 and steps >= 1):
        raise InvalidArgument("h, steps", (h, steps), "a step size above 0 and at least one step")
    path = np.empty((steps + 1, 2))
    path[0] = theta, psi = start
    for k in range(steps):
        moved = theta - h * psi * game.slope(psi * theta)
        seen = moved if take_turns else theta
        psi = psi + h * (seen * game.slope(psi * seen) + game.pull(psi))
        theta, psi = moved, float(np.clip(psi, -game.clip, game.clip))
        path[k + 1] = theta, psi
    return path


def radius(path: Array) -> Array:
    """Distance (steps + 1,) from the equilibrium (0, 0)."""
    return np.asarray(np.hypot(path[:, 0], path[:, 1]))


def turn(path: Array) -> Array:
    """Angle (steps,) in radians by which each step turns about the equilibrium."""
    angle = np.unwrap(np.arctan2(path[:, 1], path[:, 0]))
    return np.diff(angle)
