"""A variational autoencoder for tables, trained with DP-SGD (Abadi et al., arXiv:1607.00133).

    g = (sum_i min(1, C / |g_i|) g_i + sigma C N(0, I)) / (expected units in a batch),  and Adam takes it from there

Batches are Poisson samples of units; sigma is the least with which the accountant promises (epsilon, delta). Rows are
written by the schema's cells, never by what the rows hold. The number of units, by which the sum is divided and from
which the rate follows, counts as public.
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
from synthbook.core.table import Table
from synthbook.core.types import child_seed
from synthbook.generators.nets import MLP
from synthbook.generators.neural import Batches, step_rng
from synthbook.generators.tabular.networks import NeuralTableConfig, NeuralTableGenerator, one_hot_draws
from synthbook.generators.vae import kl_from_standard
from synthbook.privacy.accounting import calibrate_noise
from synthbook.privacy.dpsgd import DpSgdConfig, dpsgd_step, ghost_clipped_sum, poisson_sample
from synthbook.privacy.generators.base import DPSGD, NOISE, PrivacyConfig, PrivacyGuarantee, PrivateTableGenerator
from synthbook.privacy.generators.discretize import PublicEncoding


@dataclass(frozen=True, kw_only=True)
class DpTvaeConfig(PrivacyConfig, NeuralTableConfig):
    """`batch` is the expected number of units in a step, `clip` the length C; see `TVAEConfig` for the rest."""

    steps: int = 1_500
    batch_size: int = 1_000
    learning_rate: float = 5e-3
    hidden: int = 128
    latent_dim: int = 16
    beta: float = 0.5
    clip: float = 1.0

    def __post_init__(self) -> None:
        PrivacyConfig.__post_init__(self)
        NeuralTableConfig.__post_init__(self)


class PerSampleLoss(nn.Module):
    """Minus the ELBO (B,) of rows x beside the randomness of their codes, (B, width + latents): one row, one loss."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, encoding: PublicEncoding, beta: float):
        super().__init__()
        self.encoder, self.decoder, self.encoding, self.beta = encoder, decoder, encoding, beta

    def forward(self, given: Tensor) -> Tensor:
        """(B,) nats."""
        rows, eps = given[:, : self.encoding.width], given[:, self.encoding.width :]
        mean, log_variance = self.encoder(rows).chunk(2, dim=1)
        log_variance = log_variance.clamp(max=10.0)
        out = self.decoder(mean + (log_variance / 2).exp() * eps)
        total = self.beta * kl_from_standard(mean, log_variance).sum(dim=1)
        for span in self.encoding.spans:
            states = slice(span.start, span.start + span.width)
            total = total - (F.log_softmax(out[:, states], dim=1) * rows[:, states]).sum(dim=1)
        result: Tensor = total
        return result


class DpTvae(PrivateTableGenerator, NeuralTableGenerator):
    """A variational autoencoder of a table's public cells."""

    family, config_class = "dp-tvae", DpTvaeConfig

    def _check(self, table: Table, n: int, steps: int | None) -> None:
        if self.config.batch_size >= n:
            raise InvalidArgument("batch_size", self.config.batch_size, f"fewer than the {n:,} units of the table")
        steps = self.config.steps if steps is None else steps
        c = self.config
        self._noise = calibrate_noise(c.epsilon, c.delta, sample_rate=c.batch_size / n, steps=steps)

    def _learn(self, frame: pd.DataFrame, seed: np.random.SeedSequence, **training: Any) -> PrivacyGuarantee:
        steps = self.config.steps if training["steps"] is None else training["steps"]
        self._units, self._root = int(self._unit_of.max()) + 1, child_seed(seed, NOISE)
        rate = self.config.batch_size / self._units
        NeuralTableGenerator._fit(self, frame, seed, **training)
        return self._guarantee(DPSGD, steps=steps, rate=rate, noise=self._noise, clip=self.config.clip)

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
        loss = PerSampleLoss(self.modules_["encoder"], self.modules_["decoder"], self.encoding_, c.beta)
        private_rng = np.random.default_rng(child_seed(self._root, step))
        chosen = poisson_sample(self._units, c.batch_size / self._units, private_rng)
        rows = batches.x[torch.isin(torch.from_numpy(self._unit_of), chosen)]
        given = torch.cat([rows, torch.randn((len(rows), c.latent_dim), generator=rng)], dim=1)
        # each of a unit's k rows may add C / k, so that the unit adds C
        clip = c.clip / c.max_rows_per_entity if math.isfinite(c.epsilon) else math.inf
        total = ghost_clipped_sum(loss, lambda out, _: out, given, given, clip)
        dpsgd_step(loss, total, DpSgdConfig(c.clip, self._noise, c.batch_size), self.optimizers_["all"], private_rng)
        return {"noise multiplier": self._noise}  # what a batch loses is private, and nobody has paid for it

    @torch.no_grad()
    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        rng = step_rng(seed, 0)
        out = self.modules_["decoder"](torch.randn((n, self.config.latent_dim), generator=rng))
        return self.encoding_.decode(one_hot_draws(out, self.encoding_.spans, rng).numpy(), np.random.default_rng(seed))

    def _set_state(self, tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        self.encoding_ = PublicEncoding(self.table_spec_.modeled)
        super()._set_state(tensors, facts)
