"""Discriminators whose optimum is known, penalties against finite differences, power iteration against the SVD."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from synthbook.generators import gan, nets
from synthbook.generators.gan import discriminator_loss, ema_update, gradient_penalty, training_diagnostics
from synthbook.generators.nets import MLP, ConvEncoder, SpectralNorm, add_spectral_norm, init_weights
from tests.mutation import mutant


def jsd(m: float) -> float:
    """Jensen-Shannon divergence of N(0, 1) and N(m, 1) in nats, by quadrature."""
    p, q = stats.norm(0, 1).pdf, stats.norm(m, 1).pdf

    def part(x: float) -> float:
        mean = (p(x) + q(x)) / 2
        return float(0.5 * p(x) * np.log(p(x) / mean) + 0.5 * q(x) * np.log(q(x) / mean))

    return float(integrate.quad(part, -9, 9 + m, limit=200)[0])


def test_divergences_are_those_of_the_ledger() -> None:
    assert [round(jsd(m), 5) for m in (1, 2, 4)] == [0.11142, 0.33683, 0.63272]


def trained_judge(code: ModuleType, m: float, n: int = 100_000) -> tuple[float, float, float]:
    """Slope, intercept and the divergence read off a logistic discriminator of N(0, 1) (real) and N(m, 1)."""
    rng = torch.Generator().manual_seed(0)
    real = torch.randn(n, 1, generator=rng, dtype=torch.float64)
    fake = m + torch.randn(n, 1, generator=rng, dtype=torch.float64)
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = code.discriminator_loss("non-saturating", w[0] * real + w[1], w[0] * fake + w[1])
        loss.backward()
        return loss

    optimizer.step(closure)
    slope, intercept = w.detach().tolist()
    said = code.training_diagnostics("non-saturating", slope * real + intercept, slope * fake + intercept)
    return slope, intercept, said["jsd"]


@pytest.mark.slow
@pytest.mark.parametrize("m", [1.0, 2.0])
def test_the_best_discriminator_is_found_and_tells_the_divergence(m: float) -> None:
    """C3.2-1: D*(x) = sigmoid(m^2 / 2 - m x), cross-entropy ln 2 - JSD."""
    slope, intercept, divergence = trained_judge(gan, m)
    assert slope == pytest.approx(-m, rel=0.02) and intercept == pytest.approx(m**2 / 2, rel=0.02)
    assert divergence == pytest.approx(jsd(m), abs=0.005)
    for old, new in (
        ("math.log(2) - float(cross_entropy)", "math.log(2) - 2 * float(cross_entropy)"),
        (
            "F.softplus(-real).mean() + F.softplus(fake).mean()",
            "F.softplus(-real).mean() + 2 * F.softplus(fake).mean()",
        ),
    ):
        broken = trained_judge(mutant(gan, old, new), m)
        assert abs(broken[2] - jsd(m)) > 0.005 or abs(broken[1] - m**2 / 2) > 0.02 * m**2 / 2


def test_alike_it_can_only_guess() -> None:
    x = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(1))
    said = training_diagnostics("saturating", 0.01 * x[0], 0.01 * x[1])
    assert abs(said["accuracy"] - 0.5) < 3.3 * 0.5 / 200_000**0.5 and abs(said["jsd"]) < 0.002
    assert training_diagnostics("wasserstein", x[0] + 3, x[1])["wasserstein"] == pytest.approx(3, abs=0.02)


def test_losses_of_the_generator_pull_the_same_way() -> None:
    for name, loss in gan.GENERATOR_LOSSES.items():
        fake = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
        loss(fake).backward()
        assert fake.grad is not None and (fake.grad < 0).all(), name  # a higher score is a lower loss


def bent(x: torch.Tensor) -> torch.Tensor:
    return (x**2).flatten(1).sum(1) + 3 * x.flatten(1)[:, 0]


@pytest.mark.parametrize("kind", ["r1", "wgan-gp"])
def test_penalties_against_finite_differences(kind: str) -> None:
    rng = torch.Generator().manual_seed(0)
    real = torch.randn(6, 3, generator=rng, dtype=torch.float64)
    share = torch.rand((6, 1), generator=torch.Generator().manual_seed(7))
    at = real if kind == "r1" else share * real + (1 - share) * (real + 1)
    step = 1e-5 * torch.eye(3, dtype=torch.float64)
    slopes = torch.stack([(bent(at + e) - bent(at - e)) / 2e-5 for e in step], dim=1).norm(dim=1)
    expected = 0.5 * (slopes**2).mean() if kind == "r1" else ((slopes - 1) ** 2).mean()
    found = gradient_penalty(kind, bent, real, real + 1, torch.Generator().manual_seed(7))
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-6)


def test_a_penalty_reaches_the_weights() -> None:
    judge = init_weights(MLP(2, 1, hidden=8), torch.Generator().manual_seed(0))
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(1))
    gradient_penalty("r1", judge, x, x, torch.Generator()).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in judge.named_parameters() if "weight" in n)


def singular_value_is_found(code: ModuleType) -> bool:
    """C3.2-3 (b): within 1e-3 of the largest singular value after 50 rounds, on random matrices."""
    rng, good = torch.Generator().manual_seed(0), True
    for shape in ((5, 40), (64, 64), (30, 7)):
        matrix = torch.randn(shape, generator=rng, dtype=torch.float64)
        u, v = code.power_iteration(matrix, torch.ones(shape[0], dtype=torch.float64), 50)
        good &= abs(float(u @ matrix @ v) / float(torch.linalg.svdvals(matrix)[0]) - 1) < 1e-3
    return bool(good)


def test_power_iteration() -> None:
    assert singular_value_is_found(nets)
    assert not singular_value_is_found(mutant(nets, "u = F.normalize(matrix @ v, dim=0)", "u = F.normalize(u, dim=0)"))


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_no_spectrally_normalised_layer_stretches(kind: str) -> None:
    net: torch.nn.Module = MLP(2, 1, hidden=32) if kind == "mlp" else ConvEncoder(1, 8, 1, width=8, classes=2)
    add_spectral_norm(init_weights(net, torch.Generator().manual_seed(0)))
    layers = [module for module in net.modules() if isinstance(module, SpectralNorm)]
    assert len(layers) == (3 if kind == "mlp" else 4)
    with torch.no_grad():
        for layer in layers:
            layer.layer.weight *= 5
        rng = torch.Generator().manual_seed(1)
        x = 3 * torch.randn((400, 2) if kind == "mlp" else (400, 1, 8, 8), generator=rng)
        labels = None if kind == "mlp" else torch.zeros(400, dtype=torch.long)
        for _ in range(50):
            net(x, labels)
        net.eval()
        for layer in layers:
            sigma = torch.linalg.svdvals(layer.layer.weight.flatten(1))[0]
            assert float(layer.u @ layer.layer.weight.flatten(1) @ layer.v) == pytest.approx(float(sigma), rel=0.02)
        if kind == "mlp":  # SiLU's own slope is at most 1.1
            near = x + 1e-3 * torch.randn(x.shape, generator=rng)
            slope = (net(near) - net(x)).norm(dim=1) / (near - x).norm(dim=1)
            assert float(slope.max()) < 1.1**2 + 1e-3


def test_the_judge_loss_of_a_sure_judge() -> None:
    assert float(discriminator_loss("saturating", torch.tensor([9.0]), torch.tensor([-9.0]))) < 1e-3
    assert float(discriminator_loss("wasserstein", torch.tensor([9.0]), torch.tensor([-9.0]))) == -18


def test_an_average_of_weights_leaves_counts_alone() -> None:
    average, net = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    with torch.no_grad():
        net.weight.fill_(3.0)
    net(torch.zeros(4, 2))
    ema_update(average, net, 0.75)
    assert torch.allclose(average.weight, torch.full((2,), 1.5)) and int(average.num_batches_tracked) == 0
