"""Recursive refitting of category frequencies: words, countries, any discrete distribution.

Each generation fits the relative frequencies of n draws from the generation before it. This is the Wright-Fisher model
of genetic drift without mutation: a category that is lost never returns. Generation 0 is the real distribution, 1 the
first fit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synthbook.collapse.refit import check_sizes
from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.core.table import refuse_holdout
from synthbook.core.types import Array, Seed

_Counts = NDArray[np.int64]


def refit_categories(p: ArrayLike, n: int, generations: int, replicates: int, *, seed: Seed) -> Array:
    """Refit the frequencies `p` (types,) to n draws from themselves in each generation.

    Draws multinomial counts, the sufficient statistics of n draws. Returns frequencies,
    (generations + 1, replicates, types); row 0 is `p`. Raises `InvalidArgument`.
    """
    rng, shares = _start(p, n, generations, replicates, seed)
    for t in range(generations):
        # p_{t+1} = counts / n, counts ~ Multinomial(n, p_t)
        shares[t + 1] = rng.multinomial(n, shares[t]) / n
    return shares


def refit_categories_by_sampling(p: ArrayLike, n: int, generations: int, replicates: int, *, seed: Seed) -> Array:
    """Compute `refit_categories` by drawing all n categories and counting them; slow, for checking."""
    rng, shares = _start(p, n, generations, replicates, seed)
    types = shares.shape[-1]
    for t in range(generations):
        for run in range(replicates):
            drawn = rng.choice(types, size=n, p=shares[t, run])
            shares[t + 1, run] = np.bincount(drawn, minlength=types) / n
    return shares


def simulate_absorption(
    p: ArrayLike, n: int, replicates: int, *, seed: Seed, max_generations: int = 100_000
) -> tuple[_Counts, _Counts]:
    """Refit until a single category is left; return its index and the absorption time, (replicates,) each.

    Raises `SynthbookError` if a run still has two categories after `max_generations`.
    """
    shares = np.tile(_frequencies(p), (replicates, 1))  # (replicates, types)
    check_sizes(n, max_generations, replicates)
    rng = np.random.default_rng(seed)
    time = np.zeros(replicates, dtype=np.int64)
    alive = np.flatnonzero(shares.max(axis=1) < 1)
    for t in range(1, max_generations + 1):
        if not len(alive):
            return shares.argmax(axis=1), time
        shares[alive] = rng.multinomial(n, shares[alive]) / n
        time[alive] = t
        alive = alive[shares[alive].max(axis=1) < 1]
    raise SynthbookError(
        f"{len(alive)} of {replicates} runs still vary after {max_generations} generations; raise max_generations"
    )


def heterozygosity(p: ArrayLike) -> Array:
    """Probability that two draws differ (Gini-Simpson index), 1 - sum_i p_i^2, over the last axis."""
    return np.asarray(1 - (np.asarray(p, dtype=float) ** 2).sum(axis=-1))


def _start(p: ArrayLike, n: int, generations: int, replicates: int, seed: Seed) -> tuple[np.random.Generator, Array]:
    frequencies = _frequencies(p)
    check_sizes(n, generations, replicates)
    shares = np.empty((generations + 1, replicates, len(frequencies)))
    shares[0] = frequencies
    return np.random.default_rng(seed), shares


def _frequencies(p: ArrayLike) -> Array:
    refuse_holdout(p, "refitting categories")
    values = np.asarray(p, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or (values < 0).any():
        raise InvalidArgument("p", p, "a list of non-negative frequencies, (types,)")
    if not np.isclose(values.sum(), 1, rtol=0, atol=1e-9):
        raise InvalidArgument("p", float(values.sum()), "frequencies with sum 1; divide counts by their sum")
    return np.asarray(values / values.sum())
