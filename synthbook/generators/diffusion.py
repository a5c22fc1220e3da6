"""Diffusion: a network learns to predict the noise in noised data, and sampling removes it step by step.

    L = E_{t, x_0, eps} |eps - eps_theta(sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, t)|^2,  t from 1, ..., T

Ho et al., arXiv:2006.11239, eq. 14. With `prediction_type="v"` the network predicts

    v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0                        Salimans and Ho, arXiv:2202.00512

instead, a useful target at every step: predicting eps is trivial where x_t is almost pure noise, and predicting x_0
is trivial where it holds almost none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array
from synthbook.generators.nets import TimeMLP, UNet
from synthbook.generators.neural import (
    Batches,
    DataSpec,
    NeuralConfig,
    NeuralGenerator,
    cosine_with_warmup,
    ema_update,
    gradient_step,
    normal,
    set_lr,
)

# ── Noise schedules: step 0 is the data, step T is noise, alpha_bar[t] the share of signal power at t ──
#     x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps,  eps ~ N(0, 1)         Ho et al., arXiv:2006.11239, eq. 4
#
# Steps are counted as in that paper: tables have T + 1 entries, alpha_bar[0] = 1, and beta[t] leads from step t - 1 to
# t. So a training step draws t from 1, ..., T, both included.


_MAX_BETA = 0.999


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The schedule of noise: `alpha_bar` (T + 1,), falling from 1; `timesteps` (T + 1,), the network's timesteps.

    The two differ only for a schedule that was thinned out by `respaced`.
    """

    alpha_bar: Array
    timesteps: NDArray[np.int64]

    def __post_init__(self) -> None:
        falls = self.alpha_bar.ndim == 1 and len(self.alpha_bar) > 1 and (np.diff(self.alpha_bar) < 0).all()
        if not (falls and self.alpha_bar[0] == 1 and self.alpha_bar[-1] > 0):
            raise InvalidArgument("alpha_bar", self.alpha_bar, "shares of signal power that fall from 1, all above 0")

    @property
    def T(self) -> int:
        """The number of steps."""
        return len(self.alpha_bar) - 1

    @property
    def beta(self) -> Array:
        """Noise power added from step t - 1 to t (T + 1,): 1 - alpha_bar_t / alpha_bar_{t-1}; beta[0] = 0."""
        return np.append(0.0, 1 - self.alpha_bar[1:] / self.alpha_bar[:-1])

    @property
    def beta_tilde(self) -> Array:
        """Variance of x_{t-1} given x_t and x_0 (T + 1,): (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) beta_t, eq. 7."""
        return np.append(0.0, (1 - self.alpha_bar[:-1]) / (1 - self.alpha_bar[1:])) * self.beta

    @classmethod
    def from_beta(cls, beta: Array) -> NoiseSchedule:
        """The schedule with these betas (T,), from the first step on: alpha_bar_t is the product of 1 - beta."""
        return cls(np.append(1.0, np.cumprod(1 - beta)), np.arange(len(beta) + 1))

    @classmethod
    def linear(cls, T: int = 1_000, *, first: float = 1e-4, last: float = 0.02, rescale: bool = True) -> NoiseSchedule:
        """Betas on a straight line, as in the paper's section 4.

        The two ends were chosen for T = 1,000: with fewer steps they leave signal in x_T, so they are multiplied by
        1000 / T (and kept below 0.999) unless `rescale` is off.
        """
        _check_steps(T)
        beta = np.linspace(first, last, T) * (1_000 / T if rescale else 1)
        return cls.from_beta(beta.clip(max=_MAX_BETA))

    @classmethod
    def cosine(cls, T: int = 1_000, *, offset: float = 0.008) -> NoiseSchedule:
        """alpha_bar_t = f(t) / f(0), f(t) = cos^2(pi/2 (t/T + s) / (1 + s)): Nichol, Dhariwal, arXiv:2102.09672."""
        _check_steps(T)
        f = np.cos(np.pi / 2 * (np.arange(T + 1) / T + offset) / (1 + offset)) ** 2
        return cls.from_beta((1 - f[1:] / f[:-1]).clip(max=_MAX_BETA))

    def respaced(self, steps: int) -> NoiseSchedule:
        """A schedule through `steps` of this one's steps, evenly spread, the last one included: fewer network calls."""
        if not 1 <= steps <= self.T:
            raise InvalidArgument("steps", steps, f"from 1 to {self.T}, the steps of the schedule")
        places = np.linspace(0, self.T, steps + 1).round().astype(np.int64)
        return NoiseSchedule(self.alpha_bar[places], self.timesteps[places])


