"""A private autoencoder of tables: its batches, its gradients, its noise, each against an oracle and a broken copy."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, kl_divergence

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Column, Schema, Table
from synthbook.generators.nets import MLP, init_weights
from synthbook.privacy import dpsgd
from synthbook.privacy.accounting import SubsampledGaussian, pld_epsilon
from synthbook.privacy.dpsgd import clipped_sum, ghost_clipped_sum, noisy_mean, per_sample_grads
from synthbook.privacy.generators import base, dp_tvae
from synthbook.privacy.generators.discretize import PublicEncoding
from synthbook.privacy.generators.dp_tvae import DpTvae, PerRowLoss
from tests.mutation import mutant

PROMISE: dict[str, Any] = {"epsilon": 2.0, "delta": 1e-5}
TINY = {"hidden": 8, "latent_dim": 2}
COLUMNS = (
    Column("tens", "categorical", categories=tuple(f"t{k}" for k in range(40))),
    Column("ones", "categorical", categories=tuple(f"o{k}" for k in range(10))),
)


def numbered(n: int, people: int = 0) -> Table:
    """Row i says that it is row i; where there are `people`, they take turns."""
    i = np.arange(n)
    frame = pd.DataFrame({"tens": [f"t{k // 10}" for k in i], "ones": [f"o{k % 10}" for k in i]})
    if not people:
        return Table(frame, Schema(COLUMNS, "public"))
    schema = Schema((*COLUMNS, Column("person", "id")), "public", entity="person")
    return Table(frame.assign(person=i % people), schema)


def numbers(rows: Tensor) -> np.ndarray:
    """Which rows these are."""
    return (10 * rows[:, :40].argmax(dim=1) + rows[:, 40:50].argmax(dim=1)).numpy()


class Batch:
    """What a step of training did: loss, rows beside their codes' randomness, clip, and the sum that came out."""

    def __init__(self, loss: nn.Module, given: Tensor, clip: float, total: dict[str, Tensor]):
        self.loss, self.given, self.clip, self.total = loss, given, clip, total

    def sum_of(self, rows: np.ndarray) -> Tensor:
        """The clipped sum of some of the batch's rows, all parameters in one vector."""
        given = self.given[torch.from_numpy(rows)]
        return flat(ghost_clipped_sum(self.loss, lambda out, _: out, given, given, self.clip))


def flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients.values()])


def batches(module: ModuleType, patch: pytest.MonkeyPatch, table: Table, steps: int, **settings: Any) -> list[Batch]:
    """The batches of a fit by a module, or by a broken copy of it."""
    seen: list[Batch] = []

    def spied(loss: nn.Module, by: Any, x: Tensor, y: Tensor, clip: float) -> dict[str, Tensor]:
        total = ghost_clipped_sum(loss, by, x, y, clip)
        seen.append(Batch(copy.deepcopy(loss), x.clone(), clip, total))  # the weights as they were
        return total

    patch.setattr(module, "ghost_clipped_sum", spied)
    patch.setattr(module, "calibrate_noise", lambda *given, **named: 1.0)
    module.DpTvae(**PROMISE | TINY | settings).fit(table, seed=0, steps=steps)
    return seen


# ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────────

CHOSEN = "units = poisson_sample(self._n_units, c.batch_size / self._n_units, private_rng)"
DEALT = (
    "seed = (step - 1) * c.batch_size // self._n_units;"
    " order = torch.randperm(self._n_units, generator=torch.Generator().manual_seed(seed));"
    " first = (step - 1) * c.batch_size % self._n_units;"
    " units = order[first : first + c.batch_size]"
)
OF_ONE_SIZE = "units = torch.randperm(self._n_units, generator=rng)[: c.batch_size]"


