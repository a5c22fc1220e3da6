"""Inputs that every machine makes alike, bit for bit: uniform numbers and sums and products of them, nothing else.

Normal draws pass through logarithms, whose last bits differ from one processor to the next; then hashes would too.
"""

from __future__ import annotations

import numpy as np


def make(seed: int, n: int, m: int, d: int, shift: float = 0.0, width: float = 1.0) -> dict[str, np.ndarray]:
    """Two samples (n, d) and (m, d) with nearly Gaussian, correlated columns; the second one moved and narrowed."""
    rng = np.random.default_rng(seed)
    return {"real": _bells(rng, n, d), "synthetic": _bells(rng, m, d) * width + shift}


def _bells(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    x = sum(rng.random((n, d)) for _ in range(12)) - 6.0  # variance 1
    x[:, 1:] = x[:, 1:] + 0.5 * x[:, :-1]
    return x
