"""Clipping and noise: against one backward pass for each record, against Opacus, and against broken copies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from torch import Tensor, nn
from torch.nn import functional as F

from synthbook.core.errors import InvalidArgument
from synthbook.privacy import dpsgd
from synthbook.privacy.dpsgd import (
    DpSgdConfig,
    clipped_sum,
    dpsgd_step,
    ghost_clipped_sum,
    noisy_mean,
    per_sample_clipped_sum,
    per_sample_grads,
    per_sample_grads_hooks,
    poisson_sample,
)
from tests.mutation import mutant


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def network(seed: int = 0, bias: bool = True) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 9, bias=bias), nn.Tanh(), nn.Linear(9, 3, bias=bias))


def batch(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, 6, generator=rng), torch.randint(3, (n,), generator=rng)


def by_loop(model: nn.Module, x: Tensor, y: Tensor, clip: float) -> dict[str, Tensor]:
    """One backward pass for each record, clipped, summed."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in range(len(x)):
        grads = torch.autograd.grad(loss(model(x[i : i + 1]), y[i : i + 1]).sum(), list(model.parameters()))
        norm = float(torch.cat([g.flatten() for g in grads]).norm())
        for (name, _), g in zip(model.named_parameters(), grads, strict=True):
            total[name] += g * min(1.0, clip / norm)
    return total


def largest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("clip", [0.05, 1.0, 1_000.0])
@pytest.mark.parametrize("bias", [True, False])
def test_all_routes_give_the_sum_of_one_pass_for_each_record(clip: float, bias: bool) -> None:
    model, (x, y) = network(bias=bias), batch(40)
    expected = by_loop(model, x, y, clip)
    assert largest(clipped_sum(per_sample_grads(model, loss, x, y), clip), expected) < 1e-5
    assert largest(clipped_sum(per_sample_grads_hooks(model, loss, x, y), clip), expected) < 1e-5
    assert largest(ghost_clipped_sum(model, loss, x, y, clip), expected) < 1e-5


def test_the_clipped_sum_a_few_at_a_time_is_that_of_all() -> None:
    model, (x, y) = network(), batch(70)
    assert largest(per_sample_clipped_sum(model, loss, x, y, 0.3), by_loop(model, x, y, 0.3)) < 1e-5
    nobody = per_sample_clipped_sum(model, loss, x[:0], y[:0], 0.3)
    assert {name: float(g.abs().max()) for name, g in nobody.items()} == {
        name: 0.0 for name, _ in model.named_parameters()
    }


def test_gradients_of_records_are_those_of_opacus() -> None:
    model, (x, y) = network(), batch(32)
    ours = per_sample_grads(model, loss, x, y)
    theirs = GradSampleModule(network(), loss_reduction="sum")
    loss(theirs(x), y).sum().backward()
    for name, p in theirs._module.named_parameters():
        assert float((p.grad_sample - ours[name]).abs().max()) < 1e-5


def test_a_convolution_has_gradients_for_each_record_too_and_is_refused_by_the_linear_route() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    x, y = batch(12)
    assert largest(clipped_sum(per_sample_grads(model, loss, x, y), 0.3), by_loop(model, x, y, 0.3)) < 1e-5
    with pytest.raises(InvalidArgument, match="linear layers only"):
        ghost_clipped_sum(model, loss, x, y, 0.3)


