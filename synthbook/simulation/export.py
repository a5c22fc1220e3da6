"""Samples as files: Parquet shards with image, labels and theta, COCO JSON with run-length masks, contact sheets."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.jobs import shard_paths
from synthbook.core.plots import BLUE, VERMILLION, new_axes, subplots
from synthbook.core.storage import Provenance, atomic_write, write_with_provenance
from synthbook.simulation.labels import Annotation, annotate
from synthbook.simulation.pose import plot_corners, plot_image, save_figure
from synthbook.simulation.randomize import Domain, sample_params
from synthbook.simulation.render import Renderer, Sample
from synthbook.simulation.scene import SceneParams

# ── Parquet shards ──


_SCHEMA = pa.schema([("index", pa.int64()), ("image", pa.binary()), ("labels", pa.string()), ("theta", pa.string())])
_LABEL_FIELDS = [*(field.name for field in fields(Annotation)), "segmentation"]
_THETA_FIELDS = [field.name for field in fields(SceneParams)]


def encode_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask (H, W) as COCO's run lengths: zeros, ones, zeros ... down the columns, zeros first."""
    flat = np.concatenate([[0], mask.ravel(order="F").astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(flat))  # starts and ends of the runs of ones
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    return {"size": list(mask.shape), "counts": counts[: len(counts) - (counts[-1] == 0)].tolist()}


def decode_rle(runs: dict[str, Any]) -> NDArray[np.bool_]:
    """The mask (H, W) that `encode_rle` encoded."""
    values = np.arange(len(runs["counts"])) % 2 == 1
    return np.repeat(values, runs["counts"]).reshape(runs["size"], order="F")


def to_row(index: int, sample: Sample) -> dict[str, Any]:
    """A sample as a row of a shard; each label includes its mask."""
    labels = [a.to_dict() | {"segmentation": encode_rle(sample.mask == a.instance_id)} for a in annotate(sample)]
    return {"index": index, "image": sample.jpeg_bytes, "labels": json.dumps(labels), "theta": sample.params.to_json()}


def to_parquet(rows: list[dict[str, Any]]) -> bytes:
    """Rows as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


@dataclass(frozen=True)
class RenderShard:
    """The task of `synthbook render`: render the images of one shard."""

    domain: Domain
    width: int
    height: int

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("height", self.height)):
            if not isinstance(value, int) or not 16 <= value <= 4096:
                raise InvalidArgument(name, value, "an integer number of pixels, 16 to 4096")

    def __call__(self, items: dict[int, np.random.SeedSequence]) -> bytes:
        with Renderer() as renderer:
            return to_parquet([to_row(i, self.sample(renderer, seed)) for i, seed in items.items()])

    def sample(self, renderer: Renderer, seed: np.random.SeedSequence) -> Sample:
        """Render one image, which depends on the seed alone."""
        rng = np.random.default_rng(seed)
        return renderer.render(sample_params(self.domain, rng, width=self.width, height=self.height), rng)


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of a finished run in order; labels and theta are JSON strings.

    Raises `DataError`, also for a run that an earlier version rendered under other names.
    """
    for path in shard_paths(folder):
        rows = pq.read_table(path).to_pylist()
        _check_fields(folder, rows[0])
        yield from rows


def _check_fields(folder: Path, row: Mapping[str, Any]) -> None:
    """Raise `DataError` if a row of this folder lacks a column, a field of its first label or a field of theta."""
    missing = [f"the column {name}" for name in _SCHEMA.names if row.get(name) is None]
    if not missing:
        labels, theta = json.loads(row["labels"]), json.loads(row["theta"])
        missing += [f"{name} in its labels" for name in _LABEL_FIELDS if labels and name not in labels[0]]
        missing += [f"{name} in theta" for name in _THETA_FIELDS if name not in theta]
    if missing:
        raise DataError(
            f"{folder} lacks {', '.join(missing)}: an earlier version of synthbook rendered it. Accepted is a folder "
            "that this version's `synthbook render` wrote: render it again"
        )


def library_versions() -> dict[str, str]:
    """Versions of the libraries that the bytes depend on: a run can be resumed under the same ones only."""
    return {name: version(name) for name in ("numpy", "pillow", "pyarrow", "pybullet", "scikit-image", "scipy")}


# ── COCO ──


def write_coco(folder: Path, out: Path, provenance: Provenance) -> Path:
    """Write a finished run as COCO, `images/000000.jpg` ... and `instances.json`; returns the path of the latter."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for row in read_rows(folder):
        name = f"{row['index']:06d}.jpg"
        atomic_write(out / "images" / name, row["image"])
        camera = json.loads(row["theta"])["camera"]
        images.append({"id": row["index"], "file_name": name, "width": camera["width"], "height": camera["height"]})
        for label in json.loads(row["labels"]):
            if label["bbox"] is None:
                continue
            category = categories.setdefault(label["category"], len(categories) + 1)
            points = [
                [*pixel, 2 if visible else 1] if pixel else [0, 0, 0]
                for pixel, visible in zip(label["corners"], label["corner_visible"], strict=True)
            ]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": row["index"],
                    "category_id": category,
                    "bbox": label["bbox"],
                    "area": label["area"],
                    "iscrowd": 0,
                    "segmentation": label["segmentation"],
                    "keypoints": [value for point in points for value in point],
                    "num_keypoints": sum(point[2] > 0 for point in points),
                }
            )
    names = [f"corner {k}" for k in range(8)]
    kinds = [{"id": k, "name": name, "keypoints": names} for name, k in categories.items()]
    text = json.dumps({"images": images, "annotations": annotations, "categories": kinds})
    return write_with_provenance(out / "instances.json", text, provenance)


# ── Figures of a run ──


def plot_sample(row: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Draw a row of a shard: the image, the bounding boxes, and the target's corners."""
    ax = new_axes(ax, width=4, height=3)
    with Image.open(io.BytesIO(row["image"])) as file:
        plot_image(np.asarray(file), ax)
    for label in json.loads(row["labels"]):
        target = label["category"] == "target"
        if label["bbox"] is not None:
            left, top, width, height = label["bbox"]
            color, line = (VERMILLION, "-") if target else (BLUE, ":")
            box = Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=color, linestyle=line)
            ax.add_patch(box)
        if target and all(label["corners"]):
            plot_corners(label["corners"], ax)
    return ax


