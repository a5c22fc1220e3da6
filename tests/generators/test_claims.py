"""The exact claims of section 3 hold, and each fails when the line it rests on is broken."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synthbook.datasets import digits
from synthbook.generators import diffusion, gan, vae
from synthbook.generators import vae as ppca
from tests.generators import acceptance
from tests.mutation import mutant


def test_forward_ends_in_noise() -> None:
    assert acceptance.forward_ends_in_noise(diffusion)
    squared = mutant(diffusion, "np.append(1.0, np.cumprod(1 - beta))", "np.append(1.0, np.cumprod((1 - beta) ** 0.5))")
    assert not acceptance.forward_ends_in_noise(squared)
    assert not acceptance.forward_ends_in_noise(mutant(diffusion, "if rescale else 1", "if True else 1"))


@pytest.mark.slow
def test_one_shot_equals_the_chain() -> None:
    assert acceptance.one_shot_equals_the_chain(diffusion, diffusion)
    early = mutant(diffusion, "return table[t.cpu()]", "return table[t.cpu() - 1]")  # the chapter's off-by-one
    assert not acceptance.one_shot_equals_the_chain(early, diffusion)
    assert not acceptance.one_shot_equals_the_chain(
        mutant(diffusion, "(1 - a).sqrt() * eps", "(1 - a) * eps"), diffusion
    )


def test_the_floor_is_reached() -> None:
    assert acceptance.noise_floor_is_reached(diffusion, diffusion, diffusion)
    for old, new in (
        ("/ (a * values + 1 - a) * centered", "/ (values + 1 - a) * centered"),
        ("centered = (x - a.sqrt() * self.mean)", "centered = (x - self.mean)"),
    ):
        assert not acceptance.noise_floor_is_reached(mutant(diffusion, old, new), diffusion, diffusion)


@pytest.mark.slow
def test_ancestral_sampling_keeps_the_variance_that_theory_says() -> None:
    assert acceptance.ancestral_variances(diffusion, diffusion, diffusion)
    for old, new in (
        ("(before**0.5 * beta * x0", "(beta * x0"),
        ("if t > 1 else mean", "if True else mean"),
        (
            "a, before, beta = schedule.alpha_bar[t], schedule.alpha_bar[t - 1]",
            "a, before, beta = schedule.alpha_bar[t], schedule.alpha_bar[t]",
        ),
    ):
        assert not acceptance.ancestral_variances(diffusion, mutant(diffusion, old, new), diffusion)


@pytest.mark.slow
def test_the_dirac_game() -> None:
    assert acceptance.dirac_game(gan)
    for old, new in (
        ("seen = moved if alternating else theta", "seen = moved"),  # a simultaneous game that takes turns
        ("return float(1 / (1 + np.exp(t)))", "return float(1 / (2 + np.exp(t)))"),
        ("penalty_step=lambda psi: -psi", "penalty_step=lambda psi: psi"),
        ("-(abs(psi) - 1) * np.sign(psi)", "-psi"),
    ):
        with np.errstate(over="ignore"):
            assert not acceptance.dirac_game(mutant(gan, old, new))


def test_the_linear_vae_in_theory() -> None:
    assert acceptance.linear_vae_in_theory(ppca)
    for old, new in (
        ("[self.q :]))", "[self.q + 1 :]))"),
        ("+ d))", "))"),
        ("> beta * noise_variance", "> noise_variance"),
    ):
        assert not acceptance.linear_vae_in_theory(mutant(ppca, old, new))


def test_the_elbo() -> None:
    assert acceptance.elbo_is_right(vae)
    for old, new in (
        ("log_variance.exp() - 1 - log_variance)", "log_variance.exp() - 1)"),
        ("squared / variance + (2", "squared + (2"),
    ):
        assert not acceptance.elbo_is_right(mutant(vae, old, new))


def test_the_exact_minimiser_copies() -> None:
    images = digits().train.images
    assert acceptance.copies_only(diffusion, diffusion, diffusion, images) < 0.05
    smeared = mutant(
        diffusion, "torch.softmax(-distance / (2 * power), dim=1)", "torch.softmax(-distance / 200, dim=1)"
    )
    assert acceptance.copies_only(smeared, diffusion, diffusion, images) > 0.05


def test_ddim_with_eta_one_is_ancestral_sampling() -> None:
    """Song et al., section 4.1, with the noise that both add switched on and the data far from Gaussian."""
    table = diffusion.NoiseSchedule.cosine(40)
    predict = diffusion.MixtureNoisePredictor(torch.tensor([[-1.0, 0.0], [1.0, 1.0]], dtype=torch.float64), 0.02, table)
    start = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = diffusion.ancestral(predict, start, table, torch.Generator().manual_seed(1), variance_type="beta_tilde")
    other = diffusion.ddim(predict, start, table, torch.Generator().manual_seed(1), eta=1.0)
    assert torch.allclose(one, other, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_a_thinned_schedule_asks_the_network_about_the_right_steps(steps: int) -> None:
    table = diffusion.NoiseSchedule.linear(100)
    thin = table.respaced(steps)
    assert steps == thin.T and thin.timesteps[-1] == 100 and thin.timesteps[0] == 0
    assert (thin.alpha_bar == table.alpha_bar[thin.timesteps]).all()
    asked: list[int] = []

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.extend(t.tolist())
        return x

    diffusion.ddim(predict, torch.zeros(1, 1), thin)
    assert asked == thin.timesteps[:0:-1].tolist()  # as many network calls as steps
