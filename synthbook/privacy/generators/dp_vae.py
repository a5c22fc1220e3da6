"""A variational autoencoder for images, trained with DP-SGD: every image is a unit, its class a part of it.

Gradients of each image come from `torch.func`, so that any layer will do that sees one image at a time. What the plain
model learns of its data beside the weights is public here: pixels lie in [-1, 1], the decoder's variance is given, and
classes are drawn equally often.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthbook.core.checkpoints import CheckpointConfig
from synthbook.core.errors import InvalidArgument
from synthbook.core.storage import Provenance
from synthbook.core.table import refuse_holdout
from synthbook.core.types import Callback, Images, Seed, child_seed, seed_sequence
from synthbook.generators.base import check_positive_int
from synthbook.generators.neural import Batches, Data, DataSpec, EvalCallback, prepare_data
from synthbook.generators.vae import VAE, VAEConfig, gaussian_log_density, kl_from_standard
from synthbook.privacy.accounting import calibrate_noise
from synthbook.privacy.dpsgd import DpSgdConfig, check_model, dpsgd_step, per_sample_clipped_sum, poisson_sample
from synthbook.privacy.generators.base import (
    DPSGD,
    NOISE,
    SEEDED_NOISE,
    SYSTEM_ENTROPY,
    PrivacyConfig,
    PrivacyGuarantee,
    check_seed,
)
from synthbook.privacy.ledger import PrivacyLedger
from synthbook.privacy.mechanisms import check_delta


@dataclass(frozen=True, kw_only=True)
class DpVaeConfig(PrivacyConfig, VAEConfig):
    """`batch` is the expected number of images in a step, `clip` the length C; `decoder_variance` must be given."""

    steps: int = 1_000
    batch_size: int = 128
    learning_rate: float = 2e-3
    width: int = 16
    decoder_variance: float | None = 0.1
    clip: float = 1.0

    def __post_init__(self) -> None:
        PrivacyConfig.__post_init__(self)
        VAEConfig.__post_init__(self)
        if self.decoder_variance is None or self.max_rows_per_entity != 1:
            given = (self.decoder_variance, self.max_rows_per_entity)
            raise InvalidArgument(
                "decoder_variance, max_rows_per_entity", given, "a variance that no image sets, and 1"
            )


class PerSampleLoss(nn.Module):
    """Minus the ELBO (B,) of images, class and code's randomness side by side, (B, pixels + classes + latents)."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, spec: DataSpec, config: DpVaeConfig):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.learnt, self.config = spec, config

    def forward(self, given: Tensor) -> Tensor:
        """(B,) nats."""
        pixels, classes = math.prod(self.learnt.shape), self.learnt.n_classes
        x, label, eps = torch.split(given, [pixels, classes, self.config.latent_dim], dim=1)
        x = x.view(-1, *self.learnt.shape)
        mean, log_variance = self.encoder(x, label).chunk(2, dim=1)
        z = mean + (log_variance.clamp(max=10.0) / 2).exp() * eps
        out = self.decoder(z, label).view(x.shape)
        rebuilt = gaussian_log_density(x, out, torch.tensor(self.config.decoder_variance))
        return self.config.beta * kl_from_standard(mean, log_variance).sum(dim=1) - rebuilt


class DpVae(VAE):
    """After `fit` or `load`: `guarantee_`, the promise in full."""

    family, config_class = "dp-vae", DpVaeConfig
    private = True

    def fit(
        self,
        data: Data,
        *,
        seed: Seed | None,
        steps: int | None = None,
        checkpoint: CheckpointConfig | None = None,
        callback: Callback | None = None,
        on_eval: EvalCallback | None = None,
        budget: PrivacyLedger | None = None,
    ) -> Self:
        """Learn from images (N, C, H, W) in [-1, 1] with labels, once `budget` has paid for it.

        Raises before any image is used: `BudgetExceeded`, `HoldoutError`, `InvalidArgument`.
        """
        c = self.config
        refuse_holdout(data, "fitting DpVae")
        if not isinstance(data, Images):
            raise InvalidArgument("data", type(data).__name__, "Images: the scale of anything else is private")
        n = len(data)
        check_delta(c.delta, n)
        check_seed(c, seed, checkpoint)
        if c.batch_size >= n:
            raise InvalidArgument("batch_size", c.batch_size, f"fewer than the {n:,} images")
        prepare_data(data)  # refuses what is no image
        total = c.steps if steps is None else check_positive_int("steps", steps)
        self._sigma = calibrate_noise(c.epsilon, c.delta, sample_rate=c.batch_size / n, steps=total)
        if budget is not None:
            budget.spend("fitting DpVae", c.epsilon, c.delta, steps=total, batch_size=c.batch_size, clip=c.clip)
        root = np.random.SeedSequence() if seed is None else seed_sequence(seed)
        self._root = child_seed(root, NOISE)
        super().fit(data, seed=root, steps=total, checkpoint=checkpoint, callback=callback, on_eval=on_eval)
        self._describe_fit(seed, steps, "")
        self.data_spec_ = replace(
            self.data_spec_, class_probs=(1 / self.data_spec_.n_classes,) * self.data_spec_.n_classes
        )
        self.guarantee_ = PrivacyGuarantee(
            epsilon=c.epsilon,
            delta=c.delta,
            unit="one image",
            accountant=DPSGD,
            steps=total,
            sample_rate=c.batch_size / n,
            noise_multiplier=self._sigma,
            clip=c.clip,
            noise=SYSTEM_ENTROPY if c.release else SEEDED_NOISE,
        )
        return self

    def _build(self, spec: DataSpec) -> dict[str, nn.Module]:
        built = {name: module for name, module in super()._build(spec).items() if name != "log_variance"}
        for module in built.values():
            check_model(module)
        return built

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        parameters = [p for module in self.modules_.values() for p in module.parameters()]
        return {"all": torch.optim.Adam(parameters, lr=self.config.learning_rate)}

    def _step(self, batches: Batches, step: int, steps: int, rng: torch.Generator) -> Mapping[str, float]:
        c, x, labels = self.config, batches.x, batches.labels
        assert labels is not None
        loss = PerSampleLoss(self.modules_["encoder"], self.modules_["decoder"], self.data_spec_, c)
        private_rng = np.random.default_rng(child_seed(self._root, step))
        rows = poisson_sample(len(x), c.batch_size / len(x), private_rng)
        eps = torch.randn((len(rows), c.latent_dim), generator=rng)
        given = torch.cat([x[rows].flatten(1), F.one_hot(labels[rows], self.data_spec_.n_classes), eps], dim=1)
        clip = c.clip if math.isfinite(c.epsilon) else math.inf
        total = per_sample_clipped_sum(loss, lambda out, _: out, given, given, clip)
        dpsgd_step(loss, total, DpSgdConfig(c.clip, self._sigma, c.batch_size), self.optimizers_["all"], private_rng)
        return {"noise multiplier": self._sigma}  # what a batch loses is private, and nobody has paid for it

    def _attach_guarantee(self, provenance: Provenance) -> Provenance:
        return self.guarantee_.attach_to(provenance)

    @classmethod
    def load(cls, folder: str | Path, **settings: Any) -> Self:
        """Read what `save` wrote. Raises `DataError` for anything else."""
        model = super().load(folder, **settings)
        model.guarantee_ = PrivacyGuarantee.from_provenance(model.provenance_)
        return model