def _check_steps(T: int) -> None:
    if not isinstance(T, int | np.integer) or T < 1:
        raise InvalidArgument("T", T, "a whole number of steps, at least 1")


_SCHEDULES: Mapping[str, Callable[[int], NoiseSchedule]] = {
    "linear": NoiseSchedule.linear,
    "cosine": NoiseSchedule.cosine,
}


# ── Samplers: ancestral sampling and DDIM ──
# A predictor is any function eps(x, t) of noised data x (N, ...) and step numbers t (N,), 1 to T, that returns the
# noise in x: a trained network, or one of the exact ones of `exact_noise`.


NoisePredictor = Callable[[Tensor, Tensor], Tensor]
VARIANCES = ("beta", "beta_tilde")


def q_sample(x0: Tensor, t: Tensor, eps: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Noised data x_t (N, ...) at steps t (N,) from 0 to T: all t steps of the forward process at once."""
    a = alpha_bar_at(schedule, t, x0)
    # x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


def alpha_bar_at(schedule: NoiseSchedule, t: Tensor, like: Tensor) -> Tensor:
    """alpha_bar of steps t (N,), shaped (N, 1, ...) to multiply data `like` (N, ...)."""
    table = torch.as_tensor(schedule.alpha_bar, dtype=torch.float64)
    return table[t.cpu()].to(like.device, like.dtype).view(-1, *[1] * (like.ndim - 1))


@torch.no_grad()
def ancestral(
    predict: NoisePredictor,
    noise: Tensor,
    schedule: NoiseSchedule,
    rng: torch.Generator,
    *,
    variance_type: str = "beta",
    clip: float | None = None,
) -> Tensor:
    """Samples (N, ...) from `noise` (N, ...) ~ N(0, 1): Ho et al., arXiv:2006.11239, algorithm 2.

    `variance_type` is "beta" or "beta_tilde", the two choices of section 3.2; the last step adds none. `clip` keeps the
    predicted x_0 within [-clip, clip].
    """
    if variance_type not in VARIANCES:
        raise InvalidArgument("variance_type", variance_type, " or ".join(VARIANCES))
    sigma, x = getattr(schedule, variance_type) ** 0.5, noise
    for t, eps in _backwards(predict, schedule):
        x = ancestral_step(x, eps(x), t, schedule, rng, sigma=sigma[t], clip=clip)
    return x


def ancestral_step(
    x: Tensor, eps: Tensor, t: int, schedule: NoiseSchedule, rng: torch.Generator, *, sigma: float, clip: float | None
) -> Tensor:
    """x_{t-1} (N, ...) from x_t, the noise `eps` predicted in it, and fresh noise of standard deviation `sigma`."""
    a, before, beta = schedule.alpha_bar[t], schedule.alpha_bar[t - 1], schedule.beta[t]
    x0, _ = _guess(x, eps, a, clip)
    # mean of q(x_{t-1} | x_t, x_0), eq. 7
    mean: Tensor = (before**0.5 * beta * x0 + (1 - beta) ** 0.5 * (1 - before) * x) / (1 - a)
    return mean + sigma * normal(x.shape, rng, x.device, x.dtype) if t > 1 else mean


@torch.no_grad()
def ddim(
    predict: NoisePredictor,
    noise: Tensor,
    schedule: NoiseSchedule,
    rng: torch.Generator | None = None,
    *,
    eta: float = 0.0,
    clip: float | None = None,
) -> Tensor:
    """Samples (N, ...) from `noise` (N, ...): Song et al., arXiv:2010.02502, eq. 12; without `eta` no noise is added.

    With eta = 1 it is ancestral sampling with beta_tilde.
    """
    if eta > 0 and rng is None:
        raise InvalidArgument("rng", None, "a generator, where eta adds noise")
    sigma = eta * schedule.beta_tilde**0.5
    x = noise
    for t, eps in _backwards(predict, schedule):
        before = schedule.alpha_bar[t - 1]
        x0, noise_in_x = _guess(x, eps(x), schedule.alpha_bar[t], clip)
        x = before**0.5 * x0 + max(1 - before - sigma[t] ** 2, 0.0) ** 0.5 * noise_in_x
        if rng is not None and sigma[t] > 0:
            x = x + sigma[t] * normal(x.shape, rng, x.device, x.dtype)
    return x


def _backwards(predict: NoisePredictor, schedule: NoiseSchedule) -> Iterator[tuple[int, Callable[[Tensor], Tensor]]]:
    """Steps T, ..., 1, each with the predictor bound to the original timestep."""
    for t in range(schedule.T, 0, -1):
        called = int(schedule.timesteps[t])
        yield t, lambda x, called=called: predict(x, torch.full((len(x),), called, device=x.device))  # type: ignore[misc]


def _guess(x: Tensor, eps: Tensor, alpha_bar: float, clip: float | None) -> tuple[Tensor, Tensor]:
    """The predicted x_0, clipped, and the eps consistent with it."""
    # x_0 = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t)
    x0 = (x - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5
    if clip is None:
        return x0, eps
    x0 = x0.clamp(-clip, clip)
    return x0, (x - alpha_bar**0.5 * x0) / (1 - alpha_bar) ** 0.5


@dataclass(frozen=True, eq=False)
class GaussianNoisePredictor:
    """The exact predictor for data N(mean, covariance), `mean` (d,) and `covariance` (d, d)."""

    mean: Tensor
    covariance: Tensor
    schedule: NoiseSchedule

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise (N, d) in x (N, d) at steps t (N,)."""
        values, vectors = torch.linalg.eigh(self.covariance)
        a = alpha_bar_at(self.schedule, t, x)
        centered = (x - a.sqrt() * self.mean) @ vectors
        # sqrt(1 - a) (a Sigma + (1 - a) I)^-1 (x - sqrt(a) mean), in the basis of Sigma
        eps: Tensor = ((1 - a).sqrt() / (a * values + 1 - a) * centered) @ vectors.T
        return eps


@dataclass(frozen=True, eq=False)
class MixtureNoisePredictor:
    """The exact predictor for a mixture of K equal Gaussians, `means` (K, ...) and one `variance` for every axis.

    With variance 0 the means are all the data there are: this is what minimizes the training loss of C3.3-5 exactly.
    """

    means: Tensor
    variance: float
    schedule: NoiseSchedule

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise (N, ...) in x (N, ...) at steps t (N,)."""
        a = alpha_bar_at(self.schedule, t, x).view(-1, 1)
        seen, means = x.flatten(1), self.means.flatten(1)
        power = a * self.variance + 1 - a  # variance of x_t within a component, (N, 1)
        # |x - sqrt(a) m|^2, where terms that do not depend on the component cancel in the softmax
        distance = a * (means**2).sum(1) - 2 * a.sqrt() * (seen @ means.T)
        w = torch.softmax(-distance / (2 * power), dim=1)  # (N, K), w_i = p(component i | x)
        near = w @ means
        # E[x_0 | x] = sum_i w_i (m_i + sqrt(a) variance / power (x - sqrt(a) m_i))
        x0 = near + a.sqrt() * self.variance / power * (seen - a.sqrt() * near)
        return ((seen - a.sqrt() * x0) / (1 - a).sqrt()).view_as(x)


def optimal_loss(eigenvalues: Array, schedule: NoiseSchedule) -> Array:
    """The least possible mean of |eps - prediction|^2 (T,) at steps 1, ..., T, for Gaussian data.

    Sum over i of alpha_bar lambda_i / (alpha_bar lambda_i + 1 - alpha_bar), with `eigenvalues` of the covariance: the
    part of the noise that cannot be told from the data. It tends to 1 per dimension as t goes to 0.
    """
    a, values = schedule.alpha_bar[1:, None], np.asarray(eigenvalues, dtype=float)
    if values.ndim != 1 or not (values >= 0).all():
        raise InvalidArgument("eigenvalues", eigenvalues, "variances (d,) of at least 0")
    return np.asarray((a * values / (a * values + 1 - a)).sum(1))


def ancestral_variance_ratio(variance: float, schedule: NoiseSchedule, *, variance_type: str = "beta") -> float:
    """The variance that ancestral sampling ends with for data N(0, variance), relative to it, with the exact predictor.

    v_{t-1} = c_t^2 v_t + sigma_t^2, c_t = (1 - beta_t / (alpha_bar_t variance + 1 - alpha_bar_t)) / sqrt(1 - beta_t).
    """
    beta, a, sigma2 = schedule.beta, schedule.alpha_bar, getattr(schedule, variance_type)
    v = 1.0
    for t in range(schedule.T, 0, -1):
        c = (1 - beta[t] / (a[t] * variance + 1 - a[t])) / np.sqrt(1 - beta[t])
        v = c**2 * v + (sigma2[t] if t > 1 else 0)
    return float(v / variance)


# ── The model ──


_PREDICTIONS, _SAMPLERS = ("eps", "v"), ("ddim", "ancestral")


@dataclass(frozen=True)
class DiffusionConfig(NeuralConfig):
    """`T` steps of a `schedule`, the target of the prediction, and the sampler with its number of steps.

    Samples come from an exponential moving average of the weights with decay `ema_decay`.
    """

    T: int = 1_000
    schedule: str = "cosine"
    prediction_type: str = "v"
    sampler: str = "ddim"
    sampling_steps: int = 50
    width: int = 48  # channels; of an MLP, four units each
    ema_decay: float = 0.999
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        for name, value, known in (
            ("schedule", self.schedule, _SCHEDULES),
            ("prediction_type", self.prediction_type, _PREDICTIONS),
            ("sampler", self.sampler, _SAMPLERS),
        ):
            if value not in known:
                raise InvalidArgument(name, value, f"one of {', '.join(known)}")
        if not (1 <= self.sampling_steps <= self.T and 0 <= self.ema_decay < 1):
            raise InvalidArgument("settings", self, "sampling_steps from 1 to T, ema_decay in [0, 1)")


class Diffusion(NeuralGenerator):
    """A network that predicts the noise in x_t given t, and the moving average of its weights, which samples use."""

    family = "diffusion"
    config_class = DiffusionConfig

    @cached_property
    def schedule(self) -> NoiseSchedule:
        """The schedule it was trained on."""
        return _SCHEDULES[self.config.schedule](self.config.T)

    def _build(self, spec: DataSpec) -> dict[str, nn.Module]:
        left = float(self.schedule.alpha_bar[-1])
        if self.config.prediction_type == "eps" and self.config.sampler == "ddim" and not spec.is_image and left < 1e-6:
            # x_0 = (x_T - sqrt(1 - alpha_bar_T) eps) / sqrt(alpha_bar_T): images are clipped; vectors diverge
            settings = f"eps on rows, drawn by ddim from alpha_bar_T = {left:.1g}"
            raise InvalidArgument(
                "prediction_type",
                settings,
                'prediction_type="v", sampler="ancestral" or schedule="linear" with T=1000',
            )

        def net() -> nn.Module:
            if spec.is_image:
                return UNet(spec.shape[0], width=self.config.width, classes=spec.n_classes)
            return TimeMLP(math.prod(spec.shape), hidden=4 * self.config.width, classes=spec.n_classes)

        return {"net": net(), "ema": net()}

    def _inference_modules(self) -> dict[str, nn.Module]:
        return {"ema": self.modules_["ema"]}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"net": torch.optim.Adam(self.modules_["net"].parameters(), lr=self.config.learning_rate)}

    def _step(self, batches: Batches, step: int, steps: int, rng: torch.Generator) -> Mapping[str, float]:
        c, schedule = self.config, self.schedule
        x0, labels = batches.draw()
        t = torch.randint(1, c.T + 1, (len(x0),), generator=rng)  # 1 and T included
        eps = normal(x0.shape, rng, x0.device)
        prediction = self.modules_["net"](q_sample(x0, t, eps, schedule), t.to(x0.device), labels)
        loss = (prediction - _prediction_target(c.prediction_type, x0, t, eps, schedule)).square().mean()
        optimizer = self.optimizers_["net"]
        set_lr(optimizer, c.learning_rate * cosine_with_warmup(step, steps))
        gradient_step(optimizer, loss, max_norm=1.0)
        ema_update(self.modules_["ema"], self.modules_["net"], min(c.ema_decay, (step - 1) / (step + 9)))
        return {"loss": float(loss.detach())}

    def noise_predictor(self, labels: Tensor | None = None) -> NoisePredictor:
        """eps(x, t) of the averaged network, on the model's scale, for rows of these classes."""
        net, schedule, predict = self.modules_["ema"], self.schedule, self.config.prediction_type

        def eps(x: Tensor, t: Tensor) -> Tensor:
            prediction = net(x, t, labels)
            return prediction if predict == "eps" else _eps_from_v(prediction, x, alpha_bar_at(schedule, t, x))

        return eps

    def _draw(self, n: int, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        c = self.config
        start = normal((n, *self.data_spec_.shape), rng, self.device)
        steps = self.schedule.respaced(c.sampling_steps)
        sampler = ddim if c.sampler == "ddim" else ancestral
        return sampler(self.noise_predictor(labels), start, steps, rng, clip=1.0 if self.data_spec_.is_image else None)


def _prediction_target(prediction_type: str, x0: Tensor, t: Tensor, eps: Tensor, schedule: NoiseSchedule) -> Tensor:
    """The target of the network's prediction: eps, or v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0."""
    a = alpha_bar_at(schedule, t, x0)
    return eps if prediction_type == "eps" else a.sqrt() * eps - (1 - a).sqrt() * x0


def _eps_from_v(v: Tensor, x: Tensor, alpha_bar: Tensor) -> Tensor:
    """eps = sqrt(alpha_bar_t) v + sqrt(1 - alpha_bar_t) x_t."""
    return alpha_bar.sqrt() * v + (1 - alpha_bar).sqrt() * x
