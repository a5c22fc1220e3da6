"""p(theta): declared, printable, sampled as declared, narrowed; the camera and the target of the photographs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import kstest

from synthbook.core.errors import InvalidArgument
from synthbook.datasets import real_cube
from synthbook.simulation.randomize import (
    CUBE_SIZE,
    DOMAINS,
    FACTORS,
    HELD_OUT_TEXTURES,
    PHOTO_CAMERA,
    PROXY_TARGET,
    TRAIN_TEXTURES,
    Choice,
    Domain,
    TexturePool,
    Uniform,
    sample_params,
)
from synthbook.simulation.scene import CUBE_CORNERS, SceneParams


def drawn(domain: Domain, n: int = 300) -> list[SceneParams]:
    return [sample_params(domain, np.random.default_rng([1, i])) for i in range(n)]


def test_a_domain_prints_every_field_with_its_factor() -> None:
    text = str(Domain())
    for field in dataclasses.fields(Domain):
        assert field.name in text
    assert "light       light_elevation 35 to 90" in text and "1,000 textures of 16 families" in text
    named = [name for names in FACTORS.values() for name in names]
    assert len(named) == len(set(named)) and set(named) < {field.name for field in dataclasses.fields(Domain)}


@pytest.mark.slow
def test_draws_follow_the_declaration() -> None:
    scenes = drawn(Domain(), 600)
    distance = [np.linalg.norm(np.subtract(s.camera.eye, s.bodies[1].position)) for s in scenes]
    assert kstest(distance, "uniform", args=(0.35, 0.4)).pvalue > 0.001
    assert kstest([s.effects.noise for s in scenes], "uniform", args=(0, 4)).pvalue > 0.001
    assert {len(s.bodies[1].textures) for s in scenes} == {1, 6}
    shares = {name: np.mean([s.situation == name for s in scenes]) for name in ("typical", "occluded", "at the edge")}
    assert shares["typical"] == pytest.approx(0.87, abs=0.06)
    typical = [s for s in scenes if s.situation == "typical"]
    centers = np.array([s.camera.project(np.array([s.bodies[1].position]))[0] for s in typical])
    assert kstest(centers[:, 0] / 160, "uniform", args=(0.12, 0.76)).pvalue > 0.001
    assert kstest(centers[:, 1] / 120, "uniform", args=(0.15, 0.7)).pvalue > 0.001
    assert centers.min() > 10 and (centers.max(axis=0) < (150, 110)).all()
    assert (np.ptp(centers, axis=0) > (100, 70)).all()


def test_width_zero_fixes_every_factor_but_not_the_task() -> None:
    scenes = drawn(Domain().narrowed(0), 60)
    assert len({(s.light, s.effects, s.background, s.bodies[1].textures, s.bodies[1].color) for s in scenes}) == 1
    lenses = {(s.camera.fx, s.camera.k1) for s in scenes}
    assert len(lenses) == 1 and len({s.bodies[1].quaternion for s in scenes}) == 60


def test_one_factor_can_be_narrowed_and_half_is_half() -> None:
    dark = Domain().narrowed(0, "light")
    assert dark.light_elevation == Uniform(62.5, 62.5) and dark.noise == Domain().noise
    half = Domain().narrowed(0.5)
    assert half.noise == Uniform(1, 3) and half.cube_textures.n_textures == 32 and len(half.distractors.values) == 3
    assert Domain().narrowed(1) == Domain()


def test_situations_occur_with_the_given_probabilities() -> None:
    domain = Domain().with_situations(occluded=0.5, at_the_edge=0.25, tilted=0.25)
    scenes = drawn(domain, 200)
    assert {s.situation for s in scenes} == {"occluded", "at the edge", "tilted"}
    for s in scenes:
        up = s.bodies[1].R[2, 2]
        assert (abs(up - 1) < 1e-9) == (s.situation != "tilted")
        if s.situation == "occluded":
            near, cube = np.array(s.bodies[2].position), np.array(s.bodies[1].position)
            assert np.linalg.norm(near - s.camera.eye) < np.linalg.norm(cube - s.camera.eye)
    for weights in ({"occluded": 1.2}, {"occluded": -0.1}, {"upside_down": 0.1}):
        with pytest.raises(InvalidArgument):
            Domain().with_situations(**weights)


def test_the_proxy_target_is_disjoint_from_training() -> None:
    full = DOMAINS["cube"]
    assert not set(HELD_OUT_TEXTURES) & set(TRAIN_TEXTURES)
    for name in ("light_elevation", "noise", "k1"):
        seen, held = getattr(full, name), getattr(PROXY_TARGET, name)
        assert held.high <= seen.low or held.low >= seen.high
    used = {t.rpartition("-")[0] for s in drawn(PROXY_TARGET, 50) for body in s.bodies for t in body.textures}
    assert used <= set(HELD_OUT_TEXTURES)


def test_the_camera_is_that_of_the_photographs() -> None:
    photographs = real_cube().data
    np.testing.assert_allclose(PHOTO_CAMERA.K, photographs.K, atol=1e-4)
    assert photographs.cube_side == CUBE_SIZE
    lens = sample_params(Domain().narrowed(0), np.random.default_rng(0)).camera
    # a point that the large picture shows at u lies at (u + 0.5) / 2 - 0.5 of the one half as large
    for name in ("cx", "cy"):
        assert getattr(lens, name) == pytest.approx((getattr(PHOTO_CAMERA, name) + 0.5) / 2 - 0.5)
    order = photographs.cube_corners - photographs.cube_corners.mean(axis=0)
    np.testing.assert_allclose(order, CUBE_CORNERS * CUBE_SIZE, atol=1e-12)  # the same corners in the same order


def test_invalid_distributions_are_refused() -> None:
    for make in (
        lambda: Uniform(1, 0),
        lambda: Uniform(0, float("nan")),
        lambda: Choice(()),
        lambda: Choice((1, 2), (0.5, 0.6)),
        lambda: Choice((1, 2), (0.5, 0.5)).narrowed(0),
        lambda: TexturePool((), 3),
        lambda: TexturePool(("flat",), 0),
        lambda: Domain().narrowed(2),
        lambda: Domain().narrowed(0, "weather"),
    ):
        with pytest.raises(InvalidArgument):
            make()
