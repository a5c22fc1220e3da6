"""The corner network, its loss, data and training; the shipped checkpoints on real photographs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from synthbook.core.checkpoints import WEIGHTS_NAME, CheckpointConfig
from synthbook.core.errors import DataError, HoldoutError, InvalidArgument
from synthbook.core.jobs import ShardPlan, run_shards
from synthbook.core.storage import read_provenance, sha256_file
from synthbook.core.table import Holdout
from synthbook.datasets import data_folder, real_cube
from synthbook.experiments.randomization import read_log, render_dataset
from synthbook.simulation import localizer
from synthbook.simulation.export import RenderShard
from synthbook.simulation.localizer import (
    CROP_PX,
    FLIP_INDEX,
    LOG,
    PRETRAINED,
    PRETRAINED_NARROW,
    CornerNet,
    KeypointDataset,
    Localizer,
    LocalizerConfig,
    corner_loss,
    crop_affines,
    crop_batches,
    crop_to_image,
    full_image_batches,
    half_size_batches,
    image_to_crop,
    load_keypoint_dataset,
    load_pretrained,
    predict_corners,
    refine_corners,
    soft_argmax,
    train_corner_net,
    train_localizer,
    warp_crop,
)
from synthbook.simulation.pose import (
    SYMMETRIES,
    bootstrap_score,
    constant_baseline_errors,
    photo_errors,
    pose_errors,
    random_crop_errors,
    solve_pnp,
)
from synthbook.simulation.randomize import CUBE_SIZE, DOMAINS
from synthbook.simulation.scene import CUBE_CORNERS
from tests.mutation import mutant
from tests.simulation.conftest import PROVENANCE


def peaked(corners: torch.Tensor, stride: int, h: int, w: int) -> torch.Tensor:
    """Maps that are narrow bells around the corners (N, 8, 2)."""
    y, x = torch.arange(h) * stride + (stride - 1) / 2, torch.arange(w) * stride + (stride - 1) / 2
    away = (x - corners[..., :1])[..., None, :] ** 2 + (y - corners[..., 1:])[..., :, None] ** 2
    scores = -away / (2 * stride**2)
    return scores.flatten(2).log_softmax(-1).view(scores.shape)


@pytest.mark.parametrize("stride", [2, 4])
def test_soft_argmax_has_subpixel_accuracy(stride: int) -> None:
    corners = torch.rand(5, 8, 2, generator=torch.Generator().manual_seed(0)) * 30 + 20
    read = soft_argmax(peaked(corners, stride, 80 // stride, 80 // stride), stride)
    assert (read - corners).abs().max() < 0.01
    net = CornerNet(8, stride)
    assert net(torch.rand(2, 1, 48, 64)).shape == (2, 8, 48 // stride, 64 // stride)
    assert (net(torch.rand(1, 1, 50, 70)).exp().sum((2, 3)) - 1).abs().max() < 1e-4


def test_the_loss_is_minimal_at_the_corners_for_every_quarter_turn() -> None:
    corners = torch.rand(4, 8, 2, generator=torch.Generator().manual_seed(1)) * 40 + 10
    maps = peaked(corners, 4, 16, 16)
    least = corner_loss(maps, corners, 4)
    for turn in SYMMETRIES:
        assert corner_loss(maps, corners[:, turn], 4) == pytest.approx(float(least))
    assert corner_loss(maps, corners[:, SYMMETRIES[1]], 4, symmetric=False) > least + 1
    assert corner_loss(maps, corners + 4, 4) > least + 0.3
    assert corner_loss(maps, corners[:, FLIP_INDEX], 4) > least + 1  # a mirror image is no turn


def test_mutants_of_the_loss_are_off_by_a_fraction_of_a_cell() -> None:
    corners = torch.rand(4, 8, 2, generator=torch.Generator().manual_seed(1)) * 40 + 10
    maps = peaked(corners, 4, 16, 16)
    for old, new in (
        ("2 * (truth - (stride - 1) / 2) / size - 1", "2 * truth / size - 1"),
        ("arange(size) * stride + (stride - 1) / 2", "arange(size) * stride"),
    ):
        broken = mutant(localizer, old, new)
        assert broken.corner_loss(maps, corners, 4) > corner_loss(maps, corners, 4) + 0.05


@pytest.mark.slow
def test_canonical_corners_start_at_the_nearest_and_mirrors_stay_cubes(renders: KeypointDataset) -> None:
    ordered = renders.canonical_corners().numpy()
    depth = np.take_along_axis(renders.points[..., 2], _order(renders.corners, ordered), axis=1)
    assert (depth[:, :4].argmin(1) == 0).all()
    width = renders.images.shape[2]
    for pixels, K in zip(ordered[:10], renders.K, strict=False):
        mirrored = pixels[FLIP_INDEX.numpy()] * [-1, 1] + [width - 1, 0]
        mirrored_K = K.copy()
        mirrored_K[0, 2] = width - 1 - K[0, 2]
        assert solve_pnp(CUBE_CORNERS * CUBE_SIZE, mirrored, mirrored_K).reprojection_rmse < 1e-2
        wrong = pixels * [-1, 1] + [width - 1, 0]  # the same order is a cube inside out
        assert solve_pnp(CUBE_CORNERS * CUBE_SIZE, wrong, mirrored_K).reprojection_rmse > 1


def _order(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.abs(after[:, :, None] - before[:, None]).sum(-1).argmin(-1)


def test_crops_and_their_corners_agree(renders: KeypointDataset) -> None:
    ramp = np.tile((np.arange(320) // 2).astype(np.uint8), (20, 240, 1))
    slope = replace(renders.take(slice(0, 20)), images=ramp)
    corners = torch.from_numpy(slope.corners).float()
    matrix = crop_affines(corners)
    torch.testing.assert_close(crop_to_image(matrix, image_to_crop(matrix, corners)), corners, atol=1e-3, rtol=0)
    views = warp_crop(torch.from_numpy(slope.images), matrix)
    assert views.shape == (20, 1, CROP_PX, CROP_PX)
    middle = torch.full((20, 1, 2), (CROP_PX - 1) / 2)
    across = crop_to_image(matrix, middle)[:, 0, 0]
    assert (views[:, 0, 31:33, 31:33].mean((1, 2)) - across / 2 + 0.25).abs().max() < 0.6
    inside = image_to_crop(matrix, corners)
    assert inside.min() > 5 and inside.max() < CROP_PX - 6
    x, y = crop_batches(slope)(np.arange(20), np.random.default_rng(0))
    assert x.shape == (20, 1, CROP_PX, CROP_PX) and y.shape == (20, 8, 2) and (y.std(0) > 0.5).all()
    half, where = half_size_batches(slope)(np.arange(20), np.random.default_rng(0))
    assert half.shape == (20, 1, 120, 160)
    torch.testing.assert_close(2 * where + 0.5, slope.canonical_corners())


@pytest.mark.slow
def test_training_learns_is_reproducible_and_reports_losses(renders: KeypointDataset) -> None:
    torch.set_num_threads(1)
    seen: list[float] = []
    small = KeypointDataset(
        renders.images[:, ::4, ::4].copy(), (renders.corners + 0.5) / 4 - 0.5, renders.points, renders.K / 4
    )
    nets = [
        train_corner_net(
            small, full_image_batches(small), seed=3, epochs=12, width=8, callback=lambda *a: seen.append(a[2])
        )
        for _ in range(2)
    ]
    steps = len(seen) // 2
    assert steps == 12 * (len(small) // 64)
    assert np.mean(seen[steps - 4 : steps]) < np.mean(seen[:4]) - 0.5
    for one, two in zip(*(net.state_dict().values() for net in nets), strict=True):
        assert torch.equal(one, two)
    predicted = predict_corners(nets[0], small.images[:5])
    assert predicted.shape == (5, 8, 2) and np.isfinite(predicted).all()
    assert refine_corners(CornerNet(8, 2), small.images[:5], predicted).shape == (5, 8, 2)


class Stopped(Exception):
    """What stops a training in these tests."""


@pytest.mark.slow
def test_resumed_training_gives_the_same_weights(renders: KeypointDataset, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    small = renders.take(slice(0, 128))

    def trained(checkpoint: CheckpointConfig | None, *, dies: int | None = None) -> tuple[CornerNet, list[float]]:
        epoch_losses: list[float] = []

        def on_epoch_end(losses: list[float], _: CornerNet) -> None:
            epoch_losses[:] = losses

        def callback(step: int, steps: int, loss: float) -> None:
            if step == dies:
                raise Stopped

        net = train_corner_net(
            small,
            crop_batches(small),
            seed=3,
            epochs=4,
            width=4,
            stride=2,
            callback=callback,
            on_epoch_end=on_epoch_end,
            checkpoint=checkpoint,
        )
        return net, epoch_losses

    whole, losses = trained(None)
    with pytest.raises(Stopped):
        trained(CheckpointConfig(tmp_path, every_n_steps=1), dies=7)  # of 8 steps, two in an epoch
    with pytest.raises(InvalidArgument, match="or resume"):
        trained(CheckpointConfig(tmp_path, every_n_steps=1))
    resumed, again = trained(CheckpointConfig(tmp_path, every_n_steps=1, resume=True))
    assert again == losses and len(losses) == 4
    for one, two in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    done, again = trained(CheckpointConfig(tmp_path, every_n_steps=1, resume=True), dies=1)  # nothing is left to do
    assert again == losses and torch.equal(done.maps.weight, whole.maps.weight)
    other = replace(small, images=255 - small.images)
    with pytest.raises(InvalidArgument, match=r"differs in .*crc32"):
        train_corner_net(
            other,
            crop_batches(other),
            seed=3,
            epochs=4,
            width=4,
            stride=2,
            checkpoint=CheckpointConfig(tmp_path, every_n_steps=1, resume=True),
        )


@pytest.mark.slow
def test_bfloat16_is_used_only_where_the_cpu_has_it(renders: KeypointDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    assert not localizer.has_bfloat16()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert localizer.has_bfloat16()
    some = renders.take(slice(0, 64))
    net = train_corner_net(some, half_size_batches(some), seed=0, epochs=1, width=4, bfloat16=True)
    assert np.isfinite(predict_corners(net, some.images[:2])).all()


def test_nothing_is_trained_on_photographs(renders: KeypointDataset, tmp_path: Path) -> None:
    for given in (real_cube(), Holdout(renders)):
        with pytest.raises(HoldoutError):
            train_corner_net(given, full_image_batches(renders), seed=0, epochs=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="at least 64"):
        train_corner_net(renders.take(slice(0, 9)), full_image_batches(renders), seed=0, epochs=1)
    with pytest.raises(InvalidArgument, match="epochs"):
        train_corner_net(renders, full_image_batches(renders), seed=0, epochs=0)
    with pytest.raises(DataError, match="has not finished"):
        load_keypoint_dataset(tmp_path)


@pytest.mark.slow
def test_both_networks_are_trained_saved_and_loaded(run: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    config = LocalizerConfig(1, 8, 8)
    log = train_localizer(
        run, tmp_path / "model", seed=1, config=config, n_jobs=2, callback=lambda *step: steps.append(step)
    )
    total = 2 * (log["pictures"] // 64)
    assert steps == sorted(steps) and steps[-1] == (total, total) and {of for _, of in steps} == {total}
    assert log["pictures"] > 64 and {name: len(losses) for name, losses in log["losses"].items()} == {
        "coarse": 1,
        "fine": 1,
    }
    assert not (tmp_path / "model" / "state").exists()
    net = Localizer.load(tmp_path / "model")
    images = load_keypoint_dataset(run, 4).images
    assert net(images).shape == (4, 8, 2)
    with pytest.raises(InvalidArgument, match="nothing is overwritten"):
        train_localizer(run, tmp_path / "model", seed=1, config=config)
    run_shards(RenderShard(DOMAINS["cube"], 64, 48), ShardPlan(3, seed=1), tmp_path / "tiny", provenance=PROVENANCE)
    with pytest.raises(InvalidArgument, match="320 x 240"):
        train_localizer(tmp_path / "tiny", tmp_path / "other", seed=1, config=LocalizerConfig())


FOLDER = data_folder() / PRETRAINED


def test_the_shipped_log_describes_the_training() -> None:
    log = json.loads((FOLDER / LOG).read_text())
    assert log["sha256"] == sha256_file(FOLDER / WEIGHTS_NAME)
    assert (FOLDER / WEIGHTS_NAME).stat().st_size < 3_000_000
    assert log["command"].startswith("synthbook dev train localizer") and log["renders"]["settings"]["scene"] == "cube"
    assert len(log["losses"]["coarse"]) == len(log["losses"]["fine"]) == log["recipe"]["epochs"]
    for losses in log["losses"].values():
        assert losses[-1] < losses[0] / 2
    assert read_provenance(FOLDER / LOG).synthetic_share == 1.0


def test_the_shipped_log_has_every_evaluation_on_the_photographs() -> None:
    log = read_log(FOLDER / "photographs.jsonl")
    assert all({"date", "commit", "model", "scores"} <= entry.keys() for entry in log)
    shown = log[-1]["scores"]
    assert [score.name for score in shown] == ["as they are", "through random windows", "always the mean position"]


@pytest.mark.slow
def test_the_narrow_localizer_fails_on_photographs() -> None:
    narrow = load_pretrained(PRETRAINED_NARROW)
    home = render_dataset(DOMAINS["cube-narrow"], 60, seed=6, width=320, height=240)
    at_home = pose_errors(narrow(home.images), home.corners, home.points, home.K)
    assert np.median(at_home.center) < 0.5
    away = bootstrap_score("now", photo_errors(narrow, real_cube()))
    assert away.center_low > 3 * bootstrap_score("shipped", photo_errors(load_pretrained(), real_cube())).center_high


@pytest.mark.slow
def test_errors_on_real_photographs_in_cm() -> None:
    """At most 1.0 cm for the center and 1.2 cm for the corners, also through random windows."""
    net, held = load_pretrained(), real_cube()
    shipped = [entry["scores"] for entry in read_log(FOLDER / "photographs.jsonl") if entry["model"] == "shipped"][-1]
    for errors, logged in ((photo_errors(net, held), shipped[0]), (random_crop_errors(net, held, seed=0), shipped[1])):
        one = bootstrap_score("now", errors)
        assert one.center_high < 1.0 and one.corner_high < 1.2
        assert one.center == pytest.approx(logged.center, abs=0.02)
    assert constant_baseline_errors(held).center.mean() > 5 * one.center


def test_a_missing_or_foreign_checkpoint_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localizer, "data_folder", lambda: tmp_path)
    with pytest.raises(DataError, match="git checkout -- data/artifacts/localizer"):
        load_pretrained()
    with pytest.raises(DataError, match="not of 'cube-localizer'"):
        Localizer.load(data_folder() / "artifacts" / "feature-nets" / "digits-cnn")
