"""The variational autoencoder: an encoder, a decoder, and a KL term weighted by beta.

    ELBO(x) = E_q(z|x)[ln p(x|z)] - beta KL(q(z|x) || N(0, I))         Kingma and Welling, arXiv:1312.6114, eq. 3

with q(z|x) = N(mu(x), s^2(x)) and p(x|z) = N(decoder(z), sigma^2 I). sigma^2 is learned with the weights: it weighs
squared error against the KL term, in place of a beta chosen by hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array
from synthbook.generators.nets import MLP, ConvDecoder, ConvEncoder
from synthbook.generators.neural import (
    Batches,
    DataSpec,
    NeuralConfig,
    NeuralGenerator,
    cosine_with_warmup,
    gradient_step,
    normal,
    set_lr,
)

_KINDS = ("auto", "linear", "mlp", "conv")
_NOISE_RATE = 10.0  # learning rate of the noise variance over that of the weights


@dataclass(frozen=True)
class VAEConfig(NeuralConfig):
    """Size of the latent vector, weight `beta` of the KL term, architecture ("auto": conv for images, mlp for points).

    `decoder_variance` fixes sigma^2; by default it is learned.
    """

    latent_dim: int = 8
    beta: float = 1.0
    architecture: str = "auto"
    width: int = 32  # channels; of an MLP, four units each
    decoder_variance: float | None = None

    def __post_init__(self) -> None:
        if self.architecture not in _KINDS:
            raise InvalidArgument("architecture", self.architecture, f"one of {', '.join(_KINDS)}")
        if self.latent_dim < 1 or self.beta < 0 or (self.decoder_variance is not None and self.decoder_variance <= 0):
            raise InvalidArgument(
                "latent_dim, beta, decoder_variance",
                (self.latent_dim, self.beta, self.decoder_variance),
                "positive numbers",
            )


class _LogVariance(nn.Module):
    """The logarithm of the decoder's variance, one number for all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(()))


