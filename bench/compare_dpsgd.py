"""A private step beside the plain one and beside Opacus', on the same network, batch, clipping length and noise.

Whoever is measured takes the same batch a number of times, in turn with the others, in one process on one thread: on
a network of linear layers, where norms are enough, and on the convolutional autoencoder of images, where they are not.
Writes bench/results/dpsgd.json; with --quick it takes few rounds and writes nothing.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import harness
import numpy as np
import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import Tensor, nn
from torch.nn import functional as F

from synthbook.generators.neural import DataSpec
from synthbook.privacy.dpsgd import DpSgdConfig, ghost_clipped_sum, noisy_mean, per_sample_clipped_sum
from synthbook.privacy.generators.dp_vae import DpVae, DpVaeConfig, PerImageLoss

SIZES = (64, 256, 64)
CLIP, NOISE, RATE = 1.0, 1.0, 0.01
NORMS, RECORDS, PLAIN = "synthbook, norms alone", "synthbook, a gradient each", "plain SGD"
PEER, GHOST = "opacus", "opacus, ghost clipping"
Work = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A network, made anew for each, the loss (B,) of what comes out of it, a batch, and how often it is taken."""

    name: str
    network: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    x: Tensor
    y: Tensor
    steps: int
    rounds: int
    norms: bool  # all layers are linear

    @property
    def private(self) -> DpSgdConfig:
        return DpSgdConfig(CLIP, NOISE, len(self.x))


def linear() -> Case:
    """Three sizes of linear layers, and classes to guess."""

    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(*SIZES[:2]), nn.ReLU(), nn.Linear(*SIZES[1:]))

    rng = torch.Generator().manual_seed(1)
    x, y = torch.randn(256, SIZES[0], generator=rng), torch.randint(SIZES[-1], (256,), generator=rng)
    name = "-".join(map(str, SIZES))
    return Case(
        name, network, lambda out, y: F.cross_entropy(out, y, reduction="none"), x, y, steps=20, rounds=21, norms=True
    )


def images() -> Case:
    """The private autoencoder of 28 x 28 pixels and ten classes, as it comes; its loss is what comes out of it."""
    spec = DataSpec(shape=(1, 28, 28), class_names=tuple("0123456789"), class_probs=(0.1,) * 10)
    model = DpVae(epsilon=1.0, delta=1e-5)
    config = model.config
    assert isinstance(config, DpVaeConfig)

    def network() -> nn.Module:
        torch.manual_seed(0)
        built = model._build(spec)
        return PerImageLoss(built["encoder"], built["decoder"], spec, config)

    rng = torch.Generator().manual_seed(1)
    pixels, eps = (
        torch.rand(config.batch_size, 784, generator=rng),
        torch.randn(config.batch_size, config.latent_dim, generator=rng),
    )
    labels = F.one_hot(torch.randint(10, (config.batch_size,), generator=rng), 10)
    x = torch.cat([2 * pixels - 1, labels, eps], dim=1)
    return Case("autoencoder", network, lambda out, _: out, x, torch.zeros(len(x)), steps=1, rounds=11, norms=False)


def ours(case: Case, *, norms: bool) -> Work:
    """A step of ours, by norms alone or by a gradient for each record."""
    model, rng = case.network(), np.random.default_rng(0)
    optimizer = torch.optim.SGD(model.parameters(), RATE)

    def work() -> None:
        if norms:
            total = ghost_clipped_sum(model, case.loss, case.x, case.y, CLIP)
        else:
            total = per_sample_clipped_sum(model, case.loss, case.x, case.y, CLIP)
        gradients = noisy_mean(total, case.private, rng)
        for name, value in model.named_parameters():
            value.grad = gradients[name]
        optimizer.step()

    return work


def opacus(case: Case, noise: float = NOISE) -> tuple[Work, DPOptimizer]:
    """A step of Opacus with a gradient for each record, its default, and the optimizer that takes it."""
    wrapped = GradSampleModule(case.network(), loss_reduction="mean")
    optimizer = DPOptimizer(torch.optim.SGD(wrapped.parameters(), RATE), **settings(case, noise))

    def work() -> None:
        optimizer.zero_grad()
        case.loss(wrapped(case.x), case.y).mean().backward()
        optimizer.step()

    return work, optimizer


