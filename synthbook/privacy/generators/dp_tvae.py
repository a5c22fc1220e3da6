"""A variational autoencoder for tables, trained with DP-SGD (Abadi et al., arXiv:1607.00133).

    g = (sum_i min(1, C / |g_i|) g_i + sigma C N(0, I)) / (expected units in a batch),  and Adam steps along g

Batches are Poisson samples of privacy units; sigma is the smallest noise multiplier for which the accountant reports at
most epsilon. Rows are encoded by data-independent bins. The number of units, which sets the sample rate, is public.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import child_seed
from synthbook.generators.nets import MLP
from synthbook.generators.neural import Batches, step_rng
from synthbook.generators.tabular.networks import NeuralTableConfig, NeuralTableGenerator, one_hot_draws
from synthbook.generators.vae import kl_from_standard
from synthbook.privacy.accounting import calibrate_noise
from synthbook.privacy.dpsgd import DpSgdConfig, dpsgd_step, ghost_clipped_sum, poisson_sample
from synthbook.privacy.generators.base import (
    DPSGD,
    NOISE_STREAM,
    PrivacyConfig,
    PrivacyGuarantee,
    PrivateTableGenerator,
)
from synthbook.privacy.generators.discretize import PublicEncoding


@dataclass(frozen=True, kw_only=True)
class DpTvaeConfig(PrivacyConfig, NeuralTableConfig):
    """`batch_size` is the expected number of units in a batch, `max_grad_norm` C; the rest is as in `TVAEConfig`."""

    steps: int = 1_500
    batch_size: int = 1_000
    learning_rate: float = 5e-3
    hidden: int = 128
    latent_dim: int = 16
    beta: float = 0.5
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        PrivacyConfig.__post_init__(self)
        NeuralTableConfig.__post_init__(self)


class PerRowLoss(nn.Module):
    """Minus the ELBO (B,) of encoded rows, each followed by standard normal noise: (B, width + latents)."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, encoding: PublicEncoding, beta: float):
        super().__init__()
        self.encoder, self.decoder, self.encoding, self.beta = encoder, decoder, encoding, beta

    def forward(self, inputs: Tensor) -> Tensor:
        """Losses (B,) in nats."""
        rows, eps = inputs[:, : self.encoding.width], inputs[:, self.encoding.width :]
        mean, log_variance = self.encoder(rows).chunk(2, dim=1)
        log_variance = log_variance.clamp(max=10.0)
        out = self.decoder(mean + (log_variance / 2).exp() * eps)
        loss: Tensor = self.beta * kl_from_standard(mean, log_variance).sum(dim=1)
        for span in self.encoding.spans:
            states = slice(span.start, span.start + span.width)
            loss = loss - (F.log_softmax(out[:, states], dim=1) * rows[:, states]).sum(dim=1)
        return loss


class DpTvae(PrivateTableGenerator, NeuralTableGenerator):
    """A variational autoencoder for tables whose columns are binned by the public schema."""

    family, config_class = "dp-tvae", DpTvaeConfig

    def _check(self, data: Any, n_units: int, steps: int) -> None:
        c = self.config
        if c.batch_size >= n_units:
            raise InvalidArgument("batch_size", c.batch_size, f"fewer than the {n_units:,} units of the table")
        self._noise_multiplier = calibrate_noise(c.epsilon, c.delta, sample_rate=c.batch_size / n_units, steps=steps)

    def _learn(self, frame: pd.DataFrame, seed: np.random.SeedSequence, **training: Any) -> PrivacyGuarantee:
        self._n_units, self._root = int(self._unit_of.max()) + 1, child_seed(seed, NOISE_STREAM)
        NeuralTableGenerator._fit(self, frame, seed, **training)
        return self._guarantee(
            DPSGD,
            steps=training["steps"],
            sample_rate=self.config.batch_size / self._n_units,
            noise_multiplier=self._noise_multiplier,
            sensitivity=self.config.max_grad_norm,
        )

    def _learn_encoding(self, frame: pd.DataFrame, rng: np.random.Generator) -> None:
        self.encoding_ = PublicEncoding(self.table_spec_.modeled)

    def _encode(self, frame: pd.DataFrame, rng: np.random.Generator) -> Tensor:
        return torch.tensor(self.encoding_.encode(frame), dtype=torch.float32)

    def _build(self) -> dict[str, nn.Module]:
        width, c = self.encoding_.width, self.config
        return {
            "encoder": MLP(width, 2 * c.latent_dim, hidden=c.hidden),
            "decoder": MLP(c.latent_dim, width, hidden=c.hidden),
        }

    def _step(self, batches: Batches, step: int, steps: int, rng: torch.Generator) -> Mapping[str, float]:
        c = self.config
        loss = PerRowLoss(self.modules_["encoder"], self.modules_["decoder"], self.encoding_, c.beta)
        private_rng = np.random.default_rng(child_seed(self._root, step))
        units = poisson_sample(self._n_units, c.batch_size / self._n_units, private_rng)
        rows = batches.x[torch.isin(torch.from_numpy(self._unit_of), units)]
        inputs = torch.cat([rows, torch.randn((len(rows), c.latent_dim), generator=rng)], dim=1)
        # each of a unit's k rows is clipped to C / k, so that the unit adds at most C
        row_norm = c.max_grad_norm / c.max_rows_per_entity if math.isfinite(c.epsilon) else math.inf
        total = ghost_clipped_sum(loss, lambda out, _: out, inputs, inputs, row_norm)
        config = DpSgdConfig(c.max_grad_norm, self._noise_multiplier, c.batch_size)
        dpsgd_step(loss, total, config, self.optimizers_["all"], private_rng)
        return {"noise multiplier": self._noise_multiplier}  # the loss depends on private rows, outside the budget

    @torch.no_grad()
    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        rng = step_rng(seed, 0)
        out = self.modules_["decoder"](torch.randn((n, self.config.latent_dim), generator=rng))
        return self.encoding_.decode(one_hot_draws(out, self.encoding_.spans, rng).numpy(), np.random.default_rng(seed))

    def _set_state(self, tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        self.encoding_ = PublicEncoding(self.table_spec_.modeled)
        super()._set_state(tensors, facts)
