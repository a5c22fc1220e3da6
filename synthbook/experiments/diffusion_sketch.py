"""The chapter's training loop as code that runs, and how far from the least possible loss it ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from synthbook.core.types import Images
from synthbook.datasets import digits
from synthbook.evaluation.features import image_features
from synthbook.evaluation.frechet import frechet_distance
from synthbook.evaluation.novelty import NoveltyResult, novelty
from synthbook.experiments import experiment
from synthbook.generators.diffusion import Diffusion, NoisePredictor, NoiseSchedule, ancestral, optimal_loss, q_sample
from synthbook.generators.nets import TimeMLP, init_weights

VARIANCES = torch.tensor([4.0, 0.25])
LOOKED_AT = (1, 25, 50, 100, 150, 200, 300, 400, 500, 600, 700, 800, 900, 1_000)
STEPS = (5, 10, 20, 100)  # of sampling
CASES = ("floor", "digits")
TRIALS = "artifacts/calibration/diffusion/trials.json"


def train_noise_net(variances: Tensor, schedule: NoiseSchedule, *, seed: int, steps: int = 4_000) -> nn.Module:
    """The chapter's training loop, on points from a bell curve with these variances (d,)."""
    rng = torch.Generator().manual_seed(seed)
    net = init_weights(TimeMLP(len(variances), hidden=96), rng)
    optimizer = torch.optim.Adam(net.parameters())
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        x0 = variances.sqrt() * torch.randn(512, len(variances), generator=rng)
        t = torch.randint(1, schedule.T + 1, (512,), generator=rng)  # 1 and T included
        eps = torch.randn(512, len(variances), generator=rng)
        loss = (eps - net(q_sample(x0, t, eps, schedule), t)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


@torch.no_grad()
def loss_at(
    predict_noise: NoisePredictor, t: int, variances: Tensor, schedule: NoiseSchedule, *, seed: int, n: int = 20_000
) -> tuple[float, float]:
    """Mean squared error of the noise at step t on fresh points, and its standard error."""
    rng = torch.Generator().manual_seed(seed)
    x0, eps = (
        variances.sqrt() * torch.randn(n, len(variances), generator=rng),
        torch.randn(n, len(variances), generator=rng),
    )
    steps = torch.full((n,), t)
    lost = (eps - predict_noise(q_sample(x0, steps, eps, schedule), steps)).square().sum(dim=1)
    return float(lost.mean()), float(lost.std() / n**0.5)


def split_digits() -> tuple[Images, Images]:
    """All of scikit-learn's digits divided at random (they are ordered by writer): 898 to learn from, 898 held out."""
    split = digits()
    images = torch.cat([split.train.images, split.test.data.images])
    labels = torch.cat([split.train.labels, split.test.data.labels])
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(images)))
    one, other = (
        Images(images[rows], labels[rows], split.train.class_names) for rows in (order[:898], order[898:1_796])
    )
    return one, other


def _digits_model(seen: Images, *, seed: int) -> Diffusion:
    """The small diffusion model of notebook 03c."""
    return Diffusion(width=32, batch_size=64, learning_rate=3e-3).fit(seen, seed=seed, steps=1_000)


def quality(model: Diffusion, steps: int, seen: Images, unseen: Images, *, seed: int, n: int = 800) -> float:
    """Fréchet distance on the digits CNN of digits drawn by ancestral sampling in so many steps, to held-out ones."""
    labels = seen.labels[:n]
    start = torch.randn(n, *model.data_spec_.shape, generator=torch.Generator().manual_seed(seed))
    rng = torch.Generator().manual_seed(seed + 1)
    drawn = ancestral(model.noise_predictor(labels), start, model.schedule.respaced(steps), rng, clip=1.0)
    return frechet_distance(
        image_features(drawn.clamp(-1, 1), "digits-cnn"), image_features(unseen.images, "digits-cnn")
    )


def nearness(made: Tensor, seen: Images, unseen: Images) -> NoveltyResult:
    """Are drawn digits (N, 1, 8, 8) nearer to those learnt from than to those held out?"""
    x, train, holdout = (images.flatten(1).numpy() for images in (made, seen.images, unseen.images))
    return novelty(x, train=train, holdout=holdout, seed=0)


@experiment(
    "diffusion",
    help="Train diffusion models of points and digits: loss, sampling steps, novelty.",
    data_source="models of section 3, trained anew for each row",
    cases=CASES,
)
def trial(case: str, *, seed: int) -> dict[str, Any]:
    """A case of `synthbook dev experiment diffusion`: "floor" (loss over the least possible) or "digits"."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {"case": case, "seed": seed}
    if case == "floor":
        schedule = NoiseSchedule.linear(1_000)
        net = train_noise_net(VARIANCES, schedule, seed=seed)
        least = optimal_loss(VARIANCES.numpy(), schedule)[np.array(LOOKED_AT) - 1]
        ours = np.array([loss_at(net, t, VARIANCES, schedule, seed=100 + seed) for t in LOOKED_AT])
        found["mean loss over floor"] = ours[:, 0].mean() / least.mean()
        found["standard errors above floor"] = float(((ours[:, 0] - least) / ours[:, 1]).min())
        return found
    seen, unseen = split_digits()
    model = _digits_model(seen, seed=seed)
    near = nearness(model.sample(1_000, seed=100 + seed).images, seen, unseen)
    found |= {"share nearer to training": near.dcr_share, "band": near.high}
    return found | {f"{steps} steps": quality(model, steps, seen, unseen, seed=200 + seed) for steps in STEPS}
