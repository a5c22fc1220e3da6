"""Pictures whose spectrum is known: waves, noise, and noise that was blurred."""

from __future__ import annotations

import numpy as np
import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.evaluation import features
from synthbook.evaluation.features import high_frequency_power, radial_power_spectrum
from tests.mutation import mutant


@pytest.mark.parametrize("cycles", [1, 3, 8])
def test_a_wave_has_one_frequency(cycles: int) -> None:
    wave = np.cos(2 * np.pi * cycles * np.arange(16) / 16)
    for image in (np.tile(wave, (16, 1)), np.tile(wave, (16, 1)).T):
        frequency, power = radial_power_spectrum(7 + image[None])
        assert frequency[power.argmax()] == cycles / 16
        assert power[np.arange(9) != cycles].max() < 1e-20


def white_noise_is_flat(code: object) -> bool:
    noise = np.random.default_rng(0).standard_normal((2_000, 1, 16, 16))
    power = code.radial_power_spectrum(noise)[1][1:]  # type: ignore[attr-defined]
    return bool(np.abs(power - 1).max() < 0.06)


def test_white_noise_has_power_one_everywhere() -> None:
    assert white_noise_is_flat(features)
    assert not white_noise_is_flat(mutant(features, " / count", ""))
    assert not white_noise_is_flat(mutant(features, ".mean(0) / side**2", ".mean(0) / side"))


def test_blur_takes_fine_detail_away() -> None:
    noise = np.random.default_rng(0).standard_normal((50, 1, 16, 16))
    blurred = (noise + np.roll(noise, 1, -1) + np.roll(noise, 1, -2) + np.roll(noise, (1, 1), (-1, -2))) / 4
    assert high_frequency_power(blurred) < 0.25 * high_frequency_power(noise)
    assert high_frequency_power(2 * noise) == pytest.approx(4 * high_frequency_power(noise))


def test_what_is_no_picture_is_refused() -> None:
    for wrong in (np.zeros((2, 4, 5)), np.zeros((4, 4)), np.full((1, 4, 4), np.nan), np.zeros((0, 4, 4))):
        with pytest.raises(InvalidArgument, match="square images"):
            radial_power_spectrum(wrong)
