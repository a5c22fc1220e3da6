"""Diffusion: a network learns to say which noise was added, and sampling takes it away again, step by step.

    L = E_{t, x_0, eps} |eps - eps_theta(sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, t)|^2,  t from 1, ..., T

Ho et al., arXiv:2006.11239, eq. 14. With `predict="v"` the network says

    v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0                        Salimans and Ho, arXiv:2202.00512

instead, which asks something of it at every step: the noise is no riddle where x_t is nothing but noise, and the data
are none where there is hardly any.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from synthbook.core.errors import InvalidArgument
from synthbook.models.gan import follow
from synthbook.models.inputs import Learnt
from synthbook.models.protocol import Config, Generator
from synthbook.models.samplers import NoisePredictor, alpha_bar_at, ancestral, ddim, q_sample
from synthbook.models.schedule import SCHEDULES, Schedule
from synthbook.models.training import Batches, normal, set_rate, warm_then_cosine
from synthbook.models.unet import TimedMlp, UNet

PREDICTIONS, SAMPLERS = ("eps", "v"), ("ddim", "ancestral")


@dataclass(frozen=True)
class DiffusionConfig(Config):
    """`T` steps of a `schedule`, what the network predicts, and how samples are drawn from it.

    `sampler` takes `sampling_steps` of the T; `average` is how much of the running mean of the weights each step keeps.
    """

    T: int = 1_000
    schedule: str = "cosine"
    predict: str = "v"
    sampler: str = "ddim"
    sampling_steps: int = 50
    width: int = 48  # channels; of an MLP, four units each
    average: float = 0.999
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        for name, value, known in (
            ("schedule", self.schedule, SCHEDULES),
            ("predict", self.predict, PREDICTIONS),
            ("sampler", self.sampler, SAMPLERS),
        ):
            if value not in known:
                raise InvalidArgument(name, value, f"one of {', '.join(known)}")
        if not (1 <= self.sampling_steps <= self.T and 0 <= self.average < 1):
            raise InvalidArgument("settings", self, "sampling_steps from 1 to T, average in [0, 1)")


class Diffusion(Generator):
    """A network that sees noised data and the step, and the running mean of its weights, from which samples come."""

    family = "diffusion"
    settings = DiffusionConfig

    @cached_property
    def schedule(self) -> Schedule:
        """The schedule it was trained on."""
        return SCHEDULES[self.config.schedule](self.config.T)

    def _build(self, learnt: Learnt) -> dict[str, nn.Module]:
        left = float(self.schedule.alpha_bar[-1])
        if self.config.predict == "eps" and self.config.sampler == "ddim" and not learnt.is_image and left < 1e-6:
            # x_0 = (x_T - sqrt(1 - alpha_bar_T) eps) / sqrt(alpha_bar_T): pictures are clipped, rows fly away
            said = f"eps on rows, drawn by ddim from alpha_bar_T = {left:.1g}"
            raise InvalidArgument("predict", said, 'predict="v", sampler="ancestral" or schedule="linear" with T=1000')

        def net() -> nn.Module:
            if learnt.is_image:
                return UNet(learnt.shape[0], width=self.config.width, classes=learnt.classes)
            return TimedMlp(math.prod(learnt.shape), hidden=4 * self.config.width, classes=learnt.classes)

        return {"net": net(), "average": net()}

    def _kept(self) -> dict[str, nn.Module]:
        return {"average": self.modules_["average"]}

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {"net": torch.optim.Adam(self.modules_["net"].parameters(), lr=self.config.learning_rate)}

    def _step(self, batches: Batches, step: int, steps: int, rng: torch.Generator) -> Mapping[str, float]:
        c, schedule = self.config, self.schedule
        x0, labels = batches.draw()
        t = torch.randint(1, c.T + 1, (len(x0),), generator=rng)  # 1 and T included
        eps = normal(x0.shape, rng, x0.device)
        said = self.modules_["net"](q_sample(x0, t, eps, schedule), t.to(x0.device), labels)
        loss = (said - target(c.predict, x0, t, eps, schedule)).square().mean()
        optimiser = self.optimisers_["net"]
        set_rate(optimiser, c.learning_rate * warm_then_cosine(step, steps))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.modules_["net"].parameters(), 1.0)
        optimiser.step()
        follow(self.modules_["average"], self.modules_["net"], min(c.average, (step - 1) / (step + 9)))
        return {"loss": float(loss.detach())}

    def noise_predictor(self, labels: Tensor | None = None) -> NoisePredictor:
        """eps(x, t) of the averaged network, on the model's scale, for rows of these classes."""
        net, schedule, predict = self.modules_["average"], self.schedule, self.config.predict

        def eps(x: Tensor, t: Tensor) -> Tensor:
            said = net(x, t, labels)
            return said if predict == "eps" else noise_from_v(said, x, alpha_bar_at(schedule, t, x))

        return eps

    def _draw(self, n: int, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        c = self.config
        start = normal((n, *self.learnt_.shape), rng, self.device)
        steps = self.schedule.respaced(c.sampling_steps)
        sampler = ddim if c.sampler == "ddim" else ancestral
        return sampler(self.noise_predictor(labels), start, steps, rng, clip=1.0 if self.learnt_.is_image else None)


def target(predict: str, x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
    """What the network should say of x_t: eps, or v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0."""
    a = alpha_bar_at(schedule, t, x0)
    return eps if predict == "eps" else a.sqrt() * eps - (1 - a).sqrt() * x0


def noise_from_v(v: Tensor, x: Tensor, alpha_bar: Tensor) -> Tensor:
    """eps = sqrt(alpha_bar_t) v + sqrt(1 - alpha_bar_t) x_t."""
    return alpha_bar.sqrt() * v + (1 - alpha_bar).sqrt() * x
