"""p(theta): declared, printable, drawn as declared, narrowed and asked for; textures; poses from pixels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.stats import kstest

from synthbook.core.errors import InvalidArgument
from synthbook.datasets import real_cube
from synthbook.simulation.pose import solve_pnp
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
from synthbook.simulation.scene import CUBE_CORNERS, SHAPES, SceneParams, look_at
from synthbook.simulation.textures import FAMILIES, atlas, encode_tga, texture


def drawn(domain: Domain, n: int = 300) -> list[SceneParams]:
    return [sample_params(domain, np.random.default_rng([1, i])) for i in range(n)]


def test_a_domain_prints_every_part_with_its_factor() -> None:
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
    centres = np.array([s.camera.project(np.array([s.bodies[1].position]))[0] for s in typical])
    assert kstest(centres[:, 0] / 160, "uniform", args=(0.12, 0.76)).pvalue > 0.001
    assert kstest(centres[:, 1] / 120, "uniform", args=(0.15, 0.7)).pvalue > 0.001
    assert centres.min() > 10 and (centres.max(axis=0) < (150, 110)).all()
    assert (np.ptp(centres, axis=0) > (100, 70)).all()


def test_a_camera_shows_its_target_where_it_is_told() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        eye, target, roll = rng.uniform(1, 3, 3), rng.uniform(-0.5, 0.5, 3), rng.uniform(-1, 1)
        lens = dataclasses.replace(PHOTO_CAMERA, eye=tuple(eye), rotation=look_at(eye, target, roll, (0.2, -0.3)))
        aim = [PHOTO_CAMERA.cx + 0.2 * PHOTO_CAMERA.fx, PHOTO_CAMERA.cy - 0.3 * PHOTO_CAMERA.fy]
        np.testing.assert_allclose(lens.project(target[None])[0], aim, atol=1e-6)
    level = dataclasses.replace(PHOTO_CAMERA, eye=(1, 2, 3), rotation=look_at((1, 2, 3), (0, 0, 0)))
    assert abs(level.R[0, 2]) < 1e-12 and level.R[1, 2] < 0  # right is level, down is down


def test_narrow_is_one_texture_one_light_one_camera_and_keeps_the_task() -> None:
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


def test_rare_situations_can_be_asked_for() -> None:
    asked = Domain().with_situations(occluded=0.5, at_the_edge=0.25, tilted=0.25)
    scenes = drawn(asked, 200)
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


def test_the_stand_in_has_what_training_never_shows() -> None:
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


def test_theta_survives_json_and_bad_ranges_are_refused() -> None:
    scene = sample_params(Domain(), np.random.default_rng(3))
    assert SceneParams.from_json(scene.to_json()) == scene
    for text in ("{}", "[]", "no", scene.to_json().replace('"fx"', '"f"')):
        with pytest.raises(InvalidArgument):
            SceneParams.from_json(text)
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


@pytest.mark.parametrize("family", FAMILIES)
def test_textures_are_named_pictures_that_differ(family: str) -> None:
    pictures = [texture(f"{family}-{k}") for k in range(4)]
    assert all(p.shape == (64, 64, 3) and p.dtype == np.uint8 for p in pictures)
    assert len({p.tobytes() for p in pictures}) == 4
    texture.cache_clear()
    assert (texture(f"{family}-2") == pictures[2]).all()


def test_an_atlas_and_its_file() -> None:
    from io import BytesIO

    from PIL import Image

    six = atlas(tuple(f"flat-{k}" for k in range(6)))
    assert six.shape == (128, 192, 3) and (six[64:, 128:] == texture("flat-5")).all()
    assert (np.asarray(Image.open(BytesIO(encode_tga(six)))) == six).all()


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_unit_sized_and_look_outward(name: str) -> None:
    shape = SHAPES[name]
    a, b, c = (shape.vertices[shape.triangles[:, k]] for k in range(3))
    outward = np.cross(b - a, c - a)
    solid = np.linalg.norm(outward, axis=1) > 1e-12
    if name == "plane":
        assert (outward[:, 2] > 0).all()
    else:
        assert np.abs(shape.vertices).max() == pytest.approx(0.5)
        assert ((outward * (a + b + c) / 3).sum(axis=1)[solid] > 0).all()
    assert np.linalg.norm(shape.normals, axis=1).min() > 0.4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_pose_from_pixels_is_the_pose_that_made_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    R, t = Rotation.random(rng=rng).as_matrix(), np.array([*rng.uniform(-0.1, 0.1, 2), rng.uniform(0.3, 1)])
    seen = (CUBE_CORNERS * CUBE_SIZE) @ R.T + t
    pixels = (seen @ PHOTO_CAMERA.K.T)[:, :2] / seen[:, 2:]
    pose = solve_pnp(CUBE_CORNERS * CUBE_SIZE, pixels, PHOTO_CAMERA.K)
    np.testing.assert_allclose(pose.R, R, atol=1e-5)
    np.testing.assert_allclose(pose.t, t, atol=1e-5)
    assert pose.reprojection_rmse < 1e-4
    noisy = solve_pnp(CUBE_CORNERS * CUBE_SIZE, pixels + rng.normal(0, 0.3, pixels.shape), PHOTO_CAMERA.K)
    assert np.linalg.norm(noisy.t - t) < 0.05 * t[2] and noisy.reprojection_rmse < 1


def test_pose_on_the_labels_of_the_photographs() -> None:
    photographs = real_cube().data
    for corners, t in zip(photographs.corners[::20], photographs.tvec[::20], strict=True):
        assert np.linalg.norm(solve_pnp(photographs.cube_corners, corners, photographs.K).t - t) < 1e-3


def test_pose_refuses_what_has_none() -> None:
    good, pixels = CUBE_CORNERS * CUBE_SIZE, np.random.default_rng(0).uniform(0, 100, (8, 2))
    for arguments in (
        (good[:5], pixels[:5], PHOTO_CAMERA.K),
        (good * [1, 1, 0], pixels, PHOTO_CAMERA.K),
        (good, pixels[:7], PHOTO_CAMERA.K),
        (good, np.full((8, 2), np.nan), PHOTO_CAMERA.K),
        (good, pixels, np.zeros((3, 3))),
    ):
        with pytest.raises(InvalidArgument):
            solve_pnp(*arguments)
