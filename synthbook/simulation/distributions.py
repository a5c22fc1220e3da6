"""The three ways in which a part of theta is drawn; each prints itself, and each can be narrowed to a point."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthbook.core.errors import InvalidArgument


@dataclass(frozen=True)
class Uniform:
    """Any number between `low` and `high`."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise InvalidArgument("low, high", (self.low, self.high), "two finite numbers, the smaller one first")

    def draw(self, rng: np.random.Generator) -> float:
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

    def draw(self, rng: np.random.Generator) -> Any:
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
class Pool:
    """One of `unique` textures, dealt out over the families in turn."""

    families: tuple[str, ...]
    unique: int

    def __post_init__(self) -> None:
        if not self.families or self.unique < 1:
            raise InvalidArgument("pool", (self.families, self.unique), "a family or more and a texture or more")

    def draw(self, rng: np.random.Generator) -> str:
        """One texture's name."""
        number = int(rng.integers(self.unique))
        return f"{self.families[number % len(self.families)]}-{number // len(self.families)}"

    def narrowed(self, kappa: float) -> Pool:
        """The first unique^kappa textures: 1, 32, 1,000 for 0, 1/2, 1."""
        return Pool(self.families, max(1, round(self.unique**kappa)))

    def __str__(self) -> str:
        return f"{self.unique:,} textures of {len(self.families)} families"
