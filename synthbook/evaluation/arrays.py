"""Checks at the door of every measure that takes rows of features (N, d)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synthbook.core.errors import InvalidArgument

Array = NDArray[np.float64]
Seed = int | np.random.SeedSequence


def checked(least: int = 1, **named: ArrayLike) -> list[Array]:
    """The named arrays as float64 (N, d), each with at least `least` rows, finite, and all with the same columns.

    Raises `InvalidArgument` that names the array, its shape and what is accepted.
    """
    arrays: list[Array] = []
    for name, values in named.items():
        try:
            x = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise InvalidArgument(name, type(values).__name__, "numbers, one row of features for each record") from None
        if x.ndim != 2 or x.shape[1] == 0:
            raise InvalidArgument(name, f"array of shape {x.shape}", "an array (rows, features)")
        if len(x) < least:
            raise InvalidArgument(name, f"array with {len(x)} rows", f"at least {least} rows")
        if not np.isfinite(x).all():
            bad = int((~np.isfinite(x).all(axis=1)).sum())
            raise InvalidArgument(name, f"array with NaN or infinity in {bad} rows", "finite numbers")
        if arrays and x.shape[1] != arrays[0].shape[1]:
            first = next(iter(named))
            raise InvalidArgument(
                name, f"array with {x.shape[1]} features", f"the {arrays[0].shape[1]} features of {first}"
            )
        arrays.append(x)
    return arrays


def subsample(x: Array, n: int, rng: np.random.Generator) -> Array:
    """`n` different rows in their old order, or all rows when there are no more than `n`."""
    return x if len(x) <= n else x[np.sort(rng.choice(len(x), n, replace=False))]
