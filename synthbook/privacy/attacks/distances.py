"""Distances to the nearest real record: what is usually reported, with what it leaves out.

    DCR    distance from a released row to the closest training row; beside it, how far held-out real rows lie
    NNDR   that distance over the one to the second closest: near 0 where a row clings to a single person
    share  of released rows nearer to training than to held-out rows, ties split: `evaluation.novelty`

None is a verdict on privacy. Rows that lie close may be common (claim C5.3-3a); a release that shifts every training
row by one vector is far from all of them and gives all of them away (C5.3-3c).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from synthbook.core.types import Array
from synthbook.evaluation.novelty import NoveltyResult, novelty
from synthbook.privacy.attacks.membership import LEAST, knn_distances

NO_VERDICT = "not a privacy verdict"
LOW = 5  # percentile that is reported beside the median


@dataclass(frozen=True)
class Distances:
    """Median and 5th percentile of DCR and NNDR, of released rows and of held-out ones; and the novelty share."""

    dcr: tuple[float, float]
    dcr_holdout: tuple[float, float]
    nndr: tuple[float, float]
    nndr_holdout: tuple[float, float]
    novelty: NoveltyResult

    def to_dict(self) -> dict[str, Any]:
        """As plain data, with what it is not."""
        return asdict(self) | {"reads": NO_VERDICT}

    def __str__(self) -> str:
        return (
            f"distance to the closest training row {self.dcr[0]:.3g} (held-out rows {self.dcr_holdout[0]:.3g}), "
            f"ratio to the second {self.nndr[0]:.3g} ({self.nndr_holdout[0]:.3g}), share nearer to training rows "
            f"{self.novelty.dcr_share:.3f} ({self.novelty.low:.3f} to {self.novelty.high:.3f} by chance): {NO_VERDICT}"
        )


def distances(released: Array, train: Array, holdout: Array, *, seed: int) -> Distances:
    """Of released rows (M, d), against training rows (N, d) and held-out ones. Raises `InvalidArgument`."""
    found = novelty(released, train, holdout, seed=seed)  # checks all three
    ours, others = (knn_distances(rows, train, 2) for rows in (released, holdout))
    return Distances(_low(ours[:, 0]), _low(others[:, 0]), _low(_ratio(ours)), _low(_ratio(others)), found)


def _ratio(pairs: Array) -> Array:
    # two twins at distance 0 are no less alike than two at 1: the ratio of equals is 1
    return np.asarray(np.maximum(pairs[:, 0], LEAST) / np.maximum(pairs[:, 1], LEAST))


def _low(values: Array) -> tuple[float, float]:
    return float(np.median(values)), float(np.percentile(values, LOW))