class VAE(NeuralGenerator):
    """An encoder, a decoder and the decoder's variance, trained together on the ELBO."""

    family = "vae"
    config_class: ClassVar[type[NeuralConfig]] = VAEConfig

    def _build(self, spec: DataSpec) -> dict[str, nn.Module]:
        c, q = self.config, self.config.latent_dim
        kind = c.architecture if c.architecture != "auto" else "conv" if spec.is_image else "mlp"
        if kind == "conv":
            channels, size, _ = spec.shape
            encoder: nn.Module = ConvEncoder(channels, size, 2 * q, width=c.width, classes=spec.n_classes)
            decoder: nn.Module = ConvDecoder(q, channels, size, width=c.width, classes=spec.n_classes)
        else:
            shape: Any = {"hidden": 4 * c.width, "layers": 0 if kind == "linear" else 2, "classes": spec.n_classes}
            d = math.prod(spec.shape)
            encoder, decoder = MLP(d, 2 * q, **shape), MLP(q, d, **shape)
        return {"encoder": encoder, "decoder": decoder, "log_variance": _LogVariance()}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        nets = [p for name in ("encoder", "decoder") for p in self.modules_[name].parameters()]
        # one number that may have to fall a hundredfold takes larger steps than weights do
        groups: list[dict[str, Any]] = [
            {"params": nets},
            {"params": self.modules_["log_variance"].parameters(), "lr_scale": _NOISE_RATE},
        ]
        return {"all": torch.optim.Adam(groups, lr=self.config.learning_rate)}

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (N, latents) of the code of rows x (N, ...), on the model's scale."""
        mean, log_variance = self.modules_["encoder"](x, labels).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Means (N, ...) of the rows that codes z (N, latents) stand for."""
        return self.modules_["decoder"](z, labels).view(-1, *self.data_spec_.shape)  # type: ignore[no-any-return]

    @property
    def decoder_variance(self) -> Tensor:
        """sigma^2, the variance of a row about the decoder's mean; as learned, or as given."""
        log_variance: Tensor = self.modules_["log_variance"].log_variance  # type: ignore[assignment]
        return (
            log_variance.exp() if self.config.decoder_variance is None else torch.tensor(self.config.decoder_variance)
        )

    def elbo(self, x: Tensor, labels: Tensor | None, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(ELBO at beta = 1, reconstruction, KL of each latent): (N,), (N,), (N, latents) nats, one draw of z."""
        mean, log_variance = self.encode(x, labels)
        # z = mu + s eps: the randomness stands apart, so that gradients reach mu and s
        z = mean + (0.5 * log_variance).exp() * normal(mean.shape, rng, x.device)
        reconstruction = gaussian_log_density(x, self.decode(z, labels), self.decoder_variance)
        kl = kl_from_standard(mean, log_variance)
        return reconstruction - kl.sum(1), reconstruction, kl

    def _step(self, batches: Batches, step: int, steps: int, rng: torch.Generator) -> Mapping[str, float]:
        optimizer = self.optimizers_["all"]
        set_lr(optimizer, self.config.learning_rate * cosine_with_warmup(step, steps))
        elbo, reconstruction, kl = self.elbo(*batches.draw(), rng)
        loss = -(reconstruction - self.config.beta * kl.sum(1)).mean()
        gradient_step(optimizer, loss)
        rate = kl.detach().sum(1).mean()
        return {"loss": float(loss.detach()), "elbo": float(elbo.detach().mean()), "rate": float(rate)}

    def _draw(self, n: int, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        return self.decode(normal((n, self.config.latent_dim), rng, self.device), labels)


def kl_from_standard(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, s^2) || N(0, 1)) of each entry, in nats: 1/2 (mean^2 + s^2 - 1 - ln s^2)."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)


def gaussian_log_density(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """ln N(x; mean, variance I) of rows (N, ...), in nats (N,)."""
    squared = (x - mean).flatten(1).square()
    return -0.5 * (squared / variance + (2 * math.pi * variance).log()).sum(1)


# ── Probabilistic PCA: the linear VAE in closed form ──
# x = W z + mu + noise, z ~ N(0, I_q), noise ~ N(0, sigma^2 I_d). With lambda_1 >= ... >= lambda_d the eigenvalues of
# the data's covariance, the likelihood is greatest at
#
#     sigma^2 = mean(lambda_{q+1}, ..., lambda_d),   W W^T = U_q (Lambda_q - sigma^2 I) U_q^T
#
# and there a linear encoder makes the bound exact: the ELBO equals the log-likelihood (Dai et al., arXiv:1706.05148).


@dataclass(frozen=True, eq=False)
class PPCA:
    """The best linear model with `q` latents for a covariance with `eigenvalues` (d,), falling."""

    eigenvalues: Array
    q: int

    def __post_init__(self) -> None:
        values = np.asarray(self.eigenvalues, dtype=float)
        if values.ndim != 1 or not (values > 0).all() or (np.diff(values) > 0).any():
            raise InvalidArgument("eigenvalues", self.eigenvalues, "falling variances (d,), all above 0")
        if not 0 <= self.q < len(values):
            raise InvalidArgument("q", self.q, f"a number of latents from 0 to {len(values) - 1}")

    @property
    def noise_variance(self) -> float:
        """sigma^2, the mean of the eigenvalues that are left out."""
        return float(np.mean(self.eigenvalues[self.q :]))

    @property
    def log_likelihood(self) -> float:
        """Mean log-likelihood of a row, in nats: -1/2 [d ln 2 pi + sum_{i<=q} ln lambda_i + (d - q) ln sigma^2 + d]."""
        d, leading, log_noise = len(self.eigenvalues), self.eigenvalues[: self.q], np.log(self.noise_variance)
        return float(-0.5 * (d * np.log(2 * np.pi) + np.log(leading).sum() + (d - self.q) * log_noise + d))

    @property
    def retained_variance(self) -> float:
        """Share of the variance in samples that are decoder means, without the decoder's noise."""
        return float(np.sum(self.eigenvalues[: self.q] - self.noise_variance) / np.sum(self.eigenvalues))


def active_units(eigenvalues: ArrayLike, noise_variance: float, beta: float) -> int:
    """How many directions pay for their code, with a fixed noise variance: those with lambda_i > beta sigma^2."""
    return int((np.asarray(eigenvalues, dtype=float) > beta * noise_variance).sum())
