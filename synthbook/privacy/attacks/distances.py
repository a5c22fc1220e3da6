"""Distances to the nearest real record: what is usually reported, and its limits.

    DCR    distance from a synthetic row to the nearest training row; beside it, that of held-out real rows
    NNDR   that distance over the one to the second nearest: near 0 where a row is close to one person only
    share  of synthetic rows nearer to training than to held-out rows, ties split: `evaluation.novelty`

None is a verdict on privacy. Rows that are close may be common (claim C5.3-3a); a release that shifts every training
row by one vector is far from all of them and discloses all of them (C5.3-3c).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from synthbook.core.types import Array
from synthbook.evaluation.novelty import NoveltyResult, novelty
from synthbook.privacy.attacks.membership import MIN_DISTANCE, knn_distances

NO_VERDICT = "not a privacy verdict"
LOW_PERCENTILE = 5  # reported beside the median


@dataclass(frozen=True)
class Distances:
    """Median and 5th percentile of DCR and NNDR, of synthetic and of held-out rows; and the novelty share."""

    dcr: tuple[float, float]
    dcr_holdout: tuple[float, float]
    nndr: tuple[float, float]
    nndr_holdout: tuple[float, float]
    novelty: NoveltyResult

    def to_dict(self) -> dict[str, Any]:
        """As plain data, with a note that it is no verdict."""
        return asdict(self) | {"note": NO_VERDICT}

    def __str__(self) -> str:
        return (
            f"distance to the nearest training row {self.dcr[0]:.3g} (held-out rows {self.dcr_holdout[0]:.3g}), "
            f"ratio to the second {self.nndr[0]:.3g} ({self.nndr_holdout[0]:.3g}), share nearer to training rows "
            f"{self.novelty.dcr_share:.3f} ({self.novelty.low:.3f} to {self.novelty.high:.3f} by chance): {NO_VERDICT}"
        )


def distances(synthetic: Array, train: Array, holdout: Array, *, seed: int) -> Distances:
    """Distances of synthetic rows (M, d) to training rows (N, d), beside those of held-out rows.

    Raises `InvalidArgument`.
    """
    share = novelty(synthetic, train=train, holdout=holdout, seed=seed)  # checks all three
    ours, theirs = (knn_distances(rows, train, 2) for rows in (synthetic, holdout))
    dcr, dcr_holdout = _summary(ours[:, 0]), _summary(theirs[:, 0])
    return Distances(dcr, dcr_holdout, _summary(_ratio(ours)), _summary(_ratio(theirs)), share)


def _ratio(pairs: Array) -> Array:
    # two training rows at distance 0 are as equal as two at 1: the ratio of equal distances is 1
    return np.asarray(np.maximum(pairs[:, 0], MIN_DISTANCE) / np.maximum(pairs[:, 1], MIN_DISTANCE))


def _summary(values: Array) -> tuple[float, float]:
    return float(np.median(values)), float(np.percentile(values, LOW_PERCENTILE))