def departures(chosen: list[np.ndarray], n: int, q: float) -> list[str]:
    """What tells batches from Poisson samples: each record in each with probability q, on its own."""
    steps, epoch = len(chosen), round(1 / q)
    sizes = np.array([len(rows) for rows in chosen])
    seen = np.zeros((steps, n))
    for row, rows in zip(seen, chosen, strict=True):
        row[rows] += 1
    found = ["a record twice in a batch"] if seen.max() > 1 else []
    if abs(sizes.mean() - n * q) > 4 * math.sqrt(n * q * (1 - q) / steps):
        found.append("mean size")
    if abs(sizes.var() / (n * q * (1 - q)) - 1) > 4 * math.sqrt(2 / steps):
        found.append("variance of sizes")
    in_epochs = seen[: steps // epoch * epoch].reshape(-1, epoch, n).sum(axis=1)  # (epochs, n)
    once = epoch * q * (1 - q) ** (epoch - 1)
    if abs((in_epochs == 1).mean() - once) > 4 * math.sqrt(once / in_epochs.size):
        found.append("how often a record comes in an epoch")
    if np.abs(seen.mean(axis=0) - q).max() > 4.5 * math.sqrt(q * (1 - q) / steps):
        found.append("a record that comes too often")
    return found


@pytest.mark.slow
def test_batches_are_poisson_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The accountant's promise is for Poisson samples; shuffled batches leak more, and nothing else shows it."""
    n, q, steps = 100, 0.1, 100

    def chosen(module: ModuleType) -> list[np.ndarray]:
        return [numbers(one.given) for one in batches(module, monkeypatch, numbered(n), steps, batch_size=10)]

    assert departures(chosen(dp_tvae), n, q) == []
    shuffled = departures(chosen(mutant(dp_tvae, CHOSEN, DEALT)), n, q)
    assert shuffled == ["variance of sizes", "how often a record comes in an epoch"]
    assert departures(chosen(mutant(dp_tvae, CHOSEN, OF_ONE_SIZE)), n, q) == ["variance of sizes"]


@pytest.mark.slow
def test_units_are_sampled_with_all_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    table = numbered(300, people=100)
    steps = batches(dp_tvae, monkeypatch, table, 100, batch_size=10, max_rows_per_entity=3)
    found = [np.bincount(numbers(one.given) % 100, minlength=100) for one in steps]
    assert {int(k) for counts in found for k in counts} == {0, 3}
    assert departures([np.flatnonzero(counts) for counts in found], 100, 0.1) == []


def test_an_empty_batch_is_a_step_of_noise_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[float, float]] = []

    def spied(total: dict[str, Tensor], private: Any, rng: np.random.Generator) -> dict[str, Tensor]:
        mean = noisy_mean(total, private, rng)
        steps.append((float(flat(total).norm()), float(flat(mean).std())))
        return mean

    monkeypatch.setattr(dpsgd, "noisy_mean", spied)
    seen = batches(dp_tvae, monkeypatch, numbered(300), 12, batch_size=1, max_grad_norm=0.5, hidden=64)
    empty = [std for one, (norm, std) in zip(seen, steps, strict=True) if not len(one.given) and norm == 0]
    assert 1 < len(empty) == sum(not len(one.given) for one in seen) < 12
    assert empty == pytest.approx([0.5] * len(empty), rel=0.03)  # sigma C / batch


# ── gradients ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def loss() -> PerRowLoss:
    encoding, rng = PublicEncoding(COLUMNS), torch.Generator().manual_seed(0)
    encoder = init_weights(MLP(encoding.width, 6, hidden=12), rng)
    return PerRowLoss(encoder, init_weights(MLP(3, encoding.width, hidden=12), rng), encoding, 0.7)


@pytest.fixture
def given() -> Iterator[Tensor]:
    rows = PublicEncoding(COLUMNS).encode(numbered(25).frame)
    yield torch.cat([torch.tensor(rows).float(), torch.randn((25, 3), generator=torch.Generator().manual_seed(1))], 1)


def same(out: Tensor, _: Tensor) -> Tensor:
    return out


def by_loop(model: nn.Module, given: Tensor) -> list[dict[str, Tensor]]:
    """One backward pass for each record."""
    names = [name for name, _ in model.named_parameters()]
    found = (torch.autograd.grad(model(given[i : i + 1]).sum(), list(model.parameters())) for i in range(len(given)))
    return [dict(zip(names, gradients, strict=True)) for gradients in found]


def test_the_loss_is_minus_the_elbo(loss: PerRowLoss, given: Tensor) -> None:
    rows, eps = given[:, :50], given[:, 50:]
    mean, log_variance = loss.encoder(rows).chunk(2, dim=1)
    code = Normal(mean, (log_variance / 2).exp())
    out = loss.decoder(mean + code.stddev * eps)
    rebuilt = sum(Categorical(logits=out[:, s]).log_prob(rows[:, s].argmax(1)) for s in (slice(0, 40), slice(40, 50)))
    expected = 0.7 * kl_divergence(code, Normal(0.0, 1.0)).sum(1) - rebuilt
    torch.testing.assert_close(loss(given), expected)


def test_gradients_are_those_of_one_pass_for_each_record(loss: PerRowLoss, given: Tensor) -> None:
    expected, found = by_loop(loss, given), per_sample_grads(loss, same, given, given)
    for i, gradients in enumerate(expected):
        for name, gradient in gradients.items():
            assert float((found[name][i] - gradient).abs().max()) < 1e-5
    norms = [float(flat(gradients).norm()) for gradients in expected]
    for clip in (0.1 * min(norms), float(np.median(norms)), 2 * max(norms), math.inf):
        total = sum(flat(g) * min(1.0, clip / norm) for g, norm in zip(expected, norms, strict=True))
        assert float((flat(ghost_clipped_sum(loss, same, given, given, clip)) - total).abs().max()) < 1e-5
        assert float((flat(clipped_sum(found, clip)) - total).abs().max()) < 1e-5


