"""Diffusion on Fashion-MNIST: ours against diffusers' UNet2DModel and DDPMScheduler, at equal parameters, on one core.

Images per second of training and of sampling come from turns that alternate. A network that does less for each image
is quicker without being better, so each is also trained from scratch with several budgets, on the same images, noise
schedule and objective; the question is then how many seconds each takes to the same loss on images that it never saw.
Writes bench/results/diffusers.json; run it with `make bench-diffusers`, which takes an hour.
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
RATES = (1e-3, 2e-3, 4e-3)  # of learning: each side takes the one that is best at its second budget
BUDGETS = {"synthbook": (150, 300, 600, 1_200, 2_400, 4_800), "diffusers": (150, 300, 600)}  # steps
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
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.rate)
        schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(0.05 * steps), steps)
        for _ in range(steps):
            rows = torch.randint(len(x), (BATCH,), generator=rng)
            noise = torch.randn(BATCH, *x.shape[1:], generator=rng)
            t = torch.randint(T, (BATCH,), generator=rng)
            noised = self.scheduler.add_noise(x[rows], noise, t)
            F.mse_loss(self.net(noised, t, labels[rows]).sample, noise).backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
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
    from synthbook.datasets import fashion_mnist
    from synthbook.generators.diffusion import Diffusion, NoiseSchedule, q_sample
    from synthbook.generators.neural import prepare_data

    torch.set_num_threads(1)
    data = fashion_mnist()
    x, labels, _ = prepare_data(data.train)
    held, held_labels = (part[:HELD_OUT] for part in prepare_data(data.test.data)[:2])
    rng = torch.Generator().manual_seed(0)
    t = torch.arange(HELD_OUT) * T // HELD_OUT + 1  # every step as often as any other
    noise = torch.randn(held.shape, generator=rng)
    noised = q_sample(held, t, noise, NoiseSchedule.linear(T))

    def ours(rate: float) -> Diffusion:
        return Diffusion(
            device="cpu", width=32, learning_rate=rate, batch_size=BATCH, T=T, schedule="linear", prediction_type="eps",
            sampler="ancestral", sampling_steps=SAMPLING_STEPS,
        )  # fmt: skip

    def trained(name: str, steps: int, rate: float) -> tuple[float, float]:
        """Seconds of training, and the mean squared error of the noise on the held-out images."""
        if name == "synthbook":
            model = ours(rate)
            seconds = timed(lambda: model.fit(data.train, seed=0, steps=steps))
            with torch.no_grad():
                said = model.noise_predictor(held_labels)(noised, t)
        else:
            peer = Peer(0, rate)
            seconds = timed(lambda: peer.fit(x, labels, steps=steps, seed=0))
            said = peer.eps(noised, t, held_labels)
        loss = float(F.mse_loss(said, noise))
        print(f"{name}, {steps} steps, rate {rate:g}: {seconds:.0f} s, {loss:.4f}")
        return seconds, loss

    # speed, in turns
    model, peer = ours(RATES[0]).fit(data.train, seed=0, steps=2), Peer(0, RATES[0]).fit(x, labels, steps=2, seed=0)
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
    curves: dict[str, list[tuple[float, float]]] = {}
    tried: dict[str, dict[float, tuple[float, float]]] = {}
    for name, budgets in BUDGETS.items():
        tried[name] = {rate: trained(name, budgets[1], rate) for rate in RATES}
        best = min(RATES, key=lambda rate: tried[name][rate][1])
        curves[name] = [tried[name][best] if n == budgets[1] else trained(name, n, best) for n in budgets]
    seconds, losses = np.array(curves["synthbook"]).T
    sooner = []
    for taken, loss in curves["diffusers"]:
        # our seconds to the peer's loss, on the line between budgets in log seconds
        reached = losses.min() <= loss <= losses.max()
        own = float(np.exp(np.interp(-loss, -losses, np.log(seconds))))
        sooner.append(taken / own if reached else None)

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
        f" as many ({SAMPLING_STEPS} ancestral steps); the peer takes"
        f" {', '.join(f'{s:.1f}' if s else '?' for s in sooner)} times as long to the held-out losses of its"
        f" {len(sooner)} budgets (a question mark: ours did not get there)."
        f" Each side learns at its best of {len(RATES)} rates."
    )
    result = {
        "parameters": sizes,
        "images_per_second": {w: {n: harness.spread(v) for n, v in r.items()} for w, r in rates.items()},
        "times_as_fast": faster,
        "rates_tried": {n: {f"{r:g}": found for r, found in t.items()} for n, t in tried.items()},
        "seconds_and_loss": curves,
        "times_as_soon": sooner,
        "machine": harness.machine("torch", "diffusers"),
    }
    harness.save_result("diffusers", "Diffusion against diffusers, one core", note, rows, result, seed=0)


if __name__ == "__main__":
    main()
