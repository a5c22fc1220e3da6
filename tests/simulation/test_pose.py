"""Pose from pixels, errors and scores on photographs, detections."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Holdout
from synthbook.core.types import Photographs
from synthbook.datasets import real_cube
from synthbook.simulation import pose
from synthbook.simulation.localizer import KeypointDataset
from synthbook.simulation.pose import (
    SYMMETRIES,
    bootstrap_score,
    locate,
    pose_errors,
    read_intrinsics,
    read_photograph,
    solve_pnp,
)
from synthbook.simulation.randomize import CUBE_SIZE, PHOTO_CAMERA
from synthbook.simulation.scene import CUBE_CORNERS
from tests.simulation.conftest import FixedPredictor


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_pnp_recovers_the_pose_that_projected_the_points(seed: int) -> None:
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


def test_pnp_agrees_with_the_labels_of_the_photographs() -> None:
    photographs = real_cube().data
    for corners, t in zip(photographs.corners[::20], photographs.tvec[::20], strict=True):
        assert np.linalg.norm(solve_pnp(photographs.cube_corners, corners, photographs.K).t - t) < 1e-3


def test_pnp_refuses_degenerate_input() -> None:
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


def test_errors_are_zero_for_the_truth_and_for_its_quarter_turns(renders: KeypointDataset) -> None:
    some = renders.take(slice(0, 12))
    for turn in SYMMETRIES:
        errors = pose_errors(some.corners[:, turn], some.corners, some.points, some.K)
        assert errors.center.max() < 0.05 and errors.corner.max() < 0.05 and errors.pixel.max() < 1e-6
    off = pose_errors(some.corners + 3, some.corners, some.points, some.K)
    assert off.pixel == pytest.approx(np.hypot(3, 3)) and off.center.min() > 0.3


def planted() -> Holdout[Photographs]:
    """Photographs that are black but for one pixel for each corner, which says its number."""
    real = real_cube().data
    images = np.zeros_like(real.images)
    for image, corners in zip(images, real.corners, strict=True):
        for k, (u, v) in enumerate(np.rint(corners).astype(int)):
            image[v, u] = 200 + k
    return Holdout(replace(real, images=images))


def read_planted(images: np.ndarray) -> np.ndarray:
    predictions = []
    for image in images:
        corners = []
        for k in range(8):
            rows, columns = np.nonzero(image == 200 + k)
            corners.append([columns.mean(), rows.mean()] if len(rows) else [np.nan, np.nan])
        known = np.array(corners)
        predictions.append(np.where(np.isnan(known), np.nanmean(known, axis=0), known))  # two corners on one pixel
    return np.array(predictions)


@pytest.mark.slow
def test_an_exact_predictor_has_small_errors_in_every_crop() -> None:
    held = planted()
    for errors in (
        pose.photo_errors(read_planted, held),
        pose.random_crop_errors(read_planted, held, seed=2),
    ):
        assert np.median(errors.pixel) < 0.5 and np.median(errors.center) < 0.5
    real = held.data
    shown = real.corner_points @ real.K.T
    np.testing.assert_allclose(shown[..., :2] / shown[..., 2:], real.corners, atol=0.05)


def test_constant_baseline_and_block_bootstrap_intervals() -> None:
    constant = pose.constant_baseline_errors(real_cube())
    assert 2 < constant.center.mean() < 8  # about 5 cm
    by_block, by_frame = bootstrap_score("x", constant), bootstrap_score("x", constant, block=1)
    assert by_block.center == pytest.approx(constant.center.mean())
    wide, narrow = (s.center_high - s.center_low for s in (by_block, by_frame))
    assert wide > 1.5 * narrow  # neighbors are alike
    assert "constant" in str(bootstrap_score("constant", constant)) and "cm" in str(by_block)
    with pytest.raises(InvalidArgument, match="block"):
        bootstrap_score("x", constant, block=100)
    with pytest.raises(InvalidArgument, match="Holdout"):
        pose.photo_errors(read_planted, real_cube().data)  # type: ignore[arg-type]


def test_locate_scales_images_of_any_size(photo: Path) -> None:
    for size in ((640, 480), (320, 240), (200, 333), (1000, 50)):
        image = np.zeros(size[::-1], dtype=np.uint8)
        detection = locate(FixedPredictor(), image)  # type: ignore[arg-type]
        assert detection.corners[0] == pytest.approx([0.4 * size[0] - 0.5, 0.7 * size[1] - 0.5], abs=0.06 * max(size))
    turned = Image.fromarray(np.zeros((20, 60), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright
    turned.save("turned.jpg", exif=exif)
    assert read_photograph(Path("turned.jpg")).shape == (60, 20)


@pytest.mark.parametrize(
    "text", ["{}", "[1]", "[[0, 0, 1], [0, 1, 1], [0, 0, 1]]", "[[1, 0, 0], [0, 1, 0], [0, 0, 2]]", "x"]
)
def test_invalid_intrinsics_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "K.json").write_text(text)
    with pytest.raises(InvalidArgument, match="intrinsics"):
        read_intrinsics(tmp_path / "K.json")
