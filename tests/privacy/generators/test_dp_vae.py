"""A private autoencoder of images: gradients against single passes and Opacus, batches, noise and refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from synthbook.core.checkpoints import CONFIG_NAME, CheckpointConfig
from synthbook.core.errors import HoldoutError, InvalidArgument
from synthbook.core.storage import Provenance
from synthbook.core.table import Holdout
from synthbook.core.types import Images
from synthbook.generators.nets import init_weights
from synthbook.generators.neural import DataSpec
from synthbook.generators.vae import VAE
from synthbook.privacy import dpsgd
from synthbook.privacy.dpsgd import clipped_sum, noisy_mean, per_sample_grads
from synthbook.privacy.generators import base, dp_vae
from synthbook.privacy.generators.base import ReleaseRefused
from synthbook.privacy.generators.dp_vae import DpVae, DpVaeConfig, PerImageLoss
from synthbook.privacy.ledger import BudgetExceeded, PrivacyLedger
from tests.mutation import mutant
from tests.privacy.generators.test_dp_tvae import by_loop, departures, flat, same

PROMISE: dict[str, Any] = {"epsilon": 2.0, "delta": 1e-5}
TINY = {"width": 4, "latent_dim": 2, "device": "cpu"}
ORIGIN = Provenance("a test", "pytest", seed=5)
NAMES = ("left", "right")


def pictures(n: int, seed: int = 0) -> Images:
    """One bright half of 8 x 8 pixels; the first pixel says which image it is."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    images = 0.2 * torch.rand((n, 1, 8, 8), generator=rng) - 0.9
    images[labels == 0, :, :, :4] += 1.5
    images[labels == 1, :, :, 4:] += 1.5
    images[:, 0, 0, 0] = torch.arange(n) / n
    return Images(images, labels, NAMES)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise is given: to find it takes seconds."""
    monkeypatch.setattr(dp_vae, "calibrate_noise", lambda *given, **named: 1.0)


# ── gradients ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def loss() -> PerImageLoss:
    config, spec = DpVaeConfig(**PROMISE, width=4, latent_dim=3, beta=0.7), DataSpec((1, 8, 8), NAMES, (0.5, 0.5))
    model, rng = DpVae(**PROMISE, width=4, latent_dim=3, device="cpu"), torch.Generator().manual_seed(0)
    built = {name: init_weights(module, rng) for name, module in model._build(spec).items()}
    assert {type(layer) for module in built.values() for layer in module.modules()} > {nn.Conv2d, nn.ConvTranspose2d}
    return PerImageLoss(built["encoder"], built["decoder"], spec, config)


def given(n: int) -> Tensor:
    found = pictures(n)
    eps = torch.randn((n, 3), generator=torch.Generator().manual_seed(1))
    return torch.cat([found.images.flatten(1), nn.functional.one_hot(found.labels, 2), eps], dim=1)


def test_the_loss_is_minus_the_elbo_of_the_plain_model(loss: PerImageLoss) -> None:
    found, x = pictures(12), given(12)
    mean, log_variance = loss.encoder(found.images, found.labels).chunk(2, dim=1)
    code = Normal(mean, (log_variance / 2).exp())
    out = loss.decoder(mean + code.stddev * x[:, -3:], found.labels)
    rebuilt = Normal(out, math.sqrt(0.1)).log_prob(found.images).flatten(1).sum(1)
    expected = 0.7 * kl_divergence(code, Normal(0.0, 1.0)).sum(1) - rebuilt
    torch.testing.assert_close(loss(x), expected)


def test_gradients_are_those_of_one_pass_for_each_image(loss: PerImageLoss) -> None:
    x = given(10)
    expected, found = by_loop(loss, x), per_sample_grads(loss, same, x, x)
    for i, gradients in enumerate(expected):
        size = float(flat(gradients).norm())
        for name, gradient in gradients.items():
            assert float((found[name][i] - gradient).abs().max()) < 1e-5 * max(size, 1.0)
    norms = [float(flat(gradients).norm()) for gradients in expected]
    for clip in (0.5, float(np.median(norms))):
        total = sum(flat(g) * min(1.0, clip / norm) for g, norm in zip(expected, norms, strict=True))
        assert float((flat(clipped_sum(found, clip)) - total).abs().max()) < 1e-5 * max(clip, 1.0)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_gradients_of_images_are_those_of_opacus(loss: PerImageLoss) -> None:
    x = given(10)
    ours, theirs = per_sample_grads(loss, same, x, x), GradSampleModule(loss, loss_reduction="sum")
    theirs(x).sum().backward()
    for name, p in theirs._module.named_parameters():
        scale = max(float(ours[name].abs().max()), 1.0)
        assert p.grad_sample.shape == ours[name].shape
        assert float((p.grad_sample - ours[name]).abs().max()) < 1e-4 * scale, name


# ── batches and noise ────────────────────────────────────────────────────────────────────────────────────────────────

CHOSEN = "rows = poisson_sample(len(x), c.batch_size / len(x), private_rng)"
DEALT = (
    "order = torch.randperm(len(x), generator=torch.Generator().manual_seed((step - 1) * c.batch_size // len(x)));"
    " first = (step - 1) * c.batch_size % len(x); rows = order[first : first + c.batch_size]"
)


def steps_of(
    module: ModuleType, patch: pytest.MonkeyPatch, data: Images, steps: int, **settings: Any
) -> list[tuple[np.ndarray, Tensor, Tensor]]:
    """Of each step: which images, in short runs how far each could move the sum, and the sum."""
    seen: list[tuple[np.ndarray, Tensor, Tensor]] = []

    def spied(gradients: dict[str, Tensor], clip: float) -> dict[str, Tensor]:
        total = clipped_sum(gradients, clip)
        alone = range(len(rows[-1]) if steps < 20 else 0)
        each = [flat(clipped_sum({name: g[i : i + 1] for name, g in gradients.items()}, clip)) for i in alone]
        seen.append((rows[-1], torch.stack(each) if each else torch.empty(0), flat(total)))
        return total

    rows: list[np.ndarray] = []

    def gradients(loss: nn.Module, by: Callable[..., Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        rows.append((x[:, 0] * len(data)).round().long().numpy())
        return per_sample_grads(loss, by, x, y)

    patch.setattr(dpsgd, "per_sample_grads", gradients)
    patch.setattr(dpsgd, "clipped_sum", spied)
    patch.setattr(module, "calibrate_noise", lambda *given, **named: 1.0)
    module.DpVae(**PROMISE | TINY | settings).fit(data, seed=0, steps=steps)
    return seen


@pytest.mark.slow
def test_batches_are_poisson_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(module: ModuleType) -> list[np.ndarray]:
        return [rows for rows, _, _ in steps_of(module, monkeypatch, pictures(60), 100, batch_size=6)]

    assert departures(chosen(dp_vae), 60, 0.1) == []
    shuffled = departures(chosen(mutant(dp_vae, CHOSEN, DEALT)), 60, 0.1)
    assert shuffled == ["variance of sizes", "how often a record comes in an epoch"]


@pytest.mark.slow
def test_each_image_is_clipped_to_the_maximum_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    def furthest(module: ModuleType) -> float:
        steps = steps_of(module, monkeypatch, pictures(60), 6, batch_size=20, max_grad_norm=0.3)
        for _, each, total in steps:
            torch.testing.assert_close(each.sum(0), total, atol=1e-5, rtol=1e-4)
        return max(float(each.norm(dim=1).max()) for _, each, _ in steps)

    assert furthest(dp_vae) == pytest.approx(0.3, abs=1e-5)
    unclipped = mutant(
        dp_vae, "max_norm = c.max_grad_norm if math.isfinite(c.epsilon) else math.inf", "max_norm = math.inf"
    )
    assert furthest(unclipped) > 3


def test_an_empty_batch_is_a_step_of_noise_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[float] = []

    def spied(total: dict[str, Tensor], private: Any, rng: np.random.Generator) -> dict[str, Tensor]:
        mean = noisy_mean(total, private, rng)
        sizes.append(float((flat(mean) * private.expected_batch_size - flat(total)).std()))
        return mean

    monkeypatch.setattr(dpsgd, "noisy_mean", spied)
    steps = steps_of(dp_vae, monkeypatch, pictures(60), 12, batch_size=1, max_grad_norm=0.5)
    assert 1 < sum(not len(rows) for rows, _, _ in steps) < 12
    assert all(float(total.norm()) == 0 for rows, _, total in steps if not len(rows))
    assert sizes == pytest.approx([0.5] * 12, rel=0.05)  # sigma C, in empty batches and others


def test_noise_is_calibrated_to_the_run_and_stated_in_the_guarantee(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def calibrate_noise(epsilon: float, delta: float, *, sample_rate: float, steps: int) -> float:
        asked.append((epsilon, delta, sample_rate, steps))
        return 0.0 if epsilon == math.inf else 1.25

    # test_dp_tvae.py holds the real one against the accountant
    monkeypatch.setattr(dp_vae, "calibrate_noise", calibrate_noise)
    told = DpVae(**PROMISE, **TINY, batch_size=20, max_grad_norm=0.3).fit(pictures(80), seed=0, steps=3).guarantee_
    assert asked == [(2.0, 1e-5, 0.25, 3)]
    assert (told.noise_multiplier, told.steps, told.sample_rate, told.clip) == (1.25, 3, 0.25, 0.3)
    assert (told.unit, told.neighbours, told.accountant) == ("one image", "add or remove one record", base.DPSGD)
    free = DpVae(epsilon=math.inf, delta=1e-5, **TINY, batch_size=20).fit(pictures(80), seed=0, steps=3)
    assert free.guarantee_.noise_multiplier == 0


# ── the model ────────────────────────────────────────────────────────────────────────────────────────────────────────


def weights(model: DpVae) -> Tensor:
    return torch.cat([p.detach().flatten() for module in model.modules_.values() for p in module.parameters()])


@pytest.mark.usefixtures("quick")
def test_fits_repeat_with_their_seed_and_checkpoints_state_the_guarantee(tmp_path: Path) -> None:
    data = pictures(61)
    model = DpVae(**PROMISE, **TINY, batch_size=20).fit(data, seed=3, steps=3)
    assert torch.equal(weights(model), weights(DpVae(**PROMISE, **TINY, batch_size=20).fit(data, seed=3, steps=3)))
    assert not torch.equal(weights(model), weights(DpVae(**PROMISE, **TINY, batch_size=20).fit(data, seed=4, steps=3)))
    assert model.data_spec_.class_probs == (0.5, 0.5)  # not 31 and 30 of 61
    assert set(model.history_[0]) == {"step", "noise multiplier"}  # losses of private images would be one more look
    kept = DpVae.load(model.save(tmp_path / "model", ORIGIN), device="cpu")
    assert kept.guarantee_ == model.guarantee_
    torch.testing.assert_close(kept.sample(9, seed=0).images, model.sample(9, seed=0).images)
    said = json.loads((tmp_path / "model" / CONFIG_NAME).read_text())["provenance"]
    assert said["privacy"] == model.guarantee_.to_dict() and said["seed"] == 5


@pytest.mark.usefixtures("quick")
def test_a_release_has_no_seed_and_states_its_audit(tmp_path: Path) -> None:
    data, models = pictures(60), []
    for _ in range(2):
        models.append(DpVae(**PROMISE, **TINY, batch_size=20, release=True).fit(data, seed=None, steps=2))
    assert not torch.equal(*map(weights, models))
    with pytest.raises(ReleaseRefused, match="audit's lower bound"):
        models[0].save(tmp_path / "model", ORIGIN)
    models[0].guarantee_ = models[0].guarantee_.with_audit(0.1)
    said = json.loads((models[0].save(tmp_path / "model", ORIGIN) / CONFIG_NAME).read_text())["provenance"]
    assert said["seed"] is None and said["privacy"]["audit"] == 0.1 and said["privacy"]["noise"] == base.SYSTEM_ENTROPY


@pytest.mark.slow
def test_without_noise_it_learns() -> None:
    data = pictures(400)
    model = DpVae(epsilon=math.inf, delta=1e-5, width=8, latent_dim=4, batch_size=64, learning_rate=0.01, device="cpu")
    model.fit(data, seed=0, steps=100)
    drawn = model.sample(60, seed=1)
    for label in (0, 1):
        truth, made = (one.images[one.labels == label].mean(0)[0] for one in (data, drawn))
        assert float((truth - made).abs().mean()) < 0.25


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"epsilon": 0.0}, "epsilon = 0.0"),
        ({"delta": 0.0}, "delta = 0.0"),
        ({"decoder_variance": None}, r"decoder_variance, max_rows_per_entity = \(None, 1\)"),
        ({"max_rows_per_entity": 2}, r"\(0.1, 2\)"),
        ({"epsilon": math.inf, "release": True}, "epsilon = inf"),
        ({"latent_dim": 0}, "latent_dim"),
    ],
)
def test_invalid_privacy_settings_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        DpVae(**PROMISE | settings)


GREY = pictures(60)
REFUSED: dict[str, tuple[Any, dict[str, Any], dict[str, Any], type[Exception], str]] = {
    "a holdout": (Holdout(GREY), {}, {}, HoldoutError, "kept for testing"),
    "points": (np.zeros((60, 2)), {}, {}, InvalidArgument, "data = 'ndarray' .*Images"),
    "delta": (GREY, {"delta": 1 / 60}, {}, InvalidArgument, "delta = 0.01.*far below 1 / 60"),
    "one image": (pictures(1), {}, {}, InvalidArgument, "of at least 2"),
    "no image": (pictures(0), {}, {}, InvalidArgument, "of at least 2"),
    "a batch of all": (GREY, {"batch_size": 60}, {}, InvalidArgument, "batch_size = 60 .*fewer than the 60 images"),
    "no seed": (GREY, {}, {"seed": None}, InvalidArgument, "seed = None"),
    "a seed for release": (GREY, {"release": True}, {"seed": 0}, InvalidArgument, "can subtract the noise"),
    "kept": (
        GREY,
        {"release": True},
        {"seed": None, "checkpoint": CheckpointConfig(Path("kept"))},
        InvalidArgument,
        "seed, checkpoint",
    ),
    "no steps": (GREY, {}, {"steps": 0}, InvalidArgument, "steps = 0"),
    "brightness": (replace(GREY, images=2 * GREY.images), {}, {}, InvalidArgument, r"images .*\[-1, 1\]"),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("data", "settings", "fit", "error", "told"), REFUSED.values(), ids=REFUSED)
def test_a_refused_fit_uses_no_image_and_charges_nothing(
    data: Any,
    settings: dict[str, Any],
    fit: dict[str, Any],
    error: type[Exception],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(VAE, "fit", lambda *given, **named: pytest.fail("images were learnt from"))
    ledger = PrivacyLedger(9.0, 0.5, "one image")
    with pytest.raises(error, match=told):
        DpVae(**PROMISE | {"batch_size": 20} | TINY | settings).fit(data, **{"seed": 0, "ledger": ledger} | fit)
    assert ledger.entries == []


@pytest.mark.usefixtures("quick")
def test_a_fit_is_charged_once_and_refused_when_too_little_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = PrivacyLedger(3.0, 1e-4, "one image")
    DpVae(**PROMISE, **TINY, batch_size=20).fit(GREY, seed=0, steps=2, ledger=ledger)
    (entry,) = ledger.entries
    assert (entry.epsilon, entry.delta) == (2.0, 1e-5)
    charged = {"steps": 2, "batch_size": 20, "max_grad_norm": 1.0}
    assert entry.details | charged == entry.details
    monkeypatch.setattr(VAE, "fit", lambda *given, **named: pytest.fail("images were learnt from"))
    with pytest.raises(BudgetExceeded, match="1 and 9e-05 remain"):
        DpVae(**PROMISE, **TINY, batch_size=20).fit(GREY, seed=0, steps=2, ledger=ledger)


@pytest.mark.usefixtures("quick")
def test_layers_that_mix_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    build = VAE._build

    def mixing(self: VAE, spec: DataSpec) -> dict[str, nn.Module]:
        modules = build(self, spec)
        modules["encoder"].conv_1 = nn.Sequential(modules["encoder"].conv_1, nn.BatchNorm2d(4))
        return modules

    monkeypatch.setattr(VAE, "_build", mixing)
    with pytest.raises(InvalidArgument, match=r"conv_1\.1: BatchNorm2d"):
        DpVae(**PROMISE, **TINY, batch_size=20).fit(GREY, seed=0, steps=2)
