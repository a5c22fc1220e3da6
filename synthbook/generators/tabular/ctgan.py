"""A conditional GAN for tables: Xu et al. 2019, arXiv:1907.00503, section 4.

An ordinary GAN rarely sees a rare category: most batches hold none. Here each row is conditioned on one category,

    column j: uniform,    category k of it: log(1 + count_k) / sum over k,    real rows: drawn among those with k in j

and a cross-entropy term penalizes rows that violate the condition. The critic is trained with the Wasserstein loss and
a gradient penalty, on packs of rows (PacGAN, arXiv:1712.04086), so that it detects mode collapse. The paper packs ten
rows and uses dropout of one half in the critic; here packs hold two and there is no dropout, which takes fewer steps.
Samples that violate their condition are rejected; otherwise rare categories are overrepresented.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthbook.core.errors import InvalidArgument
from synthbook.generators.base import Tensors
from synthbook.generators.gan import gradient_penalty
from synthbook.generators.neural import Batches, cosine_with_warmup, ema_update, gradient_step, set_lr, step_rng
from synthbook.generators.tabular.encoding import Span, as_numbers
from synthbook.generators.tabular.networks import NeuralTableConfig, TransformedTableGenerator, gumbel, one_hot_draws

_Index = tuple[Tensor, Tensor, Tensor]  # rows sorted by state (N,); where a state begins, and how many have it


@dataclass(frozen=True, eq=False)
class ConditionSampler:
    """Draws the category on which a row is conditioned: the columns' spans, each category's share of the rows."""

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

    def sample_condition(
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

    def condvec(self, column: Tensor, state: Tensor) -> Tensor:
        """The conditional vectors (n, width): one-hot over the states of all columns."""
        offset = torch.tensor(np.cumsum([0, *(span.width for span in self.spans)])[:-1])
        return F.one_hot(offset[column] + state, self.width).float()

    def index(self, x: Tensor) -> list[_Index]:
        """Where in x (N, width) the rows with each state are, for each column."""
        index = []
        for span in self.spans:
            states = x[:, span.start : span.start + span.width].argmax(dim=1)
            count = states.bincount(minlength=span.width)
            index.append((states.argsort(stable=True), count.cumsum(0) - count, count))
        return index

    def sample_rows(self, index: list[_Index], column: Tensor, state: Tensor, rng: torch.Generator) -> Tensor:
        """Numbers (n,) of rows that have these states, each drawn among all that have it."""
        chosen = torch.zeros(len(column), dtype=torch.int64)
        share = torch.rand(len(column), generator=rng, dtype=torch.float64)
        for j, (order, first, count) in enumerate(index):
            mine = column == j
            wanted = state[mine]
            chosen[mine] = order[first[wanted] + (share[mine] * count[wanted]).long()]
        return chosen


# ── The model ──


_SOFT = 0.2  # temperature of the generator's categories


@dataclass(frozen=True)
class CTGANConfig(NeuralTableConfig):
    """Rows in a pack `pac`, weight of the gradient penalty `gp_weight`, at most `max_modes` of a number.

    Samples come from an exponential moving average of the generator's weights with decay `ema_decay`.

    `conditional`: each row is conditioned on a category; `log_frequency`: categories are drawn by the logarithm of
    their count, so that rare ones come more often. Without both, and with `max_modes` 0, it is a plain GAN. Samples are
    conditioned on a category of any column, as published, or with `rarest` of the column with the rarest category.
    """

    steps: int = 2_000
    learning_rate: float = 1e-3
    latent_dim: int = 128
    pac: int = 2
    gp_weight: float = 10.0
    max_modes: int = 10
    ema_decay: float = 0.999
    conditional: bool = True
    log_frequency: bool = True
    rarest: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pac < 1 or self.batch_size % self.pac:
            raise InvalidArgument("pac", self.pac, f"a divisor of the {self.batch_size} rows in a batch")


class _GeneratorNet(nn.Module):
    """Noise and condition (N, inputs) to rows (N, width): each hidden layer sees all that came before."""

    def __init__(self, inputs: int, width: int, hidden: int):
        super().__init__()
        self.first, self.second = nn.Linear(inputs, hidden), nn.Linear(inputs + hidden, hidden)
        self.norm_1, self.norm_2 = nn.BatchNorm1d(hidden), nn.BatchNorm1d(hidden)
        self.out = nn.Linear(inputs + 2 * hidden, width)

    def forward(self, z: Tensor) -> Tensor:
        """Logits of states, and alphas before the tanh."""
        x = torch.cat([F.relu(self.norm_1(self.first(z))), z], dim=1)
        x = torch.cat([F.relu(self.norm_2(self.second(x))), x], dim=1)
        result: Tensor = self.out(x)
        return result


class _Critic(nn.Module):
    """Packs of rows (N, inputs) to scores (N / pac,)."""

    def __init__(self, inputs: int, hidden: int, pac: int):
        super().__init__()
        self.pac = pac
        self.first, self.second = nn.Linear(inputs * pac, hidden), nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        x = x.reshape(len(x) // self.pac, -1)
        for layer in (self.first, self.second):
            x = F.leaky_relu(layer(x), 0.2)
        result: Tensor = self.out(x)[:, 0]
        return result


class CTGAN(TransformedTableGenerator):
    """A conditional generator and a critic."""

    family, config_class = "table-ctgan", CTGANConfig

    def _learn_encoding(self, frame: pd.DataFrame, rng: np.random.Generator) -> None:
        super()._learn_encoding(frame, rng)
        spans, shares = self._category_spans(), []
        for span in spans:
            column = self.encoding_.columns[span.column]
            codes = np.nan_to_num(as_numbers(column, frame[column.name]), nan=span.width - 1).astype(np.int64)
            shares.append(torch.tensor(np.bincount(codes, minlength=span.width) / len(frame)))
        self.conditions_ = ConditionSampler(spans, tuple(shares))
        self.rows_ = len(frame)

    def _category_spans(self) -> tuple[Span, ...]:
        if not self.config.conditional:
            return ()
        return tuple(span for span in self.encoding_.spans if self.encoding_.columns[span.column].categories)

    def _encode(self, frame: pd.DataFrame, rng: np.random.Generator) -> Tensor:
        x = super()._encode(frame, rng)
        self.index_ = self.conditions_.index(x)
        return x

    def _build(self) -> dict[str, nn.Module]:
        config, condition_dim = self.config, self.conditions_.width
        return {
            "generator": _GeneratorNet(config.latent_dim + condition_dim, self.encoding_.width, config.hidden),
            "ema": _GeneratorNet(config.latent_dim + condition_dim, self.encoding_.width, config.hidden),
            "critic": _Critic(self.encoding_.width + condition_dim, config.hidden, config.pac),
        }

    def _inference_modules(self) -> dict[str, nn.Module]:
        return {"ema": self.modules_["ema"]}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rate = self.config.learning_rate
        self.modules_["ema"].load_state_dict(self.modules_["generator"].state_dict())
        generator, critic = (self.modules_[name].parameters() for name in ("generator", "critic"))
        return {
            "generator": torch.optim.Adam(generator, lr=rate, betas=(0.5, 0.9), weight_decay=1e-6),
            "critic": torch.optim.Adam(critic, lr=rate, betas=(0.5, 0.9)),
        }

    def _step(self, batches: Batches, step: int, steps: int, rng: torch.Generator) -> Mapping[str, float]:
        critic, drawn_condition = self.modules_["critic"], self._draw_condition(rng)
        for optimizer in self.optimizers_.values():
            set_lr(optimizer, self.config.learning_rate * cosine_with_warmup(step, steps))
        if drawn_condition is None:
            real, _ = batches.draw()
        else:
            real = batches.x[self.conditions_.sample_rows(self.index_, *drawn_condition, rng)]
        with torch.no_grad():
            fake = self._soft(self._make(drawn_condition, self.config.batch_size, rng), rng)
        real, fake = self._concat_condition(real, drawn_condition), self._concat_condition(fake, drawn_condition)
        distance = critic(real).mean() - critic(fake).mean()
        packed = real.view(len(real) // self.config.pac, -1), fake.view(len(fake) // self.config.pac, -1)
        penalty = gradient_penalty("wgan-gp", lambda packs: critic(packs.view(real.shape)), *packed, rng)
        gradient_step(self.optimizers_["critic"], -distance + self.config.gp_weight * penalty)

        drawn_condition = self._draw_condition(rng)
        out = self._make(drawn_condition, self.config.batch_size, rng)
        critic_score = critic(self._concat_condition(self._soft(out, rng), drawn_condition)).mean()
        condition_loss = self._condition_loss(out, drawn_condition)
        gradient_step(self.optimizers_["generator"], condition_loss - critic_score)
        decay = min(self.config.ema_decay, (1 + step) / (10 + step))
        ema_update(self.modules_["ema"], self.modules_["generator"], decay)
        losses = {"wasserstein": distance, "penalty": penalty, "condition_loss": condition_loss}
        return {name: loss.item() for name, loss in losses.items()}

    def _draw_condition(self, rng: torch.Generator) -> tuple[Tensor, Tensor] | None:
        if not self.conditions_.spans:
            return None
        rows = self.rows_ if self.config.log_frequency else None
        return self.conditions_.sample_condition(self.config.batch_size, rng, rows=rows)

    def _make(
        self, drawn_condition: tuple[Tensor, Tensor] | None, n: int, rng: torch.Generator, by: str = "generator"
    ) -> Tensor:
        z = torch.randn((n, self.config.latent_dim), generator=rng)
        result: Tensor = self.modules_[by](self._concat_condition(z, drawn_condition))
        return result

    def _concat_condition(self, x: Tensor, drawn_condition: tuple[Tensor, Tensor] | None) -> Tensor:
        return x if drawn_condition is None else torch.cat([x, self.conditions_.condvec(*drawn_condition)], dim=1)

    def _soft(self, out: Tensor, rng: torch.Generator) -> Tensor:
        """Rows that a gradient passes: alphas in [-1, 1], states nearly one-hot (Gumbel-softmax, arXiv:1611.01144)."""
        parts = []
        for span in self.encoding_.spans:
            part = out[:, span.start : span.start + span.width]
            parts.append(part.tanh() if span.is_alpha else ((part + gumbel(part.shape, rng)) / _SOFT).softmax(dim=1))
        return torch.cat(parts, dim=1)

    def _condition_loss(self, out: Tensor, drawn_condition: tuple[Tensor, Tensor] | None) -> Tensor:
        """Mean of -log p(state of the condition)."""
        if drawn_condition is None:
            return torch.zeros(())
        total, (column, state) = torch.zeros(()), drawn_condition
        for j, span in enumerate(self.conditions_.spans):
            mine = column == j
            logits = out[mine, span.start : span.start + span.width]
            total = total + F.cross_entropy(logits, state[mine], reduction="sum")
        return total / len(out)

    @torch.no_grad()
    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        rng, drawn_condition = step_rng(seed, 0), None
        if self.conditions_.spans:
            only = self.conditions_.rarest if self.config.rarest else None
            column, state = self.conditions_.sample_condition(n, rng, only=only)
            for j, span in enumerate(self.conditions_.spans):
                conditioned = self.encoding_.columns[span.column]
                if conditioned.name in where:
                    column[:], state[:] = j, conditioned.categories.index(where[conditioned.name])
            drawn_condition = (column, state)
        drawn = one_hot_draws(self._make(drawn_condition, n, rng, by="ema"), self.encoding_.spans, rng)
        if drawn_condition is not None:  # rows that violate their condition are rejected
            first = torch.tensor([span.start for span in self.conditions_.spans])
            drawn = drawn[drawn[torch.arange(n), first[drawn_condition[0]] + drawn_condition[1]] == 1]
        alphas = self._alphas()
        drawn[:, alphas] = drawn[:, alphas].tanh()
        return self.encoding_.inverse_transform(drawn.numpy())

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        tensors, facts = super()._state()
        shares = {f"share/{j}": share for j, share in enumerate(self.conditions_.shares)}
        return {**tensors, **shares}, facts

    def _set_more(self, tensors: Tensors) -> None:
        spans = self._category_spans()
        self.conditions_ = ConditionSampler(spans, tuple(tensors[f"share/{j}"] for j in range(len(spans))))