def ghost(case: Case, noise: float = NOISE) -> tuple[Work, DPOptimizer]:
    """The same where Opacus, too, looks at norms alone, which it does when asked: two backward passes."""
    wrapped = GradSampleModuleFastGradientClipping(case.network(), loss_reduction="mean", max_grad_norm=CLIP)
    optimizer = DPOptimizerFastGradientClipping(torch.optim.SGD(wrapped.parameters(), RATE), **settings(case, noise))
    criterion = DPLossFastGradientClipping(wrapped, optimizer, nn.CrossEntropyLoss())

    def work() -> None:
        optimizer.zero_grad()
        criterion(wrapped(case.x), case.y).backward()
        optimizer.step()

    return work, optimizer


def settings(case: Case, noise: float) -> dict[str, object]:
    rng = torch.Generator().manual_seed(0)
    return {"noise_multiplier": noise, "max_grad_norm": CLIP, "expected_batch_size": len(case.x), "generator": rng}


def plain(case: Case) -> Work:
    """A step without privacy."""
    model = case.network()
    optimizer = torch.optim.SGD(model.parameters(), RATE)

    def work() -> None:
        optimizer.zero_grad()
        case.loss(model(case.x), case.y).mean().backward()
        optimizer.step()

    return work


def difference(case: Case) -> float:
    """The largest difference between our clipped sum and Opacus', over the largest number in it."""
    mine = per_sample_clipped_sum(case.network(), case.loss, case.x, case.y, CLIP)
    if case.norms:
        mine = ghost_clipped_sum(case.network(), case.loss, case.x, case.y, CLIP)
    found = []
    for peer in (opacus, ghost) if case.norms else (opacus,):
        work, optimizer = peer(case, 0.0)
        work()  # it keeps the sum along which it stepped
        found += [float((a - b.summed_grad).abs().max()) for a, b in zip(mine.values(), optimizer.params, strict=True)]
    return max(found) / max(float(value.abs().max()) for value in mine.values())


def measured(case: Case, subjects: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Milliseconds a step of each, by round, after a round that is not counted."""
    spent: dict[str, list[float]] = {name: [] for name in subjects}
    for k in range(rounds + 1):
        for name in list(subjects)[:: 1 if k % 2 else -1]:
            began = time.perf_counter()
            for _ in range(case.steps):
                subjects[name]()
            spent[name].append(1e3 * (time.perf_counter() - began) / case.steps)
    return {name: values[1:] for name, values in spent.items()}


def ratio(spent: dict[str, list[float]], one: str, other: str) -> dict[str, float]:
    """The spread of what `one` takes of what `other` takes in the same round."""
    return harness.spread([a / b for a, b in zip(spent[one], spent[other], strict=True)])


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows, found = [["", "", "milliseconds a step, median (least–most)", "over plain SGD"]], {}
    for case in (linear(), images()):
        works = {RECORDS: ours(case, norms=False), PEER: opacus(case)[0], PLAIN: plain(case)}
        if case.norms:
            works = {NORMS: ours(case, norms=True), GHOST: ghost(case)[0], **works}
        spent = measured(case, works, 3 if quick else case.rounds)
        spreads = {name: harness.spread(values) for name, values in spent.items()}
        for name, values in spreads.items():
            shown = f"{values['median']:.2f} ({values['least']:.2f}–{values['most']:.2f})"
            rows.append([case.name, name, shown, f"{ratio(spent, name, PLAIN)['median']:.1f}"])
        best = next(iter(works))
        found[case.name] = {
            "batch_size": len(case.x),
            "rounds": case.rounds,
            "steps": case.steps,
            "milliseconds": spreads,
            "ratios": {other: ratio(spent, best, other) for other in works if other != best},
            "ratios_of": best,
            "difference": difference(case),
        }
    of_mlp, of_images = ({name: r["median"] for name, r in one["ratios"].items()} for one in found.values())
    note = (
        f"One thread, the same clipping and noise. With linear layers alone ours takes {of_mlp[PEER]:.2f} of Opacus'"
        f" time, {of_mlp[GHOST]:.2f} where Opacus is asked to do with norms too, and {of_mlp[PLAIN]:.1f} times a step"
        f" without privacy. In the autoencoder each image has its gradient, in {of_images[PEER]:.2f} of Opacus' time."
        f" Clipped sums differ by at most {max(one['difference'] for one in found.values()):.1g} of the largest number."
    )
    if quick:
        harness.show(rows, note)
        return
    content = {"clip": CLIP, "noise": NOISE, "cases": found, "machine": harness.machine("torch", "opacus")}
    harness.save_result("dpsgd", "A private step", note, rows, content, seed=1)


if __name__ == "__main__":
    main()
