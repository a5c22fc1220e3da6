"""Cameras, theta as JSON, and meshes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.simulation.randomize import PHOTO_CAMERA, Domain, sample_params
from synthbook.simulation.scene import SHAPES, SceneParams, look_at


def test_look_at_shows_the_target_at_the_given_pixel() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        eye, target, roll = rng.uniform(1, 3, 3), rng.uniform(-0.5, 0.5, 3), rng.uniform(-1, 1)
        lens = dataclasses.replace(PHOTO_CAMERA, eye=tuple(eye), rotation=look_at(eye, target, roll, (0.2, -0.3)))
        aim = [PHOTO_CAMERA.cx + 0.2 * PHOTO_CAMERA.fx, PHOTO_CAMERA.cy - 0.3 * PHOTO_CAMERA.fy]
        np.testing.assert_allclose(lens.project(target[None])[0], aim, atol=1e-6)
    level = dataclasses.replace(PHOTO_CAMERA, eye=(1, 2, 3), rotation=look_at((1, 2, 3), (0, 0, 0)))
    assert abs(level.R[0, 2]) < 1e-12 and level.R[1, 2] < 0  # right is level, down is down


def test_theta_round_trips_through_json_and_old_shards_are_named() -> None:
    scene = sample_params(Domain(), np.random.default_rng(3))
    assert SceneParams.from_json(scene.to_json()) == scene
    for text in ("{}", "[]", "no", scene.to_json().replace('"fx"', '"f"')):
        with pytest.raises(InvalidArgument):
            SceneParams.from_json(text)
    old = scene.to_json().replace('"effects"', '"finish"')
    with pytest.raises(InvalidArgument, match="render the shard again"):
        SceneParams.from_json(old)
    assert repr(scene).startswith(f"SceneParams({scene.situation}: table, cube") and "m away" in repr(scene)


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
