"""Diffusion on Fashion-MNIST: ours against diffusers' UNet2DModel and DDPMScheduler, at equal parameters, on one core.

Images per second of training and of sampling come from turns that alternate. A network that does less for each image
is quicker without being better, so each is also trained from scratch with several budgets, on the same images, noise
schedule and objective; the question is then how many seconds each takes to the same loss on images that it never saw.
Writes bench/results/diffusers.json; run it with `make bench-diffusers`, which takes half an hour.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter

import harness
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

BATCH, T, SAMPLING_STEPS, ROUNDS = 64, 1_000, 50, 5
TIMED = {"training": 20 * BATCH, "sampling": 256}  # images a turn
PEER_RATES = (5e-4, 1e-3, 2e-3)  # the best one at the second budget counts; ours keeps its default
BUDGETS = {"synthbook": (150, 300, 600, 1_200, 2_400), "diffusers": (150, 300, 600)}  # steps
HELD_OUT = 1_000  # images of the test part


class Peer:
    """diffusers' own training example, less its logging: AdamW, a cosine after a warm-up, clipped gradients."""

    def __init__(self, seed: int, rate: float):
        from diffusers import DDPMScheduler, UNet2DModel

        torch.manual_seed(seed)
        self.rate, self.scheduler = rate, DDPMScheduler(num_train_timesteps=T)
        self.net = UNet2DModel(
            sample_size=28,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(32, 40),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            num_class_embeds=10,
            norm_num_groups=8,
        )

    def fit(self, x: Tensor, labels: Tensor, *, steps: int, seed: int) -> Peer:
        from diffusers.optimization import get_cosine_schedule_with_warmup

        rng = torch.Generator().manual_seed(seed)
        optimiser = torch.optim.AdamW(self.net.parameters(), lr=self.rate)
        schedule = get_cosine_schedule_with_warmup(optimiser, math.ceil(0.05 * steps), steps)
        for _ in range(steps):
            rows = torch.randint(len(x), (BATCH,), generator=rng)
            noise = torch.randn(BATCH, *x.shape[1:], generator=rng)
            t = torch.randint(T, (BATCH,), generator=rng)
            noised = self.scheduler.add_noise(x[rows], noise, t)
            F.mse_loss(self.net(noised, t, labels[rows]).sample, noise).backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
        return self

    @torch.no_grad()
    def eps(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """The noise in x (N, 1, 28, 28) at steps t (N,) from 1, ..., T; diffusers counts from 0."""
        return self.net(x, t - 1, labels).sample  # type: ignore[no-any-return]

    @torch.no_grad()
    def sample(self, labels: Tensor) -> Tensor:
        """Images (N, 1, 28, 28) of these classes (N,)."""
        self.scheduler.set_timesteps(SAMPLING_STEPS)
        x = torch.randn(len(labels), 1, 28, 28)
        for t in self.scheduler.timesteps:
            x = self.scheduler.step(self.net(x, t, labels).sample, t, x).prev_sample
        return x


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = perf_counter()
    call()
    return perf_counter() - began


def main() -> None:
    from synthbook.core.data import fashion_mnist
    from synthbook.models.diffusion import Diffusion
    from synthbook.models.inputs import learnt
    from synthbook.models.samplers import q_sample
    from synthbook.models.schedule import Schedule

    torch.set_num_threads(1)
    data = fashion_mnist()
    x, labels, _ = learnt(data.train)
    held, held_labels = (part[:HELD_OUT] for part in learnt(data.test.data)[:2])
    rng = torch.Generator().manual_seed(0)
    t = torch.arange(HELD_OUT) * T // HELD_OUT + 1  # every step as often as any other
    noise = torch.randn(held.shape, generator=rng)
    noised = q_sample(held, t, noise, Schedule.linear(T))

    def ours() -> Diffusion:
        return Diffusion(
            device="cpu", width=32, batch=BATCH, T=T, schedule="linear", predict="eps",
            sampler="ancestral", sampling_steps=SAMPLING_STEPS,
        )  # fmt: skip

    def trained(name: str, steps: int, rate: float = PEER_RATES[1]) -> tuple[float, float]:
        """Seconds of training, and the mean squared error of the noise on the held-out images."""
        if name == "synthbook":
            model = ours()
            seconds = timed(lambda: model.fit(data.train, seed=0, steps=steps))
            with torch.no_grad():
                said = model.noise_predictor(held_labels)(noised, t)
        else:
            peer = Peer(0, rate)
            seconds = timed(lambda: peer.fit(x, labels, steps=steps, seed=0))
            said = peer.eps(noised, t, held_labels)
        loss = float(F.mse_loss(said, noise))
        print(f"{name}, {steps} steps, rate {rate if name == 'diffusers' else 'default'}: {seconds:.0f} s, {loss:.4f}")
        return seconds, loss

    # speed, in turns
    model, peer = ours().fit(data.train, seed=0, steps=2), Peer(0, PEER_RATES[1]).fit(x, labels, steps=2, seed=0)
    wanted = torch.arange(TIMED["sampling"]) % 10
    turns: dict[str, dict[str, Callable[[], object]]] = {
        "training": {
            "synthbook": lambda: model.fit(data.train, seed=0, steps=TIMED["training"] // BATCH),
            "diffusers": lambda: peer.fit(x, labels, steps=TIMED["training"] // BATCH, seed=0),
        },
        "sampling": {
            "synthbook": lambda: model.sample(len(wanted), seed=0, labels=wanted),
            "diffusers": lambda: peer.sample(wanted),
        },
    }
    rates: dict[str, dict[str, list[float]]] = {}
    for work, calls in turns.items():
        rates[work] = {name: [] for name in calls}
        for _ in range(ROUNDS):
            for name, call in calls.items():
                rates[work][name].append(TIMED[work] / timed(call))
    faster = {work: float(np.median(r["synthbook"]) / np.median(r["diffusers"])) for work, r in rates.items()}

    # seconds to an equal loss
    second = BUDGETS["diffusers"][1]
    tried = {rate: trained("diffusers", second, rate) for rate in PEER_RATES}
    best = min(PEER_RATES, key=lambda rate: tried[rate][1])
    curves = {
        "synthbook": [trained("synthbook", steps) for steps in BUDGETS["synthbook"]],
        "diffusers": [tried[best] if n == second else trained("diffusers", n, best) for n in BUDGETS["diffusers"]],
    }
    seconds, losses = np.array(curves["synthbook"]).T
    # our seconds to the peer's loss, on the line between budgets in log seconds; NaN where none of ours got there
    equal = [
        float(np.exp(np.interp(-loss, -losses, np.log(seconds), right=math.nan))) for _, loss in curves["diffusers"]
    ]
    sooner = [taken / own for (taken, _), own in zip(curves["diffusers"], equal, strict=True)]

    sizes = {
        "synthbook": sum(p.numel() for p in model.modules_["net"].parameters()),
        "diffusers": sum(p.numel() for p in peer.net.parameters()),
    }
    rows = [["", "parameters", *(f"{work}, images per second (least–most)" for work in rates), "seconds → loss"]]
    for name, size in sizes.items():
        spreads = [harness.spread(r[name]) for r in rates.values()]
        path = "; ".join(f"{s:.0f} → {loss:.4f}" for s, loss in curves[name])
        shown = [f"{s['median']:,.0f} ({s['least']:,.0f}–{s['most']:,.0f})" for s in spreads]
        rows.append([name, f"{size:,}", *shown, path])
    note = (
        f"Ours trains {faster['training']:.1f} times as many images per second and draws {faster['sampling']:.1f} times"
        f" as many ({SAMPLING_STEPS} ancestral steps); the peer takes {', '.join(f'{s:.1f}' for s in sooner)} times"
        f" as long to the held-out losses of its {len(sooner)} budgets (learning rate {best:g}, its best of"
        f" {len(PEER_RATES)})."
    )
    result = {
        "parameters": sizes,
        "images_per_second": {w: {n: harness.spread(v) for n, v in r.items()} for w, r in rates.items()},
        "times_as_fast": faster,
        "rates_tried": {f"{rate:g}": found for rate, found in tried.items()},
        "seconds_and_loss": curves,
        "times_as_soon": sooner,
        "machine": harness.machine("torch", "diffusers"),
    }
    harness.save_result("diffusers", "Diffusion against diffusers, one core", note, rows, result, seed=0)


if __name__ == "__main__":
    main()
