"""Domain randomization: the distribution p(theta) of scene parameters, and samples from it.

Each factor of a `Domain` (textures, light, camera ...) can be narrowed to a point, as in an ordinary simulator; to
sample factors as widely as reality or more is domain randomization (Tobin et al., arXiv:1703.06907). The cube's
position in the image and its yaw are the task itself and never narrowed.
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
    """Uniform distribution on [low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise InvalidArgument("low, high", (self.low, self.high), "two finite numbers, low <= high")

    def sample(self, rng: np.random.Generator) -> float:
        """Draw one number."""
        return float(self.low + (self.high - self.low) * rng.random())

    def narrowed(self, kappa: float) -> Uniform:
        """The distribution `kappa` times as wide, around the same center."""
        if kappa == 1:
            return self
        center, half = (self.low + self.high) / 2, kappa * (self.high - self.low) / 2
        return Uniform(center - half, center + half)

    def __str__(self) -> str:
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Choice:
    """Categorical distribution over values, uniform without weights."""

    values: tuple[Any, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.values:
            raise InvalidArgument("values", self.values, "at least one value")
        total = sum(self.weights)
        if self.weights and (len(self.weights) != len(self.values) or min(self.weights) < 0 or abs(total - 1) > 1e-9):
            raise InvalidArgument("weights", self.weights, "a probability for each value, with sum 1")

    def sample(self, rng: np.random.Generator) -> Any:
        """Draw one value."""
        return self.values[int(rng.choice(len(self.values), p=self.weights or None))]

    def narrowed(self, kappa: float) -> Choice:
        """The first `kappa` of the values, at least one."""
        if self.weights:
            raise InvalidArgument("choice", str(self), "a choice without weights")
        return Choice(self.values[: max(1, round(kappa * len(self.values)))])

    def __str__(self) -> str:
        if not self.weights:
            return ", ".join(map(str, self.values))
        return ", ".join(f"{v} {w:.0%}" for v, w in zip(self.values, self.weights, strict=True) if w)


@dataclass(frozen=True)
class TexturePool:
    """Uniform distribution over `n_textures` textures, assigned to the families in turn."""

    families: tuple[str, ...]
    n_textures: int

    def __post_init__(self) -> None:
        if not self.families or self.n_textures < 1:
            raise InvalidArgument("pool", (self.families, self.n_textures), "at least one family and one texture")

    def sample(self, rng: np.random.Generator) -> str:
        """Draw the name of one texture."""
        number = int(rng.integers(self.n_textures))
        return f"{self.families[number % len(self.families)]}-{number // len(self.families)}"

    def narrowed(self, kappa: float) -> TexturePool:
        """The first n_textures^kappa textures: of 1,000 they are 1, 32, 1,000 for kappa 0, 1/2, 1."""
        return TexturePool(self.families, max(1, round(self.n_textures**kappa)))

    def __str__(self) -> str:
        return f"{self.n_textures:,} textures of {len(self.families)} families"


# ── Domains ──


CUBE_SIZE = 0.084  # m, edge of the cube in the photographs
_SITUATIONS = ("typical", "occluded", "at the edge", "tilted")
# texture families for training; the proxy target domain uses the others
TRAIN_TEXTURES = (*PROCEDURAL, *(f"photo-{name}" for name in ("astronaut", "coffee", "coins", "rocket")))
TRAIN_TEXTURES += tuple(f"pybullet-{name}" for name in PYBULLET)
HELD_OUT_TEXTURES = tuple(f"photo-{name}" for name in ("brick", "chelsea", "grass", "gravel", "moon"))

FACTORS: dict[str, tuple[str, ...]] = {
    "textures": ("cube_textures", "table_textures", "n_face_textures"),
    "colours": ("tint",),
    "light": (
        "light_azimuth",
        "light_elevation",
        "light_distance",
        "ambient",
        "diffuse",
        "specular",
        "shadow",
        "warmth",
    ),
    "camera": ("distance", "elevation", "roll", "focal_scale", "k1"),
    "distractors": ("distractors",),
    "background": ("backgrounds", "table_size"),
    "finish": ("blur", "exposure", "gamma", "vignetting", "noise", "jpeg_quality"),
}


@dataclass(frozen=True)
class Domain:
    """The density p(theta) of a cube on a table; angles in degrees, lengths in m, the rest as in `CameraEffects`."""

    center_u: Uniform = Uniform(0.12, 0.88)  # position of the cube's center in the image, as a fraction of its size
    center_v: Uniform = Uniform(0.15, 0.85)
    yaw: Uniform = Uniform(0, 360)
    situations: Choice = Choice(_SITUATIONS, (0.87, 0.08, 0.05, 0.0))
    cube_textures: TexturePool = TexturePool(TRAIN_TEXTURES, 1_000)
    table_textures: TexturePool = TexturePool(TRAIN_TEXTURES, 1_000)
    n_face_textures: Choice = Choice((1, 6))
    tint: Uniform = Uniform(0.4, 1)
    light_azimuth: Uniform = Uniform(-180, 180)
    light_elevation: Uniform = Uniform(35, 90)
    light_distance: Uniform = Uniform(1, 4)
    ambient: Uniform = Uniform(0.2, 0.7)
    diffuse: Uniform = Uniform(0.3, 0.9)
    specular: Uniform = Uniform(0, 0.6)
    shadow: Choice = Choice((True, False))
    warmth: Uniform = Uniform(-0.3, 0.3)
    distance: Uniform = Uniform(0.35, 0.75)
    elevation: Uniform = Uniform(12, 75)
    roll: Uniform = Uniform(-15, 15)
    focal_scale: Uniform = Uniform(0.97, 1.03)
    k1: Uniform = Uniform(-0.05, 0.05)
    distractors: Choice = Choice((0, 1, 2, 3, 4, 5))
    backgrounds: TexturePool = TexturePool(TRAIN_TEXTURES, 1_000)
    table_size: Uniform = Uniform(0.6, 3)
    blur: Uniform = Uniform(0, 0.8)
    exposure: Uniform = Uniform(0.25, 0.6)
    gamma: Uniform = Uniform(0.7, 1.4)
    vignetting: Uniform = Uniform(0, 0.4)
    noise: Uniform = Uniform(0, 4)
    jpeg_quality: Uniform = Uniform(70, 95)
    grayscale: bool = True

    def narrowed(self, kappa: float, *factors: str) -> Domain:
        """The domain with the named factors (default: all) at `kappa` times their width, a point for 0.

        Raises `InvalidArgument`.
        """
        if not 0 <= kappa <= 1:
            raise InvalidArgument("kappa", kappa, "a number between 0 and 1")
        if unknown := set(factors) - set(FACTORS):
            raise InvalidArgument("factors", sorted(unknown), f"some of {', '.join(FACTORS)}")
        names = [name for factor in factors or FACTORS for name in FACTORS[factor]]
        return replace(self, **{name: getattr(self, name).narrowed(kappa) for name in names})

    def with_situations(self, **weights: float) -> Domain:
        """Set the probabilities of rare situations, as in `with_situations(occluded=0.5, at_the_edge=0.2)`.

        The rest is typical. Raises `InvalidArgument`.
        """
        rare = {name.replace("_", " "): weight for name, weight in weights.items()}
        if unknown := set(rare) - set(_SITUATIONS[1:]):
            raise InvalidArgument("situation", sorted(unknown), f"some of {', '.join(_SITUATIONS[1:])}")
        if min(rare.values(), default=0) < 0 or sum(rare.values()) > 1:
            raise InvalidArgument("weights", weights, "probabilities whose sum is at most 1")
        typical = 1 - sum(rare.values())
        return replace(self, situations=Choice(_SITUATIONS, (typical, *(rare.get(s, 0.0) for s in _SITUATIONS[1:]))))

    def __str__(self) -> str:
        factor = {name: factor for factor, names in FACTORS.items() for name in names}
        rows = [(factor.get(f.name, "task"), f.name, str(getattr(self, f.name))) for f in dataclasses.fields(self)]
        return "\n".join(f"{group:12}{name:16}{value}" for group, name, value in rows)


# stands in for reality; disjoint from training: other surfaces, low and hard light, a worse sensor, more distortion
PROXY_TARGET = Domain(
    cube_textures=TexturePool(HELD_OUT_TEXTURES, 200),
    table_textures=TexturePool(HELD_OUT_TEXTURES, 200),
    backgrounds=TexturePool(HELD_OUT_TEXTURES, 200),
    light_elevation=Uniform(15, 35),
    ambient=Uniform(0.15, 0.3),
    diffuse=Uniform(0.7, 1.0),
    blur=Uniform(0.8, 1.1),
    noise=Uniform(4, 7),
    k1=Uniform(0.05, 0.08),
    distractors=Choice((1, 2, 3, 4)),
    situations=Choice(_SITUATIONS, (1.0, 0.0, 0.0, 0.0)),
)
# of real-cube/labels.json
PHOTO_CAMERA = Camera(320, 240, 273.8684, 271.0372, 169.1018, 117.0042, (0, 0, 0), (0, 0, 0, 1))


def sample_params(domain: Domain, rng: np.random.Generator, *, width: int = 160, height: int = 120) -> SceneParams:
    """Sample theta from p(theta); the intrinsics are those of the photographs, scaled to the image's size (px)."""
    situation = domain.situations.sample(rng)
    cube = _cube(domain, situation, rng)
    camera = _camera(domain, situation, np.asarray(cube.position), width, height, rng)
    table = _table(domain, rng)
    distractors = _distractors(domain, situation, camera, np.asarray(cube.position), rng)
    light = _light(domain, rng)
    parts = {name: getattr(domain, name).sample(rng) for name in ("blur", "exposure", "gamma", "vignetting", "noise")}
    effects = CameraEffects(jpeg_quality=round(domain.jpeg_quality.sample(rng)), grayscale=domain.grayscale, **parts)
    background = domain.backgrounds.sample(rng)
    return SceneParams(camera, light, (table, cube, *distractors), background, effects, situation)


def _tint(domain: Domain, rng: np.random.Generator) -> Vector:
    return tuple(domain.tint.sample(rng) for _ in range(3))  # type: ignore[return-value]


def _cube(domain: Domain, situation: str, rng: np.random.Generator) -> Body:
    textures = tuple(domain.cube_textures.sample(rng) for _ in range(domain.n_face_textures.sample(rng)))
    rotation, z = _yaw(domain.yaw.sample(rng)), CUBE_SIZE / 2
    if situation == "tilted":  # in the air
        rotation, z = quaternion(Rotation.random(rng=rng)), CUBE_SIZE / 2 + rng.uniform(0.04, 0.15)
    return Body("cube", "cube", (CUBE_SIZE,) * 3, (0.0, 0.0, z), rotation, textures, _tint(domain, rng))


def _camera(domain: Domain, situation: str, cube: Array, width: int, height: int, rng: np.random.Generator) -> Camera:
    scale, focal = width / PHOTO_CAMERA.width, domain.focal_scale.sample(rng)
    fx, fy = (f * scale * focal for f in (PHOTO_CAMERA.fx, PHOTO_CAMERA.fy))
    # pixel centers are integers, so the left edge of pixel 0 is at -0.5
    cx, cy = ((c + 0.5) * scale - 0.5 for c in (PHOTO_CAMERA.cx, PHOTO_CAMERA.cy))
    cy += (height - PHOTO_CAMERA.height * scale) / 2
    distance, elevation = domain.distance.sample(rng), np.radians(domain.elevation.sample(rng))
    eye = cube + distance * np.array([np.cos(elevation), 0.0, np.sin(elevation)])
    u, v = domain.center_u.sample(rng), domain.center_v.sample(rng)
    if situation == "at the edge":
        u = rng.choice([rng.uniform(-0.03, 0.1), rng.uniform(0.9, 1.03)])
    roll, k1 = float(np.radians(domain.roll.sample(rng))), domain.k1.sample(rng)
    pixel = ((u * width - cx) / fx, (v * height - cy) / fy)
    return Camera(width, height, fx, fy, cx, cy, _vector(eye), look_at(eye, cube, roll, pixel), k1)


def _table(domain: Domain, rng: np.random.Generator) -> Body:
    size, textures = domain.table_size.sample(rng), (domain.table_textures.sample(rng),)
    rotation = _yaw(rng.uniform(0, 90))
    position = _vector([*rng.uniform(-0.2, 0.2, 2) * size, 0])
    return Body("table", "plane", (size, size, 1.0), position, rotation, textures, _tint(domain, rng))


def _distractors(domain: Domain, situation: str, camera: Camera, cube: Array, rng: np.random.Generator) -> list[Body]:
    """Objects on the table, none in front of the cube; in occluded scenes the first floats in the line of sight."""
    bodies = []
    n = max(domain.distractors.sample(rng), int(situation == "occluded"))
    for k in range(n):
        shape = str(rng.choice(["cube", "sphere", "cylinder", "cone"]))
        size = rng.uniform(0.02, 0.15, 3) if shape != "sphere" else np.full(3, rng.uniform(0.03, 0.12))
        clearance = float(np.hypot(*size[:2])) / 2 + 0.75 * CUBE_SIZE
        angle = np.radians(rng.uniform(30, 330))  # the camera is at 0
        position = np.array(
            [*(clearance + rng.uniform(0, 0.3)) * np.array([np.cos(angle), np.sin(angle)]), size[2] / 2]
        )
        if situation == "occluded" and k == 0:
            size = np.minimum(size, 0.06)
            offset = camera.R[:2].T @ rng.uniform(-0.035, 0.035, 2)
            position = cube + offset + (camera.eye - cube) * rng.uniform(0.25, 0.5)
        textures, rotation = (domain.table_textures.sample(rng),), _yaw(rng.uniform(0, 360))
        name, tint = f"distractor {k + 1}", _tint(domain, rng)
        bodies.append(Body(name, shape, _vector(size), _vector(position), rotation, textures, tint))
    return bodies


def _light(domain: Domain, rng: np.random.Generator) -> Light:
    azimuth, elevation = np.radians([domain.light_azimuth.sample(rng), domain.light_elevation.sample(rng)])
    flat = np.cos(elevation)
    direction = _vector([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
    warmth = domain.warmth.sample(rng)
    color = _vector(np.clip([1 + warmth, 1, 1 - warmth], 0, 1))
    names = ("light_distance", "ambient", "diffuse", "specular", "shadow")
    return Light(direction, color, *(getattr(domain, name).sample(rng) for name in names))


def _vector(values: Any) -> Vector:
    return tuple(float(v) for v in values)  # type: ignore[return-value]


def _yaw(degrees: float) -> Quaternion:
    half = np.radians(degrees) / 2
    return 0.0, 0.0, float(np.sin(half)), float(np.cos(half))


DOMAINS: Mapping[str, Domain] = {
    "cube": Domain(),
    "cube-narrow": Domain().narrowed(0),
    "cube-half": Domain().narrowed(0.5),
    "stand-in": PROXY_TARGET,
}
