"""The common part of neural generators of tables."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from synthbook.core.checkpoints import CheckpointConfig
from synthbook.core.errors import InvalidArgument
from synthbook.core.storage import sha256
from synthbook.core.types import Callback, child_seed
from synthbook.generators.base import Tensors
from synthbook.generators.neural import NeuralModel, step_rng
from synthbook.generators.tabular.base import TableGenerator
from synthbook.generators.tabular.encoding import DataTransformer, Span

_LEARNING, _WRITING = 2**31, 2**31 + 1  # children of a fit's seed; the smaller ones are training steps


@dataclass(frozen=True)
class NeuralTableConfig:
    """Settings of all families: training steps, rows in a batch, learning rate, units of a hidden layer."""

    steps: int = 3_000
    batch_size: int = 500
    learning_rate: float = 1e-3
    hidden: int = 256

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.hidden) < 1 or self.learning_rate <= 0:
            given = (self.steps, self.batch_size, self.hidden, self.learning_rate)
            raise InvalidArgument("steps, batch_size, hidden, learning_rate", given, "positive numbers")


class NeuralTableGenerator(NeuralModel, TableGenerator):
    """The common part of networks that generate tables."""

    @abstractmethod
    def _learn_encoding(self, frame: pd.DataFrame, rng: np.random.Generator) -> None:
        """Fit the encoding of rows as numbers."""

    @abstractmethod
    def _encode(self, frame: pd.DataFrame, rng: np.random.Generator) -> Tensor:
        """Rows (N, width)."""

    @abstractmethod
    def _build(self) -> dict[str, nn.Module]:
        """The networks for this encoding."""

    def _fit(
        self,
        frame: pd.DataFrame,
        seed: np.random.SeedSequence,
        *,
        steps: int | None = None,
        checkpoint: CheckpointConfig | None = None,
        callback: Callback | None = None,
    ) -> None:
        self._learn_encoding(frame, np.random.default_rng(child_seed(seed, _LEARNING)))
        x = self._encode(frame, np.random.default_rng(child_seed(seed, _WRITING)))
        self._set_modules(self._build(), step_rng(seed, 0))
        training: dict[str, Any] = {"checkpoint": checkpoint, "callback": callback}
        self._train(x, None, sha256(x.numpy().tobytes()), seed=seed, steps=steps, **training)

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        return self._module_tensors("net/"), {}

    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        self._load_modules(self._build(), tensors, "net/")


class TransformedTableGenerator(NeuralTableGenerator):
    """A network that sees rows as `DataTransformer` writes them; its settings name `max_modes` of a number."""

    def _learn_encoding(self, frame: pd.DataFrame, rng: np.random.Generator) -> None:
        self.encoding_ = DataTransformer.fit(self.table_spec_.modeled, frame, max_modes=self.config.max_modes, rng=rng)

    def _encode(self, frame: pd.DataFrame, rng: np.random.Generator) -> Tensor:
        return torch.tensor(self.encoding_.transform(frame, rng), dtype=torch.float32)

    def _alphas(self) -> list[int]:
        return [span.start for span in self.encoding_.spans if span.is_alpha]

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        tensors, facts = super()._state()
        return {**tensors, **self.encoding_.as_tensors()}, facts

    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        self.encoding_ = DataTransformer.from_tensors(self.table_spec_.modeled, tensors)
        self._set_more(tensors)
        super()._set_state(tensors, facts)

    def _set_more(self, tensors: Tensors) -> None:
        """What else must be known before the networks are built."""


def gumbel(shape: torch.Size, rng: torch.Generator) -> Tensor:
    """Gumbel noise: the place of the largest of logits + noise is a draw from their softmax."""
    return -torch.log(-torch.log(torch.rand(shape, generator=rng).clamp(1e-10, 1 - 1e-7)))


def one_hot_draws(logits: Tensor, spans: tuple[Span, ...], rng: torch.Generator) -> Tensor:
    """Logits (N, width) with a one-hot draw in the place of each column's states; alphas stay."""
    drawn = logits.clone()
    for span in spans:
        if not span.is_alpha:
            part = logits[:, span.start : span.start + span.width]
            chosen = (part + gumbel(part.shape, rng)).argmax(dim=1)
            drawn[:, span.start : span.start + span.width] = nn.functional.one_hot(chosen, span.width).float()
    return drawn
