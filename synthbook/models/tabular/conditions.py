"""Training by sampling: a category for each row of a batch, rare ones often (arXiv:1907.00503, section 4.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from synthbook.models.tabular.encode import Span

Index = tuple[Tensor, Tensor, Tensor]  # rows sorted by state (N,); where a state begins, and how many have it


@dataclass(frozen=True, eq=False)
class Conditions:
    """The categories that a row can be told to have: the columns' spans, and each category's share of the rows."""

    spans: tuple[Span, ...]
    shares: tuple[Tensor, ...]

    @property
    def width(self) -> int:
        """States of all columns."""
        return sum(span.width for span in self.spans)

    @property
    def rarest(self) -> int:
        """The column with the rarest state."""
        return min(range(len(self.shares)), key=lambda j: float(self.shares[j][self.shares[j] > 0].min()))

    def draw(
        self, n: int, rng: torch.Generator, *, rows: int | None = None, only: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Columns (n,) and states (n,): by share, or by the logarithm of their count among `rows` rows.

        Any column is drawn, or `only` one.
        """
        column = torch.randint(len(self.spans), (n,), generator=rng)
        if only is not None:
            column[:] = only
        state = torch.zeros(n, dtype=torch.int64)
        for j, share in enumerate(self.shares):
            weight = share if rows is None else torch.log1p(share * rows)
            mine = column == j
            if mine.any():
                state[mine] = torch.multinomial(weight, int(mine.sum()), replacement=True, generator=rng)
        return column, state

    def one_hot(self, column: Tensor, state: Tensor) -> Tensor:
        """What the networks are told (n, width): a single one."""
        offset = torch.tensor(np.cumsum([0, *(span.width for span in self.spans)])[:-1])
        return F.one_hot(offset[column] + state, self.width).float()

    def index(self, x: Tensor) -> list[Index]:
        """Where in x (N, width) the rows with each state are, for each column."""
        found = []
        for span in self.spans:
            states = x[:, span.start : span.start + span.width].argmax(dim=1)
            count = states.bincount(minlength=span.width)
            found.append((states.argsort(stable=True), count.cumsum(0) - count, count))
        return found

    def rows(self, index: list[Index], column: Tensor, state: Tensor, rng: torch.Generator) -> Tensor:
        """Numbers (n,) of rows that have these states, each drawn among all that have it."""
        chosen = torch.zeros(len(column), dtype=torch.int64)
        share = torch.rand(len(column), generator=rng, dtype=torch.float64)
        for j, (order, first, count) in enumerate(index):
            mine = column == j
            wanted = state[mine]
            chosen[mine] = order[first[wanted] + (share[mine] * count[wanted]).long()]
        return chosen
