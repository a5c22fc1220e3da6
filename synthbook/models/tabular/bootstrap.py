"""The smoothed bootstrap: real rows, drawn with replacement and shaken a little (Silverman and Young 1987).

    z' = (z + h eps) / sqrt(1 + h^2)

on each number's normal score, so that the variance stays; a category is now and then drawn anew. The model is its
training rows: whoever has the file has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from synthbook.core.errors import InvalidArgument
from synthbook.models.tabular.copula import Marginals
from synthbook.models.tabular.protocol import Tensors, Training
from synthbook.models.tabular.values import as_numbers, from_numbers


@dataclass(frozen=True)
class BootstrapConfig:
    """`bandwidth` h of the numbers, and the share `anew` of categories that are drawn from their own distribution."""

    bandwidth: float = 0.1
    anew: float = 0.05

    def __post_init__(self) -> None:
        if not (self.bandwidth >= 0 and 0 <= self.anew <= 1):
            raise InvalidArgument("bandwidth, anew", (self.bandwidth, self.anew), "h >= 0 and a share from 0 to 1")


class Bootstrap(Marginals):
    """Training rows, shaken; with bandwidth and anew 0 it copies them."""

    family, settings = "table-bootstrap", BootstrapConfig

    def _fit(self, frame: pd.DataFrame, seed: np.random.SeedSequence, training: Training) -> None:
        super()._fit(frame, seed, training)
        self.rows_ = np.stack([as_numbers(column, frame[column.name]) for column in self.layout_.modelled], axis=1)

    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        rng, h = np.random.default_rng(seed), self.config.bandwidth
        rows = self.rows_[rng.integers(len(self.rows_), size=n)]
        columns = {}
        for j, margin in enumerate(self.margins_):
            column, shaken = margin.column, rows[:, j]
            if column.categories:
                shaken = np.where(rng.random(n) < self.config.anew, margin.quantile(rng.random(n)), shaken)
            elif h > 0:
                z = ndtri(margin.draw_levels(from_numbers(column, shaken), rng))
                shaken = margin.quantile(ndtr((z + h * rng.standard_normal(n)) / np.sqrt(1 + h**2)))
            columns[column.name] = from_numbers(column, shaken)
        return pd.DataFrame(columns)

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        tensors, facts = super()._state()
        return {**tensors, "rows": self.rows_}, facts

    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        super()._set_state(tensors, facts)
        self.rows_ = tensors["rows"].numpy()
