"""What the networks for tables share: they are fitted in steps, can be resumed, and are kept as tensors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from synthbook.core.checkpoints import CheckpointConfig, TrainState
from synthbook.core.errors import InvalidArgument
from synthbook.core.storage import sha256
from synthbook.core.types import Callback, child_seed
from synthbook.generators.base import Tensors
from synthbook.generators.nets import init_weights
from synthbook.generators.neural import step_rng, train
from synthbook.generators.tabular.base import TableGenerator
from synthbook.generators.tabular.encoding import DataTransformer, Span

_LEARNING, _WRITING = 2**31, 2**31 + 1  # children of a fit's seed; the smaller ones are training steps


@dataclass(frozen=True)
class NeuralTableConfig:
    """What all of them are told: training steps, rows in a batch, learning rate, units of a hidden layer."""

    steps: int = 3_000
    batch_size: int = 500
    learning_rate: float = 1e-3
    hidden: int = 256

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.hidden) < 1 or self.learning_rate <= 0:
            given = (self.steps, self.batch_size, self.hidden, self.learning_rate)
            raise InvalidArgument("steps, batch, hidden, learning_rate", given, "positive numbers")


class NeuralTableGenerator(TableGenerator):
    """After `fit` or `load`: `modules_`; after `fit` also `history_`, at most 100 rows of losses by name."""

    @abstractmethod
    def _learn_encoding(self, frame: pd.DataFrame, rng: np.random.Generator) -> None:
        """Decide how rows are written."""

    @abstractmethod
    def _encode(self, frame: pd.DataFrame, rng: np.random.Generator) -> Tensor:
        """Rows (N, width)."""

    @abstractmethod
    def _build(self) -> dict[str, nn.Module]:
        """The networks for this encoding."""

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        parameters = [p for module in self.modules_.values() for p in module.parameters()]
        return {"all": torch.optim.Adam(parameters, lr=self.config.learning_rate)}

    @abstractmethod
    def _step(self, x: Tensor, step: int, steps: int, rng: torch.Generator) -> Mapping[str, float]:
        """One step of training on rows x (N, width), from which it draws a batch."""

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
        rng = step_rng(seed, 0)
        self.modules_ = {name: init_weights(module, rng) for name, module in self._build().items()}
        self.optimizers_ = self._optimizers()
        total = self.config.steps if steps is None else steps
        self.history_ = train(
            TrainState(self.modules_, self.optimizers_),
            lambda k, rng: self._step(x, k, total, rng),
            steps=total,
            seed=seed,
            described={"model": self.family, "config": asdict(self.config), "data": sha256(x.numpy().tobytes())},
            checkpoint=checkpoint,
            callback=callback,
        )
        for module in self.modules_.values():
            module.eval()

    def _inference_modules(self) -> dict[str, nn.Module]:
        """The networks that sampling needs."""
        return self.modules_

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        tensors = {
            f"net/{n}/{k}": v for n, module in self._inference_modules().items() for k, v in module.state_dict().items()
        }
        return tensors, {}

    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        self.modules_ = self._build()
        for name, module in self._inference_modules().items():
            mine = f"net/{name}/"
            module.load_state_dict({k.removeprefix(mine): v for k, v in tensors.items() if k.startswith(mine)})
            module.eval()


class TransformedTableGenerator(NeuralTableGenerator):
    """A network that sees rows as `Encoding` writes them; its settings name the `modes` of a number."""

    def _learn_encoding(self, frame: pd.DataFrame, rng: np.random.Generator) -> None:
        self.encoding_ = DataTransformer.of(self.table_spec_.modeled, frame, most=self.config.modes, rng=rng)

    def _encode(self, frame: pd.DataFrame, rng: np.random.Generator) -> Tensor:
        return torch.tensor(self.encoding_.encode(frame, rng), dtype=torch.float32)

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


def sample_rng(seed: np.random.SeedSequence) -> torch.Generator:
    """A generator for samples."""
    return step_rng(seed, 0)


def random_batch(x: Tensor, size: int, rng: torch.Generator) -> Tensor:
    """Random rows (size, width), with replacement."""
    return x[torch.randint(len(x), (size,), generator=rng)]


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
