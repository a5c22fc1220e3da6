"""A variational autoencoder for images, trained with DP-SGD; the privacy unit is an image with its label.

Per-sample gradients come from `torch.func`, so layers of any kind will do that process images independently. All that
the plain model learns beside its weights is public here: pixels lie in [-1, 1], the decoder's variance is a setting,
and classes are sampled equally often.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import refuse_holdout
from synthbook.core.types import Images, child_seed
from synthbook.generators.neural import Batches, DataSpec, prepare_data
from synthbook.generators.vae import VAE, VAEConfig, gaussian_log_density, kl_from_standard
from synthbook.privacy.accounting import calibrate_noise
from synthbook.privacy.dpsgd import DpSgdConfig, check_model, dpsgd_step, per_sample_clipped_sum, poisson_sample
from synthbook.privacy.generators.base import DPSGD, NOISE_STREAM, PrivacyConfig, PrivacyGuarantee, PrivateGenerator
from synthbook.privacy.mechanisms import check_delta


@dataclass(frozen=True, kw_only=True)
class DpVaeConfig(PrivacyConfig, VAEConfig):
    """`batch_size` is the expected number of images in a batch, `max_grad_norm` C; `decoder_variance` is required."""

    steps: int = 1_000
    batch_size: int = 128
    learning_rate: float = 2e-3
    width: int = 16
    decoder_variance: float | None = 0.1
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        PrivacyConfig.__post_init__(self)
        VAEConfig.__post_init__(self)
        if self.decoder_variance is None or self.max_rows_per_entity != 1:
            given = (self.decoder_variance, self.max_rows_per_entity)
            raise InvalidArgument(
                "decoder_variance, max_rows_per_entity", given, "a variance that no image sets, and 1"
            )


class PerImageLoss(nn.Module):
    """Minus the ELBO (B,) of images, each followed by its label and standard normal noise.

    Inputs are (B, pixels + classes + latents), with one-hot labels.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, spec: DataSpec, config: DpVaeConfig):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.spec, self.config = spec, config

    def forward(self, inputs: Tensor) -> Tensor:
        """Losses (B,) in nats."""
        sizes = [math.prod(self.spec.shape), self.spec.n_classes, self.config.latent_dim]
        x, label, eps = torch.split(inputs, sizes, dim=1)
        x = x.view(-1, *self.spec.shape)
        mean, log_variance = self.encoder(x, label).chunk(2, dim=1)
        z = mean + (log_variance.clamp(max=10.0) / 2).exp() * eps
        out = self.decoder(z, label).view(x.shape)
        log_likelihood = gaussian_log_density(x, out, torch.tensor(self.config.decoder_variance))
        return self.config.beta * kl_from_standard(mean, log_variance).sum(dim=1) - log_likelihood


class DpVae(PrivateGenerator, VAE):
    """A variational autoencoder for images, trained with DP-SGD."""

    family, config_class = "dp-vae", DpVaeConfig

    def _count_units(self, data: Any) -> int:
        refuse_holdout(data, "fitting DpVae")
        if not isinstance(data, Images):
            raise InvalidArgument("data", type(data).__name__, "Images: the scale of anything else is private")
        check_delta(self.config.delta, len(data))
        return len(data)

    def _check(self, data: Any, n_units: int, steps: int) -> None:
        c = self.config
        if c.batch_size >= n_units:
            raise InvalidArgument("batch_size", c.batch_size, f"fewer than the {n_units:,} images")
        prepare_data(data)  # refuses what is no image
        self._noise_multiplier = calibrate_noise(c.epsilon, c.delta, sample_rate=c.batch_size / n_units, steps=steps)

    def _fit_private(self, data: Any, seed: np.random.SeedSequence, **training: Any) -> None:
        c, self._root = self.config, child_seed(seed, NOISE_STREAM)
        VAE.fit(self, data, seed=seed, **training)
        n_classes = self.data_spec_.n_classes
        self.data_spec_ = replace(self.data_spec_, class_probs=(1 / n_classes,) * n_classes)
        self.guarantee_ = PrivacyGuarantee(
            epsilon=c.epsilon,
            delta=c.delta,
            unit="one image",
            accountant=DPSGD,
            steps=training["steps"],
            sample_rate=c.batch_size / len(data),
            noise_multiplier=self._noise_multiplier,
            clip=c.max_grad_norm,
            noise=c.noise_source,
        )

    def _build(self, spec: DataSpec) -> dict[str, nn.Module]:
        modules = {name: module for name, module in super()._build(spec).items() if name != "log_variance"}
        for module in modules.values():
            check_model(module)
        return modules

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        parameters = [p for module in self.modules_.values() for p in module.parameters()]
        return {"all": torch.optim.Adam(parameters, lr=self.config.learning_rate)}

    def _step(self, batches: Batches, step: int, steps: int, rng: torch.Generator) -> Mapping[str, float]:
        c, x, labels = self.config, batches.x, batches.labels
        assert labels is not None
        loss = PerImageLoss(self.modules_["encoder"], self.modules_["decoder"], self.data_spec_, c)
        private_rng = np.random.default_rng(child_seed(self._root, step))
        rows = poisson_sample(len(x), c.batch_size / len(x), private_rng)
        eps = torch.randn((len(rows), c.latent_dim), generator=rng)
        inputs = torch.cat([x[rows].flatten(1), F.one_hot(labels[rows], self.data_spec_.n_classes), eps], dim=1)
        max_norm = c.max_grad_norm if math.isfinite(c.epsilon) else math.inf
        total = per_sample_clipped_sum(loss, lambda out, _: out, inputs, inputs, max_norm)
        config = DpSgdConfig(c.max_grad_norm, self._noise_multiplier, c.batch_size)
        dpsgd_step(loss, total, config, self.optimizers_["all"], private_rng)
        return {"noise multiplier": self._noise_multiplier}  # the loss depends on private images, outside the budget
