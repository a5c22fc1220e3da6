"""A generator in one file, as a reader writes it: training rows drawn again, with numbers shaken a little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from synthbook.generators.base import Tensors
from synthbook.generators.tabular.base import TableGenerator
from synthbook.generators.tabular.encoding import as_numbers, from_numbers


@dataclass(frozen=True)
class JitterConfig:
    scale: float = 0.1  # standard deviation of the noise, relative to the column's


class Jitter(TableGenerator):
    """The rows of the table, with noise."""

    family, config_class = "jitter", JitterConfig

    def _fit(self, frame: pd.DataFrame, seed: np.random.SeedSequence, **training: Any) -> None:
        self.rows_ = np.stack([as_numbers(c, frame[c.name]) for c in self.table_spec_.modeled], axis=1)

    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        rows = self.rows_[rng.integers(len(self.rows_), size=n)]
        for j, column in enumerate(self.table_spec_.modeled):
            if not column.categories:
                rows[:, j] += self.config.scale * np.nanstd(self.rows_[:, j]) * rng.standard_normal(n)
        return pd.DataFrame({c.name: from_numbers(c, rows[:, j]) for j, c in enumerate(self.table_spec_.modeled)})

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        return {"rows": self.rows_}, {}

    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        self.rows_ = tensors["rows"].numpy()
