"""Generative adversarial networks: losses, gradient penalties, and training diagnostics.

    min_G max_D  E_x[ln D(x)] + E_z[ln(1 - D(G(z)))]                   Goodfellow et al., arXiv:1406.2661, eq. 1

The Wasserstein loss, penalties on the discriminator's gradients, and spectral normalization are settings. The two
losses say little about progress, as each depends on the other network. So the history also holds the discriminator's
accuracy and the bound on the distance of the two distributions that its loss implies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array
from synthbook.generators.nets import MLP, ConvDecoder, ConvEncoder, add_spectral_norm
from synthbook.generators.neural import (
    Batches,
    DataSpec,
    NeuralConfig,
    NeuralGenerator,
    ema_update,
    gradient_step,
    normal,
)

_Discriminator = Callable[[Tensor], Tensor]
_PENALTIES = ("none", "wgan-gp", "r1")


@dataclass(frozen=True)
class GANConfig(NeuralConfig):
    """The loss, a penalty on the discriminator's gradients with its weight, and Adam's beta_1.

    The discriminator takes `n_critic` steps for each of the generator. Samples come from an exponential moving average
    of the generator's weights with decay `ema_decay`.
    """

    loss: str = "non-saturating"
    penalty: str = "none"
    penalty_weight: float = 1.0
    spectral_norm: bool = False
    n_critic: int = 1
    adam_beta1: float = 0.5
    latent_dim: int = 16
    width: int = 32  # channels; of an MLP, four units each
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.loss not in GENERATOR_LOSSES:
            raise InvalidArgument("loss", self.loss, f"one of {', '.join(GENERATOR_LOSSES)}")
        if self.penalty not in _PENALTIES:
            raise InvalidArgument("penalty", self.penalty, f"one of {', '.join(_PENALTIES)}")
        if min(self.latent_dim, self.n_critic) < 1 or self.penalty_weight < 0 or not 0 <= self.ema_decay < 1:
            raise InvalidArgument("settings", self, "latent_dim and n_critic of at least 1, ema_decay in [0, 1)")


def discriminator_loss(loss: str, real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss, given its scores (N,) of real and generated rows; a larger score means more real."""
    if loss == "wasserstein":
        return fake.mean() - real.mean()  # arXiv:1701.07875, eq. 3
    # -ln D(x) - ln(1 - D(G(z))), with D = sigmoid(score); the same for both ways to train a generator
    return F.softplus(-real).mean() + F.softplus(fake).mean()


GENERATOR_LOSSES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "saturating": lambda fake: -F.softplus(fake).mean(),  # ln(1 - D(G(z))): no gradient where D is sure
    "non-saturating": lambda fake: F.softplus(-fake).mean(),  # -ln D(G(z))
    "wasserstein": lambda fake: -fake.mean(),
}


def gradient_penalty(
    kind: str, discriminator: _Discriminator, real: Tensor, fake: Tensor, rng: torch.Generator
) -> Tensor:
    """ "r1": 1/2 E|grad D(x)|^2 at real rows (arXiv:1801.04406, eq. 9); "wgan-gp": E(|grad D| - 1)^2 on lines between.

    Lines run from real to generated rows (arXiv:1704.00028, eq. 3).
    """
    if kind == "r1":
        return 0.5 * _gradient_norm(discriminator, real).square().mean()
    share = torch.rand((len(real), *[1] * (real.ndim - 1)), generator=rng).to(real.device)
    return (_gradient_norm(discriminator, share * real + (1 - share) * fake) - 1).square().mean()


