"""p(theta): what may vary, how far, and one scene drawn from it.

A `Domain` is a distribution you can print. Its factors (textures, light, camera ...) can each be narrowed to a point,
which is what an ordinary simulator is; drawing them as wide as reality or wider is domain randomization (Tobin et al.,
arXiv:1703.06907). Where the cube stands in the picture and how it is turned is the task itself and is never narrowed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array
from synthbook.simulation.scene import (
    Body,
    Camera,
    CameraEffects,
    Light,
    Quaternion,
    SceneParams,
    Vector,
    look_at,
    quaternion,
)
from synthbook.simulation.textures import PROCEDURAL, PYBULLET


@dataclass(frozen=True)
class Uniform:
    """Any number between `low` and `high`."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise InvalidArgument("low, high", (self.low, self.high), "two finite numbers, the smaller one first")

    def sample(self, rng: np.random.Generator) -> float:
        """One number."""
        return float(self.low + (self.high - self.low) * rng.random())

    def narrowed(self, kappa: float) -> Uniform:
        """`kappa` times as wide, around the middle."""
        if kappa == 1:
            return self
        middle, half = (self.low + self.high) / 2, kappa * (self.high - self.low) / 2
        return Uniform(middle - half, middle + half)

    def __str__(self) -> str:
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Choice:
    """One of several values, equally often or by weights."""

    values: tuple[Any, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.values:
            raise InvalidArgument("values", self.values, "at least one value")
        total = sum(self.weights)
        if self.weights and (len(self.weights) != len(self.values) or min(self.weights) < 0 or abs(total - 1) > 1e-9):
            raise InvalidArgument("weights", self.weights, "for each value a share of at least 0, 1 in all")

    def sample(self, rng: np.random.Generator) -> Any:
        """One value."""
        return self.values[int(rng.choice(len(self.values), p=self.weights or None))]

    def narrowed(self, kappa: float) -> Choice:
        """The first `kappa` of the values, at least one."""
        if self.weights:
            raise InvalidArgument("choice", str(self), "one without weights: it is not clear what to leave out")
        return Choice(self.values[: max(1, round(kappa * len(self.values)))])

    def __str__(self) -> str:
        if not self.weights:
            return ", ".join(map(str, self.values))
        return ", ".join(f"{v} {w:.0%}" for v, w in zip(self.values, self.weights, strict=True) if w)


@dataclass(frozen=True)
class TexturePool:
    """One of `unique` textures, dealt out over the families in turn."""

    families: tuple[str, ...]
    unique: int

    def __post_init__(self) -> None:
        if not self.families or self.unique < 1:
            raise InvalidArgument("pool", (self.families, self.unique), "a family or more and a texture or more")

    def sample(self, rng: np.random.Generator) -> str:
        """One texture's name."""
        number = int(rng.integers(self.unique))
        return f"{self.families[number % len(self.families)]}-{number // len(self.families)}"

    def narrowed(self, kappa: float) -> TexturePool:
        """The first unique^kappa textures: 1, 32, 1,000 for 0, 1/2, 1."""
        return TexturePool(self.families, max(1, round(self.unique**kappa)))

    def __str__(self) -> str:
        return f"{self.unique:,} textures of {len(self.families)} families"


# ── Randomized scenes ──


CUBE_SIZE = 0.084  # m, the edge of the cube in the photographs
SITUATIONS = ("typical", "occluded", "at the edge", "tilted")
# seen in training; the stand-in for reality has the others
TRAIN_TEXTURES = (*PROCEDURAL, *(f"photo-{name}" for name in ("astronaut", "coffee", "coins", "rocket")))
TRAIN_TEXTURES += tuple(f"pybullet-{name}" for name in PYBULLET)
HELD_OUT_TEXTURES = tuple(f"photo-{name}" for name in ("brick", "chelsea", "grass", "gravel", "moon"))

FACTORS: dict[str, tuple[str, ...]] = {
    "textures": ("cube_textures", "table_textures", "faces"),
    "colours": ("tint",),
    "light": ("lamp_azimuth", "lamp_elevation", "lamp_distance", "ambient", "diffuse", "specular", "shadow", "warmth"),
    "camera": ("distance", "elevation", "roll", "focal", "k1"),
    "distractors": ("distractors",),
    "background": ("backgrounds", "table_size"),
    "finish": ("blur", "exposure", "gamma", "vignetting", "noise", "jpeg"),
}


@dataclass(frozen=True)
class Domain:
    """p(theta) for a cube on a table: angles in degrees, lengths in m, the rest as in `CameraEffects` and `Light`."""

    across: Uniform = Uniform(0.12, 0.88)  # where the cube's centre is seen, as a share of the picture
    down: Uniform = Uniform(0.15, 0.85)
    yaw: Uniform = Uniform(0, 360)
    situations: Choice = Choice(SITUATIONS, (0.87, 0.08, 0.05, 0.0))
    cube_textures: TexturePool = TexturePool(TRAIN_TEXTURES, 1_000)
    table_textures: TexturePool = TexturePool(TRAIN_TEXTURES, 1_000)
    faces: Choice = Choice((1, 6))
    tint: Uniform = Uniform(0.4, 1)
    lamp_azimuth: Uniform = Uniform(-180, 180)
    lamp_elevation: Uniform = Uniform(35, 90)
    lamp_distance: Uniform = Uniform(1, 4)
    ambient: Uniform = Uniform(0.2, 0.7)
    diffuse: Uniform = Uniform(0.3, 0.9)
    specular: Uniform = Uniform(0, 0.6)
    shadow: Choice = Choice((True, False))
    warmth: Uniform = Uniform(-0.3, 0.3)
    distance: Uniform = Uniform(0.35, 0.75)
    elevation: Uniform = Uniform(12, 75)
    roll: Uniform = Uniform(-15, 15)
    focal: Uniform = Uniform(0.97, 1.03)
    k1: Uniform = Uniform(-0.05, 0.05)
    distractors: Choice = Choice((0, 1, 2, 3, 4, 5))
    backgrounds: TexturePool = TexturePool(TRAIN_TEXTURES, 1_000)
    table_size: Uniform = Uniform(0.6, 3)
    blur: Uniform = Uniform(0, 0.8)
    exposure: Uniform = Uniform(0.25, 0.6)
    gamma: Uniform = Uniform(0.7, 1.4)
    vignetting: Uniform = Uniform(0, 0.4)
    noise: Uniform = Uniform(0, 4)
    jpeg: Uniform = Uniform(70, 95)
    grey: bool = True

    def narrowed(self, kappa: float, *factors: str) -> Domain:
        """The named factors (all without names) at `kappa` times their width: 0 is a point, 1 changes nothing."""
        if not 0 <= kappa <= 1:
            raise InvalidArgument("kappa", kappa, "a share between 0 and 1")
        if unknown := set(factors) - set(FACTORS):
            raise InvalidArgument("factors", sorted(unknown), f"some of {', '.join(FACTORS)}")
        names = [name for factor in factors or FACTORS for name in FACTORS[factor]]
        return replace(self, **{name: getattr(self, name).narrowed(kappa) for name in names})

    def with_situations(self, **weights: float) -> Domain:
        """Set the share of rare situations, as in `with_situations(occluded=0.5, at_the_edge=0.2)`.

        The rest is typical. Raises `InvalidArgument`.
        """
        asked = {name.replace("_", " "): weight for name, weight in weights.items()}
        if unknown := set(asked) - set(SITUATIONS[1:]):
            raise InvalidArgument("situation", sorted(unknown), f"some of {', '.join(SITUATIONS[1:])}")
        if min(asked.values(), default=0) < 0 or sum(asked.values()) > 1:
            raise InvalidArgument("weights", weights, "shares of at least 0 that do not add up to more than 1")
        left = 1 - sum(asked.values())
        return replace(self, situations=Choice(SITUATIONS, (left, *(asked.get(s, 0.0) for s in SITUATIONS[1:]))))

    def __str__(self) -> str:
        factor = {name: factor for factor, names in FACTORS.items() for name in names}
        rows = [(factor.get(f.name, "task"), f.name, str(getattr(self, f.name))) for f in dataclasses.fields(self)]
        return "\n".join(f"{where:12}{name:16}{value}" for where, name, value in rows)


# what the training generator never produces: other surfaces, low and hard light, a worse sensor, another lens
PROXY_TARGET = Domain(
    cube_textures=TexturePool(HELD_OUT_TEXTURES, 200),
    table_textures=TexturePool(HELD_OUT_TEXTURES, 200),
    backgrounds=TexturePool(HELD_OUT_TEXTURES, 200),
    lamp_elevation=Uniform(15, 35),
    ambient=Uniform(0.15, 0.3),
    diffuse=Uniform(0.7, 1.0),
    blur=Uniform(0.8, 1.1),
    noise=Uniform(4, 7),
    k1=Uniform(0.05, 0.08),
    distractors=Choice((1, 2, 3, 4)),
    situations=Choice(SITUATIONS, (1.0, 0.0, 0.0, 0.0)),
)
PHOTO_CAMERA = Camera(
    320, 240, 273.8684, 271.0372, 169.1018, 117.0042, (0, 0, 0), (0, 0, 0, 1)
)  # real-cube/labels.json


def sample_params(domain: Domain, rng: np.random.Generator, *, width: int = 160, height: int = 120) -> SceneParams:
    """One scene: theta ~ p(theta). The camera's intrinsics are those of the photographs, scaled to the picture."""
    situation = domain.situations.sample(rng)
    cube = _cube(domain, situation, rng)
    camera = _camera(domain, situation, np.asarray(cube.position), width, height, rng)
    table = _table(domain, rng)
    others = _distractors(domain, situation, camera, np.asarray(cube.position), rng)
    light = _light(domain, rng)
    parts = {name: getattr(domain, name).sample(rng) for name in ("blur", "exposure", "gamma", "vignetting", "noise")}
    finish = CameraEffects(jpeg=round(domain.jpeg.sample(rng)), grey=domain.grey, **parts)
    background = domain.backgrounds.sample(rng)
    return SceneParams(camera, light, (table, cube, *others), background, finish, situation)


def _tint(domain: Domain, rng: np.random.Generator) -> Vector:
    return tuple(domain.tint.sample(rng) for _ in range(3))  # type: ignore[return-value]


def _cube(domain: Domain, situation: str, rng: np.random.Generator) -> Body:
    textures = tuple(domain.cube_textures.sample(rng) for _ in range(domain.faces.sample(rng)))
    turn, height = _about_z(domain.yaw.sample(rng)), CUBE_SIZE / 2
    if situation == "tilted":  # held in the air
        turn, height = quaternion(Rotation.random(rng=rng)), CUBE_SIZE / 2 + rng.uniform(0.04, 0.15)
    return Body("cube", "cube", (CUBE_SIZE,) * 3, (0.0, 0.0, height), turn, textures, _tint(domain, rng))


def _camera(domain: Domain, situation: str, cube: Array, width: int, height: int, rng: np.random.Generator) -> Camera:
    scale, focal = width / PHOTO_CAMERA.width, domain.focal.sample(rng)
    fx, fy = (f * scale * focal for f in (PHOTO_CAMERA.fx, PHOTO_CAMERA.fy))
    # a pixel's centre is a whole number, its left edge 0.5 less
    cx, cy = ((c + 0.5) * scale - 0.5 for c in (PHOTO_CAMERA.cx, PHOTO_CAMERA.cy))
    cy += (height - PHOTO_CAMERA.height * scale) / 2
    distance, elevation = domain.distance.sample(rng), np.radians(domain.elevation.sample(rng))
    toward = np.array([np.cos(elevation), 0.0, np.sin(elevation)])
    eye = cube + distance * toward
    across, down = domain.across.sample(rng), domain.down.sample(rng)
    if situation == "at the edge":
        across = rng.choice([rng.uniform(-0.03, 0.1), rng.uniform(0.9, 1.03)])
    roll, k1 = float(np.radians(domain.roll.sample(rng))), domain.k1.sample(rng)
    aim = ((across * width - cx) / fx, (down * height - cy) / fy)
    return Camera(width, height, fx, fy, cx, cy, _vector(eye), look_at(eye, cube, roll, aim), k1)


def _table(domain: Domain, rng: np.random.Generator) -> Body:
    size, textures = domain.table_size.sample(rng), (domain.table_textures.sample(rng),)
    turn = _about_z(rng.uniform(0, 90))
    where = _vector([*rng.uniform(-0.2, 0.2, 2) * size, 0])
    return Body("table", "plane", (size, size, 1.0), where, turn, textures, _tint(domain, rng))


def _distractors(domain: Domain, situation: str, camera: Camera, cube: Array, rng: np.random.Generator) -> list[Body]:
    """Things on the table, none before the cube; where it should be occluded, one is held into the line of sight."""
    bodies = []
    n = max(domain.distractors.sample(rng), int(situation == "occluded"))
    for k in range(n):
        shape = str(rng.choice(["cube", "sphere", "cylinder", "cone"]))
        size = rng.uniform(0.02, 0.15, 3) if shape != "sphere" else np.full(3, rng.uniform(0.03, 0.12))
        reach = float(np.hypot(*size[:2])) / 2 + 0.75 * CUBE_SIZE
        angle = np.radians(rng.uniform(30, 330))  # the camera is at 0
        where = np.array([*(reach + rng.uniform(0, 0.3)) * np.array([np.cos(angle), np.sin(angle)]), size[2] / 2])
        if situation == "occluded" and k == 0:  # held into the picture
            size = np.minimum(size, 0.06)
            aside = camera.R[:2].T @ rng.uniform(-0.035, 0.035, 2)
            where = cube + aside + (camera.eye - cube) * rng.uniform(0.25, 0.5)
        textures, turn = (domain.table_textures.sample(rng),), _about_z(rng.uniform(0, 360))
        name, tint = f"distractor {k + 1}", _tint(domain, rng)
        bodies.append(Body(name, shape, _vector(size), _vector(where), turn, textures, tint))
    return bodies


def _light(domain: Domain, rng: np.random.Generator) -> Light:
    azimuth, elevation = np.radians([domain.lamp_azimuth.sample(rng), domain.lamp_elevation.sample(rng)])
    flat = np.cos(elevation)
    direction = _vector([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
    warm = domain.warmth.sample(rng)
    colour = _vector(np.clip([1 + warm, 1, 1 - warm], 0, 1))
    names = ("lamp_distance", "ambient", "diffuse", "specular", "shadow")
    return Light(direction, colour, *(getattr(domain, name).sample(rng) for name in names))


def _vector(values: Any) -> Vector:
    return tuple(float(v) for v in values)  # type: ignore[return-value]


def _about_z(degrees: float) -> Quaternion:
    half = np.radians(degrees) / 2
    return 0.0, 0.0, float(np.sin(half)), float(np.cos(half))


DOMAINS: Mapping[str, Domain] = {
    "cube": Domain(),
    "cube-narrow": Domain().narrowed(0),
    "cube-half": Domain().narrowed(0.5),
    "stand-in": PROXY_TARGET,
}
