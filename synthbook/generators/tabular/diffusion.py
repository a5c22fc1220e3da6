"""Diffusion for tables: Gaussian noise for numbers, random categories for categories (TabDDPM, arXiv:2209.15421).

    q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, 1 - alpha_bar_t)            numbers, as normal scores
    q(c_t | c_0) = alpha_bar_t [c_0] + (1 - alpha_bar_t) / K            categories: kept, or drawn anew from all K

One network takes all noised columns of a row, and predicts the noise in each number and the logits of each category.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor, nn
from torch.nn import functional as F

from synthbook.core.table import Column
from synthbook.generators.base import Tensors
from synthbook.generators.diffusion import NoiseSchedule, alpha_bar_at, ancestral_step, q_sample
from synthbook.generators.nets import TimeMLP
from synthbook.generators.neural import Batches, cosine_with_warmup, ema_update, gradient_step, set_lr, step_rng
from synthbook.generators.tabular.encoding import Marginal, as_numbers, from_numbers, marginals_state, restore_marginals
from synthbook.generators.tabular.networks import NeuralTableConfig, NeuralTableGenerator, gumbel

_EXTREME = 4.0  # normal scores lie within; a guess of x_0 is kept there


@dataclass(frozen=True)
class TabDDPMConfig(NeuralTableConfig):
    """`T` noise levels on the cosine schedule, hidden layers, and decay of the weights' moving average."""

    steps: int = 6_000
    learning_rate: float = 2e-3
    T: int = 100
    layers: int = 3
    ema_decay: float = 0.995


