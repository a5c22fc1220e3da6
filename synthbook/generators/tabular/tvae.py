"""A variational autoencoder for tables: Xu et al. 2019, arXiv:1907.00503, section 4.4.

    loss = -E_q[log p(row | z)] + beta KL(q(z | row) || N(0, 1))

p(row | z): a normal density for each alpha, with a variance that is learned, and a softmax for each column's states.
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

from synthbook.core.errors import SchemaError
from synthbook.core.table import Table
from synthbook.core.types import Array, Seed, seed_sequence
from synthbook.generators.nets import MLP
from synthbook.generators.neural import Batches, cosine_with_warmup, gradient_step, set_lr, step_rng
from synthbook.generators.tabular.networks import NeuralTableConfig, TransformedTableGenerator, one_hot_draws
from synthbook.generators.vae import kl_from_standard

_LEAST_LOG_SD, _MOST_LOG_SD = -5.0, 0.0  # of an alpha


@dataclass(frozen=True)
class TVAEConfig(NeuralTableConfig):
    """Size of the latent vector, weight `beta` of the KL term, and modes per number (0: min-max scaling)."""

    steps: int = 2_000
    learning_rate: float = 2e-3
    latent_dim: int = 32
    beta: float = 0.5  # the published weight of the reconstruction is 2
    max_modes: int = 10


class _LogScale(nn.Module):
    """The logarithm of each alpha's standard deviation."""

    def __init__(self, alphas: int):
        super().__init__()
        self.log_sd = nn.Parameter(torch.full((alphas,), -1.0))


class TVAE(TransformedTableGenerator):
    """An encoder, a decoder and the alphas' standard deviations, trained together."""

    family, config_class = "table-tvae", TVAEConfig

    def _build(self) -> dict[str, nn.Module]:
        width, config = self.encoding_.width, self.config
        return {
            "encoder": MLP(width, 2 * config.latent_dim, hidden=config.hidden),
            "decoder": MLP(config.latent_dim, width, hidden=config.hidden),
            "spread": _LogScale(len(self._alphas())),
        }

    def _step(self, batches: Batches, step: int, steps: int, rng: torch.Generator) -> Mapping[str, float]:
        rows, _ = batches.draw()
        likelihood, kl = self._terms(rows, rng)
        reconstruction_loss, price = -likelihood.mean(), kl.mean()
        (optimizer,) = self.optimizers_.values()
        set_lr(optimizer, self.config.learning_rate * cosine_with_warmup(step, steps))
        loss = reconstruction_loss + self.config.beta * price
        gradient_step(optimizer, loss)
        return {"loss": loss.item(), "reconstruction": reconstruction_loss.item(), "kl": price.item()}

    def _terms(self, rows: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """log p(row | z) for a code z drawn for each row, and KL(q(z | row) || N(0, 1)), both (N,) in nats."""
        mean, log_var = self.modules_["encoder"](rows).chunk(2, dim=1)
        log_var = log_var.clamp(max=20.0)  # rows unlike all others would give infinities
        z = mean + (log_var / 2).exp() * torch.randn(mean.shape, generator=rng)
        return self.log_likelihood(rows, z), kl_from_standard(mean, log_var).sum(dim=1)

    @torch.no_grad()
    def elbo(self, table: Table, *, seed: Seed, n_samples: int = 8) -> Array:
        """The ELBO of log p(row) in nats (N,), the mean over `n_samples` latent vectors per row; low for unusual rows.

        Densities are those of the encoding's alphas. Raises `NotFittedError`, `SchemaError` for other columns.
        """
        self._check_fitted()
        if table.schema.names != self.table_spec_.schema.names:
            raise SchemaError(f"the rows have the columns {table.schema.names}, not {self.table_spec_.schema.names}")
        root = seed_sequence(seed)
        frame = table.frame[[column.name for column in self.table_spec_.modeled]].reset_index(drop=True)
        rows, rng = self._encode(frame, np.random.default_rng(root)), step_rng(root, 0)
        bounds = [likelihood - kl for likelihood, kl in (self._terms(rows, rng) for _ in range(n_samples))]
        return np.asarray(torch.stack(bounds).mean(dim=0), dtype=float)

    def log_likelihood(self, rows: Tensor, z: Tensor) -> Tensor:
        """log p(row | z) in nats (N,) of encoded rows (N, width) given codes (N, latents)."""
        out = self.modules_["decoder"](z)
        alphas, log_sd = self._alphas(), self._log_sd()
        away = (rows[:, alphas] - out[:, alphas]) / log_sd.exp()
        # log N(x; m, s) = -((x - m) / s)^2 / 2 - log s - log sqrt(2 pi)
        total = (-(away**2) / 2 - log_sd - 0.5 * np.log(2 * np.pi)).sum(dim=1)
        for span in self.encoding_.spans:
            if not span.is_alpha:
                states = slice(span.start, span.start + span.width)
                total = total - F.cross_entropy(out[:, states], rows[:, states].argmax(dim=1), reduction="none")
        result: Tensor = total
        return result

    def _log_sd(self) -> Tensor:
        spread = self.modules_["spread"]
        assert isinstance(spread, _LogScale)
        result: Tensor = spread.log_sd.clamp(_LEAST_LOG_SD, _MOST_LOG_SD)
        return result

    @torch.no_grad()
    def _draw(self, n: int, seed: np.random.SeedSequence, where: Mapping[str, Any]) -> pd.DataFrame:
        rng, alphas = step_rng(seed, 0), self._alphas()
        out = self.modules_["decoder"](torch.randn((n, self.config.latent_dim), generator=rng))
        drawn = one_hot_draws(out, self.encoding_.spans, rng)
        drawn[:, alphas] += self._log_sd().exp() * torch.randn((n, len(alphas)), generator=rng)
        return self.encoding_.inverse_transform(drawn.numpy())
