"""Labels against masks, against a render without the others, and against pycocotools."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from synthbook.simulation.labels import annotate
from synthbook.simulation.randomize import sample_params
from synthbook.simulation.render import Renderer, Sample
from synthbook.simulation.scene import CUBE_CORNERS, Body, SceneParams, look_at
from tests.simulation.acceptance import CUBE, LAMP, PLAIN, TABLE, camera, with_cube
from tests.simulation.conftest import BUSY


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    with Renderer() as renderer:
        rngs = [np.random.default_rng(i) for i in range(60)]
        return [renderer.render(sample_params(BUSY, rng, width=128, height=96), rng) for rng in rngs]


@pytest.mark.slow
def test_boxes_bound_the_masks(samples: list[Sample]) -> None:
    for sample in samples:
        for label in annotate(sample):
            rows, columns = np.nonzero(sample.mask == label.instance_id)
            assert label.area == len(rows)
            if label.area:
                left, top, wide, high = label.bbox  # type: ignore[misc]
                assert (left, top) == (columns.min(), rows.min())
                assert (left + wide - 1, top + high - 1) == (columns.max(), rows.max())
            else:
                assert label.bbox is None


@pytest.mark.slow
def test_occlusion_and_visibility_against_the_thing_alone(samples: list[Sample]) -> None:
    seen = []
    with Renderer() as renderer:
        for sample in samples:
            label = next(x for x in annotate(sample) if x.name == "cube")
            lens = replace(sample.params.camera, k1=0.0)
            alone = replace(sample.params, bodies=(TABLE, sample.params.bodies[1]), camera=lens)
            wide = replace(lens, width=384, height=288, cx=lens.cx + 128, cy=lens.cy + 96)  # the same, with a margin
            _, _, mask = renderer.render_buffers(replace(alone, camera=wide))
            whole, inside = int((mask == 1).sum()), int((mask[96:192, 128:256] == 1).sum())
            assert label.visibility == pytest.approx(label.area / whole, abs=0.12)
            if inside > 150:
                assert label.occlusion == pytest.approx(max(1 - label.area / inside, 0), abs=0.12)
            assert label.truncated == (inside < whole) or abs(inside - whole) < 0.03 * whole
            seen.append((label.occlusion > 0.2, label.truncated))
    assert min(np.sum(seen, axis=0)) > 4  # both happen


def test_poses_project_the_corners_to_their_pixels(samples: list[Sample]) -> None:
    for sample in samples:
        lens = sample.params.camera
        for label, body in zip(annotate(sample), sample.params.bodies[1:], strict=True):
            points = Rotation.from_rotvec(label.rvec).apply(CUBE_CORNERS * body.size) + label.tvec  # as OpenCV does it
            x, y = (points[:, :2] / points[:, 2:]).T
            bend = 1 + lens.k1 * (x**2 + y**2)
            pixels = np.column_stack([lens.fx * x * bend + lens.cx, lens.fy * y * bend + lens.cy])
            front = points[:, 2] > 0
            assert [c is not None for c in label.corners] == front.tolist()
            np.testing.assert_allclose(pixels[front], [c for c in label.corners if c], atol=2e-3)


def test_seven_corners_of_a_cube_are_visible_from_above() -> None:
    with Renderer() as renderer:
        label = annotate(renderer.render(with_cube(), np.random.default_rng(0)))[0]
        lens = with_cube().camera
        far = np.linalg.norm(CUBE.to_world(CUBE_CORNERS) - lens.eye, axis=1)
        assert [k for k in range(8) if not label.corner_visible[k]] == [far.argmax()]
        wall = Body("wall", "cube", (0.02, 0.3, 0.3), (0.12, 0.09, 0.1), (0, 0, 0.29, 0.957), ("flat-1",), (1, 1, 1))
        hidden = replace(with_cube(), bodies=(*with_cube().bodies, wall))
        label = annotate(renderer.render(hidden, np.random.default_rng(0)))[0]
        assert not any(label.corner_visible) and label.occlusion > 0.9


def test_behind_the_camera_and_out_of_the_picture() -> None:
    rng = np.random.default_rng(0)
    lens = replace(camera(rng), eye=(0.5, 0.0, 0.1), rotation=look_at((0.5, 0, 0.1), (0, 0, 0.1)))
    at = {"behind": (0.9, 0.0, 0.05), "aside": (0.0, 3.0, 0.05), "around": (0.5, 0.0, 0.1)}
    for where in at.values():
        params = SceneParams(lens, LAMP, (TABLE, replace(CUBE, position=where)), "flat-1", PLAIN, "typical")
        with Renderer() as renderer:
            label = annotate(renderer.render(params, rng))[0]
        assert label.bbox is None or where == at["around"]
        assert 0 <= label.visibility <= 1 and not any(label.corner_visible)
        json.loads(json.dumps(label.to_dict()), parse_constant=lambda c: pytest.fail(c))