class TabDDPM(NeuralTableGenerator):
    """A network for all columns, and the moving average of its weights, which samples use."""

    family, config_class = "table-diffusion", TabDDPMConfig

    def _learn_encoding(self, frame: pd.DataFrame, rng: np.random.Generator) -> None:
        self.marginals_ = [Marginal.of(column, frame[column.name]) for column in self._numbers()]

    def _numbers(self) -> list[Column]:
        return [column for column in self.table_spec_.modeled if not column.categories]

    def _states(self) -> list[tuple[Column, int]]:
        """Columns of categories, and those that say whether a number is missing, with how many states each has."""
        every = [c for c in self.table_spec_.modeled if c.categories or c.missing]
        return [(c, len(c.categories) + c.missing if c.categories else 2) for c in every]

    @property
    def _schedule(self) -> NoiseSchedule:
        return NoiseSchedule.cosine(self.config.T)

    def _encode(self, frame: pd.DataFrame, rng: np.random.Generator) -> Tensor:
        parts = []
        for margin in self.marginals_:
            rows = frame[margin.column.name]
            u = margin.distributional_transform(rows, rng)
            scores = ndtri(np.clip((u - margin.missing) / max(1 - margin.missing, 1e-9), 1e-4, 1 - 1e-4))
            parts.append(np.where(rows.isna(), rng.standard_normal(len(rows)), scores)[:, None])
        for column, k in self._states():
            codes = as_numbers(column, frame[column.name])
            state = np.where(np.isnan(codes), k - 1, codes if column.categories else 0).astype(np.int64)
            parts.append(np.eye(k)[state])
        return torch.tensor(np.concatenate(parts, axis=1), dtype=torch.float32)

    def _width(self) -> int:
        return len(self._numbers()) + sum(k for _, k in self._states())

    def _build(self) -> dict[str, nn.Module]:
        width, config = self._width(), self.config
        return {n: TimeMLP(width, hidden=config.hidden, layers=config.layers) for n in ("net", "ema")}

    def _inference_modules(self) -> dict[str, nn.Module]:
        return {"ema": self.modules_["ema"]}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        self.modules_["ema"].load_state_dict(self.modules_["net"].state_dict())
        return {"net": torch.optim.AdamW(self.modules_["net"].parameters(), lr=self.config.learning_rate)}

    def _step(self, batches: Batches, step: int, steps: int, rng: torch.Generator) -> Mapping[str, float]:
        schedule, d = self._schedule, len(self._numbers())
        rows, _ = batches.draw()
        t = torch.randint(1, schedule.T + 1, (len(rows),), generator=rng)
        eps = torch.randn((len(rows), d), generator=rng)
        noised = torch.cat([q_sample(rows[:, :d], t, eps, schedule), self._shuffled(rows[:, d:], t, schedule, rng)], 1)
        out = self.modules_["net"](noised, t)
        noise = F.mse_loss(out[:, :d], eps) if d else torch.zeros(())
        odds, at = torch.zeros(()), d
        for _, k in self._states():
            odds = odds + F.cross_entropy(out[:, at : at + k], rows[:, at : at + k].argmax(dim=1))
            at += k
        loss = d * noise + odds
        optimizer = self.optimizers_["net"]
        set_lr(optimizer, self.config.learning_rate * cosine_with_warmup(step, steps))
        gradient_step(optimizer, loss)
        ema_update(self.modules_["ema"], self.modules_["net"], min(self.config.ema_decay, (1 + step) / (10 + step)))
        return {"loss": loss.item(), "noise": noise.item(), "multinomial_loss": odds.item()}

    def _shuffled(self, x: Tensor, t: Tensor, schedule: NoiseSchedule, rng: torch.Generator) -> Tensor:
        """One-hot states (N, ...) at step t: each kept with probability alpha_bar_t, else drawn from all K."""
        a, at, parts = alpha_bar_at(schedule, t, x[:, :1]), 0, []
        for _, k in self._states():
            anew = F.one_hot(torch.randint(k, (len(x),), generator=rng), k).float()
            parts.append(torch.where(torch.rand((len(x), 1), generator=rng) < a, x[:, at : at + k], anew))
            at += k
        return torch.cat(parts, dim=1) if parts else x

    @torch.no_grad()
    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        rng, schedule, d = step_rng(seed, 0), self._schedule, len(self._numbers())
        x = torch.randn((n, d), generator=rng)
        c = [F.one_hot(torch.randint(k, (n,), generator=rng), k).float() for _, k in self._states()]
        for t in range(schedule.T, 0, -1):
            out = self.modules_["ema"](torch.cat([x, *c], dim=1), torch.full((n,), t))
            sigma = float(schedule.beta_tilde[t]) ** 0.5
            x = ancestral_step(x, out[:, :d], t, schedule, rng, sigma=sigma, clip=_EXTREME)
            before, alpha, at = float(schedule.alpha_bar[t - 1]), 1 - float(schedule.beta[t]), d
            for i, (_, k) in enumerate(self._states()):
                odds = multinomial_posterior(out[:, at : at + k].softmax(dim=1), c[i], before, alpha)
                c[i] = F.one_hot((odds.log() + gumbel(odds.shape, rng)).argmax(dim=1), k).float()
                at += k
        return self._decoded(x.double().numpy(), [part.argmax(dim=1).numpy() for part in c])

    def _decoded(self, x: np.ndarray[Any, Any], states: list[np.ndarray[Any, Any]]) -> pd.DataFrame:
        state = {column.name: codes for (column, _), codes in zip(self._states(), states, strict=True)}
        columns = {}
        for margin, z in zip(self.marginals_, x.T, strict=True):
            numbers = margin.quantile(margin.missing + (1 - margin.missing) * ndtr(z))
            absent = state.get(margin.column.name, np.zeros(len(z))) == 1
            columns[margin.column.name] = from_numbers(margin.column, np.where(absent, np.nan, numbers))
        for column in self.table_spec_.modeled:
            if column.categories:
                codes = state[column.name].astype(float)
                codes[codes == len(column.categories)] = np.nan
                columns[column.name] = from_numbers(column, codes)
        return pd.DataFrame({column.name: columns[column.name] for column in self.table_spec_.modeled})

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        tensors, _ = super()._state()
        arrays, facts = marginals_state(self.marginals_)
        return {**tensors, **arrays}, {"margins": facts}

    def _set_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        self.marginals_ = restore_marginals(self._numbers(), tensors, facts["margins"])
        super()._set_state(tensors, facts)


def multinomial_posterior(x0: Tensor, x_t: Tensor, alpha_bar_before: float, alpha: float) -> Tensor:
    """p(c_{t-1} | c_t) (N, K) for the odds x0 (N, K) of c_0 given c_t: the mean over them of Bayes' rule.

    q(c_{t-1} | c_t, c_0 = k) is proportional to q(c_t | c_{t-1}) q(c_{t-1} | c_0 = k), and the constant differs from k
    to k. Leaving that out, as where a network is trained for it (Hoogeboom et al., arXiv:2102.05379, eq. 13), counts
    twice what c_t says of c_0 when x0 are true odds.
    """
    k, alpha_bar = x0.shape[1], alpha_bar_before * alpha
    share = x0 / (alpha_bar * x_t + (1 - alpha_bar) / k)  # the constant is q(c_t | c_0 = k)
    before = alpha_bar_before * share + (1 - alpha_bar_before) / k * share.sum(dim=1, keepdim=True)
    result: Tensor = (alpha * x_t + (1 - alpha) / k) * before
    return result