def change(module, x: Tensor, y: Tensor, other: tuple[Tensor, Tensor], clip: float) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """How far the sum moves when a record is added, and when one is replaced by another."""
    model = network()

    def total(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat(
            [g.flatten() for g in module.clipped_sum(module.per_sample_grads(model, loss, x, y), clip).values()]
        )

    before = total(x, y)
    added = total(torch.cat([x, other[0]]), torch.cat([y, other[1]]))
    replaced = total(torch.cat([x[1:], other[0]]), torch.cat([y[1:], other[1]]))
    return float((added - before).norm()), float((replaced - before).norm())


def test_no_record_moves_the_sum_further_than_it_may_and_an_adversary_moves_it_as_far() -> None:
    x, y = batch(20)
    for seed in range(10):
        added, replaced = change(dpsgd, x, y, batch(1, seed + 50), 0.5)
        assert added <= 0.5 + 1e-5 and replaced <= 1.0 + 1e-5
    one, two = 100 * torch.ones(1, 6), torch.tensor([0])
    added, _ = change(dpsgd, x, y, (one, two), 0.01)
    assert added >= 0.0099
    broken = mutant(dpsgd, ".clamp(max=1.0)", ".clamp(min=1.0, max=1.0)")  # no clipping
    assert max(change(broken, x, y, batch(1, seed + 50), 0.05)[1] for seed in range(10)) > 0.1 + 1e-5


def test_clipping_the_batch_instead_bounds_nobody() -> None:
    model, (x, y), clip = network(), batch(20), 0.05

    def clipped_together(x: Tensor, y: Tensor) -> Tensor:
        flat = torch.cat([g.sum(0).flatten() for g in per_sample_grads(model, loss, x, y).values()])
        return flat * min(1.0, len(x) * clip / float(flat.norm()))

    whole, rows = clipped_together(x, y), torch.arange(20)
    moved = [(whole - clipped_together(x[rows != i], y[rows != i])).norm() for i in range(20)]
    assert max(float(m) for m in moved) > clip + 1e-5


def test_noise_has_its_size_is_fresh_and_the_mean_is_over_the_expected_batch() -> None:
    zero, rng = {"w": torch.zeros(200_000)}, np.random.default_rng(0)
    private = DpSgdConfig(max_grad_norm=2.0, noise_multiplier=1.5, expected_batch_size=10.0)
    first, second = (noisy_mean(zero, private, rng)["w"] for _ in range(2))
    assert float(first.std()) == pytest.approx(0.3, rel=0.01) and abs(float((first * second).mean())) < 0.001
    for old, new in (
        ("config.noise_multiplier * config.max_grad_norm *", "0.5 * config.noise_multiplier * config.max_grad_norm *"),
        ("config.noise_multiplier * config.max_grad_norm *", "config.noise_multiplier *"),
    ):
        broken = mutant(dpsgd, old, new)
        assert float(broken.noisy_mean(zero, private, rng)["w"].std()) < 0.2
    reused = mutant(dpsgd, "_normal(value.shape, rng)", "_normal(value.shape, np.random.default_rng(1))")
    one, two = (reused.noisy_mean(zero, private, rng)["w"] for _ in range(2))
    assert abs(float((one * two).mean())) > 0.05


def poisson_samples(n: int, rate: float, steps: int, rng: np.random.Generator) -> list[Tensor]:
    return [poisson_sample(n, rate, rng) for _ in range(steps)]


def test_batches_are_poisson_samples() -> None:
    rng = np.random.default_rng(0)
    sizes = torch.tensor([len(rows) for rows in poisson_samples(200, 0.05, 4_000, rng)], dtype=torch.float64)
    assert float(sizes.mean()) == pytest.approx(10, abs=0.2)
    assert float(sizes.var()) == pytest.approx(9.5, rel=0.1)  # batches of one size have none
    counts = torch.zeros(20)
    for rows in poisson_samples(20, 0.1, 2_000, rng):
        counts[rows] += 1
    assert len(rows.unique()) == len(rows) and ((counts / 2_000 - 0.1).abs() < 0.04).all()
    assert any(not len(rows) for rows in poisson_samples(3, 0.1, 50, rng))


def test_an_empty_batch_is_a_step_of_noise_and_a_private_run_learns() -> None:
    model, rng = network(), np.random.default_rng(0)
    x, y = batch(0)
    before = [p.clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    dpsgd_step(model, per_sample_clipped_sum(model, loss, x, y, 1.0), DpSgdConfig(1.0, 1.0, 10.0), optimizer, rng)
    assert all(not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert (
        largest(ghost_clipped_sum(model, loss, x, y, 1.0), clipped_sum(per_sample_grads(model, loss, x, y), 1.0)) == 0
    )
    inputs, _ = batch(600)
    labels = (inputs[:, 0] > 0).long()
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    start = loss(model(inputs), labels).mean().item()
    for rows in poisson_samples(600, 0.1, 40, rng):
        total = per_sample_clipped_sum(model, loss, inputs[rows], labels[rows], 1.0)
        dpsgd_step(model, total, DpSgdConfig(1.0, 0.5, 60.0), optimizer, rng)
    assert loss(model(inputs), labels).mean().item() < 0.6 * start


def test_what_would_break_the_promise_is_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    with pytest.raises(InvalidArgument, match="1: BatchNorm1d"):
        per_sample_grads(model, loss, *batch(4))
    for wrong in ((0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, 0.0)):
        with pytest.raises(InvalidArgument):
            DpSgdConfig(*wrong)
    with pytest.raises(InvalidArgument):
        poisson_sample(0, 0.1, np.random.default_rng(0))
