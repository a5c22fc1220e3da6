"""Run-length masks, Parquet, COCO, and figures of a run."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from synthbook.cli.main import main
from synthbook.core.errors import DataError
from synthbook.core.jobs import ShardPlan, run_shards
from synthbook.core.storage import sha256_file
from synthbook.simulation.export import (
    RenderShard,
    decode_rle,
    encode_rle,
    plot_contact_sheet,
    plot_sample,
    plot_theta,
    read_rows,
    to_parquet,
    to_row,
    write_coco,
    write_preview,
)
from synthbook.simulation.labels import mask_to_box
from synthbook.simulation.localizer import load_keypoint_dataset
from synthbook.simulation.render import Renderer
from synthbook.simulation.scene import SceneParams
from tests.simulation.conftest import BUSY, PROVENANCE, SMALL


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
    task = RenderShard(BUSY, 96, 64)
    run_shards(task, ShardPlan(12, seed=2, shard_size=5), tmp_path / "run", provenance=PROVENANCE)
    rows = list(read_rows(tmp_path / "run"))
    assert [row["index"] for row in rows] == list(range(12))
    with Renderer() as renderer:  # picture 7 alone
        again = task.sample(renderer, np.random.SeedSequence(2, spawn_key=(7,)))
    assert again.jpeg_bytes == rows[7]["image"] and again.params == SceneParams.from_json(rows[7]["theta"])
    index = write_coco(tmp_path / "run", tmp_path / "coco", PROVENANCE)
    coco = COCO(str(index))
    assert len(coco.getImgIds()) == 12
    for annotation in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(annotation)
        assert mask.shape == (64, 96) and mask.sum() == annotation["area"]
        assert list(mask_to_box(mask)) == annotation["bbox"]
        assert len(annotation["keypoints"]) == 24 and math.isfinite(sum(annotation["keypoints"]))
    picture = Image.open(index.parent / "images" / coco.loadImgs([3])[0]["file_name"])
    assert (np.asarray(picture) == np.asarray(Image.open(io.BytesIO(rows[3]["image"])))).all()


def test_a_run_of_an_earlier_version_is_refused_by_name(tmp_path: Path) -> None:
    def with_old_names(items: dict[int, np.random.SeedSequence]) -> bytes:
        with Renderer() as renderer:
            rows = [to_row(i, task.sample(renderer, seed)) for i, seed in items.items()]
        for row in rows:
            row["labels"] = row["labels"].replace('"bbox"', '"box"').replace('"instance_id"', '"body"')
            row["theta"] = row["theta"].replace('"effects"', '"finish"')
        return to_parquet(rows)

    task, folder = RenderShard(BUSY, 32, 24), tmp_path / "old"
    run_shards(with_old_names, ShardPlan(2, seed=1), folder, provenance=PROVENANCE)
    for read in (
        lambda: write_coco(folder, tmp_path / "coco", PROVENANCE),
        lambda: write_preview(folder, tmp_path / "preview.png", 2, PROVENANCE),
        lambda: load_keypoint_dataset(folder),
    ):
        with pytest.raises(
            DataError, match="lacks instance_id in its labels, bbox in its labels, effects in theta"
        ) as e:
            read()
        assert str(folder) in str(e.value) and "`synthbook render` wrote: render it again" in str(e.value)
    assert not (tmp_path / "coco").exists()
    path = folder / "shard-00000.parquet"
    column = pq.read_table(path).drop_columns(["theta"])
    pq.write_table(column, path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][path.name] = sha256_file(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="lacks the column theta"):
        next(read_rows(folder))


@pytest.mark.slow
def test_figures_of_a_run(tmp_path: Path) -> None:
    assert main(["render", "-n", "8", "--out", str(tmp_path / "run"), *SMALL, "--json"]) == 0
    rows = list(read_rows(tmp_path / "run"))
    figure, axes = plot_contact_sheet(rows, columns=3)
    assert [ax.get_title() for ax in axes] == [*map(str, range(8)), ""] and len(figure.axes) == 9
    assert len(plot_sample(rows[0]).patches) >= 1
    labels = [ax.get_xlabel() for ax in plot_theta(rows)]
    assert "distance (m)" in labels and "elevation of the light (degrees)" in labels
    for plot in (plot_contact_sheet, plot_theta):
        with pytest.raises(ValueError, match="at least one row"):
            plot([])
