"""A filter that deletes every released row near a training row, and what it draws: the training rows, as holes.

    s(x) = log r_1(x) - log r_k(x),     r_k the distance from x to the k-th nearest released row

Where the release is dense around x (small r_k) and still keeps away from it (large r_1), somebody was cut out. Ganev
and De Cristofaro, arXiv:2312.05114; claim C5.3-4.
"""

from __future__ import annotations

import numpy as np

from synthbook.core.errors import InvalidArgument
from synthbook.models.tabular.values import Array
from synthbook.privacy.attacks.membership import LEAST, nearest
from synthbook.privacy.audit import Scores

AROUND = 50  # k: neighbours that tell how dense the release is here


def filtered(released: Array, train: Array, radius: float) -> Array:
    """Released rows (M, d) without those nearer than `radius` to a training row (N, d)."""
    if not radius > 0:
        raise InvalidArgument("radius", radius, "a distance above 0")
    return released[nearest(released, train)[:, 0] >= radius]


def hole(candidates: Array, released: Array, *, k: int = AROUND) -> Scores:
    """How much a release (M, d) keeps away from each candidate (N,), for how dense it is around it."""
    found = nearest(candidates, released, k)
    return np.asarray(np.log(np.maximum(found[:, 0], LEAST)) - np.log(np.maximum(found[:, -1], LEAST)))