@pytest.mark.slow
def test_all_rows_of_a_unit_together_are_clipped_to_the_maximum_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    table = numbered(300, people=100)

    def furthest(module: ModuleType) -> float:
        found = []
        for one in batches(module, monkeypatch, table, 6, batch_size=20, max_rows_per_entity=3, max_grad_norm=0.4):
            people = numbers(one.given) % 100
            everyone = one.sum_of(np.arange(len(people)))
            torch.testing.assert_close(everyone, flat(one.total))
            found += [float((everyone - one.sum_of(np.flatnonzero(people != p))).norm()) for p in set(people)]
        return max(found)

    assert 0.2 < furthest(dp_tvae) <= 0.4 + 1e-5
    unshared = mutant(dp_tvae, "row_norm = c.max_grad_norm / c.max_rows_per_entity if", "row_norm = c.max_grad_norm if")
    assert furthest(unshared) > 0.5  # each row may add C, and the person three times that


def test_layers_that_mix_records_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dp_tvae, "calibrate_noise", lambda *given, **named: 1.0)
    build = DpTvae._build
    for affine in (True, False):

        def mixing(self: DpTvae, affine: bool = affine) -> dict[str, nn.Module]:
            modules = build(self)
            return modules | {"encoder": nn.Sequential(modules["encoder"], nn.BatchNorm1d(4, affine=affine))}

        monkeypatch.setattr(DpTvae, "_build", mixing)
        with pytest.raises(InvalidArgument, match="BatchNorm1d"):
            DpTvae(**PROMISE, **TINY, batch_size=20).fit(numbered(100), seed=0, steps=2)


# ── the promise ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_noise_is_calibrated_to_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[float] = []
    calibrate_noise = dp_tvae.calibrate_noise

    def spied(*given: Any, **named: Any) -> float:
        found.append(calibrate_noise(*given, **named))
        return found[-1]

    monkeypatch.setattr(dp_tvae, "calibrate_noise", spied)
    sizes: list[float] = []

    def seen(total: dict[str, Tensor], private: Any, rng: np.random.Generator) -> dict[str, Tensor]:
        mean = noisy_mean(total, private, rng)
        sizes.append(float((50 * flat(mean) - flat(total)).std()))
        return mean

    monkeypatch.setattr(dpsgd, "noisy_mean", seen)
    model = DpTvae(**PROMISE, hidden=64, latent_dim=4, batch_size=50, max_grad_norm=0.5, max_rows_per_entity=2)
    told = model.fit(numbered(400, people=200), seed=0, steps=20).guarantee_
    assert [told.noise_multiplier] == found and (told.steps, told.sample_rate, told.clip) == (20, 0.25, 0.5)
    assert told.unit == "one person, with at most 2 rows" and told.accountant == base.DPSGD
    assert sizes == pytest.approx([told.noise_multiplier * 0.5] * 20, rel=0.03)
    assert 1.99 < pld_epsilon(SubsampledGaussian(told.noise_multiplier, 0.25, 20), 1e-5) <= 2.0
    assert pld_epsilon(SubsampledGaussian(0.5 * told.noise_multiplier, 0.25, 20), 1e-5) > 4  # halved noise
    assert set(model.history_[0]) == {"step", "noise multiplier"}  # losses of private rows would be one more look


def test_one_seed_gives_one_model_and_another_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dp_tvae, "calibrate_noise", lambda *given, **named: 1.0)

    def weights(seed: int | None, **settings: Any) -> Tensor:
        model = DpTvae(**PROMISE, **TINY, batch_size=20, **settings).fit(numbered(100), seed=seed, steps=4)
        return torch.cat([p.detach().flatten() for m in model.modules_.values() for p in m.parameters()])

    assert torch.equal(weights(3), weights(3)) and not torch.equal(weights(3), weights(4))
    assert not torch.equal(weights(None, release=True), weights(None, release=True))


@pytest.mark.slow
def test_without_noise_it_learns() -> None:
    rng, n = np.random.default_rng(0), 1_500
    tens = rng.choice(4, n, p=[0.5, 0.3, 0.15, 0.05])
    ones = np.where(rng.random(n) < 0.8, tens, rng.integers(10, size=n))
    table = Table(pd.DataFrame({"tens": [f"t{k}" for k in tens], "ones": [f"o{k}" for k in ones]}), numbered(9).schema)
    model = DpTvae(epsilon=math.inf, delta=1e-5, hidden=64, latent_dim=4, batch_size=300).fit(table, seed=0, steps=250)
    made = model.sample(4_000, seed=1)
    assert model.guarantee_.noise_multiplier == 0 and model.guarantee_.epsilon == math.inf

    def apart(names: list[str]) -> float:
        p, q = (one.frame.astype(str).value_counts(names, normalize=True) for one in (table, made))
        return float(p.sub(q, fill_value=0).abs().sum() / 2)  # total variation

    assert apart(["tens"]) < 0.1 and apart(["ones"]) < 0.1 and apart(["tens", "ones"]) < 0.2