def plot_contact_sheet(rows: Sequence[Mapping[str, Any]], *, columns: int = 6) -> tuple[Figure, list[Axes]]:
    """Draw a contact sheet: one image for each row, with its labels and its index."""
    if not rows:
        raise InvalidArgument("rows", "none", "at least one row of a shard")
    down, across = -(-len(rows) // columns), min(columns, len(rows))
    figure, axes = subplots(down, across, width=2.2 * across, height=1.8 * down)
    for ax in axes[len(rows) :]:
        ax.axis("off")
    for ax, row in zip(axes, rows, strict=False):
        plot_sample(row, ax).set_title(f"{row['index']}", fontsize=8)
    return figure, axes


def write_preview(folder: Path, out: Path, n: int, provenance: Provenance) -> Path:
    """Write the first `n` images of a finished run as one contact sheet."""
    figure, _ = plot_contact_sheet(list(islice(read_rows(folder), n)))
    return save_figure(figure, out, provenance)


_THETA: dict[str, Callable[[Any], Any]] = {
    "distance (m)": lambda t: np.linalg.norm(_target_to_camera(t)),
    "elevation of the camera (degrees)": lambda t: np.degrees(
        np.arcsin(_target_to_camera(t)[2] / np.linalg.norm(_target_to_camera(t)))
    ),
    "elevation of the light (degrees)": lambda t: np.degrees(np.arcsin(t["light"]["direction"][2])),
    "exposure (share of white)": lambda t: t["effects"]["exposure"],
    "noise (gray levels)": lambda t: t["effects"]["noise"],
    "distractors": lambda t: len(t["bodies"]) - 2,
}


def _target_to_camera(theta: Mapping[str, Any]) -> NDArray[np.float64]:
    return np.asarray(np.subtract(theta["camera"]["eye"], theta["bodies"][1]["position"]))


def plot_theta(rows: Sequence[Mapping[str, Any]]) -> list[Axes]:
    """Draw histograms of six components of theta over the rows of a run."""
    if not rows:
        raise InvalidArgument("rows", "none", "at least one row of a shard")
    thetas = [json.loads(row["theta"]) for row in rows]
    _, axes = subplots(2, 3, width=10, height=5)
    for ax, (name, component) in zip(axes, _THETA.items(), strict=True):
        values = np.array([component(theta) for theta in thetas], dtype=float)
        bins: Any = np.arange(values.min(), values.max() + 2) - 0.5 if name == "distractors" else 20
        ax.hist(values, bins=bins, color=BLUE)
        ax.set(xlabel=name, ylabel="scenes")
    return axes
