"""Labels against masks, against a render without the others, and against pycocotools."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy.spatial.transform import Rotation

from synthbook.core.jobs import ShardPlan, run_shards
from synthbook.core.storage import Provenance
from synthbook.simulation.export import RenderShard, decode_rle, encode_rle, read_rows, write_coco
from synthbook.simulation.labels import annotate, mask_to_box
from synthbook.simulation.randomize import DOMAINS, sample_params
from synthbook.simulation.render import Renderer, Sample
from synthbook.simulation.scene import CUBE_CORNERS, Body, SceneParams, look_at
from tests.simulation.acceptance import LAMP, PLAIN, TABLE, camera
from tests.simulation.test_render import CUBE, with_cube

BUSY = DOMAINS["cube"].with_situations(occluded=0.4, at_the_edge=0.3, tilted=0.1)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    with Renderer() as renderer:
        rngs = [np.random.default_rng(i) for i in range(60)]
        return [renderer.render(sample_params(BUSY, rng, width=128, height=96), rng) for rng in rngs]


@pytest.mark.slow
def test_boxes_are_the_extent_of_the_masks(samples: list[Sample]) -> None:
    for sample in samples:
        for found in annotate(sample):
            rows, columns = np.nonzero(sample.mask == found.instance_id)
            assert found.area == len(rows)
            if found.area:
                left, top, wide, high = found.bbox  # type: ignore[misc]
                assert (left, top) == (columns.min(), rows.min())
                assert (left + wide - 1, top + high - 1) == (columns.max(), rows.max())
            else:
                assert found.bbox is None


@pytest.mark.slow
def test_occlusion_and_visibility_against_the_thing_alone(samples: list[Sample]) -> None:
    seen = []
    with Renderer() as renderer:
        for sample in samples:
            found = next(x for x in annotate(sample) if x.name == "cube")
            lens = replace(sample.params.camera, k1=0.0)
            alone = replace(sample.params, bodies=(TABLE, sample.params.bodies[1]), camera=lens)
            wide = replace(lens, width=384, height=288, cx=lens.cx + 128, cy=lens.cy + 96)  # the same, with a margin
            _, _, mask = renderer.render_buffers(replace(alone, camera=wide))
            whole, inside = int((mask == 1).sum()), int((mask[96:192, 128:256] == 1).sum())
            assert found.visibility == pytest.approx(found.area / whole, abs=0.12)
            if inside > 150:
                assert found.occlusion == pytest.approx(max(1 - found.area / inside, 0), abs=0.12)
            assert found.truncated == (inside < whole) or abs(inside - whole) < 0.03 * whole
            seen.append((found.occlusion > 0.2, found.truncated))
    assert min(np.sum(seen, axis=0)) > 4  # both happen


def test_poses_bring_the_corners_to_their_pixels(samples: list[Sample]) -> None:
    for sample in samples:
        lens = sample.params.camera
        for found, body in zip(annotate(sample), sample.params.bodies[1:], strict=True):
            points = Rotation.from_rotvec(found.rvec).apply(CUBE_CORNERS * body.size) + found.tvec  # as OpenCV does it
            x, y = (points[:, :2] / points[:, 2:]).T
            bend = 1 + lens.k1 * (x**2 + y**2)
            pixels = np.column_stack([lens.fx * x * bend + lens.cx, lens.fy * y * bend + lens.cy])
            front = points[:, 2] > 0
            assert [c is not None for c in found.corners] == front.tolist()
            np.testing.assert_allclose(pixels[front], [c for c in found.corners if c], atol=2e-3)


def test_seven_corners_of_a_cube_are_seen_from_above_and_the_hidden_one_is_the_farthest() -> None:
    with Renderer() as renderer:
        found = annotate(renderer.render(with_cube(), np.random.default_rng(0)))[0]
        lens = with_cube().camera
        far = np.linalg.norm(CUBE.to_world(CUBE_CORNERS) - lens.eye, axis=1)
        assert [k for k in range(8) if not found.corner_visible[k]] == [far.argmax()]
        wall = Body("wall", "cube", (0.02, 0.3, 0.3), (0.12, 0.09, 0.1), (0, 0, 0.29, 0.957), ("flat-1",), (1, 1, 1))
        hidden = replace(with_cube(), bodies=(*with_cube().bodies, wall))
        found = annotate(renderer.render(hidden, np.random.default_rng(0)))[0]
        assert not any(found.corner_visible) and found.occlusion > 0.9


def test_behind_the_camera_and_out_of_the_picture() -> None:
    rng = np.random.default_rng(0)
    lens = replace(camera(rng), eye=(0.5, 0.0, 0.1), rotation=look_at((0.5, 0, 0.1), (0, 0, 0.1)))
    at = {"behind": (0.9, 0.0, 0.05), "aside": (0.0, 3.0, 0.05), "around": (0.5, 0.0, 0.1)}
    for where in at.values():
        params = SceneParams(lens, LAMP, (TABLE, replace(CUBE, position=where)), "flat-1", PLAIN, "typical")
        with Renderer() as renderer:
            found = annotate(renderer.render(params, rng))[0]
        assert found.bbox is None or where == at["around"]
        assert 0 <= found.visibility <= 1 and not any(found.corner_visible)
        json.loads(json.dumps(found.to_dict()), parse_constant=lambda c: pytest.fail(c))


@settings(max_examples=60)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_lengths_round_trip_through_pycocotools(mask: np.ndarray) -> None:
    runs = encode_rle(mask)
    assert (decode_rle(runs) == mask).all()
    theirs = coco_mask.frPyObjects(runs, *runs["size"])
    assert (coco_mask.decode(theirs) == mask).all()
    assert coco_mask.area(theirs) == mask.sum()
    if mask.any():
        assert tuple(coco_mask.toBbox(theirs)) == mask_to_box(mask)


def test_a_run_as_parquet_and_as_coco(tmp_path: Path) -> None:
    task, provenance = RenderShard(BUSY, 96, 64), Provenance("a test", "pytest")
    run_shards(task, ShardPlan(12, seed=2, shard_size=5), tmp_path / "run", provenance=provenance)
    rows = list(read_rows(tmp_path / "run"))
    assert [row["index"] for row in rows] == list(range(12))
    with Renderer() as renderer:  # picture 7 alone
        again = task.sample(renderer, np.random.SeedSequence(2, spawn_key=(7,)))
    assert again.jpeg_bytes == rows[7]["image"] and again.params == SceneParams.from_json(rows[7]["theta"])
    index = write_coco(tmp_path / "run", tmp_path / "coco", provenance)
    coco = COCO(str(index))
    assert len(coco.getImgIds()) == 12
    for found in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(found)
        assert mask.shape == (64, 96) and mask.sum() == found["area"] and list(mask_to_box(mask)) == found["bbox"]
        assert len(found["keypoints"]) == 24 and math.isfinite(sum(found["keypoints"]))
    picture = Image.open(index.parent / "images" / coco.loadImgs([3])[0]["file_name"])
    assert (np.asarray(picture) == np.asarray(Image.open(io.BytesIO(rows[3]["image"])))).all()