def _gradient_norm(discriminator: _Discriminator, x: Tensor) -> Tensor:
    """|grad D| at rows x (N, ...)."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    norm: Tensor = gradient.flatten(1).norm(dim=1)
    return norm


class GAN(NeuralGenerator):
    """A generator and a discriminator, trained in alternating steps."""

    family = "gan"
    config_class = GANConfig

    def _build(self, spec: DataSpec) -> dict[str, nn.Module]:
        c = self.config
        if spec.is_image:
            channels, size, _ = spec.shape
            nets: list[nn.Module] = [
                ConvDecoder(c.latent_dim, channels, size, width=c.width, classes=spec.n_classes) for _ in range(2)
            ]
            discriminator: nn.Module = ConvEncoder(channels, size, 1, width=c.width, classes=spec.n_classes)
        else:
            shape: Any = {"hidden": 4 * c.width, "layers": 3, "classes": spec.n_classes}
            d = math.prod(spec.shape)
            nets, discriminator = [MLP(c.latent_dim, d, **shape) for _ in range(2)], MLP(d, 1, **shape)
        if c.spectral_norm:
            discriminator = add_spectral_norm(discriminator)
        return {"generator": nets[0], "ema": nets[1], "discriminator": discriminator}

    def _inference_modules(self) -> dict[str, nn.Module]:
        return {"ema": self.modules_["ema"]}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        options: Any = {"lr": self.config.learning_rate, "betas": (self.config.adam_beta1, 0.99)}
        players = {name: self.modules_[name].parameters() for name in ("generator", "discriminator")}
        return {name: torch.optim.Adam(parameters, **options) for name, parameters in players.items()}

    def _step(self, batches: Batches, step: int, steps: int, rng: torch.Generator) -> Mapping[str, float]:
        c = self.config
        generator, discriminator = self.modules_["generator"], self.modules_["discriminator"]
        for _ in range(c.n_critic):
            x, labels = batches.draw()
            with torch.no_grad():  # the discriminator's step is not the generator's
                fake = self._generated(generator, len(x), labels, rng)
            real_score, fake_score = (discriminator(rows, labels).squeeze(1) for rows in (x, fake))
            loss = discriminator_loss(c.loss, real_score, fake_score)
            if c.penalty != "none":
                loss = loss + c.penalty_weight * gradient_penalty(
                    c.penalty, partial(discriminator, labels=labels), x, fake, rng
                )
            gradient_step(self.optimizers_["discriminator"], loss)
        _, labels = batches.draw()
        fake = self._generated(generator, c.batch_size, labels, rng)
        generator_loss = GENERATOR_LOSSES[c.loss](discriminator(fake, labels).squeeze(1))
        gradient_step(self.optimizers_["generator"], generator_loss)
        ema_update(self.modules_["ema"], generator, c.ema_decay if step > 1 else 0.0)
        return training_diagnostics(c.loss, real_score.detach(), fake_score.detach()) | {
            "judge_loss": float(loss.detach()),
            "generator_loss": float(generator_loss.detach()),
        }

    def _generated(self, net: nn.Module, n: int, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        rows: Tensor = net(normal((n, self.config.latent_dim), rng, self.device), labels)
        return rows.view(n, *self.data_spec_.shape)

    def _draw(self, n: int, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        return self._generated(self.modules_["ema"], n, labels, rng)


def training_diagnostics(loss: str, real: Tensor, fake: Tensor) -> dict[str, float]:
    """The discriminator's `accuracy` (0.5: chance) and a distance of the distributions, from its scores (N,).

    `jsd` (nats, at most ln 2) is ln 2 minus its mean cross-entropy, a lower bound on the Jensen-Shannon divergence;
    `wasserstein`, with the Wasserstein loss, is the difference of mean scores, at most W1 where no slope exceeds 1.
    """
    if loss == "wasserstein":
        cut = (real.mean() + fake.mean()) / 2
        accuracy = 0.5 * ((real > cut).float().mean() + (fake <= cut).float().mean())
        return {"accuracy": float(accuracy), "wasserstein": float(real.mean() - fake.mean())}
    accuracy = 0.5 * ((real > 0).float().mean() + (fake <= 0).float().mean())
    cross_entropy = 0.5 * discriminator_loss(loss, real, fake)
    return {"accuracy": float(accuracy), "jsd": math.log(2) - float(cross_entropy)}


# ── The Dirac-GAN ──
# The data are the point 0, the generator is the point theta, the discriminator is D(x) = psi x. The generator goes down
# on, and the discriminator up, f(psi theta) + f(0): the Dirac-GAN of Mescheder et al., arXiv:1801.04406.


def _logistic(t: float) -> float:
    """f'(t) of f(t) = -ln(1 + exp(-t)), the loss of the first GAN; f'(0) = 1/2."""
    return float(1 / (1 + np.exp(t)))


def _wasserstein(t: float) -> float:
    """f'(t) of f(t) = t."""
    return 1.0


@dataclass(frozen=True)
class _DiracGan:
    """The loss f by its derivative f', what a penalty adds to the step of psi, and a bound of |psi|."""

    f_prime: Callable[[float], float] = _logistic
    penalty_step: Callable[[float], float] = lambda psi: 0.0
    clip: float = np.inf


def _towards_slope_one(psi: float) -> float:
    """Minus the gradient of 1/2 (|psi| - 1)^2: WGAN-GP wants a discriminator of slope 1, also at the equilibrium."""
    return float(-(abs(psi) - 1) * np.sign(psi))


DIRAC_GANS = {
    "plain": _DiracGan(),
    "WGAN, clipped": _DiracGan(_wasserstein, clip=1.0),
    "WGAN-GP": _DiracGan(_wasserstein, _towards_slope_one),
    "R1": _DiracGan(
        penalty_step=lambda psi: -psi
    ),  # gamma = 1: minus the gradient of 1/2 psi^2, a slope of 0 is wanted at the data
}


def simulate(
    game: _DiracGan,
    *,
    h: float = 0.1,
    steps: int = 1_000,
    start: tuple[float, float] = (1.0, 1.0),
    alternating: bool = False,
) -> Array:
    """The path (steps + 1, 2) of (theta, psi) under gradient steps of size h.

    Both step at once, or with `alternating` the discriminator answers what the generator has done. Near the equilibrium
    simultaneous steps multiply the distance by sqrt(1 + h^2 f'(0)^2), whatever h > 0.
    """
    if not (h > 0 and steps >= 1):
        raise InvalidArgument("h, steps", (h, steps), "a step size above 0 and at least one step")
    path = np.empty((steps + 1, 2))
    path[0] = theta, psi = start
    for k in range(steps):
        moved = theta - h * psi * game.f_prime(psi * theta)
        seen = moved if alternating else theta
        psi = psi + h * (seen * game.f_prime(psi * seen) + game.penalty_step(psi))
        theta, psi = moved, float(np.clip(psi, -game.clip, game.clip))
        path[k + 1] = theta, psi
    return path


def distance(path: Array) -> Array:
    """Distance (steps + 1,) from the equilibrium (0, 0)."""
    return np.asarray(np.hypot(path[:, 0], path[:, 1]))


def rotation(path: Array) -> Array:
    """Angle (steps,) in radians by which each step turns about the equilibrium."""
    angle = np.unwrap(np.arctan2(path[:, 1], path[:, 0]))
    return np.diff(angle)
